//! The record of an API key: `sys/api-key/{id}`.

use std::sync::Arc;

use fieldkeep_crypto::{api_key::ApiKeyHash, keys::ApiKeyHashKey, names::Name};
use fieldkeep_keystore::info::SystemRecord;
use prost::Message as _;

use super::{
    ApiKeyError, MAX_NETWORKS, MAX_OVERLAP_S, MAX_TTL_S,
    format::{ApiKey, ApiKeyId},
};
use crate::access::{AccessError, network::Network, principal::Identity};

/// What the store keys of all API keys begin with.
pub const PREFIX: &str = "sys/api-key/";

/// What is to be known of an API key before it can be made.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// Whose key it is.
    pub identity: Identity,
    /// How long the key lives, seconds: 1 to [`MAX_TTL_S`].
    pub ttl_s: u64,
    /// Where it may be used from; everywhere if empty. At most [`MAX_NETWORKS`].
    pub networks: Vec<Network>,
    /// Who makes it: a resource name.
    pub created_by: Arc<str>,
}

/// What is stored of an API key. All times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// Its id.
    pub id: ApiKeyId,
    /// Whose key it is.
    pub identity: Identity,
    /// When the id was made.
    pub created: u64,
    /// When the present secret was made.
    pub rotated: u64,
    /// From when on no secret of this id is taken.
    pub expires: u64,
    /// Who made the id: a resource name.
    pub created_by: Arc<str>,
    /// Where it may be used from; everywhere if empty.
    pub networks: Vec<Network>,
    pub(super) hash: ApiKeyHash,
    pub(super) previous: Option<Previous>,
}

/// The secret before the last rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Previous {
    pub(super) hash: ApiKeyHash,
    /// From when on it is not taken.
    pub(super) until: u64,
}

/// The payload of the record. Its key says the id, and the record's MAC covers the key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct StoredApiKey {
    #[prost(string, tag = "1")]
    tenant: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(bytes = "vec", tag = "3")]
    hash: Vec<u8>,
    #[prost(uint64, tag = "4")]
    created: u64,
    #[prost(uint64, tag = "5")]
    rotated: u64,
    #[prost(uint64, tag = "6")]
    expires: u64,
    #[prost(string, tag = "7")]
    created_by: String,
    /// Empty without a previous secret.
    #[prost(bytes = "vec", tag = "8")]
    previous_hash: Vec<u8>,
    #[prost(uint64, tag = "9")]
    previous_until: u64,
    #[prost(string, repeated, tag = "10")]
    networks: Vec<String>,
}

/// The store key of an API key.
pub fn api_key_key(id: ApiKeyId) -> String {
    format!("{PREFIX}{id}")
}

impl ApiKeyRecord {
    /// Makes an API key: what is shown to its owner once, and what is stored. `now` is in Unix seconds.
    ///
    /// # Errors
    /// [`ApiKeyError::Ttl`], [`ApiKeyError::Networks`]; no random bytes.
    pub fn make(
        new: NewApiKey,
        hash_key: &ApiKeyHashKey,
        now: u64,
    ) -> Result<(ApiKey, ApiKeyRecord), ApiKeyError> {
        let expires = expiry(new.ttl_s, now)?;
        if new.networks.len() > MAX_NETWORKS {
            return Err(ApiKeyError::Networks);
        }
        let key = ApiKey::make()?;
        let record = ApiKeyRecord {
            id: key.id(),
            identity: new.identity,
            created: now,
            rotated: now,
            expires,
            created_by: new.created_by,
            networks: new.networks,
            hash: key.presented().hash(hash_key),
            previous: None,
        };
        Ok((key, record))
    }

