//! `fieldkeep status`: the service's own state.

use bytesize::ByteSize;
use clap::Args;
use data_encoding::HEXLOWER;
use fieldkeep_client::Client;
use serde_json::json;

use super::failure::Failure;
use super::output::{Format, print_object, rfc3339};

/// Show the state of the service.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  fieldkeep status --format json")]
pub(crate) struct StatusArgs {}

/// What people see: the free space in units, where JSON has bytes.
const MEMBERS: [&str; 12] = [
    "address",
    "version",
    "start_time",
    "calls",
    "store",
    "store_id",
    "store_revision",
    "root_provider",
    "cached_keys",
    "audit_records",
    "certificate_expire_time",
    "free_space",
];

/// Runs the verb.
pub(crate) async fn run(client: &Client, address: &str, format: Format) -> Result<(), Failure> {
    let failed = |error| Failure::from(error).while_doing("cannot ask the service for its state");
    let status = client.status().await.map_err(failed)?;
    let mut object = json!({
        "address": address,
        "version": status.version,
        "start_time": status.start_time.as_ref().map(|time| rfc3339(time.seconds)),
        "store": status.store,
        "store_id": HEXLOWER.encode(&status.store_id),
        "store_revision": status.store_revision,
        "root_provider": status.root_provider,
        "audit_records": status.audit_records,
        "cached_keys": status.cached_keys,
        "calls": status.calls,
        "certificate_expire_time": status.certificate_expire_time.as_ref().map(|time| rfc3339(time.seconds)),
    });
    if let Some(members) = object.as_object_mut() {
        let (name, free) = match format {
            Format::Json => ("free_bytes", json!(status.free_bytes)),
            Format::Table => ("free_space", json!(ByteSize(status.free_bytes).to_string())),
        };
        members.insert(name.to_owned(), free);
    }
    print_object(format, &MEMBERS, &object)
}
