//! Where the chosen values and the context of a row are.

mod json;

use std::sync::Arc;

use bytes::Bytes;

use super::super::failure::{Exit, Failure};
use super::super::output::{count_of, one_line};
use super::columns::{ColumnChoice, ContextChoice};
use super::path::Path;
use super::record::Record;
use super::row::{Place, Problem, Row, Shape};

/// A chosen column of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Column {
    /// Its name in the header, or its path.
    pub(crate) name: String,
    /// The key; empty when decrypting.
    pub(crate) key: String,
    /// The field.
    pub(crate) field: String,
}

/// The choices applied to one file.
#[derive(Debug)]
pub(super) struct Layout {
    /// The chosen columns; those of a CSV file from left to right.
    pub(super) columns: Vec<Arc<Column>>,
    /// The names of the context.
    context: Vec<String>,
    places: Places,
}

/// Where the columns are and then the context, in their order.
#[derive(Debug)]
enum Places {
    Csv {
        columns: Vec<usize>,
        context: Vec<usize>,
        width: usize,
    },
    Json {
        paths: Vec<Path>,
        json_values: bool,
    },
}

/// What the layout finds in one row.
#[derive(Debug)]
pub(super) struct Found {
    /// The row's context.
    pub(super) context: Arc<[(String, String)]>,
    /// The chosen values, in the order of the text.
    pub(super) values: Vec<Value>,
}

/// One chosen value.
#[derive(Debug)]
pub(super) struct Value {
    /// Its column.
    pub(super) column: Arc<Column>,
    /// Where it is.
    pub(super) place: Place,
    /// The value without quotes and escapes; JSON that is no string as it stands. Empty if there is nothing to encrypt.
    pub(super) value: Bytes,
}

impl Layout {
    /// Finds the chosen columns in the header of a CSV file, or takes them as paths if there is none.
    pub(super) fn new(
        shape: Shape,
        header: Option<&Record>,
        columns: &[ColumnChoice],
        context: &[ContextChoice],
    ) -> Result<Layout, Failure> {
        for (number, choice) in context.iter().enumerate() {
            if context.iter().take(number).any(|c| c.name == choice.name) {
                return Err(Failure::new(
                    Exit::Usage,
                    format_args!("the context name `{}` is given twice", choice.name),
                )
                .help("give each context name once"));
            }
        }
        match (shape, header) {
            (Shape::JsonLines { json_values }, _) => json::layout(json_values, columns, context),
            (Shape::Csv, Some(header)) => csv_layout(header, columns, context),
            (Shape::Csv, None) => Err(Failure::new(Exit::Invalid, "the input is empty")
                .help("a CSV file begins with a header that names its columns")),
        }
    }

    /// The form of the file.
    pub(super) fn shape(&self) -> Shape {
        match self.places {
            Places::Csv { .. } => Shape::Csv,
            Places::Json { json_values, .. } => Shape::JsonLines { json_values },
        }
    }

    /// The context and the chosen values of a row that is not blank.
    pub(super) fn find(&self, row: &Row) -> Result<Found, Problem> {
        match (&self.places, row) {
            (
                Places::Csv {
                    columns,
                    context,
                    width,
                },
                Row::Csv(record),
            ) => self.find_in_record(row, record, columns, context, *width),
            (Places::Json { paths, json_values }, Row::Json(line)) => {
                self.find_in_line(row, line, paths, *json_values)
            }
            // The reader makes rows of the layout's own form.
            _ => Err(row.problem(None, " has another form than the file", "")),
        }
    }

