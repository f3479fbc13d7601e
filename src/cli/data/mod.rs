//! `fieldkeep data`: whole files, CSV or JSON lines.
//!
//! `input` opens and decompresses, `rows` splits into rows that keep their raw text, `layout` finds the chosen values in a row,
//! `pipeline` moves chunks of rows through parallel batches in order, `transform` and `current` are what happens to a chunk,
//! `target` makes the output whole or not there, `resume` goes on after an interruption.

mod args;
mod cipher;
mod columns;
mod current;
mod input;
mod layout;
mod path;
mod pipeline;
mod reader;
mod record;
mod report;
mod resume;
mod row;
mod rows;
mod scan;
mod service;
mod splice;
mod target;
mod transform;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use data_encoding::HEXLOWER;
use fieldkeep_client::Client;
use serde_json::json;

pub(crate) use args::DataArgs;
pub(crate) use columns::ColumnChoice;
pub(crate) use input::Source;
pub(crate) use pipeline::Job;
pub(crate) use row::Shape;
pub(crate) use target::Target;
pub(crate) use transform::{Counts, Direction};

use self::args::{FileArgs, KeepArgs, Verb};
use self::input::Input;
use self::row::Problem;
use super::connection::ConnectionArgs;
use super::failure::{Exit, Failure, file_failure};
use super::output::{Format, count_of, thousands};
use super::progress::byte_progress;

/// What was left is told up to this number, unless it goes to a file.
const TOLD: u64 = 10;

/// Runs the verb.
pub(crate) async fn run(
    args: DataArgs,
    connection: &ConnectionArgs,
    format: Format,
) -> Result<(), Failure> {
    let (direction, file, keep) = match args.verb {
        Verb::Scan(args) => return scan::run(args, connection, format).await,
        Verb::Encrypt(file) => (Direction::Encrypt, file, None),
        Verb::Decrypt(open) => {
            let keep_going = open.keep.keep_going;
            (
                Direction::Decrypt { keep_going },
                open.file,
                Some(open.keep),
            )
        }
        Verb::Reencrypt(args) => {
            let direction = Direction::ReEncrypt {
                keep_going: args.open.keep.keep_going,
                dry_run: args.dry_run,
            };
            (direction, args.open.file, Some(args.open.keep))
        }
    };
    let job = job(direction, &file)?;
    let input = input::open(file.input.input.as_deref())?;
    let (mut target, left_before) = open_target(&job, &file, &input)?;
    let mut left = Left::new(keep.as_ref())?;
    let client = connection.client()?;

    let bar = byte_progress(report::doing(direction), input.bytes.unwrap_or_default());
    let source = Source {
        input: Box::new(bar.wrap_read(input.reader)),
        resume: left_before.map(|file| Box::new(file) as Box<_>),
    };
    let started = Instant::now();
    let counts = process(job, source, &mut target, &client, |problem| {
        bar.suspend(|| left.tell(problem))
    })
    .await;
    bar.finish_and_clear();
    let counts = counts?;
    target.finish()?;
    left.finish()?;
    report::print(
        format,
        direction,
        counts,
        started.elapsed(),
        file.output.as_deref(),
    )?;
    if counts.left > 0 {
        let what = format!(
            "{} could not be worked on and stayed as before",
            count_of(counts.left, "value")
        );
        return Err(Failure::new(Exit::Invalid, what)
            .help("the output is written; look at those values before you rely on it"));
    }
    Ok(())
}

/// Runs a job with the service as its cipher. `left` hears of what is left as it is.
pub(crate) async fn process<W: Write>(
    job: Job,
    source: Source,
    output: &mut W,
    client: &Client,
    left: impl FnMut(&Problem) -> Result<(), Failure>,
) -> Result<Counts, Failure> {
    let client = client.clone();
    let (opens, masked) = (
        matches!(job.direction, Direction::Decrypt { .. }),
        Arc::<AtomicU64>::default(),
    );
    let seen = Arc::clone(&masked);
    let cipher = move |operation, items| {
        let (client, masked) = (client.clone(), Arc::clone(&masked));
        async move { service::call_service(client, operation, items, &masked).await }
    };
    let mut counts = pipeline::run(job, source, output, cipher, left).await?;
    // What else is opened is only looked at.
    if opens {
        counts.masked = seen.load(Ordering::Relaxed);
    }
    Ok(counts)
}

