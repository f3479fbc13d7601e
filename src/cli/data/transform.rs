//! Turns a chunk of rows into the text that replaces it: pure apart from the calls to the cipher.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use fieldkeep_crypto::ciphertext::{Ciphertext, MAX_PLAINTEXT_BYTES, decode_text, encode_text};

use super::super::failure::{Exit, Failure};
use super::super::output::count_of;
use super::cipher::{Item, ItemRefused, Operation, Outcome};
use super::columns::{Column, Layout};
use super::record::Record;

/// What is done with the chosen columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Encrypts what is not encrypted already.
    Encrypt,
    /// Decrypts everything. `keep_going`: what does not open stays as it is.
    Decrypt {
        /// Whether a value that does not open is left rather than an error.
        keep_going: bool,
    },
    /// Brings every value under the primary version of its key. `keep_going` as above.
    ReEncrypt {
        /// Whether a value that does not open is left rather than an error.
        keep_going: bool,
    },
}

/// Some rows of the input.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// Records and blank lines in their order.
    pub(super) records: Vec<Record>,
    /// The bytes of input they take.
    pub(super) bytes: u64,
}

/// What was done, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Rows, without the header.
    pub(crate) rows: u64,
    /// Values that were encrypted, decrypted or re-encrypted.
    pub(crate) values: u64,
    /// Values that needed nothing: already encrypted, or already under the primary version.
    pub(crate) already: u64,
    /// Empty values in the chosen columns.
    pub(crate) empty: u64,
    /// Values that did not open and were left as they are.
    pub(crate) left: u64,
}

impl Counts {
    /// Adds those of another chunk.
    pub(super) fn add(&mut self, other: Counts) {
        self.rows += other.rows;
        self.values += other.values;
        self.already += other.already;
        self.empty += other.empty;
        self.left += other.left;
    }
}

/// A chunk after its calls.
#[derive(Debug)]
pub(super) struct Done {
    /// The text to write.
    pub(super) text: Vec<u8>,
    /// What was done.
    pub(super) counts: Counts,
    /// The bytes of input it took.
    pub(super) input_bytes: u64,
}

/// A chosen value: where it is and what it becomes.
struct Cell {
    record: usize,
    column: Arc<Column>,
    context: Arc<[(String, String)]>,
    replacement: Option<Vec<u8>>,
}

/// Runs one chunk.
pub(super) async fn transform<C, F>(
    layout: Arc<Layout>,
    direction: Direction,
    cipher: C,
    chunk: Chunk,
) -> Result<Done, Failure>
where
    C: Fn(Operation, Vec<Item>) -> F,
    F: Future<Output = Outcome>,
{
    let mut work = Work::new(&layout, &chunk)?;
    match direction {
        Direction::Encrypt => work.encrypt(&cipher).await?,
        Direction::Decrypt { keep_going } => {
            work.open(&cipher, Operation::Decrypt, keep_going).await?
        }
        Direction::ReEncrypt { keep_going } => {
            work.open(&cipher, Operation::ReEncrypt, keep_going).await?
        }
    }
    Ok(work.finish())
}

/// A chunk being worked on.
struct Work<'c> {
    chunk: &'c Chunk,
    cells: Vec<Cell>,
    counts: Counts,
}

impl<'c> Work<'c> {
    /// Finds the values to work on, and everything that is wrong with the rows.
    fn new(layout: &Layout, chunk: &'c Chunk) -> Result<Work<'c>, Failure> {
        let mut work = Work {
            chunk,
            cells: Vec::new(),
            counts: Counts::default(),
        };
        for (place, record) in chunk.records.iter().enumerate() {
            if record.is_blank() {
                continue;
            }
            work.counts.rows += 1;
            if record.len() != layout.width {
                let what = format!(
                    "{} has {}, the header has {}",
                    at(record),
                    count_of(record.len() as u64, "value"),
                    layout.width
                );
                return Err(Failure::new(Exit::Invalid, what)
                    .help("every row must have as many values as the header"));
            }
            let context = row_context(layout, record)?;
            for column in &layout.columns {
                if record.value(column.index).is_empty() {
                    work.counts.empty += 1;
                    continue;
                }
                let (column, context) = (Arc::clone(column), Arc::clone(&context));
                work.cells.push(Cell {
                    record: place,
                    column,
                    context,
                    replacement: None,
                });
            }
        }
        Ok(work)
    }

    fn record(&self, cell: &Cell) -> Cow<'c, Record> {
        let records: &'c [Record] = &self.chunk.records;
        records
            .get(cell.record)
            .map_or_else(|| Cow::Owned(Record::default()), Cow::Borrowed)
    }

