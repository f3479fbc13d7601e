//! Finds records that are older than the audit trail, or other than it says.

use bytes::Bytes;

use crate::{
    error::{Damaged, KeystoreError},
    info::Change,
    reader::Reader,
    sealed,
    store_key::{self, Owner},
    system,
};

/// Compares one entry of the audit trail with the store. A newer generation in the store is fine: the trail may have
/// lost the outcome of the last changes before a crash, and has later entries for others.
pub(crate) async fn check(reader: &Reader, change: &Change) -> Result<(), KeystoreError> {
    let rolled_back = |found| KeystoreError::RolledBack {
        store_key: change.store_key.escape_ascii().to_string(),
        expected: change.generation,
        found,
    };
    let Some(record) = reader
        .store
        .get(&change.store_key)
        .await
        .map_err(KeystoreError::Unavailable)?
    else {
        return Err(rolled_back(None));
    };
    let (generation, digest) = present(reader, &change.store_key, &record.value).await?;
    let same = generation == change.generation && digest == change.digest;
    if generation > change.generation || same {
        Ok(())
    } else {
        Err(rolled_back(Some(generation)))
    }
}

/// Generation and digest of a stored value, authenticated; no digest for a tombstone.
pub(crate) async fn present(
    reader: &Reader,
    store_key: &[u8],
    value: &Bytes,
) -> Result<(u64, Option<[u8; 32]>), KeystoreError> {
    let digest = Some(sealed::digest_of(value));
    let tenant = match store_key::owner(store_key) {
        None => {
            return Err(Damaged::new(store_key, "the audit trail has no such records").into());
        }
        Some(Owner::System) if store_key.starts_with(store_key::SYSTEM.as_bytes()) => {
            let stored = system::open(reader, store_key, value)?;
            return Ok((stored.generation, stored.payload.and(digest)));
        }
        Some(Owner::System) => {
            let keys = &reader.system;
            let record = sealed::open(&keys.record_key, &keys.store_id, store_key, value)?;
            return Ok((record.generation, digest));
        }
        Some(Owner::Tenant(name)) => reader
            .tenant(name)
            .await?
            .ok_or_else(|| Damaged::new(store_key, "its tenant does not exist"))?,
        Some(Owner::Record) => reader.claimed_tenant(store_key, value).await?,
    };
    let store_id = &reader.system.store_id;
    let record = sealed::open(&tenant.record_key, store_id, store_key, value)?;
    Ok((record.generation, digest))
}
