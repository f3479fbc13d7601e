//! Which columns are encrypted, with which key and field, and which bind the row.

use std::str::FromStr;
use std::sync::Arc;

use fieldkeep_crypto::names::{Field, check_name};

use super::super::failure::{Exit, Failure};
use super::record::Record;

/// `COLUMN=KEY:FIELD`, as in `email=pii:customer.email`. Decryption needs no key: `email=customer.email` will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnChoice {
    /// The column's name in the header.
    pub(crate) column: String,
    /// The key; decryption does not use it.
    pub(crate) key: Option<String>,
    /// The field.
    pub(crate) field: String,
}

/// `COLUMN` or `NAME=COLUMN`: a column whose value goes into the context of its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContextChoice {
    /// The name in the context.
    pub(crate) name: String,
    /// The column's name in the header.
    pub(crate) column: String,
}

/// Why an argument does not choose a column.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChoiceError {
    #[error("write it as COLUMN=KEY:FIELD, for example `email=pii:customer.email`")]
    Shape,
    #[error(
        "`{name}` is not a {what}: use a-z, 0-9, `.`, `_` and `-`, at most 63, beginning with a letter or digit"
    )]
    Name { name: String, what: &'static str },
    #[error("`{column}` cannot be a context name; give it one: NAME={column}")]
    ContextName { column: String },
}

impl FromStr for ColumnChoice {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<ColumnChoice, ChoiceError> {
        let (column, target) = text.rsplit_once('=').ok_or(ChoiceError::Shape)?;
        let (key, field) = match target.rsplit_once(':') {
            Some((key, field)) => (Some(key), field),
            None => (None, target),
        };
        if column.is_empty() {
            return Err(ChoiceError::Shape);
        }
        if let Some(key) = key {
            check_key(key)?;
        }
        Field::parse(field).map_err(|_| ChoiceError::Name {
            name: field.into(),
            what: "field name",
        })?;
        Ok(ColumnChoice {
            column: column.into(),
            key: key.map(Into::into),
            field: field.into(),
        })
    }
}

fn check_key(key: &str) -> Result<(), ChoiceError> {
    let parts: Vec<&str> = key.split('/').collect();
    let valid = match parts.as_slice() {
        [name] => check_name(name).is_ok(),
        ["tenants", tenant, "keys", name] => check_name(tenant).is_ok() && check_name(name).is_ok(),
        _ => false,
    };
    if valid {
        Ok(())
    } else {
        Err(ChoiceError::Name {
            name: key.into(),
            what: "key name",
        })
    }
}

impl FromStr for ContextChoice {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<ContextChoice, ChoiceError> {
        let (name, column) = text.split_once('=').unwrap_or((text, text));
        if check_name(name).is_ok() {
            Ok(ContextChoice {
                name: name.into(),
                column: column.into(),
            })
        } else {
            Err(ChoiceError::ContextName {
                column: column.into(),
            })
        }
    }
}

/// A chosen column of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Column {
    /// Its place in a row.
    pub(crate) index: usize,
    /// Its name in the header.
    pub(crate) name: String,
    /// The key; empty when decrypting.
    pub(crate) key: String,
    /// The field.
    pub(crate) field: String,
}

/// The choices applied to the header of one file.
#[derive(Debug)]
pub(super) struct Layout {
    /// The chosen columns, from left to right.
    pub(super) columns: Vec<Arc<Column>>,
    /// Context name and place in a row.
    pub(super) context: Vec<(String, usize)>,
    /// The number of values in each row.
    pub(super) width: usize,
}

impl Layout {
    /// Finds the chosen columns in the header.
    pub(super) fn new(
        header: &Record,
        columns: &[ColumnChoice],
        context: &[ContextChoice],
    ) -> Result<Layout, Failure> {
        let names: Vec<String> = (0..header.len())
            .map(|index| String::from_utf8_lossy(&header.value(index)).into_owned())
            .collect();
        let mut chosen: Vec<Arc<Column>> = Vec::with_capacity(columns.len());
        for choice in columns {
            let index = find(&names, &choice.column)?;
            if chosen.iter().any(|column| column.index == index) {
                return Err(Failure::new(
                    Exit::Usage,
                    format_args!("the column `{}` is chosen twice", choice.column),
                )
                .help("give --column once for each column"));
            }
            chosen.push(Arc::new(Column {
                index,
                name: choice.column.clone(),
                key: choice.key.clone().unwrap_or_default(),
                field: choice.field.clone(),
            }));
        }
        chosen.sort_by_key(|column| column.index);
        let mut bound: Vec<(String, usize)> = Vec::with_capacity(context.len());
        for choice in context {
            let index = find(&names, &choice.column)?;
            if chosen.iter().any(|column| column.index == index) {
                let what = format!("the context column `{}` is itself encrypted", choice.column);
                return Err(Failure::new(Exit::Usage, what)
                    .help("bind rows by a column that stays as it is, such as the row's id"));
            }
            if bound.iter().any(|(name, _)| *name == choice.name) {
                return Err(Failure::new(
                    Exit::Usage,
                    format_args!("the context name `{}` is given twice", choice.name),
                )
                .help("give each context name once"));
            }
            bound.push((choice.name.clone(), index));
        }
        Ok(Layout {
            columns: chosen,
            context: bound,
            width: header.len(),
        })
    }
}

fn find(names: &[String], wanted: &str) -> Result<usize, Failure> {
    let mut places = names
        .iter()
        .enumerate()
        .filter(|(_, name)| *name == wanted)
        .map(|(index, _)| index);
    let Some(index) = places.next() else {
        let there = names
            .iter()
            .map(|name| format!("`{}`", super::super::output::one_line(name)))
            .collect::<Vec<_>>();
        return Err(Failure::new(
            Exit::Invalid,
            format_args!("the input has no column `{wanted}`"),
        )
        .help(format_args!("its header names {}", there.join(", "))));
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
            &header("id,email,ssn,twice,twice,a=b\n"),
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
        let places: Vec<(usize, &str, &str)> = found
            .columns
            .iter()
            .map(|c| (c.index, c.key.as_str(), c.field.as_str()))
            .collect();
        assert_eq!(
            places,
            [
                (1, "pii", "customer.email"),
                (2, "pii", "customer.ssn"),
                (5, "", "f")
            ]
        );
        assert_eq!(found.context, [(String::from("row"), 0)]);
        assert_eq!(found.width, 6);
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

    #[test]
    fn malformed_choices_are_refused() {
        for text in [
            "email",
            "=k:f",
            "email=",
            "email=k:",
            "email=K:f",
            "email=a/b:f",
            "email=k:Field",
        ] {
            assert!(text.parse::<ColumnChoice>().is_err(), "{text}");
        }
        assert!(
            "email=tenants/acme/keys/pii:customer.email"
                .parse::<ColumnChoice>()
                .is_ok()
        );
        assert!("Customer Id".parse::<ContextChoice>().is_err());
        assert!("id=Customer Id".parse::<ContextChoice>().is_ok());
    }
}
