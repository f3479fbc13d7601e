//! The listeners, the workers behind them, and what ticks beside them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::Addresses;
use super::disks::{self, Disks};
use super::error::StartError;
use super::export::Export;
use super::metrics;
use super::parts::Opened;
use super::reload::Reloader;
use super::slots::Slots;
use super::worker::{Accepted, Worker};
use crate::access::action::Action;
use crate::access::trust::Trust;
use crate::audit::trail::settle_if_due;
use crate::config::Config;
use crate::grpc::routes::{Listener, ROUTES};
use crate::grpc::serve::{AGE_JITTER, SERVICE_NAMES};
use crate::grpc::tls::Handshaker;
use crate::jobs::Jobs;
use crate::jobs::archive::Archiving;
use crate::jobs::rotation::Rotation;
use crate::service::call::{Call, Peer};
use crate::service::refusals::SUMMARY_TICK;
use crate::service::{Clock, Core, SystemClock};
use crate::telemetry::Metrics;
use crate::telemetry::trace::Tracer;

/// How often the settled mark and a broken audit trail are looked after.
const TICK: Duration = Duration::from_secs(1);
/// How long those who watch the health have to hear of a shutdown.
const WATCHERS: Duration = Duration::from_millis(500);
/// How often the open connections are looked over: what ends one does so within a second.
const SWEEP: Duration = Duration::from_millis(400);
/// How long the calls of a connection that was told to go for its age may take.
const AGE_GRACE: Duration = Duration::from_secs(300);
/// How long accepting rests after an error such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Everything that serves.
pub(super) struct Listening {
    pub(super) addresses: Addresses,
    /// Accept loops and ticking tasks of the control runtime; they stop by being aborted.
    tasks: Vec<JoinHandle<()>>,
    health: JoinHandle<()>,
    workers: Vec<Worker>,
    export: Option<Export>,
    jobs: Jobs,
}

impl Listening {
    pub(super) async fn start(
        config: &Config,
        opened: &Opened,
        reload: &Arc<Notify>,
    ) -> Result<Self, StartError> {
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
        // Before the first scrape, so that no series begins in the middle of a graph. The workers come to theirs later.
        for route in &ROUTES {
            opened.metrics.rpc(route.rpc());
        }
        let sources = metrics::Sources::new(config, opened);
        let (tracer, export) = match &config.otlp {
            None => (None, None),
            Some(otlp) => {
                let (tracer, export) = Export::start(otlp, &opened.metrics, &sources)?;
                (tracer, Some(export))
            }
        };
        let workers = Self::start_workers(config, opened, &reporter, tracer.as_ref())?;
        let intake = |listener, places| Intake {
            senders: workers
                .iter()
                .map(|worker| worker.sender(listener))
                .collect(),
            next: 0,
            places,
            metrics: Arc::clone(&opened.metrics),
        };
        let limits = &config.limits;
        let (connections, of_source) = (limits.connections, limits.connections_per_source);
        let admin_connections = for_admins(connections);
        let data_connections = connections.saturating_sub(admin_connections).max(1);
        let data_intake = intake(Listener::Data, Slots::new(data_connections, of_source));
        let admin_places = Slots::new(admin_connections, for_admins(of_source));
        let admin_intake = intake(Listener::Admin, admin_places);
        let (service, hub) = opened.core.on_runtime();
        let metrics = Arc::clone(&opened.metrics);
        let reloader = Reloader::new(
            config.tls.clone(),
            opened.ca.clone(),
            Arc::clone(opened.core.trust()),
            Arc::clone(&opened.tls),
            opened.core.about().certificate_end.clone(),
            Arc::clone(&opened.metrics),
        );
        let archiving = Archiving::new(
            opened.keystore.clone(),
            opened.audit.clone(),
            Arc::clone(&metrics),
        );
        let rotation = Rotation::new(service.clone(), metrics, config.rotation);
        let disks = Disks::new(
            disks::directories(config),
            config.audit.disk_warning_percent,
            Arc::clone(&opened.metrics),
        );
        let jobs = Jobs::start(rotation, archiving);
        let tasks = vec![
            tokio::spawn(accept(data, Listener::Data, data_intake)),
            tokio::spawn(accept(admin, Listener::Admin, admin_intake)),
            tokio::spawn(metrics::serve(scrape, sources)),
            tokio::spawn(disks.run()),
            tokio::spawn(hub),
            tokio::spawn(reloader.run(Arc::clone(reload))),
            tokio::spawn(sweep_connections(Arc::clone(opened.core.trust()))),
            tokio::spawn(settle_now_and_then(
                opened.keystore.clone(),
                opened.audit.clone(),
            )),
            tokio::spawn(summarise_now_and_then(Arc::clone(&opened.core))),
            tokio::spawn(probe_now_and_then(service, Arc::clone(&opened.metrics))),
        ];
        let health = tokio::spawn(follow_health(Arc::clone(&opened.core), reporter));
        Ok(Self {
            addresses,
            tasks,
            health,
            workers,
            export,
            jobs,
        })
    }

