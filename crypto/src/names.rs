//! Names of tenants, keys, identities, fields and context pairs: `[a-z0-9][a-z0-9._-]{0,62}`.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 63;

/// Why something is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is there.
    #[error("a name is never empty")]
    Empty,
    /// More than [`MAX_NAME_BYTES`] bytes.
    #[error("a name has at most 63 characters")]
    TooLong,
    /// The first character is neither a small letter nor a digit.
    #[error("a name begins with one of `a-z`, `0-9`")]
    FirstCharacter,
    /// A later character is outside the alphabet; `position` counts bytes from 0.
    #[error(
        "a name has only the characters `a-z`, `0-9`, `.`, `_`, `-`, but not so at byte {position}"
    )]
    Character {
        /// Where, in bytes from the beginning.
        position: usize,
    },
}

/// Says whether `name` is in the grammar of names.
///
/// # Errors
/// [`NameError`] with the first rule that is broken.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let first = *name.as_bytes().first().ok_or(NameError::Empty)?;
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong);
    }
    if !matches!(first, b'a'..=b'z' | b'0'..=b'9') {
        return Err(NameError::FirstCharacter);
    }
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    match name.bytes().position(|b| !allowed(b)) {
        Some(position) => Err(NameError::Character { position }),
        None => Ok(()),
    }
}

/// The name of a tenant, a key or an identity. A clone is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Parses a name.
    ///
    /// # Errors
    /// As [`check_name`].
    pub fn parse(name: &str) -> Result<Self, NameError> {
        check_name(name)?;
        Ok(Self(Arc::from(name)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::parse(name)
    }
}

/// The stable name of a field, such as `customer.email`, checked and borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Field<'a>(&'a str);

impl<'a> Field<'a> {
    /// Parses the name of a field.
    ///
    /// # Errors
    /// As [`check_name`].
    pub fn parse(name: &'a str) -> Result<Self, NameError> {
        check_name(name)?;
        Ok(Self(name))
    }

    /// The name as text.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_the_grammar_are_taken() {
        for name in [
            "a",
            "0",
            "default",
            "customer.email",
            "a-b_c.d",
            "9lives",
            &"a".repeat(63),
        ] {
            assert_eq!(check_name(name), Ok(()), "{name}");
            assert_eq!(Name::parse(name).unwrap().as_str(), name);
            assert_eq!(Field::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn each_rule_has_its_error() {
        assert_eq!(check_name(""), Err(NameError::Empty));
        assert_eq!(check_name(&"a".repeat(64)), Err(NameError::TooLong));
        for name in [".a", "-a", "_a", "A", "é", " a", "/"] {
            assert_eq!(check_name(name), Err(NameError::FirstCharacter), "{name}");
        }
        for name in ["aB", "a b", "a/", "aé", "a\0", "a\n"] {
            assert_eq!(
                check_name(name),
                Err(NameError::Character { position: 1 }),
                "{name:?}"
            );
        }
    }

    #[test]
    fn a_map_of_names_is_asked_with_text() {
        let set: std::collections::HashSet<Name> = [Name::parse("pii").unwrap()].into();
        assert!(set.contains("pii"));
    }

    proptest! {
        #[test]
        fn exactly_the_grammar_is_taken(name in "[a-zA-Z0-9._é-]{0,66}") {
            let bytes = name.as_bytes();
            let good = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            let expected = (1..=63).contains(&bytes.len())
                && good(&bytes[0])
                && bytes.iter().all(|b| good(b) || b"._-".contains(b));
            prop_assert_eq!(check_name(&name).is_ok(), expected);
        }
    }
}
