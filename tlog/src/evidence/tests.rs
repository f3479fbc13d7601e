use super::*;
use crate::key::SigningKey;
use crate::tree::{Tree, TreeHead};

const ORIGIN: &str = "log.example";

fn key() -> SigningKey {
    SigningKey::from_seed(ORIGIN, &[7; 32]).expect("is a key")
}

fn leaf(at: u64) -> Hash {
    Hash::of_leaf(&at.to_be_bytes())
}

fn head(size: u64) -> TreeHead {
    let mut tree = Tree::new();
    (0..size).for_each(|at| tree.append(leaf(at)));
    tree.head()
}

fn checkpoint(size: u64) -> Checkpoint {
    Checkpoint::new(ORIGIN, head(size)).expect("is a checkpoint")
}

fn signed(size: u64) -> String {
    checkpoint(size).sign(&key()).expect("signs")
}

/// Record 2 of 3.
fn inclusion(extra: Option<Vec<u8>>) -> InclusionProof {
    InclusionProof::new(2, vec![head(2).root], extra, signed(3)).expect("is a proof")
}

/// From 2 records to 3.
fn consistency() -> ConsistencyProof {
    ConsistencyProof::new(2, vec![leaf(2)], signed(3)).expect("is a proof")
}

#[test]
fn an_inclusion_proof_is_a_file() {
    let keys = [key().verifier_key().clone()];
    for extra in [None, Some(2u64.to_be_bytes().to_vec())] {
        let proof = inclusion(extra.clone());
        let text = proof.to_string();
        assert_eq!(text.parse(), Ok(proof.clone()));
        assert_eq!(proof.extra(), extra.as_deref());
        assert_eq!(proof.index(), 2);
        assert_eq!(proof.verify(leaf(2), &keys), Ok(checkpoint(3)));
        assert_eq!(
            proof.verify(leaf(1), &keys),
            Err(VerifyError::RootMismatch.into())
        );
    }
    let text = inclusion(None).to_string();
    let expected = format!("{TLOG_PROOF}\nindex 2\n{}\n\n{}", head(2).root, signed(3));
    assert_eq!(text, expected);
    let alone = InclusionProof::new(0, Vec::new(), None, signed(1)).expect("is a proof");
    assert_eq!(alone.to_string().parse(), Ok(alone.clone()));
    assert_eq!(alone.verify(leaf(0), &keys), Ok(checkpoint(1)));
}

#[test]
fn a_proof_under_anothers_checkpoint_proves_nothing() {
    let other = SigningKey::from_seed(ORIGIN, &[8; 32]).expect("is a key");
    let unknown = EvidenceError::from(NoteError::UnknownSigners);
    let keys = [other.verifier_key().clone()];
    assert_eq!(inclusion(None).verify(leaf(2), &keys), Err(unknown.clone()));
    assert_eq!(consistency().verify(&checkpoint(2), &keys), Err(unknown));
}

#[test]
fn a_consistency_proof_is_a_file() {
    let keys = [key().verifier_key().clone()];
    let proof = consistency();
    let text = proof.to_string();
    assert_eq!(text, format!("old 2\n{}\n\n{}", leaf(2), signed(3)));
    assert_eq!(text.parse(), Ok(proof.clone()));
    assert_eq!(proof.verify(&checkpoint(2), &keys), Ok(checkpoint(3)));
    let start = EvidenceError::OtherStart {
        origin: ORIGIN.into(),
        size: 2,
    };
    assert_eq!(proof.verify(&checkpoint(1), &keys), Err(start.clone()));
    let namesake = Checkpoint::new("other.example", head(2)).expect("is a checkpoint");
    assert_eq!(proof.verify(&namesake, &keys), Err(start));
    let rewritten = TreeHead {
        size: 2,
        root: leaf(9),
    };
    let rewritten = Checkpoint::new(ORIGIN, rewritten).expect("is a checkpoint");
    assert_eq!(
        proof.verify(&rewritten, &keys),
        Err(VerifyError::RootMismatch.into())
    );
}