    fn start_workers(
        config: &Config,
        opened: &Opened,
        reporter: &HealthReporter,
        tracer: Option<&Tracer>,
    ) -> Result<Vec<Worker>, StartError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let limits = &config.limits;
        let handshaker = Handshaker::new(
            Arc::clone(&opened.tls),
            Arc::clone(opened.core.trust()),
            limits.handshake_timeout,
            limits.connection_age.mul_f64(1.0 + AGE_JITTER) + AGE_GRACE,
            Arc::new(SystemClock),
        );
        let admin_handshakes = Slots::quartered(for_admins(limits.handshakes));
        let data_handshakes = Slots::quartered(limits.handshakes);
        (0..cores)
            .map(|number| {
                Worker::start(super::worker::Setup {
                    number,
                    core: Arc::clone(&opened.core),
                    metrics: Arc::clone(&opened.metrics),
                    tracer: tracer.cloned(),
                    handshaker: handshaker.clone(),
                    data_handshakes: data_handshakes.clone(),
                    admin_handshakes: admin_handshakes.clone(),
                    health: reporter.clone(),
                    drain_timeout: limits.drain_timeout,
                    age: limits.connection_age,
                })
            })
            .collect()
    }

    /// Stops accepting, lets running calls end, and waits for all threads. Health says so meanwhile.
    pub(super) async fn stop(self) {
        // While the hub still tells them of their records.
        self.jobs.stop().await;
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
        if let Some(export) = self.export {
            export.stop().await;
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

/// What of a bound is the admin listener's own, so that no flood of the data listener locks the admins out.
fn for_admins(bound: usize) -> usize {
    bound.div_ceil(8)
}

/// Hands the accepted connections of one listener to the workers in turn.
struct Intake {
    senders: Vec<mpsc::Sender<Accepted>>,
    next: usize,
    places: Slots,
    metrics: Arc<Metrics>,
}

impl Intake {
    /// Gives a connection to the next worker that has room, and closes it if none has: accepting never waits for one.
    fn hand_over(&mut self, mut accepted: Accepted) {
        let workers = self.senders.len();
        self.next = self.next.wrapping_add(1);
        for turn in 0..workers {
            let index = self.next.wrapping_add(turn) % workers;
            let Some(sender) = self.senders.get(index) else {
                continue;
            };
            match sender.try_send(accepted) {
                Ok(()) => return,
                // A worker that is gone takes no connection.
                Err(TrySendError::Full(back) | TrySendError::Closed(back)) => accepted = back,
            }
        }
        self.metrics.connections_refused.inc();
        tracing::debug!(address = %accepted.address, "refused a connection: all workers have as many as they can");
    }
}

async fn accept(socket: TcpListener, listener: Listener, mut intake: Intake) {
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
        let Some(place) = intake.places.take(address.ip()) else {
            intake.metrics.connections_refused.inc();
            tracing::debug!(%address, "refused a connection: as many as allowed are open, of all or of this address");
            continue;
        };
        let stream = match stream.set_nodelay(true).and_then(|()| stream.into_std()) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%address, %error, "a connection ended before it began");
                continue;
            }
        };
        intake.hand_over(Accepted {
            stream,
            address,
            place,
        });
    }
}

async fn report_health(reporter: &HealthReporter, serving: bool) {
    let status = if serving {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    for name in SERVICE_NAMES.iter().copied().chain([""]) {
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
            for name in SERVICE_NAMES.iter().copied().chain([""]) {
                reporter.clear_service_status(name).await;
            }
            return;
        }
    }
}

/// Closes connections whose certificate was revoked or has ended, whose CA was removed, or that are too old.
async fn sweep_connections(trust: Arc<Trust>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        ticks.tick().await;
        trust.connections().sweep(SystemClock.now_us() / 1_000_000);
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

/// Writes what is to be said of refusals that came too fast to have records of their own.
async fn summarise_now_and_then(core: Arc<Core>) {
    let mut ticks = tokio::time::interval(SUMMARY_TICK);
    loop {
        ticks.tick().await;
        core.write_summaries();
    }
}

/// Tries a broken audit trail until it can be written again.
async fn probe_now_and_then(service: crate::service::Service, metrics: Arc<Metrics>) {
    const RPC: &str = "fieldkeep.internal/AuditProbe";
    let peer = Arc::new(Peer::local());
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        if !service.core().needs_probe() {
            continue;
        }
        let call = Call {
            peer: Arc::clone(&peer),
            request_id: service.core().request_ids().next(),
            started: Instant::now(),
            rpc: RPC,
            action: Action::Status,
            request_bytes: 0,
            wants_receipt: false,
            metrics: metrics.rpc(RPC),
            trace: None,
        };
        service.probe_audit(call).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intake(senders: Vec<mpsc::Sender<Accepted>>) -> Intake {
        Intake {
            senders,
            next: 0,
            places: Slots::new(100, 100),
            metrics: Arc::new(Metrics::new().unwrap()),
        }
    }

    #[test]
    fn a_worker_without_room_holds_nobody_up() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (full, mut stuck) = mpsc::channel(1);
        let (free, mut working) = mpsc::channel(4);
        let mut intake = intake(vec![full, free]);
        let places = intake.places.clone();
        let mut hand_over = || {
            intake.hand_over(Accepted {
                stream: std::net::TcpStream::connect(address).unwrap(),
                address,
                place: places.take(address.ip()).unwrap(),
            });
            intake.metrics.connections_refused.get()
        };
        for _ in 0..5 {
            assert_eq!(hand_over(), 0);
        }
        // Both are full: the connection is closed, and its place is free.
        assert_eq!(hand_over(), 1);
        assert_eq!(places.taken(), 5);
        assert_eq!((stuck.len(), working.len()), (1, 4));
        drop((stuck.try_recv(), working.try_recv()));
        assert_eq!(hand_over(), 1);
    }

    #[test]
    fn admins_have_a_share_of_every_bound() {
        assert_eq!((for_admins(10_000), for_admins(256)), (1_250, 32));
        assert_eq!(for_admins(1), 1);
    }
}
