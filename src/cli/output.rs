//! What commands print: tables for people, JSON for programs.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets};
use serde_json::Value;

use super::failure::{Exit, Failure};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// One JSON object or array.
    Json,
}

impl Format {
    /// As it is written.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Format::Table => "table",
            Format::Json => "json",
        }
    }
}

/// Whether standard output may have colours: a terminal, and the user has not asked for none (no-color.org).
pub(crate) fn is_styled() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    std::io::stdout().is_terminal() && !no_color && !dumb
}

/// Prints text and a line end.
pub(crate) fn print_line(text: impl std::fmt::Display) -> Result<(), Failure> {
    writeln!(std::io::stdout().lock(), "{text}").map_err(|error| output_failure(&error))
}

/// Prints text that ends its own lines.
pub(crate) fn print_text(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| output_failure(&error))
}

/// Prints bytes as they are; adds a line end on a terminal alone.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let line_end: &[u8] = if out.is_terminal() { b"\n" } else { b"" };
    out.write_all(bytes)
        .and_then(|()| out.write_all(line_end))
        .and_then(|()| out.flush())
        .map_err(|e| output_failure(&e))
}

/// Prints one JSON value.
pub(crate) fn print_json(value: &Value) -> Result<(), Failure> {
    print_line(format_args!("{value:#}"))
}

/// Prints one object: its members, a line each in the given order, or an object in JSON.
pub(crate) fn print_object(
    format: Format,
    members: &[&str],
    object: &Value,
) -> Result<(), Failure> {
    if format == Format::Json {
        return print_json(object);
    }
    let text = |member: &&str| object.get(*member).map(cell_text).unwrap_or_default();
    let rows = members
        .iter()
        .map(|member| vec![member.replace('_', " "), text(member)]);
    print_line(table(None, rows.collect()))
}

/// Prints a list of objects: a row each, with the given members as columns; an array in JSON.
pub(crate) fn print_list(
    format: Format,
    columns: &[&str],
    list: &[Value],
    none: &str,
) -> Result<(), Failure> {
    if format == Format::Json {
        return print_json(&Value::Array(list.to_vec()));
    }
    if list.is_empty() {
        return print_line(none);
    }
    let member =
        |object: &Value, column: &&str| object.get(*column).map(cell_text).unwrap_or_default();
    let rows = list.iter().map(|object| {
        columns
            .iter()
            .map(|column| member(object, column))
            .collect()
    });
    print_line(table(Some(columns), rows.collect()))
}

/// A table of rows, with a header if it has one.
pub(crate) fn table(header: Option<&[&str]>, rows: Vec<Vec<String>>) -> String {
    let styled = is_styled();
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    if !styled {
        table.force_no_tty();
    }
    if let Some(header) = header {
        let cells = header.iter().map(|name| {
            let cell = Cell::new(name.replace('_', " ").to_uppercase());
            if styled {
                cell.add_attribute(Attribute::Bold)
            } else {
                cell
            }
        });
        table.set_header(cells);
    }
    for row in rows {
        table.add_row(row.iter().map(|text| one_line(text)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    text.lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n")
}

/// A JSON value as people read it.
fn cell_text(value: &Value) -> String {
    match value {
        Value::Null => String::from("-"),
        Value::String(text) if text.is_empty() => String::from("-"),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell_text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Text that cannot move the cursor or break a row: control characters are escaped.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect()
}

/// A number of things: `1 row`, `2,000 rows`.
pub(crate) fn count_of(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", thousands(number))
}

/// A whole number with its thousands apart: `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A point in time as RFC 3339 in UTC; `-` for none.
pub(crate) fn rfc3339(seconds: i64) -> Value {
    use time::format_description::well_known::Rfc3339;
    let time = time::OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok());
    time.map_or(Value::Null, Value::String)
}

/// A word that a shell takes as it is.
pub(crate) fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@%+=,".contains(c);
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

fn output_failure(error: &std::io::Error) -> Failure {
    let exit = match error.kind() {
        std::io::ErrorKind::BrokenPipe => Exit::PipeClosed,
        _ => Exit::Failed,
    };
    Failure::new(exit, "cannot write to standard output").caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_plain_text_when_not_on_a_terminal() {
        let rows = vec![
            vec!["pii".into(), "1".into()],
            vec!["a\x1b[31m\nb".into(), "22".into()],
        ];
        assert_eq!(
            table(Some(&["name", "primary_version"]), rows),
            "NAME            PRIMARY VERSION\npii             1\na\\u{1b}[31m\\nb  22"
        );
    }

    #[test]
    fn numbers_and_times_are_readable() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(thousands),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [0, 1, 2_000].map(|number| count_of(number, "row")),
            ["0 rows", "1 row", "2,000 rows"]
        );
        assert_eq!(rfc3339(0), Value::String("1970-01-01T00:00:00Z".into()));
    }

    #[test]
    fn paths_survive_the_shell() {
        assert_eq!(shell_word("/a/b-c.pem"), "/a/b-c.pem");
        assert_eq!(shell_word("/a b/it's"), "'/a b/it'\\''s'");
    }
}
