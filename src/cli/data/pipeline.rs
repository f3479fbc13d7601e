//! Reader, parallel batches, writer: bounded memory, and rows in their order.

use std::future::Future;
use std::io::{BufReader, Read, Write};
use std::sync::Arc;

use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use super::super::failure::{Exit, Failure};
use super::cipher::{Item, Operation, Outcome};
use super::columns::{ColumnChoice, ContextChoice, Layout};
use super::reader::{RecordError, RecordReader};
use super::transform::{Chunk, Counts, Direction, transform};

/// A batch ends at this number of values.
const BATCH_VALUES: usize = 1_000;
/// A batch ends at this number of bytes of input.
const BATCH_BYTES: u64 = 1024 * 1024;

/// What to do with a file.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// What is done.
    pub(crate) direction: Direction,
    /// The columns it is done to.
    pub(crate) columns: Vec<ColumnChoice>,
    /// The columns that bind the row.
    pub(crate) context: Vec<ContextChoice>,
    /// Batches under way at a time, at least 1.
    pub(crate) parallel: usize,
}

/// Runs a job from `input` to `output`. `advanced` hears how many bytes of input are done.
pub(crate) async fn run<R, W, C, F>(
    job: Job,
    input: R,
    output: &mut W,
    cipher: C,
    advanced: impl Fn(u64),
) -> Result<Counts, Failure>
where
    R: Read + Send + 'static,
    W: Write,
    C: Fn(Operation, Vec<Item>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Outcome> + Send + 'static,
{
    // Reading blocks, and so has a thread of its own, from the first byte.
    let (header_sender, header) = tokio::sync::oneshot::channel();
    let (chunk_sender, chunks) = mpsc::channel(1);
    let values_in_row = job.columns.len().max(1);
    tokio::task::spawn_blocking(move || match read_header(input) {
        Ok((reader, text, header)) => {
            if header_sender.send(Ok((text, header))).is_ok() {
                read_chunks(reader, values_in_row, &chunk_sender);
            }
        }
        Err(failure) => {
            let _ = header_sender.send(Err(failure));
        }
    });
    let (text, header) = header
        .await
        .map_err(|_| Failure::new(Exit::Failed, "the reader ended"))??;
    let layout = Arc::new(Layout::new(&header, &job.columns, &job.context)?);
    let write = |output: &mut W, text: &[u8]| {
        let failed =
            |error| Failure::new(Exit::Failed, "cannot write the output").caused_by(&error);
        output.write_all(text).map_err(failed)
    };
    write(output, &text)?;
    let header_bytes = text.len() as u64;
    advanced(header_bytes);

    let direction = job.direction;
    let started = ReceiverStream::new(chunks).map(|chunk: Result<Chunk, Failure>| {
        let (layout, cipher) = (Arc::clone(&layout), cipher.clone());
        async move {
            let task = tokio::spawn(transform(layout, direction, cipher, chunk?));
            let joined = AbortOnDropHandle::new(task).await;
            joined.map_err(|error| {
                Failure::new(Exit::Failed, "a batch did not end").caused_by(&error)
            })?
        }
    });
    let mut finished = started.buffered(job.parallel.max(1));
    let mut counts = Counts::default();
    while let Some(done) = finished.next().await {
        let done = done?;
        write(output, &done.text)?;
        counts.add(done.counts);
        advanced(done.input_bytes);
    }
    Ok(counts)
}

type Header<R> = (RecordReader<BufReader<R>>, Vec<u8>, super::record::Record);

/// Reads up to the end of the header; gives its text too, with what stood before.
fn read_header<R: Read>(input: R) -> Result<Header<R>, Failure> {
    let mut reader = RecordReader::new(BufReader::with_capacity(256 * 1024, input))
        .map_err(|e| unreadable(&e))?;
    let mut text = reader.prefix().to_vec();
    while let Some(record) = reader.next_record().map_err(|e| unreadable(&e))? {
        text.extend_from_slice(&record.raw);
        if !record.is_blank() {
            return Ok((reader, text, record));
        }
    }
    Err(Failure::new(Exit::Invalid, "the input is empty")
        .help("a CSV file begins with a header that names its columns"))
}

/// Reads rows into chunks until the end, an error, or until nobody wants them any more.
fn read_chunks<R: Read>(
    mut reader: RecordReader<BufReader<R>>,
    values_in_row: usize,
    sender: &mpsc::Sender<Result<Chunk, Failure>>,
) {
    let mut chunk = Chunk::default();
    loop {
        let ended = match reader.next_record() {
            Ok(Some(record)) => {
                chunk.bytes += record.raw.len() as u64;
                chunk.records.push(record);
                false
            }
            Ok(None) => true,
            Err(error) => {
                // The rows before come first, so that what is wrong with them is said first.
                let _ = sender.blocking_send(Ok(std::mem::take(&mut chunk)));
                let _ = sender.blocking_send(Err(unreadable(&error)));
                return;
            }
        };
        let full =
            chunk.records.len() * values_in_row >= BATCH_VALUES || chunk.bytes >= BATCH_BYTES;
        let send = full || (ended && !chunk.records.is_empty());
        if send
            && sender
                .blocking_send(Ok(std::mem::take(&mut chunk)))
                .is_err()
        {
            return;
        }
        if ended {
            return;
        }
    }
}

fn unreadable(error: &RecordError) -> Failure {
    let help = match error {
        RecordError::Io(_) => "check the input and its disk",
        RecordError::UnclosedQuote { .. } | RecordError::TooLong { .. } => {
            "a quote within a value must be doubled, and the value quoted (RFC 4180)"
        }
        RecordError::TextAfterQuote { .. } => {
            "a quote within a quoted value must be doubled (RFC 4180)"
        }
        RecordError::Utf16 => "convert the file to UTF-8",
    };
    match error {
        RecordError::Io(cause) => Failure::new(Exit::Failed, "cannot read the input")
            .caused_by(cause)
            .help(help),
        _ => Failure::new(
            Exit::Invalid,
            format_args!("the input is not a CSV file: {error}"),
        )
        .help(help),
    }
}
