//! Any text as the text form of a ciphertext: what decodes has this one text form.

#![no_main]

use fieldkeep_crypto::ciphertext::{decode_text, encode_text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    if let Ok(bytes) = decode_text(data) {
        assert_eq!(encode_text(&bytes), data);
    }
    if !data.is_empty() {
        assert_eq!(
            decode_text(&encode_text(data.as_bytes())).as_deref(),
            Ok(data.as_bytes())
        );
    }
});
