//! The messages of `CertificateService`.

use fieldkeep_crypto::names::Name;
use fieldkeep_proto::v1::revoke_certificate_request::What;
use fieldkeep_proto::v1::{
    AddCaRequest, CaRoot, CreateJoinTokenRequest, CreateJoinTokenResponse, EnrollRequest,
    EnrollResponse, ListCasRequest, ListCasResponse, ListRevocationsRequest,
    ListRevocationsResponse, RemoveCaRequest, RemoveCaResponse, RenewCertificateRequest,
    Revocation, RevokeCertificateRequest, RevokeCertificateResponse,
};
use prost_types::Timestamp;

use super::access::identity;
use super::admin::{repeatable, timestamp};
use super::{page, parent, tenant_name, token};
use crate::access::certificates::{self, MAX_TENANTS, RevokedNow};
use crate::access::join::JoinToken;
use crate::access::revocation::{self, Revoked};
use crate::access::role::Role;
use crate::access::trust::Binding;
use crate::config::is_trust_domain;
use crate::service::certificates::{AddCa, ListCas, ListRevocations, RemoveCa, Revoke, Target};
use crate::service::enroll::{CreateJoinToken, CreatedToken, Enroll, Enrolled, RenewCertificate};
use crate::service::failure::Failure;
use crate::service::keys::Listed;
use crate::service::resource::tenant_resource;

/// What a CreateJoinToken asks for.
///
/// # Errors
/// The part that is not valid; so for every request of this module.
pub fn create_join_token(request: CreateJoinTokenRequest) -> Result<CreateJoinToken, Failure> {
    Ok(CreateJoinToken {
        identity: identity("identity", &request.identity)?,
        ttl_s: request.ttl_seconds,
    })
}

/// A token, shown once.
#[must_use]
pub fn created_token(created: CreatedToken) -> CreateJoinTokenResponse {
    CreateJoinTokenResponse {
        token: created.made.token.to_text().to_string(),
        identity: created.identity.to_string(),
        expire_time: timestamp(created.made.expires),
        ca_fingerprint: created.ca_fingerprint,
    }
}

/// What an Enroll asks for.
///
/// # Errors
/// As [`create_join_token`].
pub fn enroll(request: EnrollRequest) -> Result<Enroll, Failure> {
    let token = JoinToken::parse(&request.token)
        .map_err(|error| Failure::invalid("token", error.to_string()))?;
    Ok(Enroll {
        token,
        csr_der: request.csr_der,
    })
}

/// The first certificate of a workload.
#[must_use]
pub fn enrolled(enrolled: Enrolled) -> EnrollResponse {
    EnrollResponse {
        identity: enrolled.identity.to_string(),
        certificate_pem: enrolled.issued.certificate_pem,
        ca_pem: enrolled.issued.ca_pem,
        expire_time: Some(Timestamp {
            seconds: enrolled.issued.not_after,
            nanos: 0,
        }),
    }
}

/// What a RenewCertificate asks for.
///
/// # Errors
/// As [`create_join_token`].
pub fn renew(request: RenewCertificateRequest) -> Result<RenewCertificate, Failure> {
    Ok(RenewCertificate {
        csr_der: request.csr_der,
        ttl_s: request.ttl_seconds,
    })
}

/// What a RevokeCertificate asks for.
///
/// # Errors
/// As [`create_join_token`].
pub fn revoke(request: RevokeCertificateRequest) -> Result<Revoke, Failure> {
    let named = match request.tenant.as_str() {
        "" => None,
        text => Some(tenant_name("tenant", text)?),
    };
    let request_id = repeatable(&request.request_id, &request)?;
    let (tenant, target) = match request.what {
        Some(What::Serial(serial)) => (named, Target::Serial(serial)),
        Some(What::Identity(text)) => {
            let one = identity("identity", &text)?;
            (one.tenant.or(named), Target::Identity(one.name))
        }
        None => {
            return Err(Failure::invalid(
                "what",
                "neither a serial number nor an identity",
            ));
        }
    };
    Ok(Revoke {
        tenant,
        target,
        request: request_id,
    })
}

/// What was revoked.
#[must_use]
pub fn revoked(revoked: RevokedNow) -> RevokeCertificateResponse {
    RevokeCertificateResponse {
        revocation: Some(revocation(&revoked.revocation)),
        connections_ended: u32::try_from(revoked.connections).unwrap_or(u32::MAX),
    }
}

