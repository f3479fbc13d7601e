//! `fieldkeep audit tail`: records as they come.

use clap::Args;
use fieldkeep_client::Client;
use fieldkeep_proto::v1;

use super::filter::FilterArgs;
use super::records;
use crate::cli::failure::Failure;
use crate::cli::output::{Format, print_line};

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Begin at the record with this index, not with the next that comes
    #[arg(long, value_name = "INDEX")]
    from: Option<u64>,
    /// End behind the newest record
    #[arg(long)]
    no_follow: bool,
}

/// Prints records until it is interrupted: a line each, or a JSON object a line.
pub(crate) async fn run(args: &TailArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let request = v1::TailRecordsRequest {
        start_index: args.from,
        filter: Some(args.filter.filter()?),
        follow: !args.no_follow,
    };
    let failed = |error| Failure::from(error).while_doing("cannot read the audit records");
    let mut tail = client.audit().tail(request).await.map_err(failed)?;
    while let Some(step) = tail.next_step().await.map_err(failed)? {
        for entry in &step.entries {
            match format {
                Format::Json => print_line(records::object(entry)?)?,
                Format::Table => print_line(records::line(entry))?,
            }
        }
    }
    Ok(())
}
