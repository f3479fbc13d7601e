//! What the data path works with: immutable snapshots of keys, and their versions.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use fieldkeep_crypto::{
    ciphertext::{Handle, Suite},
    keys::{Dek, FieldKey},
    names::{Field, Name},
};
use tokio::sync::Mutex;

use crate::{
    error::KeyError,
    field_keys::FieldKeys,
    info::AuditItems,
    reader::Reader,
    rotation::plan::Used,
    state::KeyState,
    usage::{
        meter::{Limits, Meter, Spent},
        meters::MeterUser,
    },
};

/// The most older versions that one key holds unwrapped.
pub(crate) const MAX_OLDER_VERSIONS: usize = 64;

/// Reference counts of an `Arc` and what the allocator adds.
const ALLOCATION_BYTES: usize = 32;
/// Snapshot, names, place in both caches, list of older versions.
const KEY_BYTES: usize = size_of::<Key>() + size_of::<OlderVersions>() + 6 * ALLOCATION_BYTES + 256;
/// A version with its DEK, an empty list of field keys and its meter with its place among all meters.
const VERSION_BYTES: usize =
    size_of::<Version>() + size_of::<Meter>() + 128 + 32 + 5 * ALLOCATION_BYTES;

/// A key as it was when it was asked for. Whoever holds one works on with it undisturbed; a change makes a new snapshot
/// that the next [`crate::keystore::Keystore::key`] gives.
pub struct Key {
    tenant: Name,
    name: Name,
    state: KeyState,
    generation: u64,
    primary: Arc<Version>,
    /// Shared by all snapshots of one cached key.
    older: Arc<OlderVersions>,
    reader: Arc<Reader>,
}

impl Key {
    /// A snapshot that shares nothing with another yet.
    pub(crate) fn new(
        tenant: Name,
        name: Name,
        state: KeyState,
        generation: u64,
        dek: Dek,
        reader: Arc<Reader>,
    ) -> Self {
        let grown = Arc::new(AtomicBool::new(false));
        let primary = Version::new(&tenant, &state, state.primary, dek, &grown);
        Key {
            tenant,
            name,
            state,
            generation,
            primary: Arc::new(primary),
            older: Arc::new(OlderVersions {
                loaded: ArcSwap::from_pointee(Vec::new()),
                loading: Mutex::new(()),
                grown,
            }),
            reader,
        }
    }

    /// The snapshot that follows this one. `None` if its primary version is neither this one's nor `made`.
    pub(crate) fn next(
        &self,
        state: &KeyState,
        generation: u64,
        made: Option<&Arc<Version>>,
    ) -> Option<Self> {
        let primary = [Some(&self.primary), made]
            .into_iter()
            .flatten()
            .find(|version| version.number == state.primary)?;
        Some(Key {
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            state: state.clone(),
            generation,
            primary: Arc::clone(primary),
            older: Arc::clone(&self.older),
            reader: Arc::clone(&self.reader),
        })
    }

    /// A version of this key for [`Key::next`].
    pub(crate) fn make_version(&self, number: u32, dek: Dek) -> Arc<Version> {
        Arc::new(Version::new(
            &self.tenant,
            &self.state,
            number,
            dek,
            &self.older.grown,
        ))
    }

    /// Keeps the version that was primary before, so that it needs no loading.
    pub(crate) fn keep_older(&self, version: &Arc<Version>) {
        self.older.insert(version);
    }

    /// The tenant that owns the key.
    #[must_use]
    pub fn tenant(&self) -> &Name {
        &self.tenant
    }

