//! Who gets a connection at all.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fieldkeep_client::Client;
use fieldkeep_harness::{Home, Identity};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore, version::TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::fixture::{Fixture, reason};

fn client_config(home: &Home, identity: Option<&Identity>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(home.ca()).unwrap())
        .unwrap();
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(&identity.certificate).unwrap()],
                PrivateKeyDer::from_pem_file(&identity.key).unwrap(),
            )
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// A TLS connection on which nothing was sent.
pub(crate) async fn tls_stream(
    address: SocketAddr,
    home: &Home,
    identity: Option<&Identity>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let connector = TlsConnector::from(Arc::new(client_config(home, identity)));
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    connector.connect(name, stream).await
}

/// A plain tonic channel over mutual TLS, without the SDK.
pub(crate) async fn channel(
    address: SocketAddr,
    home: &Home,
    identity: Option<&Identity>,
) -> Result<Channel, tonic::transport::Error> {
    let connector = TlsConnector::from(Arc::new(client_config(home, identity)));
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from("localhost").unwrap();
                connector.connect(name, stream).await.map(TokioIo::new)
            }
        }))
        .await
}

fn a_request() -> fieldkeep_proto::v1::EncryptRequest {
    fieldkeep_proto::v1::EncryptRequest {
        key: "pii".into(),
        field: "f".into(),
        ..Default::default()
    }
}

/// Whether a client gets as far as an answer of the service.
async fn is_refused(f: &Fixture, identity: Option<&Identity>) -> bool {
    let Ok(channel) = channel(f.server.data, &f.home, identity).await else {
        return true;
    };
    let mut client = fieldkeep_proto::v1::field_service_client::FieldServiceClient::new(channel);
    match client.encrypt(a_request()).await {
        Ok(_) => false,
        // With TLS 1.3 a client learns of its refusal after its own handshake is done. An answer of the service
        // would carry a request id.
        Err(status) => status.metadata().get("fieldkeep-request-id").is_none(),
    }
}

#[tokio::test]
async fn without_a_certificate_every_call_is_refused_on_record() {
    let f = Fixture::start();
    assert!(!is_refused(&f, Some(&f.app_identity)).await, "the control");
    let channel = channel(f.server.data, &f.home, None).await.unwrap();
    let mut client =
        fieldkeep_proto::v1::field_service_client::FieldServiceClient::new(channel.clone());
    let status = client.encrypt(a_request()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    let id = status.metadata().get("fieldkeep-request-id").unwrap();
    let id = id.to_str().unwrap().to_owned();
    let trail = f.server.run(
        &f.admin_identity,
        &["audit", "list", "--limit", "5", "--format", "json"],
    );
    assert!(trail.contains(&id), "{trail}");
    // Nor do the transport's own services say anything.
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let status = health.check(tonic_health::pb::HealthCheckRequest::default());
    assert_eq!(
        status.await.unwrap_err().code(),
        tonic::Code::Unauthenticated
    );
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let f = Fixture::start();
    let foreign = Home::make();
    assert!(is_refused(&f, Some(&foreign.admin())).await);

    // The same names, signed by itself.
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    let uri = rcgen::SanType::URI("spiffe://fieldkeep/tenant/default/app".try_into().unwrap());
    params.subject_alt_names.push(uri);
    let certificate = params.self_signed(&key).unwrap();
    let forged = Identity {
        certificate: f.home.path().join("forged.pem"),
        key: f.home.path().join("forged.key"),
    };
    std::fs::write(&forged.certificate, certificate.pem()).unwrap();
    std::fs::write(&forged.key, key.serialize_pem()).unwrap();
    assert!(is_refused(&f, Some(&forged)).await);
}

#[tokio::test]
async fn an_expired_certificate_is_refused_on_an_open_connection_too() {
    let f = Fixture::start();
    let out = f.home.path().join("identities");
    let arguments = [
        "cert",
        "issue",
        "brief",
        "--tenant",
        "default",
        "--grant",
        "data",
        "--ttl",
        "3s",
        "--out",
        out.to_str().unwrap(),
    ];
    f.server.run(&f.admin_identity, &arguments);
    let identity = f.home.identity("brief");
    // Left to itself, the client would renew it in time.
    let open = Client::builder()
        .address(f.server.data.to_string())
        .ca_file(f.home.ca())
        .identity_files(&identity.certificate, &identity.key)
        .connections(1)
        .renew(false)
        .build()
        .unwrap();
    open.field("pii", "f")
        .encrypt(b"x")
        .await
        .expect("the certificate is fresh");
    let mut refused = None;
    for _ in 0..100 {
        if let Err(error) = open.field("pii", "f").encrypt(b"x").await {
            refused = Some(error);
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let error = refused.expect("it expired within ten seconds");
    assert_eq!(error.reason(), Some("UNAUTHENTICATED"), "{error:?}");
    assert!(is_refused(&f, Some(&identity)).await, "a new connection");
}

#[tokio::test]
async fn a_server_of_another_ca_is_not_trusted() {
    let f = Fixture::start();
    let foreign = Home::make();
    let client = Client::builder()
        .address(f.server.data.to_string())
        .ca_file(foreign.ca())
        .identity_files(&f.app_identity.certificate, &f.app_identity.key)
        .build()
        .unwrap();
    let error = client.field("pii", "f").encrypt(b"x").await.unwrap_err();
    assert_eq!(
        error.kind(),
        fieldkeep_client::ErrorKind::Connect,
        "{error:?}"
    );
}

/// A TLS 1.2 ClientHello (RFC 5246, 7.4.1.2) without the supported_versions extension.
fn client_hello_of_tls_1_2() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]); // random
    body.push(0); // no session
    body.extend([0, 4, 0xc0, 0x2f, 0xc0, 0x2b]); // ECDHE with AES-128-GCM
    body.extend([1, 0]); // no compression
    let extensions: Vec<u8> = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..],  // supported_groups: secp256r1
        &[0, 11, 0, 2, 1, 0],             // ec_point_formats: uncompressed
        &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4], // signature_algorithms
    ]
    .concat();
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let mut handshake = vec![1, 0];
    handshake.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    handshake.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend(u16::try_from(handshake.len()).unwrap().to_be_bytes());
    record.extend(handshake);
    record
}

