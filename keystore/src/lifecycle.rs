//! Making tenants and keys, and changing keys: read, compute the next state, commit, publish.

use std::sync::Arc;

use bytes::Bytes;
use fieldkeep_crypto::{keys::Dek, names::Name};
use prost::Message;

use crate::{
    cache::KeyCache,
    error::{Damaged, KeystoreError},
    info::{AuditItems, Changed, KeyInfo, KeySettings, TenantInfo},
    key_source::KeySource,
    mutation::{Draft, MAX_ATTEMPTS, Outcome, committed_before},
    reader::{Reader, StoredKey},
    records::join_tenant,
    rotation::policy::RotationPolicy,
    sealed::{self, Sealed},
    state::KeyState,
    store::{CommitError, Operation},
    store_key,
    tenants::Tenant,
};

/// Everything that a change needs.
pub(crate) struct Lifecycle {
    pub(crate) reader: Arc<Reader>,
    pub(crate) cache: KeyCache,
    pub(crate) source: KeySource,
}

/// What is to become of a key.
#[derive(Clone, Debug)]
pub(crate) enum KeyChange {
    Rotate,
    RotateFrom(u32),
    Retire(u32),
    SetRotation(Option<Arc<RotationPolicy>>),
    SetAuditItems(AuditItems),
    SetEnabled(bool),
    SetVersionEnabled(u32, bool),
}

impl KeyChange {
    /// The state after the change.
    pub(crate) fn apply(&self, state: &KeyState, now: u64) -> Result<KeyState, KeystoreError> {
        match self {
            KeyChange::Rotate => state.rotate(now),
            KeyChange::RotateFrom(from) => state.rotate_from(*from, now),
            KeyChange::Retire(through) => state.retire(*through),
            KeyChange::SetRotation(rotation) => Ok(state.set_rotation(rotation.clone())),
            KeyChange::SetAuditItems(items) => Ok(state.set_audit_items(*items)),
            KeyChange::SetEnabled(enabled) => Ok(state.set_enabled(*enabled)),
            KeyChange::SetVersionEnabled(version, enabled) => {
                state.set_version_enabled(*version, *enabled)
            }
        }
    }
}

