//! The keys that an issuer publishes: a JSON Web Key Set (RFC 7517), read strictly.
//!
//! A key type that is not known is left out, as the RFC says. A set that holds a secret is refused as a whole: who
//! publishes one secret cannot be trusted with the others, and an HMAC key must never be near a verifier.

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::DecodingKey;
use ring::digest::{Context, SHA256};
use serde_json::{Map, Value};

use super::{algorithm::Algorithm, json::Unambiguous};

/// The largest set that is read, bytes.
pub(super) const MAX_SET_BYTES: usize = 64 * 1024;
/// The most keys of a set, whatever their type.
const MAX_KEYS: usize = 64;
/// The longest key id, bytes. A key with a longer one is left out.
pub(super) const MAX_KID_BYTES: usize = 256;
/// Moduli of RSA keys, bits. ring takes no others.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// What only a private or a symmetric key has (RFC 7518, section 6; RFC 9964 for `priv`).
const SECRET_MEMBERS: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// The usable keys of an issuer. There is at least one.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<Arc<Key>>,
}

/// A public key and what may be verified with it.
#[derive(Debug)]
pub(super) struct Key {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
    /// SHA-256 of everything above, by which a key is found again in a later set.
    fingerprint: [u8; 32],
}

/// Why a set is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeySetError {
    /// More than 64 KiB.
    #[error("the key set is larger than 64 KiB")]
    TooLarge,
    /// It is no JSON object with the array `keys`, or a name stands twice.
    #[error("the key set is not a JSON Web Key Set")]
    Malformed,
    /// More than 64 keys.
    #[error("the key set has more than 64 keys")]
    TooManyKeys,
    /// It has a private or a symmetric key.
    #[error("the key set publishes a secret: the provider's keys must be taken as stolen")]
    Secret,
    /// Two keys have the same id and could verify the same token.
    #[error("two keys of the set have the same id")]
    Ambiguous,
    /// No key is of a known type, for signatures, and of a fit size.
    #[error(
        "the key set has no usable key: Ed25519, P-256, P-384, or RSA of 2048 to 8192 bits, for signatures"
    )]
    Empty,
}

/// Why a set has no key for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// No key has the token's key id. A newer set may.
    Unknown,
    /// The token names no key, and there are several.
    KidRequired,
    /// The key is not for the token's algorithm.
    Misfit,
}

impl KeySet {
    /// Reads a set.
    pub(super) fn parse(json: &[u8]) -> Result<KeySet, KeySetError> {
        if json.len() > MAX_SET_BYTES {
            return Err(KeySetError::TooLarge);
        }
        let Unambiguous(set) = serde_json::from_slice(json).map_err(|_| KeySetError::Malformed)?;
        let Some(Value::Array(listed)) = set.get("keys") else {
            return Err(KeySetError::Malformed);
        };
        if listed.len() > MAX_KEYS {
            return Err(KeySetError::TooManyKeys);
        }
        let mut keys: Vec<Arc<Key>> = Vec::new();
        for key in listed {
            let key = key.as_object().ok_or(KeySetError::Malformed)?;
            if text(key, "kty") == Some("oct")
                || SECRET_MEMBERS.iter().any(|m| key.contains_key(*m))
            {
                return Err(KeySetError::Secret);
            }
            let Some(key) = Key::of(key) else { continue };
            if keys.iter().any(|other| other.is_mistakable_for(&key)) {
                return Err(KeySetError::Ambiguous);
            }
            keys.push(Arc::new(key));
        }
        if keys.is_empty() {
            return Err(KeySetError::Empty);
        }
        Ok(KeySet { keys })
    }

    /// The key with which a token with this header is to be verified.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<Key>, NoKey> {
        let Some(kid) = kid else {
            return match self.keys.as_slice() {
                [key] if key.algorithms.contains(&algorithm) => Ok(Arc::clone(key)),
                [_] => Err(NoKey::Misfit),
                _ => Err(NoKey::KidRequired),
            };
        };
        let mut named = self
            .keys
            .iter()
            .filter(|key| key.kid.as_deref() == Some(kid))
            .peekable();
        if named.peek().is_none() {
            return Err(NoKey::Unknown);
        }
        let fit = named.find(|key| key.algorithms.contains(&algorithm));
        fit.map(Arc::clone).ok_or(NoKey::Misfit)
    }

    /// Whether the set has this very key, with the same id and for the same algorithms.
    pub(super) fn holds(&self, key: &Key) -> bool {
        self.keys
            .iter()
            .any(|held| held.fingerprint == key.fingerprint)
    }

    /// How many usable keys there are.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }
}

