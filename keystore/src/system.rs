//! Other records of the system (roles, the certificate authority), under `sys/` and the system's record key.
//!
//! A payload is one byte, 1 for a record and 0 for a tombstone, and then the caller's bytes. A tombstone stays, so that a
//! record that is made again continues its generations.

use bytes::Bytes;
use fieldkeep_crypto::{
    record::RECORD_OVERHEAD_BYTES,
    wrap::{self, MAX_SECRET_BYTES, Purpose, WrapContext},
};
use prost::Message;

use crate::{
    error::{Damaged, KeystoreError},
    info::{Changed, SystemRecord},
    mutation::{Draft, Outcome, committed_before},
    reader::Reader,
    records::{WrappedKey, decode_strict},
    sealed,
    store::{CommitError, Operation, Record, limits::MAX_VALUE_BYTES},
    store_key,
};

/// The longest payload of a system record, in bytes.
pub(crate) const MAX_PAYLOAD_BYTES: usize = MAX_VALUE_BYTES - RECORD_OVERHEAD_BYTES - 1;

const TOMBSTONE: u8 = 0;
const LIVE: u8 = 1;

/// An authenticated record, or what is left of one.
pub(crate) struct Stored {
    pub(crate) generation: u64,
    /// `None`: a tombstone.
    pub(crate) payload: Option<Bytes>,
}

/// Authenticates the record under `store_key`.
pub(crate) fn open(reader: &Reader, store_key: &[u8], value: &Bytes) -> Result<Stored, Damaged> {
    let system = &reader.system;
    let record = sealed::open(&system.record_key, &system.store_id, store_key, value)?;
    let payload = match record.payload.split_first() {
        Some((&LIVE, payload)) => Some(value.slice_ref(payload)),
        Some((&TOMBSTONE, [])) => None,
        _ => return Err(Damaged::new(store_key, "it does not parse")),
    };
    Ok(Stored {
        generation: record.generation,
        payload,
    })
}

pub(crate) async fn record(
    reader: &Reader,
    key: &str,
) -> Result<Option<SystemRecord>, KeystoreError> {
    check_key(key)?;
    let Some((_, stored)) = read(reader, key).await? else {
        return Ok(None);
    };
    Ok(stored.payload.map(|payload| SystemRecord {
        payload,
        generation: stored.generation,
    }))
}

