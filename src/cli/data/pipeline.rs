//! Reader, parallel batches, writer: bounded memory, and rows in their order.

use std::future::Future;
use std::io::{BufRead, ErrorKind, Read, Write};
use std::sync::Arc;

use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use super::super::failure::{Exit, Failure};
use super::cipher::{Item, Operation, Outcome};
use super::columns::{ColumnChoice, ContextChoice};
use super::input::{Source, decompress};
use super::layout::Layout;
use super::reader::RecordError;
use super::record::Record;
use super::resume::Resume;
use super::row::{Problem, Shape};
use super::rows::Rows;
use super::target::write_failure;
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
    /// The form of the file.
    pub(crate) shape: Shape,
    /// The columns it is done to.
    pub(crate) columns: Vec<ColumnChoice>,
    /// The columns that bind the row.
    pub(crate) context: Vec<ContextChoice>,
    /// Batches under way at a time, at least 1.
    pub(crate) parallel: usize,
}

/// Runs a job from `source` to `output`. `left` hears of what is left as it is.
pub(crate) async fn run<W, C, F>(
    job: Job,
    source: Source,
    output: &mut W,
    cipher: C,
    mut left: impl FnMut(&Problem) -> Result<(), Failure>,
) -> Result<Counts, Failure>
where
    W: Write,
    C: Fn(Operation, Vec<Item>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Outcome> + Send + 'static,
{
    let (direction, parallel) = (job.direction, job.parallel.max(1));
    // Reading blocks, and so has a thread of its own, from the first byte.
    let (start_sender, start) = tokio::sync::oneshot::channel();
    let (chunk_sender, chunks) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || match Reader::start(&job, source) {
        Ok((reader, text)) => {
            if start_sender
                .send(Ok((Arc::clone(&reader.layout), text)))
                .is_ok()
            {
                reader.read_chunks(&chunk_sender);
            }
        }
        Err(failure) => {
            let _ = start_sender.send(Err(failure));
        }
    });
    let (layout, text) = start
        .await
        .map_err(|_| Failure::new(Exit::Failed, "the reader ended"))??;
    let write = |output: &mut W, text: &[u8]| {
        output
            .write_all(text)
            .map_err(|error| write_failure(&error))
    };
    let dry_run = matches!(direction, Direction::ReEncrypt { dry_run: true, .. });
    if !dry_run {
        write(output, &text)?;
    }
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
    let mut finished = started.buffered(parallel);
    let mut counts = Counts {
        bytes: text.len() as u64,
        ..Counts::default()
    };
    while let Some(done) = finished.next().await {
        let done = done?;
        if !dry_run {
            write(output, &done.text)?;
        }
        counts.add(done.counts);
        done.problems.iter().try_for_each(&mut left)?;
    }
    Ok(counts)
}

/// The thread that reads.
struct Reader {
    rows: Rows<Box<dyn BufRead + Send>>,
    resume: Resume,
    layout: Arc<Layout>,
}

impl Reader {
    /// Reads what comes before the rows: the header of a CSV file. Gives its text too.
    fn start(job: &Job, source: Source) -> Result<(Reader, Vec<u8>), Failure> {
        let (rows, text, header) =
            open_rows(job.shape, source.input).map_err(|error| unreadable(job.shape, &error))?;
        let layout = Layout::new(job.shape, header.as_ref(), &job.columns, &job.context)?;
        // What an interrupted run left is a help if it can be read and begins alike, and nothing else.
        let left = source
            .resume
            .and_then(|left| open_rows(job.shape, left).ok());
        let resume = left.filter(|(_, beginning, _)| *beginning == text);
        let reader = Reader {
            rows,
            resume: Resume::new(resume.map(|(rows, _, _)| rows)),
            layout: Arc::new(layout),
        };
        Ok((reader, text))
    }

    /// Reads rows into chunks until the end, an error, or until nobody wants them any more.
    fn read_chunks(mut self, sender: &mpsc::Sender<Result<Chunk, Failure>>) {
        let mut chunk = Chunk::default();
        let values_in_row = self.layout.columns.len().max(1);
        loop {
            let ended = match self.rows.next_row() {
                Ok(Some(row)) => {
                    chunk.bytes += row.raw().len() as u64;
                    let (row, resumed) = self.resume.instead_of(row, &self.layout);
                    chunk.resumed += u64::from(resumed && !row.is_blank());
                    chunk.rows.push(row);
                    false
                }
                Ok(None) => true,
                Err(error) => {
                    // The rows before come first, so that what is wrong with them is said first.
                    let _ = sender.blocking_send(Ok(std::mem::take(&mut chunk)));
                    let _ = sender.blocking_send(Err(unreadable(self.layout.shape(), &error)));
                    return;
                }
            };
            let full =
                chunk.rows.len() * values_in_row >= BATCH_VALUES || chunk.bytes >= BATCH_BYTES;
            let send = full || (ended && !chunk.rows.is_empty());
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
}

type Opened = (Rows<Box<dyn BufRead + Send>>, Vec<u8>, Option<Record>);

/// Begins to read, up to the end of a header; gives the text so far, and the header.
pub(super) fn open_rows(shape: Shape, input: Box<dyn Read + Send>) -> Result<Opened, RecordError> {
    let mut rows = Rows::new(shape, decompress(input)?)?;
    let mut text = rows.prefix().to_vec();
    if let Rows::Csv(records) = &mut rows {
        while let Some(record) = records.next_record()? {
            text.extend_from_slice(&record.raw);
            if !record.is_blank() {
                return Ok((rows, text, Some(record)));
            }
        }
    }
    Ok((rows, text, None))
}

pub(super) fn unreadable(shape: Shape, error: &RecordError) -> Failure {
    let help = match error {
        // Only what unpacks finds the content itself at fault.
        RecordError::Io(cause)
            if matches!(
                cause.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::InvalidInput | ErrorKind::InvalidData
            ) =>
        {
            "the compressed input is cut off or damaged: copy or make it again"
        }
        RecordError::Io(_) => "check the input and its disk",
        RecordError::TooLong { .. } if shape != Shape::Csv => "each line must be one JSON value",
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
            format_args!("the input is not {}: {error}", shape.name()),
        )
        .help(help),
    }
}
