//! `fieldkeep audit show`: one record.

use clap::Args;
use fieldkeep_client::Client;
use fieldkeep_proto::v1;
use fieldkeep_proto::v1::AuditRecord;
use fieldkeep_tlog::evidence::InclusionProof;
use prost::Message as _;
use serde_json::Value;

use super::records;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, print_json, print_line};

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The record's index
    index: u64,
}

/// The members in the order in which people ask for them.
const MEMBERS: [&str; 27] = [
    "index",
    "time",
    "principal",
    "authentication",
    "credential",
    "address",
    "rpc",
    "action",
    "resources",
    "decision",
    "rule",
    "code",
    "reason",
    "detail",
    "items_ok",
    "items_failed",
    "summarised",
    "duration_us",
    "context_hash",
    "phase",
    "operation_id",
    "intended_keys",
    "changes",
    "store_revision",
    "part",
    "parts",
    "request_id",
];
/// Those that mean something when they are 0.
const ALWAYS: [&str; 2] = ["index", "code"];

/// Prints what a record has; all of it as JSON.
pub(crate) async fn run(args: &ShowArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let failed = |error| Failure::from(error).while_doing("cannot read the audit record");
    let proven = client
        .audit()
        .prove(args.index, None)
        .await
        .map_err(failed)?;
    let unreadable = || Failure::new(Exit::Failed, "the service's answer has no record in it");
    let proof: InclusionProof = proven.proof.parse().map_err(|_| unreadable())?;
    let record =
        AuditRecord::decode(proof.extra().unwrap_or_default()).map_err(|_| unreadable())?;
    let object = records::object(&v1::AuditEntry {
        index: args.index,
        record: Some(record),
    })?;
    match (format, object) {
        (Format::Table, Value::Object(members)) => {
            for name in MEMBERS {
                let value = match members.get(name) {
                    Some(Value::String(text)) => text.clone(),
                    Some(Value::Array(all)) if all.is_empty() => String::new(),
                    Some(other) => other.to_string(),
                    None => String::new(),
                };
                if !value.is_empty() && value != "0" || ALWAYS.contains(&name) {
                    print_line(format_args!("{name:16} {value}"))?;
                }
            }
            Ok(())
        }
        (_, object) => print_json(&object),
    }
}
