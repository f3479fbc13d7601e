//! One error enum an operation: open, append, read, snapshot.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::frame::HeaderError;

/// Why a journal could not be opened. Nothing has been changed on disk that recovery could need.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// What was acknowledged is no longer there, or no longer whole.
    #[error(
        "the journal `{}` is damaged in segment {segment:016x} at byte {offset}, frame {sequence}: {cause}; {lost}; \
         restore this directory from its mirror or a backup, and keep a copy of the damaged one", path.display()
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// Id of the segment that is damaged or missing.
        segment: u64,
        /// Byte in the segment's file from which on it is not intact.
        offset: u64,
        /// The first sequence that cannot be read.
        sequence: u64,
        /// What was found.
        cause: DamageCause,
        /// What is lost by it.
        lost: Lost,
    },
    /// Another process, or another handle in this one, has it open.
    #[error("the journal `{}` is in use by another process; stop that one first, or use another directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The disk is too full to rewrite the last segment, which comes before serving.
    #[error("no space in `{}` for {needed_bytes} bytes; nothing is lost: free some space and start again", path.display())]
    NoSpace {
        /// The directory.
        path: PathBuf,
        /// Bytes that a segment needs.
        needed_bytes: u64,
    },
    /// The mirror holds another journal.
    #[error("`{}` holds another journal than the directory that it shall mirror; nothing was changed; point the mirror at an empty directory", path.display())]
    ForeignMirror {
        /// The second directory.
        path: PathBuf,
    },
    /// Each directory was written without the other, and both may have acknowledged frames that the other lacks.
    #[error(
        "`{}` and `{}` are the same journal up to frame {sequence} and were then written apart; nothing was changed; \
         keep a copy of both, decide which one to go on with, and empty the other", path.display(), other.display()
    )]
    Diverged {
        /// The directory that has more.
        path: PathBuf,
        /// The other one.
        other: PathBuf,
        /// The first sequence that differs.
        sequence: u64,
    },
    /// A segment was written by a newer version of this program.
    #[error("the journal `{}` has format version {version}, which this program is too old to read; use the newer program", path.display())]
    Version {
        /// The directory.
        path: PathBuf,
        /// The version found.
        version: u32,
    },
    /// The options contradict each other.
    #[error(
        "a segment of {segment_bytes} bytes cannot hold a payload of {max_payload_bytes} bytes; make segments larger, in multiples of 8"
    )]
    Options {
        /// As given.
        segment_bytes: u64,
        /// As given.
        max_payload_bytes: usize,
    },
    /// The system refused an operation on a file.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What recovery found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DamageCause {
    /// The CRC, or a field, does not fit, and the frame is known to have been durable.
    #[error("a frame that was durable is not intact")]
    Frame,
    /// The seal of frames that are known to have been durable is not there, or not intact.
    #[error("the seal of frames that were durable is missing or not intact")]
    Seal,
    /// As `Frame`, but the mark `durable` is not readable, so that no one can tell.
    #[error(
        "a frame is not intact, and neither is the mark `durable`, which would say whether it was acknowledged"
    )]
    FrameAndMark,
    /// A whole frame stands where another sequence must be.
    #[error("a frame is out of sequence")]
    OutOfSequence,
    /// The file is shorter than the size in its header.
    #[error("the file is shorter than its header says")]
    Short,
    /// The segment's header is not readable.
    #[error("the segment's header is not intact ({0})")]
    Header(HeaderError),
    /// A segment between others, or every segment, is gone.
    #[error("the segment is missing")]
    Missing,
    /// Bytes behind the last frame of a full segment, where only zeroes belong. No frame is lost by it.
    #[error("there are bytes behind the last frame that do not belong there")]
    Unused,
    /// Only [`crate::Offline`] says this: the log ends with a part of a commit, as a crash leaves it behind. No caller was
    /// told of that commit, and the next [`crate::Journal::open`] drops it. While a journal has the directory open, this is a
    /// commit that is being written.
    #[error("the log ends within a commit that was never acknowledged")]
    Torn,
}

