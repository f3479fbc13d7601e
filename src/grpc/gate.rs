//! The gate in front of all handlers: finds the RPC's row, names the call, bounds its time, counts it, and sees to it that
//! a request that the transport itself refuses is in the audit trail too.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::DATE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Body as HttpBody;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Service as TowerService, ServiceExt};

use crate::grpc::receive::{Received, receive};
use crate::grpc::reply::ReplyBody;
use crate::grpc::routes::{self, Listener, ROUTES, Route};
use crate::grpc::status::{self, REQUEST_ID_METADATA};
use crate::grpc::stream;
use crate::service::Service;
use crate::service::arrival::Arrival;
use crate::service::call::{Call, Peer, WITHOUT_CERTIFICATE};
use crate::service::failure::Failure;
use crate::telemetry::trace::Tracer;
use crate::telemetry::{Metrics, RpcMetrics};

/// The gate of one listener on one runtime; `S` are the handlers behind it.
pub struct Gate<S> {
    shared: Arc<Shared<S>>,
}

impl<S> Clone for Gate<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

struct Shared<S> {
    service: Service,
    listener: Listener,
    inner: S,
    /// One for each row of [`ROUTES`].
    metrics: Vec<Arc<RpcMetrics>>,
    unrouted: Arc<RpcMetrics>,
    /// `None`: no traces.
    tracer: Option<Tracer>,
}

/// What becomes of a request, in the form that the HTTP/2 server takes.
pub type Answer = Pin<Box<dyn Future<Output = Result<Response<ReplyBody>, Infallible>> + Send>>;

impl<S> Gate<S>
where
    S: TowerService<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    /// The gate of `listener` before `inner`, on one runtime.
    #[must_use]
    pub fn new(
        service: Service,
        listener: Listener,
        metrics: &Metrics,
        tracer: Option<Tracer>,
        inner: S,
    ) -> Self {
        let shared = Shared {
            service,
            listener,
            inner,
            metrics: ROUTES
                .iter()
                .map(|route| metrics.rpc(route.rpc()))
                .collect(),
            unrouted: metrics.rpc("unrouted"),
            tracer,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Answers one request of `peer`.
    pub fn answer<B>(&self, peer: &Arc<Peer>, request: Request<B>) -> Answer
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let path = request.uri().path();
        let Some(row) = routes::find(path, self.shared.listener) else {
            if routes::is_transport(path, self.shared.listener) {
                if peer.authentication == WITHOUT_CERTIFICATE {
                    let refused = Status::unauthenticated(NO_CERTIFICATE).into_http();
                    return Box::pin(ready(Ok(refused)));
                }
                let date = http_date(self.shared.service.core().now_us());
                let inner = self.shared.inner.clone();
                return Box::pin(pass_by(inner, request.map(Body::new), date));
            }
            return Box::pin(ready(Ok(self.shared.unrouted(path))));
        };
        let Some(arriving) = self.shared.name(row, peer, &request) else {
            let missing = status::of_failure(&Failure::internal("a row without its metrics"));
            return Box::pin(ready(Ok(missing.into_http())));
        };
        let shared = Arc::clone(&self.shared);
        let Arriving { call, route, until } = arriving;
        if route.stream {
            let mut call = call;
            let own = callers_time(request.headers());
            let own = own.and_then(|own| Instant::now().checked_add(own));
            let (inner, service) = (shared.inner.clone(), shared.service.clone());
            let request = request.map(Body::new);
            return Box::pin(async move {
                if let Err(refusal) = service
                    .authenticate(&mut call, request.headers(), until)
                    .await
                {
                    return Ok(status::of_refusal(&refusal).into_http());
                }
                let opened = stream::open(inner, request, service, call, route, own).await;
                Ok(opened.map(ReplyBody::from))
            });
        }
        // A future is as large as the largest that it may await, and here every call writes one anew. So what few calls await is
        // boxed, here and in all that is awaited below; and what all await is pinned where it is made, since `await` alone moves it there.
        Box::pin(async move {
            let mut ended = Ended {
                code: Code::Cancelled,
                call,
            };
            // How long this task has waited for its turn, which no caller has a part in.
            let waited = ended.call.started.elapsed();
            if !route.open {
                let authenticated =
                    shared
                        .service
                        .authenticate(&mut ended.call, request.headers(), until);
                if let Err(refusal) = authenticated.await {
                    ended.code = refusal.failure.verdict().0;
                    return Ok(status::of_refusal(&refusal).into_http());
                }
            }
            let call = &ended.call;
            let _place = match shared.service.place(call, Some(waited)) {
                Ok(place) => place,
                Err(failure) => {
                    let refusal = Box::pin(shared.service.refuse(call.clone(), failure)).await;
                    ended.code = refusal.failure.verdict().0;
                    return Ok(status::of_refusal(&refusal).into_http());
                }
            };
            let mut arrival = Some(shared.service.arrive(call));
            let handled = {
                let handled = pin!(shared.handle(request, call, route, &mut arrival));
                tokio::time::timeout_at(until, handled).await
            };
            if let Some(arrival) = arrival.take() {
                arrival.end();
            }
            let response = match handled {
                Ok(response) => response,
                Err(_) => Box::pin(shared.out_of_time(call)).await,
            };
            ended.code = code_of(&response);
            Ok(response)
        })
    }
}

