//! An issuer of tokens, checked: what it may say, and how what it says becomes a caller.

mod checks;

use fieldkeep_crypto::names::{Name, NameError};
use rustls_pki_types::CertificateDer;
use serde_json::Value;

use self::checks::{
    MAX_VALUES, algorithms, claim, leeway, max_age, names, root, scopes, tenant_source, texts,
    types, url_error,
};
use super::{
    algorithm::Algorithm,
    endpoint::{Endpoint, EndpointError},
    naming::NameRule,
    record::{IssuerRecord, MAX_RECORD_BYTES, name_of_key},
};
use crate::access::{principal::Ceiling, role::Role};

/// An issuer whose tokens are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    name: Name,
    record: IssuerRecord,
    url: Endpoint,
    jwks_url: Option<Endpoint>,
    root: Option<CertificateDer<'static>>,
    algorithms: Vec<Algorithm>,
    types: Vec<TokenType>,
    tenant: TenantSource,
    name_claim: ClaimPath,
    name_rule: NameRule,
    groups_claim: Option<ClaimPath>,
    scope_claim: ClaimPath,
    scopes: Vec<(String, Name)>,
    tenants: Vec<Name>,
    ceiling: Role,
    leeway: u64,
    max_age: u64,
    generation: u64,
}

/// What a token is, by its header `typ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// `JWT`, or nothing: an ID token, or an access token of before RFC 9068.
    Jwt,
    /// `at+jwt`: an access token (RFC 9068).
    AccessToken,
}

impl TokenType {
    /// The type of a header. Media types have no case, and may begin with `application/` (RFC 7515, section 4.1.9).
    pub(super) fn of_header(typ: Option<&str>) -> Option<TokenType> {
        let typ = typ.unwrap_or("JWT").to_ascii_lowercase();
        match typ.strip_prefix("application/").unwrap_or(&typ) {
            "jwt" => Some(TokenType::Jwt),
            "at+jwt" => Some(TokenType::AccessToken),
            _ => None,
        }
    }
}

/// Where a caller's tenant comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TenantSource {
    Fixed(Name),
    Claim(ClaimPath),
}

/// Which claim: the name of one at the top, or, with a slash in front, a JSON pointer (RFC 6901) such as
/// `/realm_access/roles`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClaimPath(String);

impl ClaimPath {
    pub(super) fn find<'a>(&self, claims: &'a Value) -> Option<&'a Value> {
        if self.0.starts_with('/') {
            claims.pointer(&self.0)
        } else {
            claims.get(&self.0)
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a record describes no issuer. Each says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// A URL cannot be taken.
    #[error("`{setting}` {problem}")]
    Url {
        /// Which.
        setting: &'static str,
        /// Why.
        problem: EndpointError,
    },
    /// An issuer on this host over plain HTTP, or one on another over HTTPS, has its keys the other way.
    #[error("`jwks_url` must be `https` where `url` is")]
    InsecureKeys,
    /// The root is no certificate.
    #[error("`root_certificate` is not one CA certificate in DER")]
    Root,
    /// A list is empty or too long, or has the same twice.
    #[error("`{setting}` must list {least} to {most} different values")]
    Count {
        /// Which.
        setting: &'static str,
        /// The fewest.
        least: usize,
        /// The most.
        most: usize,
    },
    /// A text is too long or has characters that cannot be in it.
    #[error(
        "`{setting}` must have 1 to 256 characters, none of them a control character, and in a scope no space"
    )]
    Text {
        /// Which.
        setting: &'static str,
    },
    /// An algorithm cannot be pinned: unknown, `none`, or an HMAC.
    #[error(
        "`algorithms` must be of ES256, ES384, EdDSA, RS256, RS384, RS512, PS256, PS384, PS512; unsigned tokens and shared secrets are never taken"
    )]
    Algorithm,
    /// A token type is not known.
    #[error("`token_types` must be of `JWT` and `at+jwt`")]
    TokenType,
    /// Not exactly one of the two.
    #[error("set one of `tenant` and `tenant_claim`")]
    TenantSource,
    /// The fixed tenant is not among the tenants.
    #[error("`tenant` must be one of `tenants`")]
    TenantNotListed,
    /// A name is not in the grammar.
    #[error("`{setting}`: {problem}")]
    Name {
        /// Which.
        setting: &'static str,
        /// Why.
        problem: NameError,
    },
    /// The rule is not known.
    #[error("`name_rule` must be `exact` or `escape`")]
    NameRule,
    /// The highest role is none that there is.
    #[error("`ceiling` must be the name of a role")]
    Ceiling,
    /// More than 120 s.
    #[error("`leeway_seconds` must be at most 120")]
    Leeway,
    /// Less than a minute or more than a week.
    #[error("`max_age_seconds` must be 60 to 604800")]
    MaxAge,
    /// It does not fit in a record.
    #[error(
        "the issuer takes more than 4,055 bytes: leave scopes or tenants out, or name a smaller root certificate"
    )]
    TooLarge,
    /// The record was written by another version.
    #[error(
        "the record `{store_key}` cannot be read by this version: start the version that wrote it"
    )]
    UnknownRecord {
        /// The record's store key.
        store_key: String,
    },
    /// Two issuers have the same URL, and a token would not say whose it is.
    #[error("the issuer `{other}` has the same URL")]
    DuplicateUrl {
        /// The other's name.
        other: Name,
    },
}

