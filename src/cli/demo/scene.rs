//! How the demo looks: headings, lines and tables; plain when it is not on a terminal.

use super::super::failure::Failure;
use super::super::output::{is_styled, print_line, table};

/// Where the demo is shown.
pub(super) struct Scene {
    styled: bool,
}

impl Scene {
    /// Standard output.
    pub(super) fn new() -> Scene {
        Scene {
            styled: is_styled(),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.styled {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// A heading.
    pub(super) fn title(&self, text: &str) -> Result<(), Failure> {
        print_line(format_args!("\n{}", self.paint("1", text)))
    }

    /// A line of text.
    pub(super) fn say(&self, text: &str) -> Result<(), Failure> {
        print_line(text)
    }

    /// Something that was expected and happened.
    pub(super) fn done(&self, text: &str) -> Result<(), Failure> {
        print_line(format_args!("  {} {text}", self.paint("32", "ok")))
    }

    /// A call that was refused, as it should be.
    pub(super) fn refused(&self, text: &str) -> Result<(), Failure> {
        print_line(format_args!("  {} {text}", self.paint("31", "refused")))
    }

    /// A table below a line of text.
    pub(super) fn table(&self, header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
        let text = table(Some(header), rows);
        text.lines()
            .try_for_each(|line| print_line(format_args!("  {line}")))
    }
}
