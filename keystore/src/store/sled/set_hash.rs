//! The set hash: a checksum of all records that does not depend on their order, so that a commit changes it by
//! what the commit changes.
//!
//! It is the sum modulo 2^256 of SHA-256(be32(length of key) || key || stored value) over all records, where the
//! stored value is be64(revision) || value. Digests and the sum are big-endian integers of 32 bytes. It finds
//! accidents (lost, doubled, old or changed records); records are authenticated against malice elsewhere.

use ring::digest;

/// A sum of record hashes. The empty set is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetHash {
    /// The integer in four limbs, the least significant first.
    limbs: [u64; 4],
}

impl SetHash {
    /// The hash of the set that has this one record.
    #[must_use]
    pub fn of(key: &[u8], stored: &[u8]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        // Keys are at most 512 bytes, so the length always fits.
        context.update(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
        context.update(key);
        context.update(stored);
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        Self::from_bytes(&bytes)
    }

    /// Adds the records of another set that has none of these.
    pub fn add(&mut self, other: &SetHash) {
        let mut carry = false;
        for (limb, more) in self.limbs.iter_mut().zip(other.limbs) {
            let (sum, first) = limb.overflowing_add(more);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first || second;
        }
    }

    /// Takes the records of a subset away.
    pub fn subtract(&mut self, other: &SetHash) {
        let mut borrow = false;
        for (limb, less) in self.limbs.iter_mut().zip(other.limbs) {
            let (difference, first) = limb.overflowing_sub(less);
            let (difference, second) = difference.overflowing_sub(u64::from(borrow));
            *limb = difference;
            borrow = first || second;
        }
    }

    /// The big-endian form.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, limb) in bytes.rchunks_exact_mut(8).zip(self.limbs) {
            chunk.copy_from_slice(&limb.to_be_bytes());
        }
        bytes
    }

    /// From the big-endian form.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut limbs = [0; 4];
        for (limb, chunk) in limbs.iter_mut().zip(bytes.rchunks_exact(8)) {
            *limb = chunk
                .iter()
                .fold(0, |limb, byte| (limb << 8) | u64::from(*byte));
        }
        SetHash { limbs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_big_endian_and_round_trip() {
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = i as u8 + 1;
        }
        assert_eq!(SetHash::from_bytes(&bytes).to_bytes(), bytes);
        let mut one = [0; 32];
        one[31] = 1;
        assert_eq!(SetHash::from_bytes(&one).limbs, [1, 0, 0, 0]);
    }

    #[test]
    fn addition_and_subtraction_carry_and_wrap() {
        let mut one = [0; 32];
        one[31] = 1;
        let one = SetHash::from_bytes(&one);
        let all = SetHash::from_bytes(&[0xff; 32]);
        let mut sum = all;
        sum.add(&one);
        assert_eq!(sum, SetHash::default());
        sum.subtract(&one);
        assert_eq!(sum, all);
        let mut low = [0; 32];
        low[24..].fill(0xff);
        let mut sum = SetHash::from_bytes(&low);
        sum.add(&one);
        let mut expected = [0; 32];
        expected[23] = 1;
        assert_eq!(sum.to_bytes(), expected);
    }

    #[test]
    fn the_order_of_records_does_not_matter_but_each_byte_does() {
        let a = SetHash::of(b"a", b"1");
        let b = SetHash::of(b"b", b"2");
        let mut ab = a;
        ab.add(&b);
        let mut ba = b;
        ba.add(&a);
        assert_eq!(ab, ba);
        assert_ne!(SetHash::of(b"ab", b"c"), SetHash::of(b"a", b"bc"));
    }
}
