//! The double's KeyService, TenantService and SystemService.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use fieldkeep_crypto::{ciphertext::Suite, names::Name};
use fieldkeep_keystore::{
    info::{AuditItems, KeyInfo, KeySettings, TenantInfo},
    keystore::{DEFAULT_TENANT, MAX_PAGE},
};
use fieldkeep_proto::v1;
use prost_types::Timestamp;
use tonic::{Request, Response, Status};

use super::{
    memory::{Memory, now, operation},
    refusal::Refusal,
    rotation,
};

/// `{key}` in the tenant `default`, or `tenants/{tenant}/keys/{key}`.
pub(super) struct KeyName {
    pub(super) tenant: Name,
    pub(super) key: Name,
}

impl KeyName {
    pub(super) fn parse(part: &str, text: &str) -> Result<Self, Refusal> {
        let (tenant, key) = match text.strip_prefix("tenants/") {
            None => (DEFAULT_TENANT, text),
            Some(full) => full.split_once("/keys/").ok_or_else(|| {
                Refusal::invalid(part, "a key is `{key}` or `tenants/{tenant}/keys/{key}`")
            })?,
        };
        Ok(Self {
            tenant: name(part, tenant)?,
            key: name(part, key)?,
        })
    }

    /// A key's name with `/versions/{version}` behind it.
    fn parse_version(text: &str) -> Result<(Self, u32), Refusal> {
        let split = text.rsplit_once("/versions/");
        let version = split.and_then(|(key, version)| Some((key, version.parse().ok()?)));
        let (key, version) = version
            .ok_or_else(|| Refusal::invalid("name", "a version is `{key}/versions/{version}`"))?;
        Ok((Self::parse("name", key)?, version))
    }
}

fn name(part: &str, text: &str) -> Result<Name, Refusal> {
    Name::parse(text).map_err(|error| Refusal::invalid(part, error))
}

fn tenant_name(part: &str, text: &str) -> Result<Name, Refusal> {
    name(part, text.strip_prefix("tenants/").unwrap_or(text))
}

pub(super) fn timestamp(seconds: u64) -> Option<Timestamp> {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    Some(time.into())
}

fn key(info: KeyInfo) -> Response<v1::Key> {
    Response::new(describe(info))
}

fn describe(info: KeyInfo) -> v1::Key {
    let state = match info.enabled {
        true => v1::KeyState::Enabled,
        false => v1::KeyState::Disabled,
    };
    let versions = info.versions.into_iter().map(|version| {
        let state = match version.enabled {
            true => v1::KeyVersionState::Enabled,
            false => v1::KeyVersionState::Disabled,
        };
        v1::KeyVersion {
            version: version.number,
            state: state.into(),
            create_time: timestamp(version.created),
            primary: version.primary,
        }
    });
    v1::Key {
        name: format!("tenants/{}/keys/{}", info.tenant, info.name),
        handle: Bytes::copy_from_slice(info.handle.as_bytes()),
        suite: v1::Suite::KcXaes256Gcm.into(),
        state: state.into(),
        primary_version: info.primary,
        create_time: timestamp(info.created),
        rotate_time: timestamp(info.rotated),
        versions: versions.collect(),
        rotation: info.rotation.as_deref().map(rotation::describe),
        next_rotation: info.next.map(rotation::next),
        audit_items: match info.audit_items {
            AuditItems::Counts => v1::AuditItems::Counts,
            AuditItems::Hashes => v1::AuditItems::Hashes,
        }
        .into(),
    }
}

/// What the trail of a service would have of items. The double has no trail.
fn audit_items(value: i32) -> Result<AuditItems, Refusal> {
    match v1::AuditItems::try_from(value) {
        Ok(v1::AuditItems::Unspecified | v1::AuditItems::Counts) => Ok(AuditItems::Counts),
        Ok(v1::AuditItems::Hashes) => Ok(AuditItems::Hashes),
        Err(error) => Err(Refusal::invalid("audit_items", error)),
    }
}

