//! TLS 1.3 with client certificates, and nothing else: no older version, no resumption (a resumed session would skip the
//! check of the certificate), no early data. A client without a certificate gets a connection on which one RPC is answered,
//! the one by which it gets its first; a certificate that does not verify gets none.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::access::trust::{ClientVerifier, Place, Trust};
use crate::service::Clock;
use crate::service::call::Peer;

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be read.
    #[error("cannot read `{}`: {source}; set `{setting}` to a PEM file that the service may read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The setting that names it.
        setting: &'static str,
        /// The cause.
        source: rustls_pki_types::pem::Error,
    },
    /// Others may read the private key.
    #[error("others may read the private key `{}`: run `chmod 600 {}`", path.display(), path.display())]
    KeyMode {
        /// The file.
        path: PathBuf,
    },
    /// The file has no certificate.
    #[error("`{}` has no certificate: set `{setting}` to a PEM file with one", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// The setting that names it.
        setting: &'static str,
    },
    /// The CA file is not this data directory's.
    #[error("`{}` is not the CA certificate of this data directory: clients that trust it will not trust this server; restore the file that `fieldkeep init` made", path.display())]
    ForeignCa {
        /// The file.
        path: PathBuf,
    },
    /// The certificate cannot be parsed.
    #[error("`{}` is not a certificate that can be used: {problem}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The certificate and the key are not a pair, or are of a kind that is not supported.
    #[error(
        "the server's certificate and private key cannot be used: {0}; they must be a pair, as `fieldkeep init` made them"
    )]
    Pair(rustls::Error),
    /// The certificate is not signed by the CA of the same configuration, or not of this time.
    #[error("`{}` does not verify against the CA file: {problem}", path.display())]
    Unverified {
        /// The CA file.
        path: PathBuf,
        /// Why.
        problem: rustls::Error,
    },
    /// There is no CA to verify clients by.
    #[error("there is no CA to verify clients by")]
    NoCa,
}

/// The server's own certificate and key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// When the certificate ends, Unix seconds.
    pub not_after_s: i64,
}

impl Identity {
    /// Reads certificate and key from PEM files. The key's file must be its owner's alone.
    ///
    /// # Errors
    /// The files cannot be read, are not PEM, or others may read the key.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = certificates(certificate, "tls.cert")?;
        let not_after_s = chain
            .first()
            .map_or(Ok(0), |first| not_after(first, certificate))?;
        let unreadable = |source| TlsError::File {
            path: key.to_owned(),
            setting: "tls.key",
            source,
        };
        let mode = fs::metadata(key)
            .map_err(|error| unreadable(rustls_pki_types::pem::Error::Io(error)))?;
        if mode.permissions().mode() & 0o077 != 0 {
            return Err(TlsError::KeyMode {
                path: key.to_owned(),
            });
        }
        let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable)?;
        Ok(Self {
            chain,
            key,
            not_after_s,
        })
    }

    /// Checks that clients which trust the certificates in `ca` will trust this one at `now_s`, Unix seconds.
    ///
    /// # Errors
    /// [`TlsError::Unverified`], or the file cannot be read.
    pub fn verify(&self, ca: &Path, now_s: u64) -> Result<(), TlsError> {
        let unverified = |problem| TlsError::Unverified {
            path: ca.to_owned(),
            problem,
        };
        let mut roots = rustls::RootCertStore::empty();
        for root in certificates(ca, "tls.ca")? {
            roots.add(root).map_err(unverified)?;
        }
        let Some((leaf, intermediates)) = self.chain.split_first() else {
            return Err(unverified(rustls::Error::NoCertificatesPresented));
        };
        let leaf = ParsedCertificate::try_from(leaf).map_err(unverified)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now_s));
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        verify_server_cert_signed_by_trust_anchor(&leaf, &roots, intermediates, now, algorithms.all)
            .map_err(unverified)
    }
}

/// Refuses a CA file whose first certificate is not `ca`, which the store has.
///
/// # Errors
/// [`TlsError::ForeignCa`], or the file cannot be read.
pub fn check_ca_file(path: &Path, ca: &CertificateDer<'_>) -> Result<(), TlsError> {
    match certificates(path, "tls.ca")?.first() {
        Some(first) if first.as_ref() == ca.as_ref() => Ok(()),
        _ => Err(TlsError::ForeignCa {
            path: path.to_owned(),
        }),
    }
}

