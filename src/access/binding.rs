//! The record of one identity's role: `sys/role/{tenant}/{name}`.

use std::{fmt, sync::Arc};

use fieldkeep_crypto::names::{Name, NameError};
use fieldkeep_keystore::info::SystemRecord;
use prost::Message as _;

use super::{
    AccessError,
    principal::{Identity, IdentityError},
};

/// What an identity may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The control plane of every tenant: tenants, keys, roles, audit. Never plaintext.
    Admin,
    /// The data plane of its own tenant: encrypt, decrypt, re-encrypt.
    Data,
}

impl Role {
    /// `admin` or `data`.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Data => "data",
        }
    }

    /// The number in the record. These are never renumbered.
    fn code(self) -> u32 {
        match self {
            Role::Admin => 1,
            Role::Data => 2,
        }
    }

    fn from_code(code: u32) -> Option<Role> {
        match code {
            1 => Some(Role::Admin),
            2 => Some(Role::Data),
            _ => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An identity and its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleBinding {
    /// Who.
    pub identity: Identity,
    /// What it may do.
    pub role: Role,
    /// When it was granted, Unix seconds.
    pub created: u64,
    /// Who granted it: the resource name of an identity, or `init`.
    pub granted_by: Arc<str>,
}

/// The payload of the record. The record's key says whose role it is, and the record's MAC covers the key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct RoleRecord {
    #[prost(uint32, tag = "1")]
    role: u32,
    #[prost(uint64, tag = "2")]
    created: u64,
    #[prost(string, tag = "3")]
    granted_by: String,
}

/// Which roles a listing shows.
pub(super) enum RolePrefix<'a> {
    All,
    Tenant(&'a Name),
}

impl RolePrefix<'_> {
    pub(super) fn to_key(&self) -> String {
        match self {
            RolePrefix::All => PREFIX.to_owned(),
            RolePrefix::Tenant(tenant) => format!("{PREFIX}{tenant}/"),
        }
    }
}

const PREFIX: &str = "sys/role/";

/// The store key of an identity's role.
pub(super) fn role_key(identity: &Identity) -> String {
    format!("{PREFIX}{}/{}", identity.tenant(), identity.name())
}

/// The store key of the role of `tenants/{tenant}/identities/{name}`.
pub(super) fn key_of_resource(resource: &str) -> Result<String, IdentityError> {
    // A resource name says its tenant, so that the default tenant given here is never used; a bare name is refused.
    if !resource.contains('/') {
        return Err(IdentityError::Form);
    }
    let tenant = Name::parse("default")?;
    Ok(role_key(&Identity::parse(resource, &tenant)?))
}

impl RoleBinding {
    pub(super) fn encode(&self) -> Vec<u8> {
        let record = RoleRecord {
            role: self.role.code(),
            created: self.created,
            granted_by: self.granted_by.as_ref().to_owned(),
        };
        record.encode_to_vec()
    }

    pub(super) fn decode(
        store_key: &str,
        record: &SystemRecord,
    ) -> Result<RoleBinding, AccessError> {
        let unknown = || AccessError::UnknownRecord {
            store_key: store_key.to_owned(),
        };
        let identity = identity_of_key(store_key).map_err(|_| unknown())?;
        let record = RoleRecord::decode(record.payload.as_ref()).map_err(|_| unknown())?;
        Ok(RoleBinding {
            identity: identity.ok_or_else(unknown)?,
            role: Role::from_code(record.role).ok_or_else(unknown)?,
            created: record.created,
            granted_by: record.granted_by.into(),
        })
    }
}

fn identity_of_key(store_key: &str) -> Result<Option<Identity>, NameError> {
    let parts = store_key
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once('/'));
    let identity = |(tenant, name)| Ok(Identity::new(Name::parse(tenant)?, Name::parse(name)?));
    parts.map(identity).transpose()
}
