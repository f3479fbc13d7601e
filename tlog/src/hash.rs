//! The hash function of the tree: SHA-256 as in RFC 6962, section 2.1, which hashes leaves and nodes differently, so that no
//! node can be passed off as a leaf.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use ring::digest::{Context, Digest, SHA256, digest};

use crate::text::decode_base64;

/// Length of a hash in bytes.
pub const HASH_BYTES: usize = 32;

/// Length of a hash's text form in bytes.
const TEXT_BYTES: usize = 44;

/// The text is not the base64 form of 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is written as 44 characters of canonical base64 with padding")]
pub struct HashTextError;

/// The hash of a leaf or of a subtree. Its text form is base64 (RFC 4648, section 4), as everywhere in the C2SP formats.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash([u8; HASH_BYTES]);

impl Hash {
    /// The root of the tree without leaves: SHA-256 of the empty string (RFC 6962, section 2.1).
    pub const EMPTY_ROOT: Self = Self([
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9,
        0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52,
        0xb8, 0x55,
    ]);

    /// The hash of the leaf that holds `record`: SHA-256(00 || record).
    pub fn of_leaf(record: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&[0]);
        context.update(record);
        Self::from_digest(&context.finish())
    }

    /// The hash of the node above two subtrees: SHA-256(01 || left || right).
    pub fn of_node(left: Self, right: Self) -> Self {
        // One buffer on the stack is hashed faster than three pieces, and this runs for every record.
        let mut bytes = [1; 1 + 2 * HASH_BYTES];
        bytes[1..33].copy_from_slice(&left.0);
        bytes[33..].copy_from_slice(&right.0);
        Self::from_digest(&digest(&SHA256, &bytes))
    }

    /// The hash with these bytes.
    pub const fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }

    fn from_digest(digest: &Digest) -> Self {
        let mut bytes = [0; HASH_BYTES];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", BASE64.encode_display(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl FromStr for Hash {
    type Err = HashTextError;

    fn from_str(text: &str) -> Result<Self, HashTextError> {
        if text.len() != TEXT_BYTES {
            return Err(HashTextError);
        }
        let bytes = decode_base64(text).ok_or(HashTextError)?;
        bytes.try_into().map(Self).map_err(|_| HashTextError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    #[test]
    fn the_text_form_is_base64() {
        assert_eq!(Hash::EMPTY_ROOT.to_string(), TEXT);
        assert_eq!(TEXT.parse(), Ok(Hash::EMPTY_ROOT));
    }

    #[test]
    fn the_empty_root_is_the_hash_of_nothing() {
        assert_eq!(Hash::from_digest(&digest(&SHA256, b"")), Hash::EMPTY_ROOT);
    }

    #[test]
    fn malformed_texts_are_refused() {
        for (malformation, text) in [
            ("empty", String::new()),
            ("padding_missing", TEXT.replace('=', "")),
            ("trailing_bits_set", TEXT.replace("FU=", "FV=")),
            ("url_alphabet", TEXT.replace('+', "-").replace('/', "_")),
            (
                "padding_within",
                TEXT.replace("Qpj8", "QpI=").replace("FU=", "FUA"),
            ),
            ("space_before", format!(" {TEXT}")),
            ("newline_after", format!("{TEXT}\n")),
            ("31_bytes", BASE64.encode(&[7; 31])),
            ("33_bytes", BASE64.encode(&[7; 33])),
            ("34_bytes", BASE64.encode(&[7; 34])),
            ("hexadecimal", "e3".repeat(32)),
        ] {
            assert_eq!(text.parse::<Hash>(), Err(HashTextError), "{malformation}");
        }
    }
}
