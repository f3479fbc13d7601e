//! Which records a verb is about.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use data_encoding::HEXLOWER_PERMISSIVE;
use fieldkeep_proto::v1;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::failure::{Exit, Failure};
use crate::cli::field::parse_pair;

/// Which records. All conditions count together.
#[derive(Debug, Default, Args)]
pub(crate) struct FilterArgs {
    /// Only calls that ended then or later: `2026-11-28`, `2026-11-28T14:00:00Z`, or how long ago: `90m`, `7d`
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) since: Option<u64>,
    /// Only calls that ended before: as --since
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) until: Option<u64>,
    /// Only calls of this identity: `TENANT/NAME`, or a full name
    #[arg(long, value_name = "IDENTITY")]
    principal: Option<String>,
    /// Only calls of this tenant's identities, and calls that used what is this tenant's
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Only calls that used this key: `TENANT/KEY`, or a full name
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Only calls that used this field; `customer.*` for all that begin so
    #[arg(long, value_name = "FIELD")]
    field: Option<String>,
    /// Only calls about the item with this encryption context; give all its parts, each with an --item of its own.
    /// The key's setting `audit-items` must have been `hashes` when they came
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair, requires_all = ["key", "field"])]
    item: Vec<(String, String)>,
    /// Only this action, for example `decrypt`
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Only calls with this decision
    #[arg(long, value_name = "DECISION")]
    decision: Option<Decision>,
    /// Only calls that this kind of rule decided, for example `no-grant`
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,
    /// Only this RPC, for example `fieldkeep.v1.FieldService/Decrypt`
    #[arg(long, value_name = "RPC")]
    rpc: Option<String>,
    /// Only the call with this id, as errors and replies name it
    #[arg(long, value_name = "HEX")]
    request_id: Option<String>,
    /// Only calls that were refused or failed
    #[arg(long)]
    failed: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Decision {
    Allowed,
    Refused,
}

impl FilterArgs {
    /// The filter as the service takes it.
    pub(crate) fn filter(&self) -> Result<v1::AuditFilter, Failure> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let request_id = match &self.request_id {
            None => Vec::new(),
            Some(hex) => HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).map_err(|_| {
                Failure::new(
                    Exit::Usage,
                    format!("`{hex}` is no id of a call: 32 hexadecimal digits"),
                )
            })?,
        };
        let decision = match self.decision {
            None => v1::Decision::Unspecified,
            Some(Decision::Allowed) => v1::Decision::Allowed,
            Some(Decision::Refused) => v1::Decision::Refused,
        };
        Ok(v1::AuditFilter {
            start_time_us: self.since.unwrap_or(0),
            end_time_us: self.until.unwrap_or(0),
            principal: full(&self.principal, "identities"),
            tenant: text(&self.tenant),
            key: full(&self.key, "keys"),
            field: text(&self.field),
            item: self.item(),
            action: text(&self.action),
            decision: decision.into(),
            rule: text(&self.rule),
            rpc: text(&self.rpc),
            request_id: request_id.into(),
            failed: self.failed,
        })
    }
}

impl FilterArgs {
    fn item(&self) -> Option<v1::AuditItem> {
        let pair = |(name, value): &(String, String)| v1::ContextPair {
            name: name.clone(),
            value: value.clone(),
        };
        (!self.item.is_empty()).then(|| v1::AuditItem {
            context: self.item.iter().map(pair).collect(),
        })
    }
}

/// `tenants/acme/keys/pii` of `acme/pii`; in the tenant `default` without one.
fn full(name: &Option<String>, kind: &str) -> String {
    match name.as_deref() {
        None => String::new(),
        Some(name) if name.starts_with("tenants/") => name.to_owned(),
        Some(name) => {
            let (tenant, name) = name.split_once('/').unwrap_or(("default", name));
            format!("tenants/{tenant}/{kind}/{name}")
        }
    }
}

/// Microseconds since the Unix epoch, of a date, a time, or how long ago it was.
pub(crate) fn parse_time(text: &str) -> Result<u64, String> {
    let at = if let Ok(ago) = humantime::parse_duration(text) {
        SystemTime::now().checked_sub(ago)
    } else {
        let whole = if text.len() == "2026-11-28".len() {
            format!("{text}T00:00:00Z")
        } else {
            text.to_owned()
        };
        OffsetDateTime::parse(&whole, &Rfc3339)
            .ok()
            .map(SystemTime::from)
    };
    at.and_then(|at| at.duration_since(UNIX_EPOCH).ok())
        .as_ref()
        .map(Duration::as_micros)
        .and_then(|us| u64::try_from(us).ok())
        .ok_or_else(|| {
            String::from("neither a date such as `2026-11-28`, nor a time such as `2026-11-28T14:00:00Z`, nor a duration such as `7d`")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_moments_or_how_long_ago() {
        assert_eq!(parse_time("1970-01-02"), Ok(86_400_000_000));
        assert_eq!(parse_time("1970-01-01T00:00:01.5Z"), Ok(1_500_000));
        let hour_ago = parse_time("1h").unwrap();
        assert!(parse_time("2h").unwrap() < hour_ago);
        for text in ["", "yesterday", "2026-13-01", "-1h"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn short_names_become_full_ones() {
        let full = |name: &str| full(&Some(name.to_owned()), "keys");
        assert_eq!(full("acme/pii"), "tenants/acme/keys/pii");
        assert_eq!(full("pii"), "tenants/default/keys/pii");
        assert_eq!(full("tenants/acme/keys/pii"), "tenants/acme/keys/pii");
    }
}