    fn find_in_record(
        &self,
        row: &Row,
        record: &Record,
        columns: &[usize],
        context: &[usize],
        width: usize,
    ) -> Result<Found, Problem> {
        if record.len() != width {
            let what = format!(
                " has {}, the header has {width}",
                count_of(record.len() as u64, "value")
            );
            let help = "every row must have as many values as the header";
            return Err(row.problem(None, what, help));
        }
        let pair = |(name, index): (&String, &usize)| {
            let help = "convert the file to UTF-8, or bind rows by another column";
            match std::str::from_utf8(&record.value(*index)) {
                Ok(value) => Ok((name.clone(), value.to_owned())),
                Err(_) => {
                    let what = format_args!(": the context `{name}` is not UTF-8 text");
                    Err(row.problem(None, what, help))
                }
            }
        };
        let value = |(column, index): (&Arc<Column>, &usize)| Value {
            column: Arc::clone(column),
            place: Place::Field(*index),
            value: Bytes::from(record.value(*index).into_owned()),
        };
        Ok(Found {
            context: self
                .context
                .iter()
                .zip(context)
                .map(pair)
                .collect::<Result<_, _>>()?,
            values: self.columns.iter().zip(columns).map(value).collect(),
        })
    }

    /// What is encrypted of a value that is no ciphertext.
    pub(super) fn plaintext(&self, row: &Row, value: &Value) -> Bytes {
        match (&self.places, &value.place) {
            (
                Places::Json {
                    json_values: true, ..
                },
                Place::Text(range),
            ) => Bytes::copy_from_slice(row.raw().get(range.clone()).unwrap_or_default()),
            _ => value.value.clone(),
        }
    }

    /// The text that stands for a ciphertext in its row.
    pub(super) fn write_ciphertext(&self, text: String) -> Vec<u8> {
        match self.places {
            Places::Csv { .. } => text.into_bytes(),
            Places::Json { .. } => format!("\"{text}\"").into_bytes(),
        }
    }

    /// The text that stands for a plaintext in its row, or why it cannot stand there.
    pub(super) fn write_plaintext(
        &self,
        plaintext: Bytes,
    ) -> Result<Vec<u8>, (&'static str, &'static str)> {
        let Places::Json { json_values, .. } = self.places else {
            return Ok(plaintext.into());
        };
        let not_text = (
            " is not UTF-8 text, and JSON has no other",
            "decrypt it to CSV, or leave such values with --keep-going",
        );
        let text = std::str::from_utf8(&plaintext).map_err(|_| not_text)?;
        if !json_values {
            return serde_json::to_vec(text).map_err(|_| not_text);
        }
        let is_json = serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
        if is_json && !text.contains(['\n', '\r']) {
            return Ok(plaintext.into());
        }
        Err((
            " is not JSON text",
            "it was encrypted as a plain string: decrypt it without --json-values",
        ))
    }
}

fn make_column(choice: &ColumnChoice) -> Arc<Column> {
    Arc::new(Column {
        name: choice.column.clone(),
        key: choice.key.clone().unwrap_or_default(),
        field: choice.field.clone(),
    })
}

fn chosen_twice(choice: &ColumnChoice) -> Failure {
    Failure::new(
        Exit::Usage,
        format_args!("the column `{}` is chosen twice", choice.column),
    )
    .help("give --column once for each column")
}

fn encrypted_context(choice: &ContextChoice) -> Failure {
    Failure::new(
        Exit::Usage,
        format_args!("the context column `{}` is itself encrypted", choice.column),
    )
    .help("bind rows by a column that stays as it is, such as the row's id")
}

fn csv_layout(
    header: &Record,
    columns: &[ColumnChoice],
    context: &[ContextChoice],
) -> Result<Layout, Failure> {
    let names: Vec<String> = (0..header.len())
        .map(|index| String::from_utf8_lossy(&header.value(index)).into_owned())
        .collect();
    let mut chosen: Vec<(usize, Arc<Column>)> = Vec::with_capacity(columns.len());
    for choice in columns {
        let index = find_name(&names, &choice.column)?;
        if chosen.iter().any(|(other, _)| *other == index) {
            return Err(chosen_twice(choice));
        }
        chosen.push((index, make_column(choice)));
    }
    chosen.sort_by_key(|(index, _)| *index);
    let (columns, chosen): (Vec<usize>, Vec<Arc<Column>>) = chosen.into_iter().unzip();
    let mut bound = Vec::with_capacity(context.len());
    for choice in context {
        let index = find_name(&names, &choice.column)?;
        if columns.contains(&index) {
            return Err(encrypted_context(choice));
        }
        bound.push(index);
    }
    Ok(Layout {
        columns: chosen,
        context: context.iter().map(|choice| choice.name.clone()).collect(),
        places: Places::Csv {
            columns,
            context: bound,
            width: header.len(),
        },
    })
}

