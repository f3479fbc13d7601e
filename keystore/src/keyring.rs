//! The master keyring and the keys of the system: made at init, unwrapped at start.

use bytes::Bytes;
use fieldkeep_crypto::{
    keys::{AuditKey, MasterKey, RecordKey},
    wrap::{StoreId, WrapContext},
};
use prost::Message;

use crate::{
    error::{Damaged, KeystoreError},
    records::{FORMAT, KeyringRecord, MetaRecord, WrappedKey, decode_strict},
    root::{RootParams, RootProvider},
    store::Store,
    store_key,
};

/// More master keys or KEKs than this in one record are damage.
const MAX_RING: usize = 16;

/// The versions of one key of the hierarchy: the current one wraps, all of them unwrap.
#[derive(Debug)]
pub(crate) struct Ring<K> {
    current: (u32, K),
    older: Vec<(u32, K)>,
}

impl<K> Ring<K> {
    pub(crate) fn new(version: u32, key: K) -> Self {
        Ring {
            current: (version, key),
            older: Vec::new(),
        }
    }

    /// Unwraps all versions; the last is the current one. `None` if there is none, there are too many, or they are
    /// not in order.
    pub(crate) fn unwrap_all<E>(
        wrapped: &[WrappedKey],
        mut unwrap: impl FnMut(&WrappedKey) -> Result<K, E>,
    ) -> Option<Result<Self, E>> {
        let ordered = wrapped
            .iter()
            .zip(wrapped.iter().skip(1))
            .all(|(one, next)| one.version < next.version);
        if !ordered || wrapped.len() > MAX_RING {
            return None;
        }
        let mut open = |key: &WrappedKey| unwrap(key).map(|opened| (key.version, opened));
        let (last, older) = wrapped.split_last()?;
        Some((|| {
            Ok(Ring {
                older: older.iter().map(&mut open).collect::<Result<_, E>>()?,
                current: open(last)?,
            })
        })())
    }

    pub(crate) fn current(&self) -> (u32, &K) {
        (self.current.0, &self.current.1)
    }

    pub(crate) fn version(&self, version: u32) -> Option<&K> {
        let (current, key) = self.current();
        if current == version {
            return Some(key);
        }
        self.older
            .iter()
            .find(|(older, _)| *older == version)
            .map(|(_, key)| key)
    }
}

/// The keys of the system, unwrapped.
pub(crate) struct System {
    pub(crate) store_id: StoreId,
    pub(crate) provider: String,
    pub(crate) master_keys: Ring<MasterKey>,
    pub(crate) record_key: RecordKey,
    pub(crate) audit_key: AuditKey,
}

