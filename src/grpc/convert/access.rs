//! The messages of access: grants, groups, questions, certificates.

use std::net::IpAddr;
use std::sync::Arc;

use fieldkeep_crypto::names::Name;
use fieldkeep_proto::v1::{
    AddGroupMemberRequest, ContextPair, CreateGrantRequest, ExplainAccessRequest,
    ExplainAccessResponse, GetGrantRequest, Grant, GrantConditions, Group as GroupMessage,
    GroupMember, Holder as HolderMessage, IssueCertificateRequest, IssueCertificateResponse,
    ListGrantsRequest, ListGrantsResponse, ListGroupMembersRequest, ListGroupMembersResponse,
    ListGroupsRequest, ListGroupsResponse, RemoveGroupMemberRequest, RevokeGrantRequest,
    WhoCanRequest, WhoCanResponse,
};
use prost_types::Timestamp;

use super::admin::{repeatable, timestamp};
use super::{context, field_name, key_name, page, parent, tenant_name, token};
use crate::access::action::Action;
use crate::access::ca::Issued;
use crate::access::condition::Conditions;
use crate::access::grant::{self, GrantId, MAX_PATTERNS, Scope, Wanted, Who};
use crate::access::group::{Group, Membership};
use crate::access::pattern::Pattern;
use crate::access::principal::{Identity, Method};
use crate::access::role::Role;
use crate::service::access::{
    CreateGrant, IssueCertificate, ListGrants, LocalName, RevokeGrant, ShowGrant,
};
use crate::service::explain::{Explain, Explained, Holder, Subject, WhoCan};
use crate::service::failure::Failure;
use crate::service::groups::{
    AddMember, ChangeMember, GroupSize, ListGroups, ListMembers, RemoveMember,
};
use crate::service::keys::Listed;
use crate::service::resource::tenant_resource;

/// What a CreateGrant asks for.
///
/// # Errors
/// The part that is not valid; so for every request of this module.
pub fn create_grant(request: CreateGrantRequest) -> Result<CreateGrant, Failure> {
    let repeatable = repeatable(&request.request_id, &request)?;
    let who = who("principal", &request.principal)?;
    let scope = match scope(&request.tenant)? {
        Some(scope) => scope,
        None => Scope::Tenant(who.tenant().clone()),
    };
    let wanted = Wanted {
        scope,
        cross_tenant: request.cross_tenant,
        role: role(&request.role)?,
        keys: patterns("keys", &request.keys)?,
        fields: patterns("fields", &request.fields)?,
        conditions: conditions(request.conditions.unwrap_or_default())?,
        expires: time("expire_time", request.expire_time)?,
        who,
    };
    Ok(CreateGrant {
        wanted,
        request: repeatable,
    })
}

fn role(text: &str) -> Result<Role, Failure> {
    Role::parse(text).ok_or_else(|| {
        let names: Vec<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
        Failure::invalid("role", format!("a role is one of {}", names.join(", ")))
    })
}

fn action(text: &str) -> Result<Action, Failure> {
    Action::parse(text).ok_or_else(|| {
        let names: Vec<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
        Failure::invalid(
            "action",
            format!("an action is one of {}", names.join(", ")),
        )
    })
}

/// Whose things; empty: not said.
fn scope(text: &str) -> Result<Option<Scope>, Failure> {
    match text {
        "" => Ok(None),
        Scope::ALL => Ok(Some(Scope::All)),
        text => tenant_name("tenant", text).map(|tenant| Some(Scope::Tenant(tenant))),
    }
}

fn patterns(part: &'static str, texts: &[String]) -> Result<Vec<Pattern>, Failure> {
    if texts.is_empty() {
        return Ok(vec![Pattern::any()]);
    }
    if texts.len() > MAX_PATTERNS {
        return Err(Failure::invalid(part, format!("at most {MAX_PATTERNS}")));
    }
    let mut patterns = Vec::with_capacity(texts.len());
    for text in texts {
        let pattern = Pattern::parse(text).map_err(|error| {
            Failure::invalid(
                part,
                format!("not a name, the beginning of one and `*`, or `*`: {error}"),
            )
        })?;
        if !patterns.contains(&pattern) {
            patterns.push(pattern);
        }
    }
    Ok(patterns)
}

