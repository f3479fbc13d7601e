//! Fetching over real sockets: TLS with an own root, and servers that misbehave.

use std::net::SocketAddr;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{super::HttpsFetch, *};

async fn answer(stream: impl AsyncRead + AsyncWrite, text: &str) {
    tokio::pin!(stream);
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await;
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// A server that gives one client this text, whatever it asks for.
async fn serve(text: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        answer(stream, &text).await;
    });
    address
}

async fn fetch(url: &str, root: Option<&CertificateDer<'static>>) -> Result<Bytes, FetchError> {
    let url = Endpoint::parse(url).unwrap();
    HttpsFetch::new().unwrap().fetch(&url, root, 100).await
}

async fn fetch_answer(text: &str) -> Result<Bytes, FetchError> {
    let address = serve(text.to_owned()).await;
    fetch(&format!("http://{address}/keys"), None).await
}

#[tokio::test]
async fn document_of_a_plain_server() {
    let body = fetch_answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    assert_eq!(body.unwrap(), "{}");
    let body = fetch_answer("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}").await;
    assert_eq!(body.unwrap(), "{}");
}

#[tokio::test]
async fn redirect_is_not_followed() {
    for status in [
        "301 Moved",
        "302 Found",
        "307 Temporary",
        "204 No",
        "404 Not",
        "500 Oh",
    ] {
        let text = format!(
            "HTTP/1.1 {status}\r\nlocation: http://127.0.0.1:1/keys\r\ncontent-length: 0\r\n\r\n"
        );
        assert!(
            matches!(fetch_answer(&text).await, Err(FetchError::Status(_))),
            "{status}"
        );
    }
}

#[tokio::test]
async fn oversized_or_endless_document() {
    let long = "a".repeat(101);
    for text in [
        format!("HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n{long}"),
        format!("HTTP/1.1 200 OK\r\n\r\n{long}"),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n65\r\n{long}\r\n0\r\n\r\n"),
    ] {
        assert!(
            matches!(fetch_answer(&text).await, Err(FetchError::TooLarge(100))),
            "{text}"
        );
    }
}

#[tokio::test]
async fn answer_that_is_no_answer() {
    let headers = "x: y\r\n".repeat(100);
    for text in [
        String::new(),
        "SSH-2.0-OpenSSH\r\n".into(),
        "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{}".into(),
        format!("HTTP/1.1 200 OK\r\n{headers}\r\n{{}}"),
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n{{}}", "y".repeat(100_000)),
    ] {
        let refused = fetch_answer(&text).await;
        assert!(
            matches!(refused, Err(FetchError::Http(_) | FetchError::Body)),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn server_that_never_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    assert!(matches!(fetch(&url, None).await, Err(FetchError::Timeout)));
}

/// A CA, and a server of it for 127.0.0.1 with this text.
async fn serve_tls(text: &'static str) -> (CertificateDer<'static>, SocketAddr) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let certificate = params.signed_by(&key, &ca).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_protocol_versions(&[&rustls::version::TLS13])
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![certificate.der().clone()], key)
    .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                answer(stream, text).await;
            }
        }
    });
    (ca.der().clone(), address)
}

#[tokio::test]
async fn tls_server_of_another_root() {
    const TEXT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    let (root, address) = serve_tls(TEXT).await;
    let (other, _) = serve_tls(TEXT).await;
    let url = format!("https://{address}/keys");
    assert_eq!(fetch(&url, Some(&root)).await.unwrap(), "{}");
    for root in [Some(&other), None] {
        assert!(matches!(
            fetch(&url, root).await,
            Err(FetchError::Connect(_))
        ));
    }
    // The right root, and a name that is not in the certificate.
    let url = format!("https://localhost:{}/keys", address.port());
    assert!(matches!(
        fetch(&url, Some(&root)).await,
        Err(FetchError::Connect(_))
    ));
    // Plain HTTP where TLS is spoken, and the reverse.
    assert!(
        fetch(&format!("http://{address}/keys"), Some(&root))
            .await
            .is_err()
    );
    let plain = serve(TEXT.to_owned()).await;
    assert!(
        fetch(&format!("https://{plain}/keys"), Some(&root))
            .await
            .is_err()
    );
}
