//! The transport: TCP, TLS 1.3 with a client certificate, HTTP/2.
//!
//! tonic's own TLS is not used, since it also speaks TLS 1.2.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use crate::ConfigError;

/// The time for TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A stream's flow-control window, bytes: half of the longest reply, so that a batch is rarely held up.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// The connection's flow-control window, bytes.
const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// The longest HTTP/2 frame to receive, bytes: fewer frames a batch.
const FRAME_BYTES: u32 = 256 * 1024;
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why no connection could be made.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No TCP connection: the name is unknown, nobody listens, the network is down.
    #[error("{0}; is the service running, and is this its address?")]
    Tcp(#[source] Arc<io::Error>),
    /// Nothing answered in time.
    #[error("no TLS connection within {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut,
    /// The other side closed the connection during the TLS handshake.
    #[error("the connection was closed during the TLS handshake: {0}")]
    Closed(#[source] Arc<io::Error>),
    /// The service's certificate is not signed by the CA that the client was given.
    #[error(
        "the service's certificate is not signed by the CA given; is it the `ca.pem` of this service?"
    )]
    UnknownCa,
    /// The service's certificate is for other names.
    #[error(
        "the service's certificate is not for the host `{host}`; use a name that `fieldkeep init --name` was given"
    )]
    WrongName {
        /// The host of the client's address.
        host: Box<str>,
    },
    /// The service's certificate has expired.
    #[error("the service's certificate has expired; renew it on the server")]
    Expired,
    /// The other side does not speak TLS 1.3.
    #[error("the other side does not speak TLS 1.3; is this the address of the gRPC listener?")]
    NotTls,
    /// Another failure of the TLS handshake.
    #[error("the TLS handshake failed: {0}")]
    Tls(#[source] rustls::Error),
    /// The other side did not agree on HTTP/2.
    #[error(
        "the other side does not speak HTTP/2 over TLS; is this the address of the gRPC listener?"
    )]
    NotHttp2,
}

impl ConnectError {
    /// Whether the next try may have another outcome.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::TimedOut | Self::Closed(_))
    }

    fn from_handshake(error: io::Error, host: &str) -> Self {
        let tls = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .cloned();
        match tls {
            None => Self::Closed(Arc::new(error)),
            Some(rustls::Error::InvalidCertificate(reason)) => match reason {
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownCa,
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => {
                    Self::WrongName { host: host.into() }
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Self::Expired
                }
                other => Self::Tls(rustls::Error::InvalidCertificate(other)),
            },
            Some(
                rustls::Error::InvalidMessage(_)
                | rustls::Error::PeerIncompatible(_)
                | rustls::Error::AlertReceived(AlertDescription::ProtocolVersion),
            ) => Self::NotTls,
            Some(other) => Self::Tls(other),
        }
    }
}

/// The host and port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// A name or an IP address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `host:port`, with brackets around IPv6.
    pub(crate) authority: String,
}

/// What is known of the present connection.
///
/// In TLS 1.3 a server judges the client's certificate after the client's handshake has ended, so its refusal arrives as
/// an alert on the first read; hyper keeps of it a line of text at most.
#[derive(Debug, Default)]
pub(crate) struct ConnectionState {
    refused: AtomicBool,
    alert: Mutex<Option<Box<str>>>,
}

impl ConnectionState {
    /// The alert by which the service refused the client's certificate, if that was the end of the last connection.
    pub(crate) fn refusal(&self) -> Option<Box<str>> {
        if !self.refused.load(Ordering::Acquire) {
            return None;
        }
        self.alert
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn refuse(&self, alert: AlertDescription) {
        *self.alert.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(format!("{alert:?}").into());
        self.refused.store(true, Ordering::Release);
    }

    fn accept(&self) {
        self.refused.store(false, Ordering::Release);
    }
}

/// A channel that connects when the first call needs it, and again when the connection has broken.
///
/// # Errors
/// If there is no Tokio runtime to run the connection on, or the address cannot be one of TLS.
pub(crate) fn open_channel(
    address: &Address,
    tls: &Arc<ClientConfig>,
    state: &Arc<ConnectionState>,
) -> Result<Channel, ConfigError> {
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(ConfigError::NoRuntime);
    }
    let bad_address = || ConfigError::BadAddress {
        address: address.authority.clone().into(),
    };
    let name = ServerName::try_from(address.host.clone()).map_err(|_| bad_address())?;
    let endpoint = Endpoint::from_shared(format!("https://{}", address.authority))
        .and_then(|endpoint| {
            endpoint.user_agent(concat!("fieldkeep-client/", env!("CARGO_PKG_VERSION")))
        })
        .map_err(|_| bad_address())?
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let target = Arc::new((address.clone(), name));
    let connector = TlsConnector::from(Arc::clone(tls));
    let state = Arc::clone(state);
    Ok(
        endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let (target, connector, state) =
                (Arc::clone(&target), connector.clone(), Arc::clone(&state));
            async move {
                let (address, name) = &*target;
                let stream =
                    tokio::time::timeout(CONNECT_TIMEOUT, connect(address, name, &connector))
                        .await
                        .map_err(|_| ConnectError::TimedOut)??;
                state.accept();
                Ok::<_, ConnectError>(TokioIo::new(Watched {
                    stream,
                    state,
                    heard: false,
                }))
            }
        })),
    )
}

