//! Groups of identities, and the record of one membership: `sys/group/{tenant}/{group}/{member tenant}/{member name}`.
//!
//! A group is its members: it begins with the first and ends with the last. Groups have no groups in them.

use std::{fmt, sync::Arc};

use fieldkeep_crypto::names::Name;
use fieldkeep_keystore::info::SystemRecord;
use prost::Message as _;

use super::{
    AccessError,
    principal::{Identity, IdentityError},
};

/// The store keys of memberships begin with this.
pub(super) const PREFIX: &str = "sys/group/";

/// The name of a group within a tenant.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    tenant: Name,
    name: Name,
    resource: Arc<str>,
}

impl Group {
    /// The group `name` of `tenant`.
    pub fn new(tenant: Name, name: Name) -> Group {
        let resource = format!("tenants/{tenant}/groups/{name}").into();
        Group {
            tenant,
            name,
            resource,
        }
    }

    /// Parses `tenants/{tenant}/groups/{name}`, or `{name}`, which is in `own_tenant`.
    ///
    /// # Errors
    /// The text has neither form, or a name is not in the grammar.
    pub fn parse(text: &str, own_tenant: &Name) -> Result<Group, IdentityError> {
        if !text.contains('/') {
            return Ok(Group::new(own_tenant.clone(), Name::parse(text)?));
        }
        let rest = text.strip_prefix("tenants/");
        let (tenant, name) = rest
            .and_then(|rest| rest.split_once("/groups/"))
            .ok_or(IdentityError::GroupForm)?;
        Ok(Group::new(Name::parse(tenant)?, Name::parse(name)?))
    }

    /// Whether the group with this resource name is of the same tenant.
    pub fn is_beside(&self, resource: &str) -> bool {
        let rest = resource.strip_prefix("tenants/");
        rest.and_then(|rest| rest.strip_prefix(self.tenant.as_str()))
            .is_some_and(|rest| rest.starts_with("/groups/"))
    }

    /// The tenant.
    pub fn tenant(&self) -> &Name {
        &self.tenant
    }

    /// The name within the tenant.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// `tenants/{tenant}/groups/{name}`.
    pub fn resource(&self) -> &Arc<str> {
        &self.resource
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)
    }
}

/// That an identity is in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: Group,
    /// Who is in it.
    pub member: Identity,
    /// Since when, Unix seconds.
    pub created: u64,
    /// Who added it: a resource name.
    pub added_by: Arc<str>,
}

/// The payload of the record. The record's key says who is in which group, and the record's MAC covers the key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct MembershipRecord {
    #[prost(uint64, tag = "1")]
    created: u64,
    #[prost(string, tag = "2")]
    added_by: String,
}

/// The store key of a membership.
pub(crate) fn key_of(group: &Group, member: &Identity) -> String {
    format!(
        "{PREFIX}{}/{}/{}/{}",
        group.tenant,
        group.name,
        member.tenant(),
        member.name()
    )
}

impl Membership {
    pub(super) fn encode(&self) -> Vec<u8> {
        let record = MembershipRecord {
            created: self.created,
            added_by: self.added_by.as_ref().to_owned(),
        };
        record.encode_to_vec()
    }

    pub(super) fn decode(
        store_key: &str,
        record: &SystemRecord,
    ) -> Result<Membership, AccessError> {
        let unknown = || AccessError::UnknownRecord {
            store_key: store_key.to_owned(),
        };
        let (group, member) = named_by(store_key).ok_or_else(unknown)?;
        let record = MembershipRecord::decode(record.payload.as_ref()).map_err(|_| unknown())?;
        Ok(Membership {
            group,
            member,
            created: record.created,
            added_by: record.added_by.into(),
        })
    }
}

fn named_by(store_key: &str) -> Option<(Group, Identity)> {
    let mut parts = store_key.strip_prefix(PREFIX)?.split('/');
    let mut name = || Name::parse(parts.next()?).ok();
    let group = Group::new(name()?, name()?);
    let member = Identity::new(name()?, name()?);
    parts.next().is_none().then_some((group, member))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn groups_have_a_long_and_a_short_form() {
        let own = name("acme");
        let parse = |text: &str| Group::parse(text, &own).map(|group| group.to_string());
        assert_eq!(parse("support").unwrap(), "tenants/acme/groups/support");
        assert_eq!(
            parse("tenants/other/groups/support").unwrap(),
            "tenants/other/groups/support"
        );
        for text in [
            "",
            "A",
            "tenants/acme",
            "tenants/acme/identities/app",
            "tenants/acme/groups/",
            "tenants/acme/groups/a/b",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_membership_is_named_by_its_key() {
        let group = Group::new(name("acme"), name("support"));
        let member = Identity::new(name("other"), name("alice"));
        let key = key_of(&group, &member);
        assert_eq!(key, "sys/group/acme/support/other/alice");
        assert_eq!(named_by(&key), Some((group, member)));
        for key in [
            "sys/group/a/b/c",
            "sys/group/a/b/c/d/e",
            "sys/grant/a/b/c/d",
        ] {
            assert_eq!(named_by(key), None, "{key}");
        }
    }
}
