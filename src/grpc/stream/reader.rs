//! Reads the messages of a stream, and has each one answered by a task of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{Permit as Slot, Sender};
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::answer::{Kind, Whole, Work, answer, shrink};
use super::frames::{Frames, Stop};
use super::{Asked, Opened};
use crate::access::limits::shed::Place;
use crate::grpc::receive::{SHORT_BYTES, count};
use crate::grpc::reply::longest;
use crate::grpc::routes::{MAX_MESSAGE_BYTES, Route};
use crate::grpc::status::{self, OUT_OF_TIME};
use crate::service::call::Call;
use crate::service::failure::Failure;
use crate::service::perform::Operation;
use crate::service::{Core, Service};

/// What a caller is told whose stream was idle.
pub(super) const IDLE: &str = "the stream had no message, or its replies were not taken, for too long; open another when there is a message";

/// Why no further message is read.
enum End {
    Stopped(Stop),
    Draining,
    /// Out of time; what the caller is told.
    Late(&'static str),
}

impl From<Stop> for End {
    fn from(stop: Stop) -> Self {
        Self::Stopped(stop)
    }
}

impl End {
    /// How the stream ends. `asked` is the call that this leaves unanswered, which goes on record, if there is one.
    async fn status(self, asked: Option<Asked>) -> Result<(), Status> {
        match (self, asked) {
            // Nobody hears it. A call that is dropped leaves its record.
            (Self::Stopped(Stop::Gone), _) => Ok(()),
            (Self::Stopped(Stop::Broken(failure)), None) => Err(status::of_failure(&failure)),
            (Self::Stopped(Stop::Broken(failure)), Some(asked)) => Err(asked.refuse(failure).await),
            (Self::Draining, None) => Err(status::of_failure(&Failure::ShuttingDown)),
            (Self::Draining, Some(asked)) => Err(asked.refuse(Failure::ShuttingDown).await),
            (Self::Late(why), None) => Err(Status::deadline_exceeded(why)),
            (Self::Late(why), Some(asked)) => Err(asked.expire(why).await),
        }
    }
}

/// How long the stream may wait for anything.
struct Patience {
    core: Arc<Core>,
    /// When the caller's own time is over, if it set one.
    until: Option<Instant>,
}

impl Patience {
    /// When something that begins now and may take `most` has to end.
    fn until(&self, most: Duration) -> Instant {
        let latest = Instant::now() + most;
        self.until.map_or(latest, |own| own.min(latest))
    }

