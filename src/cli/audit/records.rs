//! Records as people and programs read them.

use fieldkeep_audit::export::jsonl::Line;
use fieldkeep_proto::v1;

use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{rfc3339, table};

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

/// A record as one line for people.
pub(crate) fn line(entry: &v1::AuditEntry) -> String {
    let record = entry.record.clone().unwrap_or_default();
    let result = if is_head(&record) {
        result_text(&record)
    } else {
        String::from("see part 1")
    };
    let words = [
        entry.index.to_string(),
        time_text(record.time_us),
        short(&record.principal, "nobody"),
        short(&record.action, &record.rpc),
        resources_text(&record),
        decision(&record).to_owned(),
        result,
    ];
    let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
    words.join("  ")
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

pub(crate) fn time_text(time_us: u64) -> String {
    let value = rfc3339(i64::try_from(time_us / 1_000_000).unwrap_or(i64::MAX));
    value.as_str().unwrap_or("-").to_owned()
}

/// A record as a JSON object, as exports have it.
pub(crate) fn object(entry: &v1::AuditEntry) -> Result<serde_json::Value, Failure> {
    let record = entry.record.clone().unwrap_or_default();
    serde_json::to_value(Line::of(entry.index, &record))
        .map_err(|error| Failure::new(Exit::Failed, "the record is no JSON").caused_by(&error))
}
