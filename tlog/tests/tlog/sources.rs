//! Two sources of subtrees that have nothing in common: every node of the tree, and tiles.

use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::subtree::SubtreeSource;
use fieldkeep_tlog::tile::{SEGMENT_LEVEL, next_level};
use fieldkeep_tlog::tree::root_of;

/// A subtree that is not complete in the tree was asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no complete subtree {index} at level {level}")]
pub(crate) struct Incomplete {
    level: u8,
    index: u64,
}

/// The leaf hash of the test record `at`.
pub(crate) fn leaf(at: u64) -> Hash {
    Hash::of_leaf(&at.to_be_bytes())
}

pub(crate) fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(leaf).collect()
}

/// All complete nodes of a tree, level by level.
pub(crate) struct Nodes(Vec<Vec<Hash>>);

impl Nodes {
    pub(crate) fn new(leaves: Vec<Hash>) -> Self {
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|below| below.len() > 1) {
            let pairs = below.chunks_exact(2);
            let above = pairs.map(|pair| Hash::of_node(pair[0], pair[1])).collect();
            levels.push(above);
        }
        Self(levels)
    }
}

impl SubtreeSource for Nodes {
    type Error = Incomplete;

    fn subtree_root(&self, level: u8, index: u64) -> Result<Hash, Incomplete> {
        self.0
            .get(usize::from(level))
            .and_then(|hashes| hashes.get(index as usize))
            .copied()
            .ok_or(Incomplete { level, index })
    }
}

/// The hashes of tiles, as a log with record segments has them.
pub(crate) struct Tiles {
    leaves: Vec<Hash>,
    level_1: Vec<Hash>,
    segments: Vec<Hash>,
}

impl Tiles {
    pub(crate) fn new(leaves: Vec<Hash>) -> Self {
        let level_1 = next_level(&leaves);
        let segments = next_level(&level_1);
        Self {
            leaves,
            level_1,
            segments,
        }
    }
}

impl SubtreeSource for Tiles {
    type Error = Incomplete;

    fn subtree_root(&self, level: u8, index: u64) -> Result<Hash, Incomplete> {
        let (hashes, level_within) = match level {
            0..8 => (&self.leaves, level),
            8..SEGMENT_LEVEL => (&self.level_1, level - 8),
            _ => (&self.segments, level - SEGMENT_LEVEL),
        };
        let first = (index as usize) << level_within;
        hashes
            .get(first..first + (1 << level_within))
            .map(root_of)
            .ok_or(Incomplete { level, index })
    }
}
