//! What the keystore tells about tenants, keys and changes; never key material.

use std::sync::Arc;

use bytes::Bytes;
use fieldkeep_crypto::{
    ciphertext::{Handle, Suite},
    names::Name,
};

use crate::{
    error::Damaged,
    rotation::{
        plan::{Candidate, Next, Used},
        policy::RotationPolicy,
    },
};

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantInfo {
    /// Its name.
    pub name: Name,
    /// When it was made, in Unix seconds.
    pub created: u64,
    /// The version of its key-encryption key.
    pub kek_version: u32,
}

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// The tenant that owns it.
    pub tenant: Name,
    /// Its name.
    pub name: Name,
    /// What its ciphertexts carry.
    pub handle: Handle,
    /// Its suite, fixed when it was made.
    pub suite: Suite,
    /// Whether it encrypts and decrypts at all.
    pub enabled: bool,
    /// The version that encrypts, which is the newest.
    pub primary: u32,
    /// When it was made, in Unix seconds.
    pub created: u64,
    /// When the primary version was made, in Unix seconds.
    pub rotated: u64,
    /// Newest first, at most the newest 1,000; filled by `describe_key` alone.
    pub versions: Vec<VersionInfo>,
    /// When it rotates by itself; `None`: on demand alone.
    pub rotation: Option<Arc<RotationPolicy>>,
    /// The rotation that comes next; `None` without a policy that rotates, and for a disabled key. Filled by `describe_key`
    /// alone.
    pub next: Option<Next>,
    /// What the audit trail has of its items.
    pub audit_items: AuditItems,
}

/// What the audit trail has of the items of calls that use a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuditItems {
    /// How many there were.
    #[default]
    Counts,
    /// That, and a keyed hash of each, by which those who may read the trail find an item.
    Hashes,
}

impl AuditItems {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            AuditItems::Counts => "counts",
            AuditItems::Hashes => "hashes",
        }
    }
}

/// What is chosen when a key is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySettings {
    /// Its suite, for ever.
    pub suite: Suite,
    /// When it rotates by itself; `None`: on demand alone.
    pub rotation: Option<Arc<RotationPolicy>>,
    /// What the audit trail has of its items.
    pub audit_items: AuditItems,
}

/// A key of this suite that rotates on demand alone and whose items are counted.
impl From<Suite> for KeySettings {
    fn from(suite: Suite) -> Self {
        KeySettings {
            suite,
            rotation: None,
            audit_items: AuditItems::default(),
        }
    }
}

/// A version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionInfo {
    /// Counted from 1.
    pub number: u32,
    /// Whether it decrypts.
    pub enabled: bool,
    /// When it was made, in Unix seconds.
    pub created: u64,
    /// Whether it encrypts.
    pub primary: bool,
}

/// What was encrypted under one version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionUsage {
    /// The version.
    pub number: u32,
    /// What was counted; after a crash also what was left of a leased block. Never less than the truth.
    pub used: Used,
}

/// A page of the keys that have a rotation policy.
#[derive(Debug)]
pub struct CandidatePage {
    /// The keys.
    pub candidates: Vec<Candidate>,
    /// Keys that were left out, since a record is damaged.
    pub damaged: Vec<Damaged>,
    /// Where the next page begins; `None`: this was the last one.
    pub next: Option<KeyCursor>,
}

/// A place among all keys of all tenants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCursor(pub(crate) Bytes);

/// The outcome of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<T> {
    /// What was changed, as it is now. After a repeated operation this may be newer than its own outcome.
    pub value: T,
    /// The store's revision of the change; a repeated operation gets its first outcome's.
    pub revision: u64,
    /// This operation had been done before; nothing changed now.
    pub repeated: bool,
    /// The records that changed now, for the audit trail; empty if `repeated`.
    pub changes: Vec<Change>,
}

impl Changed<()> {
    /// The same change, with what was changed.
    #[must_use]
    pub fn with<T>(self, value: T) -> Changed<T> {
        let Changed {
            value: (),
            revision,
            repeated,
            changes,
        } = self;
        Changed {
            value,
            revision,
            repeated,
            changes,
        }
    }
}

/// One changed record, as the audit trail keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which record.
    pub store_key: Bytes,
    /// Its generation after the change.
    pub generation: u64,
    /// SHA-256 of the stored value; `None`: deleted.
    pub digest: Option<[u8; 32]>,
}

/// An authenticated record of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemRecord {
    /// What was put.
    pub payload: Bytes,
    /// Grows by one with each change, also over a deletion.
    pub generation: u64,
}

/// Bounds of the caches. Both bounds of the key cache hold at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// The most keys.
    pub max_keys: usize,
    /// The most bytes of cached keys, as estimated from the sizes of their parts.
    pub max_bytes: u64,
    /// The most tenants whose unwrapped keys are held.
    pub max_tenants: usize,
}

impl Default for CacheOptions {
    fn default() -> Self {
        CacheOptions {
            max_keys: 10_000,
            max_bytes: 64 << 20,
            max_tenants: 1024,
        }
    }
}

/// What the key cache holds and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Keys in the cache.
    pub keys: u64,
    /// Their estimated bytes.
    pub bytes: u64,
    /// Calls answered from the cache.
    pub hits: u64,
    /// Calls that read the store, or waited for one that did.
    pub misses: u64,
    /// Keys that left the cache to make room.
    pub evictions: u64,
}
