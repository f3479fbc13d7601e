//! Archives of record segments: one compressed file each, in a directory that may be elsewhere.
//!
//! A file is one Zstandard frame (RFC 8878) of the segment's 256 entry bundles as C2SP tlog-tiles has them, one after the other: each record is
//! its length as a big-endian `u16` and its bytes. What a file holds is proven by the leaf hashes of its records, which
//! [`verify`] compares with those of the log; only then may the records be pruned.

mod read;
mod store;
#[cfg(test)]
mod tests;
mod write;

pub use read::{SegmentReader, Verified, leaf_hash, open, read_bundle, verify};
pub use store::{ArchiveStore, Directory};
pub use write::{Written, write_segment};

use std::error::Error;
use std::io;

/// Why a segment could not be archived, or read from the archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The file or directory cannot be used.
    #[error("`{path}` of the archive cannot be {action}: {source}")]
    Io {
        /// The file or directory.
        path: String,
        /// What was tried, as a past participle.
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Compressed bytes could not be written.
    #[error("record segment `{segment:016x}` cannot be written to the archive: {source}")]
    Write {
        /// The record segment.
        segment: u64,
        /// The cause.
        source: io::Error,
    },
    /// The archive has no such segment.
    #[error("the archive has no record segment `{segment:016x}`: look for it in another archive")]
    Missing {
        /// The record segment.
        segment: u64,
    },
    /// The file is not what was written.
    #[error(
        "record segment `{segment:016x}` in the archive is damaged at record {index}: {cause}; restore the file from a copy of the archive"
    )]
    Damaged {
        /// The record segment.
        segment: u64,
        /// The index of the first record that could not be read whole; that of the next segment's first one if it is what follows the records.
        index: u64,
        /// What was found.
        cause: Damage,
    },
    /// A record is not the one in the log.
    #[error(
        "record {index} in the archive is not the one in the log, whose leaf hash is another: restore the file from a copy of the archive"
    )]
    OtherRecord {
        /// The record's index.
        index: u64,
    },
    /// The records to be archived are no complete segment.
    #[error(
        "record segment `{segment:016x}` has {records} records and cannot be archived: 65,536 complete one"
    )]
    Incomplete {
        /// The record segment.
        segment: u64,
        /// How many there are; more than a segment has counts as one more.
        records: u64,
    },
    /// A record is larger than records are.
    #[error("record {index} has {bytes} bytes, more than 65,535, and cannot be archived")]
    TooLarge {
        /// The record's index.
        index: u64,
        /// Its size.
        bytes: usize,
    },
    /// The records to be archived could not be read.
    #[error("record {index} cannot be read to be archived: {source}")]
    Records {
        /// The record's index.
        index: u64,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No segment has such a number: its records would have indexes beyond 2^64 - 1.
    #[error("there is no record segment `{segment:016x}`")]
    NoSegment {
        /// The number.
        segment: u64,
    },
}

/// What is wrong with an archive file.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It does not decompress, or ends too early.
    #[error("{0}")]
    Compression(#[from] io::Error),
    /// There is more after the last record.
    #[error("bytes follow its last record")]
    Trailing,
    /// An earlier call found damage.
    #[error("it was found to be damaged before")]
    Before,
}
