//! What holds for every tree and every proof.

use fieldkeep_tlog::checkpoint::Checkpoint;
use fieldkeep_tlog::evidence::{ConsistencyProof, InclusionProof};
use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::key::{SigningKey, VerifierKey};
use fieldkeep_tlog::proof::{
    MAX_PATH, ProveError, VerifyError, prove_consistency, prove_inclusion, verify_consistency,
    verify_inclusion,
};
use fieldkeep_tlog::subtree::{SubtreeSource, root_at};
use fieldkeep_tlog::tree::{MAX_SIZE, Tree, TreeHead};
use proptest::prelude::*;

use crate::sources::{Incomplete, Nodes, Tiles, leaf, leaves};

/// Past one full tile.
const LARGEST: u64 = 270;

fn heads(count: u64) -> Vec<TreeHead> {
    let mut tree = Tree::new();
    let mut heads = vec![tree.head()];
    for at in 0..count {
        tree.append(leaf(at));
        heads.push(tree.head());
    }
    heads
}

/// The path with one hash changed, one taken away, and one put in, at every place.
fn damaged(path: &[Hash]) -> Vec<Vec<Hash>> {
    let mut all = Vec::new();
    for at in 0..=path.len() {
        let mut longer = path.to_vec();
        longer.insert(at, leaf(u64::MAX));
        all.push(longer);
        if at < path.len() {
            let mut bytes = *path[at].as_bytes();
            bytes[at % 32] ^= 1 << (at % 8);
            let mut changed = path.to_vec();
            changed[at] = Hash::from_bytes(bytes);
            all.push(changed);
            let mut shorter = path.to_vec();
            shorter.remove(at);
            all.push(shorter);
        }
    }
    all
}

#[test]
fn every_record_of_every_tree_is_proven_and_nothing_else() {
    let heads = heads(LARGEST);
    let source = Nodes::new(leaves(LARGEST));
    for size in 1..=LARGEST {
        let head = heads[size as usize];
        for index in 0..size {
            let path = prove_inclusion(&source, index, size).expect("is in the tree");
            assert_eq!(verify_inclusion(leaf(index), index, head, &path), Ok(()));
            assert!(verify_inclusion(leaf(index + 1), index, head, &path).is_err());
            for other in [index.wrapping_sub(1), index + 1, index ^ 2] {
                assert!(verify_inclusion(leaf(index), other, head, &path).is_err());
            }
            let elsewhere = TreeHead {
                root: heads[size as usize - 1].root,
                ..head
            };
            assert!(verify_inclusion(leaf(index), index, elsewhere, &path).is_err());
            // Of the larger trees, every damage to some of the records is enough.
            if size < 40 || index % 32 == size % 32 {
                for path in damaged(&path) {
                    assert!(verify_inclusion(leaf(index), index, head, &path).is_err());
                }
            }
        }
    }
}

#[test]
fn every_pair_of_trees_is_proven_consistent_and_no_other_pair() {
    let heads = heads(LARGEST);
    let source = Nodes::new(leaves(LARGEST));
    for new in 0..=LARGEST {
        for old in 0..=new {
            let path = prove_consistency(&source, old, new).expect("is later");
            let (old_head, new_head) = (heads[old as usize], heads[new as usize]);
            assert_eq!(verify_consistency(old_head, new_head, &path), Ok(()));
            let with = |head: TreeHead, root| TreeHead { root, ..head };
            let other = leaf(u64::MAX);
            assert!(verify_consistency(with(old_head, other), new_head, &path).is_err());
            // Any tree extends the empty one, so its root is not looked at.
            if old > 0 || new == 0 {
                assert!(verify_consistency(old_head, with(new_head, other), &path).is_err());
            }
            if new < 40 || old % 32 == new % 32 {
                for path in damaged(&path) {
                    assert!(verify_consistency(old_head, new_head, &path).is_err());
                }
            }
        }
    }
}

