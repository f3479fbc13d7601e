//! The HTTP/2 server of one listener on one runtime.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use fieldkeep_crypto::random;
use fieldkeep_proto::v1::access_service_server::AccessServiceServer;
use fieldkeep_proto::v1::api_key_service_server::ApiKeyServiceServer;
use fieldkeep_proto::v1::audit_service_server::AuditServiceServer;
use fieldkeep_proto::v1::certificate_service_server::CertificateServiceServer;
use fieldkeep_proto::v1::field_service_server::FieldServiceServer;
use fieldkeep_proto::v1::issuer_service_server::IssuerServiceServer;
use fieldkeep_proto::v1::key_service_server::KeyServiceServer;
use fieldkeep_proto::v1::limit_service_server::LimitServiceServer;
use fieldkeep_proto::v1::mask_service_server::MaskServiceServer;
use fieldkeep_proto::v1::system_service_server::SystemServiceServer;
use fieldkeep_proto::v1::tenant_service_server::TenantServiceServer;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower::Service as TowerService;
use tower::util::BoxCloneSyncService;

use crate::grpc::gate::Gate;
use crate::grpc::handlers::Handlers;
use crate::grpc::routes::{ADMIN_BYTES, BATCH_BYTES, Listener, MAX_MESSAGE_BYTES};
use crate::grpc::tls::TlsConnection;
use crate::service::Service;
use crate::service::call::Peer;
use crate::telemetry::Metrics;
use crate::telemetry::trace::Tracer;

/// Streams that a client may have open on one connection.
const MAX_STREAMS: u32 = 256;
/// The longest message of health and reflection, bytes.
const TRANSPORT_BYTES: usize = 4 * 1024;
/// The longest header list of a request, bytes.
const MAX_HEADERS_BYTES: u32 = 16 * 1024;
/// What a client may send on one stream, and on one connection, before it has to wait, bytes.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// The longest frame that a client may send, bytes; the least that HTTP/2 allows.
const MAX_FRAME_BYTES: u32 = 16 * 1024;
/// What is kept of a stream's reply until its client takes it, bytes.
const SEND_BUFFER_BYTES: usize = 400 * 1024;
/// Streams of a connection that its client reset before they were looked at, and streams that this end reset because of
/// the client's errors: one more ends the connection. Each costs work that nobody waits for.
const MAX_RESET_BEFORE_ACCEPTED: usize = 20;
const MAX_RESET_FOR_ERRORS: usize = 1024;
/// How often a silent connection is asked whether it lives, and how long it has to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The names of the services that the health service reports on, besides "" for all.
pub const SERVICE_NAMES: &[&str] = &[
    <FieldServiceServer<Handlers> as NamedService>::NAME,
    <KeyServiceServer<Handlers> as NamedService>::NAME,
    <TenantServiceServer<Handlers> as NamedService>::NAME,
    <AccessServiceServer<Handlers> as NamedService>::NAME,
    <MaskServiceServer<Handlers> as NamedService>::NAME,
    <CertificateServiceServer<Handlers> as NamedService>::NAME,
    <ApiKeyServiceServer<Handlers> as NamedService>::NAME,
    <IssuerServiceServer<Handlers> as NamedService>::NAME,
    <LimitServiceServer<Handlers> as NamedService>::NAME,
    <AuditServiceServer<Handlers> as NamedService>::NAME,
    <SystemServiceServer<Handlers> as NamedService>::NAME,
];

/// By which part of it the age of a connection differs, more or less.
pub const AGE_JITTER: f64 = 0.1;

/// What is served, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Which RPCs.
    pub listener: Listener,
    /// A connection that is so old, a tenth more or less, is told to go (GOAWAY): no new calls, the running ones end.
    pub age: Duration,
}

/// Serves the connections of `incoming` until `shutdown`, then lets running calls end.
pub async fn serve(
    service: Service,
    kind: Kind,
    metrics: &Metrics,
    tracer: Option<Tracer>,
    health: HealthReporter,
    mut incoming: mpsc::Receiver<TlsConnection>,
    shutdown: impl Future<Output = ()>,
) {
    let Kind { listener, age } = kind;
    let router = Router::new(Handlers::new(service.clone()), listener, health);
    let gate = Gate::new(service, listener, metrics, tracer, router);
    let (connections, stop) = (TaskTracker::new(), CancellationToken::new());
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            connection = incoming.recv() => match connection {
                None => break,
                Some(connection) => {
                    let peer = Arc::clone(connection.peer());
                    let serving = serve_connection(
                        connection,
                        peer,
                        gate.clone(),
                        jittered(age),
                        stop.clone(),
                    );
                    connections.spawn(serving);
                }
            },
        }
    }
    // Those that are still on their way to this close at once.
    drop(incoming);
    stop.cancel();
    connections.close();
    connections.wait().await;
}

