//! Every parser: round trips, strictness (whatever it takes, it gives back), and no panic on any input.

use fieldkeep_crypto::ciphertext::{
    Ciphertext, HEADER_BYTES, MAX_CIPHERTEXT_BYTES, MAX_TEXT_BYTES, OVERHEAD_KC_XAES, ParseError,
    Suite, decode_text, encode_text,
};
use fieldkeep_crypto::context::{ContextError, EncodedContext, decode};
use fieldkeep_crypto::names::NameError;
use proptest::prelude::*;

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    proptest::collection::btree_map("[a-z0-9][a-z0-9._-]{0,62}", ".{0,60}", 0..=16)
        .prop_map(|map| map.into_iter().collect::<Vec<_>>())
        .prop_shuffle()
}

fn encode(pairs: &[(String, String)]) -> Result<EncodedContext, ContextError> {
    EncodedContext::encode(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())))
}

/// Bytes that begin like a ciphertext, so that the parser is reached behind its first checks.
fn nearly_ciphertexts() -> impl Strategy<Value = Vec<u8>> {
    (
        prop_oneof![Just(0xFEu8), any::<u8>()],
        0u8..4,
        proptest::collection::vec(any::<u8>(), 0..200),
    )
        .prop_map(|(magic, suite, mut rest)| {
            rest.splice(0..0, [magic, suite]);
            rest
        })
}

proptest! {
    #[test]
    fn contexts_round_trip(pairs in pairs()) {
        let Ok(encoded) = encode(&pairs) else {
            // Only the length can be wrong with such pairs.
            prop_assert_eq!(encode(&pairs).unwrap_err(), ContextError::TooLong);
            return Ok(());
        };
        let mut sorted = pairs.clone();
        sorted.sort();
        prop_assert_eq!(decode(encoded.as_bytes()).unwrap(), sorted);
        prop_assert_eq!(encoded.is_empty(), pairs.is_empty());
        let mut again = EncodedContext::encode([("old", "content")]).unwrap();
        again.encode_again(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))).unwrap();
        prop_assert_eq!(again, encoded);
    }

    #[test]
    fn a_context_that_decodes_is_canonical(
        pairs in pairs(),
        at: prop::sample::Index,
        byte: u8,
        kind in 0..3,
    ) {
        let Ok(encoded) = encode(&pairs) else { return Ok(()) };
        let mut bytes = encoded.as_bytes().to_vec();
        match kind {
            0 if !bytes.is_empty() => { let i = at.index(bytes.len()); bytes[i] = byte; }
            1 => bytes.truncate(at.index(bytes.len() + 1)),
            _ => bytes.insert(at.index(bytes.len() + 1), byte),
        }
        if let Ok(decoded) = decode(&bytes) {
            prop_assert!(encode(&decoded).unwrap().as_bytes() == bytes);
        }
    }

    #[test]
    fn any_bytes_as_context(bytes: Vec<u8>) {
        if let Ok(decoded) = decode(&bytes) {
            prop_assert!(encode(&decoded).unwrap().as_bytes() == bytes);
        }
    }

    #[test]
    fn any_bytes_as_ciphertext(bytes in nearly_ciphertexts()) {
        match Ciphertext::parse(&bytes) {
            Ok(parsed) => {
                prop_assert_eq!([parsed.header(), parsed.body()].concat(), &bytes[..]);
                prop_assert_eq!(parsed.header().len(), HEADER_BYTES);
                prop_assert_eq!(parsed.suite(), Suite::KcXaes256Gcm);
                prop_assert!(parsed.version() > 0);
                prop_assert_eq!(parsed.plaintext_len(), bytes.len() - OVERHEAD_KC_XAES);
                let mut header = vec![0xFE, parsed.suite().code()];
                header.extend_from_slice(parsed.handle().as_bytes());
                header.extend_from_slice(&parsed.version().to_be_bytes());
                prop_assert_eq!(header, parsed.header());
            }
            Err(_) => {
                let good = bytes[0] == 0xFE && bytes[1] == 1 && bytes.len() >= 86 && bytes[10..14] != [0; 4];
                prop_assert!(!good);
            }
        }
    }

    #[test]
    fn bytes_round_trip_through_text(bytes in proptest::collection::vec(any::<u8>(), 1..300)) {
        let text = encode_text(&bytes);
        prop_assert_eq!(decode_text(&text).unwrap(), bytes);
        prop_assert!(text.strip_prefix("fk1:").unwrap().bytes().all(
            |b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'
        ));
    }

    #[test]
    fn text_that_decodes_is_canonical(text in "fk1:[A-Za-z0-9_=+/ \n-]{0,40}") {
        if let Ok(bytes) = decode_text(&text) {
            prop_assert_eq!(encode_text(&bytes), text);
        }
    }

    #[test]
    fn any_text(text: String) {
        if let Ok(bytes) = decode_text(&text) {
            prop_assert_eq!(encode_text(&bytes), text);
        }
    }
}

