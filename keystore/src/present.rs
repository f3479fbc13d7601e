//! What the store holds now, in the form in which the audit trail has changes.
//!
//! The first run of a repeated operation may have ended before its changes were on record. The record of the repetition
//! then carries these, so that the comparison at start covers them.

use bytes::Bytes;
use fieldkeep_crypto::names::Name;

use crate::{error::KeystoreError, info::Change, keystore::Keystore, rollback, store_key};

impl Keystore {
    /// The record of a tenant as it is now; nothing if there is none.
    ///
    /// # Errors
    /// The record is damaged; what reading the store gives.
    pub async fn present_tenant(&self, name: &Name) -> Result<Vec<Change>, KeystoreError> {
        self.present(vec![store_key::tenant(name.as_str())]).await
    }

    /// The records of a key and of its primary version as they are now; nothing if there is no such key.
    ///
    /// # Errors
    /// [`KeystoreError::TenantNotFound`], [`KeystoreError::KeyNotFound`]; a record is damaged; what reading the store gives.
    pub async fn present_key(
        &self,
        tenant: &Name,
        name: &Name,
    ) -> Result<Vec<Change>, KeystoreError> {
        let owner = self.inner.tenant(tenant).await?;
        let state = self.inner.stored(&owner, name).await?.state;
        let records = vec![
            store_key::key(tenant.as_str(), name.as_str()),
            store_key::version(state.handle, state.primary),
        ];
        self.present(records).await
    }

    /// A record of the system as it is now, also if it was deleted; nothing if it never was. `key` is the whole store key,
    /// `sys/...`.
    ///
    /// # Errors
    /// [`KeystoreError::InvalidSystemKey`]; the record is damaged; what reading the store gives.
    pub async fn present_system_record(&self, key: &str) -> Result<Vec<Change>, KeystoreError> {
        if !store_key::is_system(key) {
            let key = key.escape_default().to_string();
            return Err(KeystoreError::InvalidSystemKey(key));
        }
        self.present(vec![Bytes::copy_from_slice(key.as_bytes())])
            .await
    }

    /// What the store holds under these store keys now: of a key its primary version too, and nothing of what is not there.
    /// The keys are those of [`tenant_record`], [`key_record`] and records of the system.
    ///
    /// # Errors
    /// A store key or a record is damaged; what reading the store gives.
    pub async fn present_records(
        &self,
        store_keys: &[Bytes],
    ) -> Result<Vec<Change>, KeystoreError> {
        let mut changes = Vec::with_capacity(store_keys.len() + 1);
        for store_key in store_keys {
            let found = match store_key::key_names(store_key) {
                Some((tenant, name)) => self.present_key(&tenant, &name).await,
                None => self.present(vec![store_key.clone()]).await,
            };
            match found {
                Ok(found) => changes.extend(found),
                Err(KeystoreError::TenantNotFound(_) | KeystoreError::KeyNotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(changes)
    }

    /// The store's revision after the operation with this id; `None` if it was not committed, or more than
    /// [`crate::store::OPERATION_KEPT_SECONDS`] ago.
    ///
    /// # Errors
    /// What reading the store gives.
    pub async fn operation_revision(&self, id: &[u8; 16]) -> Result<Option<u64>, KeystoreError> {
        let revision = self.store().operation(id).await;
        revision.map_err(KeystoreError::Unavailable)
    }

    async fn present(&self, store_keys: Vec<Bytes>) -> Result<Vec<Change>, KeystoreError> {
        let reader = &self.inner.reader;
        let mut changes = Vec::with_capacity(store_keys.len());
        for store_key in store_keys {
            let record = reader.store.get(&store_key).await;
            if let Some(record) = record.map_err(KeystoreError::Unavailable)? {
                let (generation, digest) =
                    rollback::present(reader, &store_key, &record.value).await?;
                changes.push(Change {
                    store_key,
                    generation,
                    digest,
                });
            }
        }
        Ok(changes)
    }
}

/// The store key of a tenant's record, for the audit trail.
#[must_use]
pub fn tenant_record(tenant: &Name) -> Bytes {
    store_key::tenant(tenant.as_str())
}

/// The store key of a key's record, for the audit trail. Its versions have records of their own.
#[must_use]
pub fn key_record(tenant: &Name, key: &Name) -> Bytes {
    store_key::key(tenant.as_str(), key.as_str())
}

/// The number of the version whose record has this store key; `None` if it is another record.
#[must_use]
pub fn version_of_record(store_key: &[u8]) -> Option<u32> {
    store_key::version_number(store_key)
}
