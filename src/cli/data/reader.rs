//! Splits RFC 4180 text into records without losing a byte of it.
//!
//! This is not the `csv` crate because that drops line ends, blank lines and quoting, and takes an unclosed quote for one
//! endless field. The tests compare the two.

use super::record::{Record, Span};
use std::io::BufRead;

/// The longest record: a bound on memory, far above any row whose values may be encrypted.
pub(super) const MAX_RECORD_BYTES: usize = 16 * 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Why the input is not a CSV file.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("cannot read the input")]
    Io(#[from] std::io::Error),
    #[error("line {line}: a quoted value begins here and its closing quote is missing")]
    UnclosedQuote { line: u64 },
    #[error("line {line}: there is text after a closing quote")]
    TextAfterQuote { line: u64 },
    #[error("line {line}: the row that begins here is longer than 16 MiB")]
    TooLong { line: u64 },
    #[error("the input is UTF-16 text, not UTF-8")]
    Utf16,
}

/// Where the reader is within a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Unquoted,
    Quoted,
    /// After a quote within a quoted field: its end, or the first half of a doubled quote.
    QuoteInQuoted,
    /// After the carriage return that follows a closing quote: only a line feed may come.
    ReturnAfterQuote,
}

/// Takes a byte order mark off the input; gives what was taken.
pub(super) fn take_byte_order_mark(input: &mut impl BufRead) -> Result<&'static [u8], RecordError> {
    let start = input.fill_buf()?;
    if start.starts_with(b"\xFF\xFE") || start.starts_with(b"\xFE\xFF") {
        return Err(RecordError::Utf16);
    }
    if start.starts_with(BYTE_ORDER_MARK) {
        input.consume(BYTE_ORDER_MARK.len());
        return Ok(BYTE_ORDER_MARK);
    }
    Ok(b"")
}

/// Reads records one after the other.
pub(super) struct RecordReader<R> {
    input: R,
    line: u64,
    rows: u64,
    prefix: &'static [u8],
    max_record_bytes: usize,
}

impl<R: BufRead> RecordReader<R> {
    /// Begins to read; a byte order mark is taken off and remembered.
    pub(super) fn new(mut input: R) -> Result<RecordReader<R>, RecordError> {
        let prefix = take_byte_order_mark(&mut input)?;
        Ok(RecordReader {
            input,
            line: 1,
            rows: 0,
            prefix,
            max_record_bytes: MAX_RECORD_BYTES,
        })
    }

    /// What stood before the header and goes there again.
    pub(super) fn prefix(&self) -> &'static [u8] {
        self.prefix
    }

    /// The next record or blank line; `None` at the end of the input.
    pub(super) fn next_record(&mut self) -> Result<Option<Record>, RecordError> {
        let mut parser = Parser::new(self.line);
        while !parser.done {
            let buffer = match self.input.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if buffer.is_empty() {
                parser.end_of_input()?;
                break;
            }
            let taken = parser.take(buffer)?;
            self.input.consume(taken);
            if parser.record.raw.len() > self.max_record_bytes {
                return Err(RecordError::TooLong { line: self.line });
            }
        }
        self.line = parser.line;
        let mut record = parser.record;
        if record.raw.is_empty() {
            return Ok(None);
        }
        if !record.is_blank() {
            record.row = self.rows;
            self.rows += 1;
        }
        Ok(Some(record))
    }
}

/// The state machine over one record.
struct Parser {
    record: Record,
    state: State,
    field_start: usize,
    quote_line: u64,
    line: u64,
    done: bool,
}

impl Parser {
    fn new(line: u64) -> Parser {
        let record = Record {
            line,
            ..Record::default()
        };
        Parser {
            record,
            state: State::FieldStart,
            field_start: 0,
            quote_line: line,
            line,
            done: false,
        }
    }

