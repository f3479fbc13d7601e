//! Takes in the one message of a call, within bounds that hold before anything is made of it.
//!
//! A message of protobuf can take fifty times its bytes once it is decoded: an empty item is two bytes on the wire. So a
//! long one is admitted, gets room, and is counted while it is still bytes. Short ones cannot do harm and go straight on.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fieldkeep_crypto::context::{ContextError, MAX_CONTEXT_PAIRS};
use http_body_util::BodyExt;
use hyper::body::Body as HttpBody;
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::service::arrival::MessageRoom;
use crate::service::call::Call;
use crate::service::failure::Failure;
use crate::service::offload::OFFLOAD_BYTES;
use crate::service::{Limits, Service};

/// Messages up to this are neither admitted, counted nor given room before they are parsed, bytes. Every item, pair or
/// other field takes two bytes at least.
pub(super) const SHORT_BYTES: usize = 8 * 1024;
/// The frame of gRPC before a message: whether it is compressed, and its length.
pub(super) const FRAME_BYTES: usize = 5;
/// The most fields that a message may have, without those inside context pairs. The largest valid batch has half as many.
const MAX_FIELDS: usize = 400_000;

/// Where a request has what may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// The tag of its context pairs; 0: it has none.
    pub context: u32,
    /// The tag of its items; 0: it is no batch.
    pub items: u32,
}

/// The tag of the context pairs of every kind of item.
pub const ITEM_CONTEXT: u32 = 2;

/// A message in its frame, as it came, and its room.
pub struct Received {
    /// Frame and message.
    pub frame: Bytes,
    /// The items of a batch, unless it has more than [`OFFLOAD_BYTES`] and is yet to be counted.
    pub items: usize,
    /// Its place among the messages of its connection and of all, to be held until the call has ended.
    pub room: Option<MessageRoom>,
}

/// Reads the message of `call` from `body`.
///
/// # Errors
/// The refusal of a message that is too long, incomplete or not one, of a long one whose caller may not do what the RPC
/// is for, and of one with too many items or pairs.
pub async fn receive<B>(
    service: &Service,
    call: &Call,
    shape: Shape,
    mut body: B,
) -> Result<Received, Failure>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::error::Error,
{
    let mut frame = Frame::default();
    let mut room = None;
    while let Some(part) = body.frame().await {
        let part = part.map_err(|error| Failure::invalid("message", error.to_string()))?;
        let Ok(data) = part.into_data() else {
            continue;
        };
        let was_open = frame.length.is_none();
        frame.put(data)?;
        let Some(length) = frame.length else {
            continue;
        };
        if length > call.request_bytes {
            return Err(Failure::RequestTooLarge {
                limit: call.request_bytes,
            });
        }
        if was_open && length > SHORT_BYTES {
            service.admit(call)?;
            room = Some(service.message_room(&call.peer, length).await?);
        }
        if frame.bytes() > FRAME_BYTES + length {
            return Err(Failure::invalid("message", "more than one message"));
        }
    }
    let frame = frame.finish()?;
    let message = frame.get(FRAME_BYTES..).unwrap_or_default();
    // A batch is counted to know what it weighs, also if it is short. What weighs enough by its bytes is counted later, off
    // this thread.
    let items = if (room.is_some() || shape.items > 0) && message.len() <= OFFLOAD_BYTES {
        count(message, shape, service.core().limits())?
    } else {
        0
    };
    Ok(Received { frame, items, room })
}

/// What has come of a frame: its first part as it is, and a copy of all as soon as there is a second, since parts keep the
/// buffers alive that they were read into.
#[derive(Default)]
struct Frame {
    first: Bytes,
    copy: BytesMut,
    length: Option<usize>,
}

impl Frame {
    fn put(&mut self, data: Bytes) -> Result<(), Failure> {
        if self.bytes() == 0 {
            self.first = data;
        } else {
            if self.copy.is_empty() {
                self.copy.put(std::mem::take(&mut self.first));
            }
            self.copy.put(data);
        }
        if self.length.is_none() {
            self.length = length(self.start())?;
        }
        Ok(())
    }

