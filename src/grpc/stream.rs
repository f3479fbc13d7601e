//! Streams: RPCs with many messages, each of which is a batch and a call of its own.
//!
//! ```text
//! gate      names the call that the first message will be, admits the caller, and leaves the body to the handler
//! reader    one task a stream: reads a message when there is room for its reply, and starts
//! answer    one task a message: parses, performs, and waits for the audit trail
//! replies   what the transport polls: the answers in the order of the messages, then how the stream ends
//! ```
//!
//! The client holds the far end of every bound: if it takes no replies, the transport polls no more of them, so no slot gets
//! free, so nothing is read, so HTTP/2 lets it send no more. Dropping the replies ends the tasks.

mod answer;
mod frames;
mod reader;
mod sliced;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant as Started;

use futures_util::stream::{self, BoxStream};
use http::{Extensions, Request, Response};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Service as TowerService, ServiceExt};

pub use self::answer::Kind;
use self::answer::{Answered, Work, refused};
use self::reader::{IDLE, Reader};
use self::sliced::Sliced;
use crate::grpc::gate::{Ended, transport_failure};
use crate::grpc::routes::Route;
use crate::grpc::status;
use crate::service::Service;
use crate::service::call::Call;
use crate::service::failure::Failure;
use crate::service::perform::Operation;

/// Messages of one stream that are at work, or answered and not taken, beside the one whose answer is next.
const WAITING: usize = 3;

/// The replies of a stream.
pub type Replies<R> = BoxStream<'static, Result<R, Status>>;

/// A call of a stream. It is counted when it is dropped, and leaves a record as incomplete if it has none by then.
struct Asked {
    service: Service,
    ended: Ended,
    /// Whether the call's record is somebody else's matter.
    on_record: bool,
}

impl Asked {
    fn new(service: Service, call: Call) -> Self {
        Self {
            service,
            ended: Ended {
                code: Code::Cancelled,
                call,
            },
            on_record: false,
        }
    }

    /// Another call of the same stream.
    fn next(service: &Service, call: &Call) -> Self {
        let call = Call {
            request_id: service.core().request_ids().next(),
            started: Started::now(),
            trace: call.trace.as_ref().and_then(|trace| trace.next()),
            ..call.clone()
        };
        Self::new(service.clone(), call)
    }

    /// The call, of which a message comes only now.
    fn begun(mut self) -> Self {
        self.ended.call.started = Started::now();
        self
    }

    async fn refuse(mut self, failure: Failure) -> Status {
        self.on_record = true;
        let refusal = self.service.refuse(self.ended.call.clone(), failure).await;
        self.ended.code = refusal.failure.verdict().0;
        status::of_refusal(&refusal)
    }

    async fn expire(mut self, why: &'static str) -> Status {
        self.on_record = true;
        let mut status = match self.service.expire(self.ended.call.clone()).await {
            Ok(()) => Status::deadline_exceeded(why),
            Err(refusal) => status::of_failure(&refusal.failure),
        };
        status::set_request_id(&mut status, self.ended.call.request_id);
        self.ended.code = status.code();
        status
    }

    /// The end of a stream without any message.
    async fn unused(mut self) -> Result<(), Status> {
        self.on_record = true;
        let unused = self.service.unused(self.ended.call.clone()).await;
        unused
            .inspect(|()| self.ended.code = Code::Ok)
            .map_err(|refusal| {
                self.ended.code = refusal.failure.verdict().0;
                status::of_refusal(&refusal)
            })
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.on_record {
            drop(self.service.arrive(&self.ended.call));
        }
    }
}

/// A stream whose caller was admitted.
struct Opened {
    /// The call that its first message will be.
    first: Asked,
    body: Body,
    route: &'static Route,
    /// When the caller's own time for the whole stream is over.
    until: Option<Instant>,
}

/// Where the gate leaves a stream for its handler. Extensions have to be shared; one of the two takes it.
#[derive(Clone)]
struct Handover(Arc<Mutex<Option<Opened>>>);

