//! Tenants: each has a key-encryption key and a record key of its own.

use fieldkeep_crypto::{
    ciphertext::{Handle, Suite},
    error::{OpenError, SealError},
    keys::{Dek, Kek, RecordKey},
    names::Name,
    wrap::WrapContext,
};
use prost::Message;

use crate::{
    error::{Damaged, KeystoreError},
    info::TenantInfo,
    keyring::{Ring, System},
    records::{TenantRecord, VersionRecord, WrappedKey},
    sealed::{self, Sealed},
    store_key,
};

/// A tenant with its keys unwrapped.
pub(crate) struct Tenant {
    pub(crate) name: Name,
    pub(crate) record_key: RecordKey,
    keks: Ring<Kek>,
    created: u64,
}

impl Tenant {
    /// Makes a tenant's keys and its record, generation 1.
    pub(crate) fn make(
        system: &System,
        name: &Name,
        now: u64,
    ) -> Result<(Tenant, Sealed), KeystoreError> {
        let store_key = store_key::tenant(name.as_str());
        let (master_version, master_key) = system.master_keys.current();
        let kek = Kek::make()?;
        let record_key = RecordKey::make()?;
        let wrapped_kek = kek
            .wrap(
                master_key,
                &kek_context(system, name, &store_key, 1, master_version, now),
            )
            .map_err(KeystoreError::Wrap)?;
        let wrapped_record_key = record_key
            .wrap_for_tenant(&kek, &record_key_context(name, &store_key, 1, 1, now))
            .map_err(KeystoreError::Wrap)?;
        let record = TenantRecord {
            created: now,
            keks: vec![WrappedKey {
                version: 1,
                parent_version: master_version,
                created: now,
                wrapped: wrapped_kek,
            }],
            record_key: Some(WrappedKey {
                version: 1,
                parent_version: 1,
                created: now,
                wrapped: wrapped_record_key,
            }),
        };
        let sealed = sealed::seal(
            &system.record_key,
            &system.store_id,
            store_key,
            1,
            &record.encode_to_vec(),
        );
        let tenant = Tenant {
            name: name.clone(),
            record_key,
            keks: Ring::new(1, kek),
            created: now,
        };
        Ok((tenant, sealed))
    }

    /// Authenticates a tenant's record and unwraps its keys.
    pub(crate) fn open(system: &System, name: &Name, value: &[u8]) -> Result<Tenant, Damaged> {
        let store_key = store_key::tenant(name.as_str());
        let record = open_record(system, &store_key, value)?;
        let damaged = |what| Damaged::new(&store_key, what);
        let keks = Ring::unwrap_all(&record.keks, |key| {
            let parent = system
                .master_keys
                .version(key.parent_version)
                .ok_or(OpenError)?;
            let context = kek_context(
                system,
                name,
                &store_key,
                key.version,
                key.parent_version,
                key.created,
            );
            Kek::unwrap(parent, &context, &key.wrapped)
        })
        .ok_or_else(|| damaged("its versions are not in order"))?
        .map_err(|_| damaged("its key does not open under the master key"))?;
        let wrapped = record
            .record_key
            .ok_or_else(|| damaged("its record key is missing"))?;
        let context = record_key_context(
            name,
            &store_key,
            wrapped.version,
            wrapped.parent_version,
            wrapped.created,
        );
        let record_key = keks
            .version(wrapped.parent_version)
            .ok_or(OpenError)
            .and_then(|kek| RecordKey::unwrap_for_tenant(kek, &context, &wrapped.wrapped))
            .map_err(|_| damaged("its record key does not open"))?;
        Ok(Tenant {
            name: name.clone(),
            record_key,
            keks,
            created: record.created,
        })
    }

    pub(crate) fn info(&self) -> TenantInfo {
        TenantInfo {
            name: self.name.clone(),
            created: self.created,
            kek_version: self.keks.current().0,
        }
    }

    /// Wraps a DEK under the current KEK: the record of one version of a key, without the tenant's name.
    pub(crate) fn wrap_version(
        &self,
        dek: &Dek,
        key: &Name,
        handle: Handle,
        suite: Suite,
        number: u32,
        now: u64,
    ) -> Result<VersionRecord, SealError> {
        let (kek_version, kek) = self.keks.current();
        let context = self.dek_context(handle.as_bytes(), suite, number, kek_version, now);
        Ok(VersionRecord {
            key: key.as_str().to_owned(),
            created: now,
            suite: u32::from(suite.code()),
            kek_version,
            wrapped: dek.wrap(kek, &context)?,
        })
    }

    /// Unwraps the DEK of a version's record.
    pub(crate) fn unwrap_version(
        &self,
        record: &VersionRecord,
        handle: Handle,
        suite: Suite,
        number: u32,
    ) -> Result<Dek, OpenError> {
        let kek = self.keks.version(record.kek_version).ok_or(OpenError)?;
        let context = self.dek_context(
            handle.as_bytes(),
            suite,
            number,
            record.kek_version,
            record.created,
        );
        Dek::unwrap(kek, &context, &record.wrapped)
    }

    fn dek_context<'a>(
        &'a self,
        handle: &'a [u8; 8],
        suite: Suite,
        number: u32,
        kek_version: u32,
        created: u64,
    ) -> WrapContext<'a> {
        WrapContext {
            suite: suite.code(),
            tenant: self.name.as_str(),
            object_id: handle,
            version: number,
            parent_version: kek_version,
            created,
            store_id: None,
        }
    }
}

/// What a tenant's record says without unwrapping its keys.
pub(crate) fn info(system: &System, name: Name, value: &[u8]) -> Result<TenantInfo, Damaged> {
    let store_key = store_key::tenant(name.as_str());
    let record = open_record(system, &store_key, value)?;
    let kek = record
        .keks
        .last()
        .ok_or_else(|| Damaged::new(&store_key, "its key is missing"))?;
    Ok(TenantInfo {
        kek_version: kek.version,
        created: record.created,
        name,
    })
}

fn open_record(system: &System, store_key: &[u8], value: &[u8]) -> Result<TenantRecord, Damaged> {
    let record = sealed::open(&system.record_key, &system.store_id, store_key, value)?;
    TenantRecord::decode(record.payload).map_err(|_| Damaged::new(store_key, "it does not parse"))
}

fn kek_context<'a>(
    system: &'a System,
    name: &'a Name,
    store_key: &'a [u8],
    version: u32,
    parent_version: u32,
    created: u64,
) -> WrapContext<'a> {
    WrapContext {
        suite: 0,
        tenant: name.as_str(),
        object_id: store_key,
        version,
        parent_version,
        created,
        store_id: Some(&system.store_id),
    }
}

fn record_key_context<'a>(
    name: &'a Name,
    store_key: &'a [u8],
    version: u32,
    parent_version: u32,
    created: u64,
) -> WrapContext<'a> {
    WrapContext {
        suite: 0,
        tenant: name.as_str(),
        object_id: store_key,
        version,
        parent_version,
        created,
        store_id: None,
    }
}
