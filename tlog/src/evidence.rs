//! Proofs as files that can be verified offline: that a record is in a log (C2SP tlog-proof), and that a log only grew (the form in
//! which C2SP tlog-witness submits a checkpoint). Both end with the signed checkpoint that they prove it for, verbatim.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::hash::Hash;
use crate::key::VerifierKey;
use crate::note::{MAX_NOTE_BYTES, Note, NoteError};
use crate::proof::{MAX_PATH, VerifyError, verify_consistency, verify_inclusion};
use crate::text::{decode_base64, parse_decimal};

/// The first line of an inclusion proof.
const TLOG_PROOF: &str = "c2sp.org/tlog-proof@v1";

/// The most extra data that an inclusion proof carries, in bytes: enough for a record.
pub const MAX_EXTRA_BYTES: usize = 65_535;

/// The longest file, in bytes.
pub const MAX_EVIDENCE_BYTES: usize = 2 * MAX_NOTE_BYTES;

/// Why a file is not a proof, or proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// The file is longer than [`MAX_EVIDENCE_BYTES`].
    #[error("the proof is longer than {MAX_EVIDENCE_BYTES} bytes")]
    TooLong,
    /// The first line is not that of this kind of proof.
    #[error("the first line of the proof is not `{0}`")]
    FirstLine(&'static str),
    /// There is no empty line before the checkpoint.
    #[error("the proof has no empty line before its checkpoint; it is cut off")]
    NoCheckpoint,
    /// The extra data is malformed, empty or too long.
    #[error("the extra data of the proof is not the base64 of 1 to {MAX_EXTRA_BYTES} bytes")]
    Extra,
    /// The line with the index is missing or malformed.
    #[error("the proof has no line `index <number>` where one must be")]
    Index,
    /// A hash is malformed. Counted from 1.
    #[error("hash {0} of the proof is not the base64 of 32 bytes")]
    Hash(usize),
    /// There are more than [`MAX_PATH`] hashes.
    #[error("the proof has more than {MAX_PATH} hashes")]
    TooManyHashes,
    /// The proof begins at another checkpoint than the one that it was to be verified for.
    #[error("the proof begins at `{origin}` of size {size}, the older checkpoint does not")]
    OtherStart {
        /// The log of the proof.
        origin: String,
        /// The size at which it begins.
        size: u64,
    },
    /// The checkpoint is malformed or not signed as it must be.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The hashes prove nothing.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

impl From<NoteError> for EvidenceError {
    fn from(error: NoteError) -> Self {
        Self::Checkpoint(error.into())
    }
}

/// The proof that a record is in a log, as a file: C2SP tlog-proof. `Display` and `FromStr` are its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InclusionProof {
    index: u64,
    extra: Option<Vec<u8>>,
    path: Vec<Hash>,
    checkpoint: String,
}

impl InclusionProof {
    /// The proof that [`crate::proof::prove_inclusion`] made for record `index` and the signed `checkpoint`. `extra` goes with it unauthenticated, such
    /// as the record itself, so that the file needs nothing beside it.
    ///
    /// # Errors
    /// [`EvidenceError`] if a part could not be read back.
    pub fn new(
        index: u64,
        path: Vec<Hash>,
        extra: Option<Vec<u8>>,
        checkpoint: String,
    ) -> Result<Self, EvidenceError> {
        let extra_fits = |extra: &Vec<u8>| (1..=MAX_EXTRA_BYTES).contains(&extra.len());
        if !extra.as_ref().is_none_or(extra_fits) {
            return Err(EvidenceError::Extra);
        }
        if path.len() > MAX_PATH {
            return Err(EvidenceError::TooManyHashes);
        }
        Note::parse(&checkpoint)?;
        Ok(Self {
            index,
            extra,
            path,
            checkpoint,
        })
    }

    /// The index of the record.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// What goes with the proof unauthenticated. If it is to be the record, hash it and verify.
    pub fn extra(&self) -> Option<&[u8]> {
        self.extra.as_deref()
    }

    /// Verifies that the record with the hash `leaf` ([`Hash::of_leaf`] of the record that the caller has) is in the log, at [`InclusionProof::index`], as of
    /// the returned checkpoint, which a log among `keys` signed.
    ///
    /// # Errors
    /// [`EvidenceError`], which says why nothing is proven.
    pub fn verify(&self, leaf: Hash, keys: &[VerifierKey]) -> Result<Checkpoint, EvidenceError> {
        let checkpoint = Checkpoint::open(&self.checkpoint, keys)?;
        verify_inclusion(leaf, self.index, checkpoint.head(), &self.path)?;
        Ok(checkpoint)
    }
}

