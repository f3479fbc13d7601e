//! `tests/independent/verify_tlog.py` shares no code with this crate: it was made from docs/audit-format.md. What is proven here must be proven
//! there, and what is damaged refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fieldkeep_tlog::checkpoint::Checkpoint;
use fieldkeep_tlog::evidence::{ConsistencyProof, InclusionProof};
use fieldkeep_tlog::key::SigningKey;
use fieldkeep_tlog::log_id::LogId;
use fieldkeep_tlog::proof::{prove_consistency, prove_inclusion};
use fieldkeep_tlog::subtree::root_at;
use fieldkeep_tlog::tree::TreeHead;

use crate::sources::{Nodes, leaves};

const LARGEST: u64 = 301;

/// A log, and a directory for the files about it.
struct Log {
    key: SigningKey,
    source: Nodes,
    origin: String,
    files: tempfile::TempDir,
}

impl Log {
    fn new(seed: u8) -> Self {
        let origin = LogId::from_bytes([seed; 16]).origin();
        Self {
            key: SigningKey::from_seed(&origin, &[seed; 32]).expect("is a key"),
            source: Nodes::new(leaves(LARGEST)),
            origin,
            files: tempfile::tempdir().expect("there is room"),
        }
    }

    fn checkpoint(&self, size: u64) -> String {
        let root = root_at(&self.source, size).expect("is there");
        Checkpoint::new(&self.origin, TreeHead { size, root })
            .and_then(|checkpoint| checkpoint.sign(&self.key))
            .expect("signs")
    }

    fn inclusion(&self, index: u64, size: u64) -> String {
        let path = prove_inclusion(&self.source, index, size).expect("is in the tree");
        let extra = (index % 2 == 1).then(|| vec![1, 2, 3, 4]);
        InclusionProof::new(index, path, extra, self.checkpoint(size))
            .expect("is a proof")
            .to_string()
    }

    fn consistency(&self, old: u64, new: u64) -> String {
        let path = prove_consistency(&self.source, old, new).expect("is later");
        ConsistencyProof::new(old, path, self.checkpoint(new))
            .expect("is a proof")
            .to_string()
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.files.path().join(name);
        fs::write(&path, content).expect("there is room");
        path
    }

    /// Whether the script says that `record` is in the log.
    fn is_in(&self, proof: &str, record: &[u8]) -> bool {
        let (proof, record) = (
            self.file("proof", proof.as_bytes()),
            self.file("record", record),
        );
        self.run(&[&proof, &record])
    }

    fn is_consistent(&self, old: &str, proof: &str) -> bool {
        let (old, proof) = (
            self.file("old", old.as_bytes()),
            self.file("proof", proof.as_bytes()),
        );
        self.run(&[Path::new("--consistency"), &old, &proof])
    }

    fn run(&self, arguments: &[&Path]) -> bool {
        Command::new("python3")
            .arg(script())
            .arg(self.key.verifier_key().to_string())
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("python3 runs")
            .success()
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/independent/verify_tlog.py")
}

/// Says so if there is nothing to run the script with.
fn has_python() -> bool {
    let version = Command::new("python3").arg("--version").output();
    let has = version.is_ok_and(|output| output.status.success());
    if !has {
        println!("skipped: there is no python3");
    }
    has
}

#[test]
fn the_script_is_short_and_needs_the_standard_library_alone() {
    let text = fs::read_to_string(script()).expect("is there");
    assert!(text.lines().count() < 100);
    let imports: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("import ") || line.starts_with("from "))
        .collect();
    assert_eq!(
        imports,
        [
            "import base64, re, sys",
            "from hashlib import sha256, sha512"
        ]
    );
}

#[test]
fn the_script_finds_every_record_that_is_proven() {
    if !has_python() {
        return;
    }
    let log = Log::new(7);
    for (index, size) in [(0, 1), (2, 3), (5, 8), (256, 257), (123, 300)] {
        let proof = log.inclusion(index, size);
        assert!(log.is_in(&proof, &index.to_be_bytes()), "{index} of {size}");
        assert!(!log.is_in(&proof, &(index + 1).to_be_bytes()));
    }
}