    fn value(&self, cell: &Cell) -> Vec<u8> {
        self.record(cell).value(cell.column.index).into_owned()
    }

    /// Where a cell is, for people.
    fn place(&self, cell: &Cell) -> String {
        format!("{}, column `{}`", at(&self.record(cell)), cell.column.name)
    }

    /// Sends values to the cipher: (index of the cell, value) each.
    async fn call<C, F>(
        &self,
        cipher: &C,
        operation: Operation,
        values: Vec<(usize, Bytes)>,
    ) -> Result<Vec<(usize, Bytes, Result<Bytes, ItemRefused>)>, Failure>
    where
        C: Fn(Operation, Vec<Item>) -> F,
        F: Future<Output = Outcome>,
    {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let items = values.iter().filter_map(|(index, value)| {
            let cell = self.cells.get(*index)?;
            let (column, context) = (Arc::clone(&cell.column), Arc::clone(&cell.context));
            Some(Item {
                column,
                context,
                value: value.clone(),
            })
        });
        let results = cipher(operation, items.collect()).await?;
        if results.len() != values.len() {
            return Err(Failure::new(
                Exit::Failed,
                "the service answered another number of values than it was asked",
            )
            .help("is something between this command and the service?"));
        }
        Ok(values
            .into_iter()
            .zip(results)
            .map(|((index, value), result)| (index, value, result))
            .collect())
    }

    async fn encrypt<C, F>(&mut self, cipher: &C) -> Result<(), Failure>
    where
        C: Fn(Operation, Vec<Item>) -> F,
        F: Future<Output = Outcome>,
    {
        let mut plain = Vec::with_capacity(self.cells.len());
        let mut suspects = Vec::new();
        for (index, cell) in self.cells.iter().enumerate() {
            let value = self.value(cell);
            match parse_ciphertext(&value) {
                Some(ciphertext) => suspects.push((index, Bytes::from(ciphertext))),
                None => plain.push((index, Bytes::from(value))),
            }
        }
        // Text that looks like a ciphertext is one only if it opens; else it is somebody's value like any other.
        for (index, _, result) in self.call(cipher, Operation::Decrypt, suspects).await? {
            match result {
                Ok(_) => self.counts.already += 1,
                Err(refused) if refused.does_not_open() => {
                    if let Some(cell) = self.cells.get(index) {
                        plain.push((index, Bytes::from(self.value(cell))));
                    }
                }
                Err(refused) => return Err(self.refused(index, &refused)),
            }
        }
        for (index, value) in &plain {
            if let Some(cell) = self
                .cells
                .get(*index)
                .filter(|_| value.len() > MAX_PLAINTEXT_BYTES)
            {
                let what = format!("{} has {} bytes", self.place(cell), value.len());
                return Err(
                    Failure::new(Exit::Invalid, what).help("a value may have 65,536 bytes at most")
                );
            }
        }
        for (index, _, result) in self.call(cipher, Operation::Encrypt, plain).await? {
            let ciphertext = result.map_err(|refused| self.refused(index, &refused))?;
            self.replace(index, encode_text(&ciphertext).into_bytes());
        }
        Ok(())
    }

    /// Decrypts or re-encrypts.
    async fn open<C, F>(
        &mut self,
        cipher: &C,
        operation: Operation,
        keep_going: bool,
    ) -> Result<(), Failure>
    where
        C: Fn(Operation, Vec<Item>) -> F,
        F: Future<Output = Outcome>,
    {
        let mut ciphertexts = Vec::with_capacity(self.cells.len());
        for (index, cell) in self.cells.iter().enumerate() {
            match parse_ciphertext(&self.value(cell)) {
                Some(ciphertext) => ciphertexts.push((index, Bytes::from(ciphertext))),
                None if keep_going => self.counts.left += 1,
                None => {
                    let what = format!("{} is not a ciphertext", self.place(cell));
                    return Err(Failure::new(Exit::Invalid, what).help(
                        "was this column encrypted? choose the columns that were, or leave such values with --keep-going",
                    ));
                }
            }
        }
        for (index, input, result) in self.call(cipher, operation, ciphertexts).await? {
            match result {
                Ok(output) if operation == Operation::Decrypt => {
                    self.replace(index, output.to_vec())
                }
                Ok(output) if output == input => self.counts.already += 1,
                Ok(output) => self.replace(index, encode_text(&output).into_bytes()),
                Err(refused) if keep_going && refused.does_not_open() => self.counts.left += 1,
                Err(refused) => return Err(self.refused(index, &refused)),
            }
        }
        Ok(())
    }

