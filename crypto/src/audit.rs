//! Keyed hashes of contexts in the audit trail: equal contexts can be found there, their values cannot.

use ring::hmac;

use crate::context::EncodedContext;
use crate::keys::AuditKey;
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