/// The sequences that are lost, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The first that cannot be read.
    pub from: u64,
    /// The last that is known to have been durable.
    pub known_through: u64,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known_through.checked_sub(self.from) {
            None => write!(f, "frames from {} on may be lost", self.from),
            Some(0) => write!(f, "frame {} was acknowledged and is lost", self.from),
            Some(_) => write!(
                f,
                "frames {} to {} were acknowledged and are lost in part or whole",
                self.from, self.known_through
            ),
        }
    }
}

/// Why an append was refused or not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The current segment is full and the disk has no room for the next. Nothing accepted earlier is
    /// lost; the journal tries again as appends come.
    #[error("no space for the journal's next segment; free some space on its disk")]
    NoSpace,
    /// The payload, or the sum of one `append_all`, is over the limit.
    #[error("the payload is larger than the journal takes")]
    TooLarge,
    /// More than [`crate::Options::max_pending_bytes`] wait for the disk; nothing was appended.
    #[error("the journal is busy; try again")]
    Busy,
    /// The log is a sealed one, and its seal was not given yet; see [`crate::Journal::set_seal`].
    #[error("the journal has no seal yet; give it one before the first append")]
    NoSeal,
    /// The journal was closed, or a write or sync has failed.
    #[error("the journal is closed")]
    Closed,
}

/// Why frames could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The sequence is older than the journal's first.
    #[error("frame {sequence} is no longer kept; the first kept is {first}")]
    Pruned {
        /// What was asked for.
        sequence: u64,
        /// What there is.
        first: u64,
    },
    /// There is no intact frame of this sequence at this place.
    #[error(
        "frame {sequence} is not in segment {segment:016x} at byte {offset}; read without a position, and make the index anew that gave this one"
    )]
    WrongPosition {
        /// What was asked for.
        sequence: u64,
        /// Id of the segment.
        segment: u64,
        /// Byte in its file.
        offset: u64,
    },
    /// A durable frame is not intact.
    #[error(
        "the journal `{}` is damaged in segment {segment:016x} at byte {offset}: frame {sequence} is not intact; \
         restore this directory from its mirror or a backup", path.display()
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// Id of the segment.
        segment: u64,
        /// Byte in its file.
        offset: u64,
        /// The sequence that should be there.
        sequence: u64,
    },
    /// The system refused an operation on a file.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a directory could not be read offline, or what is wrong in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfflineError {
    /// The directory holds no segment.
    #[error("there is no journal in `{}`; give the directory that holds its `.seg` files", path.display())]
    Absent {
        /// The directory.
        path: PathBuf,
    },
    /// The first defect in the log.
    #[error("the journal `{}` is damaged in segment {segment:016x} at byte {offset}, frame {sequence}: {cause}", path.display())]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// Id of the segment that is damaged or missing.
        segment: u64,
        /// Byte in the segment's file from which on it is not intact.
        offset: u64,
        /// The first sequence that cannot be read; of a seal, the sequence that it bears.
        sequence: u64,
        /// What was found.
        cause: DamageCause,
    },
    /// A segment was written by a newer version of this program.
    #[error("the journal's segment `{}` has format version {version}, which this program is too old to read; use the newer program", path.display())]
    Version {
        /// The segment's file.
        path: PathBuf,
        /// The version found.
        version: u32,
    },
    /// The system refused an operation on a file.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a snapshot could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// A byte is wrong, or the end is missing.
    #[error("the snapshot `{}` is damaged at byte {offset}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Byte from which on it is not intact.
        offset: u64,
    },
    /// A payload is over 4 GiB, the format's limit.
    #[error("a payload is larger than a snapshot takes")]
    TooLarge,
    /// The disk is full; the temporary file is removed again.
    #[error("no space for the snapshot `{}`; free some space on its disk", path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
    },
    /// The source of the payloads failed.
    #[error("the source of the snapshot's payloads failed")]
    Source(#[source] io::Error),
    /// The system refused an operation on a file.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A write or a sync that failed while the journal was serving.
#[derive(Debug, thiserror::Error)]
#[error("the journal cannot {action} `{}`: {source}", path.display())]
pub struct FatalError {
    /// What was tried.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}
