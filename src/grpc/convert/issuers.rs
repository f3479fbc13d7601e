//! The messages of `IssuerService`.

use std::sync::Arc;

use fieldkeep_crypto::names::Name;
use fieldkeep_proto::v1;
use fieldkeep_proto::v1::{
    CheckTokenRequest, CheckTokenResponse, GetIssuerRequest, IssuerScope, ListIssuersRequest,
    ListIssuersResponse, RemoveIssuerRequest, SetIssuerRequest,
};
use prost_types::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::admin::{repeatable, timestamp};
use super::tenant_name;
use crate::access::jwt::{Issuer, IssuerRecord, ScopeGroup};
use crate::service::failure::Failure;
use crate::service::issuers::{
    CheckToken, CheckedToken, ListIssuers, RemoveIssuer, SetIssuer, ShowIssuer, Shown,
};
use crate::service::resource::tenant_resource;

const ROOT: &str = "root_certificate_pem";

/// What a SetIssuer asks for.
///
/// # Errors
/// The part that is not valid; so for every request of this module.
pub fn set(request: SetIssuerRequest) -> Result<SetIssuer, Failure> {
    let repeatable = repeatable(&request.request_id, &request)?;
    let issuer = request
        .issuer
        .ok_or_else(|| Failure::invalid("issuer", "there is none"))?;
    let name = issuer_name("name", &issuer.name)?;
    let issuer = Issuer::new(name, record(issuer)?)
        .map_err(|problem| Failure::invalid("issuer", problem.to_string()))?;
    Ok(SetIssuer {
        issuer,
        request: repeatable,
    })
}

/// What is stored of an issuer, but for when it was set and by whom.
fn record(issuer: v1::Issuer) -> Result<IssuerRecord, Failure> {
    let tenant = |part, text: &str| tenant_name(part, text).map(|name| name.as_str().to_owned());
    let tenants = issuer.tenants.iter().map(|text| tenant("tenants", text));
    let scopes = issuer.scopes.into_iter();
    Ok(IssuerRecord {
        tenants: tenants.collect::<Result<_, _>>()?,
        tenant: match issuer.tenant.as_str() {
            "" => String::new(),
            text => tenant("tenant", text)?,
        },
        root_certificate: root(&issuer.root_certificate_pem)?,
        scopes: scopes
            .map(|IssuerScope { scope, group }| ScopeGroup { scope, group })
            .collect(),
        url: issuer.url,
        jwks_url: issuer.jwks_url,
        audiences: issuer.audiences,
        algorithms: issuer.algorithms,
        token_types: issuer.token_types,
        tenant_claim: issuer.tenant_claim,
        name_claim: issuer.name_claim,
        name_rule: issuer.name_rule,
        groups_claim: issuer.groups_claim,
        scope_claim: issuer.scope_claim,
        acr_values: issuer.acr_values,
        amr_values: issuer.amr_values,
        ceiling: issuer.ceiling,
        cross_tenant: issuer.cross_tenant,
        leeway_seconds: issuer.leeway_seconds,
        max_age_seconds: issuer.max_age_seconds,
        created: 0,
        created_by: String::new(),
    })
}

/// The one certificate of a PEM text, DER; nothing of an empty one.
fn root(pem: &str) -> Result<Vec<u8>, Failure> {
    if pem.is_empty() {
        return Ok(Vec::new());
    }
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    match found.as_deref() {
        Ok([certificate]) => Ok(certificate.to_vec()),
        _ => Err(Failure::invalid(ROOT, "not one certificate in PEM")),
    }
}

/// An issuer that was set.
#[must_use]
pub fn was_set(issuer: Arc<Issuer>) -> v1::Issuer {
    shown(Shown::whole(issuer))
}

