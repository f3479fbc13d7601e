//! The keystore: the way to tenants, keys and the system's records.

use std::{fmt, future::Future, sync::Arc};

use fieldkeep_crypto::{
    ciphertext::Handle,
    keys::{ApiKeyHashKey, AuditKey, AuditSealKey},
    names::Name,
    wrap::StoreId,
};
use zeroize::Zeroizing;

use crate::{
    cache::KeyCache,
    candidates,
    error::{Damaged, KeyError, KeystoreError},
    info::{
        AuditItems, CacheOptions, CacheStats, Change, Changed, KeyInfo, KeySettings, SystemRecord,
        TenantInfo,
    },
    key::Key,
    key_source::KeySource,
    keyring::System,
    lifecycle::{KeyChange, Lifecycle, describe},
    listing,
    mutation::{Draft, Outcome},
    reader::Reader,
    rollback,
    root::RootProvider,
    rotation::plan,
    store::{Operation, Store},
    store_key, system,
    tenants::Tenant,
};

/// The tenant that every keystore has.
pub const DEFAULT_TENANT: &str = "default";

/// The most tenants, keys, versions or records in one listing.
pub const MAX_PAGE: usize = 1000;

/// The keystore. A clone is the same keystore.
///
/// Memory: a cached key takes about 0.8 KiB with its primary version (DEK, names, places in the maps), and 0.4 KiB
/// more for each field in use; each further version in use takes about 0.3 KiB and its fields. So the default bounds are
/// reached at 10,000 keys with some fields each.
///
/// Changes run in a task of their own, so that a caller that goes away cannot leave the cache behind the store. All methods
/// must be called within a tokio runtime.
#[derive(Clone)]
pub struct Keystore {
    pub(crate) inner: Arc<Lifecycle>,
}

impl Keystore {
    /// Makes a keystore in an empty store: store id, master key, record key, audit key and the tenant `default`, in one
    /// commit. `now` in Unix seconds, here and everywhere.
    ///
    /// Derives the root key on the calling thread, which may take a second.
    ///
    /// # Errors
    /// [`KeystoreError::NotEmpty`], and what root provider and store give.
    pub async fn init(
        store: Arc<dyn Store>,
        root: &dyn RootProvider,
        now: u64,
    ) -> Result<Keystore, KeystoreError> {
        let any = store
            .scan(b"", None, 1)
            .await
            .map_err(KeystoreError::Unavailable)?;
        if !any.is_empty() {
            return Err(KeystoreError::NotEmpty);
        }
        let (system, records) = System::make(root, now)?;
        let (_, tenant) = Tenant::make(&system, &default_tenant()?, now)?;
        let mut draft = Draft::new(Operation::make()?, now);
        for (store_key, value) in records {
            draft.put_plain(store_key, value);
        }
        draft.put(None, tenant);
        match draft.commit(&*store).await? {
            Outcome::Conflict { .. } => Err(KeystoreError::NotEmpty),
            Outcome::Done { .. } | Outcome::Repeated { .. } => {
                Ok(Keystore::new(store, system, &CacheOptions::default()))
            }
        }
    }

    /// Opens a keystore.
    ///
    /// Derives the root key on the calling thread, which may take a second.
    ///
    /// # Errors
    /// [`KeystoreError::NotInitialised`], [`KeystoreError::WrongRoot`], [`KeystoreError::WrongProvider`],
    /// [`KeystoreError::Damaged`], and what root provider and store give.
    pub async fn open(
        store: Arc<dyn Store>,
        root: &dyn RootProvider,
        options: CacheOptions,
    ) -> Result<Keystore, KeystoreError> {
        let system = System::open(&*store, root).await?;
        let keystore = Keystore::new(store, system, &options);
        // Every record's authentication takes in the store id, so this also finds out whether that is right.
        keystore
            .tenant(&default_tenant()?)
            .await
            .map_err(|error| match error {
                KeystoreError::TenantNotFound(_) => {
                    Damaged::new(store_key::tenant(DEFAULT_TENANT), "it is missing").into()
                }
                other => other,
            })?;
        Ok(keystore)
    }