#[test]
fn what_is_not_in_the_tree_is_not_proven() {
    let source = Nodes::new(leaves(8));
    for (index, size) in [
        (0, 0),
        (8, 8),
        (9, 8),
        (0, MAX_SIZE + 1),
        (u64::MAX, u64::MAX),
    ] {
        let refused = prove_inclusion(&source, index, size);
        assert!(matches!(refused, Err(ProveError::NotInTree { .. })));
    }
    for (old, new) in [(1, 0), (8, 7), (0, MAX_SIZE + 1), (u64::MAX, u64::MAX)] {
        let refused = prove_consistency(&source, old, new);
        assert!(matches!(refused, Err(ProveError::NotLater { .. })));
    }
    // Sizes that the log has not are for the source to refuse.
    let beyond = prove_inclusion(&source, 0, 9);
    assert!(matches!(beyond, Err(ProveError::Source(Incomplete { .. }))));
    assert!(root_at(&source, 9).is_err());
}

/// Any hash for any subtree.
struct Anything;

impl SubtreeSource for Anything {
    type Error = std::convert::Infallible;

    fn subtree_root(&self, level: u8, index: u64) -> Result<Hash, Self::Error> {
        assert!(level <= 62, "level {level}");
        assert!((index + 1) << level <= MAX_SIZE, "{index} at level {level}");
        Ok(Hash::of_leaf(
            &[&[level][..], &index.to_be_bytes()].concat(),
        ))
    }
}

#[test]
fn the_largest_trees_have_paths_within_the_bound() {
    for size in [MAX_SIZE, MAX_SIZE - 1, MAX_SIZE / 2 + 1] {
        for index in [0, 1, size / 2, size - 2, size - 1] {
            let path = prove_inclusion(&Anything, index, size).expect("is in the tree");
            assert!(path.len() < MAX_PATH);
            let path = prove_consistency(&Anything, index, size).expect("is later");
            assert!(path.len() <= MAX_PATH);
        }
    }
    let longest = prove_consistency(&Anything, 1 + MAX_SIZE / 2, MAX_SIZE).expect("is later");
    assert_eq!(longest.len(), MAX_PATH);
}

#[test]
fn the_verifiers_take_any_sizes() {
    let sizes = [0, 1, 2, 3, MAX_SIZE, u64::MAX - 1, u64::MAX];
    let head = |size| TreeHead {
        size,
        root: leaf(0),
    };
    for path in [vec![], vec![leaf(1)], vec![leaf(1); 63], vec![leaf(1); 200]] {
        for first in sizes {
            for second in sizes {
                let _ = verify_inclusion(leaf(1), first, head(second), &path);
                let _ = verify_consistency(head(first), head(second), &path);
            }
        }
    }
    assert_eq!(
        verify_consistency(head(2), head(1), &[]),
        Err(VerifyError::Shrank { old: 2, new: 1 })
    );
    assert_eq!(
        verify_inclusion(leaf(0), 1, head(1), &[]),
        Err(VerifyError::NotInTree { index: 1, size: 1 })
    );
}

#[test]
fn tiles_give_the_same_proofs_as_nodes_across_segments() {
    let all = leaves(2 * 65_536 + 300);
    let (nodes, tiles) = (Nodes::new(all.clone()), Tiles::new(all));
    let sizes = [
        1, 255, 256, 257, 65_535, 65_536, 65_537, 131_072, 131_073, 131_372,
    ];
    for size in sizes {
        let root = root_at(&nodes, size).expect("is there");
        assert_eq!(root_at(&tiles, size), Ok(root));
        for index in [0, 1, 255, 256, 65_535, 65_536, 131_071, 131_371, size - 1] {
            if index >= size {
                continue;
            }
            let path = prove_inclusion(&tiles, index, size).expect("is in the tree");
            let other = prove_inclusion(&nodes, index, size).expect("is in the tree");
            assert_eq!(path, other, "record {index} of {size}");
            let head = TreeHead { size, root };
            assert_eq!(verify_inclusion(leaf(index), index, head, &path), Ok(()));
        }
        for old in sizes.into_iter().filter(|old| *old <= size) {
            let path = prove_consistency(&tiles, old, size).expect("is later");
            let other = prove_consistency(&nodes, old, size).expect("is later");
            assert_eq!(path, other, "from {old} to {size}");
        }
    }
}

