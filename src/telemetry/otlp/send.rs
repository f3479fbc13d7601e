//! One request to a collector.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::net::TcpStream;

use super::message::ExportResponse;
use crate::config::telemetry::CollectorAddress;

/// How long a request may take, connecting included.
const REQUEST: Duration = Duration::from_secs(5);
/// The longest reply that is read, bytes.
const REPLY_BYTES: usize = 64 * 1024;

/// Where requests go, and what goes with each.
pub(super) struct Endpoint {
    address: CollectorAddress,
    headers: HeaderMap,
}

/// Why a collector did not take a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("cannot connect to the collector: {0}; is it running?")]
    Connect(std::io::Error),
    #[error("the connection to the collector broke: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request to the collector is not valid: {0}")]
    Request(#[from] http::Error),
    #[error("the collector did not answer within {} s", REQUEST.as_secs())]
    Timeout,
    #[error("the collector answered {0}")]
    Refused(StatusCode),
    #[error("the collector's answer cannot be read")]
    Answer,
    #[error("the collector did not take {0} spans or data points")]
    Partly(i64),
}

impl SendError {
    /// Whether the same request may be taken a moment later (OTLP specification, "Failures", and the statuses it lists for
    /// HTTP). A collector that let a request run out of time is not asked again: the next one would wait as long.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Http(_) => true,
            Self::Refused(status) => matches!(
                *status,
                StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
            ),
            Self::Request(_) | Self::Timeout | Self::Answer | Self::Partly(_) => false,
        }
    }
}

impl Endpoint {
    pub(super) fn new(address: &CollectorAddress, headers: HeaderMap) -> Self {
        Self {
            address: address.clone(),
            headers,
        }
    }

    /// Posts a message to a path below the endpoint.
    pub(super) async fn post(&self, path: &str, body: Bytes) -> Result<(), SendError> {
        tokio::time::timeout(REQUEST, self.post_unbounded(path, body))
            .await
            .map_err(|_| SendError::Timeout)?
    }

    async fn post_unbounded(&self, path: &str, body: Bytes) -> Result<(), SendError> {
        let stream = TcpStream::connect(&self.address.authority)
            .await
            .map_err(SendError::Connect)?;
        let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::post(format!("{}/{path}", self.address.path))
            .header(header::HOST, &self.address.authority)
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::CONNECTION, "close")
            .body(Full::new(body))?;
        request.headers_mut().extend(self.headers.clone());
        let agent = concat!("fieldkeep/", env!("CARGO_PKG_VERSION"));
        let agent = HeaderValue::from_static(agent);
        request.headers_mut().insert(header::USER_AGENT, agent);
        let exchange = async {
            let response = requests.send_request(request).await?;
            drop(requests);
            read(response).await
        };
        // How the connection ends after the answer does not matter.
        let (answer, _) = tokio::join!(exchange, connection);
        answer
    }
}

async fn read(response: Response<Incoming>) -> Result<(), SendError> {
    let status = response.status();
    if !status.is_success() {
        return Err(SendError::Refused(status));
    }
    let body = Limited::new(response.into_body(), REPLY_BYTES)
        .collect()
        .await
        .map_err(|_| SendError::Answer)?;
    let answer = ExportResponse::decode(body.to_bytes()).map_err(|_| SendError::Answer)?;
    match answer.partial_success {
        Some(partial) if partial.rejected > 0 => Err(SendError::Partly(partial.rejected)),
        _ => Ok(()),
    }
}
