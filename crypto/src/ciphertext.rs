//! The ciphertext format, version 1: strict parsing, and the text form.
//!
//! ```text
//! FE | suite u8 | key handle 8 bytes | key version u32, big-endian         the header, 14 bytes
//! suite 01:  N(24) | ciphertext | tag(16) | KC(32)                         the body
//! ```
//!
//! The text form is `fk1:` and then the same bytes in base64url without padding.

use std::fmt;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};

use crate::random::{self, RandomError};

/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 14;

/// How much longer than its plaintext a ciphertext of suite 01 is, in bytes.
pub const OVERHEAD_KC_XAES: usize = 86;

/// The longest plaintext, in bytes.
pub const MAX_PLAINTEXT_BYTES: usize = 65_536;

/// The longest ciphertext, in bytes.
pub const MAX_CIPHERTEXT_BYTES: usize = MAX_PLAINTEXT_BYTES + OVERHEAD_KC_XAES;

/// The first byte of every ciphertext. It can never begin valid UTF-8.
pub const MAGIC: u8 = 0xFE;

/// What the text form begins with.
pub const TEXT_PREFIX: &str = "fk1:";

/// The longest text form, in bytes.
pub const MAX_TEXT_BYTES: usize = TEXT_PREFIX.len() + (MAX_CIPHERTEXT_BYTES * 4).div_ceil(3);

/// Why bytes or text are not a ciphertext. Everything here is visible in the ciphertext itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Fewer bytes than header and body need.
    #[error("the ciphertext is too short")]
    TooShort,
    /// More bytes than the longest plaintext gives.
    #[error("the ciphertext is too long")]
    TooLong,
    /// The first byte is not `FE`.
    #[error("the ciphertext does not begin with the byte fe")]
    Magic,
    /// The suite is not known here.
    #[error("the ciphertext names the unknown suite {0}")]
    UnknownSuite(u8),
    /// The key version is 0.
    #[error("the ciphertext names key version 0")]
    VersionZero,
    /// The text does not begin with `fk1:`.
    #[error("the text form begins with `fk1:`")]
    TextPrefix,
    /// The text is not canonical base64url without padding.
    #[error("the text form is not canonical base64url without padding")]
    TextEncoding,
}

/// A set of algorithms. A key's suite is fixed when the key is made and never chosen by the ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Suite {
    /// 01: XAES-256-GCM with the KC-XAES key commitment. Randomized.
    KcXaes256Gcm = 1,
}

impl Suite {
    /// The suite's number in a header.
    pub const fn code(self) -> u8 {
        match self {
            Self::KcXaes256Gcm => 1,
        }
    }

    /// The suite's name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KcXaes256Gcm => "kc-xaes-256-gcm",
        }
    }

    /// How much longer than its plaintext a ciphertext is, in bytes.
    pub const fn overhead_bytes(self) -> usize {
        match self {
            Self::KcXaes256Gcm => OVERHEAD_KC_XAES,
        }
    }
}

impl TryFrom<u8> for Suite {
    type Error = ParseError;

    fn try_from(code: u8) -> Result<Self, ParseError> {
        match code {
            1 => Ok(Self::KcXaes256Gcm),
            other => Err(ParseError::UnknownSuite(other)),
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a ciphertext calls its key: 8 random bytes, never used again for another key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle([u8; 8]);

impl Handle {
    /// Draws a handle from the operating system. Whoever makes a key checks that its handle is new.
    ///
    /// # Errors
    /// [`RandomError`] when the operating system gives no random bytes.
    pub fn make() -> Result<Self, RandomError> {
        let mut bytes = [0; 8];
        random::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The handle with these bytes.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The bytes of the handle.
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({self})")
    }
}

/// Writes the 14 bytes of a header.
pub(crate) fn encode_header(suite: Suite, handle: Handle, version: u32) -> [u8; HEADER_BYTES] {
    let [h0, h1, h2, h3, h4, h5, h6, h7] = handle.0;
    let [v0, v1, v2, v3] = version.to_be_bytes();
    [
        MAGIC,
        suite.code(),
        h0,
        h1,
        h2,
        h3,
        h4,
        h5,
        h6,
        h7,
        v0,
        v1,
        v2,
        v3,
    ]
}

/// A ciphertext whose form has been checked, borrowed. Its content has not been authenticated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ciphertext<'a> {
    suite: Suite,
    handle: Handle,
    version: u32,
    header: &'a [u8; HEADER_BYTES],
    body: &'a [u8],
}

impl<'a> Ciphertext<'a> {
    /// Parses a ciphertext strictly.
    ///
    /// # Errors
    /// [`ParseError`] with the first rule that is broken.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let first = bytes.first().ok_or(ParseError::TooShort)?;
        if *first != MAGIC {
            return Err(ParseError::Magic);
        }
        let (header, body) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(ParseError::TooShort)?;
        let [_, code, h0, h1, h2, h3, h4, h5, h6, h7, v0, v1, v2, v3] = *header;
        let suite = Suite::try_from(code)?;
        let version = u32::from_be_bytes([v0, v1, v2, v3]);
        if version == 0 {
            return Err(ParseError::VersionZero);
        }
        if bytes.len() < suite.overhead_bytes() {
            return Err(ParseError::TooShort);
        }
        if bytes.len() - suite.overhead_bytes() > MAX_PLAINTEXT_BYTES {
            return Err(ParseError::TooLong);
        }
        let handle = Handle([h0, h1, h2, h3, h4, h5, h6, h7]);
        Ok(Self {
            suite,
            handle,
            version,
            header,
            body,
        })
    }

    /// The suite that the ciphertext names. The key decides whether it is the right one.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The handle of the key.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// The version of the key, at least 1.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The header, [`HEADER_BYTES`] bytes.
    pub fn header(&self) -> &'a [u8] {
        self.header
    }

    /// What follows the header.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The length in bytes of the plaintext that this opens to.
    pub fn plaintext_len(&self) -> usize {
        (self.body.len() + HEADER_BYTES).saturating_sub(self.suite.overhead_bytes())
    }
}

impl fmt::Debug for Ciphertext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ciphertext")
            .field("suite", &self.suite)
            .field("handle", &self.handle)
            .field("version", &self.version)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// The text form of ciphertext bytes. The bytes are not looked at.
pub fn encode_text(ciphertext: &[u8]) -> String {
    let mut text =
        String::with_capacity(TEXT_PREFIX.len() + BASE64URL_NOPAD.encode_len(ciphertext.len()));
    text.push_str(TEXT_PREFIX);
    BASE64URL_NOPAD.encode_append(ciphertext, &mut text);
    text
}

/// The bytes of a text form, which must be exactly `fk1:[A-Za-z0-9_-]+` with trailing bits of zero. What the bytes say is
/// for [`Ciphertext::parse`].
///
/// # Errors
/// [`ParseError::TextPrefix`], [`ParseError::TextEncoding`], or [`ParseError::TooLong`] for more than [`MAX_TEXT_BYTES`].
pub fn decode_text(text: &str) -> Result<Vec<u8>, ParseError> {
    let encoded = text
        .strip_prefix(TEXT_PREFIX)
        .ok_or(ParseError::TextPrefix)?;
    if text.len() > MAX_TEXT_BYTES {
        return Err(ParseError::TooLong);
    }
    if encoded.is_empty() {
        return Err(ParseError::TextEncoding);
    }
    BASE64URL_NOPAD
        .decode(encoded.as_bytes())
        .map_err(|_| ParseError::TextEncoding)
}
