//! Any bytes as a ciphertext: the parse takes them apart without loss, and no key opens what it did not seal.

#![no_main]

use fieldkeep_crypto::ciphertext::{Ciphertext, OVERHEAD_KC_XAES, Suite};
use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_crypto::keys::Dek;
use fieldkeep_crypto::names::Field;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(parsed) = Ciphertext::parse(data) else {
        return;
    };
    assert_eq!([parsed.header(), parsed.body()].concat(), data);
    assert_eq!(parsed.plaintext_len() + OVERHEAD_KC_XAES, data.len());
    assert!(parsed.version() > 0);

    let field = Field::parse("customer.email").expect("is a name");
    let key = Dek::dangerous_from_bytes(&[7; 32]).derive_field_key(
        Suite::KcXaes256Gcm,
        "default",
        parsed.handle(),
        parsed.version(),
        field,
    );
    let mut out = Vec::new();
    assert!(key.open(&parsed, &EncodedContext::EMPTY, &mut out).is_err());
    assert!(out.is_empty());
});
