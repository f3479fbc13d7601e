//! The canonical encoding of an encryption context: name/value pairs that must be the same when a
//! ciphertext is opened.
//!
//! Pairs with unique names, sorted by the names' bytes, each `lp(name) || lp(value)`. The empty context is the empty
//! string. Values are UTF-8 exactly as given, never normalised.

use crate::length_prefix;
use crate::names::{NameError, check_name};

/// The most pairs of one context.
pub const MAX_CONTEXT_PAIRS: usize = 16;

/// The longest encoded context, in bytes.
pub const MAX_CONTEXT_BYTES: usize = 4096;

/// Why something is not a context, or not the canonical encoding of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// More than [`MAX_CONTEXT_PAIRS`] pairs.
    #[error("a context has at most 16 pairs")]
    TooManyPairs,
    /// The encoding has more than [`MAX_CONTEXT_BYTES`] bytes.
    #[error("a context has at most 4096 bytes, encoded")]
    TooLong,
    /// A name is outside the grammar of names.
    #[error("a context name is not a name: {0}")]
    Name(#[from] NameError),
    /// A name occurs twice.
    #[error("a context name occurs twice")]
    DuplicateName,
    /// Encoded bytes end inside a pair.
    #[error("the encoded context ends inside a pair")]
    Truncated,
    /// Encoded names are not in the order of their bytes.
    #[error("the names of the encoded context are not sorted")]
    NotSorted,
    /// Encoded bytes are not UTF-8.
    #[error("the encoded context is not utf-8")]
    NotUtf8,
}

/// The canonical encoding of a context, at most [`MAX_CONTEXT_BYTES`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct EncodedContext(Vec<u8>);

impl EncodedContext {
    /// The encoding of the context without pairs.
    pub const EMPTY: Self = Self(Vec::new());

    /// Encodes pairs of names and values, given in any order.
    ///
    /// # Errors
    /// [`ContextError`] for too many pairs, too many bytes, a name outside the grammar, or a name that occurs twice.
    pub fn encode<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ContextError> {
        let mut encoded = Self::EMPTY;
        encoded.encode_again(pairs)?;
        Ok(encoded)
    }

    /// As [`EncodedContext::encode`], but in the memory of this value: for a batch whose items differ in their contexts.
    ///
    /// # Errors
    /// As [`EncodedContext::encode`]; this value is then the empty context.
    pub fn encode_again<'a>(
        &mut self,
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), ContextError> {
        self.0.clear();
        let mut sorted = [("", ""); MAX_CONTEXT_PAIRS];
        let mut count = 0;
        let mut total_bytes = 0usize;
        for (name, value) in pairs {
            check_name(name)?;
            *sorted.get_mut(count).ok_or(ContextError::TooManyPairs)? = (name, value);
            count += 1;
            total_bytes = total_bytes
                .saturating_add(8 + name.len())
                .saturating_add(value.len());
            if total_bytes > MAX_CONTEXT_BYTES {
                return Err(ContextError::TooLong);
            }
        }
        let sorted = sorted.get_mut(..count).unwrap_or_default();
        sorted.sort_unstable_by_key(|(name, _)| *name);
        if sorted
            .windows(2)
            .any(|two| matches!(two, [(a, _), (b, _)] if a == b))
        {
            return Err(ContextError::DuplicateName);
        }
        self.0.reserve(total_bytes);
        for (name, value) in sorted.iter() {
            length_prefix::push(&mut self.0, name.as_bytes());
            length_prefix::push(&mut self.0, value.as_bytes());
        }
        Ok(())
    }

    /// The encoded bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the context without pairs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the pair `name` and `value` is in it, byte for byte.
    pub fn has_pair(&self, name: &str, value: &str) -> bool {
        self.has((name.as_bytes(), value.as_bytes()))
    }

    /// Whether all pairs of `others` are in it, byte for byte.
    pub fn has_all(&self, others: &EncodedContext) -> bool {
        others.pairs().all(|pair| self.has(pair))
    }

    fn has(&self, pair: (&[u8], &[u8])) -> bool {
        self.pairs().any(|own| own == pair)
    }

    /// The names and values, in the order of the names.
    fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (name, after_name) = length_prefix::take(rest)?;
            let (value, after) = length_prefix::take(after_name)?;
            rest = after;
            Some((name, value))
        })
    }
}

/// The values may be personal data, so only the length is shown.
impl std::fmt::Debug for EncodedContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EncodedContext({} bytes)", self.0.len())
    }
}

/// Reads an encoded context back, strictly: exactly the bytes that [`EncodedContext::encode`] makes are taken.
///
/// # Errors
/// [`ContextError`] with the first rule that is broken.
pub fn decode(bytes: &[u8]) -> Result<Vec<(String, String)>, ContextError> {
    if bytes.len() > MAX_CONTEXT_BYTES {
        return Err(ContextError::TooLong);
    }
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        if pairs.len() == MAX_CONTEXT_PAIRS {
            return Err(ContextError::TooManyPairs);
        }
        let (name, after_name) = length_prefix::take(rest).ok_or(ContextError::Truncated)?;
        let (value, after_value) =
            length_prefix::take(after_name).ok_or(ContextError::Truncated)?;
        let name = std::str::from_utf8(name).map_err(|_| ContextError::NotUtf8)?;
        let value = std::str::from_utf8(value).map_err(|_| ContextError::NotUtf8)?;
        check_name(name)?;
        if let Some((previous, _)) = pairs.last() {
            match previous.as_str().cmp(name) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Err(ContextError::DuplicateName),
                std::cmp::Ordering::Greater => return Err(ContextError::NotSorted),
            }
        }
        pairs.push((name.to_owned(), value.to_owned()));
        rest = after_value;
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_found_byte_for_byte() {
        let context = EncodedContext::encode([("id", "42"), ("region", "eu")]).unwrap();
        assert!(context.has_pair("id", "42") && context.has_pair("region", "eu"));
        for (name, value) in [
            ("id", "4"),
            ("id", "eu"),
            ("i", "42"),
            ("42", "id"),
            ("", ""),
        ] {
            assert!(!context.has_pair(name, value), "{name}={value}");
        }
        assert!(!EncodedContext::EMPTY.has_pair("id", "42"));
    }

    #[test]
    fn of_several_pairs_all_must_be_there() {
        let encode = |pairs: &[(&'static str, &'static str)]| {
            EncodedContext::encode(pairs.iter().copied()).unwrap()
        };
        let context = encode(&[("id", "42"), ("region", "eu")]);
        for pairs in [
            &[][..],
            &[("region", "eu")],
            &[("region", "eu"), ("id", "42")],
        ] {
            assert!(context.has_all(&encode(pairs)), "{pairs:?}");
        }
        for pairs in [
            &[("region", "us")][..],
            &[("id", "42"), ("region", "us")],
            &[("id", "42"), ("zone", "eu")],
        ] {
            assert!(!context.has_all(&encode(pairs)), "{pairs:?}");
        }
        assert!(!EncodedContext::EMPTY.has_all(&context));
    }
}