fn conditions(message: GrantConditions) -> Result<Conditions, Failure> {
    const PART: &str = "conditions";
    // Names, uniqueness and length are those of any context.
    context(&message.context)?;
    let pair = |pair: ContextPair| (pair.name, pair.value);
    let daily = match message.daily.as_str() {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|error| Failure::invalid(PART, format!("`daily`: {error}")))?,
        ),
    };
    let network = |text: &String| {
        text.parse()
            .map_err(|error| Failure::invalid(PART, format!("`networks`: {error}")))
    };
    let networks = message.networks.iter().map(network);
    let methods = message.methods.iter().map(|text| method(PART, text));
    Ok(Conditions {
        context: message.context.into_iter().map(pair).collect(),
        not_before: time(PART, message.not_before_time)?,
        daily,
        networks: networks.collect::<Result<_, _>>()?,
        methods: methods.collect::<Result<_, _>>()?,
        second_factor: message.second_factor,
    })
}

fn method(part: &'static str, text: &str) -> Result<Method, Failure> {
    Method::parse(text).ok_or_else(|| {
        Failure::invalid(
            part,
            "a method of authentication is `mtls`, `jwt` or `api-key`",
        )
    })
}

fn time(part: &'static str, time: Option<Timestamp>) -> Result<Option<u64>, Failure> {
    let refused = |_| Failure::invalid(part, "a time is after 1970");
    time.map(|time| u64::try_from(time.seconds).map_err(refused))
        .transpose()
}

/// A grant.
#[must_use]
pub fn grant(grant: Arc<grant::Grant>) -> Grant {
    let what = &grant.what;
    let texts = |patterns: &[Pattern]| patterns.iter().map(Pattern::to_string).collect();
    Grant {
        name: grant.id.to_string(),
        principal: what.who.to_string(),
        role: what.role.to_string(),
        tenant: match &what.scope {
            Scope::All => Scope::ALL.to_owned(),
            Scope::Tenant(tenant) => tenant_resource(tenant.as_str()),
        },
        cross_tenant: what.cross_tenant,
        keys: texts(&what.keys),
        fields: texts(&what.fields),
        conditions: (!what.conditions.is_empty()).then(|| shown(&what.conditions)),
        expire_time: what.expires.and_then(timestamp),
        create_time: timestamp(grant.created),
        granted_by: grant.granted_by.to_string(),
    }
}

fn shown(conditions: &Conditions) -> GrantConditions {
    let pair = |(name, value): &(String, String)| ContextPair {
        name: name.clone(),
        value: value.clone(),
    };
    GrantConditions {
        context: conditions.context.iter().map(pair).collect(),
        not_before_time: conditions.not_before.and_then(timestamp),
        daily: conditions
            .daily
            .map(|daily| daily.to_string())
            .unwrap_or_default(),
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
    }
}

fn grant_id(text: &str) -> Result<GrantId, Failure> {
    GrantId::parse(text)
        .ok_or_else(|| Failure::invalid("name", "a grant is named `g-` and 16 hexadecimal digits"))
}

/// What a GetGrant asks for.
///
/// # Errors
/// As [`create_grant`].
pub fn show_grant(request: GetGrantRequest) -> Result<ShowGrant, Failure> {
    Ok(ShowGrant {
        id: grant_id(&request.name)?,
    })
}

/// What a RevokeGrant asks for.
///
/// # Errors
/// As [`create_grant`].
pub fn revoke_grant(request: RevokeGrantRequest) -> Result<RevokeGrant, Failure> {
    Ok(RevokeGrant {
        id: grant_id(&request.name)?,
        request: repeatable(&request.request_id, &request)?,
    })
}

/// What a ListGrants asks for.
///
/// # Errors
/// As [`create_grant`].
pub fn list_grants(request: ListGrantsRequest) -> Result<ListGrants, Failure> {
    let who = match request.principal.as_str() {
        "" => None,
        text => Some(who("principal", text)?),
    };
    Ok(ListGrants {
        tenant: parent(&request.parent)?,
        who,
        page: page(request.page_size, &request.page_token)?,
    })
}

