//! What a failed command prints, and its exit code.

use std::error::Error as StdError;
use std::fmt;
use std::io::Write;

use fieldkeep_client::{ErrorKind, reason};
use tonic::Code;

/// The exit codes of the command line. They are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It failed for a reason that has no code of its own.
    Failed = 1,
    /// The arguments are wrong.
    Usage = 2,
    /// The caller may not do this, or could not be identified.
    Refused = 3,
    /// What was named does not exist.
    NotFound = 4,
    /// The input is not valid, or does not decrypt.
    Invalid = 5,
    /// The service cannot be reached or cannot answer now.
    Unavailable = 6,
    /// It exists already, or its state does not allow this.
    Conflict = 7,
    /// Ended by Ctrl-C or SIGTERM.
    Interrupted = 130,
    /// Whoever read the output went away, as `head` does. Nothing is said about it.
    PipeClosed = 141,
}

/// Why a command failed: what, why and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    what: String,
    causes: Vec<String>,
    help: Option<String>,
    request_id: Option<String>,
}

impl Failure {
    /// A failure with nothing below it.
    pub(crate) fn new(exit: Exit, what: impl fmt::Display) -> Failure {
        Failure {
            exit,
            what: what.to_string(),
            causes: Vec::new(),
            help: None,
            request_id: None,
        }
    }

    /// Adds what to do.
    #[must_use]
    pub(crate) fn help(mut self, help: impl fmt::Display) -> Failure {
        self.help = Some(help.to_string());
        self
    }

    /// Adds an error and everything that caused it.
    #[must_use]
    pub(crate) fn caused_by(mut self, error: &(dyn StdError + 'static)) -> Failure {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            // Some errors repeat the message of what caused them.
            if !self.causes.last().unwrap_or(&self.what).contains(&text) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Puts the failure below another: this one becomes the cause, its help stays.
    #[must_use]
    pub(crate) fn while_doing(mut self, what: impl fmt::Display) -> Failure {
        let inner = std::mem::replace(&mut self.what, what.to_string());
        self.causes.insert(0, inner);
        self
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The first line alone.
    #[cfg(test)]
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// What and why, without what to do about it.
    pub(crate) fn in_one_line(&self) -> String {
        std::iter::once(&self.what)
            .chain(&self.causes)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(": ")
    }

    /// What to do about it.
    pub(crate) fn remedy(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Writes it to standard error.
    pub(crate) fn print(&self) {
        if self.exit == Exit::PipeClosed {
            return;
        }
        // Nothing is left to tell if standard error is closed.
        let _ = write!(std::io::stderr().lock(), "{self}");
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.what)?;
        for cause in &self.causes {
            writeln!(f, "  cause: {cause}")?;
        }
        if let Some(help) = &self.help {
            writeln!(f, "  help: {help}")?;
        }
        if let Some(request_id) = &self.request_id {
            writeln!(
                f,
                "  request: {request_id} (in the audit trail and the service's log)"
            )?;
        }
        Ok(())
    }
}

impl From<fieldkeep_client::Error> for Failure {
    fn from(error: fieldkeep_client::Error) -> Failure {
        let (exit, help) = match error.kind() {
            ErrorKind::Config => (Exit::Usage, None),
            ErrorKind::Connect => (
                Exit::Unavailable,
                Some(
                    "the address is that of --addr or FIELDKEEP_ADDR, the CA that of --ca or FIELDKEEP_CA",
                ),
            ),
            ErrorKind::Refused => (Exit::Refused, refused_help(&error)),
            ErrorKind::NotFound => (Exit::NotFound, None),
            ErrorKind::DecryptionFailed => (
                Exit::Invalid,
                Some(
                    "use the field and context it was encrypted with, as an identity of the tenant that owns the key",
                ),
            ),
            ErrorKind::InvalidArgument => (Exit::Invalid, None),
            ErrorKind::AlreadyExists | ErrorKind::FailedPrecondition | ErrorKind::Conflict => {
                (Exit::Conflict, None)
            }
            ErrorKind::Unavailable | ErrorKind::DeadlineExceeded | ErrorKind::ResourceExhausted => {
                (Exit::Unavailable, None)
            }
            _ if error.code() == Some(Code::Unimplemented) => (
                Exit::Failed,
                Some(
                    "that is for an admin: give the admin listener's address (--addr or FIELDKEEP_ADDR) and the files of an identity \
                     with the role `admin` (--cert and --key-file, or FIELDKEEP_CERT and FIELDKEEP_KEY)",
                ),
            ),
            _ => (Exit::Failed, None),
        };
        let mut failure = Failure::new(exit, &error).caused_by(&error);
        failure.help = help.map(str::to_owned);
        // A name that is not there, or there already, needs no search in logs.
        let plain = matches!(exit, Exit::NotFound | Exit::Conflict);
        if let (false, fieldkeep_client::Error::Server(server)) = (plain, &error) {
            failure.request_id = server.request_id().map(str::to_owned);
        }
        failure
    }
}

/// What to do about a refusal that does not say it.
fn refused_help(error: &fieldkeep_client::Error) -> Option<&'static str> {
    (error.reason() == Some(reason::PERMISSION_DENIED)).then_some(
        "as an access admin, `fieldkeep access explain` says what an identity lacks, and `fieldkeep grant list` what is granted",
    )
}

/// A failure to read or write a file, with the file's name.
pub(crate) fn file_failure(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Failure {
    let failure = Failure::new(
        Exit::Failed,
        format_args!("cannot {doing} `{}`", path.display()),
    )
    .caused_by(error);
    match error.kind() {
        std::io::ErrorKind::NotFound => failure.help("check the path"),
        std::io::ErrorKind::PermissionDenied => {
            failure.help("check the permissions of the file and its directory")
        }
        std::io::ErrorKind::StorageFull => {
            failure.help("make space on that file system and run the command again")
        }
        std::io::ErrorKind::AlreadyExists => {
            failure.help("choose another path, or remove that file first")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cause_and_help_are_lines_of_their_own() {
        let inner = std::io::Error::other("disk on fire");
        let failure = Failure::new(Exit::Failed, "cannot write `x`")
            .caused_by(&inner)
            .help("use water");
        assert_eq!(
            failure.to_string(),
            "error: cannot write `x`\n  cause: disk on fire\n  help: use water\n"
        );
        let failure = failure.while_doing("cannot encrypt `y`");
        assert!(
            failure
                .to_string()
                .starts_with("error: cannot encrypt `y`\n  cause: cannot write `x`\n")
        );
    }
}
