//! Any bytes as an API key: what is taken is of the documented form and has a checksum that nothing else has.

#![no_main]

#[path = "../../src/access/api_key/format.rs"]
#[allow(dead_code, reason = "the target uses a part of it")]
mod format;

use format::{API_KEY_BYTES, ApiKeyFormatError, ApiKeyId, PresentedKey, checksum};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = str::from_utf8(data)
        && let Ok(id) = ApiKeyId::parse(text)
    {
        assert_eq!(id.as_str(), text);
    }
    // The fuzzer hardly finds a CRC by itself, so the right one takes the place of its own.
    let mut whole = data.to_vec();
    if let Some((body, given)) = whole.split_last_chunk_mut::<6>() {
        let right = checksum(body);
        let is_right = *given == right;
        *given = right;
        let known = PresentedKey::parse(data);
        match PresentedKey::parse(&whole) {
            Ok(key) => {
                assert_eq!(whole.len(), API_KEY_BYTES);
                assert!(whole.starts_with(format!("fk_{}_", key.id()).as_bytes()));
                assert!(whole[20..].iter().all(u8::is_ascii_alphanumeric));
                assert_eq!(known.is_ok(), is_right);
            }
            Err(error) => {
                assert_ne!(error, ApiKeyFormatError::Checksum);
                assert!(known.is_err());
            }
        }
    }
    let _ = PresentedKey::parse(data).map(|key| key.id());
});
