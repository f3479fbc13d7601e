//! Inclusion and consistency proofs: made as RFC 6962, sections 2.1.1 and 2.1.2, define them, verified as RFC 9162, sections
//! 2.1.3.2 and 2.1.4.2, do it.

use crate::hash::Hash;
use crate::subtree::{SubtreeSource, range_root};
use crate::tree::{MAX_SIZE, TreeHead};

/// The most hashes in a proof: one a level of a tree of [`MAX_SIZE`] leaves, and one more in a consistency proof.
pub const MAX_PATH: usize = 63;

/// Why no proof was made.
#[derive(Debug, thiserror::Error)]
pub enum ProveError<E> {
    /// There is no leaf with this index in the tree.
    #[error("record {index} is not among the first {size}; prove it for a later checkpoint")]
    NotInTree {
        /// The index of the leaf.
        index: u64,
        /// The number of leaves of the tree.
        size: u64,
    },
    /// A tree does not shrink.
    #[error("a tree of {new} records cannot extend one of {old}; give the smaller size first")]
    NotLater {
        /// The size of the older tree.
        old: u64,
        /// The size of the newer tree.
        new: u64,
    },
    /// The source of hashes failed.
    #[error(transparent)]
    Source(#[from] E),
}

/// Why a proof does not prove what it is to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The index lies outside of the tree.
    #[error("record {index} is not among the {size} records of the checkpoint")]
    NotInTree {
        /// The index of the leaf.
        index: u64,
        /// The number of leaves of the tree.
        size: u64,
    },
    /// The tree that is to be newer has fewer leaves.
    #[error("the log shrank from {old} to {new} records: records were cut off")]
    Shrank {
        /// The size of the older tree.
        old: u64,
        /// The size of the newer tree.
        new: u64,
    },
    /// The proof has fewer or more hashes than its sizes and index ask for.
    #[error("the proof has the wrong number of hashes")]
    PathLength,
    /// The hashes do not lead to the root.
    #[error(
        "the proof does not lead to the root of the checkpoint: the record, the proof or the log was changed"
    )]
    RootMismatch,
}

