//! The example of docs/audit-format.md is what this crate makes.

use std::fs;
use std::path::Path;

use fieldkeep_tlog::checkpoint::Checkpoint;
use fieldkeep_tlog::evidence::{ConsistencyProof, InclusionProof};
use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::key::{SigningKey, VerifierKey};
use fieldkeep_tlog::log_id::LogId;
use fieldkeep_tlog::proof::{prove_consistency, prove_inclusion};
use fieldkeep_tlog::receipt::Receipt;
use fieldkeep_tlog::subtree::root_at;
use fieldkeep_tlog::tree::TreeHead;

use crate::sources::Nodes;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/audit-format.md");
    fs::read_to_string(path).expect("is there")
}

/// The content of the page's code block with this name.
fn block(name: &str) -> String {
    let page = page();
    let start = format!("```text {name}\n");
    let (_, rest) = page.split_once(&start).expect("has the block");
    let (content, _) = rest.split_once("```\n").expect("the block ends");
    content.to_owned()
}

#[test]
fn the_example_is_what_is_made() {
    let log = LogId::from_bytes(std::array::from_fn(|at| at as u8));
    let key = SigningKey::from_seed(&log.origin(), &[7; 32]).expect("is a key");
    let leaves = ["one", "two", "three"].map(|record| Hash::of_leaf(record.as_bytes()));
    let source = Nodes::new(leaves.to_vec());
    let signed = |size| {
        let root = root_at(&source, size).expect("is there");
        Checkpoint::new(&log.origin(), TreeHead { size, root })
            .and_then(|checkpoint| checkpoint.sign(&key))
            .expect("signs")
    };
    let path = prove_inclusion(&source, 1, 3).expect("is in the tree");
    let inclusion = InclusionProof::new(1, path, None, signed(3)).expect("is a proof");
    let path = prove_consistency(&source, 2, 3).expect("is later");
    let consistency = ConsistencyProof::new(2, path, signed(3)).expect("is a proof");
    for (name, made) in [
        ("vkey", format!("{}\n", key.verifier_key())),
        ("inclusion", inclusion.to_string()),
        ("checkpoint", signed(2)),
        ("consistency", consistency.to_string()),
    ] {
        assert_eq!(block(name), made, "{name}:\n{made}");
    }
}

#[test]
fn the_example_verifies_as_it_stands() {
    let keys = [block("vkey")
        .trim_end()
        .parse::<VerifierKey>()
        .expect("is a key")];
    let proof: InclusionProof = block("inclusion").parse().expect("is a proof");
    let now = proof
        .verify(Hash::of_leaf(b"two"), &keys)
        .expect("is proven");
    let old = Checkpoint::open(&block("checkpoint"), &keys).expect("is signed");
    let growth: ConsistencyProof = block("consistency").parse().expect("is a proof");
    assert_eq!(growth.verify(&old, &keys), Ok(now));
}

#[test]
fn the_receipt_is_what_is_made() {
    let receipt = Receipt {
        log: LogId::from_bytes(std::array::from_fn(|at| at as u8)),
        index: 70_000,
        leaf: Hash::of_leaf(b""),
        durable: true,
    };
    assert!(page().contains(&format!("    {receipt}\n")));
}
