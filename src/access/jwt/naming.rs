//! From the text of a claim to a name of the grammar `[a-z0-9][a-z0-9._-]{0,62}`.
//!
//! Two texts must never give one name: whoever may choose his user name at the provider would become somebody else. So
//! nothing is folded, cut or replaced by a common character. A text is taken as it is, or escaped so that it can be read back.

use std::fmt::Write as _;

use fieldkeep_crypto::names::{MAX_NAME_BYTES, Name, NameError};

/// What stands in front of an escaped name that would not begin with a letter or a digit. An underscore is followed by two
/// hexadecimal digits anywhere else, and here never is, so this cannot be the beginning of another text.
const FRONT: &str = "x_";

/// How the claim that names the caller becomes his name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum NameRule {
    /// As it is. A text outside of the grammar is refused.
    #[default]
    Exact,
    /// Small letters, digits, `.` and `-` as they are; every other byte as `_` and two hexadecimal digits, so that
    /// `ada@example.com` is `ada_40example.com`. What is then longer than a name is refused.
    Escape,
}

impl NameRule {
    /// `exact` or `escape`.
    pub fn as_str(self) -> &'static str {
        match self {
            NameRule::Exact => "exact",
            NameRule::Escape => "escape",
        }
    }

    /// The rule with this name; [`NameRule::Exact`] for the empty text.
    pub fn parse(name: &str) -> Option<NameRule> {
        match name {
            "" | "exact" => Some(NameRule::Exact),
            "escape" => Some(NameRule::Escape),
            _ => None,
        }
    }

    /// The name that `text` gives.
    ///
    /// # Errors
    /// It gives none.
    pub(super) fn apply(self, text: &str) -> Result<Name, NameError> {
        match self {
            NameRule::Exact => Name::parse(text),
            NameRule::Escape => Name::parse(&escape(text)?),
        }
    }
}

fn escape(text: &str) -> Result<String, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    // Escaping never makes it shorter.
    if text.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong);
    }
    let mut name = String::with_capacity(text.len() * 3 + FRONT.len());
    if !text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit()) {
        name.push_str(FRONT);
    }
    for byte in text.bytes() {
        if matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-') {
            name.push(char::from(byte));
        } else if write!(name, "_{byte:02x}").is_err() {
            return Err(NameError::TooLong);
        }
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unescape(name: &str) -> String {
        let not_hex = |rest: &&str| !rest.starts_with(|c: char| c.is_ascii_hexdigit());
        let mut rest = name.strip_prefix(FRONT).filter(not_hex).unwrap_or(name);
        let mut bytes = Vec::new();
        while let Some(first) = rest.bytes().next() {
            if first == b'_' {
                bytes.push(u8::from_str_radix(&rest[1..3], 16).unwrap());
                rest = &rest[3..];
            } else {
                bytes.push(first);
                rest = &rest[1..];
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn claims_of_known_providers() {
        for (text, name) in [
            (
                "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
                "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            ),
            ("ada@example.com", "ada_40example.com"),
            (
                "auth0|5f7c8ec7c33c6c004bbafe82",
                "auth0_7c5f7c8ec7c33c6c004bbafe82",
            ),
            (
                "system:serviceaccount:shop:web",
                "system_3aserviceaccount_3ashop_3aweb",
            ),
            ("Ada", "x__41da"),
            (".hidden", "x_.hidden"),
            ("x_.hidden", "x_5f.hidden"),
            ("é", "x__c3_a9"),
        ] {
            assert_eq!(NameRule::Escape.apply(text).unwrap().as_str(), name);
            assert_eq!(unescape(name), text);
        }
    }

    #[test]
    fn name_outside_of_the_grammar_is_refused_by_the_exact_rule() {
        for text in [
            "",
            "Ada",
            "ada@example.com",
            "a/b",
            "ada\n",
            "é",
            ".a",
            &"a".repeat(64),
        ] {
            assert!(NameRule::Exact.apply(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn too_long_to_escape() {
        assert!(NameRule::Escape.apply("").is_err());
        assert!(NameRule::Escape.apply(&"a".repeat(64)).is_err());
        assert!(NameRule::Escape.apply(&"A".repeat(21)).is_err());
        assert!(NameRule::Escape.apply(&"A".repeat(20)).is_ok());
    }

    proptest! {
        #[test]
        fn two_texts_never_give_one_name(text in "([xXa0_.@é-]|_5f|x_){1,8}") {
            if let Ok(name) = NameRule::Escape.apply(&text) {
                prop_assert_eq!(unescape(name.as_str()), text);
            }
        }

        #[test]
        fn any_text_gives_a_name_or_an_error(text in any::<String>()) {
            if let Ok(name) = NameRule::Escape.apply(&text) {
                prop_assert_eq!(unescape(name.as_str()), text.clone());
            }
            if let Ok(name) = NameRule::Exact.apply(&text) {
                prop_assert_eq!(name.as_str(), text);
            }
        }
    }
}