fn job(direction: Direction, file: &FileArgs) -> Result<Job, Failure> {
    let without_key = file.columns.iter().find(|choice| choice.key.is_none());
    if let (Direction::Encrypt, Some(choice)) = (direction, without_key) {
        let what = format!("the column `{}` has no key", choice.column);
        return Err(Failure::new(Exit::Usage, what).help(format_args!(
            "write it as --column {}=KEY:{}",
            choice.column, choice.field
        )));
    }
    let shape = file.input.shape(file.output.as_ref(), file.json_values);
    if file.json_values && shape == Shape::Csv {
        return Err(Failure::new(Exit::Usage, "--json-values is for JSON lines")
            .help("leave it out, or say --input-format jsonl"));
    }
    Ok(Job {
        direction,
        shape,
        columns: file.columns.clone(),
        context: file.context.clone(),
        parallel: file.parallel.into(),
    })
}

/// Opens the output; gives what an interrupted run has left too.
fn open_target(
    job: &Job,
    file: &FileArgs,
    input: &Input,
) -> Result<(Target, Option<std::fs::File>), Failure> {
    if matches!(job.direction, Direction::ReEncrypt { dry_run: true, .. }) {
        return Ok((Target::nowhere(), None));
    }
    let Some(output) = input::named(file.output.as_deref()) else {
        if file.output.is_none() && std::io::IsTerminal::is_terminal(&std::io::stdout()) {
            return Err(Failure::new(Exit::Usage, "there is no output")
                .help("name a file with --output, pipe it on, or show it here with --output -"));
        }
        return Ok((Target::standard_output(), None));
    };
    if let Some(input) = input::named(file.input.input.as_deref()) {
        target::refuse_same_file(input, output)?;
    }
    match (job.direction, input.identity) {
        (Direction::ReEncrypt { .. }, Some(identity)) => {
            // A file that changed, or other choices, are another run.
            let what = format!(
                "{identity:?}{:?}{:?}{:?}",
                job.shape, job.columns, job.context
            );
            let digest = ring::digest::digest(&ring::digest::SHA256, what.as_bytes());
            let short = digest.as_ref().get(..8).unwrap_or_default();
            Target::resume(output, file.force, &HEXLOWER.encode(short))
        }
        _ => Ok((Target::create(output, file.force)?, None)),
    }
}

/// Where people hear of what was left as it is.
struct Left {
    file: Option<(Target, std::path::PathBuf)>,
    count: u64,
}

impl Left {
    fn new(keep: Option<&KeepArgs>) -> Result<Left, Failure> {
        let file = match keep.and_then(|keep| keep.errors.as_deref()) {
            Some(path) => Some((Target::create(path, true)?, path.to_owned())),
            None => None,
        };
        Ok(Left { file, count: 0 })
    }

    fn tell(&mut self, problem: &Problem) -> Result<(), Failure> {
        self.count += 1;
        let Some((file, path)) = &mut self.file else {
            if self.count <= TOLD {
                eprintln!("left: {problem}");
            }
            return Ok(());
        };
        let line = json!({
            "row": problem.row,
            "line": problem.line,
            "column": problem.column,
            "problem": problem.what.trim_start_matches([':', ' ']),
        });
        let failed = |error| file_failure("write", Path::new(path), &error);
        writeln!(file, "{line}").map_err(failed)
    }

    fn finish(self) -> Result<(), Failure> {
        if let Some((file, _)) = self.file {
            return file.finish();
        }
        if self.count > TOLD {
            let more = thousands(self.count - TOLD);
            eprintln!("left: {more} more; --errors FILE lists them all");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
