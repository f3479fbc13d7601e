//! A CA whose certificates are accepted, and what it may vouch for.

use std::{fmt, sync::Arc, time::Duration};

use fieldkeep_crypto::names::Name;
use rustls::{
    RootCertStore,
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Credential;
use crate::access::{
    ca::BACKDATE_S,
    principal::{Ceiling, PrincipalError, principal_from_certificate},
    role::Role,
};

/// What a CA of others may vouch for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The CA's name here.
    pub name: Name,
    /// The trust domain of its identities, which is not the service's own.
    pub trust_domain: String,
    /// The tenants whose identities it may name; never none.
    pub tenants: Vec<Name>,
    /// The highest role that its identities can use.
    pub ceiling: Role,
}

/// Why a certificate cannot be a root.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// It cannot be parsed.
    #[error("the certificate cannot be parsed")]
    Malformed,
    /// It is not one of a CA.
    #[error("the certificate is not one of a CA (`basicConstraints CA:TRUE`)")]
    NotCa,
    /// It cannot verify others.
    #[error("the certificate cannot verify others: {0}")]
    Verifier(#[from] VerifierBuilderError),
    /// It is not usable as a trust anchor.
    #[error("the certificate cannot be trusted: {0}")]
    Anchor(#[from] rustls::Error),
}

/// Why a verified certificate names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// It is not of the form.
    #[error(transparent)]
    Principal(#[from] PrincipalError),
    /// Its CA may not vouch for the tenant.
    #[error("the CA of the certificate is not bound to the tenant that it names")]
    Tenant,
}

/// A CA whose certificates are accepted. Each has a verifier of its own, so that it is known in which one a chain ends.
pub struct Root {
    /// `None`: the built-in CA, which may vouch for every tenant.
    binding: Option<Binding>,
    trust_domain: String,
    not_after: i64,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root")
            .field("binding", &self.binding)
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive()
    }
}

impl Root {
    /// The built-in CA.
    ///
    /// # Errors
    /// Its certificate cannot verify others.
    pub fn built_in(ca: &CertificateDer<'_>, trust_domain: &str) -> Result<Root, RootError> {
        Root::new(ca, None, trust_domain.to_owned())
    }

    /// A CA of others.
    ///
    /// # Errors
    /// The certificate is not one of a CA, or cannot verify others.
    pub fn external(ca: &CertificateDer<'_>, binding: Binding) -> Result<Root, RootError> {
        let trust_domain = binding.trust_domain.clone();
        Root::new(ca, Some(binding), trust_domain)
    }

    fn new(
        ca: &CertificateDer<'_>,
        binding: Option<Binding>,
        trust_domain: String,
    ) -> Result<Root, RootError> {
        let (rest, parsed) = X509Certificate::from_der(ca).map_err(|_| RootError::Malformed)?;
        if !rest.is_empty() {
            return Err(RootError::Malformed);
        }
        if !parsed.is_ca() {
            return Err(RootError::NotCa);
        }
        let not_after = parsed.validity().not_after.timestamp();
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Root {
            binding,
            trust_domain,
            not_after,
            verifier,
        })
    }

    /// Its name; `None`: the built-in CA.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        self.binding.as_ref().map(|binding| &binding.name)
    }

    /// When it ends, Unix seconds.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// The verifier of chains that end in this CA.
    pub(super) fn verifier(&self) -> &dyn ClientCertVerifier {
        self.verifier.as_ref()
    }

    /// Checks that a chain ends in this CA, is of its time and for clients. `now` is in Unix seconds.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: u64,
    ) -> Result<(), rustls::Error> {
        // A root's own end is not looked at by whoever anchors in it (RFC 5280, section 6.1.1).
        if i64::try_from(now).unwrap_or(i64::MAX) > self.not_after {
            return Err(rustls::CertificateError::Expired.into());
        }
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        self.verifier
            .verify_client_cert(leaf, intermediates, now)
            .map(drop)
    }

    /// Whom a certificate names whose chain ends in this CA. A CA of others names identities of its own trust domain and of
    /// its tenants alone: what it says of any other is a forgery.
    ///
    /// # Errors
    /// See [`CredentialError`].
    pub(super) fn credential(&self, leaf: &[u8]) -> Result<Credential, CredentialError> {
        let mut principal = principal_from_certificate(leaf, &self.trust_domain)?;
        let not_before = not_before(leaf)?;
        principal.not_after = principal.not_after.min(self.not_after);
        let Some(binding) = &self.binding else {
            return Ok(Credential {
                principal,
                issued_at: not_before.saturating_add(BACKDATE_S),
                root: None,
            });
        };
        if !binding.tenants.contains(&principal.tenant) {
            return Err(CredentialError::Tenant);
        }
        principal.ceiling = Ceiling {
            cross_tenant: false,
            actions: binding.ceiling.actions(),
        };
        // Two CAs may give the same number.
        let serial = format!("{}.{}", binding.name, principal.credential);
        principal.credential = serial.into();
        Ok(Credential {
            principal,
            issued_at: not_before,
            root: Some(binding.name.clone()),
        })
    }
}

fn not_before(leaf: &[u8]) -> Result<u64, PrincipalError> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| PrincipalError::Malformed)?;
    Ok(u64::try_from(parsed.validity().not_before.timestamp()).unwrap_or(0))
}
