//! Reads records, authenticates them and unwraps what is in them. Holds the tenants' keys; knows nothing of the key
//! cache, so that a key can hold a reader without a cycle.

use std::sync::Arc;

use bytes::Bytes;
use fieldkeep_crypto::{ciphertext::Handle, keys::Dek, names::Name};
use prost::Message;
use quick_cache::sync::Cache;

use crate::{
    error::{Damaged, KeyError, ReadError},
    key::Key,
    keyring::System,
    records::{KeyRecord, VersionRecord, split_tenant},
    sealed,
    state::{KeyState, suite_from},
    store::Store,
    store_key,
    tenants::Tenant,
    usage::meters::Meters,
};

/// Reads the store.
pub(crate) struct Reader {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) system: System,
    /// A tenant's record does not change once made, so nothing here goes stale.
    tenants: Cache<Name, Arc<Tenant>>,
    pub(crate) meters: Arc<Meters>,
}

/// A key's record, authenticated.
pub(crate) struct StoredKey {
    pub(crate) state: KeyState,
    pub(crate) generation: u64,
    pub(crate) revision: u64,
}

impl Reader {
    pub(crate) fn new(store: Arc<dyn Store>, system: System, max_tenants: usize) -> Self {
        Reader {
            store,
            system,
            tenants: Cache::new(max_tenants.max(1)),
            meters: Arc::default(),
        }
    }

    /// A tenant with its keys unwrapped; `None` if there is none. Misses are not remembered.
    pub(crate) async fn tenant(&self, name: &str) -> Result<Option<Arc<Tenant>>, ReadError> {
        if let Some(tenant) = self.tenants.get(name) {
            return Ok(Some(tenant));
        }
        let Ok(name) = Name::parse(name) else {
            return Ok(None);
        };
        match self.tenants.get_value_or_guard_async(&name).await {
            Ok(tenant) => Ok(Some(tenant)),
            Err(guard) => {
                let store_key = store_key::tenant(name.as_str());
                let Some(record) = self.store.get(&store_key).await? else {
                    return Ok(None);
                };
                let tenant = Arc::new(Tenant::open(&self.system, &name, &record.value)?);
                // An error says only that the tenant did not stay in the cache.
                let _ = guard.insert(Arc::clone(&tenant));
                Ok(Some(tenant))
            }
        }
    }

    /// A key's record; `None` if there is no such key.
    pub(crate) async fn key_record(
        &self,
        tenant: &Tenant,
        name: &str,
    ) -> Result<Option<StoredKey>, ReadError> {
        let store_key = store_key::key(tenant.name.as_str(), name);
        let Some(record) = self.store.get(&store_key).await? else {
            return Ok(None);
        };
        let (state, generation) = self.open_key_record(tenant, &store_key, &record.value)?;
        Ok(Some(StoredKey {
            state,
            generation,
            revision: record.revision,
        }))
    }

    /// Authenticates a key's record. Returns its state and generation.
    pub(crate) fn open_key_record(
        &self,
        tenant: &Tenant,
        store_key: &[u8],
        value: &[u8],
    ) -> Result<(KeyState, u64), Damaged> {
        let record = sealed::open(&tenant.record_key, &self.system.store_id, store_key, value)?;
        let parsed = KeyRecord::decode(record.payload)
            .map_err(|_| Damaged::new(store_key, "it does not parse"))?;
        let state = KeyState::from_record(&parsed).map_err(|what| Damaged::new(store_key, what))?;
        Ok((state, record.generation))
    }

    /// Authenticates a version's record of a known tenant.
    pub(crate) fn open_version_record(
        &self,
        tenant: &Tenant,
        store_key: &[u8],
        value: &[u8],
    ) -> Result<VersionRecord, Damaged> {
        let record = sealed::open(&tenant.record_key, &self.system.store_id, store_key, value)?;
        let damaged = |what| Damaged::new(store_key, what);
        let (named, message) =
            split_tenant(record.payload).ok_or_else(|| damaged("it does not parse"))?;
        if named != tenant.name.as_str() {
            return Err(damaged("it belongs to another tenant"));
        }
        VersionRecord::decode(message).map_err(|_| damaged("it does not parse"))
    }

