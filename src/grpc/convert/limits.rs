//! The messages of `LimitService`.

use std::sync::Arc;

use fieldkeep_crypto::names::Name;
use fieldkeep_proto::v1::{
    GetUsageResponse, Limit as LimitMessage, LimitUsage, ListLimitsRequest, ListLimitsResponse,
    RemoveLimitRequest, SetLimitRequest,
};
use prost_types::Duration;

use super::access::identity;
use super::admin::{repeatable, timestamp};
use super::{page, parent, token};
use crate::access::action::{Action, ActionSet};
use crate::access::limits::Usage;
use crate::access::limits::record::{Limit, MAX_WINDOWS, Sharing, parse_resource};
use crate::access::limits::window::Window;
use crate::service::failure::Failure;
use crate::service::keys::Listed;
use crate::service::limit::{LimitName, ListLimits, Of, RemoveLimit, SetLimit, texts};

/// What a SetLimit asks for.
///
/// # Errors
/// The part that is not valid; so for every request of this module.
pub fn set_limit(request: SetLimitRequest) -> Result<SetLimit, Failure> {
    let principal = match request.principal.as_str() {
        "" => None,
        text => Some(identity("principal", text)?),
    };
    let key = match request.key.as_str() {
        "" => None,
        text => Some(Name::parse(text).map_err(|error| {
            Failure::invalid(
                "key",
                format!("a key of the limit's tenant, `{{key}}`: {error}"),
            )
        })?),
    };
    let sharing = match request.sharing.as_str() {
        "" => Sharing::EachPrincipal,
        text => Sharing::parse(text).ok_or_else(|| {
            let words = Sharing::ALL.map(Sharing::as_str).join("`, `");
            Failure::invalid("sharing", format!("one of `{words}`"))
        })?,
    };
    Ok(SetLimit {
        name: limit_name(&request.name)?,
        principal,
        key,
        actions: actions(&request.actions)?,
        sharing,
        windows: windows(&request.windows)?,
        request: repeatable(&request.request_id, &request)?,
    })
}

fn limit_name(text: &str) -> Result<LimitName, Failure> {
    let own = || Some((Of::Own, Name::parse(text).ok()?));
    let full =
        parse_resource(text).map(|(tenant, id)| (tenant.map_or(Of::Service, Of::Tenant), id));
    let (of, id) = full.or_else(own).ok_or_else(|| {
        Failure::invalid(
            "name",
            "a limit is `{limit}`, `tenants/{tenant}/limits/{limit}`, or `limits/{limit}` of the whole service",
        )
    })?;
    Ok(LimitName { of, id })
}

fn actions(texts: &[String]) -> Result<ActionSet, Failure> {
    let limited = || Action::ALL.iter().filter(|action| action.is_data());
    texts.iter().try_fold(ActionSet::NONE, |set, text| {
        let found = limited().find(|action| action.as_str() == text);
        let action = found.ok_or_else(|| {
            let names: Vec<&str> = limited().map(|action| action.as_str()).collect();
            Failure::invalid("actions", format!("one of `{}`", names.join("`, `")))
        })?;
        Ok(set.with(ActionSet::of(&[*action])))
    })
}

fn windows(texts: &[String]) -> Result<Vec<Window>, Failure> {
    // So that a long list is not parsed to be refused.
    let some = texts.iter().take(MAX_WINDOWS + 1);
    some.map(|text| {
        let window: Result<Window, _> = text.parse();
        window.map_err(|error| Failure::invalid("windows", error.to_string()))
    })
    .collect()
}

/// A limit.
#[must_use]
pub fn limit(limit: Arc<Limit>) -> LimitMessage {
    let principal = limit.principal.as_ref().map(ToString::to_string);
    LimitMessage {
        name: limit.resource(),
        principal: principal.unwrap_or_default(),
        key: key_of(&limit),
        actions: actions_of(&limit),
        sharing: limit.sharing.to_string(),
        windows: texts(&limit.windows),
        create_time: timestamp(limit.created),
        set_by: limit.set_by.to_string(),
    }
}

fn key_of(limit: &Limit) -> String {
    limit
        .key
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn actions_of(limit: &Limit) -> Vec<String> {
    let set = ActionSet::from_bits(limit.actions).unwrap_or_default();
    set.iter().map(|action| action.to_string()).collect()
}

/// What a ListLimits asks for.
///
/// # Errors
/// As [`set_limit`].
pub fn list_limits(request: ListLimitsRequest) -> Result<ListLimits, Failure> {
    Ok(ListLimits {
        tenant: parent(&request.parent)?,
        page: page(request.page_size, &request.page_token)?,
    })
}

/// A page of limits.
#[must_use]
pub fn limits(listed: Listed<Arc<Limit>>) -> ListLimitsResponse {
    ListLimitsResponse {
        limits: listed.entries.into_iter().map(limit).collect(),
        next_page_token: token(listed.next),
    }
}

/// What a RemoveLimit asks for.
///
/// # Errors
/// As [`set_limit`].
pub fn remove_limit(request: RemoveLimitRequest) -> Result<RemoveLimit, Failure> {
    Ok(RemoveLimit {
        name: limit_name(&request.name)?,
        request: repeatable(&request.request_id, &request)?,
    })
}

/// What a caller has used.
#[must_use]
pub fn usage(usage: Vec<Usage>) -> GetUsageResponse {
    let entry = |one: Usage| LimitUsage {
        limit: one.limit.resource(),
        key: key_of(&one.limit),
        actions: actions_of(&one.limit),
        sharing: one.limit.sharing.to_string(),
        window: one.window.to_string(),
        used: one.used,
        remaining: one.remaining,
        resets_in: match one.window {
            Window::UnderWay { .. } => None,
            _ => Duration::try_from(one.resets_in).ok(),
        },
    };
    GetUsageResponse {
        usage: usage.into_iter().map(entry).collect(),
    }
}