/// A page of grants.
#[must_use]
pub fn grants(listed: Listed<Arc<grant::Grant>>) -> ListGrantsResponse {
    ListGrantsResponse {
        grants: listed.entries.into_iter().map(grant).collect(),
        next_page_token: token(listed.next),
    }
}

/// What an AddGroupMember asks for.
///
/// # Errors
/// As [`create_grant`].
pub fn add_member(request: AddGroupMemberRequest) -> Result<AddMember, Failure> {
    Ok(ChangeMember {
        group: group(&request.group)?,
        member: identity("member", &request.member)?,
        request: repeatable(&request.request_id, &request)?,
    })
}

/// What a RemoveGroupMember asks for.
///
/// # Errors
/// As [`create_grant`].
pub fn remove_member(request: RemoveGroupMemberRequest) -> Result<RemoveMember, Failure> {
    Ok(ChangeMember {
        group: group(&request.group)?,
        member: identity("member", &request.member)?,
        request: repeatable(&request.request_id, &request)?,
    })
}

/// A member that was added.
#[must_use]
pub fn added(membership: Option<Arc<Membership>>) -> GroupMember {
    membership.map(member).unwrap_or_default()
}

fn member(membership: Arc<Membership>) -> GroupMember {
    GroupMember {
        group: membership.group.to_string(),
        member: membership.member.to_string(),
        create_time: timestamp(membership.created),
        added_by: membership.added_by.to_string(),
    }
}

/// What a ListGroups asks for.
///
/// # Errors
/// As [`create_grant`].
pub fn list_groups(request: ListGroupsRequest) -> Result<ListGroups, Failure> {
    Ok(ListGroups {
        tenant: parent(&request.parent)?,
        page: page(request.page_size, &request.page_token)?,
    })
}

/// A page of groups.
#[must_use]
pub fn groups(listed: Listed<GroupSize>) -> ListGroupsResponse {
    let entry = |size: GroupSize| GroupMessage {
        name: size.group.to_string(),
        members: size.members,
    };
    ListGroupsResponse {
        groups: listed.entries.into_iter().map(entry).collect(),
        next_page_token: token(listed.next),
    }
}

/// What a ListGroupMembers asks for.
///
/// # Errors
/// As [`create_grant`].
pub fn list_members(request: ListGroupMembersRequest) -> Result<ListMembers, Failure> {
    Ok(ListMembers {
        group: group(&request.group)?,
        page: page(request.page_size, &request.page_token)?,
    })
}

/// A page of members.
#[must_use]
pub fn members(listed: Listed<Arc<Membership>>) -> ListGroupMembersResponse {
    ListGroupMembersResponse {
        members: listed.entries.into_iter().map(member).collect(),
        next_page_token: token(listed.next),
    }
}

/// What an ExplainAccess asks for.
///
/// # Errors
/// As [`create_grant`].
pub fn explain(request: ExplainAccessRequest) -> Result<Explain, Failure> {
    let network = match request.address.as_str() {
        "" => None,
        text => Some(text.parse::<IpAddr>().map_err(|_| {
            Failure::invalid(
                "address",
                "an address is written as `10.0.0.1` or `2001:db8::1`",
            )
        })?),
    };
    let method = match request.method.as_str() {
        "" => Method::Mtls,
        text => method("method", text)?,
    };
    Ok(Explain {
        identity: identity("principal", &request.principal)?,
        subject: subject(&request.action, request.key, request.field, &request.tenant)?,
        context: context(&request.context)?,
        network,
        method,
        second_factor: request.second_factor,
    })
}

/// What a WhoCan asks for.
///
/// # Errors
/// As [`create_grant`].
pub fn who_can(request: WhoCanRequest) -> Result<WhoCan, Failure> {
    Ok(WhoCan {
        subject: subject(&request.action, request.key, request.field, &request.tenant)?,
        page: page(request.page_size, &request.page_token)?,
    })
}