pub(crate) async fn records(
    reader: &Reader,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<(String, SystemRecord)>, KeystoreError> {
    if prefix != store_key::SYSTEM {
        check_key(prefix)?;
    }
    let mut found = Vec::new();
    let mut after = after.map(|after| Bytes::copy_from_slice(after.as_bytes()));
    // Tombstones are skipped, so one scan may give fewer records than asked for.
    while found.len() < limit {
        let wanted = limit - found.len();
        let page = reader
            .store
            .scan(prefix.as_bytes(), after.as_deref(), wanted)
            .await
            .map_err(KeystoreError::Unavailable)?;
        let last_page = page.len() < wanted;
        for (store_key, Record { value, .. }) in page {
            let stored = open(reader, &store_key, &value)?;
            if let Some(payload) = stored.payload {
                let name = str::from_utf8(&store_key)
                    .map_err(|_| Damaged::new(&store_key, "its name is not text"))?;
                let generation = stored.generation;
                found.push((
                    name.to_owned(),
                    SystemRecord {
                        payload,
                        generation,
                    },
                ));
            }
            after = Some(store_key);
        }
        if last_page {
            break;
        }
    }
    Ok(found)
}

pub(crate) async fn change(
    reader: &Reader,
    key: &str,
    expected_generation: Option<u64>,
    payload: Option<&[u8]>,
    operation: Operation,
    now: u64,
) -> Result<Changed<()>, KeystoreError> {
    check_key(key)?;
    let actual = payload.map_or(0, <[u8]>::len);
    if actual > MAX_PAYLOAD_BYTES {
        return Err(KeystoreError::TooLarge {
            actual,
            limit: MAX_PAYLOAD_BYTES,
        });
    }
    let store = &*reader.store;
    let present = read(reader, key).await?;
    let live_generation = present
        .as_ref()
        .and_then(|(_, stored)| stored.payload.as_ref().map(|_| stored.generation));
    if live_generation != expected_generation {
        return match committed_before(store, operation, now).await? {
            Some(revision) => Ok(Changed::repeated((), revision)),
            None => Err(CommitError::Conflict {
                key: Bytes::copy_from_slice(key.as_bytes()),
            }
            .into()),
        };
    }
    let (revision, generation) = match present {
        Some((revision, stored)) => (Some(revision), stored.generation.saturating_add(1)),
        None => (None, 1),
    };
    let mut bytes = Vec::with_capacity(1 + actual);
    bytes.push(if payload.is_some() { LIVE } else { TOMBSTONE });
    bytes.extend_from_slice(payload.unwrap_or_default());
    let mut sealed = sealed::seal(
        &reader.system.record_key,
        &reader.system.store_id,
        Bytes::copy_from_slice(key.as_bytes()),
        generation,
        &bytes,
    );
    if payload.is_none() {
        sealed.change.digest = None;
    }
    let mut draft = Draft::new(operation, now);
    draft.put(revision, sealed);
    match draft.commit(store).await? {
        Outcome::Done { revision, changes } => Ok(Changed::done((), revision, changes)),
        Outcome::Repeated { revision } => Ok(Changed::repeated((), revision)),
        Outcome::Conflict { key } => Err(CommitError::Conflict { key }.into()),
    }
}

/// Wraps a secret of the system under the current master key. The result says which that was.
pub(crate) fn wrap_secret(
    reader: &Reader,
    object_id: &str,
    secret: &[u8],
    now: u64,
) -> Result<Vec<u8>, KeystoreError> {
    if secret.len() > MAX_SECRET_BYTES {
        return Err(KeystoreError::TooLarge {
            actual: secret.len(),
            limit: MAX_SECRET_BYTES,
        });
    }
    let (parent_version, master_key) = reader.system.master_keys.current();
    let context = secret_context(object_id, parent_version, now);
    let wrapped =
        wrap::wrap(master_key, Purpose::CaKey, &context, secret).map_err(KeystoreError::Wrap)?;
    Ok(WrappedKey {
        version: 1,
        parent_version,
        created: now,
        wrapped,
    }
    .encode_to_vec())
}

pub(crate) fn unwrap_secret(
    reader: &Reader,
    object_id: &str,
    wrapped: &[u8],
) -> Result<zeroize::Zeroizing<Vec<u8>>, KeystoreError> {
    let damaged = || KeystoreError::SecretDamaged {
        object_id: object_id.to_owned(),
    };
    let record: WrappedKey = decode_strict(wrapped).ok_or_else(damaged)?;
    let master_key = reader
        .system
        .master_keys
        .version(record.parent_version)
        .filter(|_| record.version == 1)
        .ok_or_else(damaged)?;
    let context = secret_context(object_id, record.parent_version, record.created);
    wrap::unwrap(master_key, Purpose::CaKey, &context, &record.wrapped).map_err(|_| damaged())
}

fn secret_context(object_id: &str, parent_version: u32, created: u64) -> WrapContext<'_> {
    WrapContext {
        suite: 0,
        tenant: "",
        object_id: object_id.as_bytes(),
        version: 1,
        parent_version,
        created,
        store_id: None,
    }
}

/// The present record with its revision.
async fn read(reader: &Reader, key: &str) -> Result<Option<(u64, Stored)>, KeystoreError> {
    let Some(record) = reader
        .store
        .get(key.as_bytes())
        .await
        .map_err(KeystoreError::Unavailable)?
    else {
        return Ok(None);
    };
    let stored = open(reader, key.as_bytes(), &record.value)?;
    Ok(Some((record.revision, stored)))
}

fn check_key(key: &str) -> Result<(), KeystoreError> {
    if store_key::is_system(key) {
        Ok(())
    } else {
        Err(KeystoreError::InvalidSystemKey(
            key.escape_default().to_string(),
        ))
    }
}
