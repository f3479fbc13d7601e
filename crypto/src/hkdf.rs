//! HKDF-Expand with SHA-256 (RFC 5869, section 2.3). Keys here are uniformly random, so nothing is extracted first.

use ring::hmac;
use zeroize::Zeroizing;

const HASH_BYTES: usize = 32;

/// Expand(key, info, L), where `info` is the concatenation of `parts`.
///
/// `L` is at most 255 hash lengths, which is checked when this is compiled.
pub(crate) fn expand<const L: usize>(key: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; L]> {
    const { assert!(L <= 255 * HASH_BYTES) };
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut out = Zeroizing::new([0u8; L]);
    let mut previous = Zeroizing::new([0u8; HASH_BYTES]);
    for (index, chunk) in out.chunks_mut(HASH_BYTES).enumerate() {
        let mut mac = hmac::Context::with_key(&key);
        if index > 0 {
            mac.update(previous.as_slice());
        }
        for part in parts {
            mac.update(part);
        }
        // At most 255 chunks, so the counter never saturates.
        mac.update(&[u8::try_from(index + 1).unwrap_or(u8::MAX)]);
        previous.copy_from_slice(mac.sign().as_ref());
        for (to, from) in chunk.iter_mut().zip(previous.iter()) {
            *to = *from;
        }
    }
    out
}
