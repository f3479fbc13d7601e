//! The keys of signed notes (C2SP signed-note): Ed25519 (RFC 8032), each with a name. A key's id is a short hash of name and public key, which
//! tells signatures apart and protects nothing.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

use crate::text::decode_base64;

/// Length of a seed, the secret that a signing key is made of, in bytes.
pub const SEED_BYTES: usize = 32;

/// The longest name of a key, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// Length of the id of a key in bytes.
pub(crate) const ID_BYTES: usize = 4;

/// The byte that stands for Ed25519 before a public key (C2SP signed-note, "Signature types").
const TYPE_ED25519: u8 = 1;

/// Length of the base64 of that byte and a public key.
const KEY_TEXT_BYTES: usize = 44;

/// Why something is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The name is empty or too long, or has a character that no name may have.
    #[error(
        "a key's name has 1 to {MAX_NAME_BYTES} bytes without spaces, control characters and `+`"
    )]
    Name,
    /// The text has not the three parts of a verifier key.
    #[error(
        "a verifier key is written `<name>+<8 hexadecimal digits>+<base64 of 33 bytes>`; copy it whole"
    )]
    Form,
    /// The key is not an Ed25519 key.
    #[error("the verifier key is of type `{0:02x}`; only Ed25519 keys, type `01`, are known here")]
    Type(u8),
    /// The id is not that of the name and the public key.
    #[error(
        "the verifier key's id is not that of its name and public key; a part of it was changed"
    )]
    Id,
    /// The seed makes no key.
    #[error("the seed makes no Ed25519 key")]
    Seed,
}

/// A public key with its name. Its text form, the *vkey*, is `<name>+<id, 8 hexadecimal digits>+<base64(01 || public key)>`.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; ID_BYTES],
    public: [u8; 32],
}

impl VerifierKey {
    fn new(name: &str, public: [u8; 32]) -> Result<Self, KeyError> {
        if !is_name(name) {
            return Err(KeyError::Name);
        }
        let named = [name.as_bytes(), b"\n", &[TYPE_ED25519], &public].concat();
        let id = digest(&SHA256, &named)
            .as_ref()
            .first_chunk()
            .copied()
            .unwrap_or_default();
        Ok(Self {
            name: name.to_owned(),
            id,
            public,
        })
    }

    /// The name of the key. The key of a log has the log's origin as its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four bytes of SHA-256(name || 0a || 01 || public key).
    pub(crate) const fn id(&self) -> &[u8; ID_BYTES] {
        &self.id
    }

    /// Whether this key's owner signed `text` so.
    pub(crate) fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public)
            .verify(text.as_bytes(), signature)
            .is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![TYPE_ED25519];
        key.extend_from_slice(&self.public);
        write!(
            f,
            "{}+{}+{}",
            self.name,
            HEXLOWER.encode_display(&self.id),
            BASE64.encode_display(&key)
        )
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::Form);
        };
        if id.len() != 2 * ID_BYTES || key.len() != KEY_TEXT_BYTES {
            return Err(KeyError::Form);
        }
        let id = HEXLOWER.decode(id.as_bytes()).map_err(|_| KeyError::Form)?;
        let key = decode_base64(key).ok_or(KeyError::Form)?;
        let (kind, public) = key.split_first().ok_or(KeyError::Form)?;
        if *kind != TYPE_ED25519 {
            return Err(KeyError::Type(*kind));
        }
        let public = public.try_into().map_err(|_| KeyError::Form)?;
        let key = Self::new(name, public)?;
        if id != key.id {
            return Err(KeyError::Id);
        }
        Ok(key)
    }
}

/// A signing key with its name: its seed, which is wiped on drop. The expanded key lives on the stack for the length of one signature, as ring's own
/// types do that cannot be wiped.
pub struct SigningKey {
    seed: Box<Zeroizing<[u8; SEED_BYTES]>>,
    verifier: VerifierKey,
}

