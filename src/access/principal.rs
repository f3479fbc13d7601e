//! Who a caller is: one identity, and the evidence that it is he.

use std::{fmt, sync::Arc};

use fieldkeep_crypto::{
    api_key::ApiKeyHash,
    names::{Name, NameError},
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME,
    prelude::FromDer as _,
};

use super::{action::ActionSet, api_key::format::ApiKeyId};

/// An identity: a name within a tenant. What it may do is what its grants say.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    tenant: Name,
    name: Name,
    resource: Arc<str>,
}

impl Identity {
    /// The identity `name` of `tenant`.
    pub fn new(tenant: Name, name: Name) -> Identity {
        let resource = format!("tenants/{tenant}/identities/{name}").into();
        Identity {
            tenant,
            name,
            resource,
        }
    }

    /// Parses `tenants/{tenant}/identities/{name}`, or `{name}`, which is in `own_tenant`.
    ///
    /// # Errors
    /// The text has neither form, or a name is not in the grammar.
    pub fn parse(text: &str, own_tenant: &Name) -> Result<Identity, IdentityError> {
        if !text.contains('/') {
            return Ok(Identity::new(own_tenant.clone(), Name::parse(text)?));
        }
        let rest = text.strip_prefix("tenants/").ok_or(IdentityError::Form)?;
        let (tenant, rest) = rest.split_once('/').ok_or(IdentityError::Form)?;
        let name = rest
            .strip_prefix("identities/")
            .ok_or(IdentityError::Form)?;
        Ok(Identity::new(Name::parse(tenant)?, Name::parse(name)?))
    }

    /// The tenant.
    pub fn tenant(&self) -> &Name {
        &self.tenant
    }

    /// The name within the tenant.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// `tenants/{tenant}/identities/{name}`.
    pub fn resource(&self) -> &Arc<str> {
        &self.resource
    }

    /// The SPIFFE id that the identity's certificate carries: `spiffe://{trust domain}/tenant/{tenant}/{name}`.
    pub fn spiffe_uri(&self, trust_domain: &str) -> String {
        format!(
            "spiffe://{trust_domain}/tenant/{}/{}",
            self.tenant, self.name
        )
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)
    }
}

/// Why a text is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It has neither of the two forms.
    #[error(
        "not an identity: write `tenants/TENANT/identities/NAME`, or `NAME` for one of your own tenant"
    )]
    Form,
    /// A group's name has neither of its two forms.
    #[error(
        "not a group: write `tenants/TENANT/groups/NAME`, or `NAME` for one of your own tenant"
    )]
    GroupForm,
    /// A name is not in the grammar.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// How a caller proved who he is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// A client certificate.
    Mtls,
    /// A signed token of an issuer.
    Jwt,
    /// An API key.
    ApiKey,
}

impl Method {
    /// Every method.
    pub const ALL: [Method; 3] = [Method::Mtls, Method::Jwt, Method::ApiKey];

    /// The method's name in grants and in the audit trail.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Mtls => "mtls",
            Method::Jwt => "jwt",
            Method::ApiKey => "api-key",
        }
    }

    /// The method of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Method> {
        Method::ALL
            .into_iter()
            .find(|method| method.as_str() == name)
    }
}

/// The most that a credential can be good for, whatever is granted: what its CA or issuer is trusted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// Whether grants that open another tenant count.
    pub cross_tenant: bool,
    /// The actions that grants can give.
    pub actions: ActionSet,
}

impl Ceiling {
    /// No ceiling: that of the built-in CA.
    pub const NONE: Ceiling = Ceiling {
        cross_tenant: true,
        actions: ActionSet::ALL,
    };
}

/// What has to be there still for a credential to count, beside that it has not ended: asked of the snapshot that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A certificate: how its connection stands says whether it counts.
    Certificate,
    /// A secret of an API key.
    ApiKey {
        /// The key.
        id: ApiKeyId,
        /// The keyed hash of the secret.
        hash: ApiKeyHash,
    },
    /// A token of an issuer.
    Token {
        /// The issuer's name.
        issuer: Name,
        /// Which of its records verified the token.
        generation: u64,
    },
}

/// The caller of one connection or one call, resolved once from his credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The tenant it belongs to.
    pub tenant: Name,
    /// Its name within the tenant.
    pub name: Name,
    /// `tenants/{tenant}/identities/{name}`.
    pub resource: Arc<str>,
    /// How it was authenticated.
    pub method: Method,
    /// What proved it, for the audit trail: the serial number of the certificate in hexadecimal without leading zeros, the
    /// issuer and the id of the token, or the id of the API key. Empty if nothing is known of it.
    pub credential: Arc<str>,
    /// When the credential ends, Unix seconds; checked on every call, since a connection may outlive it.
    pub not_after: i64,
    /// What has to be there still for the credential to count.
    pub proof: Proof,
    /// Groups that the credential itself vouches for, `tenants/{tenant}/groups/{name}`, beside those that the store has.
    pub groups: Arc<[Arc<str>]>,
    /// Whether a second factor was given.
    pub second_factor: bool,
    /// The most that the credential can be good for.
    pub ceiling: Ceiling,
}

