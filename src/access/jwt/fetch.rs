//! Fetching from an identity provider: one GET, over TLS 1.3, or over plain HTTP on this host alone.
//!
//! There are no redirects, no proxies and no retries: what the record says is where it goes.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::endpoint::Endpoint;

/// How long one request may take, the look-up of the name and the handshake included.
const REQUEST: Duration = Duration::from_secs(5);
/// The most header fields of an answer, and the most bytes of them.
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 32 * 1024;

/// Where documents come from. Tests have their own.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// The document at `url`, of at most `limit` bytes. A TLS server's certificate must descend from `root`, or, without
    /// one, from a public root.
    ///
    /// # Errors
    /// See [`FetchError`].
    async fn fetch(
        &self,
        url: &Endpoint,
        root: Option<&CertificateDer<'static>>,
        limit: usize,
    ) -> Result<Bytes, FetchError>;
}

/// Why a document was not had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection, or no TLS over it.
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    /// The name of this host led elsewhere.
    #[error("plain HTTP is for this host alone, and the name led to another")]
    NotThisHost,
    /// The host is no name that a certificate can have, or the root cannot be used.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Http(#[from] hyper::Error),
    /// The URL makes no request.
    #[error("the request is not valid: {0}")]
    Request(#[from] http::Error),
    /// It took longer than 5 s.
    #[error("no answer within {} s", REQUEST.as_secs())]
    Timeout,
    /// Any status but 200. Redirects are not followed.
    #[error("the answer is {0}, and only 200 is taken: give the URL that is redirected to")]
    Status(StatusCode),
    /// The document is too large.
    #[error("the document is larger than {0} bytes")]
    TooLarge(usize),
    /// The document broke off.
    #[error("the document broke off")]
    Body,
}

/// Fetches over the network.
pub struct HttpsFetch {
    public: Arc<ClientConfig>,
}

impl HttpsFetch {
    /// Trusts Mozilla's roots where an issuer has none of its own.
    ///
    /// # Errors
    /// TLS cannot be set up, which is a defect of the build.
    pub fn new() -> Result<HttpsFetch, FetchError> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        Ok(HttpsFetch {
            public: client_config(roots)?,
        })
    }

    async fn fetch_unbounded(
        &self,
        url: &Endpoint,
        root: Option<&CertificateDer<'static>>,
        limit: usize,
    ) -> Result<Bytes, FetchError> {
        let stream = TcpStream::connect((url.host(), url.port())).await?;
        if !url.is_tls() {
            // What `localhost` means is up to the system.
            if !stream.peer_addr()?.ip().is_loopback() {
                return Err(FetchError::NotThisHost);
            }
            return exchange(stream, url, limit).await;
        }
        let config = match root {
            Some(root) => {
                let mut roots = RootCertStore::empty();
                roots.add(root.clone())?;
                client_config(roots)?
            }
            None => Arc::clone(&self.public),
        };
        let host = ServerName::try_from(url.host().to_owned())
            .map_err(|_| rustls::Error::General("the host is no name".into()))?;
        exchange(
            TlsConnector::from(config).connect(host, stream).await?,
            url,
            limit,
        )
        .await
    }
}

#[async_trait]
impl Fetch for HttpsFetch {
    async fn fetch(
        &self,
        url: &Endpoint,
        root: Option<&CertificateDer<'static>>,
        limit: usize,
    ) -> Result<Bytes, FetchError> {
        tokio::time::timeout(REQUEST, self.fetch_unbounded(url, root, limit))
            .await
            .map_err(|_| FetchError::Timeout)?
    }
}

fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, FetchError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

async fn exchange<S>(stream: S, url: &Endpoint, limit: usize) -> Result<Bytes, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut requests, connection) = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES)
        .handshake(TokioIo::new(stream))
        .await?;
    let bracketed = if url.host().contains(':') {
        format!("[{}]", url.host())
    } else {
        url.host().into()
    };
    let request = Request::get(url.target())
        .header(header::HOST, format!("{bracketed}:{}", url.port()))
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .header(
            header::USER_AGENT,
            concat!("fieldkeep/", env!("CARGO_PKG_VERSION")),
        )
        .body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = requests.send_request(request).await?;
        drop(requests);
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        read(response.into_body(), limit).await
    };
    // The answer decides; a connection that would rather go on is dropped with it.
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            // What was read of the answer before the connection ended may be all of it.
            Ok(()) => answer.await,
            Err(error) => Err(error.into()),
        },
    }
}

async fn read(body: Incoming, limit: usize) -> Result<Bytes, FetchError> {
    match Limited::new(body, limit).collect().await {
        Ok(document) => Ok(document.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge(limit)),
        Err(_) => Err(FetchError::Body),
    }
}
