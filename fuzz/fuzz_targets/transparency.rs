//! Any text as what the transparency log's parsers read: a verifier key, a note, a checkpoint, proofs, the signature of a report, a receipt; and any bytes as an entry
//! bundle or tiles. What is read is written as the same text, and nothing that the fuzzer makes is signed by a key of ours.

#![no_main]

use std::sync::LazyLock;

use fieldkeep_tlog::bundle::{entries, push_entry};
use fieldkeep_tlog::checkpoint::Checkpoint;
use fieldkeep_tlog::evidence::{ConsistencyProof, InclusionProof};
use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::key::{SigningKey, VerifierKey};
use fieldkeep_tlog::note;
use fieldkeep_tlog::receipt::Receipt;
use fieldkeep_tlog::report::{ReportSignature, ReportStatement};
use fieldkeep_tlog::tile::{decode_hashes, encode_hashes};
use fieldkeep_tlog::tree::TreeHead;
use libfuzzer_sys::fuzz_target;

/// A key of a name that the fuzzer finds easily, and one whose seed stands in no input.
static KEYS: LazyLock<[SigningKey; 2]> = LazyLock::new(|| {
    ["a", "fieldkeep/audit/00000000000000000000000000000000"]
        .map(|name| SigningKey::from_seed(name, &[7; 32]).expect("is a key"))
});

fuzz_target!(|data: &[u8]| {
    if let Ok(records) = entries(data).collect::<Result<Vec<_>, _>>() {
        let mut again = Vec::new();
        for record in records {
            push_entry(&mut again, record).expect("was one");
        }
        assert_eq!(again, data);
    }
    if let Ok(hashes) = decode_hashes(data) {
        let mut again = Vec::new();
        encode_hashes(&hashes, &mut again);
        assert_eq!(again, data);
    }
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(receipt) = text.parse::<Receipt>() {
        assert_eq!(receipt.to_string(), text);
    }
    if let Ok(checkpoint) = text.parse::<Checkpoint>() {
        assert_eq!(checkpoint.to_string(), text);
    }
    let keys = KEYS.each_ref().map(|key| key.verifier_key().clone());
    assert!(note::open(text, &keys).is_err(), "forged");
    if let Ok(statement) = text.parse::<ReportStatement>() {
        assert_eq!(statement.to_string(), text);
        assert!(text.parse::<Checkpoint>().is_err(), "both kinds");
    }
    if let Ok(signature) = text.parse::<ReportSignature>() {
        assert_eq!(signature.to_string(), text);
        assert!(signature.verify([0; 32], &keys).is_err(), "forged");
    }
    if let Ok(proof) = text.parse::<InclusionProof>() {
        assert_eq!(proof.to_string(), text);
        assert!(proof.verify(Hash::of_leaf(b""), &keys).is_err(), "forged");
    }
    if let Ok(proof) = text.parse::<ConsistencyProof>() {
        assert_eq!(proof.to_string(), text);
        let nothing = TreeHead {
            size: 0,
            root: Hash::EMPTY_ROOT,
        };
        let old = Checkpoint::new("a", nothing).expect("is a checkpoint");
        assert!(proof.verify(&old, &keys).is_err(), "forged");
    }
    // Any text that can be a note's is one once it is signed, and reads as it was.
    for key in &*KEYS {
        if let Ok(note) = note::sign(text, key) {
            let (opened, signers) = note::open(&note, &keys).expect("is signed");
            assert_eq!(opened, text);
            assert_eq!(signers, [key.verifier_key()]);
        }
    }
});
