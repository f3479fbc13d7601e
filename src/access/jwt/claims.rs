//! From verified claims to who the caller is. Every type is strict: a number in quotation marks is no number.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use fieldkeep_crypto::names::Name;
use serde_json::Value;

use super::{
    error::TokenError,
    issuer::{Issuer, TenantSource},
};
use crate::access::principal::{Identity, Method, Principal, Proof};

/// The most groups of a caller.
const MAX_GROUPS: usize = 128;
/// The longest `jti` that is kept as it is, bytes.
const MAX_ID_BYTES: usize = 128;

/// The claims of one token, and whose they are.
pub(super) struct Claims<'a> {
    issuer: &'a Issuer,
    claims: &'a Value,
}

impl<'a> Claims<'a> {
    pub(super) fn new(issuer: &'a Issuer, claims: &'a Value) -> Claims<'a> {
        Claims { issuer, claims }
    }

    /// Checks everything that is not the signature, at `now`, Unix seconds. `hash` is the token's SHA-256.
    pub(super) fn verify(&self, hash: &[u8; 32], now: u64) -> Result<Principal, TokenError> {
        self.check_issuer()?;
        self.check_audience()?;
        let not_after = self.check_times(now)?;
        let tenant = self.tenant()?;
        let groups = self.groups(&tenant)?;
        let identity = Identity::new(tenant, self.name()?);
        let issuer = self.issuer.name();
        Ok(Principal {
            method: Method::Jwt,
            credential: format!("{issuer}/{}", self.token_id(hash)).into(),
            proof: Proof::Token {
                issuer: issuer.clone(),
                generation: self.issuer.generation(),
            },
            groups,
            second_factor: self.second_factor(),
            ceiling: self.issuer.ceiling(),
            ..Principal::new(&identity, not_after)
        })
    }

    fn check_issuer(&self) -> Result<(), TokenError> {
        if self.text("iss")? == self.issuer.url().as_str() {
            return Ok(());
        }
        Err(self.wrong("iss", "the issuer's URL"))
    }

    fn check_audience(&self) -> Result<(), TokenError> {
        let wrong = || self.wrong("aud", "a text or a list of texts");
        let listed = match self.claims.get("aud").ok_or_else(wrong)? {
            Value::Array(listed) => listed.as_slice(),
            one => std::slice::from_ref(one),
        };
        let listed: Vec<&str> = listed
            .iter()
            .map(Value::as_str)
            .collect::<Option<_>>()
            .ok_or_else(wrong)?;
        let is_ours = |audience: &&str| self.issuer.audiences().iter().any(|ours| ours == audience);
        if listed.iter().any(is_ours) {
            return Ok(());
        }
        Err(TokenError::Audience {
            issuer: self.issuer.name().clone(),
        })
    }

    /// Checks `exp`, `iat` and `nbf`, and returns the last second in which the token may be used.
    fn check_times(&self, now: u64) -> Result<i64, TokenError> {
        let issuer = || self.issuer.name().clone();
        let leeway = self.issuer.leeway();
        let (exp, iat) = (self.seconds("exp")?, self.seconds("iat")?);
        let begins = match self.claims.get("nbf") {
            Some(_) => self.seconds("nbf")?.max(iat),
            None => iat,
        };
        if begins > now.saturating_add(leeway) {
            return Err(TokenError::NotYetValid { issuer: issuer() });
        }
        // A token may be used before the second that `exp` names (RFC 7519, section 4.1.4).
        let end = exp.saturating_add(leeway);
        if now >= end {
            return Err(TokenError::Expired {
                issuer: issuer(),
                ago: now - end,
            });
        }
        let oldest = iat
            .saturating_add(self.issuer.max_age())
            .saturating_add(leeway);
        if now >= oldest {
            return Err(TokenError::TooOld { issuer: issuer() });
        }
        let last = end.min(oldest).saturating_sub(1);
        i64::try_from(last).map_err(|_| self.wrong("exp", "a whole number of seconds"))
    }

    fn tenant(&self) -> Result<Name, TokenError> {
        let claim = match self.issuer.tenant_source() {
            TenantSource::Fixed(tenant) => return Ok(tenant.clone()),
            TenantSource::Claim(claim) => claim,
        };
        let named = claim.find(self.claims).and_then(Value::as_str);
        let named = named.ok_or_else(|| self.wrong(claim.as_str(), "a text"))?;
        let tenant = self.issuer.tenant(named).cloned();
        tenant.ok_or_else(|| TokenError::Tenant {
            issuer: self.issuer.name().clone(),
        })
    }

    fn name(&self) -> Result<Name, TokenError> {
        let claim = self.issuer.name_claim();
        let text = claim.find(self.claims).and_then(Value::as_str);
        let text = text.ok_or_else(|| self.wrong(claim.as_str(), "a text"))?;
        self.issuer
            .name_rule()
            .apply(text)
            .map_err(|problem| TokenError::Subject {
                issuer: self.issuer.name().clone(),
                claim: claim.as_str().to_owned(),
                problem,
            })
    }

    /// The groups of the groups claim that are names of the grammar, and those of the scopes. What is neither is left out:
    /// providers list groups that mean nothing here, and a group can only allow more.
    fn groups(&self, tenant: &Name) -> Result<Arc<[Arc<str>]>, TokenError> {
        let claimed = self
            .issuer
            .groups_claim()
            .and_then(|claim| claim.find(self.claims));
        let listed = elements(claimed).filter_map(|group| Name::parse(group).ok());
        // `scope` is a text with spaces (RFC 8693, section 4.2); some providers send a list.
        let scopes = elements(self.issuer.scope_claim().find(self.claims));
        let of_scopes = scopes
            .flat_map(|scopes| scopes.split(' '))
            .flat_map(|scope| self.issuer.groups_of_scope(scope).cloned());
        let mut groups: Vec<Name> = listed.chain(of_scopes).collect();
        groups.sort();
        groups.dedup();
        if groups.len() > MAX_GROUPS {
            return Err(TokenError::TooManyGroups {
                issuer: self.issuer.name().clone(),
            });
        }
        let resource = |group: &Name| format!("tenants/{tenant}/groups/{group}").into();
        Ok(groups.iter().map(resource).collect())
    }

    fn second_factor(&self) -> bool {
        let class = self.claims.get("acr").and_then(Value::as_str);
        class.is_some_and(|acr| self.issuer.is_second_factor_class(acr))
            || elements(self.claims.get("amr")).any(|amr| self.issuer.is_second_factor_method(amr))
    }

    fn token_id(&self, hash: &[u8; 32]) -> Arc<str> {
        let is_plain = |id: &&str| {
            (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let id = self
            .claims
            .get("jti")
            .and_then(Value::as_str)
            .filter(is_plain);
        id.map_or_else(
            || format!("sha256:{}", HEXLOWER.encode(hash.split_at(16).0)).into(),
            Arc::from,
        )
    }

    fn text(&self, claim: &str) -> Result<&'a str, TokenError> {
        let text = self.claims.get(claim).and_then(Value::as_str);
        text.ok_or_else(|| self.wrong(claim, "a text"))
    }

    fn seconds(&self, claim: &str) -> Result<u64, TokenError> {
        let seconds = self.claims.get(claim).and_then(Value::as_u64);
        seconds.ok_or_else(|| self.wrong(claim, "a whole number of seconds"))
    }

    fn wrong(&self, claim: &str, expected: &'static str) -> TokenError {
        TokenError::Claim {
            issuer: self.issuer.name().clone(),
            claim: claim.to_owned(),
            expected,
        }
    }
}

/// The texts of a list, or the one text.
fn elements(claim: Option<&Value>) -> impl Iterator<Item = &str> {
    let listed = match claim {
        Some(Value::Array(listed)) => listed.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    listed.iter().filter_map(Value::as_str)
}
