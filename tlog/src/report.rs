//! Signed compliance reports: what the key of a log says of a report that was made of the log's own records, and the file that
//! stands beside the report and carries that with the checkpoint that the report rests on.
//!
//! The same key signs checkpoints, so that the signed text must never be taken for one: its first line is another than the log's
//! origin, which whoever verifies a checkpoint compares (C2SP tlog-checkpoint), and its second line is no number, so that who does
//! not compare finds no checkpoint in it either.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::key::{SigningKey, VerifierKey};
use crate::log_id::LogId;
use crate::note::{self, MAX_NOTE_BYTES, NoteError};
use crate::text::parse_decimal;
use crate::tree::TreeHead;

#[cfg(test)]
mod tests;

/// What the first line begins with; the log's id follows.
const FIRST_LINE: &str = "fieldkeep/audit-report/";

/// The longest file with a signature, in bytes.
pub const MAX_SIGNATURE_BYTES: usize = 2 * MAX_NOTE_BYTES;

/// Why a report is not signed, or its signature proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The file is longer than [`MAX_SIGNATURE_BYTES`].
    #[error("the signature of the report is longer than {MAX_SIGNATURE_BYTES} bytes")]
    TooLong,
    /// It begins in another way, as a checkpoint or a proof does.
    #[error(
        "this is not the signature of a report: its first line is not `{FIRST_LINE}<log id>`; `audit report` writes it beside the report"
    )]
    FirstLine,
    /// There are more or fewer lines.
    #[error("the signed text about the report has not the 8 lines that it must have")]
    Lines,
    /// A line is malformed or another one.
    #[error("the signed text about the report has no valid line `{0} <value>` where one must be")]
    Line(&'static str),
    /// There is no checkpoint behind the signature.
    #[error("the signature of the report has no checkpoint behind it; it is cut off")]
    NoCheckpoint,
    /// Known keys signed, but not the one of the log that the text names.
    #[error("the report on the log `{0}` is not signed by the key of that log")]
    NotByTheLog(String),
    /// The text about the report is malformed as a note, or its signatures are not good.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The checkpoint is malformed, or not signed as it must be.
    #[error("the checkpoint that the report rests on: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint is good, but of another log, size or root.
    #[error(
        "the report rests on a checkpoint of size {signed} of its log, and the one behind its signature is another, of size {found}"
    )]
    OtherCheckpoint {
        /// The size that was signed.
        signed: u64,
        /// The size of the checkpoint that is there.
        found: u64,
    },
    /// The signature is good, but of another report.
    #[error(
        "the report is not the one that was signed: its SHA-256 is `{found}`, and `{signed}` was signed; it was changed, or the signature is another report's"
    )]
    OtherReport {
        /// The hash that was signed, hexadecimal.
        signed: String,
        /// The hash of the report that is there, hexadecimal.
        found: String,
    },
}

/// In which form a report was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportForm {
    /// Plain text.
    Text,
    /// JSON.
    Json,
    /// One HTML page.
    Html,
}

impl ReportForm {
    /// Every form.
    pub const ALL: [Self; 3] = [Self::Text, Self::Json, Self::Html];

    /// Its name in the signed text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Html => "html",
        }
    }
}

/// What is signed about a report. `Display` and `FromStr` are the text, which nobody has signed; what counts is made with
/// [`ReportSignature::make`] and read with [`ReportSignature::verify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportStatement {
    /// The log whose records the report is about.
    pub log: LogId,
    /// The form of the report.
    pub form: ReportForm,
    /// SHA-256 of the report's bytes.
    pub sha256: [u8; 32],
    /// The report counts calls that ended at this time or later: microseconds since the Unix epoch, at most 2^62.
    pub from_us: u64,
    /// And before this time, which is later: microseconds since the Unix epoch, at most 2^62.
    pub to_us: u64,
    /// The report counts all records of the range from this index on; those before were pruned. 0 if none was. At most the size.
    pub first: u64,
    /// And below the size of this, the head of the checkpoint that the report rests on.
    pub head: TreeHead,
}

impl fmt::Display for ReportStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TreeHead { size, root } = self.head;
        writeln!(f, "{FIRST_LINE}{}", self.log)?;
        writeln!(f, "form {}", self.form.as_str())?;
        writeln!(f, "sha256 {}", HEXLOWER.encode_display(&self.sha256))?;
        writeln!(f, "from {}\nto {}", self.from_us, self.to_us)?;
        writeln!(f, "first {}\nsize {size}\nroot {root}", self.first)
    }
}

impl FromStr for ReportStatement {
    type Err = ReportError;

