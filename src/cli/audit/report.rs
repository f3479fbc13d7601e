//! `fieldkeep audit report`: who did what and how much, over a range of time.

use std::io::{self, BufWriter, Write as _};

use clap::{Args, ValueEnum};
use fieldkeep_audit::report::builder::Builder;
use fieldkeep_audit::report::{Basis, OverdueKey, Range};
use fieldkeep_client::{Client, Error};
use fieldkeep_proto::v1;

use super::filter::parse_time;
use crate::cli::failure::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// From this time on: `2026-11-28`, `2026-11-28T14:00:00Z`, or how long ago: `30d`
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: u64,
    /// Before this time; without it, up to now
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "0s")]
    until: u64,
    /// What to write
    #[arg(long = "as", value_name = "FORM", default_value = "text")]
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For a terminal
    Text,
    /// All numbers, for programs
    Json,
    /// One page with plots, which needs nothing from elsewhere
    Html,
}

/// Reads the records of the range, and writes what they come to.
pub(crate) async fn run(args: &ReportArgs, client: &Client) -> Result<(), Failure> {
    let failed = |error| Failure::from(error).while_doing("cannot read the audit records");
    let range = Range::new(args.since, args.until)
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let mut builder = Builder::new(range);
    let request = v1::TailRecordsRequest {
        start_index: Some(0),
        filter: Some(v1::AuditFilter {
            start_time_us: args.since,
            end_time_us: args.until,
            ..v1::AuditFilter::default()
        }),
        follow: false,
    };
    let mut tail = client.audit().tail(request).await.map_err(failed)?;
    while let Some(step) = tail.next_step().await.map_err(failed)? {
        for entry in step.entries {
            builder.add(entry.index, &entry.record.unwrap_or_default());
        }
    }
    let overdue = overdue(client, args.until).await.map_err(failed)?;
    // Asked for last, so that it is over all that was read.
    let newest = client.audit().checkpoint().await.map_err(failed)?;
    let basis = Basis {
        log_id: log_id(&newest.verifier_key).unwrap_or_default(),
        checkpoint: newest.checkpoint,
    };
    let report = builder.finish(basis, overdue);
    let mut out = BufWriter::new(io::stdout().lock());
    match args.form {
        Form::Text => report.write_text(&mut out),
        Form::Json => report.write_json(&mut out),
        Form::Html => report.write_html(&mut out),
    }
    .and_then(|()| out.flush())
    .map_err(|error| Failure::new(Exit::Failed, "cannot write the report").caused_by(&error))
}

/// The keys of all tenants whose rotation was due before `now_us`.
async fn overdue(client: &Client, now_us: u64) -> Result<Vec<OverdueKey>, Error> {
    let mut overdue = Vec::new();
    let mut tenants = client.tenants().list();
    while let Some(page) = tenants.next_page().await? {
        for tenant in page {
            let mut keys = client.keys().list(&tenant.name);
            while let Some(page) = keys.next_page().await? {
                overdue.extend(page.into_iter().filter_map(|key| of_key(key, now_us)));
            }
        }
    }
    Ok(overdue)
}

fn of_key(key: v1::Key, now_us: u64) -> Option<OverdueKey> {
    let next = key.next_rotation?;
    let due = next.time.as_ref()?;
    let due_us = u64::try_from(due.seconds).ok()?.checked_mul(1_000_000)?;
    (due_us < now_us).then(|| OverdueKey {
        due_us,
        name: key.name,
        reason: String::from("its schedule"),
    })
}

/// The log's id, from the name of its key.
fn log_id(verifier_key: &str) -> Option<[u8; 16]> {
    let hex = verifier_key.strip_prefix("fieldkeep/audit/")?.get(..32)?;
    let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?;
    bytes.try_into().ok()
}