impl Handover {
    fn take(&self) -> Option<Opened> {
        // A poisoned lock still guards a whole stream.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Opens a stream: the gate's part.
pub(super) async fn open<S>(
    inner: S,
    request: Request<Body>,
    service: Service,
    call: Call,
    route: &'static Route,
    until: Option<Instant>,
) -> Response<Body>
where
    S: TowerService<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let admitted = service.admit(&call);
    let longest = service.core().limits().stream_idle;
    let first = Asked::new(service, call);
    if let Err(failure) = admitted {
        return first.refuse(failure).await.into_http();
    }
    let (mut parts, body) = request.into_parts();
    let handover = Handover(Arc::new(Mutex::new(Some(Opened {
        first,
        body,
        route,
        until,
    }))));
    parts.extensions.insert(handover.clone());
    let request = Request::from_parts(parts, Body::empty());
    let Ok(response) = inner.oneshot(request).await;
    match handover.take() {
        None => response.map(|body| Body::new(Sliced::new(body, longest))),
        Some(Opened { first, .. }) => {
            let failure = transport_failure(&first.ended.call, response.headers());
            first.refuse(failure).await.into_http()
        }
    }
}

/// Answers the messages of a stream: the handler's part.
///
/// # Errors
/// If the request did not pass the gate.
pub(super) fn answer_all<M, O, R>(
    extensions: &Extensions,
    kind: Kind<M, O, R>,
) -> Result<tonic::Response<Replies<R>>, Status>
where
    M: Message + Default + 'static,
    O: Operation,
    R: Message + 'static,
{
    let opened = extensions.get::<Handover>().and_then(Handover::take);
    let Some(opened) = opened else {
        let failure = Failure::internal("a request that did not pass the gate");
        return Err(status::of_failure(&failure));
    };
    let (reader, first) = Reader::new(opened, kind);
    let (sender, work) = mpsc::channel(WAITING);
    let state = State {
        work,
        reader: Some(AbortOnDropHandle::new(tokio::spawn(
            reader.run(first, sender),
        ))),
        unread: None,
        kind,
    };
    let replies = stream::unfold(state, |mut state| async move {
        let reply = state.next().await?;
        Some((reply, state))
    });
    Ok(tonic::Response::new(Box::pin(replies)))
}

/// The replies of a stream on their way.
struct State<M, O: Operation, R> {
    work: mpsc::Receiver<Work<R>>,
    reader: Option<AbortOnDropHandle<Result<(), Status>>>,
    /// The room of the reply that the transport has; it is free when the transport asks for the next one.
    unread: Option<OwnedSemaphorePermit>,
    kind: Kind<M, O, R>,
}

impl<M, O: Operation, R: Send + 'static> State<M, O, R> {
    async fn next(&mut self) -> Option<Result<R, Status>> {
        self.unread = None;
        if let Some(work) = self.work.recv().await {
            return Some(match work.take().await {
                Ok(Some(answered)) => Ok(self.checked(answered).await),
                Ok(None) => {
                    self.stop();
                    Err(Status::deadline_exceeded(IDLE))
                }
                Err(stopped) => Err(status::of_failure(&Failure::internal(stopped))),
            });
        }
        match self.reader.take()?.await {
            Ok(ended) => ended.err().map(Err),
            Err(stopped) => Some(Err(status::of_failure(&Failure::internal(stopped)))),
        }
    }

    /// The answer as it may leave now, which may be long after it was made.
    async fn checked(&mut self, answered: Answered<R>) -> R {
        let Answered {
            reply,
            unread,
            made,
        } = answered;
        self.unread = unread;
        let Some(made) = made else { return reply };
        match made
            .service
            .may_leave(&made.call, made.before, made.grounds.as_ref())
        {
            Ok(()) => reply,
            Err(failure) => refused(made, failure, self.kind).await,
        }
    }

    /// Ends all that is under way.
    fn stop(&mut self) {
        self.reader = None;
        self.work.close();
        while self.work.try_recv().is_ok() {}
    }
}

#[cfg(test)]
mod tests;
