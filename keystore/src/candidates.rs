//! The keys that have a rotation policy, for the job that rotates them. Reads the store, never the key cache.

use std::sync::Arc;

use fieldkeep_crypto::names::Name;

use crate::{
    error::{Damaged, KeystoreError, ReadError},
    info::{CandidatePage, KeyCursor},
    keystore::MAX_PAGE,
    reader::Reader,
    rotation::{
        plan::{Candidate, Replaced, Used},
        policy::RotationPolicy,
    },
    state::KeyState,
    store_key,
    tenants::Tenant,
};

/// Looks at up to `limit` keys of all tenants, and takes those with a policy.
pub(crate) async fn page(
    reader: &Reader,
    after: Option<&KeyCursor>,
    limit: usize,
) -> Result<CandidatePage, KeystoreError> {
    let limit = limit.clamp(1, MAX_PAGE);
    let after = after.map(|cursor| &*cursor.0);
    let records = reader
        .store
        .scan(store_key::KEYS.as_bytes(), after, limit)
        .await
        .map_err(KeystoreError::Unavailable)?;
    let last = records.last().map(|(key, _)| KeyCursor(key.clone()));
    let mut page = CandidatePage {
        candidates: Vec::new(),
        damaged: Vec::new(),
        next: last.filter(|_| records.len() == limit),
    };
    for (store_key, record) in records {
        match of_record(reader, &store_key, &record.value).await {
            Ok(candidate) => page.candidates.extend(candidate),
            Err(ReadError::Damaged(damaged)) => page.damaged.push(damaged),
            Err(ReadError::Unavailable(error)) => return Err(KeystoreError::Unavailable(error)),
        }
    }
    Ok(page)
}

async fn of_record(
    reader: &Reader,
    store_key: &[u8],
    value: &[u8],
) -> Result<Option<Candidate>, ReadError> {
    let damaged = |what| Damaged::new(store_key, what);
    let (tenant, name) =
        store_key::key_names(store_key).ok_or_else(|| damaged("its name is not a name"))?;
    let tenant = reader
        .tenant(tenant.as_str())
        .await?
        .ok_or_else(|| damaged("its tenant does not exist"))?;
    let (state, _) = reader.open_key_record(&tenant, store_key, value)?;
    of_state(reader, &tenant, &name, &state).await
}

/// A key as the planner sees it; `None` without a policy.
pub(crate) async fn of_state(
    reader: &Reader,
    tenant: &Tenant,
    name: &Name,
    state: &KeyState,
) -> Result<Option<Candidate>, ReadError> {
    let Some(policy) = &state.rotation else {
        return Ok(None);
    };
    Ok(Some(Candidate {
        tenant: tenant.name.clone(),
        name: name.clone(),
        handle: state.handle,
        primary: state.primary,
        rotated: state.rotated,
        enabled: state.enabled,
        policy: Arc::clone(policy),
        used: used(reader, tenant, state, policy).await?,
        oldest: oldest(reader, tenant, state, policy).await?,
    }))
}

async fn used(
    reader: &Reader,
    tenant: &Tenant,
    state: &KeyState,
    policy: &RotationPolicy,
) -> Result<Used, ReadError> {
    let parts = policy.parts();
    if parts.max_messages == 0 && parts.max_bytes == 0 {
        return Ok(Used::default());
    }
    reader.used(tenant, state.handle, state.primary).await
}

/// The oldest version that was not retired by schedule, if the policy retires any.
async fn oldest(
    reader: &Reader,
    tenant: &Tenant,
    state: &KeyState,
    policy: &RotationPolicy,
) -> Result<Option<Replaced>, ReadError> {
    let version = state.retired_through.saturating_add(1);
    if policy.parts().retire_after.is_none() || version >= state.primary {
        return Ok(None);
    }
    let successor = version + 1;
    let since = if successor == state.primary {
        state.rotated
    } else {
        let store_key = store_key::version(state.handle, successor);
        let record = reader
            .store
            .get(&store_key)
            .await?
            .ok_or_else(|| Damaged::new(&store_key, "it is missing"))?;
        let created = reader
            .open_version_record(tenant, &store_key, &record.value)?
            .created;
        // A successor cannot be younger than the primary version; if it says so, a clock was wrong when it was made.
        created.min(state.rotated)
    };
    Ok(Some(Replaced { version, since }))
}
