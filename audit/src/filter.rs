//! Which records somebody asks for.

use fieldkeep_proto::v1::{AuditRecord, Decision};

use crate::items::{HASH_BYTES, items};
use crate::view::{RecordView, ResourceView};

/// Which records somebody asks for: those that satisfy all that is set. The default is all records.
///
/// A call whose record has several parts is looked at part by part. Its further parts have no code, no rule and only their own
/// resources, so that they are found by time, caller, RPC, action, decision, request id and what they name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Calls that ended at this time or later, microseconds since the Unix epoch.
    pub from_us: Option<u64>,
    /// Calls that ended before this time, microseconds since the Unix epoch.
    pub to_us: Option<u64>,
    /// Who called.
    pub principal: Option<PrincipalFilter>,
    /// The name of a tenant: calls of its identities, and calls that used it or what belongs to it, whoever called.
    pub tenant: Option<String>,
    /// A resource that was used, `tenants/{tenant}/keys/{key}` or another name of a resource, as the record has it.
    pub key: Option<String>,
    /// A field that was used: its name, or the beginning of names followed by `*`. With `key` it is one of that key.
    pub field: Option<String>,
    /// The keyed hash of an item. With `key` or `field` it is one of that. Indexes do not know of items.
    pub item: Option<[u8; HASH_BYTES]>,
    /// The action, for example `decrypt`.
    pub action: Option<String>,
    /// What was decided.
    pub decision: Option<Decision>,
    /// The RPC, for example `fieldkeep.v1.FieldService/Decrypt`.
    pub rpc: Option<String>,
    /// What kind of rule decided: the rule up to its first `:`, for example `grant`, `no-grant` or `limit`.
    pub rule_kind: Option<String>,
    /// The call's id.
    pub request_id: Option<[u8; 16]>,
    /// Only calls that failed: their `google.rpc.Code` is not 0 (OK), or they were refused. A batch of which some items failed is not one.
    pub only_failed: bool,
}

/// Whose calls somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrincipalFilter {
    /// The identity `tenants/{tenant}/identities/{name}`; empty for callers that could not be named.
    Exact(String),
    /// Every identity of the tenant of this name.
    InTenant(String),
}

impl Filter {
    /// Whether the record is one of those asked for.
    #[must_use]
    pub fn accepts(&self, record: &AuditRecord) -> bool {
        let view = RecordView {
            time_us: record.time_us,
            request_id: &record.request_id,
            principal: &record.principal,
            rpc: &record.rpc,
            action: &record.action,
            decision: record.decision,
            rule: &record.rule,
            code: record.code,
            ..RecordView::default()
        };
        let used = record.resources.iter().map(|used| ResourceView {
            name: &used.name,
            version: used.version,
            field: &used.field,
            items: used.items,
            item_hashes: &used.item_hashes,
        });
        self.accepts_call(&view) && self.accepts_resources(view.principal, used)
    }

    /// As [`Filter::accepts`], of a record that is encoded. It does not allocate.
    #[must_use]
    pub fn accepts_view(&self, record: &RecordView<'_>) -> bool {
        self.accepts_call(record) && self.accepts_resources(record.principal, record.resources())
    }

    /// All but what is about the resources.
    fn accepts_call(&self, record: &RecordView<'_>) -> bool {
        let is =
            |asked: &Option<String>, is: &str| asked.as_deref().is_none_or(|asked| asked == is);
        self.from_us.is_none_or(|from| record.time_us >= from)
            && self.to_us.is_none_or(|to| record.time_us < to)
            && is(&self.action, record.action)
            && is(&self.rpc, record.rpc)
            && is(&self.rule_kind, rule_kind(record.rule))
            && self.accepts_outcome(record.decision, record.code)
            && self
                .request_id
                .is_none_or(|asked| record.request_id == asked.as_slice())
            && match &self.principal {
                None => true,
                Some(PrincipalFilter::Exact(name)) => record.principal == name,
                Some(PrincipalFilter::InTenant(tenant)) => {
                    tenant_of(record.principal) == Some(tenant)
                }
            }
    }

    /// What is about the decision and the code.
    pub(crate) fn accepts_outcome(&self, decision: i32, code: i32) -> bool {
        let failed = code != 0 || decision == i32::from(Decision::Refused);
        self.decision
            .is_none_or(|asked| decision == i32::from(asked))
            && (failed || !self.only_failed)
    }

    fn accepts_resources<'r>(
        &self,
        principal: &str,
        mut used: impl Iterator<Item = ResourceView<'r>> + Clone,
    ) -> bool {
        let of_tenant = |tenant: &String| {
            tenant_of(principal) == Some(tenant)
                || used
                    .clone()
                    .any(|used| tenant_of(used.name) == Some(tenant))
        };
        let wanted = |used: ResourceView<'_>| {
            self.key.as_ref().is_none_or(|key| key == used.name)
                && self
                    .field
                    .as_ref()
                    .is_none_or(|asked| field_accepts(asked, used.field))
                && self
                    .item
                    .is_none_or(|asked| items(used.item_hashes).any(|item| *item.hash == asked))
        };
        let any = self.key.is_none() && self.field.is_none() && self.item.is_none();
        self.tenant.as_ref().is_none_or(of_tenant) && (any || used.any(wanted))
    }
}

/// Whether `asked`, a name or the beginning of names followed by `*`, covers the field.
fn field_accepts(asked: &str, field: &str) -> bool {
    match asked.strip_suffix('*') {
        Some(beginning) => field.starts_with(beginning),
        None => field == asked,
    }
}

/// The kind of a rule: what it is up to its first `:`.
pub(crate) fn rule_kind(rule: &str) -> &str {
    rule.split_once(':').map_or(rule, |(kind, _)| kind)
}

/// The tenant that a resource or identity belongs to: `t` of `tenants/t` and of `tenants/t/...`.
pub(crate) fn tenant_of(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("tenants/")?;
    Some(rest.split_once('/').map_or(rest, |(tenant, _)| tenant))
}

#[cfg(test)]
mod tests;
