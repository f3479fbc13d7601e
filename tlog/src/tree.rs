//! The Merkle tree of RFC 6962, section 2.1, as it grows: only the roots of its complete subtrees are kept (a compact range),
//! which is all that appending and the root need.

use std::fmt;

use crate::hash::Hash;

/// The largest number of leaves that this crate works with, 2^62. At a million records a second it takes 146,000 years.
pub const MAX_SIZE: u64 = 1 << 62;

/// The levels of complete subtrees: one of 2^62 leaves is at level 62.
pub(crate) const LEVELS: u8 = 63;

/// What a tree is known by: how many leaves it has, and its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeHead {
    /// The number of leaves.
    pub size: u64,
    /// The Merkle tree hash of all of them.
    pub root: Hash,
}

/// Why a subtree was not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A complete subtree begins only at a multiple of its own size.
    #[error("a subtree of 2^{level} leaves cannot follow {size} leaves; append their rest first")]
    NotAligned {
        /// The level of the subtree that was to be appended.
        level: u8,
        /// The number of leaves of the tree.
        size: u64,
    },
    /// The tree would have more than [`MAX_SIZE`] leaves.
    #[error("a tree has at most 2^62 leaves")]
    TooLarge,
}

/// A growing tree. It takes 2 KiB whatever its size, and appending allocates nothing.
///
/// A clone is a copy of these 2 KiB, so whoever plans a commit can append to a clone and keep the old state until it is durable.
#[derive(Clone)]
pub struct Tree {
    size: u64,
    /// At `level`, the root of the complete subtree of 2^level leaves that the tree has if that bit of `size` is set. What is at the
    /// other levels has no meaning.
    peaks: [Hash; LEVELS as usize],
}

impl Tree {
    /// The tree without leaves.
    pub const fn new() -> Self {
        Self {
            size: 0,
            peaks: [Hash::EMPTY_ROOT; LEVELS as usize],
        }
    }

    /// Appends a leaf ([`Hash::of_leaf`]). Costs one node hash on average, and at most one a level.
    pub fn append(&mut self, leaf: Hash) {
        self.add(0, leaf);
    }

    /// Appends the 2^`level` leaves of a complete subtree by its `root` alone. So a start appends the roots of complete record segments
    /// (level [`crate::tile::SEGMENT_LEVEL`]) without hashing their records again.
    ///
    /// # Errors
    /// [`TreeError`] if the size of the tree is not a multiple of 2^`level`, or would exceed [`MAX_SIZE`].
    pub fn append_subtree(&mut self, level: u8, root: Hash) -> Result<(), TreeError> {
        let leaves = 1u64.checked_shl(level.into()).unwrap_or(u64::MAX);
        if leaves > MAX_SIZE.saturating_sub(self.size) {
            return Err(TreeError::TooLarge);
        }
        if !self.size.is_multiple_of(leaves) {
            return Err(TreeError::NotAligned {
                level,
                size: self.size,
            });
        }
        self.add(level, root);
        Ok(())
    }

    /// Like counting up in binary: two subtrees of a level make one of the next, as a carry. The size cannot overflow: nobody
    /// appends 2^62 leaves one by one, and [`Tree::append_subtree`] looks.
    fn add(&mut self, level: u8, root: Hash) {
        let mut carry = root;
        for (at, peak) in self.peaks.iter_mut().enumerate().skip(level.into()) {
            if self.size >> at & 1 == 0 {
                *peak = carry;
                break;
            }
            carry = Hash::of_node(*peak, carry);
        }
        self.size += 1 << level;
    }

    /// The number of leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The Merkle tree hash of all leaves. Costs at most one node hash a level.
    pub fn root(&self) -> Hash {
        let mut root = None;
        for (level, peak) in self.peaks.iter().enumerate() {
            if self.size >> level & 1 == 1 {
                root = Some(join(*peak, root));
            }
        }
        root.unwrap_or(Hash::EMPTY_ROOT)
    }

    /// Size and root together.
    pub fn head(&self) -> TreeHead {
        TreeHead {
            size: self.size,
            root: self.root(),
        }
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tree").field(&self.head()).finish()
    }
}

/// The root over a complete subtree and whatever follows it.
pub(crate) fn join(left: Hash, right: Option<Hash>) -> Hash {
    right.map_or(left, |right| Hash::of_node(left, right))
}

/// The Merkle tree hash over `hashes` as the leaves, however many: of a tile, of a part of one, or of the roots of record segments.
pub fn root_of(hashes: &[Hash]) -> Hash {
    let mut tree = Tree::new();
    for hash in hashes {
        tree.append(*hash);
    }
    tree.root()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6962's definition of the Merkle tree hash, word for word.
    fn definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Hash::EMPTY_ROOT,
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                Hash::of_node(definition(left), definition(right))
            }
        }
    }

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count)
            .map(|at| Hash::of_leaf(&at.to_be_bytes()))
            .collect()
    }

    #[test]
    fn every_root_is_as_defined() {
        let leaves = leaves(600);
        let mut tree = Tree::new();
        for size in 0..=leaves.len() {
            let known = definition(&leaves[..size]);
            assert_eq!(tree.size(), size as u64);
            assert_eq!(tree.root(), known, "size {size}");
            assert_eq!(root_of(&leaves[..size]), known);
            if let Some(leaf) = leaves.get(size) {
                tree.append(*leaf);
            }
        }
    }

    #[test]
    fn a_tree_resumes_from_the_roots_of_segments() {
        let leaves = leaves(2 * 65_536 + 777);
        let mut whole = Tree::new();
        leaves.iter().for_each(|leaf| whole.append(*leaf));
        let mut resumed = Tree::new();
        let segments = leaves.chunks_exact(65_536);
        let rest = segments.remainder();
        for segment in segments {
            resumed
                .append_subtree(16, root_of(segment))
                .expect("aligned");
        }
        rest.iter().for_each(|leaf| resumed.append(*leaf));
        assert_eq!(resumed.head(), whole.head());
    }

    #[test]
    fn a_subtree_out_of_place_is_refused() {
        let mut tree = Tree::new();
        tree.append(Hash::EMPTY_ROOT);
        let before = tree.head();
        assert_eq!(
            tree.append_subtree(16, Hash::EMPTY_ROOT),
            Err(TreeError::NotAligned { level: 16, size: 1 })
        );
        for level in [62, 63, 64, 255] {
            assert_eq!(
                tree.append_subtree(level, Hash::EMPTY_ROOT),
                Err(TreeError::TooLarge)
            );
        }
        assert_eq!(tree.head(), before);
        let mut tree = Tree::new();
        assert_eq!(tree.append_subtree(62, Hash::EMPTY_ROOT), Ok(()));
        assert_eq!(
            tree.append_subtree(0, Hash::EMPTY_ROOT),
            Err(TreeError::TooLarge)
        );
    }
}
