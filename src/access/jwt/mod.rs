//! Bearer tokens of identity providers: JSON Web Tokens (RFC 7519, RFC 8725) of issuers that an operator has configured.
//!
//! [`Jwt::verify`] turns a token into who the caller is, or into a reason why not. `jsonwebtoken` takes the token apart and
//! ring checks its signature; what is decided here is which issuer's key counts, and what the claims mean. The header says
//! which key of the issuer it is (`kid`), and nothing else about keys is ever followed: not `jku`, `x5u`, `jwk` or `x5c`.

mod algorithm;
mod cache;
mod claims;
mod discovery;
mod endpoint;
mod error;
mod fetch;
mod issuer;
mod json;
mod keys;
mod naming;
mod record;
mod source;
#[cfg(test)]
pub(crate) mod tests;

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use jsonwebtoken::{Header, TokenData, Validation, dangerous::insecure_decode, errors::ErrorKind};
use ring::digest::{SHA256, digest};
use serde_json::Value;

pub use self::{
    algorithm::{Algorithm, ForeignProvider},
    endpoint::{Endpoint, EndpointError},
    error::TokenError,
    fetch::{Fetch, FetchError, HttpsFetch},
    issuer::{Issuer, IssuerError, TokenType},
    naming::NameRule,
    record::{IssuerRecord, MAX_RECORD_BYTES, PREFIX, ScopeGroup, issuer_key},
};
use self::{
    cache::{Entry, TokenCache},
    claims::Claims,
    error::shown,
    json::Unambiguous,
    keys::Key,
    source::Source,
};

use fieldkeep_crypto::names::Name;

use super::principal::Principal;

/// The longest token, bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Whom a token would name to one issuer.
pub struct Checked {
    /// The caller, or why the token is refused; `None`: there was no token.
    pub outcome: Option<Result<Arc<Principal>, TokenError>>,
    /// How many keys of the issuer are known.
    pub keys: usize,
    /// Why the issuer's keys could not be fetched at the last attempt, if a key is what was missing.
    pub fetch_problem: Option<Arc<str>>,
}

/// The issuers, their keys, and the tokens that were verified.
pub struct Jwt {
    /// By URL.
    issuers: ArcSwap<HashMap<String, Arc<Source>>>,
    cache: TokenCache,
    fetch: Arc<dyn Fetch>,
}

impl Jwt {
    /// Without issuers, so that no token is taken.
    ///
    /// # Errors
    /// Signatures would be checked by another library than ring.
    pub fn new(fetch: Arc<dyn Fetch>) -> Result<Jwt, ForeignProvider> {
        algorithm::install()?;
        Ok(Jwt {
            issuers: ArcSwap::default(),
            cache: TokenCache::new(),
            fetch,
        })
    }

    /// Replaces the issuers. One that has not changed keeps its keys; tokens of one that has are verified anew. One caller at
    /// a time.
    ///
    /// # Errors
    /// Two have the same URL; then nothing is changed.
    pub fn set_issuers(
        &self,
        issuers: impl IntoIterator<Item = Issuer>,
    ) -> Result<(), IssuerError> {
        let before = self.issuers.load();
        let mut sources: HashMap<String, Arc<Source>> = HashMap::new();
        for issuer in issuers {
            let url = issuer.url().as_str().to_owned();
            if let Some(other) = sources.get(&url) {
                return Err(IssuerError::DuplicateUrl {
                    other: other.issuer().name().clone(),
                });
            }
            let same = before.get(&url).filter(|source| *source.issuer() == issuer);
            let source = same.cloned();
            let source =
                source.unwrap_or_else(|| Arc::new(Source::new(issuer, Arc::clone(&self.fetch))));
            sources.insert(url, source);
        }
        self.issuers.store(Arc::new(sources));
        self.cache.retain(|source| self.is_current(source));
        Ok(())
    }

