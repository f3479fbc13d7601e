//! A CA of the tests' own, and what it signs.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fieldkeep_client::{Client, ClientBuilder};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd,
};
use rustls::{RootCertStore, ServerConfig, crypto::ring, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

/// A CA with which servers and clients of one test trust each other.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its private key, PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn make() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        Identity {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    pub(crate) fn client(&self) -> Identity {
        self.sign(&client_params())
    }

    /// One whose certificate is due to be renewed: of its 15 minutes, less than two are left.
    pub(crate) fn due_client(&self) -> Identity {
        let now_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let at = |s| date_time_ymd(1970, 1, 1) + Duration::from_secs(s);
        let mut params = client_params();
        // The service begins certificates 300 seconds in the past.
        params.not_before = at(now_s - 800 - 300);
        params.not_after = at(now_s + 100);
        self.sign(&params)
    }

    pub(crate) fn expired_client(&self) -> Identity {
        let mut params = client_params();
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.sign(&params)
    }

    /// A server's side of TLS: a certificate for `host`, and clients that this CA signed.
    pub(crate) fn server_config(&self, host: &str, protocols: &[&[u8]]) -> Arc<ServerConfig> {
        self.server_config_of(&server_params(host), protocols)
    }

    /// The same with a certificate that ended long ago.
    pub(crate) fn expired_server_config(&self, host: &str) -> Arc<ServerConfig> {
        let mut params = server_params(host);
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.server_config_of(&params, &[b"h2"])
    }

    fn server_config_of(
        &self,
        params: &CertificateParams,
        protocols: &[&[u8]],
    ) -> Arc<ServerConfig> {
        let identity = self.sign(params);
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap())
            .unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    /// The settings of a client of this CA.
    pub(crate) fn builder(&self, address: &str) -> ClientBuilder {
        self.builder_as(address, &self.client())
    }

    /// The settings of a client that trusts this CA and shows `identity`.
    pub(crate) fn builder_as(&self, address: &str, identity: &Identity) -> ClientBuilder {
        Client::builder()
            .address(address)
            .ca_pem(&self.pem)
            .identity_pem(&identity.certificate, &identity.key)
    }
}

fn server_params(host: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn client_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![SanType::URI(
        "spiffe://fieldkeep/tenant/default/app".try_into().unwrap(),
    )];
    params
}