    fn from_str(text: &str) -> Result<Self, ReportError> {
        let rest = text
            .strip_prefix(FIRST_LINE)
            .ok_or(ReportError::FirstLine)?;
        let rest = rest.strip_suffix('\n').ok_or(ReportError::Lines)?;
        // One more than there may be shows that there are too many.
        let lines: Vec<&str> = rest.split('\n').take(9).collect();
        let [log, form, sha256, from, to, first, size, root] = *lines.as_slice() else {
            return Err(ReportError::Lines);
        };
        let form = value(form, "form")?;
        let statement = Self {
            log: LogId::from_bytes(hexadecimal(log).ok_or(ReportError::FirstLine)?),
            form: ReportForm::ALL
                .into_iter()
                .find(|known| known.as_str() == form)
                .ok_or(ReportError::Line("form"))?,
            sha256: hexadecimal(value(sha256, "sha256")?).ok_or(ReportError::Line("sha256"))?,
            from_us: number(from, "from")?,
            to_us: number(to, "to")?,
            first: number(first, "first")?,
            head: TreeHead {
                size: number(size, "size")?,
                root: value(root, "root")?
                    .parse()
                    .map_err(|_| ReportError::Line("root"))?,
            },
        };
        if statement.from_us >= statement.to_us {
            return Err(ReportError::Line("to"));
        }
        if statement.first > statement.head.size {
            return Err(ReportError::Line("first"));
        }
        Ok(statement)
    }
}

fn value<'a>(line: &'a str, name: &'static str) -> Result<&'a str, ReportError> {
    line.strip_prefix(name)
        .and_then(|rest| rest.strip_prefix(' '))
        .ok_or(ReportError::Line(name))
}

fn number(line: &str, name: &'static str) -> Result<u64, ReportError> {
    parse_decimal(value(line, name)?).ok_or(ReportError::Line(name))
}

fn hexadecimal<const N: usize>(text: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// The signature of a report as a file: the signed text about the report, an empty line, and the signed checkpoint that the report
/// rests on, verbatim. `Display` and `FromStr` are its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportSignature {
    note: String,
    checkpoint: String,
}

impl ReportSignature {
    /// Signs `statement`, whose head is that of the signed `checkpoint`, with the key of the log.
    ///
    /// # Errors
    /// [`ReportError`] if the key or the checkpoint is not the log's, or if what was made could not be read back.
    pub fn make(
        statement: &ReportStatement,
        checkpoint: String,
        key: &SigningKey,
    ) -> Result<Self, ReportError> {
        let text = statement.to_string();
        let _readable: ReportStatement = text.parse()?;
        let made = Self {
            note: note::sign(&text, key)?,
            checkpoint,
        };
        made.verify(statement.sha256, std::slice::from_ref(key.verifier_key()))?;
        Ok(made)
    }

    /// Verifies that the key of a log, one of `keys`, signed this about the report whose SHA-256 is `sha256`, and that the checkpoint
    /// is the log's.
    ///
    /// # Errors
    /// [`ReportError`], which says why nothing is proven.
    pub fn verify(
        &self,
        sha256: [u8; 32],
        keys: &[VerifierKey],
    ) -> Result<ReportStatement, ReportError> {
        let (text, signers) = note::open(&self.note, keys)?;
        let statement: ReportStatement = text.parse()?;
        let origin = statement.log.origin();
        if !signers.iter().any(|key| key.name() == origin) {
            return Err(ReportError::NotByTheLog(origin));
        }
        let checkpoint = Checkpoint::open(&self.checkpoint, keys)?;
        if checkpoint.origin() != origin || checkpoint.head() != statement.head {
            return Err(ReportError::OtherCheckpoint {
                signed: statement.head.size,
                found: checkpoint.head().size,
            });
        }
        if statement.sha256 != sha256 {
            return Err(ReportError::OtherReport {
                signed: HEXLOWER.encode(&statement.sha256),
                found: HEXLOWER.encode(&sha256),
            });
        }
        Ok(statement)
    }

    /// The signed checkpoint that the report rests on, to be compared with others of the log.
    pub fn checkpoint(&self) -> &str {
        &self.checkpoint
    }
}

impl fmt::Display for ReportSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.note, self.checkpoint)
    }
}

impl FromStr for ReportSignature {
    type Err = ReportError;

    fn from_str(text: &str) -> Result<Self, ReportError> {
        if text.len() > MAX_SIGNATURE_BYTES {
            return Err(ReportError::TooLong);
        }
        if !text.starts_with(FIRST_LINE) {
            return Err(ReportError::FirstLine);
        }
        // The first empty line ends the text that is signed, the second one its signatures.
        let (signed, rest) = text.split_once("\n\n").ok_or(ReportError::NoCheckpoint)?;
        let (signatures, checkpoint) = rest.split_once("\n\n").ok_or(ReportError::NoCheckpoint)?;
        Ok(Self {
            note: format!("{signed}\n\n{signatures}\n"),
            checkpoint: checkpoint.to_owned(),
        })
    }
}