impl System {
    /// Makes a store id and all keys. Returns the records to be stored with them.
    pub(crate) fn make(
        root: &dyn RootProvider,
        now: u64,
    ) -> Result<(System, Vec<(Bytes, Bytes)>), KeystoreError> {
        let (root_key, params) = root.make()?;
        let store_id = StoreId::make()?;
        let master_key = MasterKey::make()?;
        let wrapped = master_key
            .wrap(&root_key, &system_context(store_key::KEYRING, 1, 1, now))
            .map_err(KeystoreError::Wrap)?;
        let keyring = KeyringRecord {
            provider: root.name().to_owned(),
            params: params.as_bytes().to_vec(),
            master_keys: vec![WrappedKey {
                version: 1,
                parent_version: 1,
                created: now,
                wrapped,
            }],
        };
        let record_key = RecordKey::make()?;
        let audit_key = AuditKey::make()?;
        let under_master = |store_key: &'static str,
                            wrap: &dyn Fn(&WrapContext<'_>) -> Result<Vec<u8>, _>|
         -> Result<(Bytes, Bytes), KeystoreError> {
            let record = WrappedKey {
                version: 1,
                parent_version: 1,
                created: now,
                wrapped: wrap(&system_context(store_key, 1, 1, now))
                    .map_err(KeystoreError::Wrap)?,
            };
            Ok((Bytes::from(store_key), record.encode_to_vec().into()))
        };
        let meta = MetaRecord {
            format: FORMAT,
            store_id: store_id.as_bytes().to_vec(),
        };
        let puts = vec![
            (Bytes::from(store_key::META), meta.encode_to_vec().into()),
            (
                Bytes::from(store_key::KEYRING),
                keyring.encode_to_vec().into(),
            ),
            under_master(store_key::RECORD_KEY, &|context| {
                record_key.wrap(&master_key, context)
            })?,
            under_master(store_key::AUDIT_KEY, &|context| {
                audit_key.wrap(&master_key, context)
            })?,
        ];
        let system = System {
            store_id,
            provider: root.name().to_owned(),
            master_keys: Ring::new(1, master_key),
            record_key,
            audit_key,
        };
        Ok((system, puts))
    }

    /// Opens the keyring with the root key, and the system's keys with the keyring.
    pub(crate) async fn open(
        store: &dyn Store,
        root: &dyn RootProvider,
    ) -> Result<System, KeystoreError> {
        let store_id = read_meta(store).await?;
        let keyring: KeyringRecord = read(store, store_key::KEYRING).await?;
        if keyring.provider != root.name() {
            return Err(KeystoreError::WrongProvider {
                expected: keyring.provider.escape_default().to_string(),
                given: root.name().to_owned(),
            });
        }
        let root_key = root.open(&RootParams::from_bytes(keyring.params))?;
        let master_keys = Ring::unwrap_all(&keyring.master_keys, |key| {
            let context = system_context(
                store_key::KEYRING,
                key.version,
                key.parent_version,
                key.created,
            );
            MasterKey::unwrap(&root_key, &context, &key.wrapped)
        })
        .ok_or_else(|| Damaged::new(store_key::KEYRING, "its versions are not in order"))?
        .map_err(|_| KeystoreError::WrongRoot)?;
        let record_key = under_master(
            store,
            &master_keys,
            store_key::RECORD_KEY,
            RecordKey::unwrap,
        )
        .await?;
        let audit_key = under_master(store, &master_keys, store_key::AUDIT_KEY, |parent, c, w| {
            AuditKey::unwrap(parent, c, w)
        })
        .await?;
        Ok(System {
            store_id,
            provider: keyring.provider,
            master_keys,
            record_key,
            audit_key,
        })
    }
}

async fn read_meta(store: &dyn Store) -> Result<StoreId, KeystoreError> {
    let Some(record) = store
        .get(store_key::META.as_bytes())
        .await
        .map_err(KeystoreError::Unavailable)?
    else {
        let any = store
            .scan(b"", None, 1)
            .await
            .map_err(KeystoreError::Unavailable)?;
        return Err(if any.is_empty() {
            KeystoreError::NotInitialised
        } else {
            Damaged::new(store_key::META, "it is missing").into()
        });
    };
    let damaged = |what| Damaged::new(store_key::META, what);
    let meta: MetaRecord =
        decode_strict(&record.value).ok_or_else(|| damaged("it does not parse"))?;
    if meta.format != FORMAT {
        return Err(KeystoreError::Format {
            found: meta.format,
            known: FORMAT,
        });
    }
    let id = <[u8; 16]>::try_from(meta.store_id.as_slice())
        .map_err(|_| damaged("its store id has another length"))?;
    Ok(StoreId::from_bytes(id))
}

async fn read<M: Message + Default>(
    store: &dyn Store,
    store_key: &'static str,
) -> Result<M, KeystoreError> {
    let record = store
        .get(store_key.as_bytes())
        .await
        .map_err(KeystoreError::Unavailable)?
        .ok_or_else(|| Damaged::new(store_key, "it is missing"))?;
    decode_strict(&record.value).ok_or_else(|| Damaged::new(store_key, "it does not parse").into())
}

/// Reads a key that a master key wraps.
async fn under_master<K, E>(
    store: &dyn Store,
    master_keys: &Ring<MasterKey>,
    store_key: &'static str,
    unwrap: impl FnOnce(&MasterKey, &WrapContext<'_>, &[u8]) -> Result<K, E>,
) -> Result<K, KeystoreError> {
    let record: WrappedKey = read(store, store_key).await?;
    let damaged = || Damaged::new(store_key, "it does not open under the master key").into();
    let parent = master_keys
        .version(record.parent_version)
        .ok_or_else(damaged)?;
    let context = system_context(
        store_key,
        record.version,
        record.parent_version,
        record.created,
    );
    unwrap(parent, &context, &record.wrapped).map_err(|_| damaged())
}

/// What the wraps of the system's own keys are bound to; their object id is the store key.
fn system_context(
    store_key: &str,
    version: u32,
    parent_version: u32,
    created: u64,
) -> WrapContext<'_> {
    WrapContext {
        suite: 0,
        tenant: "",
        object_id: store_key.as_bytes(),
        version,
        parent_version,
        created,
        store_id: None,
    }
}