fn subject(text: &str, key: String, field: String, tenant: &str) -> Result<Subject, Failure> {
    Ok(Subject {
        action: action(text)?,
        key: (!key.is_empty())
            .then(|| key_name("key", key))
            .transpose()?,
        field: (!field.is_empty()).then(|| field_name(field)).transpose()?,
        scope: scope(tenant)?,
    })
}

/// A decision that was explained.
#[must_use]
pub fn explained(explained: Explained) -> ExplainAccessResponse {
    let grant = explained
        .grant
        .map(|grant| grant.to_string())
        .unwrap_or_default();
    match explained.refused {
        None => ExplainAccessResponse {
            allowed: true,
            grant,
            masked: explained.masked,
            ..ExplainAccessResponse::default()
        },
        Some(why) => ExplainAccessResponse {
            allowed: false,
            grant,
            masked: false,
            rule: why.rule.to_owned(),
            message: why.message,
            command: why.command.unwrap_or_default(),
        },
    }
}

/// A page of those who may do something.
#[must_use]
pub fn holders(listed: Listed<Holder>) -> WhoCanResponse {
    let entry = |holder: Holder| HolderMessage {
        grant: Some(grant(holder.grant)),
        identities: holder.identities.iter().map(ToString::to_string).collect(),
        more_identities: holder.more,
    };
    WhoCanResponse {
        holders: listed.entries.into_iter().map(entry).collect(),
        next_page_token: token(listed.next),
    }
}

/// What an IssueCertificate asks for.
///
/// # Errors
/// As [`create_grant`].
pub fn issue_certificate(request: IssueCertificateRequest) -> Result<IssueCertificate, Failure> {
    Ok(IssueCertificate {
        identity: identity("identity", &request.identity)?,
        csr_der: request.csr_der,
        ttl_s: request.ttl_seconds,
    })
}

/// A signed certificate.
#[must_use]
pub fn issued(issued: Issued) -> IssueCertificateResponse {
    IssueCertificateResponse {
        certificate_pem: issued.certificate_pem,
        ca_pem: issued.ca_pem,
        expire_time: Some(Timestamp {
            seconds: issued.not_after,
            nanos: 0,
        }),
    }
}

pub(super) fn identity(part: &'static str, text: &str) -> Result<LocalName, Failure> {
    local_name(
        part,
        text,
        "/identities/",
        "an identity is `{name}` or `tenants/{tenant}/identities/{name}`",
    )
}

fn group(text: &str) -> Result<LocalName, Failure> {
    local_name(
        "group",
        text,
        "/groups/",
        "a group is `{name}` or `tenants/{tenant}/groups/{name}`",
    )
}

fn local_name(
    part: &'static str,
    text: &str,
    between: &str,
    form: &str,
) -> Result<LocalName, Failure> {
    let name = |text: &str| {
        Name::parse(text).map_err(|error| Failure::invalid(part, format!("{form}: {error}")))
    };
    match text.strip_prefix("tenants/") {
        None => Ok(LocalName {
            tenant: None,
            name: name(text)?,
        }),
        Some(rest) => {
            let (tenant, own) = rest
                .split_once(between)
                .ok_or_else(|| Failure::invalid(part, form.to_owned()))?;
            Ok(LocalName {
                tenant: Some(name(tenant)?),
                name: name(own)?,
            })
        }
    }
}

/// An identity or a group by its full name, so that a grant never depends on who reads it.
fn who(part: &'static str, text: &str) -> Result<Who, Failure> {
    let full = |name: LocalName| {
        name.tenant
            .map(|tenant| (tenant, name.name))
            .ok_or_else(|| {
                Failure::invalid(
                    part,
                    "write `tenants/{tenant}/identities/{name}` or `tenants/{tenant}/groups/{name}`",
                )
            })
    };
    if text.contains("/groups/") {
        let (tenant, name) = full(group(text)?)?;
        Ok(Who::Group(Group::new(tenant, name)))
    } else {
        let (tenant, name) = full(identity(part, text)?)?;
        Ok(Who::Identity(Identity::new(tenant, name)))
    }
}
