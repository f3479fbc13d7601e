//! Keyed hashes of contexts in the audit trail: equal contexts can be found there, their values cannot. And the seals of its
//! commits, which nobody without the key can make.

use ring::hmac;
use subtle::ConstantTimeEq as _;

use crate::context::EncodedContext;
use crate::keys::{AuditKey, AuditSealKey};
use crate::labels;
use crate::length_prefix::length_bytes;

/// Length of a context's hash in bytes.
pub const CONTEXT_HASH_BYTES: usize = 16;

impl AuditKey {
    /// The first 16 bytes of HMAC-SHA256(AK, `fieldkeep/v1/audit-context` || lp(encoded context)).
    pub fn context_hash(&self, context: &EncodedContext) -> [u8; CONTEXT_HASH_BYTES] {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.as_bytes()));
        mac.update(labels::AUDIT_CONTEXT);
        mac.update(&length_bytes(context.as_bytes().len()));
        mac.update(context.as_bytes());
        let mut hash = [0; CONTEXT_HASH_BYTES];
        for (to, from) in hash.iter_mut().zip(mac.sign().as_ref()) {
            *to = *from;
        }
        hash
    }
}

/// Length of a seal in bytes.
pub const SEAL_BYTES: usize = 32;

impl AuditSealKey {
    /// The seal of a commit: HMAC-SHA256(SK, be64(size) || root).
    ///
    /// `size` is the number of records in the log with this commit, `root` the root of the Merkle tree over them (RFC 6962, 2.1).
    pub fn seal(&self, size: u64, root: &[u8; 32]) -> [u8; SEAL_BYTES] {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.as_bytes()));
        mac.update(&size.to_be_bytes());
        mac.update(root);
        let mut seal = [0; SEAL_BYTES];
        for (to, from) in seal.iter_mut().zip(mac.sign().as_ref()) {
            *to = *from;
        }
        seal
    }

    /// Whether `seal` is the one of [`AuditSealKey::seal`]; compared in constant time.
    pub fn is_seal(&self, size: u64, root: &[u8; 32], seal: &[u8]) -> bool {
        self.seal(size, root).ct_eq(seal).into()
    }
}

#[cfg(test)]
mod tests {
    use crate::keys::RecordKey;

    #[test]
    fn a_seal_is_of_one_size_and_one_root() {
        let key = RecordKey::dangerous_from_bytes(&[7; 32]).derive_audit_seal_key();
        let seal = key.seal(3, &[9; 32]);
        assert!(key.is_seal(3, &[9; 32], &seal));
        assert!(!key.is_seal(4, &[9; 32], &seal));
        assert!(!key.is_seal(3, &[8; 32], &seal));
        assert!(!key.is_seal(3, &[9; 32], &seal[..31]));
        let other = RecordKey::dangerous_from_bytes(&[8; 32]).derive_audit_seal_key();
        assert!(!other.is_seal(3, &[9; 32], &seal));
        // By Python's hmac module, from the formulas of docs/audit-format.md.
        assert_eq!(
            data_encoding::HEXLOWER.encode(&seal),
            "0736d1df8227a9b1506ad37f058fa5d38d34666db043c96274182c461ffde6dc"
        );
    }
}