async fn connect(
    address: &Address,
    name: &ServerName<'static>,
    connector: &TlsConnector,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let tcp_error = |error| ConnectError::Tcp(Arc::new(error));
    let tcp = TcpStream::connect((address.host.as_str(), address.port))
        .await
        .map_err(tcp_error)?;
    tcp.set_nodelay(true).map_err(tcp_error)?;
    let tls = connector
        .connect(name.clone(), tcp)
        .await
        .map_err(|error| ConnectError::from_handshake(error, &address.host))?;
    if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(ConnectError::NotHttp2);
    }
    Ok(tls)
}

/// A TLS stream that notes the service's refusal of the client's certificate.
struct Watched<S> {
    stream: S,
    state: Arc<ConnectionState>,
    /// Whether the service has sent anything: if so, it has accepted the certificate.
    heard: bool,
}

impl<S: AsyncRead + Unpin> Watched<S> {
    fn note(&self, error: &io::Error) {
        let alert = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let (false, Some(rustls::Error::AlertReceived(alert))) = (self.heard, alert) {
            self.state.refuse(*alert);
        }
    }

    /// A server that refuses sends the alert and closes, so a write may fail while the alert still waits to be read.
    fn note_unread(&mut self, cx: &mut Context<'_>) {
        if self.heard {
            return;
        }
        let mut scratch = [0u8; 64];
        let mut buffer = ReadBuf::new(&mut scratch);
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            self.note(&error);
        }
    }

    fn noted<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &outcome {
            self.note(error);
            self.note_unread(cx);
        }
        outcome
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        match &outcome {
            Poll::Ready(Ok(())) => self.heard |= buffer.filled().len() > before,
            Poll::Ready(Err(error)) => self.note(error),
            Poll::Pending => {}
        }
        outcome
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.noted(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.noted(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.noted(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads give what is left of the peer's last words, then its alert; writes fail.
    struct Closing(&'static [u8]);

    impl AsyncRead for Closing {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.0.is_empty() {
                let alert = rustls::Error::AlertReceived(AlertDescription::UnknownCA);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, alert)));
            }
            buffer.put_slice(std::mem::take(&mut self.0));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Closing {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn watched(words: &'static [u8]) -> (Watched<Closing>, Arc<ConnectionState>) {
        let state = Arc::new(ConnectionState::default());
        let watched = Watched {
            stream: Closing(words),
            state: Arc::clone(&state),
            heard: false,
        };
        (watched, state)
    }

    #[tokio::test]
    async fn an_alert_behind_a_failed_write_is_found() {
        let (mut stream, state) = watched(b"");
        assert_eq!(state.refusal(), None);
        tokio::io::AsyncWriteExt::write(&mut stream, b"preface")
            .await
            .unwrap_err();
        assert_eq!(state.refusal().as_deref(), Some("UnknownCA"));
        state.accept();
        assert_eq!(state.refusal(), None);
    }

    #[tokio::test]
    async fn an_alert_after_the_first_words_refuses_no_certificate() {
        let (mut stream, state) = watched(b"settings");
        let mut buffer = [0u8; 16];
        let read = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer);
        assert_eq!(read.await.unwrap(), 8);
        tokio::io::AsyncReadExt::read(&mut stream, &mut buffer)
            .await
            .unwrap_err();
        assert_eq!(state.refusal(), None);
    }
}
