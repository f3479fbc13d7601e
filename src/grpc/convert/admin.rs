//! The messages of administration.

use std::sync::Arc;

use bytes::Bytes;
use fieldkeep_crypto::ciphertext::Suite as DomainSuite;
use fieldkeep_keystore::info::{
    AuditItems as DomainAuditItems, KeyInfo, KeySettings, TenantInfo, VersionInfo,
};
use fieldkeep_proto::v1::{
    AuditItems, CreateKeyRequest, CreateTenantRequest, GetKeyRequest, GetStatusResponse, Key,
    KeyState, KeyVersion, KeyVersionState, ListKeysRequest, ListKeysResponse, ListTenantsRequest,
    ListTenantsResponse, RotateKeyRequest, SetKeyAuditItemsRequest, Suite, Tenant,
};
use prost::Message;
use prost_types::Timestamp;

use super::{key_name, page, parent, rotation, tenant_name, token};
use crate::service::failure::Failure;
use crate::service::items::SetAuditItems;
use crate::service::keys::{
    ChangeState, CreateKey, CreateTenant, DescribeKey, ListKeys, ListTenants, Listed, RotateKey,
};
use crate::service::operation::Repeatable;
use crate::service::resource::{KeyName, key_resource, tenant_resource};
use crate::service::system::Status;
use crate::version::VERSION;

/// What a CreateTenant asks for.
///
/// # Errors
/// The part that is not valid; so for every request of this module.
pub fn create_tenant(request: CreateTenantRequest) -> Result<CreateTenant, Failure> {
    Ok(CreateTenant {
        tenant: tenant_name("name", &request.name)?,
        request: repeatable(&request.request_id, &request)?,
    })
}

/// What a ListTenants asks for.
///
/// # Errors
/// As [`create_tenant`].
pub fn list_tenants(request: ListTenantsRequest) -> Result<ListTenants, Failure> {
    Ok(ListTenants {
        page: page(request.page_size, &request.page_token)?,
    })
}

/// A tenant.
#[must_use]
pub fn tenant(info: TenantInfo) -> Tenant {
    Tenant {
        name: tenant_resource(info.name.as_str()),
        create_time: timestamp(info.created),
        kek_version: info.kek_version,
    }
}

/// A page of tenants.
#[must_use]
pub fn tenants(listed: Listed<TenantInfo>) -> ListTenantsResponse {
    ListTenantsResponse {
        tenants: listed.entries.into_iter().map(tenant).collect(),
        next_page_token: token(listed.next),
    }
}

/// What a CreateKey asks for.
///
/// # Errors
/// As [`create_tenant`].
pub fn create_key(request: CreateKeyRequest) -> Result<CreateKey, Failure> {
    let suite = match Suite::try_from(request.suite) {
        Ok(Suite::Unspecified | Suite::KcXaes256Gcm) => DomainSuite::KcXaes256Gcm,
        Err(_) => {
            return Err(Failure::invalid(
                "suite",
                "this server does not know the suite",
            ));
        }
    };
    let repeatable = repeatable(&request.request_id, &request)?;
    Ok(CreateKey {
        key: key_name("name", request.name)?,
        settings: KeySettings {
            suite,
            rotation: rotation::policy(request.rotation)?.map(Arc::new),
            audit_items: audit_items(request.audit_items)?,
        },
        request: repeatable,
    })
}

/// What a SetKeyAuditItems asks for.
///
/// # Errors
/// As [`create_tenant`].
pub fn set_audit_items(request: SetKeyAuditItemsRequest) -> Result<SetAuditItems, Failure> {
    let repeatable = repeatable(&request.request_id, &request)?;
    Ok(SetAuditItems {
        key: key_name("name", request.name)?,
        items: audit_items(request.audit_items)?,
        request: repeatable,
    })
}

fn audit_items(value: i32) -> Result<DomainAuditItems, Failure> {
    match AuditItems::try_from(value) {
        Ok(AuditItems::Unspecified | AuditItems::Counts) => Ok(DomainAuditItems::Counts),
        Ok(AuditItems::Hashes) => Ok(DomainAuditItems::Hashes),
        Err(_) => Err(Failure::invalid(
            "audit_items",
            "this server knows counts and hashes alone",
        )),
    }
}

/// What a GetKey asks for.
///
/// # Errors
/// As [`create_tenant`].
pub fn describe_key(request: GetKeyRequest) -> Result<DescribeKey, Failure> {
    Ok(DescribeKey {
        key: key_name("name", request.name)?,
    })
}

