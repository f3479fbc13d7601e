//! Turns a chunk of rows into the text that replaces it: pure apart from the calls to the cipher.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use fieldkeep_crypto::ciphertext::{Ciphertext, MAX_PLAINTEXT_BYTES, decode_text, encode_text};

use super::super::failure::{Exit, Failure};
use super::cipher::{Item, ItemRefused, Operation, Outcome};
use super::layout::{Layout, Value};
use super::row::{Problem, Row};

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
        /// Only count what is behind.
        dry_run: bool,
    },
}

impl Direction {
    fn keeps_going(self) -> bool {
        match self {
            Direction::Encrypt => false,
            Direction::Decrypt { keep_going } | Direction::ReEncrypt { keep_going, .. } => {
                keep_going
            }
        }
    }
}

/// Some rows of the input.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// Rows and blank lines in their order.
    pub(super) rows: Vec<Row>,
    /// The bytes they take.
    pub(super) bytes: u64,
    /// How many of them come from an interrupted run.
    pub(super) resumed: u64,
}

/// What was done, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Rows, without the header.
    pub(crate) rows: u64,
    /// Values that were encrypted, decrypted or re-encrypted, or that are behind in a dry run.
    pub(crate) values: u64,
    /// Values that needed nothing: already encrypted, or already under the primary version.
    pub(crate) already: u64,
    /// Values of these that came back masked.
    pub(crate) masked: u64,
    /// Empty values in the chosen columns.
    pub(crate) empty: u64,
    /// Values and rows that could not be worked on and were left as they are.
    pub(crate) left: u64,
    /// Bytes of input, not compressed.
    pub(crate) bytes: u64,
    /// Rows that an interrupted run had done.
    pub(crate) resumed: u64,
}

impl Counts {
    /// Adds those of another chunk.
    pub(super) fn add(&mut self, other: Counts) {
        self.rows += other.rows;
        self.values += other.values;
        self.already += other.already;
        self.masked += other.masked;
        self.empty += other.empty;
        self.left += other.left;
        self.bytes += other.bytes;
        self.resumed += other.resumed;
    }
}

/// A chunk after its calls.
#[derive(Debug)]
pub(super) struct Done {
    /// The text to write.
    pub(super) text: Vec<u8>,
    /// What was done.
    pub(super) counts: Counts,
    /// What was left as it is, and why.
    pub(super) problems: Vec<Problem>,
}

/// A chosen value and what it becomes.
pub(super) struct Cell {
    /// The row, counted from 0 within the chunk.
    row: usize,
    /// The value.
    pub(super) value: Value,
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
    let mut work = Work::new(&layout, direction, chunk)?;
    match direction {
        Direction::Encrypt => work.encrypt(&cipher).await?,
        Direction::Decrypt { .. } => work.decrypt(&cipher).await?,
        Direction::ReEncrypt { dry_run, .. } => work.reencrypt(&cipher, dry_run).await?,
    }
    Ok(work.finish())
}

/// A chunk being worked on.
pub(super) struct Work<'l> {
    layout: &'l Layout,
    keep_going: bool,
    rows: Vec<Row>,
    /// The chosen values that are not empty, in the order of the text.
    pub(super) cells: Vec<Cell>,
    /// What was done so far.
    pub(super) counts: Counts,
    problems: Vec<Problem>,
}

impl<'l> Work<'l> {
    /// Finds the values to work on, and everything that is wrong with the rows.
    fn new(layout: &'l Layout, direction: Direction, chunk: Chunk) -> Result<Self, Failure> {
        let mut work = Work {
            layout,
            keep_going: direction.keeps_going(),
            rows: chunk.rows,
            cells: Vec::new(),
            counts: Counts {
                bytes: chunk.bytes,
                resumed: chunk.resumed,
                ..Counts::default()
            },
            problems: Vec::new(),
        };
        for place in 0..work.rows.len() {
            let Some(row) = work.rows.get(place).filter(|row| !row.is_blank()) else {
                continue;
            };
            work.counts.rows += 1;
            let found = match layout.find(row) {
                Ok(found) => found,
                Err(problem) => {
                    work.leave(problem)?;
                    continue;
                }
            };
            for value in found.values {
                if value.value.is_empty() {
                    work.counts.empty += 1;
                    continue;
                }
                work.cells.push(Cell {
                    row: place,
                    value,
                    context: Arc::clone(&found.context),
                    replacement: None,
                });
            }
        }
        Ok(work)
    }

