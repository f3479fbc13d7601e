//! API keys: a secret that says who a caller is, for those who can have no certificate.
//!
//! The text is `fk_<id>_<secret><checksum>` ([`mod@format`]). It is shown once, when it is made; what is stored is the
//! record `sys/api-key/{id}` ([`record`]) with a keyed hash, HMAC-SHA256 under a key derived from the system's record key
//! (`Keystore::derive_api_key_hash_key`; keep it for the life of the process). The secret is as random as a key, so a slow
//! password hash would protect nothing and would cost every call its time.
//!
//! A caller's key goes through these steps, of which only the last two need state:
//! 1. [`format::PresentedKey::parse`] of the header's bytes. What is no key costs a CRC and no look-up.
//! 2. `Lockout::check` for the source and the key's id ([`super::lockout`]).
//! 3. [`authenticate`] with the record that the access snapshot holds for [`format::PresentedKey::id`], if any, and then
//!    `Lockout::failed` or `Lockout::succeeded`.
//!
//! The principal is the record's identity, with the method `api-key`, the id as the credential and
//! [`ApiKeyRecord::accepted_until`] as the end. A revocation takes the record out of the snapshot, and that is all. API keys are
//! for TLS alone: the listener refuses them elsewhere, before they are parsed.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use fieldkeep_crypto::{api_key::ApiKeyHash, keys::ApiKeyHashKey, random::RandomError};

pub mod format;
pub mod record;
#[cfg(test)]
mod tests;

use self::{format::PresentedKey, record::ApiKeyRecord};
use super::principal::{Method, Principal, Proof};

/// The longest life of an API key, seconds: 365 days.
pub const MAX_TTL_S: u64 = 365 * 24 * 3600;
/// The longest time that a secret is taken after its rotation, seconds: 30 days.
pub const MAX_OVERLAP_S: u64 = 30 * 24 * 3600;
/// The most networks of one API key.
pub const MAX_NETWORKS: usize = 16;
/// How exactly the last use of a key is known, seconds: an hour.
pub const LAST_USE_STEP_S: u64 = 3600;

/// Why an API key is not made or rotated.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    /// The life asked for is out of range.
    #[error("an API key lives for 1 to {MAX_TTL_S} seconds (365 days), not {ttl_s}")]
    Ttl {
        /// What was asked for, seconds.
        ttl_s: u64,
    },
    /// The overlap asked for is out of range.
    #[error(
        "after a rotation the old secret lives for at most {MAX_OVERLAP_S} seconds (30 days), not {overlap_s}"
    )]
    Overlap {
        /// What was asked for, seconds.
        overlap_s: u64,
    },
    /// More networks than a record may hold.
    #[error("an API key is bound to at most {MAX_NETWORKS} networks: join some of them")]
    Networks,
    /// There are no random numbers.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Which secret of an id a caller has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secret {
    /// The one of the last rotation.
    Current,
    /// The one before, within the overlap: its owner has to take over the new one.
    Previous,
}

/// Why an API key does not authenticate. The first two look the same to the caller: neither shows that an id exists. The
/// others are told, since only who has the secret gets so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiKeyRefusal {
    /// There is no such id, or it was revoked.
    UnknownId,
    /// The secret is none of this id's.
    WrongSecret,
    /// The key has ended.
    Expired,
    /// The secret was rotated, and the overlap is over.
    Rotated,
    /// The caller's address is of none of the key's networks.
    Network,
}

impl ApiKeyRefusal {
    /// What the caller is told.
    #[must_use]
    pub fn told(self) -> &'static str {
        match self {
            ApiKeyRefusal::UnknownId | ApiKeyRefusal::WrongSecret => {
                "the API key is not valid: ask for a new one"
            }
            ApiKeyRefusal::Expired => "the API key has expired: ask for a new one",
            ApiKeyRefusal::Rotated => "the API key was rotated: use the one that took its place",
            ApiKeyRefusal::Network => "the API key may not be used from this address",
        }
    }

    /// Why, for the audit trail.
    pub fn as_str(self) -> &'static str {
        match self {
            ApiKeyRefusal::UnknownId => "api-key-unknown",
            ApiKeyRefusal::WrongSecret => "api-key-wrong-secret",
            ApiKeyRefusal::Expired => "api-key-expired",
            ApiKeyRefusal::Rotated => "api-key-rotated",
            ApiKeyRefusal::Network => "api-key-network",
        }
    }
}

