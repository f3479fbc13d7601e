//! The text of an API key: `fk_<id>_<secret><checksum>`, always 69 characters.
//!
//! ```text
//! fk_ | id, 16 of [0-9a-z] | _ | secret, 43 of [0-9A-Za-z] | checksum, 6 of [0-9A-Za-z]
//! ```
//!
//! - For secret scanners: `fk_[0-9a-z]{16}_[0-9A-Za-z]{49}` between two characters that are none of `[0-9A-Za-z_]`, and then
//!   the checksum, so that a scanner has no false findings. The whole key is one word, which a double click selects.
//! - The secret has 43 characters drawn evenly, which is 256.03 bits: no less than 32 random bytes.
//! - The id is 82 random bits in small letters, since it is part of a store key. It names the key and is no secret.
//! - The checksum is the CRC-32 (IEEE 802.3) of everything before it in base 62, most significant digit first, the digits in
//!   the order `0-9A-Za-z`, with zeros in front. It finds mistakes; it protects nothing.

use std::{fmt, str};

use fieldkeep_crypto::{
    api_key::ApiKeyHash,
    keys::ApiKeyHashKey,
    random::{self, RandomError},
};
use zeroize::Zeroizing;

/// Length of an API key in characters.
pub const API_KEY_BYTES: usize = PREFIX.len() + ID_BYTES + 1 + SECRET_BYTES + CHECKSUM_BYTES;
/// The regular expression for secret scanners. What it finds is a key if the checksum is right too.
pub const PATTERN: &str = "fk_[0-9a-z]{16}_[0-9A-Za-z]{49}";

const PREFIX: &[u8] = b"fk_";
const ID_BYTES: usize = 16;
const SECRET_BYTES: usize = 43;
const CHECKSUM_BYTES: usize = 6;
const ID_ALPHABET: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const ALPHABET: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The id of an API key, which names its record: 16 of `[0-9a-z]`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiKeyId([u8; ID_BYTES]);

/// An API key that was just made: shown once, and never kept. Neither cloned nor shown by `Debug`, wiped on drop.
pub struct ApiKey {
    id: ApiKeyId,
    secret: Box<Zeroizing<[u8; SECRET_BYTES]>>,
}

/// An API key as a caller presents it, of the right form and checksum, and nothing more is known of it. It borrows the
/// caller's text, so that no copy of the secret is made; `Debug` does not show it.
pub struct PresentedKey<'a> {
    id: ApiKeyId,
    secret: &'a [u8; SECRET_BYTES],
}

/// Why a text is no API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyFormatError {
    /// It is something else.
    #[error("not an API key: one begins with `fk_`")]
    Prefix,
    /// It has another length, or characters where none of them can be.
    #[error("not a whole API key: one has 69 characters, `fk_`, 16 of the id, `_` and 49 more")]
    Form,
    /// A part was changed.
    #[error("the API key's checksum is wrong: it was not copied exactly")]
    Checksum,
    /// The text is no id.
    #[error("not the id of an API key: one has 16 of the characters `0-9`, `a-z`")]
    Id,
}

impl ApiKeyId {
    /// Parses an id.
    ///
    /// # Errors
    /// [`ApiKeyFormatError::Id`].
    pub fn parse(text: &str) -> Result<ApiKeyId, ApiKeyFormatError> {
        let bytes = text.as_bytes().try_into();
        bytes
            .ok()
            .and_then(ApiKeyId::from_bytes)
            .ok_or(ApiKeyFormatError::Id)
    }

    fn from_bytes(bytes: [u8; ID_BYTES]) -> Option<ApiKeyId> {
        let all = bytes.iter().all(|byte| ID_ALPHABET.contains(byte));
        all.then_some(ApiKeyId(bytes))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        // Its characters are ASCII, so this is never the empty text.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for ApiKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ApiKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeyId({self})")
    }
}

impl ApiKey {
    /// Draws a new id and a new secret from the operating system.
    ///
    /// # Errors
    /// [`RandomError`] when the operating system gives no random bytes.
    pub(super) fn make() -> Result<ApiKey, RandomError> {
        let mut id = [0; ID_BYTES];
        draw(ID_ALPHABET, &mut id)?;
        ApiKey::make_secret(ApiKeyId(id))
    }

    /// Draws a new secret for an id that exists.
    ///
    /// # Errors
    /// As [`ApiKey::make`].
    pub(super) fn make_secret(id: ApiKeyId) -> Result<ApiKey, RandomError> {
        let mut secret = Box::new(Zeroizing::new([0; SECRET_BYTES]));
        draw(ALPHABET, secret.as_mut_slice())?;
        Ok(ApiKey { id, secret })
    }