impl Principal {
    /// The principal of an identity whose certificate of the built-in CA ends at `not_after`, Unix seconds.
    pub fn new(identity: &Identity, not_after: i64) -> Principal {
        Principal {
            tenant: identity.tenant.clone(),
            name: identity.name.clone(),
            resource: Arc::clone(&identity.resource),
            method: Method::Mtls,
            credential: Arc::from(""),
            not_after,
            proof: Proof::Certificate,
            groups: Arc::from([]),
            second_factor: false,
            ceiling: Ceiling::NONE,
        }
    }

    /// The same principal with the serial number of its certificate, big-endian.
    #[must_use]
    pub fn with_serial(self, serial: &[u8]) -> Principal {
        Principal {
            credential: serial_text(serial).into(),
            ..self
        }
    }

    /// The principal's identity.
    pub fn identity(&self) -> Identity {
        Identity {
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            resource: Arc::clone(&self.resource),
        }
    }
}

/// A certificate's serial number, big-endian, as the audit trail writes it: hexadecimal without leading zero bytes.
pub(super) fn serial_text(serial: &[u8]) -> String {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    data_encoding::HEXLOWER.encode(serial.get(zeros..).unwrap_or_default())
}

/// Why a certificate names no principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrincipalError {
    /// It is not one X.509 certificate in DER.
    #[error("the certificate cannot be parsed")]
    Malformed,
    /// It is the certificate of a CA.
    #[error("the certificate is one of a CA, not of a client")]
    Ca,
    /// It has not exactly one name, a URI.
    #[error("the certificate has not exactly one subject alternative name, a URI")]
    NotOneUri,
    /// The URI names another trust domain.
    #[error("the certificate's identity is of another trust domain")]
    TrustDomain,
    /// The URI is not `spiffe://{trust domain}/tenant/{tenant}/{name}` with names in the grammar.
    #[error("the certificate's identity is not `spiffe://TRUST-DOMAIN/tenant/TENANT/NAME`")]
    Form,
}

/// The principal that a client's certificate names. The chain, the times and the key's possession have been verified by
/// TLS; this reads who it is, and refuses whatever is not exactly of the form that [`super::ca`] issues.
///
/// # Errors
/// See [`PrincipalError`].
pub fn principal_from_certificate(
    der: &[u8],
    trust_domain: &str,
) -> Result<Principal, PrincipalError> {
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|_| PrincipalError::Malformed)?;
    if !rest.is_empty() {
        return Err(PrincipalError::Malformed);
    }
    if certificate.is_ca() {
        return Err(PrincipalError::Ca);
    }
    let uri = only_uri(&certificate)?;
    let identity = identity_from_uri(uri, trust_domain)?;
    let not_after = certificate.validity().not_after.timestamp();
    Ok(Principal::new(&identity, not_after).with_serial(certificate.raw_serial()))
}

/// The certificate's one name. A second one of any kind, in this extension or another, would let two readers of the
/// certificate disagree on who it is.
fn only_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, PrincipalError> {
    let mut extensions = certificate
        .extensions()
        .iter()
        .filter(|extension| extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME);
    let (Some(extension), None) = (extensions.next(), extensions.next()) else {
        return Err(PrincipalError::NotOneUri);
    };
    let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
        return Err(PrincipalError::NotOneUri);
    };
    match names.general_names.as_slice() {
        [GeneralName::URI(uri)] => Ok(uri),
        _ => Err(PrincipalError::NotOneUri),
    }
}

/// The identity of a SPIFFE id. The comparison is of bytes: no case folding, no percent decoding, no normalisation.
fn identity_from_uri(uri: &str, trust_domain: &str) -> Result<Identity, PrincipalError> {
    let rest = uri.strip_prefix("spiffe://").ok_or(PrincipalError::Form)?;
    let (domain, path) = rest.split_once('/').ok_or(PrincipalError::Form)?;
    if domain != trust_domain {
        return Err(PrincipalError::TrustDomain);
    }
    let path = path.strip_prefix("tenant/").ok_or(PrincipalError::Form)?;
    let (tenant, name) = path.split_once('/').ok_or(PrincipalError::Form)?;
    let parse = |text| Name::parse(text).map_err(|_| PrincipalError::Form);
    Ok(Identity::new(parse(tenant)?, parse(name)?))
}

#[cfg(test)]
mod tests;
