//! The HTTP/2 server of one listener on one runtime.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use fieldkeep_proto::v1::access_service_server::AccessServiceServer;
use fieldkeep_proto::v1::audit_service_server::AuditServiceServer;
use fieldkeep_proto::v1::field_service_server::FieldServiceServer;
use fieldkeep_proto::v1::key_service_server::KeyServiceServer;
use fieldkeep_proto::v1::system_service_server::SystemServiceServer;
use fieldkeep_proto::v1::tenant_service_server::TenantServiceServer;
use http::{Request, Response};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower::Service as TowerService;
use tower::util::BoxCloneSyncService;

use crate::grpc::gate::GateLayer;
use crate::grpc::handlers::Handlers;
use crate::grpc::routes::{ADMIN_BYTES, BATCH_BYTES, Listener, MAX_MESSAGE_BYTES};
use crate::grpc::tls::TlsConnection;
use crate::service::Service;
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
/// How often a silent connection is asked whether it lives, and how long it has to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The names of the services that the health service reports on, besides "" for all.
pub const SERVICE_NAMES: [&str; 6] = [
    <FieldServiceServer<Handlers> as NamedService>::NAME,
    <KeyServiceServer<Handlers> as NamedService>::NAME,
    <TenantServiceServer<Handlers> as NamedService>::NAME,
    <AccessServiceServer<Handlers> as NamedService>::NAME,
    <AuditServiceServer<Handlers> as NamedService>::NAME,
    <SystemServiceServer<Handlers> as NamedService>::NAME,
];

/// Serves the connections of `incoming` until `shutdown`, then lets running calls end.
///
/// # Errors
/// If the server cannot be put together; a connection that fails is no error.
pub async fn serve(
    service: Service,
    listener: Listener,
    metrics: &Metrics,
    tracer: Option<Tracer>,
    health: HealthReporter,
    incoming: mpsc::Receiver<Result<TlsConnection, io::Error>>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let gate = GateLayer::new(service.clone(), listener, metrics, tracer);
    let router = Router::new(Handlers::new(service), listener, health);
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADERS_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .layer(gate)
        .serve_with_incoming_shutdown(router, ReceiverStream::new(incoming), shutdown)
        .await
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
