//! Reads rows, of records or of lines.

use std::io::{BufRead, Read};

use super::reader::{MAX_RECORD_BYTES, RecordError, RecordReader, take_byte_order_mark};
use super::row::{Line, Row, Shape};

/// Reads rows one after the other.
pub(super) enum Rows<R> {
    /// Records of a CSV file; the first is the header.
    Csv(RecordReader<R>),
    /// Lines.
    Json(LineReader<R>),
}

impl<R: BufRead> Rows<R> {
    /// Begins to read; a byte order mark is taken off and remembered.
    pub(super) fn new(shape: Shape, input: R) -> Result<Rows<R>, RecordError> {
        match shape {
            Shape::Csv => RecordReader::new(input).map(Rows::Csv),
            Shape::JsonLines { .. } => LineReader::new(input).map(Rows::Json),
        }
    }

    /// What stood before everything and goes there again.
    pub(super) fn prefix(&self) -> &'static [u8] {
        match self {
            Rows::Csv(reader) => reader.prefix(),
            Rows::Json(reader) => reader.prefix,
        }
    }

    /// The next row or blank line; `None` at the end of the input.
    pub(super) fn next_row(&mut self) -> Result<Option<Row>, RecordError> {
        match self {
            Rows::Csv(reader) => Ok(reader.next_record()?.map(Row::Csv)),
            Rows::Json(reader) => Ok(reader.next_line()?.map(Row::Json)),
        }
    }
}

/// Reads lines.
pub(super) struct LineReader<R> {
    input: R,
    prefix: &'static [u8],
    lines: u64,
    rows: u64,
}

impl<R: BufRead> LineReader<R> {
    fn new(mut input: R) -> Result<LineReader<R>, RecordError> {
        let prefix = take_byte_order_mark(&mut input)?;
        Ok(LineReader {
            input,
            prefix,
            lines: 0,
            rows: 0,
        })
    }

    fn next_line(&mut self) -> Result<Option<Line>, RecordError> {
        let mut raw = Vec::new();
        let mut bounded = (&mut self.input).take(MAX_RECORD_BYTES as u64 + 1);
        bounded.read_until(b'\n', &mut raw)?;
        if raw.is_empty() {
            return Ok(None);
        }
        self.lines += 1;
        if raw.len() > MAX_RECORD_BYTES {
            return Err(RecordError::TooLong { line: self.lines });
        }
        self.rows += u64::from(!raw.trim_ascii().is_empty());
        Ok(Some(Line {
            raw,
            line: self.lines,
            row: self.rows,
        }))
    }
}