    /// Takes bytes up to the end of the record or of the buffer; says how many.
    fn take(&mut self, buffer: &[u8]) -> Result<usize, RecordError> {
        let offset = self.record.raw.len();
        let mut taken = 0;
        for &byte in buffer {
            let at = offset + taken;
            taken += 1;
            if byte == b'\n' {
                self.line += 1;
            }
            self.step(byte, at, buffer.get(..taken).unwrap_or_default())?;
            if self.done {
                break;
            }
        }
        self.record
            .raw
            .extend_from_slice(buffer.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    /// One byte, at position `at` of the record; `recent` ends with it.
    fn step(&mut self, byte: u8, at: usize, recent: &[u8]) -> Result<(), RecordError> {
        self.state = match (self.state, byte) {
            (State::Quoted, b'"') => State::QuoteInQuoted,
            (State::Quoted, _) => State::Quoted,
            (State::QuoteInQuoted, b'"') => State::Quoted,
            (State::FieldStart, b'"') => {
                self.quote_line = self.line;
                State::Quoted
            }
            (State::ReturnAfterQuote, b'\n') => {
                self.end_field(at.saturating_sub(1), true);
                self.done = true;
                State::FieldStart
            }
            (state @ (State::FieldStart | State::Unquoted | State::QuoteInQuoted), b',') => {
                self.end_field(at, state == State::QuoteInQuoted);
                self.field_start = at + 1;
                State::FieldStart
            }
            (state @ (State::FieldStart | State::Unquoted | State::QuoteInQuoted), b'\n') => {
                self.end_record(at, state, recent);
                State::FieldStart
            }
            (State::QuoteInQuoted, b'\r') => State::ReturnAfterQuote,
            (State::FieldStart | State::Unquoted, _) => State::Unquoted,
            (State::QuoteInQuoted | State::ReturnAfterQuote, _) => {
                return Err(RecordError::TextAfterQuote { line: self.line });
            }
        };
        Ok(())
    }

    /// A line feed at `at` that ends the record; a carriage return before it belongs to the line end.
    fn end_record(&mut self, at: usize, state: State, recent: &[u8]) {
        self.done = true;
        let before = match recent.len() {
            0 | 1 => self.record.raw.last(),
            length => recent.get(length - 2),
        };
        let carriage_return =
            state == State::Unquoted && at > self.field_start && before == Some(&b'\r');
        let end = if carriage_return { at - 1 } else { at };
        if end > 0 {
            self.end_field(end, state == State::QuoteInQuoted);
        }
    }

    fn end_of_input(&mut self) -> Result<(), RecordError> {
        let end = self.record.raw.len();
        match self.state {
            State::Quoted => {
                return Err(RecordError::UnclosedQuote {
                    line: self.quote_line,
                });
            }
            State::ReturnAfterQuote => return Err(RecordError::TextAfterQuote { line: self.line }),
            State::FieldStart | State::Unquoted | State::QuoteInQuoted if end > 0 => {
                self.end_field(end, self.state == State::QuoteInQuoted);
            }
            State::FieldStart | State::Unquoted | State::QuoteInQuoted => {}
        }
        Ok(())
    }

    fn end_field(&mut self, end: usize, quoted: bool) {
        self.record.spans.push(Span {
            range: self.field_start..end,
            quoted,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(text: &[u8], buffer_bytes: usize) -> Result<Vec<Record>, RecordError> {
        let mut reader = RecordReader::new(std::io::BufReader::with_capacity(buffer_bytes, text))?;
        let mut records = Vec::new();
        while let Some(record) = reader.next_record()? {
            records.push(record);
        }
        Ok(records)
    }

    fn values(record: &Record) -> Vec<Vec<u8>> {
        (0..record.len())
            .map(|index| record.value(index).into_owned())
            .collect()
    }

    #[test]
    fn quotes_newlines_and_line_ends() {
        let text = b"a,\"b,\"\"c\r\n\",\r\n\r\n\"\",x\"y,z\nlast,,";
        let records = read_all(text, 64).unwrap();
        assert_eq!(
            values(&records[0]),
            [b"a".to_vec(), b"b,\"c\r\n".to_vec(), Vec::new()]
        );
        assert!(records[1].is_blank());
        assert_eq!(
            values(&records[2]),
            [Vec::new(), b"x\"y".to_vec(), b"z".to_vec()]
        );
        assert_eq!(
            values(&records[3]),
            [b"last".to_vec(), Vec::new(), Vec::new()]
        );
        assert_eq!(
            records.iter().map(|record| record.line).collect::<Vec<_>>(),
            [1, 3, 4, 5]
        );
        assert_eq!(
            records.iter().map(|record| record.row).collect::<Vec<_>>(),
            [0, 0, 1, 2]
        );
    }

    #[test]
    fn malformed_files_are_named() {
        assert!(matches!(
            read_all(b"a\n\"b\nc", 64),
            Err(RecordError::UnclosedQuote { line: 2 })
        ));
        assert!(matches!(
            read_all(b"a\n\"b\"c\n", 64),
            Err(RecordError::TextAfterQuote { line: 2 })
        ));
        assert!(matches!(
            read_all(b"\"b\"\rc\n", 64),
            Err(RecordError::TextAfterQuote { line: 1 })
        ));
        assert!(matches!(
            read_all(b"\xFF\xFEa\0", 64),
            Err(RecordError::Utf16)
        ));
    }

    #[test]
    fn a_record_without_end_is_refused_before_memory_grows() {
        let mut reader = RecordReader::new(std::io::BufReader::new(std::io::repeat(b'x'))).unwrap();
        reader.max_record_bytes = 100_000;
        assert!(matches!(
            reader.next_record(),
            Err(RecordError::TooLong { line: 1 })
        ));
    }

    #[test]
    fn the_byte_order_mark_is_no_part_of_the_first_name() {
        let mut reader = RecordReader::new(&b"\xEF\xBB\xBF\"id\",x\n"[..]).unwrap();
        assert_eq!(reader.prefix(), BYTE_ORDER_MARK);
        assert_eq!(values(&reader.next_record().unwrap().unwrap())[0], b"id");
    }

    /// Values of the bytes that matter to CSV and some that do not.
    fn value() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            Just(b'"'),
            Just(b','),
            Just(b'\r'),
            Just(b'\n'),
            any::<u8>()
        ];
        prop::collection::vec(byte, 0..12)
    }

    fn rows() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        (1usize..5).prop_flat_map(|width| {
            prop::collection::vec(prop::collection::vec(value(), width), 0..8)
        })
    }

    proptest! {
        #[test]
        fn what_the_csv_crate_writes_is_read_back(rows in rows(), crlf: bool, always: bool, buffer in 1usize..40) {
            let terminator = if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
            let quotes = if always { csv::QuoteStyle::Always } else { csv::QuoteStyle::Necessary };
            let mut writer = csv::WriterBuilder::new().terminator(terminator).quote_style(quotes).from_writer(Vec::new());
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            let text = writer.into_inner().unwrap();
            prop_assume!(!text.starts_with(b"\xFF\xFE") && !text.starts_with(b"\xFE\xFF") && !text.starts_with(BYTE_ORDER_MARK));
            let records = read_all(&text, buffer).unwrap();
            prop_assert_eq!(records.iter().map(values).collect::<Vec<_>>(), rows);
        }

        #[test]
        fn raw_text_is_kept_and_agrees_with_the_csv_crate(text in prop::collection::vec(prop_oneof![
            Just(b'"'), Just(b','), Just(b'\n'), Just(b'a')], 0..40), buffer in 1usize..10)
        {
            let Ok(records) = read_all(&text, buffer) else { return Ok(()) };
            let raw: Vec<u8> = records.iter().flat_map(|record| record.raw.clone()).collect();
            prop_assert_eq!(&raw, &text);
            let mut oracle = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(&text[..]);
            let expected: Vec<Vec<Vec<u8>>> = oracle.byte_records()
                .map(|record| record.unwrap().iter().map(<[u8]>::to_vec).collect()).collect();
            let seen: Vec<Vec<Vec<u8>>> = records.iter().filter(|record| !record.is_blank()).map(values).collect();
            prop_assert_eq!(seen, expected);
        }

        #[test]
        fn sealing_and_opening_restores_every_byte(rows in rows(), always: bool, crlf: bool) {
            let terminator = if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
            let quotes = if always { csv::QuoteStyle::Always } else { csv::QuoteStyle::Necessary };
            let mut writer = csv::WriterBuilder::new().terminator(terminator).quote_style(quotes).from_writer(Vec::new());
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            let text = writer.into_inner().unwrap();
            prop_assume!(!text.starts_with(b"\xFF\xFE") && !text.starts_with(b"\xFE\xFF") && !text.starts_with(BYTE_ORDER_MARK));
            let mut sealed = Vec::new();
            for record in read_all(&text, 64).unwrap() {
                let hidden: Vec<(usize, Vec<u8>)> = (0..record.len()).filter(|index| !record.value(*index).is_empty())
                    .map(|index| (index, data_encoding::HEXLOWER.encode(&record.value(index)).into_bytes())).collect();
                record.write_with(hidden.iter().map(|(index, value)| (*index, value.as_slice())), &mut sealed);
            }
            let mut opened = Vec::new();
            for record in read_all(&sealed, 64).unwrap() {
                let shown: Vec<(usize, Vec<u8>)> = (0..record.len()).filter(|index| !record.value(*index).is_empty())
                    .map(|index| (index, data_encoding::HEXLOWER.decode(&record.value(index)).unwrap())).collect();
                record.write_with(shown.iter().map(|(index, value)| (*index, value.as_slice())), &mut opened);
            }
            prop_assert_eq!(opened, text);
        }
    }
}