/// Whether a caller from `source` has the key of `record`, which is the one that is stored for the id that it presents, if
/// any. `now` is in Unix seconds.
///
/// The hash is computed and compared before anything else, also where there is no record, so that neither the answer nor
/// its time says what exists.
///
/// # Errors
/// [`ApiKeyRefusal`].
pub fn authenticate(
    record: Option<&ApiKeyRecord>,
    presented: &PresentedKey<'_>,
    hash_key: &ApiKeyHashKey,
    source: IpAddr,
    now: u64,
) -> Result<Secret, ApiKeyRefusal> {
    let hash = presented.hash(hash_key);
    let record = record
        .filter(|record| record.id == presented.id())
        .ok_or(ApiKeyRefusal::UnknownId)?;
    let previous = record.previous.as_ref().filter(|p| p.hash == hash);
    let secret = match (record.hash == hash, previous) {
        (true, _) => Secret::Current,
        (false, Some(previous)) if now < previous.until => Secret::Previous,
        (false, Some(_)) => return Err(ApiKeyRefusal::Rotated),
        (false, None) => return Err(ApiKeyRefusal::WrongSecret),
    };
    if now >= record.expires {
        return Err(ApiKeyRefusal::Expired);
    }
    let anywhere = record.networks.is_empty();
    if !anywhere && !record.networks.iter().any(|n| n.contains(source)) {
        return Err(ApiKeyRefusal::Network);
    }
    Ok(secret)
}

impl ApiKeyRecord {
    /// Whether a secret with this hash is taken at `now`, Unix seconds.
    #[must_use]
    pub fn takes(&self, hash: &ApiKeyHash, now: u64) -> bool {
        let previous = self.previous.as_ref();
        let is_previous = previous.is_some_and(|one| one.hash == *hash && now < one.until);
        now < self.expires && (self.hash == *hash || is_previous)
    }

    /// Who the holder of one of its secrets is.
    #[must_use]
    pub fn principal(&self, secret: Secret) -> Principal {
        let hash = match (secret, &self.previous) {
            (Secret::Previous, Some(previous)) => previous.hash,
            _ => self.hash,
        };
        // A principal counts in the second that it ends with, and a key does not.
        let last = self.accepted_until(secret).saturating_sub(1);
        let not_after = i64::try_from(last).unwrap_or(i64::MAX);
        Principal {
            method: Method::ApiKey,
            credential: self.id.as_str().into(),
            proof: Proof::ApiKey { id: self.id, hash },
            ..Principal::new(&self.identity, not_after)
        }
    }

    /// From when on this secret is not taken, Unix seconds: what a principal's end is.
    pub fn accepted_until(&self, secret: Secret) -> u64 {
        match (secret, &self.previous) {
            (Secret::Previous, Some(previous)) => previous.until.min(self.expires),
            _ => self.expires,
        }
    }
}

/// When an API key was last used, to the hour and since the start of the process. It stands beside the record in an `Arc` that
/// one snapshot hands to the next.
#[derive(Debug, Default)]
pub struct LastUse(AtomicU64);

impl LastUse {
    /// Notes a use at `now`, Unix seconds. Writes once an hour at most, so that calls on all cores only read.
    pub fn note(&self, now: u64) {
        let step = now - now % LAST_USE_STEP_S;
        if self.0.load(Ordering::Relaxed) < step {
            self.0.fetch_max(step, Ordering::Relaxed);
        }
    }

    /// The beginning of the hour of the last use, Unix seconds; `None` if there was none.
    pub fn last(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|last| *last > 0)
    }
}
