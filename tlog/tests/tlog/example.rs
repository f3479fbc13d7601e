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
use fieldkeep_tlog::report::{ReportForm, ReportSignature, ReportStatement};
use fieldkeep_tlog::subtree::root_at;
use fieldkeep_tlog::tree::TreeHead;

use crate::sources::Nodes;

/// SHA-256 of the report `done`.
const DONE_SHA256: [u8; 32] = [
    0xa4, 0xc3, 0xed, 0x04, 0xa9, 0x5a, 0x3d, 0xa1, 0x4a, 0x9d, 0x23, 0x5c, 0x83, 0xd8, 0x68, 0xbe,
    0xd7, 0xc0, 0xf4, 0x5c, 0xf7, 0xf3, 0xfa, 0xa7, 0x51, 0xee, 0x8f, 0x50, 0x59, 0x8d, 0x22, 0x11,
];

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
    let root = root_at(&source, 3).expect("is there");
    let statement = ReportStatement {
        log,
        form: ReportForm::Text,
        sha256: DONE_SHA256,
        from_us: 1_793_491_200_000_000,
        to_us: 1_796_083_200_000_000,
        first: 0,
        head: TreeHead { size: 3, root },
    };
    let report = ReportSignature::make(&statement, signed(3), &key).expect("signs");
    for (name, made) in [
        ("vkey", format!("{}\n", key.verifier_key())),
        ("inclusion", inclusion.to_string()),
        ("checkpoint", signed(2)),
        ("consistency", consistency.to_string()),
        ("report-signature", report.to_string()),
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
    assert_eq!(growth.verify(&old, &keys), Ok(now.clone()));
    let report: ReportSignature = block("report-signature").parse().expect("is one");
    let statement = report.verify(DONE_SHA256, &keys).expect("is signed");
    assert_eq!(statement.head, now.head());
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