fn tenant(info: TenantInfo) -> v1::Tenant {
    v1::Tenant {
        name: format!("tenants/{}", info.name),
        create_time: timestamp(info.created),
        kek_version: info.kek_version,
    }
}

/// Where a page begins, and how long it is; a token is the last name of the page before.
fn page(size: u32, token: &str) -> (Option<&str>, usize) {
    let limit = match size {
        0 => 100,
        size => (size as usize).min(MAX_PAGE),
    };
    (Some(token).filter(|token| !token.is_empty()), limit)
}

/// The token of the page after this one; fewer entries than asked for mean that it is the last.
fn next_token<T>(entries: &[T], limit: usize, name: impl Fn(&T) -> &Name) -> String {
    let last = entries.last().filter(|_| entries.len() >= limit);
    last.map_or(String::new(), |last| name(last).to_string())
}

impl Memory {
    async fn set_enabled(
        &self,
        text: &str,
        enabled: bool,
        request_id: &str,
    ) -> Result<Response<v1::Key>, Status> {
        let name = KeyName::parse("name", text)?;
        let operation = operation(request_id)?;
        let changed = self
            .keystore
            .set_key_enabled(&name.tenant, &name.key, enabled, operation, now())
            .await
            .map_err(Refusal::from)?;
        Ok(key(changed.value))
    }

    async fn set_version_enabled(
        &self,
        text: &str,
        enabled: bool,
        request_id: &str,
    ) -> Result<Response<v1::Key>, Status> {
        let (name, version) = KeyName::parse_version(text)?;
        let operation = operation(request_id)?;
        let changed = self
            .keystore
            .set_version_enabled(&name.tenant, &name.key, version, enabled, operation, now())
            .await
            .map_err(Refusal::from)?;
        Ok(key(changed.value))
    }
}

#[tonic::async_trait]
impl v1::key_service_server::KeyService for Memory {
    async fn create_key(
        &self,
        request: Request<v1::CreateKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let request = request.into_inner();
        let name = KeyName::parse("name", &request.name)?;
        let settings = KeySettings {
            suite: Suite::KcXaes256Gcm,
            rotation: rotation::policy(request.rotation)?.map(Arc::new),
            audit_items: audit_items(request.audit_items)?,
        };
        let operation = operation(&request.request_id)?;
        let changed = self
            .keystore
            .create_key(&name.tenant, &name.key, settings, operation, now())
            .await
            .map_err(Refusal::from)?;
        Ok(key(changed.value))
    }

