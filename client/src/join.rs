//! The first certificate of a new workload, for a one-time join token.

use std::{io, path::Path, sync::Arc};

use fieldkeep_proto::v1;
use ring::digest::{SHA256, digest};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring as ring_provider},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use zeroize::Zeroizing;

use crate::{
    Client, ClientBuilder, ConfigError, Error,
    config::parse_address,
    identity::{Part, Source},
    keep::replace_pair,
    pool::Pool,
    request::NewKey,
};

/// By what a new workload knows the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceCa<'a> {
    /// The CA's certificate, PEM.
    Pem(&'a [u8]),
    /// SHA-256 of the CA's certificate (DER). The service sends that certificate along.
    Fingerprint([u8; 32]),
}

impl ServiceCa<'_> {
    /// Reads `sha256:` and 64 hexadecimal digits, as `fieldkeep cert join-token create` prints it; `None` if it is not that.
    ///
    /// ```
    /// use fieldkeep_client::ServiceCa;
    /// let pin = format!("sha256:{}", "0a".repeat(32));
    /// assert_eq!(ServiceCa::parse_pin(&pin), Some(ServiceCa::Fingerprint([10; 32])));
    /// assert_eq!(ServiceCa::parse_pin("0a0a"), None);
    /// ```
    pub fn parse_pin(text: &str) -> Option<ServiceCa<'static>> {
        let digits = text.strip_prefix("sha256:")?.as_bytes();
        let mut pin = [0; 32];
        if digits.len() != 2 * pin.len() {
            return None;
        }
        for (byte, pair) in pin.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(ServiceCa::Fingerprint(pin))
    }
}

/// The identity of a new workload.
pub struct Joined {
    /// `tenants/{tenant}/identities/{name}`.
    pub identity: String,
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM. It was made here and was never sent.
    pub key_pem: Zeroizing<String>,
    /// The CA's certificate, PEM.
    pub ca_pem: String,
    /// When the certificate ends, Unix seconds.
    pub expire_s: i64,
}

impl Joined {
    /// Writes the certificate and the private key to these files, in place of what is there. A crash on the way leaves a pair that
    /// a client of these files can use. The key is readable by its owner alone. The folders have to be there.
    ///
    /// # Errors
    /// A file could not be written, or another process is replacing the same files.
    ///
    /// ```no_run
    /// # fn example(joined: fieldkeep_client::Joined) -> std::io::Result<()> {
    /// joined.replace_files("identity/app.pem".as_ref(), "identity/app.key".as_ref())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn replace_files(&self, certificate: &Path, key: &Path) -> io::Result<()> {
        replace_pair(
            (certificate, self.certificate_pem.as_bytes()),
            (key, self.key_pem.as_bytes()),
        )
    }
}

/// Makes a private key and gets the first certificate for it, with a join token that is used up by that.
///
/// # Errors
/// The service cannot be reached or is not the one of `ca`, or the token is not valid: see [`Error`].
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use fieldkeep_client::{ServiceCa, join};
/// let ca = ServiceCa::parse_pin("sha256:…").ok_or("no fingerprint")?;
/// let joined = join("https://keys.example.org:7420", ca, "fkj_…").await?;
/// println!("I am {}", joined.identity);
/// # Ok(())
/// # }
/// ```
pub async fn join(address: &str, ca: ServiceCa<'_>, token: &str) -> Result<Joined, Error> {
    let address = parse_address(address)?;
    let pool = Pool::anonymous(address, Arc::new(tls_config(ca)?))?;
    let client = Client::new(ClientBuilder::default().settings(), pool, None);
    let new = NewKey::make().map_err(|_| Error::Random)?;
    let request = v1::EnrollRequest {
        token: token.to_owned(),
        csr_der: new.csr_der.into(),
    };
    let path = "/fieldkeep.v1.CertificateService/Enroll";
    let reply: v1::EnrollResponse = client.unary(path, request, client.plan()).await?;
    check_ca(ca, &reply.ca_pem)?;
    Ok(Joined {
        identity: reply.identity,
        certificate_pem: reply.certificate_pem,
        key_pem: new.key_pem,
        ca_pem: reply.ca_pem,
        expire_s: reply.expire_time.map_or(0, |time| time.seconds),
    })
}

/// The CA that is told for the future is the one that was known before.
fn check_ca(ca: ServiceCa<'_>, told: &str) -> Result<(), Error> {
    let other = Error::Reply {
        what: "the service named another CA than the one that it was known by",
    };
    let Ok(der) = CertificateDer::from_pem_slice(told.as_bytes()) else {
        return Err(other);
    };
    let is_same = match ca {
        ServiceCa::Fingerprint(pin) => digest(&SHA256, &der).as_ref() == pin,
        ServiceCa::Pem(pem) => {
            CertificateDer::pem_slice_iter(pem).any(|known| known.is_ok_and(|known| known == der))
        }
    };
    if is_same { Ok(()) } else { Err(other) }
}

/// TLS 1.3 without a client certificate.
fn tls_config(ca: ServiceCa<'_>) -> Result<ClientConfig, ConfigError> {
    let provider = Arc::new(ring_provider::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(ConfigError::Tls)?;
    let mut config = match ca {
        ServiceCa::Pem(pem) => {
            let source = Source::memory(pem);
            let mut roots = RootCertStore::empty();
            for root in source.certificates(Part::Ca, pem)? {
                roots.add(root).map_err(ConfigError::Tls)?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        ServiceCa::Fingerprint(pin) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { pin, provider }))
            .with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Verifies the service's certificate against the CA with a fingerprint, which the service sends along. Nothing else is less
/// strict than with the CA in a file: name, time and signatures are looked at by the same code.
#[derive(Debug)]
struct Pinned {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_pinned =
            |one: &&CertificateDer<'_>| digest(&SHA256, one.as_ref()).as_ref() == self.pin;
        let Some(root) = intermediates.iter().find(is_pinned) else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let provider = Arc::clone(&self.provider);
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