/// Lets handlers answer that are no call of the service.
async fn pass_by<S>(
    inner: S,
    request: Request<Body>,
    date: Option<HeaderValue>,
) -> Result<Response<ReplyBody>, Infallible>
where
    S: TowerService<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let mut response = inner.oneshot(request).await?;
    if let Some(date) = date {
        response.headers_mut().insert(DATE, date);
    }
    Ok(response.map(ReplyBody::from))
}

/// The time as a `date` header has it (RFC 9110, section 5.6.7). Health answers carry it, so that others can compare clocks.
fn http_date(now_us: u64) -> Option<HeaderValue> {
    const FORMAT: &[BorrowedFormatItem<'_>] = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let seconds = i64::try_from(now_us / 1_000_000).ok()?;
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    HeaderValue::from_str(&time.format(FORMAT).ok()?).ok()
}

/// A call, its row, and when it has to end.
struct Arriving {
    call: Call,
    route: &'static Route,
    until: Instant,
}

impl<S> Shared<S>
where
    S: TowerService<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    fn name<B>(&self, row: usize, peer: &Arc<Peer>, request: &Request<B>) -> Option<Arriving> {
        let route = ROUTES.get(row)?;
        let now = Instant::now();
        let call = Call {
            peer: Arc::clone(peer),
            request_id: self.service.core().request_ids().next(),
            started: now.into_std(),
            rpc: route.rpc(),
            action: route.action,
            request_bytes: route.body_bytes,
            wants_receipt: request.headers().contains_key(status::RECEIPT),
            metrics: Arc::clone(self.metrics.get(row)?),
            trace: self
                .tracer
                .as_ref()
                .and_then(|tracer| tracer.begin(request.headers())),
        };
        Some(Arriving {
            call,
            route,
            until: now + deadline(route.deadline, request.headers()),
        })
    }

    /// Receives the message, which ends its `arrival`, and does what it asks for: unary calls of `FieldService` here, all
    /// others by the handlers.
    async fn handle<B>(
        &self,
        request: Request<B>,
        call: &Call,
        route: &'static Route,
        arrival: &mut Option<Arrival<'_>>,
    ) -> Response<ReplyBody>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: std::error::Error,
    {
        let (parts, body) = request.into_parts();
        let received = receive(&self.service, call, route.shape, body).await;
        if let Some(arrival) = arrival.take() {
            arrival.end();
        }
        let received = match received {
            Ok(received) => received,
            Err(failure) => {
                let refusal = Box::pin(self.service.refuse(call.clone(), failure)).await;
                return status::of_refusal(&refusal).into_http();
            }
        };
        match route.unary {
            Some(unary) => {
                let answer = unary.answer(&self.service, call, route.shape, received);
                pin!(answer).await
            }
            None => Box::pin(self.pass_on(parts, call, received))
                .await
                .map(ReplyBody::from),
        }
    }

    /// Lets tonic's handlers answer a call.
    async fn pass_on(&self, mut parts: Parts, call: &Call, received: Received) -> Response<Body> {
        parts.extensions.insert(call.clone());
        let request = Request::from_parts(parts, Body::new(Full::new(received.frame)));
        let Ok(response) = self.inner.clone().oneshot(request).await;
        drop(received.room);
        self.audit_transport_refusal(call, response).await
    }

    /// The reply to a call that took too long. It too leaves after its record is durable; the part of the call that was
    /// dropped before this left one of its own that says what it had done.
    async fn out_of_time(&self, call: &Call) -> Response<ReplyBody> {
        let request_id = call.request_id;
        if let Err(refusal) = self.service.expire(call.clone()).await {
            return status::of_refusal(&refusal).into_http();
        }
        let mut status = Status::deadline_exceeded(status::OUT_OF_TIME);
        status::set_request_id(&mut status, request_id);
        status.into_http()
    }

    fn unrouted(&self, path: &str) -> Response<ReplyBody> {
        self.unrouted
            .ended(Code::Unimplemented.into(), Duration::ZERO);
        let shown: String = path.chars().take(100).collect();
        tracing::debug!(path = shown, listener = ?self.listener, "no such RPC on this listener");
        Status::unimplemented("this listener does not serve that RPC").into_http()
    }

    /// A refusal without a call's id came from below the handlers: the message was too long or not one. It goes through
    /// the service like any other refusal.
    async fn audit_transport_refusal(
        &self,
        call: &Call,
        response: Response<Body>,
    ) -> Response<Body> {
        let headers = response.headers();
        if headers.contains_key(REQUEST_ID_METADATA) {
            return response;
        }
        let failure = transport_failure(call, headers);
        tracing::debug!(rpc = call.rpc, %failure, "refused before it was parsed");
        status::of_refusal(&self.service.refuse(call.clone(), failure).await).into_http()
    }
}

