//! What happens to the trail before it takes a record: the tree is built again and compared with what was sealed and signed.
//!
//! Every commit since the last checkpoint must bear its seal, and the tree at the checkpoint's size must have the checkpoint's root. So
//! nobody who has only the disk can change what is signed, nor add to it; he can cut off what came after the last checkpoint, which
//! is what one second brings. Checkpoints that were kept elsewhere are compared in the same way: they tell of more than that.

use std::path::Path;

use fieldkeep_journal::Journal;
use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::tile::{SEGMENT_LEVEL, SEGMENT_RECORDS};
use fieldkeep_tlog::tree::{Tree, TreeHead, root_of};

use super::AuditError;
use super::archive::{Archive, gone, restore_tiles};
use super::checkpoint::Signed;
use super::kept::{Expected, FoundIn};
use super::keys::LogKeys;
use super::tree::Tiles;

/// The directory of the tree's hashes, in that of the trail.
pub(super) const TREE_DIR: &str = "tree";

/// What the trail has lost, or what was added to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LossError {
    /// The log is shorter than the checkpoint says.
    #[error("it has {found} records, but {found_in} was signed over {signed}: its end was cut off")]
    Truncated {
        /// Records in the log.
        found: u64,
        /// The size of the checkpoint.
        signed: u64,
        /// Where the checkpoint is.
        found_in: FoundIn,
    },
    /// The records are not those that were signed.
    #[error("its first {signed} records are not those that {found_in} was signed over")]
    Changed {
        /// The size of the checkpoint.
        signed: u64,
        /// Where the checkpoint is.
        found_in: FoundIn,
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

/// Builds the tree of the trail in `dir`, and checks it against its newest checkpoint, those that were `kept` elsewhere, and its seals. What
/// is missing of the tree's files is made again. With `accept_loss`, what is not as it should be is told instead.
///
/// # Errors
/// The trail cannot be read, or [`AuditError::Lost`].
pub(super) fn recover(
    dir: &Path,
    journal: &Journal,
    keys: &LogKeys,
    newest: Option<&Signed>,
    kept: &[Expected],
    archive: Option<&Archive>,
    accept_loss: bool,
) -> Result<Recovered, AuditError> {
    let tiles = Tiles::open(dir.join(TREE_DIR), journal.durable() / SEGMENT_RECORDS)?;
    restore_tiles(journal, &tiles, archive)?;
    let own = newest.map(|signed| signed.head);
    // From the segment on in which the last checkpoint ends, every record is read, but for those that left for the archive.
    let begin = tiles
        .segments()
        .min(own.map_or(0, |head| head.size / SEGMENT_RECORDS))
        .max(gone(journal));
    let (mut tree, mut lost) = build(journal, keys, &tiles, begin, own, kept)?;
    let is_all_there = journal.first() <= 1 || archive.is_some();
    if begin > 0 && matches!(lost, Some(LossError::Changed { .. })) && is_all_there {
        // Perhaps it is only a file of tiles that changed, which is no evidence.
        tiles.forget();
        restore_tiles(journal, &tiles, archive)?;
        (tree, lost) = build(journal, keys, &tiles, tiles.segments(), own, kept)?;
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
    own: Option<TreeHead>,
    kept: &[Expected],
) -> Result<(Tree, Option<LossError>), AuditError> {
    let records = journal.durable();
    let own_expected = own.map(|head| Expected {
        head,
        found_in: FoundIn::Trail,
    });
    let mut expected: Vec<Expected> = kept.iter().cloned().chain(own_expected).collect();
    expected.sort_by_key(|expected| std::cmp::Reverse(expected.head.size));
    // Logs without checkpoints are those whose keys were made just now.
    let lost = if own.is_none() && keys.is_stored() {
        Some(LossError::NoCheckpoint)
    } else {
        let longest = expected
            .first()
            .filter(|longest| longest.head.size > records);
        longest.map(|longest| LossError::Truncated {
            found: records,
            signed: longest.head.size,
            found_in: longest.found_in.clone(),
        })
    };
    let mut check = Check {
        keys,
        signed: expected.first().map_or(0, |longest| longest.head.size),
        expected,
        sealed: 0,
        lost,
    };
    let mut tree = from_tiles(tiles, begin, &mut check)?;
    check.sealed = tree.size();
    check.passed(tree.head());
    read(journal, tiles, &mut tree, &mut check)?;
    check.ended(records);
    Ok((tree, check.lost))
}

/// The tree of the first `count` segments, from the roots that their tiles have.
fn from_tiles(tiles: &Tiles, count: u64, check: &mut Check<'_>) -> Result<Tree, AuditError> {
    let mut tree = Tree::new();
    for (segment, root) in (0..).zip(tiles.roots_from(0, count)) {
        check.passed(tree.head());
        if check.expects_within(segment) {
            let leaves = tiles.leaves(segment)?;
            // Others than those of the root are of no use, and what is expected is then not found.
            if root_of(&leaves) == root {
                let mut within = tree.clone();
                for leaf in leaves {
                    within.append(leaf);
                    check.passed_size(&within);
                }
            }
        }
        tree.append_subtree(SEGMENT_LEVEL, root)
            .map_err(|error| AuditError::Tree(error.to_string()))?;
    }
    Ok(tree)
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
    /// What was signed, and not reached yet; the smallest last.
    expected: Vec<Expected>,
    /// The largest size that was signed.
    signed: u64,
    /// Records that are known to be in a sealed or signed commit, or came before there were seals.
    sealed: u64,
    /// The first thing that is wrong.
    lost: Option<LossError>,
}

impl Check<'_> {
    fn next_size(&self) -> Option<u64> {
        self.expected.last().map(|expected| expected.head.size)
    }

    /// Whether something was signed that ends within the segment, not with it.
    fn expects_within(&self, segment: u64) -> bool {
        self.next_size()
            .is_some_and(|size| size / SEGMENT_RECORDS == segment)
    }

    fn passed_size(&mut self, tree: &Tree) {
        if self.next_size() == Some(tree.size()) {
            self.passed(tree.head());
        }
    }

    /// Compares what was signed at this size. What was signed at a smaller one should have been met before.
    fn passed(&mut self, head: TreeHead) {
        while let Some(expected) = self.expected.pop_if(|next| next.head.size <= head.size) {
            self.sealed = self.sealed.max(expected.head.size);
            if expected.head != head {
                self.lost.get_or_insert(LossError::Changed {
                    signed: expected.head.size,
                    found_in: expected.found_in,
                });
            }
        }
    }

    /// Only what came after the checkpoint needs its seal checked: the signature says more.
    fn sealed_by(&mut self, tree: &Tree, seal: &[u8]) {
        if tree.size() <= self.signed {
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