fn certificates(
    path: &Path,
    setting: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::File {
        path: path.to_owned(),
        setting,
        source,
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(unreadable)?;
    if chain.is_empty() {
        return Err(TlsError::Empty {
            path: path.to_owned(),
            setting,
        });
    }
    Ok(chain)
}

fn not_after(certificate: &CertificateDer<'_>, path: &Path) -> Result<i64, TlsError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| TlsError::Certificate {
            path: path.to_owned(),
            problem: error.to_string(),
        })?;
    Ok(parsed.validity().not_after.timestamp())
}

/// The configuration of both gRPC listeners. A certificate of a client is verified by `trust`. The server's chain ends with
/// `ca`, its own CA, by whose fingerprint a workload that enrols knows it.
///
/// # Errors
/// The certificates or the key cannot be used.
pub fn server_config(
    trust: &Arc<Trust>,
    ca: &CertificateDer<'_>,
    mut identity: Identity,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = ClientVerifier::new(Arc::clone(trust)).ok_or(TlsError::NoCa)?;
    if !identity.chain.iter().any(|one| one == ca) {
        identity.chain.push(ca.clone().into_owned());
    }
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Pair)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain, identity.key)
        .map_err(TlsError::Pair)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Turns TCP connections into authenticated ones.
#[derive(Clone)]
pub struct Handshaker {
    config: Arc<ArcSwap<ServerConfig>>,
    trust: Arc<Trust>,
    timeout: Duration,
    age: Duration,
    clock: Arc<dyn Clock>,
}

/// Why a connection was not taken.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// TLS failed: an older version, no certificate, one of another CA, an expired one, or no TLS at all.
    #[error("{0}")]
    Tls(#[from] io::Error),
    /// It took too long.
    #[error("it took longer than {} s", .0.as_secs())]
    Timeout(Duration),
    /// What the client showed is not accepted any more since its handshake began.
    #[error("{0}")]
    Ended(#[from] rustls::Error),
    /// The client did not agree to HTTP/2.
    #[error("the client does not speak HTTP/2 (ALPN `h2`)")]
    Protocol,
}

impl Handshaker {
    /// A handshake may take `timeout`, and goes by what `config` is when it begins; clients are who `trust` says. A connection
    /// closes when it is `age` old, whatever the HTTP/2 server above makes of its age.
    #[must_use]
    pub fn new(
        config: Arc<ArcSwap<ServerConfig>>,
        trust: Arc<Trust>,
        timeout: Duration,
        age: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            config,
            trust,
            timeout,
            age,
            clock,
        }
    }

    /// Shakes hands, and resolves the peer once for the whole connection. `place` is dropped when the connection ends.
    ///
    /// # Errors
    /// [`HandshakeError`]; the connection is closed.
    pub async fn accept(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        place: Box<dyn Send>,
    ) -> Result<TlsConnection, HandshakeError> {
        let acceptor = TlsAcceptor::from(self.config.load_full());
        let stream = tokio::time::timeout(self.timeout, acceptor.accept(stream))
            .await
            .map_err(|_| HandshakeError::Timeout(self.timeout))??;
        let (_, session) = stream.get_ref();
        if session.alpn_protocol() != Some(b"h2") {
            return Err(HandshakeError::Protocol);
        }
        let chain = session.peer_certificates().unwrap_or_default();
        let now = self.clock.now_us() / 1_000_000;
        let close = now.saturating_add(self.age.as_secs());
        // Without a certificate, and with one of a known CA that names no identity, every call but Enroll is refused, on record.
        let (open, credential) = self.trust.enter(chain, close, now)?;
        let standing = Arc::clone(open.standing());
        let has_certificate = !chain.is_empty();
        let peer = Peer::of_connection(credential, has_certificate, standing, address);
        Ok(TlsConnection {
            stream,
            peer: Arc::new(peer),
            open,
            _place: place,
        })
    }
}

/// A connection whose handshake succeeded.
pub struct TlsConnection {
    stream: TlsStream<TcpStream>,
    peer: Arc<Peer>,
    open: Place,
    _place: Box<dyn Send>,
}

impl TlsConnection {
    /// Its other end.
    #[must_use]
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Fails when the connection has to close. Writing asks as reading does: HTTP/2 writes what it owes before it reads, so that
    /// with a client that reads nothing it would never come to reading. One task does both, which is woken.
    fn refuse_cut(&self, context: &Context<'_>) -> io::Result<()> {
        if self.open.standing().poll_cut(context) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.refuse_cut(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.refuse_cut(context)?;
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.refuse_cut(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.refuse_cut(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.refuse_cut(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