    /// Waits for `event`, unless the service shuts down, the caller's own time is over, or it takes longer than `most`,
    /// which is `why` then.
    async fn wait<T>(
        &self,
        most: Duration,
        why: &'static str,
        event: impl Future<Output = Result<T, Stop>>,
    ) -> Result<T, End> {
        let until = self.until(most);
        let why = if Some(until) == self.until {
            OUT_OF_TIME
        } else {
            why
        };
        tokio::select! {
            biased;
            () = self.core.drained() => Err(End::Draining),
            event = event => Ok(event?),
            () = sleep_until(until) => Err(End::Late(why)),
        }
    }
}

/// Reads the messages of one stream.
pub(super) struct Reader<M, O: Operation, R> {
    service: Service,
    frames: Frames,
    route: &'static Route,
    patience: Patience,
    kind: Kind<M, O, R>,
}

impl<M, O, R> Reader<M, O, R>
where
    M: Message + Default + 'static,
    O: Operation,
    R: Message + 'static,
{
    /// The reader of an opened stream, and the call that its first message is.
    pub(super) fn new(opened: Opened, kind: Kind<M, O, R>) -> (Self, Asked) {
        let service = opened.first.service.clone();
        let reader = Self {
            patience: Patience {
                core: Arc::clone(service.core()),
                until: opened.until,
            },
            service,
            frames: Frames::new(opened.body),
            route: opened.route,
            kind,
        };
        (reader, opened.first)
    }

    /// Reads messages until there are no more, and sends the work for each to `work`, in order. Its room bounds how many are
    /// under way; none is read while there is no room.
    ///
    /// # Errors
    /// How the stream ends, if not because the caller has no more messages.
    pub(super) async fn run(mut self, first: Asked, work: Sender<Work<R>>) -> Result<(), Status> {
        let template = first.ended.call.clone();
        let mut first = Some(first);
        loop {
            let slot = match self.begin(&work).await {
                Ok(Some(slot)) => slot,
                Ok(None) => match first {
                    Some(asked) => return asked.unused().await,
                    None => return Ok(()),
                },
                Err(end) => return end.status(first).await,
            };
            let asked = match first.take() {
                Some(asked) => asked.begun(),
                None => Asked::next(&self.service, &template),
            };
            let (whole, unread) = match self.receive(&asked.ended.call).await {
                Ok(received) => received,
                Err(end) => return end.status(Some(asked)).await,
            };
            let until = self.patience.until(self.route.deadline);
            let answer = answer(asked, whole, unread, until, self.kind);
            let kept = self.service.core().limits().stream_idle;
            slot.send(Work::begin(answer, kept));
        }
    }

    /// Waits until there is room for a message and one begins; `None`: there are no more.
    async fn begin<'w>(
        &mut self,
        work: &'w Sender<Work<R>>,
    ) -> Result<Option<Slot<'w, Work<R>>>, End> {
        let frames = &mut self.frames;
        let begin = async {
            let slot = work.reserve().await.map_err(|_| Stop::Gone)?;
            Ok(frames.begin().await?.then_some(slot))
        };
        let idle = self.service.core().limits().stream_idle;
        self.patience.wait(idle, IDLE, begin).await
    }

    /// Reads the message of `call`, or past it if it is refused, and takes room for its reply first.
    async fn receive(
        &mut self,
        call: &Call,
    ) -> Result<(Result<Whole, Failure>, Option<OwnedSemaphorePermit>), End> {
        let Self {
            service,
            frames,
            route,
            patience,
            ..
        } = self;
        let limits = service.core().limits();
        let idle = limits.stream_idle;
        let length = patience.wait(idle, IDLE, frames.length()).await?;
        let place = match admit(service, call, length) {
            Ok(place) => place,
            Err(failure) if length > MAX_MESSAGE_BYTES => return Err(Stop::Broken(failure).into()),
            Err(failure) => {
                let skipped = patience.wait(route.deadline, OUT_OF_TIME, frames.skip(length));
                skipped.await?;
                return Ok((Err(failure), None));
            }
        };

        // An item takes two bytes at least.
        let bytes = longest(length, length / 2).min(limits.reply_bytes);
        let unread = async { call.peer.reply_room(bytes).await.map_err(Stop::Broken) };
        let mut unread = patience.wait(idle, IDLE, unread).await?;
        let received = async {
            let room = match length {
                ..=SHORT_BYTES => None,
                _ => {
                    let room = service.message_room(&call.peer, length).await;
                    Some(room.map_err(Stop::Broken)?)
                }
            };
            Ok((frames.message(length).await?, room))
        };
        let (message, room): (Bytes, _) =
            patience.wait(route.deadline, OUT_OF_TIME, received).await?;
        let counted = count(&message, route.shape, limits);
        let whole = counted.map(|items| {
            shrink(&mut unread, longest(message.len(), items));
            Whole {
                message,
                items,
                room,
                place,
            }
        });
        Ok((whole, Some(unread)))
    }
}

/// Whether a message of `length` bytes is read at all, and its place among the calls under way.
fn admit(service: &Service, call: &Call, length: usize) -> Result<Option<Place>, Failure> {
    let limit = call.request_bytes;
    if length > limit {
        return Err(Failure::RequestTooLarge { limit });
    }
    if length > SHORT_BYTES {
        service.admit(call)?;
    }
    // Nobody knows how long it has waited: its caller sends it when he likes.
    service.place(call, None)
}
