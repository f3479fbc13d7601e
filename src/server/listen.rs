//! The listeners, the workers behind them, and what ticks beside them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::Addresses;
use super::error::StartError;
use super::metrics;
use super::parts::Opened;
use super::worker::{Accepted, Worker};
use crate::access::Action;
use crate::audit::trail::settle_if_due;
use crate::config::Config;
use crate::grpc::routes::Listener;
use crate::grpc::serve::SERVICE_NAMES;
use crate::grpc::tls::Handshaker;
use crate::service::call::{Call, Peer};
use crate::service::{Clock, Core, SystemClock};
use crate::telemetry::Metrics;

/// How often the settled mark and a broken audit trail are looked after.
const TICK: Duration = Duration::from_secs(1);
/// How long those who watch the health have to hear of a shutdown.
const WATCHERS: Duration = Duration::from_millis(500);
/// How long accepting rests after an error such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Everything that serves.
pub(super) struct Listening {
    pub(super) addresses: Addresses,
    /// Accept loops and ticking tasks of the control runtime; they stop by being aborted.
    tasks: Vec<JoinHandle<()>>,
    health: JoinHandle<()>,
    workers: Vec<Worker>,
}

impl Listening {
    pub(super) async fn start(config: &Config, opened: &Opened) -> Result<Self, StartError> {
        let data = bind("data", config.listen.data).await?;
        let admin = bind("admin", config.listen.admin).await?;
        let scrape = bind("metrics", config.listen.metrics).await?;
        let addresses = Addresses {
            data: local("data", &data, config.listen.data)?,
            admin: local("admin", &admin, config.listen.admin)?,
            metrics: local("metrics", &scrape, config.listen.metrics)?,
        };
        let reporter = HealthReporter::new();
        report_health(&reporter, true).await;
        let workers = Self::start_workers(config, opened, &reporter)?;
        let intake = Arc::new(Intake {
            senders: workers.iter().map(Worker::sender).collect(),
            next: AtomicUsize::new(0),
            places: Arc::new(Semaphore::new(config.limits.connections)),
            metrics: Arc::clone(&opened.metrics),
        });
        let (service, hub) = opened.core.on_runtime();
        let tasks = vec![
            tokio::spawn(accept(data, Listener::Data, Arc::clone(&intake))),
            tokio::spawn(accept(admin, Listener::Admin, intake)),
            tokio::spawn(metrics::serve(scrape, metrics::Sources::new(opened))),
            tokio::spawn(hub),
            tokio::spawn(settle_now_and_then(
                opened.keystore.clone(),
                opened.audit.clone(),
            )),
            tokio::spawn(probe_now_and_then(service, Arc::clone(&opened.metrics))),
        ];
        let health = tokio::spawn(follow_health(Arc::clone(&opened.core), reporter));
        Ok(Self {
            addresses,
            tasks,
            health,
            workers,
        })
    }

    fn start_workers(
        config: &Config,
        opened: &Opened,
        reporter: &HealthReporter,
    ) -> Result<Vec<Worker>, StartError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let limits = &config.limits;
        let handshaker = Handshaker::new(
            Arc::clone(&opened.tls),
            &config.tls.trust_domain,
            limits.handshake_timeout,
        );
        let handshakes = Arc::new(Semaphore::new(limits.handshakes));
        (0..cores)
            .map(|number| {
                Worker::start(super::worker::Setup {
                    number,
                    core: Arc::clone(&opened.core),
                    metrics: Arc::clone(&opened.metrics),
                    handshaker: handshaker.clone(),
                    handshakes: Arc::clone(&handshakes),
                    health: reporter.clone(),
                    drain_timeout: limits.drain_timeout,
                })
            })
            .collect()
    }

    /// Stops accepting, lets running calls end, and waits for all threads. Health says so meanwhile.
    pub(super) async fn stop(self) {
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks {
            // An aborted task ends with an error that says so; its sockets and handles are gone then.
            let _ = task.await;
        }
        // A worker's thread is joined elsewhere, since this one must go on to report health.
        let workers = self.workers;
        let stopped = tokio::task::spawn_blocking(move || Worker::stop_all(workers)).await;
        if stopped.is_err() {
            tracing::error!("a worker did not stop");
        }
        self.health.abort();
        let _ = self.health.await;
    }
}

async fn bind(listener: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen {
            listener,
            address,
            source,
        })
}

fn local(
    listener: &'static str,
    socket: &TcpListener,
    address: SocketAddr,
) -> Result<SocketAddr, StartError> {
    socket.local_addr().map_err(|source| StartError::Listen {
        listener,
        address,
        source,
    })
}

/// Hands accepted connections to the workers in turn.
struct Intake {
    senders: Vec<tokio::sync::mpsc::Sender<Accepted>>,
    next: AtomicUsize,
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

async fn accept(socket: TcpListener, listener: Listener, intake: Arc<Intake>) {
    loop {
        let (stream, address) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, ?listener, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        intake.metrics.connections_accepted.inc();
        let Ok(place) = Arc::clone(&intake.places).try_acquire_owned() else {
            intake.metrics.connections_refused.inc();
            tracing::debug!(%address, "refused a connection: as many as allowed are open");
            continue;
        };
        let stream = match stream.set_nodelay(true).and_then(|()| stream.into_std()) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%address, %error, "a connection ended before it began");
                continue;
            }
        };
        let turn = intake.next.fetch_add(1, Ordering::Relaxed) % intake.senders.len().max(1);
        if let Some(sender) = intake.senders.get(turn) {
            // A worker that is gone takes no connection; the client sees it closed.
            let _ = sender
                .send(Accepted {
                    stream,
                    address,
                    listener,
                    place,
                })
                .await;
        }
    }
}

async fn report_health(reporter: &HealthReporter, serving: bool) {
    let status = if serving {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    for name in SERVICE_NAMES.into_iter().chain([""]) {
        reporter.set_service_status(name, status).await;
    }
}

/// Keeps the health service in step with the service's own state.
async fn follow_health(core: Arc<Core>, mut reporter: HealthReporter) {
    loop {
        core.state_changed().await;
        let serving = core.is_serving();
        tracing::info!(serving, "the state of the service changed");
        report_health(&reporter, serving).await;
        if core.is_draining() {
            // Whoever watches has had the time to hear of it; an open watch would hold its connection, and the shutdown.
            tokio::time::sleep(WATCHERS).await;
            for name in SERVICE_NAMES.into_iter().chain([""]) {
                reporter.clear_service_status(name).await;
            }
            return;
        }
    }
}

async fn settle_now_and_then(
    keystore: fieldkeep_keystore::keystore::Keystore,
    audit: crate::audit::AuditLog,
) {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        if let Err(error) = settle_if_due(&keystore, &audit, SystemClock.now_us() / 1_000_000).await
        {
            tracing::warn!(%error, "the settled mark was not written; the next start compares more");
        }
    }
}

/// Tries a broken audit trail until it can be written again.
async fn probe_now_and_then(service: crate::service::Service, metrics: Arc<Metrics>) {
    const RPC: &str = "fieldkeep.internal/AuditProbe";
    let peer = Arc::new(Peer::local());
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        if service.core().is_serving() {
            continue;
        }
        let call = Call {
            peer: Arc::clone(&peer),
            request_id: service.core().request_ids().next(),
            started: Instant::now(),
            rpc: RPC,
            action: Action::StatusRead,
            request_bytes: 0,
            metrics: metrics.rpc(RPC),
        };
        service.probe_audit(call).await;
    }
}