impl Issuer {
    /// Checks what an operator says of the issuer `name`.
    ///
    /// # Errors
    /// [`IssuerError`] with the first setting that is wrong.
    pub fn new(name: Name, record: IssuerRecord) -> Result<Issuer, IssuerError> {
        let url = Endpoint::parse_issuer(&record.url).map_err(url_error("url"))?;
        url.discovery().map_err(url_error("url"))?;
        let jwks_url = (!record.jwks_url.is_empty())
            .then(|| Endpoint::parse(&record.jwks_url).map_err(url_error("jwks_url")))
            .transpose()?;
        if jwks_url
            .as_ref()
            .is_some_and(|keys| keys.is_tls() != url.is_tls())
        {
            return Err(IssuerError::InsecureKeys);
        }
        texts("audiences", &record.audiences, 1, MAX_VALUES)?;
        texts("acr_values", &record.acr_values, 0, MAX_VALUES)?;
        texts("amr_values", &record.amr_values, 0, MAX_VALUES)?;
        let tenants = names("tenants", &record.tenants)?;
        let issuer = Issuer {
            jwks_url,
            root: root(&record.root_certificate)?,
            algorithms: algorithms(&record.algorithms)?,
            types: types(&record.token_types)?,
            tenant: tenant_source(&record, &tenants)?,
            name_claim: claim("name_claim", &record.name_claim)?.unwrap_or(ClaimPath("sub".into())),
            name_rule: NameRule::parse(&record.name_rule).ok_or(IssuerError::NameRule)?,
            groups_claim: claim("groups_claim", &record.groups_claim)?,
            scope_claim: claim("scope_claim", &record.scope_claim)?
                .unwrap_or(ClaimPath("scope".into())),
            scopes: scopes(&record)?,
            ceiling: Role::parse(&record.ceiling).ok_or(IssuerError::Ceiling)?,
            leeway: leeway(&record)?,
            max_age: max_age(&record)?,
            generation: 0,
            name,
            url,
            tenants,
            record,
        };
        if issuer.record.encode_payload().len() > MAX_RECORD_BYTES {
            return Err(IssuerError::TooLarge);
        }
        Ok(issuer)
    }

    /// Reads the record that is stored under `store_key`.
    ///
    /// # Errors
    /// It is not one that this version writes.
    pub fn decode(store_key: &str, payload: &[u8]) -> Result<Issuer, IssuerError> {
        let unknown = || IssuerError::UnknownRecord {
            store_key: store_key.to_owned(),
        };
        let name = name_of_key(store_key).ok_or_else(unknown)?;
        let name = Name::parse(name).map_err(|_| unknown())?;
        let record = IssuerRecord::decode_payload(payload).ok_or_else(unknown)?;
        Issuer::new(name, record).map_err(|_| unknown())
    }

    /// The same issuer, as the store has it under this generation of its record.
    #[must_use]
    pub fn with_generation(self, generation: u64) -> Issuer {
        Issuer { generation, ..self }
    }

    /// Which generation of its record this is; 0: none yet.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The name that the operator gave it.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What the operator said, as it is stored.
    pub fn record(&self) -> &IssuerRecord {
        &self.record
    }

    /// The URL that the claim `iss` must be.
    pub fn url(&self) -> &Endpoint {
        &self.url
    }

    /// Where its keys are, if not where its discovery document says.
    pub(super) fn jwks_url(&self) -> Option<&Endpoint> {
        self.jwks_url.as_ref()
    }

    /// The one root that its TLS certificate must descend from.
    pub(super) fn root(&self) -> Option<&CertificateDer<'static>> {
        self.root.as_ref()
    }

    /// The pinned algorithms.
    pub(super) fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// Whether it issues tokens of this type.
    pub(super) fn takes(&self, typ: TokenType) -> bool {
        self.types.contains(&typ)
    }

    /// The audiences one of which a token must be for.
    pub(super) fn audiences(&self) -> &[String] {
        &self.record.audiences
    }

    pub(super) fn tenant_source(&self) -> &TenantSource {
        &self.tenant
    }

    /// The tenants that it may vouch for, at least one.
    pub fn tenants(&self) -> &[Name] {
        &self.tenants
    }

    /// The tenant with this name, if the issuer may vouch for it.
    pub(super) fn tenant(&self, name: &str) -> Option<&Name> {
        self.tenants.iter().find(|tenant| tenant.as_str() == name)
    }

    pub(super) fn name_claim(&self) -> &ClaimPath {
        &self.name_claim
    }

    pub(super) fn name_rule(&self) -> NameRule {
        self.name_rule
    }

    pub(super) fn groups_claim(&self) -> Option<&ClaimPath> {
        self.groups_claim.as_ref()
    }

    pub(super) fn scope_claim(&self) -> &ClaimPath {
        &self.scope_claim
    }

    /// The groups of a scope.
    pub(super) fn groups_of_scope<'a>(&'a self, scope: &'a str) -> impl Iterator<Item = &'a Name> {
        let of_scope = move |(known, group): &'a (String, Name)| (known == scope).then_some(group);
        self.scopes.iter().filter_map(of_scope)
    }

    /// Whether this value of `acr` means a second factor.
    pub(super) fn is_second_factor_class(&self, acr: &str) -> bool {
        self.record.acr_values.iter().any(|value| value == acr)
    }

    /// Whether this element of `amr` means a second factor.
    pub(super) fn is_second_factor_method(&self, amr: &str) -> bool {
        self.record.amr_values.iter().any(|value| value == amr)
    }

    /// The most that its callers may do, whatever is granted to them.
    pub fn ceiling(&self) -> Ceiling {
        Ceiling {
            cross_tenant: self.record.cross_tenant,
            actions: self.ceiling.actions(),
        }
    }

    /// By how much its clock may differ, seconds.
    pub(super) fn leeway(&self) -> u64 {
        self.leeway
    }

    /// How long after its issue a token is taken, seconds.
    pub(super) fn max_age(&self) -> u64 {
        self.max_age
    }
}