/// A log of `size` records, with the proof of record `index`, and the one from `old` records, as files.
fn evidence(index: u64, old: u64, size: u64) -> (Vec<VerifierKey>, Checkpoint, String, String) {
    let key = SigningKey::from_seed("log.example", &[7; 32]).expect("is a key");
    let source = Nodes::new(leaves(size));
    let checkpoint = |size| {
        let root = root_at(&source, size).expect("is there");
        Checkpoint::new("log.example", TreeHead { size, root }).expect("is a checkpoint")
    };
    let note = checkpoint(size).sign(&key).expect("signs");
    let path = prove_inclusion(&source, index, size).expect("is in the tree");
    let inclusion = InclusionProof::new(index, path, None, note.clone()).expect("is a proof");
    let path = prove_consistency(&source, old, size).expect("is later");
    let consistency = ConsistencyProof::new(old, path, note).expect("is a proof");
    let keys = vec![key.verifier_key().clone()];
    (
        keys,
        checkpoint(old),
        inclusion.to_string(),
        consistency.to_string(),
    )
}

fn included(text: &[u8], index: u64, keys: &[VerifierKey]) -> bool {
    str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<InclusionProof>().ok())
        .is_some_and(|proof| proof.verify(leaf(index), keys).is_ok())
}

fn consistent(text: &[u8], old: &Checkpoint, keys: &[VerifierKey]) -> bool {
    str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<ConsistencyProof>().ok())
        .is_some_and(|proof| proof.verify(old, keys).is_ok())
}

#[test]
fn a_file_with_any_bit_flipped_proves_nothing() {
    let (keys, old, inclusion, consistency) = evidence(5, 6, 11);
    assert!(included(inclusion.as_bytes(), 5, &keys));
    assert!(consistent(consistency.as_bytes(), &old, &keys));
    let flips = |text: &str| {
        let text = text.as_bytes().to_vec();
        (0..text.len() * 8).map(move |at| {
            let mut flipped = text.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            flipped
        })
    };
    for flipped in flips(&inclusion) {
        let text = String::from_utf8_lossy(&flipped);
        assert!(!included(&flipped, 5, &keys), "{text}");
    }
    for flipped in flips(&consistency) {
        let text = String::from_utf8_lossy(&flipped);
        assert!(!consistent(&flipped, &old, &keys), "{text}");
    }
    for cut in 0..inclusion.len() {
        assert!(!included(&inclusion.as_bytes()[..cut], 5, &keys), "{cut}");
    }
}

proptest! {
    #[test]
    fn files_with_pieces_moved_prove_nothing(
        size in 2u64..200,
        place in any::<(u16, u16)>(),
        lines in any::<(u8, u8)>(),
    ) {
        let (index, old) = (u64::from(place.0) % size, 1 + u64::from(place.1) % (size - 1));
        let (keys, old, inclusion, consistency) = evidence(index, old, size);
        prop_assert!(included(inclusion.as_bytes(), index, &keys));
        prop_assert!(consistent(consistency.as_bytes(), &old, &keys));
        for text in [&inclusion, &consistency] {
            let mut moved: Vec<&str> = text.split_inclusive('\n').collect();
            let count = moved.len();
            let line = moved.remove(usize::from(lines.0) % count);
            moved.insert(usize::from(lines.1) % count, line);
            let moved = moved.concat();
            if moved != *text {
                prop_assert!(!included(moved.as_bytes(), index, &keys));
                prop_assert!(!consistent(moved.as_bytes(), &old, &keys));
            }
        }
    }
}