fn revocation(one: &revocation::Revocation) -> Revocation {
    let (serial, identity) = match &one.what {
        Revoked::Serial { serial, .. } => (serial.to_string(), String::new()),
        Revoked::Identity(identity) => (String::new(), identity.to_string()),
    };
    Revocation {
        serial,
        tenant: tenant_resource(one.what.tenant().as_str()),
        identity,
        revoke_time: timestamp(one.time),
        revoked_by: one.by.to_string(),
    }
}

/// What a ListRevocations asks for.
///
/// # Errors
/// As [`create_join_token`].
pub fn list_revocations(request: ListRevocationsRequest) -> Result<ListRevocations, Failure> {
    Ok(ListRevocations {
        tenant: parent(&request.parent)?,
        page: page(request.page_size, &request.page_token)?,
    })
}

/// A page of revocations.
#[must_use]
pub fn revocations(listed: Listed<(String, revocation::Revocation)>) -> ListRevocationsResponse {
    let entries = listed.entries.iter();
    ListRevocationsResponse {
        revocations: entries.map(|(_, one)| revocation(one)).collect(),
        next_page_token: token(listed.next),
    }
}

/// What an AddCa asks for.
///
/// # Errors
/// As [`create_join_token`].
pub fn add_ca(request: AddCaRequest) -> Result<AddCa, Failure> {
    let repeatable = repeatable(&request.request_id, &request)?;
    if !is_trust_domain(&request.trust_domain) {
        return Err(Failure::invalid(
            "trust_domain",
            "not a trust domain: 1 to 255 of the letters `a-z`, digits, `.`, `-` and `_`",
        ));
    }
    if request.tenants.is_empty() || request.tenants.len() > MAX_TENANTS {
        return Err(Failure::invalid(
            "tenants",
            format!(
                "a CA is bound to 1 to {MAX_TENANTS} tenants, not {}",
                request.tenants.len()
            ),
        ));
    }
    let mut tenants = Vec::with_capacity(request.tenants.len());
    for text in &request.tenants {
        let tenant = tenant_name("tenants", text)?;
        if !tenants.contains(&tenant) {
            tenants.push(tenant);
        }
    }
    let ceiling = Role::parse(&request.ceiling)
        .ok_or_else(|| Failure::invalid("ceiling", "not the name of a role"))?;
    Ok(AddCa {
        binding: Binding {
            name: ca_name(&request.name)?,
            trust_domain: request.trust_domain,
            tenants,
            ceiling,
        },
        certificate_pem: request.certificate_pem,
        request: repeatable,
    })
}

/// A CA that was added.
#[must_use]
pub fn ca(root: certificates::CaRoot) -> CaRoot {
    let Binding {
        name,
        trust_domain,
        tenants,
        ceiling,
    } = root.binding;
    let tenants = tenants
        .iter()
        .map(|tenant| tenant_resource(tenant.as_str()));
    CaRoot {
        name: name.as_str().to_owned(),
        certificate_pem: root.certificate_pem,
        trust_domain,
        tenants: tenants.collect(),
        ceiling: ceiling.as_str().to_owned(),
        create_time: timestamp(root.created),
        created_by: root.created_by.to_string(),
    }
}

/// What a ListCas asks for.
///
/// # Errors
/// Never.
pub fn list_cas(_: ListCasRequest) -> Result<ListCas, Failure> {
    Ok(ListCas)
}

/// All CAs that were added.
#[must_use]
pub fn cas(roots: Vec<certificates::CaRoot>) -> ListCasResponse {
    ListCasResponse {
        cas: roots.into_iter().map(ca).collect(),
    }
}

/// What a RemoveCa asks for.
///
/// # Errors
/// As [`create_join_token`].
pub fn remove_ca(request: RemoveCaRequest) -> Result<RemoveCa, Failure> {
    Ok(RemoveCa {
        name: ca_name(&request.name)?,
        request: repeatable(&request.request_id, &request)?,
    })
}

/// What the removal did.
#[must_use]
pub fn removed_ca(connections: usize) -> RemoveCaResponse {
    RemoveCaResponse {
        connections_ended: u32::try_from(connections).unwrap_or(u32::MAX),
    }
}

fn ca_name(text: &str) -> Result<Name, Failure> {
    Name::parse(text).map_err(|error| Failure::invalid("name", error.to_string()))
}
