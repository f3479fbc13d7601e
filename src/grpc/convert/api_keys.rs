//! The messages of `ApiKeyService`.

use fieldkeep_proto::v1::{
    ApiKey, CreateApiKeyRequest, CreateApiKeyResponse, ListApiKeysRequest, ListApiKeysResponse,
    RevokeApiKeyRequest, RotateApiKeyRequest, RotateApiKeyResponse,
};

use super::access::identity;
use super::admin::{repeatable, timestamp};
use super::{page, parent, token};
use crate::access::api_key::format::ApiKeyId;
use crate::access::network::Network;
use crate::access::settings::HeldApiKey;
use crate::service::api_keys::{
    CreateApiKey, DEFAULT_TTL_S, ListApiKeys, MadeApiKey, RevokeApiKey, RotateApiKey,
};
use crate::service::failure::Failure;
use crate::service::keys::Listed;

fn id(text: &str) -> Result<ApiKeyId, Failure> {
    ApiKeyId::parse(text).map_err(|_| {
        Failure::invalid(
            "id",
            "not the id of an API key, which is the 16 characters between `fk_` and the next `_`",
        )
    })
}

fn life(ttl_seconds: u64) -> u64 {
    if ttl_seconds == 0 {
        DEFAULT_TTL_S
    } else {
        ttl_seconds
    }
}

/// What a CreateApiKey asks for.
///
/// # Errors
/// The part that is not valid; so for every request of this module.
pub fn create(request: CreateApiKeyRequest) -> Result<CreateApiKey, Failure> {
    let network = |text: &String| {
        text.parse::<Network>()
            .map_err(|error| Failure::invalid("networks", error.to_string()))
    };
    Ok(CreateApiKey {
        identity: identity("identity", &request.identity)?,
        ttl_s: life(request.ttl_seconds),
        networks: request
            .networks
            .iter()
            .map(network)
            .collect::<Result<_, _>>()?,
    })
}

/// An API key, shown once.
#[must_use]
pub fn created(made: MadeApiKey) -> CreateApiKeyResponse {
    CreateApiKeyResponse {
        secret: made.key.dangerous_text().to_string(),
        api_key: Some(api_key(&made.held)),
    }
}

/// What a RotateApiKey asks for.
///
/// # Errors
/// As [`create`].
pub fn rotate(request: RotateApiKeyRequest) -> Result<RotateApiKey, Failure> {
    Ok(RotateApiKey {
        id: id(&request.id)?,
        ttl_s: life(request.ttl_seconds),
        overlap_s: request.overlap_seconds,
    })
}

/// The new secret, shown once.
#[must_use]
pub fn rotated(made: MadeApiKey) -> RotateApiKeyResponse {
    RotateApiKeyResponse {
        secret: made.key.dangerous_text().to_string(),
        api_key: Some(api_key(&made.held)),
    }
}

/// What a RevokeApiKey asks for.
///
/// # Errors
/// As [`create`].
pub fn revoke(request: RevokeApiKeyRequest) -> Result<RevokeApiKey, Failure> {
    Ok(RevokeApiKey {
        id: id(&request.id)?,
        request: repeatable(&request.request_id, &request)?,
    })
}

/// What a ListApiKeys asks for.
///
/// # Errors
/// As [`create`].
pub fn list(request: ListApiKeysRequest) -> Result<ListApiKeys, Failure> {
    Ok(ListApiKeys {
        tenant: parent(&request.parent)?,
        page: page(request.page_size, &request.page_token)?,
    })
}

/// A page of API keys.
#[must_use]
pub fn listed(listed: Listed<HeldApiKey>) -> ListApiKeysResponse {
    ListApiKeysResponse {
        api_keys: listed.entries.iter().map(api_key).collect(),
        next_page_token: token(listed.next),
    }
}

fn api_key(held: &HeldApiKey) -> ApiKey {
    let record = &held.record;
    ApiKey {
        id: record.id.to_string(),
        identity: record.identity.to_string(),
        networks: record.networks.iter().map(Network::to_string).collect(),
        create_time: timestamp(record.created),
        created_by: record.created_by.to_string(),
        rotate_time: timestamp(record.rotated),
        expire_time: timestamp(record.expires),
        previous_expire_time: record.previous_until().and_then(timestamp),
        last_use_time: held.last_use.last().and_then(timestamp),
    }
}
