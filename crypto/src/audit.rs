//! Keyed hashes of contexts and items in the audit trail: equal ones can be found there, their values cannot. And the seals of
//! its commits, which nobody without the key can make.

use std::fmt;

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

    /// What hashes the items of the field `field` under the key `key` of the tenant `tenant`, each of which is a name.
    pub fn item_hasher(&self, tenant: &str, key: &str, field: &str) -> ItemHasher {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.as_bytes()));
        mac.update(labels::AUDIT_ITEM);
        for name in [tenant, key, field] {
            mac.update(&length_bytes(name.len()));
            mac.update(name.as_bytes());
        }
        ItemHasher(mac)
    }
}

/// Length of an item's hash in bytes.
///
/// A search for an item never misses it, and another item has the same hash with a probability of 2^-64: less than one in a
/// billion that a search through ten billion items finds one too many. More bytes would make batches' records longer for nothing.
pub const ITEM_HASH_BYTES: usize = 8;

/// Hashes the items of one field under one key, which differ in their contexts. Made by [`AuditKey::item_hasher`].
pub struct ItemHasher(hmac::Context);

impl ItemHasher {
    /// The first 8 bytes of HMAC-SHA256(AK, `fieldkeep/v1/audit-item` || lp(tenant) || lp(key) || lp(field) || lp(encoded context)).
    pub fn hash(&self, context: &EncodedContext) -> [u8; ITEM_HASH_BYTES] {
        let mut mac = self.0.clone();
        mac.update(&length_bytes(context.as_bytes().len()));
        mac.update(context.as_bytes());
        let mut hash = [0; ITEM_HASH_BYTES];
        for (to, from) in hash.iter_mut().zip(mac.sign().as_ref()) {
            *to = *from;
        }
        hash
    }
}

/// It holds what was made of the audit key.
impl fmt::Debug for ItemHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemHasher").finish_non_exhaustive()
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
    use super::*;
    use crate::keys::RecordKey;

    #[test]
    fn the_hash_of_an_item_is_of_one_tenant_key_field_context_and_audit_key() {
        let key = AuditKey::dangerous_from_bytes(&[7; 32]);
        let hash = |names: [&str; 3], pairs: &[(&str, &str)]| {
            let context = EncodedContext::encode(pairs.iter().copied()).unwrap();
            key.item_hasher(names[0], names[1], names[2]).hash(&context)
        };
        let names = ["acme", "pii", "ssn"];
        let of_4711 = hash(names, &[("id", "4711"), ("region", "eu")]);
        assert_eq!(of_4711, hash(names, &[("region", "eu"), ("id", "4711")]));
        let others = [
            hash(["acme2", "pii", "ssn"], &[("id", "4711"), ("region", "eu")]),
            hash(["acme", "pi", "ssn"], &[("id", "4711"), ("region", "eu")]),
            hash(
                ["acme", "pii", "email"],
                &[("id", "4711"), ("region", "eu")],
            ),
            hash(names, &[("id", "4711")]),
            hash(names, &[("id", "4712"), ("region", "eu")]),
            hash(names, &[]),
            // Only the borders between the names differ.
            hash(["acm", "epii", "ssn"], &[("id", "4711"), ("region", "eu")]),
            hash(["acme", "piis", "sn"], &[("id", "4711"), ("region", "eu")]),
        ];
        for (at, other) in others.iter().enumerate() {
            assert_ne!(of_4711, *other, "{at}");
        }
        let context = EncodedContext::encode([("id", "4711"), ("region", "eu")]).unwrap();
        let other_key = AuditKey::dangerous_from_bytes(&[8; 32]);
        assert_ne!(
            of_4711,
            other_key.item_hasher("acme", "pii", "ssn").hash(&context)
        );
        assert_ne!(of_4711, key.context_hash(&context)[..8]);
    }

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