    /// The id.
    pub fn id(&self) -> ApiKeyId {
        self.id
    }

    /// The whole key in clear, to be shown to its owner once.
    pub fn dangerous_text(&self) -> Zeroizing<String> {
        // With its whole capacity at once, no shorter copy of the secret is left behind.
        let mut text = Zeroizing::new(String::with_capacity(API_KEY_BYTES));
        for part in [PREFIX, &self.id.0, b"_", self.secret.as_slice()] {
            text.extend(part.iter().map(|byte| char::from(*byte)));
        }
        let checksum = checksum(text.as_bytes());
        text.extend(checksum.iter().map(|byte| char::from(*byte)));
        text
    }

    /// The key as its owner will present it.
    pub fn presented(&self) -> PresentedKey<'_> {
        PresentedKey {
            id: self.id,
            secret: &self.secret,
        }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey(redacted, {})", self.id)
    }
}

impl<'a> PresentedKey<'a> {
    /// Reads the text of an API key. It is exactly what [`ApiKey::dangerous_text`] gives: no spaces around it, no other
    /// case. Whatever is no key is refused here, before anything is looked up.
    ///
    /// # Errors
    /// [`ApiKeyFormatError`], which shows nothing of the text.
    pub fn parse(text: &'a [u8]) -> Result<PresentedKey<'a>, ApiKeyFormatError> {
        if !text.starts_with(PREFIX) {
            return Err(ApiKeyFormatError::Prefix);
        }
        if text.len() != API_KEY_BYTES {
            return Err(ApiKeyFormatError::Form);
        }
        let (body, given) = text
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(ApiKeyFormatError::Form)?;
        let (id, secret) = split_body(body).ok_or(ApiKeyFormatError::Form)?;
        if !is_base62(given) {
            return Err(ApiKeyFormatError::Form);
        }
        if checksum(body) != *given {
            return Err(ApiKeyFormatError::Checksum);
        }
        Ok(PresentedKey { id, secret })
    }

    /// The id that the caller names.
    pub fn id(&self) -> ApiKeyId {
        self.id
    }

    /// The keyed hash of id and secret.
    pub fn hash(&self, key: &ApiKeyHashKey) -> ApiKeyHash {
        key.hash(self.id.as_str(), self.secret)
    }
}

impl fmt::Debug for PresentedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PresentedKey(redacted, {})", self.id)
    }
}

/// Id and secret of what stands before the checksum.
fn split_body(body: &[u8]) -> Option<(ApiKeyId, &[u8; SECRET_BYTES])> {
    let (id, rest) = body.strip_prefix(PREFIX)?.split_first_chunk::<ID_BYTES>()?;
    let secret: &[u8; SECRET_BYTES] = rest.strip_prefix(b"_")?.try_into().ok()?;
    let id = ApiKeyId::from_bytes(*id)?;
    is_base62(secret).then_some((id, secret))
}

fn is_base62(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_alphanumeric)
}

/// The CRC-32 of `body` in base 62.
pub(super) fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut rest = crc32fast::hash(body);
    let mut digits = [b'0'; CHECKSUM_BYTES];
    for digit in digits.iter_mut().rev() {
        *digit = usize::try_from(rest % 62)
            .ok()
            .and_then(|value| ALPHABET.get(value).copied())
            .unwrap_or(b'0');
        rest /= 62;
    }
    digits
}

/// Fills `out` with characters of `alphabet`, each as likely as any other: bytes beyond the last whole multiple of its
/// length are thrown away.
fn draw(alphabet: &[u8], out: &mut [u8]) -> Result<(), RandomError> {
    let fair = 256 - 256 % alphabet.len();
    let mut filled = 0;
    // One round is enough but for one key in 10^15. That eight are not means a broken generator.
    for _ in 0..8 {
        let mut bytes = Zeroizing::new([0u8; 64]);
        random::fill(bytes.as_mut_slice())?;
        let characters = bytes
            .iter()
            .map(|byte| usize::from(*byte))
            .filter(|byte| *byte < fair)
            .filter_map(|byte| alphabet.get(byte % alphabet.len()));
        for (place, character) in out.iter_mut().skip(filled).zip(characters) {
            *place = *character;
            filled += 1;
        }
        if filled == out.len() {
            return Ok(());
        }
    }
    Err(RandomError)
}
