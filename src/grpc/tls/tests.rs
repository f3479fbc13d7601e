use std::sync::Mutex;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use rustls::ClientConfig;
use rustls_pki_types::{PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use super::*;
use crate::access::trust::{Ended, Root, TrustState};
use crate::service::SystemClock;

struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its private key.
type Pair = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Authority {
    fn make() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn certificate(&self) -> &CertificateDer<'static> {
        self.0.der()
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Pair {
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        (certificate.der().clone(), key)
    }

    fn server(&self) -> Pair {
        let params = CertificateParams::new(vec![String::from("localhost")]).unwrap();
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn client(&self, uri: &str) -> Pair {
        self.sign(client_params(uri), ExtendedKeyUsagePurpose::ClientAuth)
    }
}

fn client_params(uri: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params
}

const APP: &str = "spiffe://fieldkeep/tenant/acme/app";

struct Fixture {
    authority: Authority,
    listener: TcpListener,
    handshaker: Handshaker,
}

impl Fixture {
    async fn make() -> Self {
        let authority = Authority::make();
        let (certificate, key) = authority.server();
        let identity = Identity {
            chain: vec![certificate],
            key,
            not_after_s: 0,
        };
        let ca = authority.certificate();
        let root = Arc::new(Root::built_in(ca, "fieldkeep").unwrap());
        let trust = Trust::new(TrustState::new(vec![root], Arc::default()));
        let config = server_config(&trust, ca, identity).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let handshaker = Handshaker::new(
            Arc::new(ArcSwap::new(config)),
            trust,
            Duration::from_secs(10),
            Duration::from_secs(3_600),
            Arc::new(SystemClock),
        );
        Self {
            authority,
            listener,
            handshaker,
        }
    }

    /// What the server makes of one connection to it, while `client` uses the other end.
    async fn accept<T>(
        &self,
        client: impl AsyncFnOnce(TcpStream) -> T,
    ) -> (Result<TlsConnection, HandshakeError>, T) {
        let stream = TcpStream::connect(self.listener.local_addr().unwrap())
            .await
            .unwrap();
        let (served, address) = self.listener.accept().await.unwrap();
        tokio::join!(
            self.handshaker.accept(served, address, Box::new(())),
            client(stream)
        )
    }

    async fn connect(
        &self,
        identity: Option<Pair>,
        alpn: &[u8],
    ) -> Result<TlsConnection, HandshakeError> {
        self.connect_both(identity, alpn).await.0
    }

    /// Both ends of a connection.
    async fn connect_both(
        &self,
        identity: Option<Pair>,
        alpn: &[u8],
    ) -> (
        Result<TlsConnection, HandshakeError>,
        io::Result<tokio_rustls::client::TlsStream<TcpStream>>,
    ) {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.certificate().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            Some((certificate, key)) => builder
                .with_client_auth_cert(vec![certificate], key)
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        self.accept(async |stream| {
            connector
                .connect(ServerName::try_from("localhost").unwrap(), stream)
                .await
        })
        .await
    }
}

fn cause(accepted: Result<TlsConnection, HandshakeError>) -> String {
    accepted
        .err()
        .map_or_else(String::new, |error| error.to_string())
}

#[tokio::test]
async fn a_client_of_the_ca_is_named_by_its_certificate() {
    let f = Fixture::make().await;
    let connection = f
        .connect(Some(f.authority.client(APP)), b"h2")
        .await
        .unwrap();
    let peer = connection.peer();
    let principal = peer.principal.as_ref().unwrap();
    assert_eq!(&*principal.resource, "tenants/acme/identities/app");
    assert!(peer.address().starts_with("127.0.0.1:"));
}

#[tokio::test]
async fn a_certificate_of_another_trust_domain_names_nobody() {
    let f = Fixture::make().await;
    let identity = f.authority.client("spiffe://elsewhere/tenant/acme/app");
    let connection = f.connect(Some(identity), b"h2").await.unwrap();
    assert!(connection.peer().principal.is_none());
}

#[tokio::test]
async fn without_a_certificate_a_connection_has_nobody_at_its_end() {
    let f = Fixture::make().await;
    let connection = f.connect(None, b"h2").await.unwrap();
    let peer = connection.peer();
    assert!(peer.principal.is_none() && peer.credential().is_none());
    assert_eq!(peer.authentication, "none");
}

#[tokio::test]
async fn a_connection_that_is_cut_ends_its_reading() {
    let f = Fixture::make().await;
    let identity = f.authority.client(APP);
    let (connection, _client) = f.connect_both(Some(identity), b"h2").await;
    let mut connection = connection.unwrap();
    let connections = Arc::clone(f.handshaker.trust.connections());
    assert_eq!(connections.end_where(Ended::Revoked, |_| true), 1);
    assert!(connection.peer().ended().is_some());
    let mut buffer = [0; 16];
    let (read, ()) = tokio::join!(connection.read(&mut buffer), async {
        tokio::task::yield_now().await;
        connections.sweep(0);
    });
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    drop(connection);
    assert!(connections.is_empty());
}

#[tokio::test]
async fn a_connection_that_is_cut_ends_its_writing_to_a_client_that_reads_nothing() {
    let f = Fixture::make().await;
    let identity = f.authority.client(APP);
    let (connection, _client) = f.connect_both(Some(identity), b"h2").await;
    let mut connection = connection.unwrap();
    let connections = Arc::clone(f.handshaker.trust.connections());
    connections.end_where(Ended::Revoked, |_| true);
    let data = vec![0_u8; 1 << 20];
    // It fills what lies between the two and waits then, unless it is cut.
    let fill = async {
        loop {
            if let Err(error) = connection.write_all(&data).await {
                return error;
            }
        }
    };
    let cut = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        connections.sweep(0);
    };
    let both = async { tokio::join!(fill, cut) };
    let (error, ()) = tokio::time::timeout(Duration::from_secs(60), both)
        .await
        .unwrap();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    let error = connection.flush().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    let slices = [io::IoSlice::new(b"x")];
    let error = connection.write_vectored(&slices).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    let error = connection.shutdown().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let f = Fixture::make().await;
    let foreign = Authority::make().client(APP);
    assert!(cause(f.connect(Some(foreign), b"h2").await).contains("invalid peer certificate"));
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let f = Fixture::make().await;
    let mut params = client_params(APP);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let expired = f
        .authority
        .sign(params, ExtendedKeyUsagePurpose::ClientAuth);
    assert!(cause(f.connect(Some(expired), b"h2").await).contains("expired"));
}

#[tokio::test]
async fn the_servers_own_certificate_is_no_clients() {
    let f = Fixture::make().await;
    assert!(f.connect(Some(f.authority.server()), b"h2").await.is_err());
}

#[tokio::test]
async fn only_http_2_is_spoken() {
    let f = Fixture::make().await;
    assert!(
        f.connect(Some(f.authority.client(APP)), b"http/1.1")
            .await
            .is_err()
    );
}

/// A ClientHello of TLS 1.2, which offers that version alone.
fn client_hello_1_2() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    // No session, the suite ECDHE-ECDSA-AES128-GCM-SHA256, no compression.
    body.extend([0, 0, 2, 0xC0, 0x2B, 1, 0]);
    // supported_groups P-256, signature_algorithms ecdsa_secp256r1_sha256.
    let extensions = [0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3];
    body.extend([0, extensions.len() as u8]);
    body.extend(extensions);
    let mut record = vec![22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    record.extend(body);
    record
}

#[tokio::test]
async fn tls_1_2_is_refused_with_the_alert_for_it() {
    let f = Fixture::make().await;
    let (accepted, answer) = f
        .accept(async |mut stream| {
            stream.write_all(&client_hello_1_2()).await.unwrap();
            let mut answer = [0; 7];
            stream.read_exact(&mut answer).await.unwrap();
            answer
        })
        .await;
    assert!(accepted.is_err());
    // A fatal alert, protocol_version (70).
    assert_eq!((answer[0], answer[5], answer[6]), (21, 2, 70));
}

#[tokio::test]
async fn plaintext_is_refused() {
    let f = Fixture::make().await;
    let (accepted, ()) = f
        .accept(async |mut stream| {
            stream
                .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                .await
                .unwrap()
        })
        .await;
    assert!(matches!(accepted, Err(HandshakeError::Tls(_))));
}

#[tokio::test]
async fn a_client_that_says_nothing_is_not_waited_for() {
    let mut f = Fixture::make().await;
    f.handshaker.timeout = Duration::from_millis(1);
    let open = Mutex::new(None);
    let (accepted, ()) = f
        .accept(async |stream| *open.lock().unwrap() = Some(stream))
        .await;
    assert!(matches!(accepted, Err(HandshakeError::Timeout(_))));
}

#[test]
fn the_key_must_be_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let pair = rcgen::generate_simple_self_signed(vec![String::from("localhost")]).unwrap();
    fs::write(&certificate, pair.cert.pem()).unwrap();
    fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(
        Identity::load(&certificate, &key),
        Err(TlsError::KeyMode { .. })
    ));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let identity = Identity::load(&certificate, &key).unwrap();
    assert!(identity.not_after_s > 0);
    assert!(matches!(
        Identity::load(&key, &key),
        Err(TlsError::Empty {
            setting: "tls.cert",
            ..
        })
    ));
    let missing = dir.path().join("missing.pem");
    assert!(matches!(
        Identity::load(&missing, &key),
        Err(TlsError::File {
            setting: "tls.cert",
            ..
        })
    ));
    assert!(matches!(
        check_ca_file(&certificate, Authority::make().certificate()),
        Err(TlsError::ForeignCa { .. })
    ));
}
