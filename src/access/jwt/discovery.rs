//! Where an issuer's keys are, and the keys: one or two documents of the provider.

use rustls_pki_types::CertificateDer;
use serde_json::Value;

use super::{
    endpoint::{Endpoint, EndpointError},
    fetch::{Fetch, FetchError},
    issuer::Issuer,
    json::Unambiguous,
    keys::{KeySet, KeySetError, MAX_SET_BYTES},
};

/// The largest discovery document that is read, bytes.
const MAX_DOCUMENT_BYTES: usize = 64 * 1024;

/// Why an issuer's keys were not had.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiscoveryError {
    /// A document was not had.
    #[error("`{url}`: {source}")]
    Fetch {
        /// Which.
        url: String,
        /// Why.
        source: FetchError,
    },
    /// It is no JSON object, or a name stands twice in it.
    #[error("the discovery document is no JSON object with each name once")]
    Malformed,
    /// It is the document of another issuer.
    #[error(
        "the discovery document is of another issuer: its `issuer` must be the configured URL, to the last slash"
    )]
    OtherIssuer,
    /// It does not say where the keys are, or names a place that keys are not taken from.
    #[error("`jwks_uri` of the discovery document {0}")]
    KeysUrl(EndpointError),
    /// The keys are not taken.
    #[error(transparent)]
    Keys(#[from] KeySetError),
}

/// Fetches the keys of `issuer`.
///
/// # Errors
/// See [`DiscoveryError`].
pub(super) async fn fetch_keys(
    issuer: &Issuer,
    fetch: &dyn Fetch,
) -> Result<KeySet, DiscoveryError> {
    let keys_url = match issuer.jwks_url() {
        Some(url) => url.clone(),
        None => discover(issuer, fetch).await?,
    };
    let set = get(fetch, &keys_url, issuer.root(), MAX_SET_BYTES).await?;
    Ok(KeySet::parse(&set)?)
}

async fn discover(issuer: &Issuer, fetch: &dyn Fetch) -> Result<Endpoint, DiscoveryError> {
    let url = issuer.url().discovery().map_err(DiscoveryError::KeysUrl)?;
    let document = get(fetch, &url, issuer.root(), MAX_DOCUMENT_BYTES).await?;
    let Unambiguous(document) =
        serde_json::from_slice(&document).map_err(|_| DiscoveryError::Malformed)?;
    // OpenID Connect Discovery 1.0, section 4.3. Otherwise one provider could hand out the tokens of another.
    if document.get("issuer").and_then(Value::as_str) != Some(issuer.url().as_str()) {
        return Err(DiscoveryError::OtherIssuer);
    }
    let keys = document
        .get("jwks_uri")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let keys = Endpoint::parse(keys).map_err(DiscoveryError::KeysUrl)?;
    if keys.is_tls() != issuer.url().is_tls() {
        return Err(DiscoveryError::KeysUrl(EndpointError::Insecure));
    }
    Ok(keys)
}

async fn get(
    fetch: &dyn Fetch,
    url: &Endpoint,
    root: Option<&CertificateDer<'static>>,
    limit: usize,
) -> Result<bytes::Bytes, DiscoveryError> {
    fetch
        .fetch(url, root, limit)
        .await
        .map_err(|source| DiscoveryError::Fetch {
            url: url.as_str().to_owned(),
            source,
        })
}
