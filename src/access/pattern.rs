//! Names of keys and fields as grants write them: one name, a prefix and `*`, or `*`; and a table that finds the patterns of a
//! name without trying each.

use std::{collections::HashMap, fmt};

use fieldkeep_crypto::names::{NameError, check_name};

/// One name, `customer.*` for all that begin so, or `*` for all.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Every name.
    #[must_use]
    pub fn any() -> Pattern {
        Pattern("*".into())
    }

    /// Parses a name, the beginning of one and `*`, or `*`.
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse(text: &str) -> Result<Pattern, NameError> {
        match text.strip_suffix('*') {
            Some("") => {}
            Some(prefix) => check_name(prefix)?,
            None => check_name(text)?,
        }
        Ok(Pattern(text.into()))
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `*`.
    #[must_use]
    pub fn is_any(&self) -> bool {
        &*self.0 == "*"
    }

    /// Whether it covers `name`; `None` is what only `*` covers: all names, or what has none.
    #[must_use]
    pub fn covers(&self, name: Option<&str>) -> bool {
        covers(self.0.as_bytes(), name.map(str::as_bytes))
    }

    /// What stands before the `*`, if there is one.
    fn prefix(&self) -> Option<&str> {
        self.0.strip_suffix('*')
    }
}

/// As [`Pattern::covers`], of a pattern as it is written.
pub(super) fn covers(pattern: &[u8], name: Option<&[u8]>) -> bool {
    match (pattern.strip_suffix(b"*"), name) {
        (Some(b""), _) => true,
        (_, None) => false,
        (Some(prefix), Some(name)) => name.starts_with(prefix),
        (None, Some(name)) => pattern == name,
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Things by pattern. Those of a name are found with one look-up for the name itself and one for each length of prefix that
/// the table has, whatever their number.
#[derive(Debug)]
pub(super) struct Table<T> {
    exact: HashMap<Box<str>, T>,
    prefixes: HashMap<Box<str>, T>,
    /// Bit n: there is a prefix of n bytes. Names are shorter than 64.
    lengths: u64,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table {
            exact: HashMap::new(),
            prefixes: HashMap::new(),
            lengths: 0,
        }
    }
}

impl<T: Default> Table<T> {
    /// What stands at `pattern`, made if nothing does.
    pub(super) fn entry(&mut self, pattern: &Pattern) -> &mut T {
        match pattern.prefix() {
            Some(prefix) => {
                self.lengths |= 1u64
                    .checked_shl(u32::try_from(prefix.len()).unwrap_or(63))
                    .unwrap_or(0);
                self.prefixes.entry(prefix.into()).or_default()
            }
            None => self.exact.entry(pattern.0.clone()).or_default(),
        }
    }
}

impl<T> Table<T> {
    /// What stands at a pattern that covers `name`: the name itself first, then prefixes from the longest on, `*` last.
    pub(super) fn covering<'a>(&'a self, name: Option<&'a str>) -> impl Iterator<Item = &'a T> {
        let exact = name.and_then(|name| self.exact.get(name));
        let mut lengths = self.lengths;
        let prefixes = std::iter::from_fn(move || {
            while lengths != 0 {
                let length = lengths.ilog2();
                lengths &= !(1 << length);
                let prefix = match (length, name) {
                    (0, _) => Some(""),
                    (length, Some(name)) => name.get(..length as usize),
                    (_, None) => None,
                };
                if let Some(found) = prefix.and_then(|prefix| self.prefixes.get(prefix)) {
                    return Some(found);
                }
            }
            None
        });
        exact.into_iter().chain(prefixes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_are_names_prefixes_or_a_star() {
        for text in ["pii", "customer.*", "c*", "*"] {
            assert_eq!(Pattern::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "**", "a*b", "*a", "A", ".a", "-*", "a b", "a**"] {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
        assert!(Pattern::parse(&"a".repeat(64)).is_err());
        assert!(Pattern::parse(&format!("{}*", "a".repeat(64))).is_err());
    }

    #[test]
    fn what_has_no_name_is_covered_by_the_star_alone() {
        let covers = |text: &str, name| Pattern::parse(text).unwrap().covers(name);
        assert!(covers("*", None) && covers("*", Some("a")));
        assert!(!covers("a", None) && !covers("a*", None));
        assert!(covers("a*", Some("a")) && covers("a*", Some("ab")) && !covers("a*", Some("b")));
        assert!(covers("ab", Some("ab")) && !covers("ab", Some("abc")));
    }

    proptest! {
        #[test]
        fn a_table_finds_what_a_list_finds(
            patterns in prop::collection::vec("[ab]{1,3}\\*?|\\*|a{63}\\*?", 0..12),
            name in prop::option::of("[ab]{1,4}|a{60,63}"),
        ) {
            let patterns: Vec<Pattern> = patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect();
            let mut table = Table::<Vec<usize>>::default();
            for (index, pattern) in patterns.iter().enumerate() {
                table.entry(pattern).push(index);
            }
            let mut found: Vec<usize> = table.covering(name.as_deref()).flatten().copied().collect();
            found.sort_unstable();
            let expected: Vec<usize> = (0..patterns.len())
                .filter(|index| patterns[*index].covers(name.as_deref()))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
