//! Keyed hashes of API keys: what is stored of a key, so that no copy of the store is a list of passwords.

use std::fmt;

use ring::hmac;
use subtle::ConstantTimeEq as _;

use crate::keys::ApiKeyHashKey;
use crate::length_prefix::length_bytes;

/// Length of an API key's hash in bytes.
pub const API_KEY_HASH_BYTES: usize = 32;

/// The keyed hash of an API key. Compared in constant time, by `==` too.
#[derive(Clone, Copy)]
pub struct ApiKeyHash([u8; API_KEY_HASH_BYTES]);

impl ApiKeyHash {
    /// The hash with these bytes, which a record holds.
    pub const fn from_bytes(bytes: [u8; API_KEY_HASH_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; API_KEY_HASH_BYTES] {
        &self.0
    }
}

impl PartialEq for ApiKeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for ApiKeyHash {}

/// Without the key the hash says nothing of the secret, but it is a credential's and belongs in no log.
impl fmt::Debug for ApiKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyHash(redacted)")
    }
}

impl ApiKeyHashKey {
    /// HMAC-SHA256(HK, lp(id) || lp(secret)). The id is hashed too, so that no hash serves for another id.
    ///
    /// `id` and `secret` are the parts of the API key's text.
    pub fn hash(&self, id: &str, secret: &[u8]) -> ApiKeyHash {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.as_bytes()));
        for part in [id.as_bytes(), secret] {
            mac.update(&length_bytes(part.len()));
            mac.update(part);
        }
        let mut hash = [0; API_KEY_HASH_BYTES];
        for (to, from) in hash.iter_mut().zip(mac.sign().as_ref()) {
            *to = *from;
        }
        ApiKeyHash(hash)
    }
}