    async fn get_key(
        &self,
        request: Request<v1::GetKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let name = KeyName::parse("name", &request.get_ref().name)?;
        let info = self
            .keystore
            .describe_key(&name.tenant, &name.key, now())
            .await
            .map_err(Refusal::from)?;
        Ok(key(info))
    }

    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        let request = request.into_inner();
        let parent = match request.parent.as_str() {
            "" => DEFAULT_TENANT,
            parent => parent,
        };
        let tenant = tenant_name("parent", parent)?;
        let (after, limit) = page(request.page_size, &request.page_token);
        let infos = self
            .keystore
            .list_keys(&tenant, after, limit)
            .await
            .map_err(Refusal::from)?;
        Ok(Response::new(v1::ListKeysResponse {
            next_page_token: next_token(&infos, limit, |info| &info.name),
            keys: infos.into_iter().map(describe).collect(),
        }))
    }

    async fn rotate_key(
        &self,
        request: Request<v1::RotateKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let request = request.into_inner();
        let name = KeyName::parse("name", &request.name)?;
        let operation = operation(&request.request_id)?;
        let changed = self
            .keystore
            .rotate_key(&name.tenant, &name.key, operation, now())
            .await
            .map_err(Refusal::from)?;
        Ok(key(changed.value))
    }

    async fn enable_key(
        &self,
        request: Request<v1::EnableKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let request = request.into_inner();
        self.set_enabled(&request.name, true, &request.request_id)
            .await
    }

    async fn disable_key(
        &self,
        request: Request<v1::DisableKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let request = request.into_inner();
        self.set_enabled(&request.name, false, &request.request_id)
            .await
    }

    async fn enable_key_version(
        &self,
        request: Request<v1::EnableKeyVersionRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let request = request.into_inner();
        self.set_version_enabled(&request.name, true, &request.request_id)
            .await
    }

    async fn disable_key_version(
        &self,
        request: Request<v1::DisableKeyVersionRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let request = request.into_inner();
        self.set_version_enabled(&request.name, false, &request.request_id)
            .await
    }

    async fn set_key_rotation(
        &self,
        request: Request<v1::SetKeyRotationRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let request = request.into_inner();
        let name = KeyName::parse("name", &request.name)?;
        let rotation = rotation::policy(request.rotation)?;
        let operation = operation(&request.request_id)?;
        let changed = self
            .keystore
            .set_rotation(&name.tenant, &name.key, rotation, operation, now())
            .await
            .map_err(Refusal::from)?;
        Ok(key(changed.value))
    }

    async fn set_key_audit_items(
        &self,
        request: Request<v1::SetKeyAuditItemsRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let request = request.into_inner();
        let name = KeyName::parse("name", &request.name)?;
        let items = audit_items(request.audit_items)?;
        let operation = operation(&request.request_id)?;
        let changed = self
            .keystore
            .set_audit_items(&name.tenant, &name.key, items, operation, now())
            .await
            .map_err(Refusal::from)?;
        Ok(key(changed.value))
    }

    async fn get_key_usage(
        &self,
        request: Request<v1::GetKeyUsageRequest>,
    ) -> Result<Response<v1::KeyUsage>, Status> {
        let name = KeyName::parse("name", &request.get_ref().name)?;
        let used = self
            .keystore
            .usage(&name.tenant, &name.key)
            .await
            .map_err(Refusal::from)?;
        let versions = used.into_iter().map(|version| v1::KeyVersionUsage {
            version: version.number,
            messages: version.used.messages,
            bytes: version.used.bytes,
        });
        Ok(Response::new(v1::KeyUsage {
            name: format!("tenants/{}/keys/{}", name.tenant, name.key),
            versions: versions.collect(),
        }))
    }
}

#[tonic::async_trait]
impl v1::tenant_service_server::TenantService for Memory {
    async fn create_tenant(
        &self,
        request: Request<v1::CreateTenantRequest>,
    ) -> Result<Response<v1::Tenant>, Status> {
        let request = request.into_inner();
        let name = tenant_name("name", &request.name)?;
        let operation = operation(&request.request_id)?;
        let changed = self
            .keystore
            .create_tenant(&name, operation, now())
            .await
            .map_err(Refusal::from)?;
        Ok(Response::new(tenant(changed.value)))
    }

    async fn list_tenants(
        &self,
        request: Request<v1::ListTenantsRequest>,
    ) -> Result<Response<v1::ListTenantsResponse>, Status> {
        let request = request.into_inner();
        let (after, limit) = page(request.page_size, &request.page_token);
        let infos = self
            .keystore
            .list_tenants(after, limit)
            .await
            .map_err(Refusal::from)?;
        Ok(Response::new(v1::ListTenantsResponse {
            next_page_token: next_token(&infos, limit, |info| &info.name),
            tenants: infos.into_iter().map(tenant).collect(),
        }))
    }
}

#[tonic::async_trait]
impl v1::system_service_server::SystemService for Memory {
    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(v1::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store: "memory".to_owned(),
            store_id: Bytes::copy_from_slice(self.keystore.store_id().as_bytes()),
            root_provider: self.keystore.root_provider().to_owned(),
            cached_keys: self.keystore.cache_stats().keys,
            ..Default::default()
        }))
    }
}
