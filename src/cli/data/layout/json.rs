//! JSON lines: choices as paths, and what they find.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::super::super::failure::{Exit, Failure};
use super::super::columns::{ColumnChoice, ContextChoice};
use super::super::path::{Path, PathError};
use super::super::row::{Line, Place, Problem, Row};
use super::super::splice::find;
use super::{Found, Layout, Places, Value, chosen_twice, encrypted_context, make_column};

/// Takes the choices as paths.
pub(super) fn layout(
    json_values: bool,
    columns: &[ColumnChoice],
    context: &[ContextChoice],
) -> Result<Layout, Failure> {
    let parse = |text: &str| {
        text.parse::<Path>().map_err(|error: PathError| {
            let what = format_args!("`{text}` is not a path into JSON");
            Failure::new(Exit::Usage, what).help(error)
        })
    };
    let mut paths: Vec<Path> = Vec::with_capacity(columns.len() + context.len());
    for choice in columns {
        let path = parse(&choice.column)?;
        if paths.iter().any(|other| other.overlaps(&path)) {
            return Err(chosen_twice(choice));
        }
        paths.push(path);
    }
    for choice in context {
        let path = parse(&choice.column)?;
        if path.has_each() {
            let what = format_args!("the context path `{}` names many values", choice.column);
            return Err(Failure::new(Exit::Usage, what)
                .help("bind rows by one value, such as the row's id"));
        }
        if paths
            .iter()
            .take(columns.len())
            .any(|other| other.overlaps(&path))
        {
            return Err(encrypted_context(choice));
        }
        paths.push(path);
    }
    Ok(Layout {
        columns: columns.iter().map(make_column).collect(),
        context: context.iter().map(|choice| choice.name.clone()).collect(),
        places: Places::Json { paths, json_values },
    })
}

impl Layout {
    /// The context and the chosen values of a line.
    pub(super) fn find_in_line(
        &self,
        row: &Row,
        line: &Line,
        paths: &[Path],
        json_values: bool,
    ) -> Result<Found, Problem> {
        let text = std::str::from_utf8(&line.raw)
            .map_err(|_| row.problem(None, " is not UTF-8 text", "convert the file to UTF-8"))?;
        let found = find(text, paths).map_err(|error| {
            // The error's own message could show a part of the line.
            let what = match error.column() {
                0 => String::from(" is not JSON"),
                column => format!(" is not JSON, column {column}"),
            };
            row.problem(
                None,
                what,
                "each line must be one JSON value; `jq -c '.[]'` makes lines of an array",
            )
        })?;
        let mut context: Vec<Option<String>> = vec![None; self.context.len()];
        let mut values = Vec::with_capacity(found.len());
        for found in found {
            let raw = text.get(found.range.clone()).unwrap_or_default();
            if let Some(column) = self.columns.get(found.path) {
                values.push(Value {
                    column: Arc::clone(column),
                    place: Place::Text(found.range),
                    value: json_value(row, &column.name, raw, json_values)?,
                });
                continue;
            }
            let number = found.path - self.columns.len();
            let (Some(name), Some(place)) = (self.context.get(number), context.get_mut(number))
            else {
                continue;
            };
            if place.replace(context_value(row, name, raw)?).is_some() {
                let what = format_args!(": the context `{name}` is there twice");
                return Err(row.problem(None, what, "an object must have each member once"));
            }
        }
        let pair = |(name, value): (&String, Option<String>)| match value {
            Some(value) => Ok((name.clone(), value)),
            None => {
                let what = format_args!(": the context `{name}` is missing");
                let help = "every row must have the values that bind it, as strings or numbers";
                Err(row.problem(None, what, help))
            }
        };
        let context = self.context.iter().zip(context).map(pair);
        Ok(Found {
            context: context.collect::<Result<_, _>>()?,
            values,
        })
    }
}

/// The value of a JSON text: what a string says, anything else as it stands.
fn json_value(row: &Row, column: &str, raw: &str, json_values: bool) -> Result<Bytes, Problem> {
    if raw == "null" {
        return Ok(Bytes::new());
    }
    if raw.starts_with('"') {
        return match serde_json::from_str::<Cow<'_, str>>(raw) {
            Ok(text) => Ok(Bytes::from(text.into_owned())),
            Err(_) => Err(row.problem(
                Some(column),
                " is a string that is no text: half of a surrogate pair",
                "mend the string",
            )),
        };
    }
    if json_values {
        return Ok(Bytes::copy_from_slice(raw.as_bytes()));
    }
    let what = match raw.chars().next() {
        Some('{') => " is an object, not a string",
        Some('[') => " is an array, not a string",
        Some('t' | 'f') => " is true or false, not a string",
        _ => " is a number, not a string",
    };
    Err(row.problem(
        Some(column),
        what,
        "choose the strings within it, as in `a.b` or `a[*]`, or treat values of any type as their JSON text with --json-values",
    ))
}

/// What binds a row: what a string says, or a number as it stands.
fn context_value(row: &Row, name: &str, raw: &str) -> Result<String, Problem> {
    let text = match raw.chars().next() {
        Some('"') => serde_json::from_str(raw).ok(),
        Some('-' | '0'..='9') => Some(raw.to_owned()),
        _ => None,
    };
    text.ok_or_else(|| {
        let what = format_args!(": the context `{name}` is neither a string nor a number");
        row.problem(None, what, "bind rows by another value")
    })
}