#[test]
fn malformed_inclusion_proofs_are_refused() {
    use EvidenceError::{Extra, FirstLine, Hash as HashLine, Index, NoCheckpoint, TooLong};
    let text = inclusion(Some(vec![1, 2])).to_string();
    let hash = format!("{}\n", head(2).root);
    let first = FirstLine(TLOG_PROOF);
    let with_hashes = |count: usize| text.replace(&hash, &hash.repeat(count));
    let long = BASE64.encode(&vec![0; MAX_EXTRA_BYTES + 1]);
    for (malformation, text, error) in [
        ("empty", String::new(), NoCheckpoint),
        (
            "first_line_missing",
            text.replacen("c2sp.org/tlog-proof@v1\n", "", 1),
            first.clone(),
        ),
        ("version_2", text.replace("@v1", "@v2"), first.clone()),
        (
            "space_after_first_line",
            text.replace("@v1", "@v1 "),
            first.clone(),
        ),
        ("carriage_returns", text.replace('\n', "\r\n"), NoCheckpoint),
        ("extra_empty", text.replace("AQI=", ""), Extra),
        ("extra_without_padding", text.replace("AQI=", "AQI"), Extra),
        (
            "extra_trailing_bits_set",
            text.replace("AQI=", "AQJ="),
            Extra,
        ),
        ("extra_too_long", text.replace("AQI=", &long), Extra),
        (
            "extra_twice",
            text.replace("extra AQI=\n", "extra AQI=\nextra AQI=\n"),
            Index,
        ),
        (
            "extra_after_index",
            text.replace("extra AQI=\nindex 2\n", "index 2\nextra AQI=\n"),
            HashLine(1),
        ),
        ("index_missing", text.replace("index 2\n", ""), Index),
        (
            "index_with_leading_zero",
            text.replace("index 2", "index 02"),
            Index,
        ),
        ("index_negative", text.replace("index 2", "index -2"), Index),
        (
            "index_after_two_spaces",
            text.replace("index 2", "index  2"),
            Index,
        ),
        ("hash_cut", text.replace(&hash, &hash[4..]), HashLine(1)),
        (
            "hash_after_space",
            text.replace(&hash, &format!(" {hash}")),
            HashLine(1),
        ),
        ("64_hashes", with_hashes(64), EvidenceError::TooManyHashes),
        (
            "1000_hashes",
            with_hashes(1000),
            EvidenceError::TooManyHashes,
        ),
        (
            "empty_line_missing",
            text.replacen("\n\n", "\n", 1),
            HashLine(2),
        ),
        (
            "checkpoint_missing",
            text[..text.find("\n\n").expect("is there") + 2].into(),
            NoteError::NoSignatures.into(),
        ),
        (
            "signature_missing",
            text[..text.find('\u{2014}').expect("is there")].into(),
            NoteError::NoSignatures.into(),
        ),
        (
            "last_newline_missing",
            text.trim_end().into(),
            NoteError::SignatureLine(1).into(),
        ),
        (
            "too_long",
            format!("{text}{}", "x".repeat(MAX_EVIDENCE_BYTES)),
            TooLong,
        ),
    ] {
        assert_eq!(text.parse::<InclusionProof>(), Err(error), "{malformation}");
    }
    assert!(with_hashes(63).parse::<InclusionProof>().is_ok());
}

#[test]
fn malformed_consistency_proofs_are_refused() {
    use EvidenceError::{FirstLine, Hash as HashLine, NoCheckpoint};
    let text = consistency().to_string();
    let hash = format!("{}\n", leaf(2));
    let first = FirstLine("old <size>");
    for (malformation, text, error) in [
        ("empty", String::new(), NoCheckpoint),
        ("old_missing", text.replace("old 2\n", ""), first.clone()),
        (
            "old_with_leading_zero",
            text.replace("old 2", "old 02"),
            first.clone(),
        ),
        (
            "old_without_space",
            text.replace("old 2", "old2"),
            first.clone(),
        ),
        (
            "an_inclusion_proof",
            inclusion(None).to_string(),
            first.clone(),
        ),
        ("hash_cut", text.replace(&hash, &hash[4..]), HashLine(1)),
        (
            "64_hashes",
            text.replace(&hash, &hash.repeat(64)),
            EvidenceError::TooManyHashes,
        ),
        (
            "empty_line_missing",
            text.replacen("\n\n", "\n", 1),
            HashLine(2),
        ),
        (
            "signature_missing",
            text[..text.find('\u{2014}').expect("is there")].into(),
            NoteError::NoSignatures.into(),
        ),
    ] {
        assert_eq!(
            text.parse::<ConsistencyProof>(),
            Err(error),
            "{malformation}"
        );
    }
}

#[test]
fn parts_that_could_not_be_read_back_make_no_file() {
    let of = |path, extra| InclusionProof::new(0, path, extra, signed(1));
    assert_eq!(
        of(vec![leaf(0); 64], None),
        Err(EvidenceError::TooManyHashes)
    );
    assert_eq!(of(Vec::new(), Some(Vec::new())), Err(EvidenceError::Extra));
    assert_eq!(
        of(Vec::new(), Some(vec![0; 65_536])),
        Err(EvidenceError::Extra)
    );
    let unsigned = InclusionProof::new(0, Vec::new(), None, checkpoint(1).to_string());
    assert_eq!(unsigned, Err(NoteError::NoSignatures.into()));
    let unsigned = ConsistencyProof::new(0, Vec::new(), checkpoint(1).to_string());
    assert_eq!(unsigned, Err(NoteError::NoSignatures.into()));
}
