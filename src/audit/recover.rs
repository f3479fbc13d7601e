//! What happens to the trail before it takes a record: the tree is built again and compared with what was sealed and signed.
//!
//! Every commit since the last checkpoint must bear its seal, and the tree at the checkpoint's size must have the checkpoint's root. So
//! nobody who has only the disk can change what is signed, nor add to it; he can cut off what came after the last checkpoint, which
//! is what one second brings.

use std::path::Path;

use fieldkeep_journal::Journal;
use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::tile::{SEGMENT_LEVEL, SEGMENT_RECORDS};
use fieldkeep_tlog::tree::{Tree, TreeHead};

use super::AuditError;
use super::archive::{Archive, gone, restore_tiles};
use super::checkpoint::Signed;
use super::keys::LogKeys;
use super::tree::Tiles;

/// The directory of the tree's hashes, in that of the trail.
pub(super) const TREE_DIR: &str = "tree";

/// What the trail has lost, or what was added to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LossError {
    /// The log is shorter than the checkpoint says.
    #[error(
        "it has {found} records, but a checkpoint was signed over {signed}: its end was cut off"
    )]
    Truncated {
        /// Records in the log.
        found: u64,
        /// The size of the checkpoint.
        signed: u64,
    },
    /// The records are not those that were signed.
    #[error("its first {signed} records are not those that its checkpoint was signed over")]
    Changed {
        /// The size of the checkpoint.
        signed: u64,
    },
    /// There is no checkpoint, though each log has one from its beginning.
    #[error("its file `checkpoint` is missing, or not signed by this log's key")]
    NoCheckpoint,
    /// A commit does not bear its seal.
    #[error(
        "the commit that ends with record {last} does not bear this service's seal: it was changed or forged"
    )]
    Forged {
        /// The index of the last record of the commit.
        last: u64,
    },
    /// The log ends with records that no seal is behind.
    #[error(
        "the records from {first} on are in no sealed commit: they were added by somebody else"
    )]
    Unsealed {
        /// The index of the first such record.
        first: u64,
    },
}

/// A trail that was built again.
pub(super) struct Recovered {
    pub(super) tree: Tree,
    pub(super) tiles: Tiles,
    /// What is not as it should be, if that was accepted.
    pub(super) lost: Option<LossError>,
}

/// Builds the tree of the trail in `dir`, and checks it against its newest checkpoint and its seals. What is missing of the tree's
/// files is made again. With `accept_loss`, what is not as it should be is told instead.
///
/// # Errors
/// The trail cannot be read, or [`AuditError::Lost`].
pub(super) fn recover(
    dir: &Path,
    journal: &Journal,
    keys: &LogKeys,
    newest: Option<&Signed>,
    archive: Option<&Archive>,
    accept_loss: bool,
) -> Result<Recovered, AuditError> {
    let tiles = Tiles::open(dir.join(TREE_DIR), journal.durable() / SEGMENT_RECORDS)?;
    restore_tiles(journal, &tiles, archive)?;
    let signed = newest.map(|signed| signed.head);
    // From the segment on in which the last checkpoint ends, every record is read.
    let begin = tiles
        .segments()
        .min(signed.map_or(0, |head| head.size / SEGMENT_RECORDS))
        .max(gone(journal));
    let (mut tree, mut lost) = build(journal, keys, &tiles, begin, signed)?;
    let is_all_there = journal.first() <= 1 || archive.is_some();
    if begin > 0 && matches!(lost, Some(LossError::Changed { .. })) && is_all_there {
        // Perhaps it is only a file of tiles that changed, which is no evidence.
        tiles.forget();
        restore_tiles(journal, &tiles, archive)?;
        (tree, lost) = build(journal, keys, &tiles, tiles.segments(), signed)?;
    }
    match lost {
        Some(lost) if !accept_loss => Err(AuditError::Lost(lost)),
        lost => Ok(Recovered { tree, tiles, lost }),
    }
}

