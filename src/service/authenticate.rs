//! Callers who show a credential with each call: `authorization: Bearer`, and an API key or the token of an issuer.
//!
//! Such a credential alone says who the caller is. The certificate of its connection, if there is one, does not count then: a
//! gateway that passes on what its users show cannot lend them its own rights, and they not theirs to it.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tokio::time::{Instant, timeout_at};

use crate::access::api_key::format::PresentedKey;
use crate::access::api_key::{self, ApiKeyRefusal, Secret};
use crate::access::jwt::TokenError;
use crate::access::lockout::Source;
use crate::access::principal::{Method, Principal};
use crate::service::call::{Call, Peer};
use crate::service::failure::Failure;
use crate::service::perform::Refusal;
use crate::service::{Core, Service};

/// What an API key begins with; no JWT does.
const API_KEY_MARK: &[u8] = b"fk_";
/// The one scheme (RFC 6750, section 2.1).
const SCHEME: &[u8] = b"bearer ";
const NOT_BEARER: &str = "the `authorization` header is not one `Bearer` and an API key or a token";
const LATE: &str = "the token could not be verified within the call's time, since its issuer's keys are still being fetched: try again";
const NO_API_KEY: &str =
    "the API key is mistyped or cut: it begins with `fk_` and has 69 characters";

/// Why a credential does not count, and what its record says beside the rule.
struct Rejected {
    failure: Failure,
    method: Method,
    detail: String,
}

impl Service {
    /// Sets the caller of `call` to whom the credential in its `headers` names, if there is one. The keys of an issuer may have to be
    /// fetched, which is waited for until `until`. A call that is dropped meanwhile is on record.
    ///
    /// # Errors
    /// The refusal, which is on record.
    pub async fn authenticate(
        &self,
        call: &mut Call,
        headers: &HeaderMap,
        until: Instant,
    ) -> Result<(), Refusal> {
        if !headers.contains_key(AUTHORIZATION) {
            return Ok(());
        }
        let arrival = self.arrive(call);
        let verified = timeout_at(until, self.core.verify(call, headers)).await;
        arrival.end();
        let verified = verified.unwrap_or_else(|_| {
            Err(Rejected {
                failure: Failure::KeysUnavailable(LATE),
                method: Method::Jwt,
                detail: String::new(),
            })
        });
        match verified {
            Ok(principal) => {
                call.peer = Arc::new(call.peer.with_caller(principal));
                Ok(())
            }
            Err(rejected) => {
                call.peer = Arc::new(call.peer.without_caller(rejected.method));
                let (failure, detail) = (rejected.failure, rejected.detail);
                let refused = self.refuse_with(call.clone(), failure, detail);
                Err(Box::pin(refused).await)
            }
        }
    }
}

/// What stands behind the scheme.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, credential) = value.split_at_checked(SCHEME.len())?;
    (scheme.eq_ignore_ascii_case(SCHEME) && !credential.is_empty()).then_some(credential)
}

fn unauthenticated(rule: &'static str, told: &'static str) -> Failure {
    Failure::Unauthenticated { rule, told }
}

impl Core {
    /// Whom the credential in `headers` names.
    async fn verify(&self, call: &Call, headers: &HeaderMap) -> Result<Arc<Principal>, Rejected> {
        let mut shown = headers.get_all(AUTHORIZATION).iter();
        let only = shown.next().filter(|_| shown.next().is_none());
        let credential = only.and_then(|value| bearer(value.as_bytes()));
        let credential = credential.ok_or_else(|| Rejected {
            failure: unauthenticated("not-bearer", NOT_BEARER),
            method: Method::Jwt,
            detail: String::new(),
        })?;
        // Never 0, which stands for none.
        let hash = self.credential_hasher.hash_one(credential) | 1;
        let known = call.peer.has_verified(hash);
        let principal = if credential.starts_with(API_KEY_MARK) {
            self.verify_api_key(&call.peer, credential, known)
        } else {
            Box::pin(self.verify_token(call, credential, known)).await
        }?;
        if !known {
            call.peer.note_verified(hash);
        }
        Ok(principal)
    }

    fn verify_api_key(
        &self,
        peer: &Peer,
        credential: &[u8],
        known: bool,
    ) -> Result<Arc<Principal>, Rejected> {
        let rejected = |failure, detail| Rejected {
            failure,
            method: Method::ApiKey,
            detail,
        };
        let Ok(presented) = PresentedKey::parse(credential) else {
            let failure = unauthenticated("api-key-malformed", NO_API_KEY);
            return Err(rejected(failure, String::new()));
        };
        let id = presented.id();
        let detail = || format!("api_key={id}");
        let (source, now_us) = (Source::from(peer.network()), self.clock.now_us());
        let (now, now_ms) = (now_us / 1_000_000, now_us / 1_000);
        let who = || format!("api-key:{id}");
        if !known && let Err(wait) = self.attempts.check(source, Some(&who()), now_ms) {
            return Err(rejected(Failure::from(wait), detail()));
        }
        let snapshot = self.access.snapshot();
        let held = snapshot.settings().api_key(&id);
        let record = held.map(|held| held.record.as_ref());
        let outcome =
            api_key::authenticate(record, &presented, &self.api_key_hash, peer.network(), now);
        let refusal = match (outcome, held) {
            (Ok(secret), Some(held)) => {
                if !known {
                    self.attempts.succeeded(source, &who(), now_ms);
                }
                held.last_use.note(now);
                return Ok(match secret {
                    Secret::Current => Arc::clone(&held.principal),
                    Secret::Previous => Arc::new(held.record.principal(secret)),
                });
            }
            (Err(refusal), _) => refusal,
            (Ok(_), None) => ApiKeyRefusal::UnknownId,
        };
        if matches!(
            refusal,
            ApiKeyRefusal::UnknownId | ApiKeyRefusal::WrongSecret
        ) {
            self.attempts.failed(source, Some(&who()), now_ms);
        }
        let failure = unauthenticated(refusal.as_str(), refusal.told());
        Err(rejected(failure, detail()))
    }

    async fn verify_token(
        &self,
        call: &Call,
        credential: &[u8],
        known: bool,
    ) -> Result<Arc<Principal>, Rejected> {
        let rejected = |failure| Rejected {
            failure,
            method: Method::Jwt,
            detail: String::new(),
        };
        let (source, now_us) = (Source::from(call.peer.network()), self.clock.now_us());
        let now_ms = now_us / 1_000;
        if !known && let Err(wait) = self.attempts.check(source, None, now_ms) {
            return Err(rejected(Failure::from(wait)));
        }
        let verified = match std::str::from_utf8(credential) {
            Ok(token) => self.access.jwt().verify(token, now_us / 1_000_000).await,
            Err(_) => Err(TokenError::Malformed),
        };
        verified.map_err(|error| {
            tracing::info!(request_id = %call.request_id, %error, "a token was not accepted");
            if error.is_transient() {
                return rejected(Failure::KeysUnavailable(error.caller_message()));
            }
            // Whoever shows an old one had a good one.
            if !matches!(
                error,
                TokenError::Expired { .. } | TokenError::TooOld { .. }
            ) {
                self.attempts.failed(source, None, now_ms);
            }
            rejected(unauthenticated(error.rule(), error.caller_message()))
        })
    }
}
