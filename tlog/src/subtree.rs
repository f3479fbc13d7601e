//! Where the hashes of a tree that has grown come from, and its root at any earlier size.

use crate::hash::Hash;
use crate::tree::{LEVELS, join};

/// A source of the roots of complete subtrees. All proofs, and the root at every earlier size, are made of them.
///
/// Of a log with record segments (two full tile levels), `level` says where a root is to be found, and
/// [`crate::tree::root_of`] makes it of what is there:
///
/// | `level` | root of |
/// |---|---|
/// | 0 to 7 | the 2^level leaf hashes from `index << level`: a part of one level-0 tile |
/// | 8 to 15 | the 2^(level - 8) hashes of level 1 from `index << (level - 8)`: a part of one level-1 tile |
/// | 16 and more | the 2^(level - 16) roots of record segments from `index << (level - 16)` |
pub trait SubtreeSource {
    /// Why a root could not be given, such as a damaged file.
    type Error;

    /// The root of the complete subtree over the leaves from `index << level` up to, but not with, `(index + 1) << level`. `level` is 0 for leaf
    /// hashes, and 62 at most. What is asked for lies within the size that the caller named.
    ///
    /// # Errors
    /// The source's own, when the hashes cannot be had.
    fn subtree_root(&self, level: u8, index: u64) -> Result<Hash, Self::Error>;
}

/// The root that the tree had when it had `size` leaves. Asks for at most one subtree a level.
///
/// # Errors
/// Those of the source, which also knows whether the log has that many leaves.
pub fn root_at<S: SubtreeSource + ?Sized>(source: &S, size: u64) -> Result<Hash, S::Error> {
    range_root(source, 0, size)
}

/// The Merkle tree hash over the leaves from `start` up to, but not with, `end`, where `start` is a multiple of the power of two that is at least the
/// length, so that the range is a node of the tree, or the end of the tree.
pub(crate) fn range_root<S: SubtreeSource + ?Sized>(
    source: &S,
    start: u64,
    end: u64,
) -> Result<Hash, S::Error> {
    let length = end - start;
    let mut at = end;
    let mut root = None;
    for level in 0..LEVELS {
        if length >> level & 1 == 1 {
            at -= 1 << level;
            let left = source.subtree_root(level, at >> level)?;
            root = Some(join(left, root));
        }
    }
    Ok(root.unwrap_or(Hash::EMPTY_ROOT))
}
