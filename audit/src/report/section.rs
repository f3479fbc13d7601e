//! A titled table of text, before it is shown anywhere.

use super::names::{short, thousands};
use crate::export::words::Time;

/// A titled table.
#[derive(Debug, Default)]
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) note: String,
    /// The names of the columns; those of numbers are on the right.
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Line>,
    /// What is said below the table.
    pub(super) foot: String,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// What a column has, which decides where it gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Names and words, which may be cut.
    Text,
    /// Numbers, on the right.
    Number,
    /// Times.
    Time,
}

/// A row, and what is said in a line of its own below it.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) cells: Vec<Cell>,
    pub(super) more: String,
}

/// What stands in a cell. None of it is escaped.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) text: String,
    /// The whole name, where `text` is a short form.
    pub(super) full: String,
}

impl Cell {
    /// The name of a resource, short.
    pub(super) fn name(name: &str) -> Self {
        Self {
            text: if name.is_empty() {
                "-".into()
            } else {
                short(name)
            },
            full: name.to_owned(),
        }
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        thousands(number).into()
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self {
            full: text.clone(),
            text,
        }
    }
}

impl Cell {
    /// A time to the minute.
    pub(super) fn minute(time: Time) -> Self {
        let mut cell = Self::from(time);
        cell.text.truncate("2026-11-28 14:05".len());
        cell
    }
}

impl From<Time> for Cell {
    fn from(time: Time) -> Self {
        Self {
            text: time.for_people(),
            full: time.to_string(),
        }
    }
}

/// A column of names or words.
pub(super) const fn text(name: &'static str) -> Column {
    let kind = Kind::Text;
    Column { name, kind }
}

/// A column of numbers.
pub(super) const fn number(name: &'static str) -> Column {
    let kind = Kind::Number;
    Column { name, kind }
}

/// A column of times.
pub(super) const fn time(name: &'static str) -> Column {
    let kind = Kind::Time;
    Column { name, kind }
}
