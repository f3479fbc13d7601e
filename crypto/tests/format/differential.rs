//! This crate against the second implementation, on random input.

use std::collections::BTreeMap;

use fieldkeep_crypto::ciphertext::{
    Ciphertext, Handle, MAX_PLAINTEXT_BYTES, OVERHEAD_KC_XAES, Suite,
};
use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_crypto::error::SealError;
use fieldkeep_crypto::keys::{Dek, FieldKey, Nonce, Nonces};
use fieldkeep_crypto::names::Field;
use proptest::prelude::*;

use crate::second::Opener;

fn openers() -> impl Strategy<Value = Opener> {
    (
        any::<[u8; 32]>(),
        "[a-z0-9][a-z0-9._-]{0,62}",
        any::<[u8; 8]>(),
        1u32..,
        "[a-z0-9][a-z0-9._-]{0,62}",
        proptest::collection::btree_map("[a-z0-9][a-z0-9._-]{0,12}", ".{0,40}", 0..8),
    )
        .prop_map(|(dek, tenant, handle, version, field, context)| Opener {
            dek,
            tenant,
            handle,
            version,
            field,
            context,
        })
}

fn field_key(opener: &Opener) -> FieldKey {
    Dek::dangerous_from_bytes(&opener.dek).derive_field_key(
        Suite::KcXaes256Gcm,
        &opener.tenant,
        Handle::from_bytes(opener.handle),
        opener.version,
        Field::parse(&opener.field).unwrap(),
    )
}

fn context(pairs: &BTreeMap<String, String>) -> EncodedContext {
    EncodedContext::encode(pairs.iter().rev().map(|(n, v)| (n.as_str(), v.as_str()))).unwrap()
}

fn open(key: &FieldKey, context: &EncodedContext, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let opened = key.open(&Ciphertext::parse(bytes).ok()?, context, &mut out);
    assert!(opened.is_ok() || out.is_empty());
    opened.ok().map(|()| out)
}

proptest! {
    #[test]
    fn both_seal_the_same_and_open_each_other(
        opener in openers(),
        nonce: [u8; 24],
        plaintext in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let (key, context) = (field_key(&opener), context(&opener.context));
        let mut ours = b"before".to_vec();
        key.seal(Nonce::dangerous_from_bytes(nonce), &context, &plaintext, &mut ours).unwrap();
        let ours = ours.strip_prefix(b"before").unwrap();
        prop_assert_eq!(ours, opener.seal(&nonce, &plaintext));
        prop_assert_eq!(ours.len(), plaintext.len() + OVERHEAD_KC_XAES);
        prop_assert_eq!(opener.open(ours).unwrap(), &plaintext[..]);
        prop_assert_eq!(open(&key, &context, ours).unwrap(), plaintext);
    }

    #[test]
    fn both_refuse_the_same_damage(
        opener in openers(),
        plaintext in proptest::collection::vec(any::<u8>(), 0..80),
        at: prop::sample::Index,
        damage in 0..4,
        mask in 1u8..,
    ) {
        let mut bytes = opener.seal(&[3; 24], &plaintext);
        match damage {
            0 => { let i = at.index(bytes.len()); bytes[i] ^= mask; }
            1 => bytes.truncate(at.index(bytes.len())),
            2 => bytes.insert(at.index(bytes.len() + 1), mask),
            _ => { bytes.remove(at.index(bytes.len())); }
        }
        // Inserting or removing inside a run of equal bytes can give the same bytes again, but never of another length.
        prop_assert!(opener.open(&bytes).is_err());
        prop_assert_eq!(open(&field_key(&opener), &context(&opener.context), &bytes), None);
    }

    #[test]
    fn another_opener_never_opens(a in openers(), b in openers(), which in 0..5) {
        let mut other = a.clone();
        match which {
            0 => other.dek = b.dek,
            1 => other.tenant = b.tenant,
            2 => { other.handle = b.handle; }
            3 => other.field = b.field,
            _ => other.context = b.context,
        }
        let same = (&other.dek, &other.tenant, &other.handle, &other.field, &other.context)
            == (&a.dek, &a.tenant, &a.handle, &a.field, &a.context);
        let mut bytes = Vec::new();
        let nonce = Nonce::dangerous_from_bytes([5; 24]);
        field_key(&a).seal(nonce, &context(&a.context), b"secret", &mut bytes).unwrap();
        // Even where the header is rewritten to name the other opener's key.
        bytes[2..10].copy_from_slice(&other.handle);
        prop_assert_eq!(open(&field_key(&other), &context(&other.context), &bytes).is_some(), same);
    }
}

fn any_key() -> FieldKey {
    Dek::make().unwrap().derive_field_key(
        Suite::KcXaes256Gcm,
        "default",
        Handle::make().unwrap(),
        1,
        Field::parse("f").unwrap(),
    )
}

#[test]
fn the_longest_plaintext_is_taken_and_no_longer_one() {
    let (key, context) = (any_key(), EncodedContext::EMPTY);
    let mut out = Vec::new();
    let plaintext = vec![7; MAX_PLAINTEXT_BYTES];
    key.seal(Nonce::make().unwrap(), &context, &plaintext, &mut out)
        .unwrap();
    assert_eq!(open(&key, &context, &out).unwrap(), plaintext);
    let mut out = b"before".to_vec();
    let longer = vec![7; MAX_PLAINTEXT_BYTES + 1];
    let sealed = key.seal(Nonce::make().unwrap(), &context, &longer, &mut out);
    assert_eq!(
        (sealed, out.as_slice()),
        (Err(SealError::TooLong), b"before".as_slice())
    );
}

#[test]
fn version_zero_seals_nothing() {
    let field = Field::parse("f").unwrap();
    let handle = Handle::make().unwrap();
    let key =
        Dek::make()
            .unwrap()
            .derive_field_key(Suite::KcXaes256Gcm, "default", handle, 0, field);
    let mut out = Vec::new();
    let sealed = key.seal(
        Nonce::make().unwrap(),
        &EncodedContext::EMPTY,
        b"x",
        &mut out,
    );
    assert_eq!(
        (sealed, out.is_empty()),
        (Err(SealError::VersionZero), true)
    );
}

#[test]
fn a_batch_shares_memory_and_no_nonce() {
    let key = any_key();
    let mut out = Vec::with_capacity(100 * (OVERHEAD_KC_XAES + 5));
    let memory = out.as_ptr();
    for nonce in Nonces::make(100).unwrap() {
        key.seal(nonce, &EncodedContext::EMPTY, b"equal", &mut out)
            .unwrap();
    }
    assert_eq!(out.as_ptr(), memory);
    let items: std::collections::HashSet<&[u8]> = out.chunks(OVERHEAD_KC_XAES + 5).collect();
    assert_eq!(items.len(), 100);
    for item in items {
        assert_eq!(open(&key, &EncodedContext::EMPTY, item).unwrap(), b"equal");
    }
}
