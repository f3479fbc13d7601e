//! Which columns are encrypted, with which key and field, and which bind the row.

use std::str::FromStr;

use fieldkeep_crypto::names::{Field, check_name};

/// `COLUMN=KEY:FIELD`, as in `email=pii:customer.email`. Decryption needs no key: `email=customer.email` will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnChoice {
    /// The column's name in the header, or the path of values in a line of JSON.
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
    /// The column's name in the header, or the path of values in a line of JSON.
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

#[cfg(test)]
mod tests {
    use super::*;

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
