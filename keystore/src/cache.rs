//! The key cache: bounded by count and by bytes, filled lazily, one load for all that miss the same key at once.
//!
//! Never stale: once a change is acknowledged, no later call gets an older snapshot. A change commits first and
//! then calls [`KeyCache::publish`] or [`KeyCache::forget`] before it is acknowledged, and there are two cases.
//! - The key is cached: the new snapshot replaces the old one, if it is newer.
//! - It is not: whatever stands under its handle is removed, also the placeholder of a load that is under way. That
//!   load began before the acknowledgement, so what it read may be returned to those who wait for it, but it can
//!   no longer enter the cache: inserting into a removed placeholder fails.
//!
//! A load that begins later reads the store after the commit. No epoch and no second read is needed.
//!
//! Names and handles never change, so the map from names to handles needs no invalidation.

use std::{
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use fieldkeep_crypto::{ciphertext::Handle, keys::Dek, names::Name};
use quick_cache::{
    DefaultHashBuilder, Equivalent, Lifecycle, OptionsBuilder, UnitWeighter, Weighter,
    sync::{Cache, DefaultLifecycle, EntryAction, EntryResult},
};

use crate::{
    error::KeyError,
    info::{CacheOptions, CacheStats},
    key::Key,
    reader::Reader,
    state::KeyState,
};

/// Parts of the cache with a lock of their own. Few, since a key that holds many versions must fit into one part.
const SHARDS: usize = 8;

pub(crate) struct KeyCache {
    slots: Cache<Handle, Entry, EntryWeighter, DefaultHashBuilder, CountEvictions>,
    names: Cache<NamePair, Handle>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
    /// The sum of what is charged for the entries in the cache. May be off while an entry comes or goes.
    bytes: AtomicI64,
}

impl Counters {
    fn entered(&self, charged: u64) {
        self.bytes
            .fetch_add(charged.cast_signed(), Ordering::Relaxed);
    }

    fn left(&self, charged: u64) {
        self.bytes
            .fetch_sub(charged.cast_signed(), Ordering::Relaxed);
    }
}

/// What the cache holds of one key.
#[derive(Clone)]
struct Entry {
    slot: Arc<ArcSwap<Key>>,
    /// Bytes that the cache counts for it; follows the true size at the next hit after it grew.
    charged: u64,
}

impl Entry {
    fn new(key: &Arc<Key>) -> Self {
        Entry {
            slot: Arc::new(ArcSwap::new(Arc::clone(key))),
            charged: key.bytes() as u64,
        }
    }
}

impl KeyCache {
    pub(crate) fn new(options: &CacheOptions) -> Self {
        let max_keys = options.max_keys.max(1);
        let max_bytes = options.max_bytes.max(1);
        let counters = Arc::new(Counters::default());
        // Each entry weighs at least its share of the bytes, so that the count is bounded with them.
        let weighter = EntryWeighter {
            least: max_bytes.div_ceil(max_keys as u64),
        };
        let lifecycle = CountEvictions(Arc::clone(&counters));
        KeyCache {
            slots: build(max_keys, max_bytes, weighter, lifecycle),
            names: build(
                max_keys,
                max_keys as u64,
                UnitWeighter,
                DefaultLifecycle::default(),
            ),
            counters,
        }
    }

    /// A key by its name.
    pub(crate) async fn by_name(
        &self,
        reader: &Arc<Reader>,
        tenant: &str,
        name: &str,
    ) -> Result<Arc<Key>, KeyError> {
        let known = self.names.get(&NameRef { tenant, name });
        if let Some(key) = known.and_then(|handle| self.hit(handle)) {
            return Ok(key);
        }
        // Misses are boxed, so that the future of a hit is small.
        Box::pin(async {
            let handle = match known {
                Some(handle) => handle,
                None => self.find_name(reader, tenant, name).await?,
            };
            self.load(reader, handle).await
        })
        .await
    }

    /// A key by its handle.
    pub(crate) async fn by_handle(
        &self,
        reader: &Arc<Reader>,
        handle: Handle,
    ) -> Result<Arc<Key>, KeyError> {
        match self.hit(handle) {
            Some(key) => Ok(key),
            None => Box::pin(self.load(reader, handle)).await,
        }
    }

    fn hit(&self, handle: Handle) -> Option<Arc<Key>> {
        let entry = self.slots.get(&handle)?;
        self.counters.hits.fetch_add(1, Ordering::Relaxed);
        let key = entry.slot.load_full();
        if key.take_grown() {
            self.charge(handle, &entry, &key);
        }
        Some(key)
    }

    async fn find_name(
        &self,
        reader: &Arc<Reader>,
        tenant: &str,
        name: &str,
    ) -> Result<Handle, KeyError> {
        let (Ok(tenant), Ok(name)) = (Name::parse(tenant), Name::parse(name)) else {
            return Err(KeyError::NotFound);
        };
        let pair = NamePair { tenant, name };
        match self.names.get_value_or_guard_async(&pair).await {
            Ok(handle) => Ok(handle),
            Err(guard) => {
                let handle = reader
                    .handle_of(pair.tenant.as_str(), pair.name.as_str())
                    .await?;
                // An error says only that the name did not stay in the cache.
                let _ = guard.insert(handle);
                Ok(handle)
            }
        }
    }

    async fn load(&self, reader: &Arc<Reader>, handle: Handle) -> Result<Arc<Key>, KeyError> {
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        match self.slots.get_value_or_guard_async(&handle).await {
            Ok(entry) => Ok(entry.slot.load_full()),
            Err(guard) => {
                let key = Arc::new(reader.load(handle).await?);
                let entry = Entry::new(&key);
                let charged = entry.charged;
                // An error says that the key changed meanwhile; this load then is not cached.
                if guard.insert(entry).is_ok() {
                    self.counters.entered(charged);
                }
                Ok(key)
            }
        }
    }

    /// Makes a committed change visible, before it is acknowledged. `made` is the DEK of the primary version if the
    /// change made one.
    pub(crate) fn publish(&self, state: &KeyState, generation: u64, made: Option<Dek>) {
        let handle = state.handle;
        let Some(entry) = self.slots.peek(&handle) else {
            return self.forget(handle);
        };
        let made = made.map(|dek| entry.slot.load().make_version(state.primary, dek));
        let mut unknown_primary = false;
        let before = entry.slot.rcu(|current| {
            unknown_primary = false;
            if current.generation() >= generation {
                return Arc::clone(current);
            }
            match current.next(state, generation, made.as_ref()) {
                Some(next) => Arc::new(next),
                None => {
                    unknown_primary = true;
                    Arc::clone(current)
                }
            }
        });
        if unknown_primary {
            // Another change, committed before this one, is about to publish the version.
            return self.forget(handle);
        }
        if before.generation() < generation && before.primary().number() != state.primary {
            before.keep_older(before.primary());
        }
    }

    /// Forgets a key, so that the next call reads it anew.
    pub(crate) fn forget(&self, handle: Handle) {
        if let Some((_, entry)) = self.slots.remove(&handle) {
            self.counters.left(entry.charged);
        }
    }

    pub(crate) fn stats(&self) -> CacheStats {
        CacheStats {
            keys: self.slots.len() as u64,
            bytes: u64::try_from(self.counters.bytes.load(Ordering::Relaxed)).unwrap_or(0),
            hits: self.counters.hits.load(Ordering::Relaxed),
            misses: self.counters.misses.load(Ordering::Relaxed),
            evictions: self.counters.evictions.load(Ordering::Relaxed),
        }
    }

    /// Counts what a key holds by now, which may push others out.
    fn charge(&self, handle: Handle, entry: &Entry, key: &Key) {
        // Never waits for a load that is under way: then the entry is gone anyway.
        let timeout = Some(Duration::ZERO);
        let replaced = self.slots.entry(&handle, timeout, |_, cached| {
            if Arc::ptr_eq(&cached.slot, &entry.slot) {
                EntryAction::ReplaceWithGuard
            } else {
                EntryAction::Retain(())
            }
        });
        // Through a guard, since only an insertion makes room; and a change that comes between removes the placeholder.
        if let EntryResult::Replaced(guard, old) = replaced {
            self.counters.left(old.charged);
            let charged = key.bytes() as u64;
            let slot = old.slot;
            if guard.insert(Entry { slot, charged }).is_ok() {
                self.counters.entered(charged);
            }
        }
    }
}

fn build<K, V, W, L>(
    items: usize,
    weight: u64,
    weighter: W,
    lifecycle: L,
) -> Cache<K, V, W, DefaultHashBuilder, L>
where
    K: Eq + Hash,
    V: Clone,
    W: Weighter<K, V> + Clone,
    L: Lifecycle<K, V> + Clone,
{
    let mut options = OptionsBuilder::new();
    options
        .shards(SHARDS)
        .estimated_items_capacity(items)
        .weight_capacity(weight);
    match options.build() {
        Ok(options) => {
            Cache::with_options(options, weighter, DefaultHashBuilder::default(), lifecycle)
        }
        // Both capacities are set, which is all that the builder asks for.
        Err(_) => Cache::with(
            items,
            weight,
            weighter,
            DefaultHashBuilder::default(),
            lifecycle,
        ),
    }
}

#[derive(Clone)]
struct EntryWeighter {
    least: u64,
}

impl Weighter<Handle, Entry> for EntryWeighter {
    fn weight(&self, _: &Handle, entry: &Entry) -> u64 {
        entry.charged.max(self.least)
    }
}

/// Counts evictions, and drops what was evicted (which wipes keys) after the lock.
#[derive(Clone)]
struct CountEvictions(Arc<Counters>);

impl Lifecycle<Handle, Entry> for CountEvictions {
    type RequestState = Vec<Entry>;

    fn on_evict(&self, evicted: &mut Vec<Entry>, _: Handle, entry: Entry) {
        self.0.evictions.fetch_add(1, Ordering::Relaxed);
        self.0.left(entry.charged);
        evicted.push(entry);
    }
}

#[derive(Clone, PartialEq, Eq)]
struct NamePair {
    tenant: Name,
    name: Name,
}

impl Hash for NamePair {
    fn hash<H: Hasher>(&self, state: &mut H) {
        NameRef {
            tenant: self.tenant.as_str(),
            name: self.name.as_str(),
        }
        .hash(state);
    }
}

/// The same pair, borrowed: a hit allocates nothing.
#[derive(Hash)]
struct NameRef<'n> {
    tenant: &'n str,
    name: &'n str,
}

impl Equivalent<NamePair> for NameRef<'_> {
    fn equivalent(&self, pair: &NamePair) -> bool {
        self.tenant == pair.tenant.as_str() && self.name == pair.name.as_str()
    }
}