fn find_name(names: &[String], wanted: &str) -> Result<usize, Failure> {
    let mut places = names
        .iter()
        .enumerate()
        .filter(|(_, name)| *name == wanted)
        .map(|(index, _)| index);
    let Some(index) = places.next() else {
        let what = format!("the input has no column `{wanted}`");
        let failure = Failure::new(Exit::Invalid, what);
        if names.first().is_some_and(|name| name.starts_with('{')) {
            return Err(
                failure.help("this looks like JSON lines: read it with --input-format jsonl")
            );
        }
        let there = names
            .iter()
            .map(|name| format!("`{}`", one_line(name)))
            .collect::<Vec<_>>();
        return Err(failure.help(format_args!("its header names {}", there.join(", "))));
    };
    if places.next().is_some() {
        return Err(Failure::new(
            Exit::Invalid,
            format_args!("the input has more than one column `{wanted}`"),
        )
        .help("give the columns different names in the header"));
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::super::reader::RecordReader;
    use super::*;

    fn header(text: &str) -> Record {
        RecordReader::new(text.as_bytes())
            .unwrap()
            .next_record()
            .unwrap()
            .unwrap()
    }

    fn layout(columns: &[&str], context: &[&str]) -> Result<Layout, Failure> {
        let columns: Vec<ColumnChoice> = columns.iter().map(|text| text.parse().unwrap()).collect();
        let context: Vec<ContextChoice> =
            context.iter().map(|text| text.parse().unwrap()).collect();
        Layout::new(
            Shape::Csv,
            Some(&header("id,email,ssn,twice,twice,a=b\n")),
            &columns,
            &context,
        )
    }

    #[test]
    fn choices_are_found_in_the_header() {
        let found = layout(
            &["ssn=pii:customer.ssn", "email=pii:customer.email", "a=b=f"],
            &["row=id"],
        )
        .unwrap();
        let row = Row::Csv(header("7,ada,078,,,x\n"));
        let found = found.find(&row).unwrap();
        let values: Vec<(&Place, &str, &str, &[u8])> = found
            .values
            .iter()
            .map(|v| {
                let column = &v.column;
                (
                    &v.place,
                    column.key.as_str(),
                    column.field.as_str(),
                    &v.value[..],
                )
            })
            .collect();
        assert_eq!(
            values,
            [
                (&Place::Field(1), "pii", "customer.email", &b"ada"[..]),
                (&Place::Field(2), "pii", "customer.ssn", b"078"),
                (&Place::Field(5), "", "f", b"x")
            ]
        );
        assert_eq!(*found.context, [("row".into(), "7".into())]);
    }

    #[test]
    fn header_mistakes_are_named() {
        let what = |columns: &[&str], context: &[&str]| {
            layout(columns, context).unwrap_err().what().to_owned()
        };
        assert_eq!(
            what(&["phone=k:f"], &["id"]),
            "the input has no column `phone`"
        );
        assert_eq!(
            what(&["twice=k:f"], &["id"]),
            "the input has more than one column `twice`"
        );
        assert_eq!(
            what(&["email=k:f", "email=k:g"], &["id"]),
            "the column `email` is chosen twice"
        );
        assert_eq!(
            what(&["email=k:f"], &["email"]),
            "the context column `email` is itself encrypted"
        );
        assert_eq!(
            what(&["email=k:f"], &["id", "id"]),
            "the context name `id` is given twice"
        );
    }
}