/// An age up to a tenth less or more, so that clients which came together do not come back together.
fn jittered(age: Duration) -> Duration {
    let mut draw = [0];
    // Without random numbers all get the same.
    let part = random::fill(&mut draw).map_or(0.5, |()| f64::from(u8::from_be_bytes(draw)) / 255.0);
    age.mul_f64(1.0 - AGE_JITTER + 2.0 * AGE_JITTER * part)
}

/// Serves one connection until it ends, or until its calls have ended after `stop` or when it was `age` old.
///
/// Whoever keeps a call open for ever is cut off by the sweep of connections.
async fn serve_connection(
    connection: impl AsyncRead + AsyncWrite + Unpin,
    peer: Arc<Peer>,
    gate: Gate<Router>,
    age: Duration,
    stop: CancellationToken,
) {
    let answer = service_fn(move |request: Request<Incoming>| gate.answer(&peer, request));
    let mut serving = pin!(http2().serve_connection(TokioIo::new(connection), answer));
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = tokio::time::sleep(age) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection failed");
    }
}

/// The settings of HTTP/2: everything that a client may have is bounded.
fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(MAX_RESET_BEFORE_ACCEPTED)
        .max_local_error_reset_streams(MAX_RESET_FOR_ERRORS)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        // gRPC has no use for the date, and each reply would carry it.
        .auto_date_header(false);
    builder
}

/// Finds the service of a path. The paths are few and known, so that no general router is needed.
#[derive(Clone)]
struct Router {
    field: FieldServiceServer<Handlers>,
    others: Arc<Vec<(&'static str, Boxed)>>,
}

type Boxed = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;
type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl Router {
    fn new(handlers: Handlers, listener: Listener, health: HealthReporter) -> Self {
        let field = FieldServiceServer::new(handlers.clone())
            .max_decoding_message_size(BATCH_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let mut others = Vec::new();
        add(
            &mut others,
            HealthServer::new(HealthService::from_health_reporter(health))
                .max_decoding_message_size(TRANSPORT_BYTES),
        );
        add(
            &mut others,
            CertificateServiceServer::new(handlers.clone()).max_decoding_message_size(ADMIN_BYTES),
        );
        add(
            &mut others,
            LimitServiceServer::new(handlers.clone()).max_decoding_message_size(ADMIN_BYTES),
        );
        if listener == Listener::Admin {
            add_admin(&mut others, handlers);
        }
        Self {
            field,
            others: Arc::new(others),
        }
    }
}

fn add<S>(services: &mut Vec<(&'static str, Boxed)>, service: S)
where
    S: NamedService + Clone + Send + Sync + 'static,
    S: TowerService<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    services.push((S::NAME, BoxCloneSyncService::new(service)));
}

fn add_admin(services: &mut Vec<(&'static str, Boxed)>, handlers: Handlers) {
    add(
        services,
        KeyServiceServer::new(handlers.clone()).max_decoding_message_size(ADMIN_BYTES),
    );
    add(
        services,
        TenantServiceServer::new(handlers.clone()).max_decoding_message_size(ADMIN_BYTES),
    );
    add(
        services,
        AccessServiceServer::new(handlers.clone()).max_decoding_message_size(ADMIN_BYTES),
    );
    add(
        services,
        ApiKeyServiceServer::new(handlers.clone()).max_decoding_message_size(ADMIN_BYTES),
    );
    add(
        services,
        IssuerServiceServer::new(handlers.clone()).max_decoding_message_size(ADMIN_BYTES),
    );
    add(
        services,
        MaskServiceServer::new(handlers.clone()).max_decoding_message_size(ADMIN_BYTES),
    );
    add(
        services,
        AuditServiceServer::new(handlers.clone()).max_decoding_message_size(ADMIN_BYTES),
    );
    add(
        services,
        SystemServiceServer::new(handlers).max_decoding_message_size(ADMIN_BYTES),
    );
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(fieldkeep_proto::v1::FILE_DESCRIPTOR_SET)
        .build_v1();
    match reflection {
        Ok(reflection) => add(
            services,
            reflection.max_decoding_message_size(TRANSPORT_BYTES),
        ),
        Err(error) => tracing::error!(%error, "no reflection: the descriptors cannot be read"),
    }
}

impl TowerService<Request<Body>> for Router {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let name = request
            .uri()
            .path()
            .get(1..)
            .and_then(|path| path.rsplit_once('/'))
            .map_or("", |(name, _)| name);
        if name == <FieldServiceServer<Handlers> as NamedService>::NAME {
            return self.field.call(request);
        }
        match self.others.iter().find(|(other, _)| *other == name) {
            Some((_, service)) => Box::pin(service.clone().call(request)),
            None => Box::pin(ready(Ok(Status::unimplemented(
                "this listener does not serve that RPC",
            )
            .into_http()))),
        }
    }
}

#[cfg(test)]
mod tests;
