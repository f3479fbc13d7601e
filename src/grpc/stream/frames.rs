//! The messages in the body of a stream's request, one after the other.

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tonic::body::Body;

use crate::grpc::receive::{self, FRAME_BYTES};
use crate::service::failure::Failure;

/// Why nothing more can be read.
#[derive(Debug, PartialEq)]
pub(super) enum Stop {
    /// The caller went away.
    Gone,
    /// What it sent is no frame, so that nobody knows where the next one begins.
    Broken(Failure),
}

/// Reads no more of the body than the message that is asked for, and the part of the next that came with it: HTTP/2 holds
/// the caller back.
pub(super) struct Frames {
    body: Body,
    /// What has come and was not asked for yet.
    rest: Bytes,
}

impl Frames {
    pub(super) fn new(body: Body) -> Self {
        let rest = Bytes::new();
        Self { body, rest }
    }

    /// Waits for the first byte of a message; `false`: the caller has no more.
    pub(super) async fn begin(&mut self) -> Result<bool, Stop> {
        Ok(!self.rest.is_empty() || self.more().await?)
    }

    /// Reads up to the message's first byte and returns its length.
    pub(super) async fn length(&mut self) -> Result<usize, Stop> {
        let mut header = BytesMut::with_capacity(FRAME_BYTES);
        while header.len() < FRAME_BYTES {
            header.put(self.some(FRAME_BYTES - header.len()).await?);
        }
        match receive::length(&header) {
            Ok(Some(length)) => Ok(length),
            Ok(None) => Err(ends_too_early()),
            Err(failure) => Err(Stop::Broken(failure)),
        }
    }

    /// Reads a message of `length` bytes, without a copy if it came in one piece.
    pub(super) async fn message(&mut self, length: usize) -> Result<Bytes, Stop> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let first = self.some(length).await?;
        if first.len() == length {
            return Ok(first);
        }
        let mut message = BytesMut::with_capacity(length);
        message.put(first);
        while message.len() < length {
            message.put(self.some(length - message.len()).await?);
        }
        Ok(message.freeze())
    }

    /// Reads past a message of `length` bytes and keeps nothing of it.
    pub(super) async fn skip(&mut self, mut length: usize) -> Result<(), Stop> {
        while length > 0 {
            length -= self.some(length).await?.len();
        }
        Ok(())
    }

    /// What comes next of a frame: at least one byte, at most `most`.
    async fn some(&mut self, most: usize) -> Result<Bytes, Stop> {
        if self.begin().await? {
            Ok(self.rest.split_to(most.min(self.rest.len())))
        } else {
            Err(ends_too_early())
        }
    }

    async fn more(&mut self) -> Result<bool, Stop> {
        loop {
            match self.body.frame().await {
                // A stream that its caller cancelled looks like one that ended, but for this.
                None if self.body.is_end_stream() => return Ok(false),
                None | Some(Err(_)) => return Err(Stop::Gone),
                Some(Ok(part)) => match part.into_data() {
                    Ok(data) if !data.is_empty() => {
                        self.rest = data;
                        return Ok(true);
                    }
                    _ => {}
                },
            }
        }
    }
}

fn ends_too_early() -> Stop {
    Stop::Broken(Failure::invalid("message", "it ends too early"))
}
