//! `fieldkeep data`: whole CSV files.
//!
//! `reader` splits the input into records that keep their raw text, `pipeline` moves chunks of them through parallel
//! batches in order, `transform` is what happens to a chunk, `target` makes the output whole or not there.

mod cipher;
mod columns;
mod pipeline;
mod reader;
mod record;
mod service;
mod target;
mod transform;

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use fieldkeep_client::Client;
use serde_json::json;

pub(crate) use columns::{ColumnChoice, ContextChoice};
pub(crate) use pipeline::Job;
pub(crate) use target::Target;
pub(crate) use transform::{Counts, Direction};

use super::connection::ConnectionArgs;
use super::failure::{Exit, Failure, file_failure};
use super::output::{Format, count_of, print_json, print_line, thousands};
use super::progress::byte_progress;

/// Encrypt, decrypt or re-encrypt columns of a CSV file.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  fieldkeep data encrypt --input customers.csv --output sealed.csv \\
      --column email=pii:customer.email --column ssn=pii:customer.ssn --context id")]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Encrypt columns of a CSV file
    ///
    /// The file is RFC 4180 text with a header. Everything but the chosen columns stays as it is, byte for byte, and
    /// `data decrypt` restores the rest. Empty values stay empty. A value that is encrypted already, that is, opens with
    /// the same field and context, stays as it is, so that a run can be repeated. The output appears when it is
    /// complete, and is readable by its owner alone.
    #[command(after_help = "\
Example:
  fieldkeep data encrypt --input customers.csv --output sealed.csv \\
      --column email=pii:customer.email --column ssn=pii:customer.ssn --context id")]
    Encrypt(FileArgs),
    /// Decrypt columns of a CSV file
    ///
    /// Field and context columns must be those the file was encrypted with. A value that does not open ends the command
    /// and nothing is written, unless --keep-going is given. The output is readable by its owner alone.
    #[command(after_help = "\
Example:
  fieldkeep data decrypt --input sealed.csv --output opened.csv \\
      --column email=pii:customer.email --column ssn=pii:customer.ssn --context id")]
    Decrypt(OpenArgs),
    /// Bring columns of an encrypted CSV file under the primary version of their key
    ///
    /// The plaintext never leaves the service. Values that are current already stay as they are.
    #[command(after_help = "\
Example:
  fieldkeep data reencrypt --input sealed.csv --output renewed.csv --column email=pii:customer.email --context id")]
    Reencrypt(OpenArgs),
}

#[derive(Debug, Args)]
struct FileArgs {
    /// The CSV file to read
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The CSV file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// A column with its key and field, as in email=pii:customer.email; may be given several times
    #[arg(long = "column", value_name = "COLUMN=KEY:FIELD", required = true)]
    columns: Vec<ColumnChoice>,
    /// A column that binds each row, so that a value moved to another row does not open; may be given several times.
    /// NAME=COLUMN if the column's name is no context name
    #[arg(long, value_name = "COLUMN", required_unless_present = "no_context")]
    context: Vec<ContextChoice>,
    /// Bind values to their field alone: rows can then be swapped unnoticed
    #[arg(long, conflicts_with = "context")]
    no_context: bool,
    /// Replace the output if it exists
    #[arg(long)]
    force: bool,
    /// Batches under way at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
}

#[derive(Debug, Args)]
struct OpenArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Leave values that do not open as they are; the exit code is then 5
    #[arg(long)]
    keep_going: bool,
}

/// Runs the verb.
pub(crate) async fn run(
    args: DataArgs,
    connection: &ConnectionArgs,
    format: Format,
) -> Result<(), Failure> {
    let (direction, file) = match args.verb {
        Verb::Encrypt(file) => (Direction::Encrypt, file),
        Verb::Decrypt(open) => (
            Direction::Decrypt {
                keep_going: open.keep_going,
            },
            open.file,
        ),
        Verb::Reencrypt(open) => (
            Direction::ReEncrypt {
                keep_going: open.keep_going,
            },
            open.file,
        ),
    };
    if let (Direction::Encrypt, Some(choice)) = (
        direction,
        file.columns.iter().find(|choice| choice.key.is_none()),
    ) {
        let field = &choice.field;
        return Err(Failure::new(
            Exit::Usage,
            format_args!("the column `{}` has no key", choice.column),
        )
        .help(format_args!(
            "write it as --column {}=KEY:{field}",
            choice.column
        )));
    }
    target::refuse_same_file(&file.input, &file.output)?;
    let input =
        File::open(&file.input).map_err(|error| file_failure("read", &file.input, &error))?;
    let input_bytes = input
        .metadata()
        .map(|metadata| metadata.len())
        .unwrap_or_default();
    let mut output = Target::create(&file.output, file.force)?;
    let client = connection.client()?;
    let job = Job {
        direction,
        columns: file.columns,
        context: file.context,
        parallel: file.parallel.into(),
    };
    let bar = byte_progress(words(direction).0, input_bytes);
    let started = Instant::now();
    let counts = process(job, input, &mut output, &client, |bytes| bar.inc(bytes)).await;
    bar.finish_and_clear();
    let counts = counts?;
    output.finish()?;
    report(format, direction, counts, started.elapsed(), &file.output)?;
    if counts.left > 0 {
        let what = format!(
            "{} did not open and stayed as before",
            count_of(counts.left, "value")
        );
        return Err(Failure::new(Exit::Invalid, what)
            .help("the output is written; look at those values before you rely on it"));
    }
    Ok(())
}

/// Runs a job with the service as its cipher.
pub(crate) async fn process<R, W>(
    job: Job,
    input: R,
    output: &mut W,
    client: &Client,
    advanced: impl Fn(u64),
) -> Result<Counts, Failure>
where
    R: std::io::Read + Send + 'static,
    W: std::io::Write,
{
    let client = client.clone();
    let cipher = move |operation, items| service::call_service(client.clone(), operation, items);
    pipeline::run(job, input, output, cipher, advanced).await
}

fn words(direction: Direction) -> (&'static str, &'static str, &'static str) {
    match direction {
        Direction::Encrypt => ("encrypting", "encrypted", "encrypted already"),
        Direction::Decrypt { .. } => ("decrypting", "decrypted", ""),
        Direction::ReEncrypt { .. } => ("re-encrypting", "re-encrypted", "current already"),
    }
}

fn report(
    format: Format,
    direction: Direction,
    counts: Counts,
    elapsed: Duration,
    output: &std::path::Path,
) -> Result<(), Failure> {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let rate = |count: u64| (count as f64 / seconds).round() as u64;
    if format == Format::Json {
        return print_json(&json!({
            "output": output.display().to_string(),
            "rows": counts.rows,
            "values": counts.values,
            "already": counts.already,
            "empty": counts.empty,
            "left": counts.left,
            "seconds": (seconds * 1_000.0).round() / 1_000.0,
            "rows_per_second": rate(counts.rows),
            "values_per_second": rate(counts.values + counts.already),
        }));
    }
    let (_, done, already) = words(direction);
    let mut parts = vec![
        count_of(counts.rows, "row"),
        format!("{} {done}", count_of(counts.values, "value")),
    ];
    let others = [
        (counts.already, already),
        (counts.empty, "empty"),
        (counts.left, "left as before"),
    ];
    parts.extend(
        others
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{} {what}", thousands(*count))),
    );
    print_line(format_args!(
        "{}: {} in {seconds:.1} s ({} rows/s, {} values/s)",
        output.display(),
        parts.join(", "),
        thousands(rate(counts.rows)),
        thousands(rate(counts.values + counts.already)),
    ))
}

#[cfg(test)]
mod tests;