    /// The key's name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The handle that its ciphertexts carry.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.state.handle
    }

    /// The suite, fixed when the key was made. A ciphertext of another suite is not this key's.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.state.suite
    }

    /// Whether the key is enabled. A disabled key neither encrypts nor decrypts.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.state.enabled
    }

    /// What the audit trail has of the items of calls that use the key.
    #[must_use]
    pub fn audit_items(&self) -> AuditItems {
        self.state.audit_items
    }

    /// The generation of the key's record.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The version that encrypts, whether the key is enabled or not; [`Key::active`] checks that.
    #[must_use]
    pub fn primary(&self) -> &Arc<Version> {
        &self.primary
    }

    /// The version that encrypts.
    ///
    /// # Errors
    /// [`KeyError::KeyDisabled`].
    pub fn active(&self) -> Result<&Arc<Version>, KeyError> {
        if self.state.enabled {
            Ok(&self.primary)
        } else {
            Err(KeyError::KeyDisabled)
        }
    }

    /// Counts what is about to be encrypted with the primary version: so many messages, with so many bytes of plaintext
    /// together (each at most 2^40). To be called *before* sealing, so that the count is never less than the truth.
    ///
    /// Nearly always two atomic subtractions: counts are leased in blocks. When a block is used up, this waits for one commit
    /// that serves all who wait.
    ///
    /// # Errors
    /// [`KeyError::Uncounted`], [`KeyError::Unavailable`], [`KeyError::Damaged`]: it is not counted, so nothing may be
    /// encrypted.
    pub async fn count(&self, messages: u64, bytes: u64) -> Result<(), KeyError> {
        let used = Used { messages, bytes };
        let primary = &self.primary;
        let meter = primary.meter.get_or_init(|| {
            let meters = &self.reader.meters;
            meters.hold(&self.tenant, &self.name, primary.handle, primary.number)
        });
        let limits = || Limits::of(self.state.rotation.as_deref());
        match meter.spend(used) {
            Spent::Yes => Ok(()),
            Spent::Low => {
                meter.lease_early(&self.reader, limits());
                Ok(())
            }
            // Boxed, so that the future of the common case is small.
            Spent::No => Box::pin(meter.lease_and_spend(&self.reader, limits(), used)).await,
        }
    }

    /// A version to decrypt with. One that is not in memory is read from the store, once for all that ask for it at
    /// the same time; the newest 64 asked for stay.
    ///
    /// # Errors
    /// [`KeyError::KeyDisabled`], [`KeyError::NoSuchVersion`], [`KeyError::VersionDisabled`], and what reading the store
    /// gives.
    pub async fn version(&self, number: u32) -> Result<Arc<Version>, KeyError> {
        self.state.check_version(number)?;
        if number == self.primary.number {
            return Ok(Arc::clone(&self.primary));
        }
        if let Some(version) = self.older.find(number) {
            return Ok(version);
        }
        let _loading = self.older.loading.lock().await;
        if let Some(version) = self.older.find(number) {
            return Ok(version);
        }
        let dek = self
            .reader
            .dek(&self.tenant, &self.name, &self.state, number)
            .await?;
        let version = self.make_version(number, dek);
        self.older.insert(&version);
        Ok(version)
    }

    /// Estimated bytes of everything that the cached key holds.
    pub(crate) fn bytes(&self) -> usize {
        let older = self.older.loaded.load();
        KEY_BYTES
            + self.state.heap_bytes()
            + self.primary.bytes()
            + older
                .iter()
                .map(|(_, version)| version.bytes() + size_of::<(u32, Arc<Version>)>())
                .sum::<usize>()
    }

    /// Whether [`Key::bytes`] may have changed since this was asked last.
    pub(crate) fn take_grown(&self) -> bool {
        // The load keeps the common case free of writes to a shared cache line.
        self.older.grown.load(Ordering::Relaxed) && self.older.grown.swap(false, Ordering::Relaxed)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("tenant", &self.tenant)
            .field("name", &self.name)
            .field("state", &self.state)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// One version of a key: its DEK, and the field keys derived from it so far.
pub struct Version {
    tenant: Name,
    handle: Handle,
    suite: Suite,
    number: u32,
    dek: Dek,
    field_keys: FieldKeys,
    /// Counts what it encrypts; held from the first time on.
    meter: OnceLock<MeterUser>,
    /// Set whenever the version holds more than before.
    grown: Arc<AtomicBool>,
}

impl Version {
    fn new(
        tenant: &Name,
        state: &KeyState,
        number: u32,
        dek: Dek,
        grown: &Arc<AtomicBool>,
    ) -> Self {
        Version {
            tenant: tenant.clone(),
            handle: state.handle,
            suite: state.suite,
            number,
            dek,
            field_keys: FieldKeys::new(),
            meter: OnceLock::new(),
            grown: Arc::clone(grown),
        }
    }

    /// The version's number, counted from 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The key of a field, derived at its first use. Never waits.
    #[must_use]
    pub fn field_key(&self, field: Field<'_>) -> Arc<FieldKey> {
        if let Some(key) = self.field_keys.find(field) {
            return key;
        }
        let key = self.dek.derive_field_key(
            self.suite,
            self.tenant.as_str(),
            self.handle,
            self.number,
            field,
        );
        let key = self.field_keys.insert(field, key);
        self.grown.store(true, Ordering::Relaxed);
        key
    }

    fn bytes(&self) -> usize {
        VERSION_BYTES + self.field_keys.bytes()
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Version")
            .field("handle", &self.handle)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// Older versions that were asked for.
struct OlderVersions {
    /// In the order of their coming; the first leaves first.
    loaded: ArcSwap<Vec<(u32, Arc<Version>)>>,
    /// Held by whoever loads, so that many who miss the same version read it once.
    loading: Mutex<()>,
    grown: Arc<AtomicBool>,
}

impl OlderVersions {
    fn find(&self, number: u32) -> Option<Arc<Version>> {
        self.loaded
            .load()
            .iter()
            .find(|(loaded, _)| *loaded == number)
            .map(|(_, version)| Arc::clone(version))
    }

    fn insert(&self, version: &Arc<Version>) {
        self.loaded.rcu(|current| {
            if current.iter().any(|(number, _)| *number == version.number) {
                return Arc::clone(current);
            }
            let surplus = (current.len() + 1).saturating_sub(MAX_OLDER_VERSIONS);
            let mut next = Vec::with_capacity(current.len() + 1 - surplus);
            next.extend(current.iter().skip(surplus).cloned());
            next.push((version.number, Arc::clone(version)));
            Arc::new(next)
        });
        self.grown.store(true, Ordering::Relaxed);
    }
}