impl Lifecycle {
    pub(crate) async fn create_tenant(
        &self,
        name: &Name,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<TenantInfo>, KeystoreError> {
        let (tenant, sealed) = Tenant::make(&self.reader.system, name, now)?;
        let mut draft = Draft::new(operation, now);
        draft.put(None, sealed);
        match draft.commit(&*self.reader.store).await? {
            Outcome::Done { revision, changes } => {
                Ok(Changed::done(tenant.info(), revision, changes))
            }
            Outcome::Repeated { revision } => {
                let tenant = self.tenant(name).await?;
                Ok(Changed::repeated(tenant.info(), revision))
            }
            Outcome::Conflict { .. } => Err(KeystoreError::TenantExists(name.to_string())),
        }
    }

    pub(crate) async fn create_key(
        &self,
        tenant: &Name,
        name: &Name,
        settings: KeySettings,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<KeyInfo>, KeystoreError> {
        let tenant = self.tenant(tenant).await?;
        let mut conflict = Bytes::new();
        for _ in 0..MAX_ATTEMPTS {
            let handle = self.source.handle(&tenant.name, name)?;
            let state = KeyState::new(handle, settings.clone(), now);
            let (_, version) = self.make_version(&tenant, name, &state, now)?;
            let record = self.seal_state(&tenant, name, &state, 1);
            let mut draft = Draft::new(operation, now);
            let key = record.store_key.clone();
            draft.put(None, record);
            draft.put(None, version);
            match draft.commit(&*self.reader.store).await? {
                Outcome::Done { revision, changes } => {
                    let info = describe(&tenant.name, name, &state);
                    return Ok(Changed::done(info, revision, changes));
                }
                Outcome::Repeated { revision } => {
                    let stored = self.stored(&tenant, name).await?;
                    let info = describe(&tenant.name, name, &stored.state);
                    return Ok(Changed::repeated(info, revision));
                }
                Outcome::Conflict { key: found } if found == key => {
                    return Err(KeystoreError::KeyExists {
                        tenant: tenant.name.to_string(),
                        key: name.to_string(),
                    });
                }
                // The handle is taken: draw another.
                Outcome::Conflict { key: found } => conflict = found,
            }
        }
        Err(CommitError::Conflict { key: conflict }.into())
    }

    pub(crate) async fn change_key(
        &self,
        tenant: &Name,
        name: &Name,
        change: KeyChange,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<KeyInfo>, KeystoreError> {
        let store = &*self.reader.store;
        let tenant = self.tenant(tenant).await?;
        let info = |state: &KeyState| describe(&tenant.name, name, state);
        let mut conflict: Option<(Bytes, u64)> = None;
        for _ in 0..MAX_ATTEMPTS {
            let stored = self.stored(&tenant, name).await?;
            self.check_conflict(&tenant, name, &stored, conflict.as_ref())?;
            let state = match change.apply(&stored.state, now) {
                Ok(state) => state,
                Err(refusal) => {
                    return match committed_before(store, operation, now).await? {
                        Some(revision) => {
                            // Its first run may have ended before it published.
                            self.cache.forget(stored.state.handle);
                            Ok(Changed::repeated(info(&stored.state), revision))
                        }
                        None => Err(refusal),
                    };
                }
            };
            let generation = stored.generation.saturating_add(1);
            let mut draft = Draft::new(operation, now);
            draft.put(
                Some(stored.revision),
                self.seal_state(&tenant, name, &state, generation),
            );
            let mut made = None;
            if state.primary != stored.state.primary {
                let (dek, version) = self.make_version(&tenant, name, &state, now)?;
                draft.put(None, version);
                made = Some(dek);
            }
            match draft.commit(store).await {
                Ok(Outcome::Done { revision, changes }) => {
                    self.cache.publish(&state, generation, made);
                    return Ok(Changed::done(info(&state), revision, changes));
                }
                Ok(Outcome::Repeated { revision }) => {
                    // Its first run may have ended before it published.
                    self.cache.forget(state.handle);
                    let stored = self.stored(&tenant, name).await?;
                    return Ok(Changed::repeated(info(&stored.state), revision));
                }
                Ok(Outcome::Conflict { key }) => conflict = Some((key, stored.revision)),
                Err(error) => {
                    // It may have been committed all the same.
                    self.cache.forget(state.handle);
                    return Err(error.into());
                }
            }
        }
        let (key, _) = conflict.unwrap_or_default();
        Err(CommitError::Conflict { key }.into())
    }

    /// A conflict is the effect of a concurrent change, so the key's record has changed. If it has not, the next
    /// version's record was there before the key's record knew of it, and numbers are never used twice.
    fn check_conflict(
        &self,
        tenant: &Tenant,
        name: &Name,
        stored: &StoredKey,
        conflict: Option<&(Bytes, u64)>,
    ) -> Result<(), Damaged> {
        match conflict {
            Some((_, revision)) if *revision == stored.revision => Err(Damaged::new(
                store_key::key(tenant.name.as_str(), name.as_str()),
                "a version exists that it does not know, so it was rolled back",
            )),
            _ => Ok(()),
        }
    }

    pub(crate) async fn tenant(&self, name: &Name) -> Result<Arc<Tenant>, KeystoreError> {
        self.reader
            .tenant(name.as_str())
            .await?
            .ok_or_else(|| KeystoreError::TenantNotFound(name.to_string()))
    }

    pub(crate) async fn stored(
        &self,
        tenant: &Tenant,
        name: &Name,
    ) -> Result<StoredKey, KeystoreError> {
        self.reader
            .key_record(tenant, name.as_str())
            .await?
            .ok_or_else(|| KeystoreError::KeyNotFound {
                tenant: tenant.name.to_string(),
                key: name.to_string(),
            })
    }

    fn seal_state(
        &self,
        tenant: &Tenant,
        name: &Name,
        state: &KeyState,
        generation: u64,
    ) -> Sealed {
        sealed::seal(
            &tenant.record_key,
            &self.reader.system.store_id,
            store_key::key(tenant.name.as_str(), name.as_str()),
            generation,
            &state.to_record().encode_to_vec(),
        )
    }

    /// Makes the primary version of a state, and its record.
    fn make_version(
        &self,
        tenant: &Tenant,
        name: &Name,
        state: &KeyState,
        now: u64,
    ) -> Result<(Dek, Sealed), KeystoreError> {
        let dek = self.source.dek(&tenant.name, name, state.primary)?;
        let record = tenant
            .wrap_version(&dek, name, state.handle, state.suite, state.primary, now)
            .map_err(KeystoreError::Wrap)?;
        let sealed = sealed::seal(
            &tenant.record_key,
            &self.reader.system.store_id,
            store_key::version(state.handle, state.primary),
            1,
            &join_tenant(&tenant.name, &record),
        );
        Ok((dek, sealed))
    }
}

/// What is told about a key, without its versions.
pub(crate) fn describe(tenant: &Name, name: &Name, state: &KeyState) -> KeyInfo {
    KeyInfo {
        tenant: tenant.clone(),
        name: name.clone(),
        handle: state.handle,
        suite: state.suite,
        enabled: state.enabled,
        primary: state.primary,
        created: state.created,
        rotated: state.rotated,
        versions: Vec::new(),
        rotation: state.rotation.clone(),
        next: None,
        audit_items: state.audit_items,
    }
}
