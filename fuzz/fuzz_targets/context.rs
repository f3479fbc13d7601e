//! Any bytes as an encoded context: what decodes is canonical.

#![no_main]

use fieldkeep_crypto::context::{EncodedContext, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(pairs) = decode(data) else { return };
    let again = EncodedContext::encode(pairs.iter().rev().map(|(n, v)| (n.as_str(), v.as_str())))
        .expect("what decodes can be encoded");
    assert_eq!(again.as_bytes(), data);
});
