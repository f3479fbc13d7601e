//! Receipts: what a caller gets for a call, and can have a proof for later.
//!
//! ```text
//! log id (16) | index u64, big-endian | leaf hash (32) | durable u8, 00 or 01          57 bytes
//! ```
//!
//! The text form is `fkr1:` and then the same bytes in base64url without padding, 81 characters in all.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;

use crate::hash::{HASH_BYTES, Hash};
use crate::log_id::LogId;
use crate::tree::MAX_SIZE;

/// Length of a receipt in bytes.
pub const RECEIPT_BYTES: usize = 57;

/// What the text form begins with.
pub const TEXT_PREFIX: &str = "fkr1:";

/// Length of the text form in bytes.
pub const TEXT_BYTES: usize = TEXT_PREFIX.len() + RECEIPT_BYTES / 3 * 4;

/// Why something is not a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The text does not begin with `fkr1:`.
    #[error("a receipt begins with `{TEXT_PREFIX}`")]
    Prefix,
    /// The text has not the length of a receipt, or is not base64url.
    #[error("a receipt is `{TEXT_PREFIX}` and 76 characters of base64url; copy it whole")]
    Encoding,
    /// The index is larger than any log.
    #[error("the receipt's index is larger than any log")]
    Index,
    /// The last byte is neither 00 nor 01.
    #[error("the receipt does not say whether its record is durable")]
    Durable,
}

/// Where the record of a call is in the log, and what is there. By itself it proves nothing; with a proof for its index and leaf it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The log.
    pub log: LogId,
    /// The index of the record, from 0.
    pub index: u64,
    /// The leaf hash of the record.
    pub leaf: Hash,
    /// Whether the record was on disk when the reply left. Only the bounded-window mode gives receipts that say no.
    pub durable: bool,
}

impl Receipt {
    /// The 81 ASCII characters of the text form, without an allocation: each reply of the service has one.
    pub fn to_text(&self) -> [u8; TEXT_BYTES] {
        let mut text = [0; TEXT_BYTES];
        let (prefix, encoded) = text.split_at_mut(TEXT_PREFIX.len());
        prefix.copy_from_slice(TEXT_PREFIX.as_bytes());
        BASE64URL_NOPAD.encode_mut(&self.to_bytes(), encoded);
        text
    }

    /// The 57 bytes of the receipt.
    pub fn to_bytes(&self) -> [u8; RECEIPT_BYTES] {
        let mut bytes = [0; RECEIPT_BYTES];
        bytes[..16].copy_from_slice(self.log.as_bytes());
        bytes[16..24].copy_from_slice(&self.index.to_be_bytes());
        bytes[24..56].copy_from_slice(self.leaf.as_bytes());
        bytes[56] = u8::from(self.durable);
        bytes
    }

    /// Parses 57 bytes.
    ///
    /// # Errors
    /// [`ReceiptError::Index`] or [`ReceiptError::Durable`].
    pub fn from_bytes(bytes: &[u8; RECEIPT_BYTES]) -> Result<Self, ReceiptError> {
        let short = ReceiptError::Encoding;
        let (log, rest) = bytes.split_first_chunk().ok_or(short)?;
        let (index, rest) = rest.split_first_chunk().ok_or(short)?;
        let (leaf, rest) = rest.split_first_chunk::<HASH_BYTES>().ok_or(short)?;
        let index = u64::from_be_bytes(*index);
        if index >= MAX_SIZE {
            return Err(ReceiptError::Index);
        }
        let durable = match rest {
            [0] => false,
            [1] => true,
            _ => return Err(ReceiptError::Durable),
        };
        Ok(Self {
            log: LogId::from_bytes(*log),
            index,
            leaf: Hash::from_bytes(*leaf),
            durable,
        })
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.to_text()).unwrap_or_default())
    }
}

impl FromStr for Receipt {
    type Err = ReceiptError;

    fn from_str(text: &str) -> Result<Self, ReceiptError> {
        let encoded = text.strip_prefix(TEXT_PREFIX).ok_or(ReceiptError::Prefix)?;
        if text.len() != TEXT_BYTES {
            return Err(ReceiptError::Encoding);
        }
        let bytes = BASE64URL_NOPAD
            .decode(encoded.as_bytes())
            .map_err(|_| ReceiptError::Encoding)?;
        let bytes = bytes
            .as_slice()
            .try_into()
            .map_err(|_| ReceiptError::Encoding)?;
        Self::from_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by hand from docs/audit-format.md: log id 00 to 0f, index 70,000, the leaf hash of the empty record, durable.
    const TEXT: &str =
        "fkr1:AAECAwQFBgcICQoLDA0ODwAAAAAAARFwbjQLnP-zepicpUTmu3gKLHiQHT-zNzh2hRGjBhevoB0B";

    fn receipt() -> Receipt {
        Receipt {
            log: LogId::from_bytes(std::array::from_fn(|at| at as u8)),
            index: 70_000,
            leaf: Hash::of_leaf(b""),
            durable: true,
        }
    }

    #[test]
    fn the_text_form_is_frozen() {
        assert_eq!(receipt().to_string(), TEXT);
        assert_eq!(TEXT.parse(), Ok(receipt()));
        assert_eq!(TEXT.len(), TEXT_BYTES);
        let not_yet = Receipt {
            durable: false,
            ..receipt()
        };
        assert_eq!(not_yet.to_string().parse(), Ok(not_yet));
    }

    #[test]
    fn malformed_receipts_are_refused() {
        use ReceiptError::{Durable, Encoding, Index, Prefix};
        let with = |at: usize, value: u8| {
            let mut bytes = receipt().to_bytes();
            bytes[at] = value;
            format!("{TEXT_PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
        };
        for (malformation, text, error) in [
            ("empty", String::new(), Prefix),
            ("prefix_alone", "fkr1:".into(), Encoding),
            ("prefix_missing", TEXT[5..].into(), Prefix),
            ("prefix_in_capitals", TEXT.replace("fkr1", "FKR1"), Prefix),
            (
                "prefix_of_a_ciphertext",
                TEXT.replace("fkr1", "fk1"),
                Prefix,
            ),
            ("space_before", format!(" {TEXT}"), Prefix),
            ("newline_after", format!("{TEXT}\n"), Encoding),
            ("padding", format!("{TEXT}===="), Encoding),
            ("one_character_missing", TEXT[..80].into(), Encoding),
            ("a_byte_missing", TEXT[..77].into(), Encoding),
            ("three_bytes_more", format!("{TEXT}AAAA"), Encoding),
            ("standard_alphabet", TEXT.replace('-', "+"), Encoding),
            ("index_too_large", with(16, 0x40), Index),
            ("durable_is_two", with(56, 2), Durable),
        ] {
            assert_eq!(text.parse::<Receipt>(), Err(error), "{malformation}");
        }
    }
}
