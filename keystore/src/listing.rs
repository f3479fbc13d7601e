//! Pages of tenants and keys, and the versions of a key. All of it reads the store, never the cache.

use bytes::Bytes;
use fieldkeep_crypto::names::Name;

use crate::{
    error::{Damaged, KeystoreError},
    info::{KeyInfo, TenantInfo, VersionInfo, VersionUsage},
    keystore::MAX_PAGE,
    lifecycle::describe,
    reader::Reader,
    rotation::plan::Used,
    state::KeyState,
    store_key,
    tenants::{self, Tenant},
};

/// The most versions that are described.
const MAX_VERSIONS: u32 = 1000;

/// Up to `limit` tenants by name.
pub(crate) async fn tenants(
    reader: &Reader,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<TenantInfo>, KeystoreError> {
    page(reader, store_key::TENANTS, after, limit)
        .await?
        .into_iter()
        .map(|(name, value)| Ok(tenants::info(&reader.system, name, &value)?))
        .collect()
}

/// Up to `limit` keys of a tenant by name, without their versions.
pub(crate) async fn keys(
    reader: &Reader,
    tenant: &Tenant,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<KeyInfo>, KeystoreError> {
    page(
        reader,
        &store_key::keys_of(tenant.name.as_str()),
        after,
        limit,
    )
    .await?
    .into_iter()
    .map(|(name, value)| {
        let store_key = store_key::key(tenant.name.as_str(), name.as_str());
        let (state, _) = reader.open_key_record(tenant, &store_key, &value)?;
        Ok(describe(&tenant.name, &name, &state))
    })
    .collect()
}

/// The newest 1,000 versions of a key, newest first.
pub(crate) async fn versions(
    reader: &Reader,
    tenant: &Tenant,
    state: &KeyState,
) -> Result<Vec<VersionInfo>, KeystoreError> {
    let first = state.primary.saturating_sub(MAX_VERSIONS - 1).max(1);
    let after = store_key::version(state.handle, first - 1);
    let prefix = store_key::versions_of(state.handle);
    let page = reader
        .store
        .scan(prefix.as_bytes(), Some(&after), MAX_VERSIONS as usize)
        .await
        .map_err(KeystoreError::Unavailable)?;
    let mut versions = Vec::new();
    // Versions that came after the key's record was read are left out.
    for (number, (store_key, record)) in (first..=state.primary).zip(&page) {
        if *store_key != store_key::version(state.handle, number) {
            break;
        }
        let version = reader.open_version_record(tenant, store_key, &record.value)?;
        versions.push(VersionInfo {
            number,
            enabled: !state.is_disabled(number),
            created: version.created,
            primary: number == state.primary,
        });
    }
    let newest = versions.last().map_or(first - 1, |version| version.number);
    if newest < state.primary {
        let missing = store_key::version(state.handle, newest + 1);
        return Err(Damaged::new(missing, "it is missing").into());
    }
    versions.reverse();
    Ok(versions)
}

/// The use of the newest 1,000 versions of a key, newest first, without those that encrypted nothing.
pub(crate) async fn usage(
    reader: &Reader,
    tenant: &Tenant,
    state: &KeyState,
) -> Result<Vec<VersionUsage>, KeystoreError> {
    let first = state.primary.saturating_sub(MAX_VERSIONS - 1).max(1);
    let after = store_key::usage(state.handle, first - 1);
    let prefix = store_key::usage_of(state.handle);
    let page = reader
        .store
        .scan(prefix.as_bytes(), Some(&after), MAX_VERSIONS as usize)
        .await
        .map_err(KeystoreError::Unavailable)?;
    let mut usage = Vec::with_capacity(page.len());
    for (store_key, record) in page.iter().rev() {
        let number = str::from_utf8(store_key)
            .ok()
            .and_then(|key| key.strip_prefix(&prefix))
            .and_then(|number| u32::from_str_radix(number, 16).ok())
            .ok_or_else(|| Damaged::new(store_key, "its name is not a version"))?;
        let used = match reader.meters.find((state.handle, number)) {
            Some(meter) => meter.used(reader).await?,
            None => reader.open_usage(tenant, store_key, &record.value)?.0,
        };
        if used != Used::default() {
            usage.push(VersionUsage { number, used });
        }
    }
    Ok(usage)
}

/// One page of records under `prefix`, by what follows it in their keys.
async fn page(
    reader: &Reader,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<(Name, Bytes)>, KeystoreError> {
    let after = after.map(|after| format!("{prefix}{after}"));
    let page = reader
        .store
        .scan(
            prefix.as_bytes(),
            after.as_deref().map(str::as_bytes),
            limit.min(MAX_PAGE),
        )
        .await
        .map_err(KeystoreError::Unavailable)?;
    page.into_iter()
        .map(|(store_key, record)| {
            let name = str::from_utf8(&store_key)
                .ok()
                .and_then(|key| key.strip_prefix(prefix))
                .and_then(|name| Name::parse(name).ok())
                .ok_or_else(|| Damaged::new(&store_key, "its name is not a name"))?;
            Ok((name, record.value))
        })
        .collect()
}
