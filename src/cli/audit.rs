//! `fieldkeep audit`: who did what.

use clap::{Args, Subcommand};
use data_encoding::HEXLOWER;
use fieldkeep_client::Client;
use fieldkeep_proto::v1;
use serde_json::{Value, json};

use super::failure::Failure;
use super::output::{Format, print_json, print_line, rfc3339, table};
use super::pages::{LimitArgs, collect};

/// Read the audit trail.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  fieldkeep audit list --limit 20")]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List records, newest first
    #[command(
        after_help = "Examples:\n  fieldkeep audit list --limit 20\n  fieldkeep audit list --format json"
    )]
    List(LimitArgs),
}

/// Runs the verb.
pub(crate) async fn run(args: AuditArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let Verb::List(limit) = args.verb;
    let entries = collect(client.audit().list(), &limit, "list the audit records").await?;
    match format {
        Format::Json => print_json(&Value::Array(entries.iter().map(object).collect())),
        Format::Table if entries.is_empty() => print_line("no records"),
        Format::Table => print_line(records_table(&entries)),
    }
}

/// Records as a table for people.
pub(crate) fn records_table(entries: &[v1::AuditEntry]) -> String {
    let header = [
        "index",
        "time",
        "principal",
        "action",
        "resource",
        "items",
        "decision",
        "result",
    ];
    let rows = entries.iter().map(|entry| {
        let record = entry.record.clone().unwrap_or_default();
        let failed = if record.items_failed > 0 {
            format!(" ({} failed)", record.items_failed)
        } else {
            String::new()
        };
        let items = match record.items_ok + record.items_failed {
            0 => String::new(),
            items => format!("{items}{failed}"),
        };
        vec![
            entry.index.to_string(),
            time_text(record.time_us),
            short(&record.principal, "nobody"),
            format!(
                "{}{}",
                short(&record.action, &record.rpc),
                part_text(&record)
            ),
            resources_text(&record),
            items,
            format!("{} {}", decision(&record), record.rule)
                .trim()
                .to_owned(),
            if is_head(&record) {
                result_text(&record)
            } else {
                String::from("see part 1")
            },
        ]
    });
    table(Some(&header), rows.collect())
}

/// `acme/app` for `tenants/acme/identities/app`, `acme/pii` for `tenants/acme/keys/pii`.
pub(crate) fn short(name: &str, otherwise: &str) -> String {
    if name.is_empty() {
        return otherwise.to_owned();
    }
    match name.split('/').collect::<Vec<_>>().as_slice() {
        ["tenants", tenant, _, name] => format!("{tenant}/{name}"),
        ["tenants", tenant, _, name, "versions", version] => format!("{tenant}/{name} v{version}"),
        _ => name.to_owned(),
    }
}

fn resources_text(record: &v1::AuditRecord) -> String {
    let Some(first) = record.resources.first() else {
        return String::new();
    };
    let mut text = short(&first.name, "");
    if first.version > 0 {
        text.push_str(&format!(" v{}", first.version));
    }
    if !first.field.is_empty() {
        text.push_str(&format!(" {}", first.field));
    }
    match record.resources.len() - 1 {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

/// ` (2 of 3)` for a part of a record.
fn part_text(record: &v1::AuditRecord) -> String {
    match record.parts {
        0 | 1 => String::new(),
        parts => format!(" ({} of {parts})", record.part),
    }
}

/// Whether this is the first or only part of a call's record, the one that says how it ended.
pub(crate) fn is_head(record: &v1::AuditRecord) -> bool {
    record.part <= 1
}

/// What came of the call.
pub(crate) fn result_text(record: &v1::AuditRecord) -> String {
    if record.phase() == v1::Phase::Intent {
        return String::from("intent");
    }
    if record.summarised > 0 {
        return format!("{} calls {}", record.summarised, record.detail);
    }
    match (record.code, record.reason.as_str()) {
        (0, "") => match record.detail.split(' ').next() {
            // The first pair says the most; all of them are in the JSON form.
            Some(first) if !first.is_empty() => format!("ok {first}"),
            _ => String::from("ok"),
        },
        (code, "") => format!("code {code}"),
        (_, reason) => reason.to_owned(),
    }
}

/// What was decided.
pub(crate) fn decision(record: &v1::AuditRecord) -> &'static str {
    match record.decision() {
        v1::Decision::Allowed => "allowed",
        v1::Decision::Refused => "refused",
        v1::Decision::Unspecified => "unknown",
    }
}

fn time_text(time_us: u64) -> String {
    let value = rfc3339(i64::try_from(time_us / 1_000_000).unwrap_or(i64::MAX));
    value.as_str().unwrap_or("-").to_owned()
}

fn object(entry: &v1::AuditEntry) -> Value {
    let record = entry.record.clone().unwrap_or_default();
    let resources = record.resources.iter().map(|resource| {
        json!({
            "name": resource.name,
            "version": resource.version,
            "field": resource.field,
            "items": resource.items,
        })
    });
    let changes = record.changes.iter().map(|change| {
        json!({
            "store_key": HEXLOWER.encode(&change.store_key),
            "generation": change.generation,
            "value_sha256": HEXLOWER.encode(&change.value_sha256),
        })
    });
    json!({
        "index": entry.index,
        "time": time_text(record.time_us),
        "time_us": record.time_us,
        "request_id": HEXLOWER.encode(&record.request_id),
        "principal": record.principal,
        "authentication": record.authentication,
        "address": record.address,
        "rpc": record.rpc,
        "action": record.action,
        "decision": decision(&record),
        "rule": record.rule,
        "code": record.code,
        "reason": record.reason,
        "duration_us": record.duration_us,
        "resources": resources.collect::<Vec<_>>(),
        "context_hash": HEXLOWER.encode(&record.context_hash),
        "items_ok": record.items_ok,
        "items_failed": record.items_failed,
        "changes": changes.collect::<Vec<_>>(),
        "store_revision": record.store_revision,
        "detail": record.detail,
        "credential": record.credential,
        "part": record.part,
        "parts": record.parts,
        "phase": match record.phase() {
            v1::Phase::Unspecified => "",
            v1::Phase::Intent => "intent",
            v1::Phase::Outcome => "outcome",
        },
        "operation_id": HEXLOWER.encode(&record.operation_id),
        "intended_keys": record.intended_keys.iter().map(|key| HEXLOWER.encode(key)).collect::<Vec<_>>(),
        "summarised": record.summarised,
    })
}