    /// Who the bearer of `token` is at `now`, Unix seconds. It waits for the issuer's keys if they are not there.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn verify(&self, token: &str, now: u64) -> Result<Arc<Principal>, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let hash = sha256(token);
        if let Some(entry) = self.cache.find(&hash, now) {
            if self.is_current(&entry.source) && entry.source.holds(&entry.key, now).await {
                return Ok(entry.principal);
            }
            self.cache.remove(&hash);
        }
        let entry = self.verify_anew(token, &hash, now).await?;
        let principal = Arc::clone(&entry.principal);
        self.cache.insert(hash, entry);
        Ok(principal)
    }

    async fn verify_anew(
        &self,
        token: &str,
        hash: &[u8; 32],
        now: u64,
    ) -> Result<Entry, TokenError> {
        let (header, claims) = read(token)?;
        let iss = claims
            .get("iss")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let source = self.issuers.load().get(iss).cloned();
        let source = source.ok_or_else(|| TokenError::UnknownIssuer { iss: shown(iss) })?;
        let (principal, key) = verify_of(&source, token, &header, hash, now).await?;
        Ok(Entry::new(Arc::new(principal), source, key, now))
    }

    /// Who the bearer of `token` would be to the issuer `name` at `now`, Unix seconds; `None`: there is no such issuer. The token is
    /// verified anew, and nothing is remembered of it; of an empty one, nothing but the keys. It waits for the issuer's keys if they are
    /// not there.
    pub async fn check(&self, name: &Name, token: &str, now: u64) -> Option<Checked> {
        let issuers = self.issuers.load_full();
        let source = issuers
            .values()
            .find(|source| source.issuer().name() == name)?;
        let outcome = if token.is_empty() {
            None
        } else {
            Some(check_with(source, token, now).await.map(Arc::new))
        };
        let keys = source.count(now).await;
        let lacks_key = keys == 0 || matches!(outcome, Some(Err(TokenError::UnknownKey { .. })));
        Some(Checked {
            outcome,
            keys,
            fetch_problem: source.problem().filter(|_| lacks_key),
        })
    }

    fn is_current(&self, source: &Arc<Source>) -> bool {
        let issuers = self.issuers.load();
        issuers
            .get(source.issuer().url().as_str())
            .is_some_and(|current| Arc::ptr_eq(current, source))
    }
}

async fn check_with(source: &Arc<Source>, token: &str, now: u64) -> Result<Principal, TokenError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::TooLong);
    }
    let (header, claims) = read(token)?;
    let iss = claims
        .get("iss")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let issuer = source.issuer();
    if iss != issuer.url().as_str() {
        return Err(TokenError::OtherIssuer {
            issuer: issuer.name().clone(),
            url: issuer.url().as_str().to_owned(),
            iss: shown(iss),
        });
    }
    let hash = sha256(token);
    let verified = verify_of(source, token, &header, &hash, now).await?;
    Ok(verified.0)
}

/// Verifies a token that says that it is of the issuer of `source`.
async fn verify_of(
    source: &Arc<Source>,
    token: &str,
    header: &Header,
    hash: &[u8; 32],
    now: u64,
) -> Result<(Principal, Arc<Key>), TokenError> {
    let issuer = source.issuer();
    if !TokenType::of_header(header.typ.as_deref()).is_some_and(|typ| issuer.takes(typ)) {
        return Err(TokenError::Type);
    }
    let algorithm = Algorithm::of(header.alg).filter(|named| issuer.algorithms().contains(named));
    let algorithm = algorithm.ok_or_else(|| TokenError::Algorithm {
        issuer: issuer.name().clone(),
        algorithm: format!("{:?}", header.alg),
    })?;
    let key = source.key(header.kid.as_deref(), algorithm, now).await?;
    let claims = check_signature(token, key.decoding(), algorithm, issuer)?;
    let principal = Claims::new(issuer, &claims).verify(hash, now)?;
    Ok((principal, key))
}

/// The header and the claims of a token whose signature was not checked yet.
fn read(token: &str) -> Result<(Header, Value), TokenError> {
    let TokenData {
        header,
        claims: Unambiguous(claims),
    } = insecure_decode(token).map_err(|_| TokenError::Malformed)?;
    if header.crit.is_some() {
        return Err(TokenError::Critical);
    }
    Ok((header, claims))
}

/// The claims of a token that is signed with `key` and with `algorithm`.
fn check_signature(
    token: &str,
    key: &jsonwebtoken::DecodingKey,
    algorithm: Algorithm,
    issuer: &Issuer,
) -> Result<Value, TokenError> {
    let mut validation = Validation::new(algorithm.named());
    // Times are checked with the claims: the library would read the clock by itself.
    validation.validate_exp = false;
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.set_issuer(&[issuer.url().as_str()]);
    validation.set_audience(issuer.audiences());
    let name = || issuer.name().clone();
    let refused = |error: jsonwebtoken::errors::Error| match error.kind() {
        ErrorKind::InvalidSignature => TokenError::Signature { issuer: name() },
        ErrorKind::InvalidAudience => TokenError::Audience { issuer: name() },
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
            TokenError::Claim {
                issuer: name(),
                claim: claim.clone(),
                expected: "of the right type",
            }
        }
        // The claims were JSON before; to the library, one of these is not.
        ErrorKind::Json(_) => TokenError::Claim {
            issuer: name(),
            claim: "exp, nbf, iss, aud, sub".to_owned(),
            expected: "of the right type",
        },
        _ => TokenError::Malformed,
    };
    let TokenData {
        claims: Unambiguous(claims),
        ..
    } = jsonwebtoken::decode(token, key, &validation).map_err(refused)?;
    Ok(claims)
}

fn sha256(token: &str) -> [u8; 32] {
    digest(&SHA256, token.as_bytes())
        .as_ref()
        .try_into()
        .unwrap_or([0; 32])
}
