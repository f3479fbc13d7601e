//! Asking before something is cut off.

use std::io::{IsTerminal, Write};

use clap::Args;

use super::failure::{Exit, Failure};
use super::output::print_line;

/// Options of a verb that cuts something off.
#[derive(Debug, Args)]
pub(crate) struct ConfirmArgs {
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Say what would happen, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl ConfirmArgs {
    /// Whether to go on with what loses nothing: always, unless it is a dry run, which prints `effect`.
    pub(crate) fn go_on_unasked(&self, effect: &str) -> Result<bool, Failure> {
        if self.dry_run {
            print_line(format_args!(
                "{effect}. Nothing was changed: this is a dry run"
            ))?;
        }
        Ok(!self.dry_run)
    }

    /// Whether to go on. `effect` is what happens then, a sentence without its full stop.
    ///
    /// A dry run prints it and does not go on. Without `--yes`, a person at a terminal is asked; if there is none it fails.
    pub(crate) fn go_on(&self, effect: &str) -> Result<bool, Failure> {
        if !self.go_on_unasked(effect)? || self.yes {
            return Ok(!self.dry_run);
        }
        if !std::io::stdin().is_terminal() {
            return Err(
                Failure::new(Exit::Usage, "nobody can be asked whether this is wanted")
                    .help("give --yes if it is, or --dry-run to see what it would do"),
            );
        }
        let mut err = std::io::stderr().lock();
        // Whoever closed standard error cannot see the question; the answer is read all the same.
        let _ = write!(err, "{effect}. Go on? [y/N] ");
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer);
        match (read, answer.trim()) {
            (Ok(_), "y" | "Y" | "yes") => Ok(true),
            _ => Err(Failure::new(Exit::Failed, "nothing was changed")),
        }
    }
}