impl fmt::Display for InclusionProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{TLOG_PROOF}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", BASE64.encode_display(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        write_path(f, &self.path)?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for InclusionProof {
    type Err = EvidenceError;

    fn from_str(text: &str) -> Result<Self, EvidenceError> {
        let (head, checkpoint) = split(text)?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(TLOG_PROOF) {
            return Err(EvidenceError::FirstLine(TLOG_PROOF));
        }
        let extra = lines
            .next_if(|line| line.starts_with("extra "))
            .and_then(|line| line.strip_prefix("extra "))
            .map(|extra| decode_base64(extra).ok_or(EvidenceError::Extra))
            .transpose()?;
        let index = lines
            .next()
            .and_then(|line| line.strip_prefix("index "))
            .and_then(parse_decimal)
            .ok_or(EvidenceError::Index)?;
        Self::new(index, parse_path(lines)?, extra, checkpoint.to_owned())
    }
}

/// The proof that a log at a newer checkpoint begins with all of its records at an older one, as a file: the line `old <size>`, the hashes, an empty
/// line, the newer checkpoint (C2SP tlog-witness, "add-checkpoint"). `Display` and `FromStr` are its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistencyProof {
    old_size: u64,
    path: Vec<Hash>,
    checkpoint: String,
}

impl ConsistencyProof {
    /// The proof that [`crate::proof::prove_consistency`] made from `old_size` to the signed newer `checkpoint`.
    ///
    /// # Errors
    /// [`EvidenceError`] if a part could not be read back.
    pub fn new(old_size: u64, path: Vec<Hash>, checkpoint: String) -> Result<Self, EvidenceError> {
        if path.len() > MAX_PATH {
            return Err(EvidenceError::TooManyHashes);
        }
        Note::parse(&checkpoint)?;
        Ok(Self {
            old_size,
            path,
            checkpoint,
        })
    }

    /// Verifies that the log only grew from `old`, which the caller has opened or kept, to the returned checkpoint, which that log signed with a key
    /// among `keys`.
    ///
    /// # Errors
    /// [`EvidenceError`], which says why nothing is proven.
    pub fn verify(
        &self,
        old: &Checkpoint,
        keys: &[VerifierKey],
    ) -> Result<Checkpoint, EvidenceError> {
        let new = Checkpoint::open(&self.checkpoint, keys)?;
        if old.origin() != new.origin() || old.head().size != self.old_size {
            return Err(EvidenceError::OtherStart {
                origin: new.origin().to_owned(),
                size: self.old_size,
            });
        }
        verify_consistency(old.head(), new.head(), &self.path)?;
        Ok(new)
    }
}

impl fmt::Display for ConsistencyProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        write_path(f, &self.path)?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for ConsistencyProof {
    type Err = EvidenceError;

    fn from_str(text: &str) -> Result<Self, EvidenceError> {
        let (head, checkpoint) = split(text)?;
        let mut lines = head.split('\n');
        let old_size = lines
            .next()
            .and_then(|line| line.strip_prefix("old "))
            .and_then(parse_decimal)
            .ok_or(EvidenceError::FirstLine("old <size>"))?;
        Self::new(old_size, parse_path(lines)?, checkpoint.to_owned())
    }
}

/// The lines before the first empty line, and the checkpoint after it.
fn split(text: &str) -> Result<(&str, &str), EvidenceError> {
    if text.len() > MAX_EVIDENCE_BYTES {
        return Err(EvidenceError::TooLong);
    }
    text.split_once("\n\n").ok_or(EvidenceError::NoCheckpoint)
}

fn parse_path<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<Hash>, EvidenceError> {
    // One more than there may be shows that there are too many.
    lines
        .take(MAX_PATH + 1)
        .enumerate()
        .map(|(at, line)| line.parse().map_err(|_| EvidenceError::Hash(at + 1)))
        .collect()
}

fn write_path(f: &mut fmt::Formatter<'_>, path: &[Hash]) -> fmt::Result {
    path.iter().try_for_each(|hash| writeln!(f, "{hash}"))
}

#[cfg(test)]
mod tests;