    /// Which tenant a version's record says that it belongs to. Not to be believed until
    /// [`Reader::open_version_record`] authenticated the record as that tenant's.
    pub(crate) async fn claimed_tenant(
        &self,
        store_key: &[u8],
        value: &[u8],
    ) -> Result<Arc<Tenant>, ReadError> {
        let damaged = |what| Damaged::new(store_key, what);
        let claimed = value
            .get(8..)
            .and_then(split_tenant)
            .map(|(name, _)| name)
            .ok_or_else(|| damaged("it does not parse"))?;
        self.tenant(claimed)
            .await?
            .ok_or_else(|| damaged("it names a tenant that does not exist").into())
    }

    /// Unwraps a version of a key.
    pub(crate) async fn dek(
        &self,
        tenant: &Name,
        name: &Name,
        state: &KeyState,
        number: u32,
    ) -> Result<Dek, KeyError> {
        let tenant = self
            .tenant(tenant.as_str())
            .await?
            .ok_or(KeyError::NotFound)?;
        Ok(self.dek_of(&tenant, name, state, number).await?)
    }

    async fn dek_of(
        &self,
        tenant: &Tenant,
        name: &Name,
        state: &KeyState,
        number: u32,
    ) -> Result<Dek, ReadError> {
        let store_key = store_key::version(state.handle, number);
        let damaged = |what| Damaged::new(&store_key, what);
        let value = self
            .store
            .get(&store_key)
            .await?
            .ok_or_else(|| damaged("it is missing"))?
            .value;
        let record = self.open_version_record(tenant, &store_key, &value)?;
        Ok(unwrap(tenant, name, state, number, &record)?)
    }

    /// The handle of a key by its name.
    pub(crate) async fn handle_of(&self, tenant: &str, name: &str) -> Result<Handle, KeyError> {
        let tenant = self.tenant(tenant).await?.ok_or(KeyError::NotFound)?;
        let stored = self
            .key_record(&tenant, name)
            .await?
            .ok_or(KeyError::NotFound)?;
        Ok(stored.state.handle)
    }

    /// Loads a key with its primary version, by its handle.
    pub(crate) async fn load(self: &Arc<Self>, handle: Handle) -> Result<Key, KeyError> {
        let (tenant, name, first) = self.owner_of(handle).await?;
        let key_store_key = || store_key::key(tenant.name.as_str(), name.as_str());
        let stored = self
            .key_record(&tenant, name.as_str())
            .await?
            .ok_or_else(|| Damaged::new(key_store_key(), "it is missing"))?;
        if stored.state.handle != handle {
            return Err(Damaged::new(key_store_key(), "it has another handle").into());
        }
        let dek = match stored.state.primary {
            1 => unwrap(&tenant, &name, &stored.state, 1, &first)?,
            newer => self.dek_of(&tenant, &name, &stored.state, newer).await?,
        };
        Ok(Key::new(
            tenant.name.clone(),
            name,
            stored.state,
            stored.generation,
            dek,
            Arc::clone(self),
        ))
    }

    /// Tenant and name of the key with a handle, from the record of its first version, with that.
    async fn owner_of(
        &self,
        handle: Handle,
    ) -> Result<(Arc<Tenant>, Name, VersionRecord), KeyError> {
        let store_key: Bytes = store_key::version(handle, 1);
        let Some(record) = self
            .store
            .get(&store_key)
            .await
            .map_err(KeyError::Unavailable)?
        else {
            return Err(KeyError::NotFound);
        };
        let tenant = self.claimed_tenant(&store_key, &record.value).await?;
        let version = self.open_version_record(&tenant, &store_key, &record.value)?;
        let name =
            Name::parse(&version.key).map_err(|_| Damaged::new(&store_key, "it names no key"))?;
        Ok((tenant, name, version))
    }
}

/// Unwraps the DEK of an authenticated version record, if it is the right key's.
fn unwrap(
    tenant: &Tenant,
    name: &Name,
    state: &KeyState,
    number: u32,
    record: &VersionRecord,
) -> Result<Dek, Damaged> {
    let damaged = |what| Damaged::new(store_key::version(state.handle, number), what);
    if record.key != name.as_str() || suite_from(record.suite) != Some(state.suite) {
        return Err(damaged("it belongs to another key"));
    }
    tenant
        .unwrap_version(record, state.handle, state.suite, number)
        .map_err(|_| damaged("its key does not open under the tenant's key"))
}
