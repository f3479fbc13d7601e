//! One record of a CSV file (RFC 4180), with its raw text: the quoting and line end of everything that is not
//! encrypted pass through as they came.

use std::borrow::Cow;
use std::ops::Range;

/// Where a field lies in its record, its quotes included.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) range: Range<usize>,
    pub(super) quoted: bool,
}

/// One record, or one blank line.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    /// Everything, line end included.
    pub(super) raw: Vec<u8>,
    /// Its fields; none for a blank line.
    pub(super) spans: Vec<Span>,
    /// The line of the file on which the record begins, counted from 1.
    pub(super) line: u64,
    /// The number of the record, counted from 1 for the first after the header; 0 for the header. Blank lines do not count.
    pub(super) row: u64,
}

impl Record {
    /// The number of fields; 0 for a blank line.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// True for a line with nothing on it.
    pub(super) fn is_blank(&self) -> bool {
        self.spans.is_empty()
    }

    /// The value of a field, without its quotes. Empty if there is no such field.
    pub(super) fn value(&self, index: usize) -> Cow<'_, [u8]> {
        let Some(span) = self.spans.get(index) else {
            return Cow::Borrowed(&[]);
        };
        let raw = self.raw.get(span.range.clone()).unwrap_or_default();
        if !span.quoted {
            return Cow::Borrowed(raw);
        }
        let inner = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
        if !inner.contains(&b'"') {
            return Cow::Borrowed(inner);
        }
        let mut value = Vec::with_capacity(inner.len());
        let mut after_quote = false;
        for &byte in inner {
            if byte == b'"' && !after_quote {
                after_quote = true;
                continue;
            }
            after_quote = false;
            value.push(byte);
        }
        Cow::Owned(value)
    }

    /// Whether a field has quotes that its value does not need. They stay on its ciphertext, and so the plaintext has
    /// them again.
    fn has_spare_quotes(&self, index: usize) -> bool {
        self.spans.get(index).is_some_and(|span| span.quoted) && !needs_quotes(&self.value(index))
    }

    /// An empty value alone in its record must be quoted, or it would be a blank line.
    fn would_be_blank(&self, value: &[u8]) -> bool {
        value.is_empty() && self.spans.len() == 1
    }

    /// Appends the record to `out` with some of its values replaced. `replacements` are (field, value) in the order of
    /// their fields; everything else is copied as it is.
    pub(super) fn write_with<'v>(
        &self,
        replacements: impl IntoIterator<Item = (usize, &'v [u8])>,
        out: &mut Vec<u8>,
    ) {
        let mut copied = 0;
        for (index, value) in replacements {
            let Some(span) = self.spans.get(index) else {
                continue;
            };
            out.extend_from_slice(self.raw.get(copied..span.range.start).unwrap_or_default());
            write_value(
                value,
                self.has_spare_quotes(index) || self.would_be_blank(value),
                out,
            );
            copied = span.range.end;
        }
        out.extend_from_slice(self.raw.get(copied..).unwrap_or_default());
    }
}

/// Whether a value must be quoted (RFC 4180, section 2, rule 6).
fn needs_quotes(value: &[u8]) -> bool {
    value
        .iter()
        .any(|byte| matches!(byte, b'"' | b',' | b'\n' | b'\r'))
}

fn write_value(value: &[u8], quote: bool, out: &mut Vec<u8>) {
    if !quote && !needs_quotes(value) {
        out.extend_from_slice(value);
        return;
    }
    out.push(b'"');
    for &byte in value {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::super::reader::RecordReader;
    use super::*;

    fn first(text: &[u8]) -> Record {
        RecordReader::new(text)
            .unwrap()
            .next_record()
            .unwrap()
            .unwrap()
    }

    #[test]
    fn replaced_values_get_the_quotes_they_need_and_keep_those_they_had() {
        let record = first(b"plain,\"spare\",\"needed,\",\"kept \"\n");
        let sealed = [(0, &b"fk1:A"[..]), (1, &b"fk1:B"[..]), (2, &b"fk1:C"[..])];
        let mut out = Vec::new();
        record.write_with(sealed, &mut out);
        assert_eq!(out, b"fk1:A,\"fk1:B\",fk1:C,\"kept \"\n");
        let record = first(&out);
        let opened = [(0, &b"plain"[..]), (1, &b"spare"[..]), (2, &b"needed,"[..])];
        let mut back = Vec::new();
        record.write_with(opened, &mut back);
        assert_eq!(back, b"plain,\"spare\",\"needed,\",\"kept \"\n");
    }

    #[test]
    fn an_empty_value_alone_does_not_become_a_blank_line() {
        let record = first(b"fk1:A\n");
        let mut out = Vec::new();
        record.write_with([(0, &b""[..])], &mut out);
        assert_eq!(out, b"\"\"\n");
    }
}
