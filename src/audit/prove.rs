//! Proofs of what is in the log, and its root at earlier sizes.

use std::cell::RefCell;

use fieldkeep_journal::Journal;
use fieldkeep_tlog::checkpoint::Checkpoint;
use fieldkeep_tlog::evidence::{ConsistencyProof, EvidenceError, InclusionProof};
use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::proof::{ProveError, prove_consistency, prove_inclusion};
use fieldkeep_tlog::subtree::{SubtreeSource, root_at};
use fieldkeep_tlog::tile::{LEVEL_BITS, SEGMENT_LEVEL, SEGMENT_RECORDS, WIDTH};
use fieldkeep_tlog::tree::root_of;

use super::tree::Tiles;
use super::{AuditError, AuditLog};

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The record is not in the log.
    #[error("the log has no record {index}; it has {size}")]
    NotInLog {
        /// What was asked for.
        index: u64,
        /// Records in the newest checkpoint.
        size: u64,
    },
    /// The record is another one than the caller has a receipt for.
    #[error("record {index} is not the one that the leaf hash is of")]
    OtherRecord {
        /// What was asked for.
        index: u64,
    },
    /// The checkpoint is not one of this log, or malformed.
    #[error("the checkpoint is not one of this log: {0}")]
    NotOurs(String),
    /// The log does not contain what the checkpoint was signed over.
    #[error("the log does not begin with the {size} records that the checkpoint was signed over")]
    NotConsistent {
        /// The size of the checkpoint.
        size: u64,
    },
    /// The proof cannot be made.
    #[error("the proof cannot be made")]
    Evidence(#[from] EvidenceError),
    /// The trail cannot be read.
    #[error(transparent)]
    Audit(#[from] AuditError),
}

impl AuditLog {
    /// The root that the tree had with `size` records. Reads files.
    ///
    /// # Errors
    /// The trail cannot be read, or has not so many records.
    pub fn root_at(&self, size: u64) -> Result<Hash, AuditError> {
        root_at(&self.source(), size)
    }

    /// Proves that record `index` is in the log as of the newest checkpoint; with the record itself as the proof's extra data. If
    /// `leaf` is given, the record must have that hash. Reads files.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn prove(&self, index: u64, leaf: Option<Hash>) -> Result<InclusionProof, ProofError> {
        let checkpoint = self.checkpoint();
        let size = checkpoint.head.size;
        if index >= size {
            return Err(ProofError::NotInLog { index, size });
        }
        let mut records = self.cursor(index, None);
        if records.read_next()?.is_none() {
            return Err(ProofError::NotInLog { index, size });
        }
        let record = records.record();
        if leaf.is_some_and(|leaf| leaf != Hash::of_leaf(record)) {
            return Err(ProofError::OtherRecord { index });
        }
        let path = prove_inclusion(&self.source(), index, size).map_err(refused)?;
        Ok(InclusionProof::new(
            index,
            path,
            Some(record.to_vec()),
            checkpoint.note,
        )?)
    }

    /// Proves that the log of an earlier checkpoint, a signed note, is a beginning of the newest one. Reads files.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn prove_consistency(&self, earlier: &str) -> Result<ConsistencyProof, ProofError> {
        let earlier = Checkpoint::open(earlier, std::slice::from_ref(self.verifier_key()))
            .map_err(|error| ProofError::NotOurs(error.to_string()))?
            .head();
        let newest = self.checkpoint();
        let size = earlier.size;
        if size > newest.head.size || self.root_at(size)? != earlier.root {
            return Err(ProofError::NotConsistent { size });
        }
        let path = prove_consistency(&self.source(), size, newest.head.size).map_err(refused)?;
        Ok(ConsistencyProof::new(size, path, newest.note)?)
    }

    fn source(&self) -> Source<'_> {
        Source {
            tiles: &self.tiles,
            journal: &self.journal,
            read: RefCell::default(),
        }
    }
}

fn refused(error: ProveError<AuditError>) -> ProofError {
    match error {
        ProveError::Source(error) => error.into(),
        ProveError::NotInTree { index, size } => ProofError::NotInLog { index, size },
        ProveError::NotLater { old, .. } => ProofError::NotConsistent { size: old },
    }
}

/// The hashes of the tree: from the files of tiles where there are any, and from the records otherwise.
struct Source<'a> {
    tiles: &'a Tiles,
    journal: &'a Journal,
    /// The leaf hashes of the segment that was read last; several steps of a proof need the same.
    read: RefCell<Option<(u64, Vec<Hash>)>>,
}

impl Source<'_> {
    /// The root over `count` hashes from `from` on, of a tile of the segment's file or of its leaves.
    fn within(&self, segment: u64, level: u8, at: u64) -> Result<Hash, AuditError> {
        let missing = || AuditError::Tree(format!("the hashes of segment {segment} are missing"));
        let root = |hashes: &[Hash], from: u64, count: u64| -> Option<Hash> {
            let (from, count) = (usize::try_from(from).ok()?, usize::try_from(count).ok()?);
            Some(root_of(hashes.get(from..from.checked_add(count)?)?))
        };
        let leaves = 1 << level;
        if segment < self.tiles.segments() {
            let width = u64::from(WIDTH);
            let (tile, from, count) = if level < LEVEL_BITS {
                (self.tiles.tile(segment, at / width)?, at % width, leaves)
            } else {
                (self.tiles.nodes(segment)?, at / width, leaves / width)
            };
            return tile
                .and_then(|hashes| root(&hashes, from, count))
                .ok_or_else(missing);
        }
        let mut read = self.read.borrow_mut();
        let leaves_read = match read.take() {
            Some((known, leaves)) if known == segment => leaves,
            _ => self.read_leaves(segment)?,
        };
        let found = root(&leaves_read, at, leaves);
        *read = Some((segment, leaves_read));
        found.ok_or_else(missing)
    }

    /// The leaf hashes of a segment, as far as it is durable.
    fn read_leaves(&self, segment: u64) -> Result<Vec<Hash>, AuditError> {
        let first = segment * SEGMENT_RECORDS;
        let mut leaves = Vec::new();
        let mut frames = self.journal.read_frames(first + 1)?;
        while (leaves.len() as u64) < SEGMENT_RECORDS
            && let Some(frame) = frames.read_next()?
        {
            if !frame.is_seal {
                leaves.push(Hash::of_leaf(frame.payload));
            }
        }
        Ok(leaves)
    }
}

impl SubtreeSource for Source<'_> {
    type Error = AuditError;

    fn subtree_root(&self, level: u8, index: u64) -> Result<Hash, AuditError> {
        if level < SEGMENT_LEVEL {
            let leaf = index << level;
            return self.within(leaf / SEGMENT_RECORDS, level, leaf % SEGMENT_RECORDS);
        }
        let count = 1 << (level - SEGMENT_LEVEL);
        let first = index << (level - SEGMENT_LEVEL);
        let mut roots = self.tiles.roots_from(first, count);
        // A segment that was completed just now may have no file yet.
        for segment in first + roots.len() as u64..first + count {
            let leaves = self.read_leaves(segment)?;
            if leaves.len() as u64 != SEGMENT_RECORDS {
                return Err(AuditError::Tree(format!(
                    "segment {segment} is not complete"
                )));
            }
            roots.push(root_of(&leaves));
        }
        Ok(root_of(&roots))
    }
}
