//! What is indexed of a record, and what of it a filter asks for.

use std::borrow::Cow;

use super::format::cut;
use crate::filter::{Filter, PrincipalFilter, rule_kind, tenant_of};
use crate::view::RecordView;

/// What is indexed, in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dimension {
    /// The caller's identity.
    Principal,
    /// The tenants of the caller and of the resources.
    Tenant,
    /// The names of the resources.
    Resource,
    /// The fields of the resources.
    Field,
    /// The action.
    Action,
    /// The RPC.
    Rpc,
    /// The kind of the rule that decided.
    RuleKind,
    /// The decision and the code, 4 bytes each.
    Outcome,
}

/// How many there are.
pub(super) const DIMENSIONS: usize = Dimension::Outcome as usize + 1;

/// Names of keys that were not found begin with it, and go on with whatever a caller sent.
const HANDLE: &str = "handle:";

/// A resource's name as the index has it. All handles are one value: a caller can make up as many as he likes.
fn indexed_name(name: &str) -> &str {
    if name.starts_with(HANDLE) {
        HANDLE
    } else {
        name
    }
}

/// Calls `each` with what is indexed of the record. A value may come several times.
pub(super) fn values_of(record: &RecordView<'_>, mut each: impl FnMut(Dimension, &[u8])) {
    each(Dimension::Principal, record.principal.as_bytes());
    if let Some(tenant) = tenant_of(record.principal) {
        each(Dimension::Tenant, tenant.as_bytes());
    }
    for used in record.resources() {
        each(Dimension::Resource, indexed_name(used.name).as_bytes());
        each(Dimension::Field, used.field.as_bytes());
        if let Some(tenant) = tenant_of(used.name) {
            each(Dimension::Tenant, tenant.as_bytes());
        }
    }
    each(Dimension::Action, record.action.as_bytes());
    each(Dimension::Rpc, record.rpc.as_bytes());
    each(Dimension::RuleKind, rule_kind(record.rule).as_bytes());
    each(
        Dimension::Outcome,
        &outcome_value(record.decision, record.code),
    );
}

/// What is indexed of a decision and a code: both, big-endian.
fn outcome_value(decision: i32, code: i32) -> [u8; 8] {
    (u64::from(decision.cast_unsigned()) << 32 | u64::from(code.cast_unsigned())).to_be_bytes()
}

/// The decision and the code of a value.
fn outcome_of(value: &[u8]) -> Option<(i32, i32)> {
    let both = u64::from_be_bytes(value.try_into().ok()?);
    Some(((both >> 32) as i32, both as i32))
}

/// What a filter asks of a dimension.
pub(super) enum Asked<'f> {
    /// This value.
    Is(&'f [u8]),
    /// A value that begins so.
    Begins(Cow<'f, [u8]>),
    /// An outcome that the filter accepts.
    Outcome(&'f Filter),
}

impl Asked<'_> {
    /// Whether a record with the value, which may be cut, may be one of those asked for.
    pub(super) fn may_be(&self, value: &[u8]) -> bool {
        match self {
            Asked::Is(asked) => cut(asked) == value,
            Asked::Begins(asked) => value.starts_with(cut(asked)),
            Asked::Outcome(filter) => outcome_of(value)
                .is_none_or(|(decision, code)| filter.accepts_outcome(decision, code)),
        }
    }
}

/// What the filter asks of which dimensions; a record that it accepts satisfies all of it.
pub(super) fn asked_by<'f>(filter: &'f Filter) -> Vec<(Dimension, Asked<'f>)> {
    let mut all = Vec::new();
    let mut is = |dimension, value: Option<&'f str>| {
        all.extend(value.map(|value| (dimension, Asked::Is(value.as_bytes()))));
    };
    is(Dimension::Tenant, filter.tenant.as_deref());
    is(Dimension::Resource, filter.key.as_deref().map(indexed_name));
    is(Dimension::Action, filter.action.as_deref());
    is(Dimension::Rpc, filter.rpc.as_deref());
    is(Dimension::RuleKind, filter.rule_kind.as_deref());
    match &filter.principal {
        None => {}
        Some(PrincipalFilter::Exact(name)) => is(Dimension::Principal, Some(name)),
        Some(PrincipalFilter::InTenant(tenant)) => {
            is(Dimension::Tenant, Some(tenant));
            let beginning = format!("tenants/{tenant}").into_bytes();
            all.push((Dimension::Principal, Asked::Begins(beginning.into())));
        }
    }
    if let Some(field) = &filter.field {
        let asked = match field.strip_suffix('*') {
            Some(beginning) => Asked::Begins(beginning.as_bytes().into()),
            None => Asked::Is(field.as_bytes()),
        };
        all.push((Dimension::Field, asked));
    }
    if filter.decision.is_some() || filter.only_failed {
        all.push((Dimension::Outcome, Asked::Outcome(filter)));
    }
    all
}