    fn start(&self) -> &[u8] {
        if self.copy.is_empty() {
            &self.first
        } else {
            &self.copy
        }
    }

    fn bytes(&self) -> usize {
        self.first.len() + self.copy.len()
    }

    fn finish(self) -> Result<Bytes, Failure> {
        let whole = self.length.map(|length| FRAME_BYTES + length);
        if whole != Some(self.bytes()) {
            return Err(Failure::invalid("message", "it ends too early"));
        }
        Ok(if self.copy.is_empty() {
            self.first
        } else {
            self.copy.freeze()
        })
    }
}

/// The length of the message of a frame, once its first bytes are there.
pub(super) fn length(mut frame: &[u8]) -> Result<Option<usize>, Failure> {
    if frame.len() < FRAME_BYTES {
        return Ok(None);
    }
    if frame.get_u8() != 0 {
        return Err(Failure::invalid(
            "message",
            "it is compressed; send it as it is",
        ));
    }
    usize::try_from(frame.get_u32())
        .map(Some)
        .map_err(Failure::internal)
}

/// Counts the items of a message without decoding it, and refuses one with more items or pairs than it may have.
pub(super) fn count(message: &[u8], shape: Shape, limits: &Limits) -> Result<usize, Failure> {
    let mut counts = Counts::default();
    let walked = counts.walk(message, shape);
    let limit = limits.batch_items;
    if counts.items > limit {
        return Err(Failure::BatchTooLarge {
            items: counts.items,
            limit,
        });
    }
    // An item with too many pairs fails alone, as long as all together have no more than the batch may.
    if counts.pairs > MAX_CONTEXT_PAIRS || counts.item_pairs > MAX_CONTEXT_PAIRS * limit {
        let error = ContextError::TooManyPairs;
        return Err(Failure::invalid("context", error.to_string()));
    }
    if counts.fields > MAX_FIELDS {
        return Err(Failure::invalid("message", "it has too many fields"));
    }
    walked.map_err(|error| Failure::invalid("message", error.to_string()))?;
    Ok(counts.items)
}

#[derive(Default)]
struct Counts {
    fields: usize,
    items: usize,
    pairs: usize,
    item_pairs: usize,
}

impl Counts {
    /// Stops after [`MAX_FIELDS`].
    fn walk(&mut self, mut message: &[u8], shape: Shape) -> Result<(), DecodeError> {
        while let Some((tag, wire_type)) = self.next(&mut message)? {
            if wire_type == WireType::LengthDelimited && tag == shape.items {
                self.items += 1;
                let item = part(&mut message)?;
                self.walk_item(item)?;
            } else {
                self.pairs += usize::from(tag == shape.context);
                skip_field(wire_type, tag, &mut message, DecodeContext::default())?;
            }
        }
        Ok(())
    }

    fn walk_item(&mut self, mut item: &[u8]) -> Result<(), DecodeError> {
        while let Some((tag, wire_type)) = self.next(&mut item)? {
            self.item_pairs += usize::from(tag == ITEM_CONTEXT);
            skip_field(wire_type, tag, &mut item, DecodeContext::default())?;
        }
        Ok(())
    }

    fn next(&mut self, rest: &mut &[u8]) -> Result<Option<(u32, WireType)>, DecodeError> {
        if rest.is_empty() || self.fields > MAX_FIELDS {
            return Ok(None);
        }
        self.fields += 1;
        decode_key(rest).map(Some)
    }
}

/// Splits off a part that says its length first.
fn part<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let whole = *rest;
    skip_field(WireType::LengthDelimited, 0, rest, DecodeContext::default())?;
    let mut part = whole.get(..whole.len() - rest.len()).unwrap_or_default();
    decode_varint(&mut part)?;
    Ok(part)
}

#[cfg(test)]
mod tests;