/// Why the transport refused a request, from the headers of its reply.
pub(super) fn transport_failure(call: &Call, headers: &HeaderMap) -> Failure {
    match Status::from_header_map(headers) {
        Some(status) if status.code() == Code::OutOfRange => Failure::RequestTooLarge {
            limit: call.request_bytes,
        },
        Some(status) => Failure::invalid("message", status.message().to_owned()),
        None => Failure::internal("a reply that did not come from the service"),
    }
}

/// What whoever has no certificate is told by the transport's own services.
const NO_CERTIFICATE: &str = "the connection has no client certificate";

/// The header with the caller's own deadline.
const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("grpc-timeout");

/// What is kept of a caller's time for the record of a call that does not end within it, at most.
const RECORD_TIME: Duration = Duration::from_millis(100);

/// How long the call may take: a little less than the caller waits, and no longer than its row says.
///
/// A caller does not wait for the answer of a call that ran until its own deadline; the gate has to be done before.
fn deadline(longest: Duration, headers: &HeaderMap) -> Duration {
    callers_time(headers).map_or(longest, |own| own.min(longest))
}

/// A little less than the caller waits, if it says how long that is.
fn callers_time(headers: &HeaderMap) -> Option<Duration> {
    let wanted = parse_timeout(headers.get(TIMEOUT_HEADER)?.as_bytes())?;
    Some(wanted - (wanted / 4).min(RECORD_TIME))
}

/// At most eight digits and a unit, as the gRPC protocol has it; what is malformed counts as absent.
fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(count.saturating_mul(3600))),
        b'M' => Some(Duration::from_secs(count.saturating_mul(60))),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// The code of a response: in its headers if it has no message, otherwise the call succeeded.
fn code_of(response: &Response<ReplyBody>) -> Code {
    if response.body().is_success() {
        return Code::Ok;
    }
    response
        .headers()
        .get("grpc-status")
        .map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()))
}

/// Counts the call when it ends, however it does.
pub(super) struct Ended {
    pub(super) code: Code,
    pub(super) call: Call,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let call = &self.call;
        call.metrics.ended(self.code.into(), call.started.elapsed());
        if let Some(trace) = &call.trace {
            let id = *call.request_id.as_bytes();
            trace.end(call.rpc, id, self.code.into(), call.started);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_as_http_has_it() {
        let date = http_date(784_111_777_000_000).unwrap();
        assert_eq!(date, "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn a_caller_may_ask_for_less_time_and_not_for_more() {
        let with = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT_HEADER, text.parse().unwrap());
            deadline(Duration::from_secs(10), &headers)
        };
        assert_eq!(with("8u"), Duration::from_micros(6));
        assert_eq!(with("8n"), Duration::from_nanos(6));
        assert_eq!(with("0S"), Duration::ZERO);
        // The caller's own timer ends these at what they say; the record must be durable by then.
        assert_eq!(with("200m"), Duration::from_millis(150));
        assert_eq!(with("10S"), Duration::from_millis(9_900));
        for longer in ["11S", "1M", "99999999H"] {
            assert_eq!(with(longer), Duration::from_secs(10), "{longer}");
        }
        for malformed in ["", "S", "5", "-5S", "1.5S", "123456789n", "5s"] {
            assert_eq!(with(malformed), Duration::from_secs(10), "{malformed}");
        }
    }
}
