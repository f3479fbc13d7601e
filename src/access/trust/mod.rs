//! Whose client certificates are accepted: the built-in CA's, those of CAs that were added, less what was revoked.
//!
//! All of it is one immutable state that is swapped as a whole. The state is asked twice for each connection: by TLS, and
//! once more when the connection has been entered among the open ones, so that no change falls between the two.

mod connections;
mod root;
#[cfg(test)]
mod tests;
mod verifier;

use std::sync::Arc;

use arc_swap::ArcSwap;
use fieldkeep_crypto::names::Name;
use rustls::CertificateError;
use rustls_pki_types::CertificateDer;

pub use self::{
    connections::{Connections, Ended, Place, Standing},
    root::{Binding, CredentialError, Root, RootError},
    verifier::ClientVerifier,
};
use super::{principal::Principal, revocation::Revocations};

/// How long a connection is kept that names nobody, seconds. Such a caller can enrol, which is one call; without this bound whoever
/// can reach the service could keep any number of connections open.
const NAMELESS_S: u64 = 60;

/// What a verified certificate says, and who vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Who.
    pub principal: Principal,
    /// When the certificate was issued, Unix seconds.
    pub issued_at: u64,
    /// The CA that vouches for it; `None`: the built-in one.
    pub root: Option<Name>,
}

/// Whose certificates are accepted at one moment.
#[derive(Debug)]
pub struct TrustState {
    /// The built-in CA and the others; never none.
    roots: Vec<Arc<Root>>,
    revocations: Arc<Revocations>,
}

impl TrustState {
    /// The CAs, and what was revoked.
    #[must_use]
    pub fn new(roots: Vec<Arc<Root>>, revocations: Arc<Revocations>) -> TrustState {
        TrustState { roots, revocations }
    }

    /// The CAs.
    #[must_use]
    pub fn roots(&self) -> &[Arc<Root>] {
        &self.roots
    }

    /// What was revoked.
    #[must_use]
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// Whose certificate the first of `chain` is. `Ok(None)`: a CA signed it, but it names nobody that this CA may name; its
    /// connection is served, and every call on it is refused on record. `now` is in Unix seconds.
    ///
    /// # Errors
    /// No CA vouches for it, or it was revoked: the handshake fails.
    pub fn authenticate(
        &self,
        chain: &[CertificateDer<'_>],
        now: u64,
    ) -> Result<Option<Credential>, rustls::Error> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        let mut failure = rustls::Error::from(CertificateError::UnknownIssuer);
        let mut nameless = None;
        for root in &self.roots {
            match root.verify(leaf, intermediates, now) {
                Ok(()) => match root.credential(leaf) {
                    Ok(credential) => {
                        let revoked = self.is_revoked(&credential);
                        if revoked {
                            return Err(CertificateError::Revoked.into());
                        }
                        return Ok(Some(credential));
                    }
                    Err(error) => nameless = Some(error),
                },
                // What is wrong with a certificate of a known CA says more than that other CAs do not know it.
                Err(rustls::Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature,
                )) => {}
                Err(error) => failure = error,
            }
        }
        match nameless {
            Some(error) => {
                tracing::debug!(%error, "a client certificate names no identity");
                Ok(None)
            }
            None => Err(failure),
        }
    }

    /// Whether a credential was revoked.
    #[must_use]
    pub fn is_revoked(&self, credential: &Credential) -> bool {
        let principal = &credential.principal;
        self.revocations.is_revoked(
            &principal.credential,
            &principal.identity(),
            credential.issued_at,
        )
    }
}

/// Whose certificates are accepted, and the connections that were made with them.
#[derive(Debug)]
pub struct Trust {
    state: ArcSwap<TrustState>,
    connections: Arc<Connections>,
}

impl Trust {
    /// Begins with `state`.
    #[must_use]
    pub fn new(state: TrustState) -> Arc<Trust> {
        Arc::new(Trust {
            state: ArcSwap::from_pointee(state),
            connections: Arc::default(),
        })
    }

    /// What is accepted now.
    #[must_use]
    pub fn state(&self) -> Arc<TrustState> {
        self.state.load_full()
    }

    /// The open connections.
    #[must_use]
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Takes another state, and refuses the calls of every connection that it would not accept any more. Says how many those
    /// are.
    pub fn publish(&self, state: TrustState) -> usize {
        let state = Arc::new(state);
        self.state.store(Arc::clone(&state));
        let revoked = self
            .connections
            .end_where(Ended::Revoked, |credential| state.is_revoked(credential));
        let removed = self.connections.end_where(Ended::CaRemoved, |credential| {
            let known = |root: &Arc<Root>| root.name() == credential.root.as_ref();
            !state.roots.iter().any(known)
        });
        revoked + removed
    }

    /// Enters the connection of a client whose handshake succeeded with `chain`, which is empty if it showed no certificate.
    /// It has to close at `close_s` at the latest, and within a minute if it names nobody and no call on it does; both times are in Unix
    /// seconds.
    ///
    /// # Errors
    /// The chain is not accepted any more.
    pub fn enter(
        &self,
        chain: &[CertificateDer<'_>],
        close_s: u64,
        now: u64,
    ) -> Result<(Place, Option<Arc<Credential>>), rustls::Error> {
        let nameless_s = close_s.min(now.saturating_add(NAMELESS_S));
        if chain.is_empty() {
            return Ok((self.connections.enter(None, close_s, nameless_s), None));
        }
        let before = self.state();
        let credential = before.authenticate(chain, now)?.map(Arc::new);
        let place = self
            .connections
            .enter(credential.clone(), close_s, nameless_s);
        // A change that was published before the place was taken has not seen it.
        let after = self.state();
        if let Some(credential) = &credential
            && !Arc::ptr_eq(&before, &after)
            && after.authenticate(chain, now)?.as_ref() != Some(credential)
        {
            place.end(Ended::CaRemoved);
        }
        Ok((place, credential))
    }
}
