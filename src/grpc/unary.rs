//! The unary calls of `fieldkeep.v1.FieldService`, from the bytes of the message to the frame of the reply.
//!
//! The gate has the whole message, and a reply is whole too. tonic's own way would pass both through stream adapters with
//! buffers of their own; here a message is decoded where it lies, and its reply encoded once. What is large is decoded and
//! parsed off the runtime's thread.

use std::pin::pin;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::Response;
use prost::Message;
use tonic::Status;

use crate::grpc::convert::{batch, field};
use crate::grpc::receive::{FRAME_BYTES, Received, Shape, count};
use crate::grpc::reply::{self, ReplyBody};
use crate::grpc::routes::MAX_MESSAGE_BYTES;
use crate::grpc::status;
use crate::service::call::Call;
use crate::service::failure::Failure;
use crate::service::offload::{OFFLOAD_BYTES, Weight};
use crate::service::perform::Operation;
use crate::service::{Limits, Service};

/// Which call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unary {
    /// `Encrypt`.
    Encrypt,
    /// `Decrypt`.
    Decrypt,
    /// `ReEncrypt`.
    ReEncrypt,
    /// `BatchEncrypt`.
    BatchEncrypt,
    /// `BatchDecrypt`.
    BatchDecrypt,
    /// `BatchReEncrypt`.
    BatchReEncrypt,
}

impl Unary {
    /// Does what the message of `call` asks for, which has its room until then.
    pub(super) async fn answer(
        self,
        service: &Service,
        call: &Call,
        shape: Shape,
        Received {
            frame: mut message,
            items,
            room: _room,
        }: Received,
    ) -> Response<ReplyBody> {
        message.advance(FRAME_BYTES.min(message.len()));
        let asked = Asked {
            service,
            call,
            shape,
            message,
            items,
        };
        match self {
            Unary::Encrypt => pin!(asked.answer(field::encrypt, field::encrypted)).await,
            Unary::Decrypt => pin!(asked.answer(field::decrypt, field::decrypted)).await,
            Unary::ReEncrypt => pin!(asked.answer(field::reencrypt, field::reencrypted)).await,
            Unary::BatchEncrypt => Box::pin(asked.answer(batch::encrypt, batch::encrypted)).await,
            Unary::BatchDecrypt => Box::pin(asked.answer(batch::decrypt, batch::decrypted)).await,
            Unary::BatchReEncrypt => {
                Box::pin(asked.answer(batch::reencrypt, batch::reencrypted)).await
            }
        }
    }
}

struct Asked<'a> {
    service: &'a Service,
    call: &'a Call,
    shape: Shape,
    message: Bytes,
    items: usize,
}

impl Asked<'_> {
    async fn answer<M, O, R>(
        self,
        parse: fn(M, &Limits) -> Result<O, Failure>,
        convert: fn(O::Output) -> R,
    ) -> Response<ReplyBody>
    where
        M: Message + Default + 'static,
        O: Operation,
        R: Message + 'static,
    {
        let Asked {
            service,
            call,
            shape,
            message,
            items,
        } = self;
        let weight = Weight {
            bytes: message.len(),
            items,
        };
        let arrival = service.arrive(call);
        let uncounted = (weight.bytes > OFFLOAD_BYTES).then_some(shape);
        let parsed = parsed(service, call, message, weight, uncounted, parse).await;
        arrival.end();
        let (parsed, items) = match parsed {
            Ok((operation, items)) => (Ok(operation), items),
            Err(failure) => (Err(failure), 0),
        };
        let room = match reply::longest(weight.bytes, items) {
            // Of short ones a connection cannot have many: its streams are bounded.
            ..=OFFLOAD_BYTES => None,
            bytes => Box::pin(call.peer.reply_room(bytes)).await.ok(),
        };
        // The rights are held until the frame is made, so that a change of rights is acknowledged after it.
        let performed = pin!(service.perform(call.clone(), parsed)).await;
        let (value, _, held) = match performed {
            Ok(reply) => reply.into_parts(),
            Err(refusal) => return status::of_refusal(&refusal).into_http(),
        };
        // Encoded here, however large: to wait for a place after the last look at the rights and the keys would let results
        // leave after they were taken back.
        match encode(&convert(value)) {
            Some(frame) => {
                let frame = match room {
                    Some(room) => reply::unread(frame, room),
                    None => frame,
                };
                let receipt = held.receipt().filter(|_| call.wants_receipt);
                reply::whole(frame, call, receipt)
            }
            None => {
                let mut status = Status::out_of_range("the reply is too long");
                status::set_request_id(&mut status, call.request_id);
                status.into_http()
            }
        }
    }
}

/// Decodes and parses a message, off this thread if it is large, which is done only for callers who may do what the RPC is
/// for. One that is `uncounted` is counted before it is decoded. Tells how many items it has, too.
///
/// # Errors
/// Why it is not valid, or the refusal.
pub(super) async fn parsed<M, O>(
    service: &Service,
    call: &Call,
    message: Bytes,
    weight: Weight,
    uncounted: Option<Shape>,
    parse: fn(M, &Limits) -> Result<O, Failure>,
) -> Result<(O, usize), Failure>
where
    M: Message + Default + 'static,
    O: Operation,
{
    if weight.is_large() {
        service.admit(call)?;
    }
    let limits = *service.core().limits();
    let work = move || {
        let items = match uncounted {
            Some(shape) => count(&message, shape, &limits)?,
            None => weight.items,
        };
        let message =
            M::decode(message).map_err(|error| Failure::invalid("message", error.to_string()))?;
        Ok((parse(message, &limits)?, items))
    };
    service.offload(weight, work).await?
}

/// The frame of a reply; `None` if it is longer than the wire allows, which is prevented before any work is done.
fn encode(reply: &impl Message) -> Option<Bytes> {
    let length = reply.encoded_len();
    let announced = u32::try_from(length).ok()?;
    if length > MAX_MESSAGE_BYTES {
        return None;
    }
    let mut frame = BytesMut::with_capacity(FRAME_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(announced);
    reply.encode_raw(&mut frame);
    Some(frame.freeze())
}
