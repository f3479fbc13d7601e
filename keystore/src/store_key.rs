//! The keys under which records are stored.
//!
//! ```text
//! meta/store                     store id and format
//! root/keyring                   wrapped master keys
//! root/record-key, /audit-key    wrapped under the master key
//! t/<tenant>                     tenant, under the system's record key
//! k/<tenant>/<key>               key metadata, under the tenant's record key
//! v/<handle>/<version>           immutable version, under the tenant's record key; 16 and 8 hexadecimal digits
//! u/<handle>/<version>           use of a version, under the tenant's record key; never in the audit trail
//! sys/...                        other records of the system, under the system's record key
//! ```

use bytes::Bytes;
use fieldkeep_crypto::{ciphertext::Handle, names::Name};

pub(crate) const META: &str = "meta/store";
pub(crate) const KEYRING: &str = "root/keyring";
pub(crate) const RECORD_KEY: &str = "root/record-key";
pub(crate) const AUDIT_KEY: &str = "root/audit-key";
pub(crate) const TENANTS: &str = "t/";
pub(crate) const SYSTEM: &str = "sys/";

/// The longest name of a system record, in bytes, with its `sys/`: room for four names and what is between them.
const MAX_SYSTEM_BYTES: usize = 288;

pub(crate) fn tenant(tenant: &str) -> Bytes {
    Bytes::from(format!("{TENANTS}{tenant}"))
}

/// What the keys of all tenants begin with.
pub(crate) const KEYS: &str = "k/";

/// Tenant and name of a key, from its store key.
pub(crate) fn key_names(store_key: &[u8]) -> Option<(Name, Name)> {
    let (tenant, name) = str::from_utf8(store_key)
        .ok()?
        .strip_prefix(KEYS)?
        .split_once('/')?;
    Some((Name::parse(tenant).ok()?, Name::parse(name).ok()?))
}

/// What the keys of a tenant begin with.
pub(crate) fn keys_of(tenant: &str) -> String {
    format!("k/{tenant}/")
}

pub(crate) fn key(tenant: &str, name: &str) -> Bytes {
    Bytes::from(format!("k/{tenant}/{name}"))
}

/// What the versions of a key begin with.
pub(crate) fn versions_of(handle: Handle) -> String {
    format!("v/{handle}/")
}

pub(crate) fn version(handle: Handle, number: u32) -> Bytes {
    Bytes::from(format!("v/{handle}/{number:08x}"))
}

/// The number of a version, from its store key.
pub(crate) fn version_number(store_key: &[u8]) -> Option<u32> {
    let (_, digits) = str::from_utf8(store_key)
        .ok()?
        .strip_prefix("v/")?
        .split_once('/')?;
    u32::from_str_radix(digits, 16).ok()
}

/// What the usage records of a key begin with.
pub(crate) fn usage_of(handle: Handle) -> String {
    format!("u/{handle}/")
}

pub(crate) fn usage(handle: Handle, number: u32) -> Bytes {
    Bytes::from(format!("u/{handle}/{number:08x}"))
}

pub(crate) fn is_system(key: &str) -> bool {
    key.len() <= MAX_SYSTEM_BYTES
        && key
            .strip_prefix(SYSTEM)
            .is_some_and(|rest| !rest.is_empty())
        && key
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/'))
}

/// Whose record key authenticates a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner<'k> {
    /// The system's.
    System,
    /// That of the tenant named in the store key.
    Tenant(&'k str),
    /// That of the tenant named in the record (versions).
    Record,
}

/// Reads the owner off a store key; `None` for records that are not authenticated with a record key.
pub(crate) fn owner(store_key: &[u8]) -> Option<Owner<'_>> {
    let text = str::from_utf8(store_key).ok()?;
    if text.starts_with(TENANTS) || text.starts_with(SYSTEM) {
        return Some(Owner::System);
    }
    if let Some(rest) = text.strip_prefix("k/") {
        return rest
            .split_once('/')
            .map(|(tenant, _)| Owner::Tenant(tenant));
    }
    text.starts_with("v/").then_some(Owner::Record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_the_design_says() {
        let handle = Handle::from_bytes([0, 1, 2, 3, 0xfc, 0xfd, 0xfe, 0xff]);
        assert_eq!(tenant("acme"), "t/acme");
        assert_eq!(key("acme", "pii"), "k/acme/pii");
        assert_eq!(version(handle, 1), "v/00010203fcfdfeff/00000001");
        assert_eq!(version(handle, u32::MAX), "v/00010203fcfdfeff/ffffffff");
        assert_eq!(version_number(&version(handle, u32::MAX)), Some(u32::MAX));
        assert_eq!(version_number(b"k/v/00000001"), None);
        assert!(
            version(handle, 255) < version(handle, 256),
            "versions are in order"
        );
    }

    #[test]
    fn the_owner_is_in_the_key() {
        assert_eq!(owner(b"t/acme"), Some(Owner::System));
        assert_eq!(owner(b"sys/role/a/b"), Some(Owner::System));
        assert_eq!(owner(b"k/acme/pii"), Some(Owner::Tenant("acme")));
        assert_eq!(owner(b"v/00/01"), Some(Owner::Record));
        for other in [
            &b"meta/store"[..],
            b"root/keyring",
            b"k/acme",
            b"x",
            b"",
            b"\xff",
        ] {
            assert_eq!(owner(other), None);
        }
    }
}