impl Key {
    /// What `jsonwebtoken` verifies with.
    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    fn is_mistakable_for(&self, other: &Key) -> bool {
        self.kid.is_some()
            && self.kid == other.kid
            && self
                .algorithms
                .iter()
                .any(|algorithm| other.algorithms.contains(algorithm))
    }

    /// The key of a JWK; none if it is of an unknown type, for another use, or not as it should be.
    fn of(jwk: &Map<String, Value>) -> Option<Key> {
        let kid = match jwk.get("kid") {
            None => None,
            Some(Value::String(kid)) if kid.len() <= MAX_KID_BYTES => Some(kid.clone()),
            Some(_) => return None,
        };
        let for_signatures = jwk.get("use").is_none_or(|usage| usage == "sig");
        let verifies = jwk.get("key_ops").is_none_or(|operations| {
            operations
                .as_array()
                .is_some_and(|list| list.iter().any(|o| o == "verify"))
        });
        if !for_signatures || !verifies {
            return None;
        }
        let (possible, decoding, material) = match (text(jwk, "kty")?, text(jwk, "crv")) {
            ("EC", Some("P-256")) => elliptic(jwk, 32, Algorithm::Es256)?,
            ("EC", Some("P-384")) => elliptic(jwk, 48, Algorithm::Es384)?,
            ("OKP", Some("Ed25519")) => {
                let point = bytes(jwk, "x").filter(|point| point.len() == 32)?;
                (
                    vec![Algorithm::EdDsa],
                    DecodingKey::from_ed_der(&point),
                    point,
                )
            }
            ("RSA", None) => rsa(jwk)?,
            _ => return None,
        };
        // A key that names its algorithm is for that one alone.
        let algorithms = match jwk.get("alg") {
            None => possible,
            Some(named) => {
                let named = Algorithm::parse(named.as_str()?)?;
                possible
                    .into_iter()
                    .filter(|algorithm| *algorithm == named)
                    .collect()
            }
        };
        if algorithms.is_empty() {
            return None;
        }
        let fingerprint = fingerprint(kid.as_deref(), &algorithms, &material);
        Some(Key {
            kid,
            algorithms,
            decoding,
            fingerprint,
        })
    }
}

type Parts = (Vec<Algorithm>, DecodingKey, Vec<u8>);

/// An uncompressed point. That it is on the curve is checked by ring each time it verifies.
fn elliptic(jwk: &Map<String, Value>, coordinate: usize, algorithm: Algorithm) -> Option<Parts> {
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    if x.len() != coordinate || y.len() != coordinate {
        return None;
    }
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    Some((vec![algorithm], DecodingKey::from_ec_der(&point), point))
}

/// Modulus and exponent, big-endian without leading zeros. The exponent is at least 65,537 (FIPS 186-5, A.1.1) and of at
/// most 33 bits, as ring takes it.
fn rsa(jwk: &Map<String, Value>) -> Option<Parts> {
    let (n, e) = (bytes(jwk, "n")?, bytes(jwk, "e")?);
    let exponent = e.iter().try_fold(0u64, |sum, byte| {
        sum.checked_mul(256)?.checked_add((*byte).into())
    })?;
    let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
    let has_leading_zero = |number: &[u8]| number.first() == Some(&0);
    let bits = n
        .first()
        .map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits)
        || !(65_537..1 << 33).contains(&exponent)
        || [&n, &e]
            .iter()
            .any(|number| !is_odd(number) || has_leading_zero(number))
    {
        return None;
    }
    let material = [n.as_slice(), &[0], e.as_slice()].concat();
    Some((
        Algorithm::RSA.to_vec(),
        DecodingKey::from_rsa_raw_components(&n, &e),
        material,
    ))
}

fn fingerprint(kid: Option<&str>, algorithms: &[Algorithm], material: &[u8]) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    // The key id comes last, so that no two keys give the same text: what stands before it has no free length.
    hash.update(&(material.len() as u64).to_be_bytes());
    hash.update(material);
    for algorithm in algorithms {
        hash.update(algorithm.as_str().as_bytes());
    }
    hash.update(if kid.is_some() { b"=" } else { b"-" });
    hash.update(kid.unwrap_or_default().as_bytes());
    hash.finish().as_ref().try_into().unwrap_or([0; 32])
}

fn text<'a>(jwk: &'a Map<String, Value>, member: &str) -> Option<&'a str> {
    jwk.get(member)?.as_str()
}

fn bytes(jwk: &Map<String, Value>, member: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text(jwk, member)?.as_bytes()).ok()
}