/// Builds the tree from the roots of the first `begin` segments and the records behind them; with what is wrong first.
fn build(
    journal: &Journal,
    keys: &LogKeys,
    tiles: &Tiles,
    begin: u64,
    signed: Option<TreeHead>,
) -> Result<(Tree, Option<LossError>), AuditError> {
    let records = journal.durable();
    let mut tree = Tree::new();
    for root in tiles.roots_from(0, begin) {
        tree.append_subtree(SEGMENT_LEVEL, root)
            .map_err(|error| AuditError::Tree(error.to_string()))?;
    }
    let lost = match signed {
        // Logs without checkpoints are those whose keys were made just now.
        None if keys.is_stored() => Some(LossError::NoCheckpoint),
        Some(TreeHead { size, .. }) if size > records => Some(LossError::Truncated {
            found: records,
            signed: size,
        }),
        _ => None,
    };
    let mut check = Check {
        keys,
        signed,
        sealed: tree.size(),
        lost,
    };
    check.passed(tree.head());
    read(journal, tiles, &mut tree, &mut check)?;
    check.ended(records);
    Ok((tree, check.lost))
}

/// Appends all that follows in the journal to the tree.
fn read(
    journal: &Journal,
    tiles: &Tiles,
    tree: &mut Tree,
    check: &mut Check<'_>,
) -> Result<(), AuditError> {
    if tree.size() == journal.durable() {
        return Ok(());
    }
    let mut leaves: Vec<Hash> = Vec::new();
    let mut frames = journal.read_frames(tree.size() + 1)?;
    while let Some(frame) = frames.read_next()? {
        if frame.is_seal {
            check.sealed_by(tree, frame.payload);
            continue;
        }
        let leaf = Hash::of_leaf(frame.payload);
        tree.append(leaf);
        check.passed_size(tree);
        leaves.push(leaf);
        if tree.size().is_multiple_of(SEGMENT_RECORDS) {
            let segment = tree.size() / SEGMENT_RECORDS - 1;
            // On a full disk the tree is whole all the same; the files are made again later.
            if let Err(error) = tiles.write(segment, &leaves) {
                tracing::warn!(%error, segment, "the tiles of a segment of the audit trail were not written");
            }
            leaves.clear();
        }
    }
    Ok(())
}

/// The comparison of a tree that grows with what was signed and sealed.
struct Check<'a> {
    keys: &'a LogKeys,
    signed: Option<TreeHead>,
    /// Records that are known to be in a sealed or signed commit, or came before there were seals.
    sealed: u64,
    /// The first thing that is wrong.
    lost: Option<LossError>,
}

impl Check<'_> {
    fn passed_size(&mut self, tree: &Tree) {
        if self.signed.is_some_and(|signed| signed.size == tree.size()) {
            self.passed(tree.head());
        }
    }

    fn passed(&mut self, head: TreeHead) {
        if let Some(signed) = self.signed
            && signed.size == head.size
        {
            self.sealed = head.size;
            if signed.root != head.root {
                let signed = signed.size;
                self.lost.get_or_insert(LossError::Changed { signed });
            }
        }
    }

    /// Only what came after the checkpoint needs its seal checked: the signature says more.
    fn sealed_by(&mut self, tree: &Tree, seal: &[u8]) {
        if self.signed.is_some_and(|signed| tree.size() <= signed.size) {
            return;
        }
        let head = tree.head();
        if self
            .keys
            .seal
            .is_seal(head.size, head.root.as_bytes(), seal)
        {
            self.sealed = head.size;
        } else {
            let last = head.size.saturating_sub(1);
            self.lost.get_or_insert(LossError::Forged { last });
        }
    }

    fn ended(&mut self, records: u64) {
        let first = self.sealed.max(self.keys.sealed_from);
        if first < records {
            self.lost.get_or_insert(LossError::Unsealed { first });
        }
    }
}