    fn new(store: Arc<dyn Store>, system: System, options: &CacheOptions) -> Self {
        let reader = Arc::new(Reader::new(store, system, options.max_tenants));
        let cache = KeyCache::new(options);
        Keystore {
            inner: Arc::new(Lifecycle {
                reader,
                cache,
                source: KeySource::Random,
            }),
        }
    }

    /// The random id of this store.
    #[must_use]
    pub fn store_id(&self) -> &StoreId {
        &self.inner.reader.system.store_id
    }

    /// The key of the keyed hashes in the audit trail.
    #[must_use]
    pub fn audit_key(&self) -> &AuditKey {
        &self.inner.reader.system.audit_key
    }

    /// The key of the hashes of API keys. It is derived anew by each call: keep it.
    #[must_use]
    pub fn derive_api_key_hash_key(&self) -> ApiKeyHashKey {
        self.inner
            .reader
            .system
            .record_key
            .derive_api_key_hash_key()
    }

    /// The key of the audit trail's seals. It is derived anew by each call: keep it.
    #[must_use]
    pub fn derive_audit_seal_key(&self) -> AuditSealKey {
        self.inner.reader.system.record_key.derive_audit_seal_key()
    }

    /// The store beneath. Close it when the keystore is not used any more.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.reader.store
    }

    /// The kind of the root provider: `key-file` or `passphrase`.
    #[must_use]
    pub fn root_provider(&self) -> &str {
        &self.inner.reader.system.provider
    }

    /// Makes a tenant. Names of tenants are never reused.
    ///
    /// # Errors
    /// [`KeystoreError::TenantExists`], [`KeystoreError::OperationReused`], and what the store gives.
    pub async fn create_tenant(
        &self,
        name: &Name,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<TenantInfo>, KeystoreError> {
        let name = name.clone();
        self.run(move |inner| async move { inner.create_tenant(&name, operation, now).await })
            .await
    }

    /// Describes a tenant.
    ///
    /// # Errors
    /// [`KeystoreError::TenantNotFound`], and what reading the store gives.
    pub async fn tenant(&self, name: &Name) -> Result<TenantInfo, KeystoreError> {
        Ok(self.inner.tenant(name).await?.info())
    }

    /// Up to `limit` tenants by name, at most [`MAX_PAGE`]; fewer means that there are no more.
    ///
    /// # Errors
    /// What reading the store gives.
    pub async fn list_tenants(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<TenantInfo>, KeystoreError> {
        listing::tenants(&self.inner.reader, after, limit).await
    }

    /// Makes a key with version 1.
    ///
    /// # Errors
    /// [`KeystoreError::TenantNotFound`], [`KeystoreError::KeyExists`], [`KeystoreError::OperationReused`], and what the
    /// store gives.
    pub async fn create_key(
        &self,
        tenant: &Name,
        name: &Name,
        settings: KeySettings,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<KeyInfo>, KeystoreError> {
        let (tenant, name) = (tenant.clone(), name.clone());
        self.run(move |inner| async move {
            inner
                .create_key(&tenant, &name, settings, operation, now)
                .await
        })
        .await
    }

    /// Describes a key with its newest 1,000 versions and its next rotation as of `now`. Reads the store, never the cache.
    ///
    /// # Errors
    /// [`KeystoreError::TenantNotFound`], [`KeystoreError::KeyNotFound`], and what reading the store gives.
    pub async fn describe_key(
        &self,
        tenant: &Name,
        name: &Name,
        now: u64,
    ) -> Result<KeyInfo, KeystoreError> {
        let reader = &self.inner.reader;
        let tenant = self.inner.tenant(tenant).await?;
        let state = self.inner.stored(&tenant, name).await?.state;
        let mut info = describe(&tenant.name, name, &state);
        info.versions = listing::versions(reader, &tenant, &state).await?;
        let candidate = candidates::of_state(reader, &tenant, name, &state).await?;
        info.next = candidate.and_then(|candidate| plan::next(&candidate, now));
        Ok(info)
    }

    /// Up to `limit` keys of a tenant by name, at most [`MAX_PAGE`], without their versions; fewer means that there are
    /// no more.
    ///
    /// # Errors
    /// [`KeystoreError::TenantNotFound`], and what reading the store gives.
    pub async fn list_keys(
        &self,
        tenant: &Name,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<KeyInfo>, KeystoreError> {
        let tenant = self.inner.tenant(tenant).await?;
        listing::keys(&self.inner.reader, &tenant, after, limit).await
    }

    /// Adds a version and makes it primary, also to a disabled key. Older versions still decrypt.
    ///
    /// # Errors
    /// [`KeystoreError::TenantNotFound`], [`KeystoreError::KeyNotFound`], [`KeystoreError::VersionsExhausted`],
    /// [`KeystoreError::OperationReused`], and what the store gives; [`KeystoreError::Conflict`] only if dozens of other
    /// changes of the same key came first.
    pub async fn rotate_key(
        &self,
        tenant: &Name,
        name: &Name,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<KeyInfo>, KeystoreError> {
        self.change_key(tenant, name, KeyChange::Rotate, operation, now)
            .await
    }

    /// Enables or disables a key. A disabled key neither encrypts nor decrypts.
    ///
    /// # Errors
    /// As [`Keystore::rotate_key`].
    pub async fn set_key_enabled(
        &self,
        tenant: &Name,
        name: &Name,
        enabled: bool,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<KeyInfo>, KeystoreError> {
        let change = KeyChange::SetEnabled(enabled);
        self.change_key(tenant, name, change, operation, now).await
    }

    /// Sets what the audit trail has of the items of calls that use a key, from the next call on.
    ///
    /// # Errors
    /// As [`Keystore::rotate_key`].
    pub async fn set_audit_items(
        &self,
        tenant: &Name,
        name: &Name,
        items: AuditItems,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<KeyInfo>, KeystoreError> {
        let change = KeyChange::SetAuditItems(items);
        self.change_key(tenant, name, change, operation, now).await
    }

    /// Enables or disables a version. A disabled version does not decrypt.
    ///
    /// # Errors
    /// As [`Keystore::rotate_key`], and [`KeystoreError::NoSuchVersion`], [`KeystoreError::PrimaryVersion`],
    /// [`KeystoreError::TooManyDisabledRanges`].
    pub async fn set_version_enabled(
        &self,
        tenant: &Name,
        name: &Name,
        version: u32,
        enabled: bool,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<KeyInfo>, KeystoreError> {
        let change = KeyChange::SetVersionEnabled(version, enabled);
        self.change_key(tenant, name, change, operation, now).await
    }

    pub(crate) async fn change_key(
        &self,
        tenant: &Name,
        name: &Name,
        change: KeyChange,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<KeyInfo>, KeystoreError> {
        let (tenant, name) = (tenant.clone(), name.clone());
        self.run(move |inner| async move {
            inner
                .change_key(&tenant, &name, change, operation, now)
                .await
        })
        .await
    }

    /// A key to work with, by its name. A hit does no I/O, allocates nothing and takes no lock that a rotation holds.
    /// A disabled key is given too; it refuses itself.
    ///
    /// # Errors
    /// [`KeyError::NotFound`], also for a tenant that does not exist, and what reading the store gives.
    pub async fn key(&self, tenant: &str, name: &str) -> Result<Arc<Key>, KeyError> {
        let Lifecycle { reader, cache, .. } = &*self.inner;
        cache.by_name(reader, tenant, name).await
    }

    /// A key to work with, by the handle in a ciphertext. The caller checks that the key is of its own tenant.
    ///
    /// # Errors
    /// As [`Keystore::key`].
    pub async fn key_by_handle(&self, handle: Handle) -> Result<Arc<Key>, KeyError> {
        let Lifecycle { reader, cache, .. } = &*self.inner;
        cache.by_handle(reader, handle).await
    }

    /// What the key cache holds and did.
    #[must_use]
    pub fn cache_stats(&self) -> CacheStats {
        self.inner.cache.stats()
    }

    /// A record of the system; `None` if there is none or it was deleted. `key` is the whole store key, `sys/...`.
    ///
    /// # Errors
    /// [`KeystoreError::InvalidSystemKey`], and what reading the store gives.
    pub async fn system_record(&self, key: &str) -> Result<Option<SystemRecord>, KeystoreError> {
        system::record(&self.inner.reader, key).await
    }

    /// Up to `limit` records (at most [`MAX_PAGE`]) whose whole store keys begin with `prefix` (`sys/...`) and come after
    /// `after`; fewer means that there are no more.
    ///
    /// # Errors
    /// As [`Keystore::system_record`].
    pub async fn system_records(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, SystemRecord)>, KeystoreError> {
        system::records(&self.inner.reader, prefix, after, limit.min(MAX_PAGE)).await
    }

    /// Puts a record of the system (at most 4,055 bytes), or deletes it with `payload` `None`. `expected_generation` is the
    /// one it was read with; `None`: there must be no such record.
    ///
    /// # Errors
    /// [`KeystoreError::Conflict`] if the record is not as expected, [`KeystoreError::InvalidSystemKey`],
    /// [`KeystoreError::TooLarge`], [`KeystoreError::OperationReused`], and what the store gives.
    pub async fn change_system_record(
        &self,
        key: &str,
        expected_generation: Option<u64>,
        payload: Option<&[u8]>,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<()>, KeystoreError> {
        let reader = &self.inner.reader;
        system::change(reader, key, expected_generation, payload, operation, now).await
    }

    /// Wraps a secret of the system, such as the private key of the certificate authority, under the master key.
    /// `object_id` names it and is needed to unwrap it.
    ///
    /// # Errors
    /// [`KeystoreError::TooLarge`] beyond 16 KiB, [`KeystoreError::Wrap`].
    pub fn wrap_system_secret(
        &self,
        object_id: &str,
        secret: &[u8],
        now: u64,
    ) -> Result<Vec<u8>, KeystoreError> {
        system::wrap_secret(&self.inner.reader, object_id, secret, now)
    }

    /// Unwraps what [`Keystore::wrap_system_secret`] made.
    ///
    /// # Errors
    /// [`KeystoreError::SecretDamaged`].
    pub fn unwrap_system_secret(
        &self,
        object_id: &str,
        wrapped: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
        system::unwrap_secret(&self.inner.reader, object_id, wrapped)
    }

    /// Compares one entry of the audit trail with the store.
    ///
    /// # Errors
    /// [`KeystoreError::RolledBack`] if the record is older, missing, or another one of the same generation;
    /// [`KeystoreError::Damaged`] if it is not authentic; and what reading the store gives.
    pub async fn check_change(&self, change: &Change) -> Result<(), KeystoreError> {
        rollback::check(&self.inner.reader, change).await
    }

    /// Runs a change to its end, whether or not the caller waits for it.
    async fn run<T, F>(&self, change: impl FnOnce(Arc<Lifecycle>) -> F) -> Result<T, KeystoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, KeystoreError>> + Send + 'static,
    {
        tokio::spawn(change(Arc::clone(&self.inner)))
            .await
            .unwrap_or(Err(KeystoreError::Interrupted))
    }
}

impl fmt::Debug for Keystore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keystore")
            .field("store_id", self.store_id())
            .field("root_provider", &self.root_provider())
            .finish_non_exhaustive()
    }
}

fn default_tenant() -> Result<Name, KeystoreError> {
    Name::parse(DEFAULT_TENANT)
        .map_err(|_| KeystoreError::TenantNotFound(DEFAULT_TENANT.to_owned()))
}