    /// Makes a new secret for this id, and the record that takes the place of this one. The secret that was current is
    /// taken for `overlap_s` seconds more, but never beyond its own expiry; an older one is not taken any more, so that
    /// at most two are. `ttl_s` counts from `now`, in Unix seconds.
    ///
    /// # Errors
    /// [`ApiKeyError::Ttl`], [`ApiKeyError::Overlap`]; no random bytes.
    pub fn rotate(
        &self,
        ttl_s: u64,
        overlap_s: u64,
        hash_key: &ApiKeyHashKey,
        now: u64,
    ) -> Result<(ApiKey, ApiKeyRecord), ApiKeyError> {
        let expires = expiry(ttl_s, now)?;
        if overlap_s > MAX_OVERLAP_S {
            return Err(ApiKeyError::Overlap { overlap_s });
        }
        let key = ApiKey::make_secret(self.id)?;
        let until = now.saturating_add(overlap_s).min(self.expires);
        let record = ApiKeyRecord {
            rotated: now,
            expires,
            hash: key.presented().hash(hash_key),
            previous: (until > now).then_some(Previous {
                hash: self.hash,
                until,
            }),
            ..self.clone()
        };
        Ok((key, record))
    }

    /// Until when the secret before the last rotation is taken, Unix seconds; `None` if there is none.
    pub fn previous_until(&self) -> Option<u64> {
        self.previous.as_ref().map(|previous| previous.until)
    }

    /// The payload of the record under [`api_key_key`].
    pub fn encode(&self) -> Vec<u8> {
        let previous = self.previous.as_ref();
        let stored = StoredApiKey {
            tenant: self.identity.tenant().to_string(),
            name: self.identity.name().to_string(),
            hash: self.hash.as_bytes().to_vec(),
            created: self.created,
            rotated: self.rotated,
            expires: self.expires,
            created_by: self.created_by.as_ref().to_owned(),
            previous_hash: previous.map_or_else(Vec::new, |p| p.hash.as_bytes().to_vec()),
            previous_until: previous.map_or(0, |p| p.until),
            networks: self.networks.iter().map(Network::to_string).collect(),
        };
        stored.encode_to_vec()
    }

    /// The API key of a stored record.
    ///
    /// # Errors
    /// [`AccessError::UnknownRecord`] for whatever this version would not have written in the same bytes: a field that
    /// it does not know could be a restriction.
    pub fn decode(store_key: &str, record: &SystemRecord) -> Result<ApiKeyRecord, AccessError> {
        ApiKeyRecord::decode_parts(store_key, &record.payload).ok_or_else(|| {
            AccessError::UnknownRecord {
                store_key: store_key.to_owned(),
            }
        })
    }

    fn decode_parts(store_key: &str, payload: &[u8]) -> Option<ApiKeyRecord> {
        let id = ApiKeyId::parse(store_key.strip_prefix(PREFIX)?).ok()?;
        let stored = StoredApiKey::decode(payload).ok()?;
        let identity = Identity::new(
            Name::parse(&stored.tenant).ok()?,
            Name::parse(&stored.name).ok()?,
        );
        let hash = |bytes: &[u8]| bytes.try_into().ok().map(ApiKeyHash::from_bytes);
        let previous = match stored.previous_hash.as_slice() {
            [] => None,
            bytes => Some(Previous {
                hash: hash(bytes)?,
                until: stored.previous_until,
            }),
        };
        let networks = stored.networks.iter().map(|text| text.parse().ok());
        let record = ApiKeyRecord {
            id,
            identity,
            created: stored.created,
            rotated: stored.rotated,
            expires: stored.expires,
            created_by: stored.created_by.into(),
            networks: networks.collect::<Option<_>>()?,
            hash: hash(&stored.hash)?,
            previous,
        };
        (record.encode() == payload).then_some(record)
    }
}

fn expiry(ttl_s: u64, now: u64) -> Result<u64, ApiKeyError> {
    if (1..=MAX_TTL_S).contains(&ttl_s) {
        Ok(now.saturating_add(ttl_s))
    } else {
        Err(ApiKeyError::Ttl { ttl_s })
    }
}
