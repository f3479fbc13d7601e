//! The answer to one message of a stream.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fieldkeep_proto::v1::ItemError;
use prost::Message;
use tokio::sync::oneshot::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

use super::Asked;
use crate::access::limits::shed::Place;
use crate::grpc::status::{OUT_OF_TIME, item_error};
use crate::grpc::unary::parsed;
use crate::service::arrival::MessageRoom;
use crate::service::call::Call;
use crate::service::failure::Failure;
use crate::service::offload::Weight;
use crate::service::perform::permit::Grounds;
use crate::service::perform::{Operation, Refusal, Reply};
use crate::service::withdrawn::Before;
use crate::service::{Limits, Service};

/// What the messages of a stream ask for, and how they are answered.
pub struct Kind<M, O: Operation, R> {
    /// What a message asks for.
    pub parse: fn(M, &Limits) -> Result<O, Failure>,
    /// The answer to a message, from what names its call and its outcome.
    pub reply: fn(Id, Result<O::Output, ItemError>) -> R,
}

/// What names the call of a message.
#[derive(Debug, Default)]
pub struct Id {
    /// Its id, 16 bytes.
    pub request_id: Bytes,
    /// The receipt of its record; empty without a result.
    pub receipt: Bytes,
}

impl<M, O: Operation, R> Clone for Kind<M, O, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, O: Operation, R> Copy for Kind<M, O, R> {}

/// A message that has come, its room among those of its connection and of all, and its place among the calls under way.
pub(super) struct Whole {
    pub(super) message: Bytes,
    pub(super) items: usize,
    pub(super) room: Option<MessageRoom>,
    pub(super) place: Option<Place>,
}

/// The answer to a message, and its place among those that its connection has not taken yet.
pub(super) struct Answered<R> {
    pub(super) reply: R,
    pub(super) unread: Option<OwnedSemaphorePermit>,
    /// What a result is looked at again for when it leaves; `None`: it is an error.
    pub(super) made: Option<Made>,
}

/// A result's call, and how things were before the work for it.
pub(super) struct Made {
    pub(super) service: Service,
    pub(super) call: Call,
    pub(super) before: Before,
    /// The grants that the result relies on.
    pub(super) grounds: Option<Grounds>,
}

/// Where an answer lies until it is taken.
type Shelf<R> = Arc<Mutex<Option<Answered<R>>>>;

/// A message at work, or its answer. What nobody takes is dropped by its own task, since nobody may ever ask for it.
pub(super) struct Work<R> {
    shelf: Shelf<R>,
    ready: oneshot::Receiver<()>,
    _task: AbortOnDropHandle<()>,
}

impl<R: Send + 'static> Work<R> {
    /// Begins to make an answer, which is kept for `kept` at most.
    pub(super) fn begin(
        answer: impl Future<Output = Answered<R>> + Send + 'static,
        kept: Duration,
    ) -> Self {
        let (made, ready) = oneshot::channel();
        let shelf = Shelf::default();
        let own = Arc::clone(&shelf);
        let task = tokio::spawn(async move {
            let answered = answer.await;
            *lock(&own) = Some(answered);
            let until = Instant::now() + kept;
            if made.send(()).is_ok() {
                sleep_until(until).await;
            }
            lock(&own).take();
        });
        Self {
            shelf,
            ready,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// The answer; `None` if it was taken too late.
    ///
    /// # Errors
    /// The task ended without one.
    pub(super) async fn take(self) -> Result<Option<Answered<R>>, RecvError> {
        self.ready.await?;
        Ok(lock(&self.shelf).take())
    }
}

/// A poisoned lock still guards a whole answer.
fn lock<R>(shelf: &Mutex<Option<Answered<R>>>) -> MutexGuard<'_, Option<Answered<R>>> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
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
    let before = asked.service.before(&asked.ended.call);
    let mut grounds = None;
    let mut receipt = None;
    let outcome = match timeout_at(until, perform(&mut asked, whole, kind.parse)).await {
        Ok(Ok(reply)) => {
            let (value, _, leave) = reply.into_parts();
            receipt = leave.receipt();
            // The rights are not held while the reply waits: it is looked at again when it leaves.
            grounds = leave.into_grounds();
            Ok(value)
        }
        Ok(Err(refusal)) => Err(item_error(&refusal.failure)),
        Err(_) => Err(out_of_time(&mut asked).await),
    };
    asked.ended.code = outcome
        .as_ref()
        .map_or_else(|error| Code::from(error.code), |_| Code::Ok);
    let call = &asked.ended.call;
    let made = outcome.is_ok().then(|| Made {
        service: asked.service.clone(),
        call: call.clone(),
        before,
        grounds,
    });
    let mut id = id_of(call);
    if let Some(receipt) = receipt.filter(|_| outcome.is_ok()) {
        id.receipt = Bytes::copy_from_slice(&receipt.to_bytes());
    }
    let reply = (kind.reply)(id, outcome);
    if let Some(unread) = &mut unread {
        shrink(unread, reply.encoded_len());
    }
    Answered {
        reply,
        unread,
        made,
    }
}

/// The reply in place of a result that may leave no more, whose refusal goes on record.
pub(super) async fn refused<M, O: Operation, R>(
    made: Made,
    failure: Failure,
    kind: Kind<M, O, R>,
) -> R {
    let Made { service, call, .. } = made;
    let id = id_of(&call);
    let refusal = service.refuse(call, failure).await;
    (kind.reply)(id, Err(item_error(&refusal.failure)))
}

fn id_of(call: &Call) -> Id {
    Id {
        request_id: Bytes::copy_from_slice(call.request_id.as_bytes()),
        receipt: Bytes::new(),
    }
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
    let (_held, parsed) = match whole {
        Ok(Whole {
            message,
            items,
            room,
            place,
        }) => {
            let weight = Weight {
                bytes: message.len(),
                items,
            };
            let (service, call) = (&asked.service, &asked.ended.call);
            (
                Some((room, place)),
                parsed(service, call, message, weight, None, parse)
                    .await
                    .map(|(operation, _)| operation),
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
