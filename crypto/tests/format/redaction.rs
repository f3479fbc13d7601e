//! What is shown of secrets: nothing.

use fieldkeep_crypto::ciphertext::{Handle, Suite};
use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_crypto::error::OpenError;
use fieldkeep_crypto::keys::{AuditKey, Dek, Kek, MasterKey, RecordKey, RootKey};
use fieldkeep_crypto::names::Field;
use zeroize::Zeroizing;

const BYTES: [u8; 32] = *b"0123456789abcdef0123456789abcdef";

#[test]
fn debug_of_every_key_is_redacted() {
    let hash_key = RecordKey::dangerous_from_bytes(&BYTES).derive_api_key_hash_key();
    let shown = [
        format!("{:?}", RootKey::from_bytes(Zeroizing::new(BYTES))),
        format!("{:?}", MasterKey::dangerous_from_bytes(&BYTES)),
        format!("{:?}", Kek::dangerous_from_bytes(&BYTES)),
        format!("{:#?}", Dek::dangerous_from_bytes(&BYTES)),
        format!("{:?}", RecordKey::dangerous_from_bytes(&BYTES)),
        format!("{:?}", AuditKey::dangerous_from_bytes(&BYTES)),
        format!("{:?}", hash_key),
        format!("{:?}", hash_key.hash("id", &BYTES)),
    ];
    let names = [
        "RootKey",
        "MasterKey",
        "Kek",
        "Dek",
        "RecordKey",
        "AuditKey",
        "ApiKeyHashKey",
        "ApiKeyHash",
    ];
    for (shown, name) in shown.iter().zip(names) {
        assert_eq!(*shown, format!("{name}(redacted)"));
    }
}

#[test]
fn debug_of_a_field_key_shows_only_what_its_ciphertexts_show() {
    let key = Dek::dangerous_from_bytes(&BYTES).derive_field_key(
        Suite::KcXaes256Gcm,
        "tenant",
        Handle::from_bytes([0xAB; 8]),
        3,
        Field::parse("customer.email").unwrap(),
    );
    assert_eq!(
        format!("{key:?}"),
        "FieldKey(redacted, abababababababab version 3)"
    );
}

#[test]
fn debug_of_a_context_shows_no_value() {
    let context = EncodedContext::encode([("id", "jane@example.com")]).unwrap();
    assert_eq!(format!("{context:?}"), "EncodedContext(26 bytes)");
}

#[test]
fn a_failed_opening_says_nothing() {
    assert_eq!(OpenError.to_string(), "decryption failed");
    assert_eq!(size_of::<OpenError>(), 0);
}

/// A key is a pointer to its bytes, so that moving it copies none of them; and none of these types implements `Clone` (a
/// derive would make the ambiguity below resolve, and this file would not compile).
#[test]
fn keys_move_without_copies_and_cannot_be_cloned() {
    assert_eq!(size_of::<Dek>(), size_of::<usize>());

    trait NotClone<Marker> {
        fn check() {}
    }
    impl<T> NotClone<()> for T {}
    struct IsClone;
    impl<T: Clone> NotClone<IsClone> for T {}
    <RootKey as NotClone<_>>::check();
    <MasterKey as NotClone<_>>::check();
    <Kek as NotClone<_>>::check();
    <Dek as NotClone<_>>::check();
    <RecordKey as NotClone<_>>::check();
    <AuditKey as NotClone<_>>::check();
    <fieldkeep_crypto::keys::ApiKeyHashKey as NotClone<_>>::check();
    <fieldkeep_crypto::keys::FieldKey as NotClone<_>>::check();
    <fieldkeep_crypto::keys::Nonce as NotClone<_>>::check();
}

/// What a cache of field keys counts with.
#[test]
fn a_field_key_takes_about_300_bytes() {
    let bytes = size_of::<fieldkeep_crypto::keys::FieldKey>();
    assert!(bytes <= 320, "{bytes} bytes");
}
