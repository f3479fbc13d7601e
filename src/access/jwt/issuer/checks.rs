//! The checks of single settings.

use fieldkeep_crypto::names::Name;
use rustls_pki_types::CertificateDer;

use super::{ClaimPath, IssuerError, TenantSource, TokenType};
use crate::access::jwt::{
    algorithm::Algorithm,
    endpoint::EndpointError,
    record::{IssuerRecord, ScopeGroup},
};

const DEFAULT_LEEWAY: u32 = 30;
const MAX_LEEWAY: u32 = 120;
const DEFAULT_MAX_AGE: u32 = 24 * 3600;
const AGES: std::ops::RangeInclusive<u32> = 60..=7 * 24 * 3600;
/// The most audiences, and the most values of `acr` and of `amr`.
pub(super) const MAX_VALUES: usize = 8;
/// The most tenants, and the most scopes.
const MAX_LISTED: usize = 64;
/// The longest audience, scope, value or name of a claim, bytes.
const MAX_TEXT_BYTES: usize = 256;

pub(super) fn url_error(setting: &'static str) -> impl Fn(EndpointError) -> IssuerError {
    move |problem| IssuerError::Url { setting, problem }
}

pub(super) fn root(der: &[u8]) -> Result<Option<CertificateDer<'static>>, IssuerError> {
    if der.is_empty() {
        return Ok(None);
    }
    let certificate = CertificateDer::from(der.to_vec());
    let mut store = rustls::RootCertStore::empty();
    store
        .add(certificate.clone())
        .map_err(|_| IssuerError::Root)?;
    Ok(Some(certificate))
}

pub(super) fn algorithms(listed: &[String]) -> Result<Vec<Algorithm>, IssuerError> {
    texts("algorithms", listed, 1, Algorithm::ALL.len())?;
    let parsed = listed
        .iter()
        .map(|name| Algorithm::parse(name))
        .collect::<Option<_>>();
    parsed.ok_or(IssuerError::Algorithm)
}

pub(super) fn types(listed: &[String]) -> Result<Vec<TokenType>, IssuerError> {
    if listed.is_empty() {
        return Ok(vec![TokenType::Jwt, TokenType::AccessToken]);
    }
    texts("token_types", listed, 1, 2)?;
    let parse = |typ: &String| match typ.as_str() {
        "JWT" => Some(TokenType::Jwt),
        "at+jwt" => Some(TokenType::AccessToken),
        _ => None,
    };
    listed
        .iter()
        .map(parse)
        .collect::<Option<_>>()
        .ok_or(IssuerError::TokenType)
}

pub(super) fn tenant_source(
    record: &IssuerRecord,
    tenants: &[Name],
) -> Result<TenantSource, IssuerError> {
    let claim = claim("tenant_claim", &record.tenant_claim)?;
    match (record.tenant.as_str(), claim) {
        ("", Some(claim)) => Ok(TenantSource::Claim(claim)),
        (tenant, None) if !tenant.is_empty() => {
            let tenant = parse_name("tenant", tenant)?;
            if !tenants.contains(&tenant) {
                return Err(IssuerError::TenantNotListed);
            }
            Ok(TenantSource::Fixed(tenant))
        }
        _ => Err(IssuerError::TenantSource),
    }
}

pub(super) fn scopes(record: &IssuerRecord) -> Result<Vec<(String, Name)>, IssuerError> {
    let setting = "scopes";
    if record.scopes.len() > MAX_LISTED {
        return Err(IssuerError::Count {
            setting,
            least: 0,
            most: MAX_LISTED,
        });
    }
    let pair = |entry: &ScopeGroup| {
        if entry.scope.contains(' ') || !is_text(&entry.scope) {
            return Err(IssuerError::Text { setting });
        }
        Ok((entry.scope.clone(), parse_name(setting, &entry.group)?))
    };
    record.scopes.iter().map(pair).collect()
}

pub(super) fn leeway(record: &IssuerRecord) -> Result<u64, IssuerError> {
    let leeway = record.leeway_seconds.unwrap_or(DEFAULT_LEEWAY);
    (leeway <= MAX_LEEWAY)
        .then_some(leeway.into())
        .ok_or(IssuerError::Leeway)
}

pub(super) fn max_age(record: &IssuerRecord) -> Result<u64, IssuerError> {
    let age = record.max_age_seconds.unwrap_or(DEFAULT_MAX_AGE);
    AGES.contains(&age)
        .then_some(age.into())
        .ok_or(IssuerError::MaxAge)
}

pub(super) fn claim(setting: &'static str, path: &str) -> Result<Option<ClaimPath>, IssuerError> {
    if path.is_empty() {
        return Ok(None);
    }
    if !is_text(path) {
        return Err(IssuerError::Text { setting });
    }
    Ok(Some(ClaimPath(path.to_owned())))
}

pub(super) fn names(setting: &'static str, listed: &[String]) -> Result<Vec<Name>, IssuerError> {
    texts(setting, listed, 1, MAX_LISTED)?;
    listed
        .iter()
        .map(|name| parse_name(setting, name))
        .collect()
}

fn parse_name(setting: &'static str, name: &str) -> Result<Name, IssuerError> {
    Name::parse(name).map_err(|problem| IssuerError::Name { setting, problem })
}

/// Checks a list: how many there are, that none is there twice, and each text.
pub(super) fn texts(
    setting: &'static str,
    listed: &[String],
    least: usize,
    most: usize,
) -> Result<(), IssuerError> {
    let is_repeated =
        |(index, text): (usize, &String)| listed.iter().take(index).any(|other| other == text);
    if !(least..=most).contains(&listed.len()) || listed.iter().enumerate().any(is_repeated) {
        return Err(IssuerError::Count {
            setting,
            least,
            most,
        });
    }
    if listed.iter().all(|text| is_text(text)) {
        Ok(())
    } else {
        Err(IssuerError::Text { setting })
    }
}

fn is_text(text: &str) -> bool {
    (1..=MAX_TEXT_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}