    /// Leaves a value or row as it is, or ends the run.
    fn leave(&mut self, problem: Problem) -> Result<(), Failure> {
        if !self.keep_going {
            return Err(problem.into());
        }
        self.counts.left += 1;
        self.problems.push(problem);
        Ok(())
    }

    fn problem(&self, index: usize, what: impl std::fmt::Display, help: &'static str) -> Problem {
        let nowhere = Row::Json(super::row::Line::default());
        let cell = self.cells.get(index);
        let row = cell.and_then(|cell| self.rows.get(cell.row));
        let column = cell.map(|cell| cell.value.column.name.as_str());
        row.unwrap_or(&nowhere).problem(column, what, help)
    }

    /// Sends values to the cipher: (index of the cell, value) each.
    pub(super) async fn call<C, F>(
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
            Some(Item {
                column: Arc::clone(&cell.value.column),
                context: Arc::clone(&cell.context),
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
            match parse_ciphertext(&cell.value.value) {
                Some(ciphertext) => suspects.push((index, ciphertext)),
                None => plain.push(index),
            }
        }
        // Text that looks like a ciphertext is one only if it opens; else it is somebody's value like any other.
        for (index, _, result) in self.call(cipher, Operation::Decrypt, suspects).await? {
            match result {
                Ok(_) => self.counts.already += 1,
                Err(refused) if refused.does_not_open() => plain.push(index),
                Err(refused) => return Err(self.refused(index, &refused).into()),
            }
        }
        let plaintext = |&index: &usize| {
            let cell = self.cells.get(index)?;
            let plaintext = self.layout.plaintext(self.rows.get(cell.row)?, &cell.value);
            Some((index, plaintext))
        };
        let plain: Vec<(usize, Bytes)> = plain.iter().filter_map(plaintext).collect();
        let too_long = |(_, value): &&(usize, Bytes)| value.len() > MAX_PLAINTEXT_BYTES;
        if let Some((index, value)) = plain.iter().find(too_long) {
            let what = format_args!(" has {} bytes", value.len());
            let help = "a value may have 65,536 bytes at most";
            return Err(self.problem(*index, what, help).into());
        }
        for (index, _, result) in self.call(cipher, Operation::Encrypt, plain).await? {
            let ciphertext = result.map_err(|refused| self.refused(index, &refused))?;
            self.replace(
                index,
                self.layout.write_ciphertext(encode_text(&ciphertext)),
            );
        }
        Ok(())
    }

    async fn decrypt<C, F>(&mut self, cipher: &C) -> Result<(), Failure>
    where
        C: Fn(Operation, Vec<Item>) -> F,
        F: Future<Output = Outcome>,
    {
        let ciphertexts = self.ciphertexts()?;
        for (index, _, result) in self.call(cipher, Operation::Decrypt, ciphertexts).await? {
            match result {
                Ok(plaintext) => match self.layout.write_plaintext(plaintext) {
                    Ok(text) => self.replace(index, text),
                    Err((what, help)) => self.leave(self.problem(index, what, help))?,
                },
                Err(refused) => self.leave_refused(index, &refused)?,
            }
        }
        Ok(())
    }

    /// The ciphertexts in the chosen columns, in binary form, with their cells.
    pub(super) fn ciphertexts(&mut self) -> Result<Vec<(usize, Bytes)>, Failure> {
        let mut ciphertexts = Vec::with_capacity(self.cells.len());
        for index in 0..self.cells.len() {
            let value = self.cells.get(index).map(|cell| &cell.value.value);
            match value.and_then(|value| parse_ciphertext(value)) {
                Some(ciphertext) => ciphertexts.push((index, ciphertext)),
                None => self.leave(self.problem(
                    index,
                    " is not a ciphertext",
                    "was this column encrypted? choose the columns that were, or leave such values with --keep-going",
                ))?,
            }
        }
        Ok(ciphertexts)
    }

    /// Puts a ciphertext in the place of another.
    pub(super) fn replace_ciphertext(&mut self, index: usize, ciphertext: &[u8]) {
        self.replace(index, self.layout.write_ciphertext(encode_text(ciphertext)));
    }

    fn replace(&mut self, index: usize, text: Vec<u8>) {
        if let Some(cell) = self.cells.get_mut(index) {
            cell.replacement = Some(text);
            self.counts.values += 1;
        }
    }

    /// Leaves a value that does not open, if that is wanted.
    pub(super) fn leave_refused(
        &mut self,
        index: usize,
        refused: &ItemRefused,
    ) -> Result<(), Failure> {
        let problem = self.refused(index, refused);
        if refused.does_not_open() {
            return self.leave(problem);
        }
        Err(problem.into())
    }

    fn refused(&self, index: usize, refused: &ItemRefused) -> Problem {
        let help = if refused.does_not_open() {
            "decrypt with the same field and context columns as it was encrypted with; \
             leave values that do not open with --keep-going"
        } else {
            ""
        };
        Problem {
            exit: exit_of_reason(&refused.reason),
            ..self.problem(index, format_args!(": {}", refused.message), help)
        }
    }

    /// Writes the rows with their new values.
    fn finish(mut self) -> Done {
        self.problems.sort_by_key(|problem| problem.line);
        let mut text = Vec::with_capacity(self.counts.bytes as usize * 2);
        let mut cells = self.cells.iter().peekable();
        for (place, row) in self.rows.iter().enumerate() {
            let mut replacements = Vec::new();
            while let Some(cell) = cells.next_if(|cell| cell.row == place) {
                let replacement = cell.replacement.as_deref();
                replacements.extend(replacement.map(|text| (&cell.value.place, text)));
            }
            row.write_with(replacements, &mut text);
        }
        Done {
            text,
            counts: self.counts,
            problems: self.problems,
        }
    }
}

/// The binary form, if the value has the form of a ciphertext.
pub(super) fn parse_ciphertext(value: &[u8]) -> Option<Bytes> {
    if !value.starts_with(b"fk1:") {
        return None;
    }
    let bytes = decode_text(std::str::from_utf8(value).ok()?).ok()?;
    Ciphertext::parse(&bytes).is_ok().then(|| bytes.into())
}

/// The exit code that goes with a reason of the service.
pub(crate) fn exit_of_reason(reason: &str) -> Exit {
    match reason {
        "PERMISSION_DENIED" | "UNAUTHENTICATED" | "SELF_GRANT" => Exit::Refused,
        "KEY_NOT_FOUND" | "TENANT_NOT_FOUND" | "VERSION_NOT_FOUND" | "GRANT_NOT_FOUND"
        | "MEMBER_NOT_FOUND" | "SETTING_NOT_FOUND" => Exit::NotFound,
        "DECRYPTION_FAILED" | "INVALID_REQUEST" | "FIELD_TOO_LARGE" | "REQUEST_TOO_LARGE"
        | "BATCH_TOO_LARGE" | "REPLY_TOO_LARGE" | "REQUEST_ID_REUSED" => Exit::Invalid,
        "STORE_UNAVAILABLE" | "AUDIT_UNAVAILABLE" | "SHUTTING_DOWN" | "NO_SPACE"
        | "CHANGE_PENDING" | "ACCESS_FULL" => Exit::Unavailable,
        "ALREADY_EXISTS" | "KEY_DISABLED" | "VERSION_DISABLED" | "PRIMARY_VERSION"
        | "LAST_GRANTOR" | "CONFLICT" => Exit::Conflict,
        _ => Exit::Failed,
    }
}