/// What a ListKeys asks for.
///
/// # Errors
/// As [`create_tenant`].
pub fn list_keys(request: ListKeysRequest) -> Result<ListKeys, Failure> {
    Ok(ListKeys {
        tenant: parent(&request.parent)?,
        page: page(request.page_size, &request.page_token)?,
    })
}

/// What a RotateKey asks for.
///
/// # Errors
/// As [`create_tenant`].
pub fn rotate_key(request: RotateKeyRequest) -> Result<RotateKey, Failure> {
    let repeatable = repeatable(&request.request_id, &request)?;
    Ok(RotateKey {
        key: key_name("name", request.name)?,
        request: repeatable,
    })
}

/// What an EnableKey or a DisableKey asks for; both messages have the same two fields.
///
/// # Errors
/// As [`create_tenant`].
pub fn key_state(
    name: String,
    request_id: &str,
    message: &impl Message,
    enabled: bool,
) -> Result<ChangeState, Failure> {
    let request = repeatable(request_id, message)?;
    Ok(ChangeState {
        key: key_name("name", name)?,
        version: None,
        enabled,
        request,
    })
}

/// What an EnableKeyVersion or a DisableKeyVersion asks for.
///
/// # Errors
/// As [`create_tenant`].
pub fn version_state(
    name: &str,
    request_id: &str,
    message: &impl Message,
    enabled: bool,
) -> Result<ChangeState, Failure> {
    let request = repeatable(request_id, message)?;
    let (key, version) = KeyName::parse_version(name)
        .map_err(|error| Failure::invalid("name", error.to_string()))?;
    Ok(ChangeState {
        key,
        version: Some(version),
        enabled,
        request,
    })
}

/// A key.
#[must_use]
pub fn key(info: KeyInfo) -> Key {
    let state = if info.enabled {
        KeyState::Enabled
    } else {
        KeyState::Disabled
    };
    let audit_items = match info.audit_items {
        DomainAuditItems::Counts => AuditItems::Counts,
        DomainAuditItems::Hashes => AuditItems::Hashes,
    };
    Key {
        name: key_resource(info.tenant.as_str(), info.name.as_str()),
        handle: Bytes::copy_from_slice(info.handle.as_bytes()),
        suite: suite(info.suite).into(),
        state: state.into(),
        primary_version: info.primary,
        create_time: timestamp(info.created),
        rotate_time: timestamp(info.rotated),
        versions: info.versions.into_iter().map(version).collect(),
        rotation: info.rotation.as_deref().map(rotation::rotation),
        next_rotation: info.next.map(rotation::next),
        audit_items: audit_items.into(),
    }
}

fn version(info: VersionInfo) -> KeyVersion {
    let state = if info.enabled {
        KeyVersionState::Enabled
    } else {
        KeyVersionState::Disabled
    };
    KeyVersion {
        version: info.number,
        state: state.into(),
        create_time: timestamp(info.created),
        primary: info.primary,
    }
}

fn suite(suite: DomainSuite) -> Suite {
    match suite {
        DomainSuite::KcXaes256Gcm => Suite::KcXaes256Gcm,
    }
}

/// A page of keys.
#[must_use]
pub fn keys(listed: Listed<KeyInfo>) -> ListKeysResponse {
    ListKeysResponse {
        keys: listed.entries.into_iter().map(key).collect(),
        next_page_token: token(listed.next),
    }
}

/// The state of the service.
#[must_use]
pub fn status(status: Status) -> GetStatusResponse {
    GetStatusResponse {
        version: VERSION.to_owned(),
        start_time: timestamp(status.about.started_s),
        store: status.store.to_owned(),
        store_id: Bytes::copy_from_slice(&status.store_id),
        store_revision: status.store_revision,
        audit_records: status.audit_records,
        cached_keys: status.cached_keys,
        calls: status.calls,
        root_provider: status.root_provider,
        certificate_expire_time: Some(Timestamp {
            seconds: status.about.certificate_end.unix_s(),
            nanos: 0,
        }),
        free_bytes: status.free_bytes,
    }
}

pub(super) fn repeatable(request_id: &str, message: &impl Message) -> Result<Repeatable, Failure> {
    Repeatable::parse(request_id, &message.encode_to_vec())
}

pub(super) fn timestamp(unix_s: u64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: i64::try_from(unix_s).unwrap_or(i64::MAX),
        nanos: 0,
    })
}