/// The path from the leaf `index` to the root of the tree of the first `size` leaves: the leaf's sibling first, the root's child last.
///
/// # Errors
/// [`ProveError::NotInTree`] if `index` is not below `size`, or `size` is above [`MAX_SIZE`]; otherwise those of the source.
pub fn prove_inclusion<S: SubtreeSource + ?Sized>(
    source: &S,
    index: u64,
    size: u64,
) -> Result<Vec<Hash>, ProveError<S::Error>> {
    if index >= size || size > MAX_SIZE {
        return Err(ProveError::NotInTree { index, size });
    }
    let (mut start, mut end) = (0, size);
    let mut path = Vec::new();
    while end - start > 1 {
        let middle = middle(start, end);
        if index < middle {
            path.push(range_root(source, middle, end)?);
            end = middle;
        } else {
            path.push(range_root(source, start, middle)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The proof that the tree of the first `new` leaves begins with the first `old` ones. It is empty if `old` is 0 or equal to `new`.
///
/// # Errors
/// [`ProveError::NotLater`] if `old` is above `new`, or `new` above [`MAX_SIZE`]; otherwise those of the source.
pub fn prove_consistency<S: SubtreeSource + ?Sized>(
    source: &S,
    old: u64,
    new: u64,
) -> Result<Vec<Hash>, ProveError<S::Error>> {
    if old > new || new > MAX_SIZE {
        return Err(ProveError::NotLater { old, new });
    }
    let mut path = Vec::new();
    if old == 0 {
        return Ok(path);
    }
    let (mut start, mut end) = (0, new);
    while end != old {
        let middle = middle(start, end);
        if old <= middle {
            path.push(range_root(source, middle, end)?);
            end = middle;
        } else {
            path.push(range_root(source, start, middle)?);
            start = middle;
        }
    }
    // A range from 0 is the old tree itself, whose root the verifier has.
    if start > 0 {
        path.push(range_root(source, start, end)?);
    }
    path.reverse();
    Ok(path)
}

/// Where the leaves of a node of two or more part: after the largest power of two that is smaller than their number.
fn middle(start: u64, end: u64) -> u64 {
    start + (end - start).next_power_of_two() / 2
}

/// Checks that `leaf` is the leaf hash of record `index` in the tree that `head` stands for.
///
/// # Errors
/// [`VerifyError`], which says what is wrong; the record is then not proven to be in the log.
pub fn verify_inclusion(
    leaf: Hash,
    index: u64,
    head: TreeHead,
    path: &[Hash],
) -> Result<(), VerifyError> {
    let size = head.size;
    if index >= size {
        return Err(VerifyError::NotInTree { index, size });
    }
    let mut at = Place {
        node: index,
        last: size - 1,
    };
    let mut root = leaf;
    for sibling in path {
        root = match at.climb()? {
            Side::Left => Hash::of_node(*sibling, root),
            Side::Right => Hash::of_node(root, *sibling),
        };
    }
    at.must_be_root()?;
    if root == head.root {
        Ok(())
    } else {
        Err(VerifyError::RootMismatch)
    }
}

/// Checks that the tree of `new` begins with all leaves of that of `old`: nothing was changed, cut off or put in between.
///
/// # Errors
/// [`VerifyError`], which says what is wrong; the two are then not proven to be of one log.
pub fn verify_consistency(old: TreeHead, new: TreeHead, path: &[Hash]) -> Result<(), VerifyError> {
    if old.size > new.size {
        return Err(VerifyError::Shrank {
            old: old.size,
            new: new.size,
        });
    }
    if old.size == new.size || old.size == 0 {
        // There is nothing to prove: the roots are known.
        let same = if old.size == 0 {
            old.root == Hash::EMPTY_ROOT && (new.size > 0 || new.root == old.root)
        } else {
            old.root == new.root
        };
        return match (path.is_empty(), same) {
            (false, _) => Err(VerifyError::PathLength),
            (true, false) => Err(VerifyError::RootMismatch),
            (true, true) => Ok(()),
        };
    }
    // The walk begins at the largest complete subtree that ends where the old tree ends.
    let below = (old.size - 1).trailing_ones();
    let mut at = Place {
        node: (old.size - 1) >> below,
        last: (new.size - 1) >> below,
    };
    let mut path = path.iter();
    let first = if old.size.is_power_of_two() {
        old.root
    } else {
        *path.next().ok_or(VerifyError::PathLength)?
    };
    let (mut old_root, mut new_root) = (first, first);
    for sibling in path {
        match at.climb()? {
            Side::Left => {
                old_root = Hash::of_node(*sibling, old_root);
                new_root = Hash::of_node(*sibling, new_root);
            }
            // What is to the right came after the old tree.
            Side::Right => new_root = Hash::of_node(new_root, *sibling),
        }
    }
    at.must_be_root()?;
    if old_root == old.root && new_root == new.root {
        Ok(())
    } else {
        Err(VerifyError::RootMismatch)
    }
}

/// On which side of a node its sibling is.
enum Side {
    Left,
    Right,
}

/// A node on the way up: its number within its level, and that of the level's last node.
struct Place {
    node: u64,
    last: u64,
}

impl Place {
    /// Goes up to the next node that has two children, and says where the sibling was.
    fn climb(&mut self) -> Result<Side, VerifyError> {
        if self.last == 0 {
            return Err(VerifyError::PathLength);
        }
        let side = if self.node & 1 == 1 || self.node == self.last {
            // A last node without a sibling stands for itself on the level above.
            while self.node & 1 == 0 && self.node > 0 {
                self.up();
            }
            Side::Left
        } else {
            Side::Right
        };
        self.up();
        Ok(side)
    }

    fn up(&mut self) {
        self.node >>= 1;
        self.last >>= 1;
    }

    fn must_be_root(&self) -> Result<(), VerifyError> {
        if self.last == 0 {
            Ok(())
        } else {
            Err(VerifyError::PathLength)
        }
    }
}
