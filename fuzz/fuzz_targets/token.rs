//! A header, claims and a signature, a line each, as a bearer token; and the same bytes as a key set. What is taken apart has
//! three parts, of which two are JSON in which no name stands twice; a name made of a claim is one of the grammar.

#![no_main]

#[path = "../../src/access/jwt/algorithm.rs"]
#[allow(dead_code, reason = "the target uses a part of it")]
mod algorithm;
#[path = "../../src/access/jwt/json.rs"]
mod json;
#[path = "../../src/access/jwt/keys.rs"]
#[allow(dead_code, reason = "the target uses a part of it")]
mod keys;
#[path = "../../src/access/jwt/naming.rs"]
#[allow(dead_code, reason = "the target uses a part of it")]
mod naming;

use data_encoding::BASE64URL_NOPAD;
use fieldkeep_crypto::names::check_name;
use json::Unambiguous;
use jsonwebtoken::dangerous::insecure_decode;
use libfuzzer_sys::fuzz_target;
use naming::NameRule;
use serde_json::Value;

fuzz_target!(|data: &str| {
    // As a token by itself, which libFuzzer rarely gets through base64.
    if insecure_decode::<Unambiguous>(data).is_ok() {
        assert_eq!(data.split('.').count(), 3);
    }
    let mut lines = data.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (header, claims, signature) = (line(), line(), line());
    let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let token = format!("{}.{}.{signature}", part(header), part(claims));
    if let Ok(read) = insecure_decode::<Unambiguous>(&token) {
        let again: Value = serde_json::from_str(claims).expect("is JSON");
        assert_eq!(read.claims.0, again);
    }
    for rule in [NameRule::Exact, NameRule::Escape] {
        if let Ok(name) = rule.apply(data) {
            assert_eq!(check_name(name.as_str()), Ok(()));
        }
    }
    if let Ok(set) = keys::KeySet::parse(data.as_bytes()) {
        assert!((1..=64).contains(&set.len()));
    }
});
