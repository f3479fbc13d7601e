//! One row of the input, whatever its form, and what can be wrong with it.

use std::fmt;
use std::ops::Range;

use super::super::failure::{Exit, Failure};
use super::record::Record;
use super::splice::splice;

/// The form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// RFC 4180 with a header.
    Csv,
    /// One JSON value a line. `json_values`: values of any type are encrypted, as their JSON text.
    JsonLines {
        /// Whether values of any type are encrypted, as their JSON text.
        json_values: bool,
    },
}

impl Shape {
    /// What such a file is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Shape::Csv => "a CSV file",
            Shape::JsonLines { .. } => "JSON lines",
        }
    }
}

/// A record of a CSV file, or a line of JSON.
#[derive(Clone, Debug)]
pub(super) enum Row {
    /// A record, or a blank line.
    Csv(Record),
    /// A line, or a blank one.
    Json(Line),
}

/// A line with its line end.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    /// Everything, line end included.
    pub(super) raw: Vec<u8>,
    /// Counted from 1.
    pub(super) line: u64,
    /// Counted from 1; blank lines do not count.
    pub(super) row: u64,
}

/// Where a value is in its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The number of a field of a record.
    Field(usize),
    /// A part of a line.
    Text(Range<usize>),
}

impl Row {
    /// Everything, line end included.
    pub(super) fn raw(&self) -> &[u8] {
        match self {
            Row::Csv(record) => &record.raw,
            Row::Json(line) => &line.raw,
        }
    }

    /// True for a line with nothing on it.
    pub(super) fn is_blank(&self) -> bool {
        match self {
            Row::Csv(record) => record.is_blank(),
            Row::Json(line) => line.raw.trim_ascii().is_empty(),
        }
    }

    /// Appends the row to `out` with some of its values replaced: values of records as they are, parts of lines as JSON text,
    /// in the order of their places. Everything else is copied.
    pub(super) fn write_with<'v>(
        &self,
        replacements: impl IntoIterator<Item = (&'v Place, &'v [u8])>,
        out: &mut Vec<u8>,
    ) {
        let replacements = replacements.into_iter();
        match self {
            Row::Csv(record) => record.write_with(
                replacements.filter_map(|(place, value)| match place {
                    Place::Field(index) => Some((*index, value)),
                    Place::Text(_) => None,
                }),
                out,
            ),
            Row::Json(line) => splice(
                &line.raw,
                replacements.filter_map(|(place, text)| match place {
                    Place::Text(range) => Some((range.clone(), text)),
                    Place::Field(_) => None,
                }),
                out,
            ),
        }
    }

    /// Something that is wrong with the row, or with its value in `column`.
    pub(super) fn problem(
        &self,
        column: Option<&str>,
        what: impl fmt::Display,
        help: &'static str,
    ) -> Problem {
        let (row, line) = match self {
            Row::Csv(record) => (record.row, record.line),
            Row::Json(line) => (line.row, line.line),
        };
        Problem {
            row,
            line,
            column: column.map(str::to_owned),
            what: what.to_string(),
            help,
            exit: Exit::Invalid,
        }
    }
}

/// What is wrong with a row or one of its values, without the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The row, counted from 1 without the header and blank lines.
    pub(crate) row: u64,
    /// The line on which it begins, counted from 1.
    pub(crate) line: u64,
    /// The column; none if the row as a whole is wrong.
    pub(crate) column: Option<String>,
    /// What is wrong, to go on after the place: ` is not a ciphertext`, `: the reason`.
    pub(crate) what: String,
    /// What to do.
    pub(crate) help: &'static str,
    /// The exit code.
    pub(crate) exit: Exit,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {} (line {})", self.row, self.line)?;
        if let Some(column) = &self.column {
            write!(f, ", column `{column}`")?;
        }
        f.write_str(&self.what)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        let failure = Failure::new(problem.exit, &problem);
        match problem.help {
            "" => failure,
            help => failure.help(help),
        }
    }
}