    fn replace(&mut self, index: usize, value: Vec<u8>) {
        if let Some(cell) = self.cells.get_mut(index) {
            cell.replacement = Some(value);
            self.counts.values += 1;
        }
    }

    fn refused(&self, index: usize, refused: &ItemRefused) -> Failure {
        let place = self
            .cells
            .get(index)
            .map(|cell| self.place(cell))
            .unwrap_or_default();
        let failure = Failure::new(
            exit_of_reason(&refused.reason),
            format_args!("{place}: {}", refused.message),
        );
        if refused.does_not_open() {
            return failure.help(
                "decrypt with the same field and context columns as it was encrypted with; \
                 leave values that do not open with --keep-going",
            );
        }
        failure
    }

    /// Writes the rows with their new values.
    fn finish(self) -> Done {
        let mut text = Vec::with_capacity(self.chunk.bytes as usize * 2);
        let mut cells = self.cells.iter().peekable();
        for (place, record) in self.chunk.records.iter().enumerate() {
            let mut replacements = Vec::new();
            while let Some(cell) = cells.next_if(|cell| cell.record == place) {
                replacements.extend(
                    cell.replacement
                        .as_deref()
                        .map(|value| (cell.column.index, value)),
                );
            }
            record.write_with(replacements, &mut text);
        }
        Done {
            text,
            counts: self.counts,
            input_bytes: self.chunk.bytes,
        }
    }
}

/// Where a record is, for people.
fn at(record: &Record) -> String {
    format!("row {} (line {})", record.row, record.line)
}

fn row_context(layout: &Layout, record: &Record) -> Result<Arc<[(String, String)]>, Failure> {
    let pair = |(name, index): &(String, usize)| match std::str::from_utf8(&record.value(*index)) {
        Ok(value) => Ok((name.clone(), value.to_owned())),
        Err(_) => Err(Failure::new(
            Exit::Invalid,
            format_args!("{}: the context `{name}` is not UTF-8 text", at(record)),
        )
        .help("convert the file to UTF-8, or bind rows by another column")),
    };
    layout.context.iter().map(pair).collect()
}

/// The binary form, if the value has the form of a ciphertext.
fn parse_ciphertext(value: &[u8]) -> Option<Vec<u8>> {
    if !value.starts_with(b"fk1:") {
        return None;
    }
    let bytes = decode_text(std::str::from_utf8(value).ok()?).ok()?;
    Ciphertext::parse(&bytes).is_ok().then_some(bytes)
}

/// The exit code that goes with a reason of the service.
pub(crate) fn exit_of_reason(reason: &str) -> Exit {
    match reason {
        "PERMISSION_DENIED" | "UNAUTHENTICATED" => Exit::Refused,
        "KEY_NOT_FOUND" | "TENANT_NOT_FOUND" | "VERSION_NOT_FOUND" | "IDENTITY_NOT_FOUND" => {
            Exit::NotFound
        }
        "DECRYPTION_FAILED" | "INVALID_REQUEST" | "FIELD_TOO_LARGE" | "REQUEST_TOO_LARGE"
        | "BATCH_TOO_LARGE" | "REPLY_TOO_LARGE" | "REQUEST_ID_REUSED" => Exit::Invalid,
        "STORE_UNAVAILABLE" | "AUDIT_UNAVAILABLE" | "SHUTTING_DOWN" | "NO_SPACE" => {
            Exit::Unavailable
        }
        "ALREADY_EXISTS" | "KEY_DISABLED" | "VERSION_DISABLED" | "PRIMARY_VERSION"
        | "ROLE_CONFLICT" | "CONFLICT" => Exit::Conflict,
        _ => Exit::Failed,
    }
}