#[test]
fn lengths_of_ciphertexts_have_both_bounds() {
    let mut bytes = vec![0; MAX_CIPHERTEXT_BYTES + 1];
    bytes[..14].copy_from_slice(&[0xFE, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 1]);
    assert_eq!(Ciphertext::parse(&bytes), Err(ParseError::TooLong));
    let longest = &bytes[..MAX_CIPHERTEXT_BYTES];
    assert_eq!(Ciphertext::parse(longest).unwrap().plaintext_len(), 65_536);
    assert_eq!(Ciphertext::parse(&bytes[..86]).unwrap().plaintext_len(), 0);
    assert_eq!(Ciphertext::parse(&bytes[..85]), Err(ParseError::TooShort));
    let text = encode_text(longest);
    assert_eq!(text.len(), MAX_TEXT_BYTES);
    assert_eq!(decode_text(&text).unwrap(), longest);
    assert_eq!(decode_text(&encode_text(&bytes)), Err(ParseError::TooLong));
}

#[test]
fn only_suite_01_is_known() {
    for code in 0..=255 {
        match Suite::try_from(code) {
            Ok(suite) => assert_eq!((suite.code(), code), (1, 1)),
            Err(e) => assert_eq!(e, ParseError::UnknownSuite(code)),
        }
    }
}

#[test]
fn each_rule_of_contexts_has_its_error() {
    let name = |i: usize| format!("n{i}");
    let many = |n| (0..n).map(|i| (name(i), String::new())).collect::<Vec<_>>();
    assert!(encode(&many(16)).is_ok());
    assert_eq!(encode(&many(17)), Err(ContextError::TooManyPairs));
    let long = |n| EncodedContext::encode([("id", "x".repeat(n).as_str())]);
    assert_eq!(long(4086).unwrap().as_bytes().len(), 4096);
    assert_eq!(long(4087), Err(ContextError::TooLong));
    assert_eq!(
        EncodedContext::encode([("a", "1"), ("a", "1")]),
        Err(ContextError::DuplicateName)
    );
    assert_eq!(
        EncodedContext::encode([("a", "1"), ("b", ""), ("a", "2")]),
        Err(ContextError::DuplicateName)
    );
    assert_eq!(
        EncodedContext::encode([("", "1")]),
        Err(ContextError::Name(NameError::Empty))
    );
    let mut reused = EncodedContext::encode([("a", "1")]).unwrap();
    assert!(reused.encode_again([("A", "1")]).is_err());
    assert!(
        reused.is_empty(),
        "a failed encoding leaves nothing of an earlier one"
    );
}

#[test]
fn each_rule_of_encoded_contexts_has_its_error() {
    let pair = |n: &[u8], v: &[u8]| [crate::second::lp(n), crate::second::lp(v)].concat();
    let two = |a: &[u8], b: &[u8]| [pair(a, b"1"), pair(b, b"2")].concat();
    assert_eq!(decode(&[]).unwrap(), []);
    assert_eq!(decode(&two(b"b", b"a")), Err(ContextError::NotSorted));
    assert_eq!(decode(&two(b"a", b"a")), Err(ContextError::DuplicateName));
    assert_eq!(
        decode(&pair(b"A", b"")),
        Err(ContextError::Name(NameError::FirstCharacter))
    );
    assert_eq!(decode(&pair(b"a", b"\xff")), Err(ContextError::NotUtf8));
    assert_eq!(decode(&pair(b"\xff", b"")), Err(ContextError::NotUtf8));
    assert_eq!(decode(&vec![0; 4097]), Err(ContextError::TooLong));
    assert_eq!(decode(&[0xFF; 8]), Err(ContextError::Truncated));
    let good = two(b"a", b"b");
    for length in (1..good.len()).filter(|length| *length != good.len() / 2) {
        assert_eq!(
            decode(&good[..length]),
            Err(ContextError::Truncated),
            "{length}"
        );
    }
    let seventeen: Vec<u8> = (b'a'..=b'q').flat_map(|n| pair(&[n], b"")).collect();
    assert_eq!(decode(&seventeen), Err(ContextError::TooManyPairs));
}
