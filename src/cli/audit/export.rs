//! `fieldkeep audit export`: records for other tools.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fieldkeep_audit::export::{jsonl, ocsf};
use fieldkeep_client::Client;
use fieldkeep_proto::v1;

use super::filter::FilterArgs;
use crate::cli::failure::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// What to write: a JSON object a record, or an event of the Open Cybersecurity Schema Framework
    #[arg(long = "as", value_name = "FORM", default_value = "jsonl")]
    form: Form,
    #[command(flatten)]
    filter: FilterArgs,
    /// Begin at the record with this index
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    from: u64,
    /// Write to this file, not to standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// JSON lines
    Jsonl,
    /// OCSF: API Activity (6003) and Entity Management (3004)
    Ocsf,
}

/// Writes records, oldest first.
pub(crate) async fn run(args: &ExportArgs, client: &Client) -> Result<(), Failure> {
    let failed = |error| Failure::from(error).while_doing("cannot read the audit records");
    let unwritten =
        |error: io::Error| Failure::new(Exit::Failed, "cannot write the export").caused_by(&error);
    let key = client
        .audit()
        .checkpoint()
        .await
        .map_err(failed)?
        .verifier_key;
    let log_name = key.split('+').next().unwrap_or_default();
    let request = v1::TailRecordsRequest {
        start_index: Some(args.from),
        filter: Some(args.filter.filter()?),
        follow: false,
    };
    let mut tail = client.audit().tail(request).await.map_err(failed)?;
    let mut out: Box<dyn Write + Send> = match &args.out {
        None => Box::new(BufWriter::new(io::stdout())),
        Some(path) => {
            let file = File::create(path).map_err(|error| {
                let problem = format!("cannot write `{}`", path.display());
                Failure::new(Exit::Failed, problem).caused_by(&error)
            })?;
            Box::new(BufWriter::new(file))
        }
    };
    let mut count: u64 = 0;
    while let Some(step) = tail.next_step().await.map_err(failed)? {
        for entry in step.entries {
            let record = entry.record.unwrap_or_default();
            match args.form {
                Form::Jsonl => jsonl::write(&mut out, entry.index, &record),
                Form::Ocsf => {
                    let source = ocsf::Source {
                        log_name,
                        product_version: env!("CARGO_PKG_VERSION"),
                    };
                    ocsf::write(&mut out, source, entry.index, &record)
                }
            }
            .map_err(unwritten)?;
            count += 1;
        }
    }
    out.flush().map_err(unwritten)?;
    eprintln!("wrote {count} records");
    Ok(())
}
