//! The body of a stream's reply, handed on in small parts.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::reader::IDLE;

/// The most that is handed on at once, bytes.
const SLICE_BYTES: usize = 64 * 1024;

/// Hands on what `body` has in parts of [`SLICE_BYTES`] at most. The transport asks for a part once the caller has room for it
/// and keeps it until it is sent; so it never keeps a long reply, and asks for the next one only when the last one is
/// nearly out.
pub(super) struct Sliced {
    body: Body,
    rest: Bytes,
    /// How long a reply may take to be handed on.
    longest: Duration,
    /// When what is left of a reply is too late.
    late: Instant,
}

impl Sliced {
    pub(super) fn new(body: Body, longest: Duration) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            longest,
            late: Instant::now(),
        }
    }
}

impl HttpBody for Sliced {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.rest = data;
                        self.late = Instant::now() + self.longest;
                    }
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        if !self.rest.is_empty() && Instant::now() > self.late {
            self.rest = Bytes::new();
            return Poll::Ready(Some(Err(Status::deadline_exceeded(IDLE))));
        }
        let slice = self.rest.len().min(SLICE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(slice)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
