//! Every label that separates one use of a key from another, in one place.
//!
//! No label is a prefix of another, so that a label followed by other bytes is never the input of another
//! use. `docs/ciphertext-format.md` lists them too.

/// HKDF-Expand info of a field key, under a DEK.
pub const FIELD: &[u8] = b"fieldkeep/v1/field";

/// HKDF-Expand info of a wrapping key, under the root key, a master key or a KEK.
pub const WRAP: &[u8] = b"fieldkeep/v1/wrap";

/// Beginning of the HMAC input of a stored record, under a record key.
pub const RECORD: &[u8] = b"fieldkeep/v1/record";

/// Beginning of the HMAC input of a context in the audit trail, under the audit key.
pub const AUDIT_CONTEXT: &[u8] = b"fieldkeep/v1/audit-context";

/// Beginning of the HMAC input of an item in the audit trail, under the audit key.
pub const AUDIT_ITEM: &[u8] = b"fieldkeep/v1/audit-item";

/// HKDF-Expand info of the key that hashes API keys, under the system's record key.
pub const API_KEY_HASH: &[u8] = b"fieldkeep/v1/api-key-hash";

/// HKDF-Expand info of the key of the audit trail's seals, under the system's record key.
pub const AUDIT_SEAL: &[u8] = b"fieldkeep/v1/audit-seal";

/// Beginning of the HMAC input of a key that is the same in each run, for tests of applications.
pub const FIXED: &[u8] = b"fieldkeep/v1/testing-fixed";

/// All labels. A new one belongs here too: the tests look at this list.
pub const ALL: &[&[u8]] = &[
    FIELD,
    WRAP,
    RECORD,
    AUDIT_CONTEXT,
    AUDIT_ITEM,
    API_KEY_HASH,
    AUDIT_SEAL,
    FIXED,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_is_a_prefix_of_another() {
        for (i, a) in ALL.iter().enumerate() {
            for (j, b) in ALL.iter().enumerate() {
                assert!(i == j || !b.starts_with(a), "{a:?} begins {b:?}");
            }
        }
    }

    #[test]
    fn all_lists_every_label_of_this_file() {
        let source = include_str!("labels.rs");
        let declared = source
            .lines()
            .filter(|l| l.starts_with("pub const") && l.contains("b\""))
            .count();
        assert_eq!(declared, ALL.len());
    }
}