/// An issuer.
#[must_use]
pub fn shown(shown: Shown) -> v1::Issuer {
    let record = shown.issuer.record().clone();
    let tenants = shown.tenants.iter().map(Name::as_str);
    let is_seen = shown
        .tenants
        .iter()
        .any(|tenant| tenant.as_str() == record.tenant);
    let scopes = record.scopes.into_iter();
    v1::Issuer {
        name: shown.issuer.name().as_str().to_owned(),
        tenant: if is_seen {
            tenant_resource(&record.tenant)
        } else {
            String::new()
        },
        tenants: tenants.map(tenant_resource).collect(),
        root_certificate_pem: pem(&record.root_certificate),
        scopes: scopes
            .map(|ScopeGroup { scope, group }| IssuerScope { scope, group })
            .collect(),
        url: record.url,
        jwks_url: record.jwks_url,
        audiences: record.audiences,
        algorithms: record.algorithms,
        token_types: record.token_types,
        tenant_claim: record.tenant_claim,
        name_claim: record.name_claim,
        name_rule: record.name_rule,
        groups_claim: record.groups_claim,
        scope_claim: record.scope_claim,
        acr_values: record.acr_values,
        amr_values: record.amr_values,
        ceiling: record.ceiling,
        cross_tenant: record.cross_tenant,
        leeway_seconds: record.leeway_seconds,
        max_age_seconds: record.max_age_seconds,
        set_time: timestamp(record.created),
        set_by: record.created_by,
    }
}

/// A certificate in PEM (RFC 7468): 64 characters a line.
fn pem(der: &[u8]) -> String {
    if der.is_empty() {
        return String::new();
    }
    let base64 = data_encoding::BASE64.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = next;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// What a GetIssuer asks for.
///
/// # Errors
/// As [`set`].
pub fn get(request: GetIssuerRequest) -> Result<ShowIssuer, Failure> {
    Ok(ShowIssuer {
        name: issuer_name("name", &request.name)?,
    })
}

/// What a ListIssuers asks for.
///
/// # Errors
/// Never.
pub fn list(_: ListIssuersRequest) -> Result<ListIssuers, Failure> {
    Ok(ListIssuers)
}

/// The issuers.
#[must_use]
pub fn listed(issuers: Vec<Shown>) -> ListIssuersResponse {
    ListIssuersResponse {
        issuers: issuers.into_iter().map(shown).collect(),
    }
}

/// What a RemoveIssuer asks for.
///
/// # Errors
/// As [`set`].
pub fn remove(request: RemoveIssuerRequest) -> Result<RemoveIssuer, Failure> {
    Ok(RemoveIssuer {
        name: issuer_name("name", &request.name)?,
        request: repeatable(&request.request_id, &request)?,
    })
}

/// What a CheckToken asks for.
///
/// # Errors
/// As [`set`].
pub fn check(request: CheckTokenRequest) -> Result<CheckToken, Failure> {
    let token = Zeroizing::new(request.token);
    Ok(CheckToken {
        issuer: issuer_name("issuer", &request.issuer)?,
        token,
    })
}

/// What a token says.
#[must_use]
pub fn checked(checked: CheckedToken) -> CheckTokenResponse {
    let looked = CheckTokenResponse {
        keys: u32::try_from(checked.keys).unwrap_or(u32::MAX),
        fetch_problem: checked
            .fetch_problem
            .map(|problem| problem.as_ref().to_owned())
            .unwrap_or_default(),
        ..CheckTokenResponse::default()
    };
    match checked.outcome {
        None => looked,
        Some(Ok(principal)) => CheckTokenResponse {
            accepted: true,
            identity: principal.resource.as_ref().to_owned(),
            groups: principal.groups.iter().map(ToString::to_string).collect(),
            second_factor: principal.second_factor,
            expire_time: Some(Timestamp {
                seconds: principal.not_after,
                nanos: 0,
            }),
            ..looked
        },
        Some(Err(error)) => CheckTokenResponse {
            rule: error.rule().to_owned(),
            message: error.to_string(),
            ..looked
        },
    }
}

fn issuer_name(part: &'static str, text: &str) -> Result<Name, Failure> {
    Name::parse(text).map_err(|error| Failure::invalid(part, error.to_string()))
}
