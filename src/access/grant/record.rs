//! The record of a grant: `sys/grant/{id}`. A MAC covers key and payload, so that whoever can write the disk still cannot grant
//! himself anything.

use fieldkeep_crypto::names::Name;
use fieldkeep_keystore::info::SystemRecord;
use prost::Message;

use super::{Grant, GrantId, Scope, Wanted, Who};
use crate::access::{
    AccessError,
    condition::{Conditions, Daily},
    group::Group,
    pattern::Pattern,
    principal::{Identity, Method},
    role::Role,
};

/// The store keys of grants begin with this.
pub(in crate::access) const PREFIX: &str = "sys/grant/";

/// The payload. Tags and numbers are never used for anything else.
#[derive(Clone, PartialEq, Eq, Message)]
struct GrantRecord {
    #[prost(string, tag = "1")]
    who_tenant: String,
    #[prost(string, tag = "2")]
    who_name: String,
    #[prost(bool, tag = "3")]
    who_is_group: bool,
    #[prost(uint32, tag = "4")]
    role: u32,
    #[prost(string, repeated, tag = "5")]
    keys: Vec<String>,
    #[prost(string, repeated, tag = "6")]
    fields: Vec<String>,
    #[prost(bool, tag = "7")]
    cross_tenant: bool,
    #[prost(message, repeated, tag = "8")]
    context: Vec<Pair>,
    #[prost(uint64, optional, tag = "9")]
    not_before: Option<u64>,
    /// Minutes of the day: the first, and the first behind it.
    #[prost(uint32, repeated, tag = "10")]
    daily: Vec<u32>,
    #[prost(string, repeated, tag = "11")]
    networks: Vec<String>,
    #[prost(string, repeated, tag = "12")]
    methods: Vec<String>,
    #[prost(bool, tag = "13")]
    second_factor: bool,
    #[prost(uint64, optional, tag = "14")]
    expires: Option<u64>,
    #[prost(uint64, tag = "15")]
    created: u64,
    #[prost(string, tag = "16")]
    granted_by: String,
    /// Whose things it opens: a tenant, or `*`.
    #[prost(string, tag = "17")]
    scope: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Pair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// The store key of the grant `id`.
pub(crate) fn key_of(id: &GrantId) -> String {
    format!("{PREFIX}{id}")
}

impl Grant {
    pub(in crate::access) fn encode(&self) -> Vec<u8> {
        let what = &self.what;
        let conditions = &what.conditions;
        let (name, is_group) = match &what.who {
            Who::Identity(identity) => (identity.name(), false),
            Who::Group(group) => (group.name(), true),
        };
        let texts = |patterns: &[Pattern]| patterns.iter().map(Pattern::to_string).collect();
        let pair = |(name, value): &(String, String)| Pair {
            name: name.clone(),
            value: value.clone(),
        };
        let minutes = |daily: Daily| [daily.minutes().0.into(), daily.minutes().1.into()];
        let record = GrantRecord {
            who_tenant: what.who.tenant().to_string(),
            who_name: name.to_string(),
            who_is_group: is_group,
            role: what.role.code(),
            keys: texts(&what.keys),
            fields: texts(&what.fields),
            cross_tenant: what.cross_tenant,
            context: conditions.context.iter().map(pair).collect(),
            not_before: conditions.not_before,
            daily: conditions.daily.into_iter().flat_map(minutes).collect(),
            networks: conditions
                .networks
                .iter()
                .map(ToString::to_string)
                .collect(),
            methods: conditions
                .methods
                .iter()
                .map(|method| method.as_str().to_owned())
                .collect(),
            second_factor: conditions.second_factor,
            expires: what.expires,
            created: self.created,
            granted_by: self.granted_by.to_string(),
            scope: what.scope.to_string(),
        };
        record.encode_to_vec()
    }
}

/// The grant of a record.
///
/// # Errors
/// [`AccessError::UnknownRecord`]: another version wrote it.
pub(in crate::access) fn decode(
    store_key: &str,
    record: &SystemRecord,
) -> Result<Grant, AccessError> {
    GrantRecord::decode(record.payload.as_ref())
        .ok()
        .and_then(|record| grant_of(store_key, record))
        .ok_or_else(|| AccessError::UnknownRecord {
            store_key: store_key.to_owned(),
        })
}

/// What cannot be read as a whole is nothing: a condition that is not understood must not be left away.
fn grant_of(store_key: &str, record: GrantRecord) -> Option<Grant> {
    let id = store_key.strip_prefix(PREFIX)?;
    let scope = match record.scope.as_str() {
        Scope::ALL => Scope::All,
        tenant => Scope::Tenant(Name::parse(tenant).ok()?),
    };
    let tenant = Name::parse(&record.who_tenant).ok()?;
    let name = Name::parse(&record.who_name).ok()?;
    let who = if record.who_is_group {
        Who::Group(Group::new(tenant, name))
    } else {
        Who::Identity(Identity::new(tenant, name))
    };
    let patterns = |texts: &[String]| {
        let parse = |text: &String| Pattern::parse(text).ok();
        texts.iter().map(parse).collect::<Option<Vec<Pattern>>>()
    };
    let daily = match record.daily.as_slice() {
        [] => None,
        [from, to] => Some(Daily::new(
            u16::try_from(*from).ok()?,
            u16::try_from(*to).ok()?,
        )?),
        _ => return None,
    };
    let networks = record.networks.iter().map(|text| text.parse().ok());
    let methods = record.methods.iter().map(|text| Method::parse(text));
    let context = record
        .context
        .into_iter()
        .map(|pair| (pair.name, pair.value));
    let what = Wanted {
        who,
        scope,
        cross_tenant: record.cross_tenant,
        role: Role::from_code(record.role)?,
        keys: patterns(&record.keys)?,
        fields: patterns(&record.fields)?,
        conditions: Conditions {
            context: context.collect(),
            not_before: record.not_before,
            daily,
            networks: networks.collect::<Option<_>>()?,
            methods: methods.collect::<Option<_>>()?,
            second_factor: record.second_factor,
        },
        expires: record.expires,
    };
    // Time aside, it must still be something that can be granted.
    what.check(0).ok()?;
    Some(Grant {
        id: GrantId::parse(id)?,
        what,
        created: record.created,
        granted_by: record.granted_by.into(),
    })
}
