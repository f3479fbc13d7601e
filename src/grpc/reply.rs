//! The replies as the transport takes them.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use fieldkeep_tlog::receipt::Receipt;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;
use tonic::body::Body;

use crate::grpc::convert::batch::REPLY_ITEM_BYTES;
use crate::grpc::status;
use crate::service::call::Call;

/// The body of a reply. That of a unary call on fields is known whole and needs no box.
pub struct ReplyBody(Kind);

enum Kind {
    /// A frame, and then the trailers that say that the call succeeded.
    Whole(Bytes),
    Trailers,
    Ended,
    /// What handlers made.
    Other(Body),
}

impl ReplyBody {
    /// Whether it is a whole successful reply of which nothing was taken yet.
    pub(super) fn is_success(&self) -> bool {
        matches!(self.0, Kind::Whole(_))
    }
}

impl Default for ReplyBody {
    /// None: the reply is headers alone.
    fn default() -> Self {
        Self(Kind::Ended)
    }
}

impl From<Body> for ReplyBody {
    fn from(body: Body) -> Self {
        Self(Kind::Other(body))
    }
}

impl HttpBody for ReplyBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match &mut self.0 {
            Kind::Whole(frame) => {
                let frame = Frame::data(std::mem::take(frame));
                self.0 = Kind::Trailers;
                Some(Ok(frame))
            }
            Kind::Trailers => {
                self.0 = Kind::Ended;
                Some(Ok(Frame::trailers(trailers())))
            }
            Kind::Ended => None,
            Kind::Other(body) => return Pin::new(body).poll_frame(context),
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(_) | Kind::Trailers => false,
            Kind::Ended => true,
            Kind::Other(body) => body.is_end_stream(),
        }
    }

    /// Not exact for a whole reply: the transport would send it as a header, which gRPC has no use for.
    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Other(body) => body.size_hint(),
            Kind::Ended => SizeHint::with_exact(0),
            Kind::Whole(_) | Kind::Trailers => SizeHint::default(),
        }
    }
}

/// What the reply to a message of `bytes` bytes and so many items takes at most, bytes.
pub(super) fn longest(bytes: usize, items: usize) -> usize {
    bytes + items * REPLY_ITEM_BYTES
}

/// A frame, and its place among the replies that its connection has not taken yet.
struct Unread {
    frame: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Unread {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

/// The same frame, which gives its `room` back when the last of it is sent, or nobody waits for it any more.
pub(super) fn unread(frame: Bytes, room: OwnedSemaphorePermit) -> Bytes {
    Bytes::from_owner(Unread { frame, _room: room })
}

/// A successful response: the frame, and the trailers behind it.
pub(super) fn whole(frame: Bytes, call: &Call, receipt: Option<Receipt>) -> Response<ReplyBody> {
    const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
    let mut response = Response::new(ReplyBody(Kind::Whole(frame)));
    let headers = response.headers_mut();
    headers.reserve(3);
    headers.insert(CONTENT_TYPE, GRPC);
    let mut id = status::request_id_value(call.request_id);
    // No two replies have the same id. One on a connection goes into the table of header compression, so that the others can
    // name the header by its place there; they would only push everything else out of it.
    let first = call.peer.is_first_reply();
    id.set_sensitive(!first);
    headers.insert(status::REQUEST_ID, id);
    if let Some(receipt) = receipt {
        let mut receipt = status::receipt_value(&receipt);
        receipt.set_sensitive(!first);
        headers.insert(status::RECEIPT, receipt);
    }
    response
}

fn trailers() -> HeaderMap {
    const STATUS: HeaderName = HeaderName::from_static("grpc-status");
    const OK: HeaderValue = HeaderValue::from_static("0");
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(STATUS, OK);
    trailers
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_whole_reply_is_a_frame_and_its_trailers() {
        let mut body = ReplyBody(Kind::Whole(Bytes::from_static(b"frame")));
        assert!(body.is_success() && !body.is_end_stream());
        assert_eq!(body.size_hint().exact(), None);
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(data, "frame");
        assert!(!body.is_end_stream());
        let trailers = body.frame().await.unwrap().unwrap();
        assert_eq!(trailers.into_trailers().unwrap()["grpc-status"], "0");
        assert!(body.is_end_stream());
        assert!(body.frame().await.is_none());
    }
}
