//! What TLS asks about a client's certificate.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{Root, Trust};

/// Verifies client certificates by the state of a [`Trust`] at that moment: a CA that is added or removed counts from the
/// next handshake on.
///
/// A client may come without a certificate: so a new workload gets its first one. Every other call on such a connection
/// is refused, on record.
#[derive(Debug)]
pub struct ClientVerifier {
    trust: Arc<Trust>,
    /// For what is the same with every root: algorithms and handshake signatures.
    any: Arc<Root>,
}

impl ClientVerifier {
    /// A verifier by `trust`; `None` if that has no CA at all.
    #[must_use]
    pub fn new(trust: Arc<Trust>) -> Option<Arc<ClientVerifier>> {
        let any = Arc::clone(trust.state().roots().first()?);
        Some(Arc::new(ClientVerifier { trust, any }))
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None are named: the CAs may change while the list would be out already, and clients have one certificate.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(end_entity)
            .chain(intermediates)
            .cloned()
            .collect();
        self.trust
            .state()
            .authenticate(&chain, now.as_secs())
            .map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.any
            .verifier()
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.any
            .verifier()
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.any.verifier().supported_verify_schemes()
    }
}