impl SigningKey {
    /// The key `name` that `seed` stands for (RFC 8032, section 5.1.5). The caller wipes his own copy of the seed.
    ///
    /// # Errors
    /// [`KeyError::Name`] if the name is none.
    pub fn from_seed(name: &str, seed: &[u8; SEED_BYTES]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Seed)?;
        let public = pair.public_key().as_ref();
        let public = public.try_into().map_err(|_| KeyError::Seed)?;
        let mut key = Self {
            seed: Box::default(),
            verifier: VerifierKey::new(name, public)?,
        };
        key.seed.copy_from_slice(seed);
        Ok(key)
    }

    /// The public half, which is no secret.
    pub const fn verifier_key(&self) -> &VerifierKey {
        &self.verifier
    }

    /// The 64 bytes of the signature of `text`.
    pub(crate) fn sign(&self, text: &str) -> Result<ring::signature::Signature, KeyError> {
        // The public key goes into the signature, and one that does not belong to the seed would give the seed away; hence the check.
        let pair =
            Ed25519KeyPair::from_seed_and_public_key(self.seed.as_slice(), &self.verifier.public)
                .map_err(|_| KeyError::Seed)?;
        Ok(pair.sign(text.as_bytes()))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, redacted)", self.verifier.name)
    }
}

/// Key names are not empty and have neither spaces nor `+` (C2SP signed-note, "Format"); control characters may be nowhere in a note.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && !name
            .chars()
            .any(|c| c.is_whitespace() || c < ' ' || c == '+')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C2SP signed-note, "Example".
    const VKEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";

    #[test]
    fn the_example_of_the_specification_is_read_and_written() {
        let key: VerifierKey = VKEY.parse().expect("is a key");
        assert_eq!(key.name(), "example.com/foo");
        assert_eq!(key.id(), &[0x53, 0x0d, 0x90, 0x3a]);
        assert_eq!(key.to_string(), VKEY);
    }

    /// The first key pair and signature of RFC 8032, section 7.1, TEST 1: the empty message.
    #[test]
    fn a_seed_is_that_of_rfc_8032() {
        let hex = |text: &str| HEXLOWER.decode(text.as_bytes()).expect("is hexadecimal");
        let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let key = SigningKey::from_seed("rfc8032", seed.as_slice().try_into().expect("32 bytes"))
            .expect("is a key");
        assert_eq!(
            key.verifier_key().public.as_slice(),
            hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
        );
        assert_eq!(
            key.sign("").expect("signs").as_ref(),
            hex(
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155\
                 5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
            )
        );
    }

    #[test]
    fn a_signing_key_shows_no_seed() {
        let key = SigningKey::from_seed("k", &[0xAB; 32]).expect("is a key");
        assert_eq!(format!("{key:?}"), "SigningKey(k, redacted)");
    }

    #[test]
    fn malformed_verifier_keys_are_refused() {
        use KeyError::{Form, Id, Name, Type};
        let with_type = |kind: u8| {
            let mut key = BASE64
                .decode(&VKEY.as_bytes()[VKEY.len() - 44..])
                .expect("is base64");
            key[0] = kind;
            format!("example.com/foo+530d903a+{}", BASE64.encode(&key))
        };
        let long = "n".repeat(MAX_NAME_BYTES + 1);
        for (malformation, text, error) in [
            ("empty", String::new(), Form),
            ("name_alone", "example.com/foo".into(), Form),
            ("key_missing", VKEY[..24].into(), Form),
            ("name_empty", VKEY.replace("example.com/foo", ""), Name),
            ("name_with_space", VKEY.replace("com/foo", "com foo"), Name),
            (
                "name_with_newline",
                VKEY.replace("com/foo", "com\nfoo"),
                Name,
            ),
            (
                "name_with_no_break_space",
                VKEY.replace('/', "\u{a0}"),
                Name,
            ),
            ("name_with_nul", VKEY.replace('/', "\0"), Name),
            ("name_with_plus", VKEY.replace("/foo", "+foo"), Form),
            (
                "name_too_long",
                VKEY.replace("example.com/foo", &long),
                Name,
            ),
            ("name_changed", VKEY.replace("foo", "bar"), Id),
            ("id_in_capitals", VKEY.replace("903a", "903A"), Form),
            ("id_short", VKEY.replace("903a", "903"), Form),
            ("id_changed", VKEY.replace("903a", "903b"), Id),
            ("key_changed", VKEY.replace("AekyeR", "AekyeS"), Id),
            (
                "key_without_its_last_byte",
                VKEY[..VKEY.len() - 4].into(),
                Form,
            ),
            (
                "key_in_url_alphabet",
                VKEY.replace("Kv3U2k", "K-3U2k"),
                Form,
            ),
            ("newline_after", format!("{VKEY}\n"), Form),
            ("space_before", format!(" {VKEY}"), Name),
            ("type_ecdsa", with_type(2), Type(2)),
            ("type_cosignature", with_type(4), Type(4)),
        ] {
            assert_eq!(text.parse::<VerifierKey>(), Err(error), "{malformation}");
        }
    }
}