#[test]
fn the_script_finds_every_growth_that_is_proven() {
    if !has_python() {
        return;
    }
    let log = Log::new(7);
    for (old, new) in [
        (0, 0),
        (0, 5),
        (1, 1),
        (2, 5),
        (6, 7),
        (64, 300),
        (257, 300),
    ] {
        let proof = log.consistency(old, new);
        assert!(
            log.is_consistent(&log.checkpoint(old), &proof),
            "{old} to {new}"
        );
        assert!(!log.is_consistent(&log.checkpoint(old + 1), &proof));
    }
}

#[test]
fn the_script_refuses_what_is_damaged() {
    if !has_python() {
        return;
    }
    let (log, other) = (Log::new(7), Log::new(8));
    let proof = log.inclusion(5, 11);
    let record = 5u64.to_be_bytes();
    assert!(log.is_in(&proof, &record));
    let lines: Vec<&str> = proof.split_inclusive('\n').collect();
    let path_at = lines
        .iter()
        .position(|line| line.starts_with("index"))
        .expect("is there")
        + 1;
    let without = |at: usize| [&lines[..at], &lines[at + 1..]].concat().concat();
    let size = proof.replace("\n11\n", "\n12\n");
    let signature = proof.replace("\u{2014} ", "\u{2014}  ");
    for (damage, text) in [
        ("empty", String::new()),
        ("first_line_missing", without(0)),
        ("extra_not_base64", proof.replace("extra ", "extra !")),
        ("index_missing", without(path_at - 1)),
        ("index_changed", proof.replace("index 5", "index 4")),
        (
            "index_with_leading_zero",
            proof.replace("index 5", "index 05"),
        ),
        ("index_beyond_the_log", proof.replace("index 5", "index 11")),
        ("hash_missing", without(path_at)),
        (
            "hash_twice",
            proof.replace(lines[path_at], &lines[path_at].repeat(2)),
        ),
        (
            "hash_changed",
            proof.replace(lines[path_at], lines[path_at + 1]),
        ),
        ("hash_not_canonical", proof.replacen("=\n", "\n", 2)),
        ("checkpoint_missing", lines[..path_at + 4].concat()),
        ("size_changed", size),
        ("signature_missing", without(lines.len() - 1)),
        ("signature_malformed", signature),
        ("checkpoint_of_another_log", other.inclusion(5, 11)),
        ("cut", proof[..proof.len() - 1].into()),
    ] {
        assert_ne!(text, proof, "{damage}");
        assert!(!log.is_in(&text, &record), "{damage}");
    }
    // One bit of some of the bytes of a proof without extra data, which nothing vouches for.
    let (proof, record) = (log.inclusion(4, 11), 4u64.to_be_bytes());
    assert!(log.is_in(&proof, &record));
    for at in (0..proof.len()).step_by(67) {
        let mut flipped = proof.clone().into_bytes();
        flipped[at] ^= 1;
        if let Ok(text) = String::from_utf8(flipped) {
            assert!(!log.is_in(&text, &record), "byte {at}");
        }
    }
    let (old, growth) = (log.checkpoint(6), log.consistency(6, 11));
    assert!(log.is_consistent(&old, &growth));
    for (damage, old, growth) in [
        ("old_forged", old.replace("\n6\n", "\n7\n"), growth.clone()),
        ("old_of_another_log", other.checkpoint(6), growth.clone()),
        (
            "shrunk",
            log.checkpoint(11),
            log.consistency(6, 6).replace("old 6", "old 11"),
        ),
        (
            "start_changed",
            old.clone(),
            growth.replace("old 6", "old 7"),
        ),
        ("an_inclusion_proof", old.clone(), proof.clone()),
        (
            "hashes_missing",
            old.clone(),
            format!("old 6\n\n{}", log.checkpoint(11)),
        ),
        (
            "hashes_at_an_equal_size",
            old.clone(),
            log.consistency(6, 6)
                .replacen('\n', &format!("\n{}", lines[path_at]), 1),
        ),
    ] {
        assert!(!log.is_consistent(&old, &growth), "{damage}");
    }
}
