//! `fieldkeep audit`: who did what, and the proof of it.

mod export;
mod filter;
mod prove;
pub(crate) mod records;
mod report;
mod show;
mod tail;
mod verify;

use clap::{Args, Subcommand};
use fieldkeep_client::Client;
use serde_json::Value;

use self::filter::FilterArgs;
use super::connection::ConnectionArgs;
use super::failure::Failure;
use super::output::{Format, print_json, print_line};
use super::pages::{LimitArgs, collect};

/// Read and verify the audit trail.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fieldkeep audit list --field customer.email --action decrypt --since 7d\n  fieldkeep audit tail\n  fieldkeep audit verify --dir fk/data --key audit.vkey"
)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List records, newest first
    #[command(
        after_help = "Examples:\n  fieldkeep audit list --limit 20\n  fieldkeep audit list --field customer.email --action decrypt --since 7d\n  fieldkeep audit list --key acme/pii --field customer.ssn --item id=4711\n  fieldkeep audit list --principal acme/app --failed --format json"
    )]
    List(ListArgs),
    /// Follow records as they come
    #[command(after_help = "Example:\n  fieldkeep audit tail --failed")]
    Tail(tail::TailArgs),
    /// Show all of one record
    #[command(after_help = "Example:\n  fieldkeep audit show 4711")]
    Show(show::ShowArgs),
    /// Verify a trail, or one proof, offline with the public key alone
    #[command(
        after_help = "Examples:\n  fieldkeep audit verify --dir fk/data --key audit.vkey\n  fieldkeep audit verify --proof record-4711.tlog-proof --key audit.vkey"
    )]
    Verify(verify::VerifyArgs),
    /// Prove that a record is in the log; what is written can be checked offline
    #[command(
        after_help = "Examples:\n  fieldkeep audit prove 4711\n  fieldkeep audit prove fkr1:q83v... --out record.tlog-proof"
    )]
    Prove(prove::ProveArgs),
    /// Print the newest checkpoint, a signed note
    #[command(
        after_help = "Examples:\n  fieldkeep audit checkpoint > checkpoint\n  fieldkeep audit checkpoint --verifier-key > audit.vkey\n  fieldkeep audit checkpoint --since checkpoint"
    )]
    Checkpoint(prove::CheckpointArgs),
    /// Write records for other tools, oldest first
    #[command(
        after_help = "Examples:\n  fieldkeep audit export --as ocsf --since 1d > events.jsonl\n  fieldkeep audit export --as jsonl --out audit.jsonl"
    )]
    Export(export::ExportArgs),
    /// Sum up who did what and how much, signed by the log
    #[command(
        after_help = "Examples:\n  fieldkeep audit report --since 30d\n  fieldkeep audit report --since 2026-11-01 --until 2026-12-01 --as html --output november.html"
    )]
    Report(report::ReportArgs),
    /// Verify a report, offline with the public key alone
    #[command(
        after_help = "Example:\n  fieldkeep audit verify-report november.html --key audit.vkey"
    )]
    VerifyReport(report::VerifyReportArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    limit: LimitArgs,
}

/// Runs the verb.
pub(crate) async fn run(
    args: AuditArgs,
    connection: &ConnectionArgs,
    format: Format,
) -> Result<(), Failure> {
    match args.verb {
        Verb::List(args) => list(&args, &connection.client()?, format).await,
        Verb::Tail(args) => tail::run(&args, &connection.client()?, format).await,
        Verb::Show(args) => show::run(&args, &connection.client()?, format).await,
        Verb::Verify(args) => verify::run(args, format).await,
        Verb::Prove(args) => prove::prove(&args, &connection.client()?).await,
        Verb::Checkpoint(args) => prove::checkpoint(&args, &connection.client()?).await,
        Verb::Export(args) => export::run(&args, &connection.client()?).await,
        Verb::Report(args) => report::run(&args, &connection.client()?).await,
        Verb::VerifyReport(args) => report::verify_report(&args, format),
    }
}

async fn list(args: &ListArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let filter = args.filter.filter()?;
    let found = client.audit().find(filter);
    let entries = collect(found, &args.limit, "list the audit records").await?;
    match format {
        Format::Json => print_json(&Value::Array(
            entries
                .iter()
                .map(records::object)
                .collect::<Result<_, _>>()?,
        )),
        Format::Table if entries.is_empty() => print_line("no records"),
        Format::Table => print_line(records::records_table(&entries)),
    }
}