async fn first_bytes_of_the_answer(address: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent).await.unwrap();
    let mut answer = vec![0; 64];
    let count = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut answer))
        .await
        .expect("an answer or an end")
        .unwrap_or(0);
    answer.truncate(count);
    answer
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let f = Fixture::start();
    for address in [f.server.data, f.server.admin] {
        let answer = first_bytes_of_the_answer(address, &client_hello_of_tls_1_2()).await;
        assert_eq!(answer[0], 21, "an alert");
        assert_eq!(
            answer[5..7],
            [2, 70],
            "fatal, protocol_version (RFC 8446, 6)"
        );
    }
}

#[tokio::test]
async fn plaintext_http2_is_refused_and_others_are_still_served() {
    let f = Fixture::start();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    for garbage in [
        &preface[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0; 512],
        &[0xff; 512],
    ] {
        let answer = first_bytes_of_the_answer(f.server.data, garbage).await;
        assert!(
            answer.is_empty() || answer[0] == 21,
            "nothing, or a TLS alert: {answer:?}"
        );
    }
    f.app().field("pii", "f").encrypt(b"x").await.unwrap();
}

#[tokio::test]
async fn the_data_listener_has_no_control_plane() {
    let f = Fixture::start();
    let on_data = f.server.data_client(&f.admin_identity);
    for result in [
        on_data.keys().create("x").await.map(drop),
        on_data.status().await.map(drop),
        on_data.audit().list().next_page().await.map(drop),
        on_data.grants().revoke("g-0123456789abcdef").await,
    ] {
        assert_eq!(result.unwrap_err().code(), Some(tonic::Code::Unimplemented));
    }
    // The admin listener has everything.
    f.server
        .admin_client(&f.app_identity)
        .field("pii", "f")
        .encrypt(b"x")
        .await
        .unwrap();
    assert_eq!(
        reason(f.server.admin_client(&f.app_identity).status().await),
        "PERMISSION_DENIED"
    );
}

#[tokio::test]
async fn health_and_metrics_answer() {
    let f = Fixture::start();
    f.app().field("pii", "f").encrypt(b"x").await.unwrap();
    let mut stream = TcpStream::connect(f.server.metrics).await.unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(
        text.contains("Encrypt") && text.contains("# TYPE"),
        "{text}"
    );
    assert!(!text.contains("pii"), "no names in metrics");

    let channel = channel(f.server.data, &f.home, Some(&f.app_identity))
        .await
        .unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let reply = health
        .check(tonic_health::pb::HealthCheckRequest {
            service: String::new(),
        })
        .await
        .unwrap();
    assert_eq!(reply.into_inner().status, 1, "SERVING");
}
