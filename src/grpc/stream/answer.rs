//! The answer to one message of a stream.

use bytes::Bytes;
use fieldkeep_proto::v1::ItemError;
use prost::Message;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tonic::Code;

use super::Asked;
use crate::grpc::status::{OUT_OF_TIME, item_error};
use crate::grpc::unary::parsed;
use crate::service::Limits;
use crate::service::failure::Failure;
use crate::service::offload::Weight;
use crate::service::perform::{Operation, Refusal, Reply};

/// What the messages of a stream ask for, and how they are answered.
pub struct Kind<M, O: Operation, R> {
    /// What a message asks for.
    pub parse: fn(M, &Limits) -> Result<O, Failure>,
    /// The answer to a message, from its call's id and its outcome.
    pub reply: fn(Bytes, Result<O::Output, ItemError>) -> R,
}

impl<M, O: Operation, R> Clone for Kind<M, O, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, O: Operation, R> Copy for Kind<M, O, R> {}

/// A message that has come, and its place among the messages of all connections.
pub(super) struct Whole {
    pub(super) message: Bytes,
    pub(super) items: usize,
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// The answer to a message, and its place among those that its connection has not taken yet.
pub(super) struct Answered<R> {
    pub(super) reply: R,
    pub(super) unread: Option<OwnedSemaphorePermit>,
}

/// Does what a message asks for, by `until`. `whole` may be a refusal already, which goes on record as any other.
pub(super) async fn answer<M, O, R>(
    mut asked: Asked,
    whole: Result<Whole, Failure>,
    mut unread: Option<OwnedSemaphorePermit>,
    until: Instant,
    kind: Kind<M, O, R>,
) -> Answered<R>
where
    M: Message + Default + 'static,
    O: Operation,
    R: Message,
{
    let outcome = match timeout_at(until, perform(&mut asked, whole, kind.parse)).await {
        Ok(Ok(reply)) => Ok(reply.into_parts().0),
        Ok(Err(refusal)) => Err(item_error(&refusal.failure)),
        Err(_) => Err(out_of_time(&mut asked).await),
    };
    asked.ended.code = outcome
        .as_ref()
        .map_or_else(|error| Code::from(error.code), |_| Code::Ok);
    let id = Bytes::copy_from_slice(asked.ended.call.request_id.as_bytes());
    let reply = (kind.reply)(id, outcome);
    if let Some(unread) = &mut unread {
        shrink(unread, reply.encoded_len());
    }
    Answered { reply, unread }
}

async fn perform<M, O>(
    asked: &mut Asked,
    whole: Result<Whole, Failure>,
    parse: fn(M, &Limits) -> Result<O, Failure>,
) -> Result<Reply<O::Output>, Refusal>
where
    M: Message + Default + 'static,
    O: Operation,
{
    let (_room, parsed) = match whole {
        Ok(Whole {
            message,
            items,
            room,
        }) => {
            let weight = Weight {
                bytes: message.len(),
                items,
            };
            let (service, call) = (&asked.service, &asked.ended.call);
            (
                room,
                parsed(service, call, message, weight, None, parse).await,
            )
        }
        Err(refused) => (None, Err(refused)),
    };
    asked.on_record = true;
    asked
        .service
        .perform(asked.ended.call.clone(), parsed)
        .await
}

/// The answer to a message that took too long. What was done by then has a record of its own.
async fn out_of_time(asked: &mut Asked) -> ItemError {
    asked.on_record = true;
    match asked.service.expire(asked.ended.call.clone()).await {
        Ok(()) => ItemError {
            code: Code::DeadlineExceeded.into(),
            reason: String::new(),
            message: OUT_OF_TIME.to_owned(),
        },
        Err(refusal) => item_error(&refusal.failure),
    }
}

/// Gives back all of `room` but `bytes`.
pub(super) fn shrink(room: &mut OwnedSemaphorePermit, bytes: usize) {
    let spare = room.num_permits().saturating_sub(bytes);
    drop(room.split(spare));
}
