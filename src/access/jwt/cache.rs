//! Tokens that were verified, by their SHA-256, so that a signature is checked once and not on every call.
//!
//! Only what was taken is kept; what was refused costs a caller his own time again. An entry is worth nothing without the
//! issuer as it is configured now, and without the key that it was verified with.

use std::sync::Arc;

use quick_cache::{Weighter, sync::Cache};

use super::{keys::Key, source::Source};
use crate::access::principal::Principal;

/// The memory of the entries, bytes.
const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// How many entries are expected, for the tables of the cache.
const EXPECTED: usize = 16 * 1024;
/// After what time a token is verified again, whenever it ends, seconds.
const MAX_AGE: u64 = 600;

/// A verified token.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) principal: Arc<Principal>,
    pub(super) source: Arc<Source>,
    pub(super) key: Arc<Key>,
    until: u64,
}

impl Entry {
    /// What was verified at `now`, Unix seconds.
    pub(super) fn new(
        principal: Arc<Principal>,
        source: Arc<Source>,
        key: Arc<Key>,
        now: u64,
    ) -> Entry {
        Entry {
            principal,
            source,
            key,
            until: now.saturating_add(MAX_AGE),
        }
    }

    fn is_good(&self, now: u64) -> bool {
        let ended = i64::try_from(now).is_ok_and(|now| now > self.principal.not_after);
        now < self.until && !ended
    }
}

/// Verified tokens.
pub(super) struct TokenCache {
    entries: Cache<[u8; 32], Entry, ByBytes>,
}

impl TokenCache {
    pub(super) fn new() -> TokenCache {
        TokenCache {
            entries: Cache::with_weighter(EXPECTED, MAX_BYTES, ByBytes),
        }
    }

    /// What the token with this hash said, unless that has ended at `now`.
    pub(super) fn find(&self, hash: &[u8; 32], now: u64) -> Option<Entry> {
        let entry = self.entries.get(hash)?;
        if entry.is_good(now) {
            return Some(entry);
        }
        self.remove(hash);
        None
    }

    pub(super) fn insert(&self, hash: [u8; 32], entry: Entry) {
        self.entries.insert(hash, entry);
    }

    pub(super) fn remove(&self, hash: &[u8; 32]) {
        self.entries.remove(hash);
    }

    /// Forgets everything of issuers that are not `current` any more.
    pub(super) fn retain(&self, current: impl Fn(&Arc<Source>) -> bool) {
        self.entries.retain(|_, entry| current(&entry.source));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// About the bytes of an entry: its parts, its texts, and the cache's own.
#[derive(Clone)]
struct ByBytes;

impl Weighter<[u8; 32], Entry> for ByBytes {
    fn weight(&self, _: &[u8; 32], entry: &Entry) -> u64 {
        const FIXED: usize = 384;
        let principal = &entry.principal;
        let groups: usize = principal.groups.iter().map(|group| group.len() + 32).sum();
        (FIXED + principal.credential.len() + 2 * principal.resource.len() + groups) as u64
    }
}
