//! Known answers that others published: the tree of eight leaves that the test suites of Certificate Transparency share
//! (`transparency-dev/merkle`, `testonly/constants.go` and `proof/verify_test.go`, after RFC 6962).

use data_encoding::HEXLOWER;
use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::proof::{
    prove_consistency, prove_inclusion, verify_consistency, verify_inclusion,
};
use fieldkeep_tlog::subtree::root_at;
use fieldkeep_tlog::tree::{Tree, TreeHead};

use crate::sources::Nodes;

const RECORDS: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];

/// The roots of the trees of 0 to 8 of these records.
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

/// Index, size, path.
const INCLUSION: [(u64, u64, &[&str]); 5] = [
    (0, 1, &[]),
    (
        0,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        &[
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        3,
        &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    ),
    (
        1,
        5,
        &[
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
];

/// Old size, new size, proof.
const CONSISTENCY: [(u64, u64, &[&str]); 5] = [
    (1, 1, &[]),
    (
        1,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        &[
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        &[
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
    (
        6,
        7,
        &[
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
];

fn bytes(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).expect("is hexadecimal")
}

fn hash(text: &str) -> Hash {
    Hash::from_bytes(bytes(text).try_into().expect("32 bytes"))
}

fn head(size: u64) -> TreeHead {
    TreeHead {
        size,
        root: hash(ROOTS[size as usize]),
    }
}

fn leaves() -> Vec<Hash> {
    RECORDS.map(|record| Hash::of_leaf(&bytes(record))).to_vec()
}

#[test]
fn the_roots_are_the_published_ones() {
    let source = Nodes::new(leaves());
    let mut tree = Tree::new();
    for size in 0..=8 {
        assert_eq!(tree.head(), head(size));
        assert_eq!(root_at(&source, size), Ok(head(size).root));
        if let Some(leaf) = leaves().get(size as usize) {
            tree.append(*leaf);
        }
    }
}

#[test]
fn the_inclusion_proofs_are_the_published_ones() {
    let leaves = leaves();
    let source = Nodes::new(leaves.clone());
    for (index, size, path) in INCLUSION {
        let path: Vec<Hash> = path.iter().map(|text| hash(text)).collect();
        let made = prove_inclusion(&source, index, size).expect("is in the tree");
        assert_eq!(made, path, "record {index} of {size}");
        let leaf = leaves[index as usize];
        assert_eq!(verify_inclusion(leaf, index, head(size), &path), Ok(()));
    }
}

#[test]
fn the_consistency_proofs_are_the_published_ones() {
    let source = Nodes::new(leaves());
    for (old, new, path) in CONSISTENCY {
        let path: Vec<Hash> = path.iter().map(|text| hash(text)).collect();
        let made = prove_consistency(&source, old, new).expect("is later");
        assert_eq!(made, path, "from {old} to {new}");
        assert_eq!(verify_consistency(head(old), head(new), &path), Ok(()));
    }
}
