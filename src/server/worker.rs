//! One worker: a thread with a current-thread runtime that shakes hands and serves its share of the connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tonic_health::server::HealthReporter;

use super::error::StartError;
use super::slots::{Slot, Slots};
use crate::grpc::routes::Listener;
use crate::grpc::serve::{Kind, serve};
use crate::grpc::tls::{Handshaker, TlsConnection};
use crate::service::{Core, Service};
use crate::telemetry::Metrics;
use crate::telemetry::trace::Tracer;

/// Connections of one listener that may wait for a worker, and handshaken ones that may wait for its HTTP/2 server.
const WAITING: usize = 64;
/// Threads of a worker for batches of many bytes.
const BLOCKING_THREADS: usize = 2;
/// How often a worker wakes for nothing, see [`tick`].
const TICK: Duration = Duration::from_secs(1);
/// What is left of a worker's blocking work at the end is waited for this long.
const LEAVE: Duration = Duration::from_secs(1);

/// A connection on its way to a worker.
pub(super) struct Accepted {
    pub(super) stream: std::net::TcpStream,
    pub(super) address: SocketAddr,
    pub(super) place: Slot,
}

/// What a worker is made of.
pub(super) struct Setup {
    pub(super) number: usize,
    pub(super) core: Arc<Core>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tracer: Option<Tracer>,
    pub(super) handshaker: Handshaker,
    pub(super) data_handshakes: Slots,
    pub(super) admin_handshakes: Slots,
    pub(super) health: HealthReporter,
    pub(super) drain_timeout: Duration,
    pub(super) age: Duration,
}

/// A worker's thread.
pub(super) struct Worker {
    data: mpsc::Sender<Accepted>,
    admin: mpsc::Sender<Accepted>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts a worker's thread.
    pub(super) fn start(setup: Setup) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name(format!("fieldkeep-batch-{}", setup.number))
            .build()
            .map_err(StartError::Thread)?;
        let (data, data_accepted) = mpsc::channel(WAITING);
        let (admin, admin_accepted) = mpsc::channel(WAITING);
        let (stop, stopped) = watch::channel(false);
        let thread = thread::Builder::new()
            .name(format!("fieldkeep-worker-{}", setup.number))
            .spawn(move || {
                runtime.block_on(run(setup, data_accepted, admin_accepted, stopped));
                runtime.shutdown_timeout(LEAVE);
            })
            .map_err(StartError::Thread)?;
        Ok(Self {
            data,
            admin,
            stop,
            thread,
        })
    }

    /// Where connections of `listener` for this worker go.
    pub(super) fn sender(&self, listener: Listener) -> mpsc::Sender<Accepted> {
        match listener {
            Listener::Data => self.data.clone(),
            Listener::Admin => self.admin.clone(),
        }
    }

    /// Stops all workers at once and waits for their threads.
    pub(super) fn stop_all(workers: Vec<Self>) {
        for worker in &workers {
            worker.stop.send_replace(true);
        }
        for worker in workers {
            if worker.thread.join().is_err() {
                tracing::error!("a worker ended by a defect");
            }
        }
    }
}

async fn run(
    setup: Setup,
    mut data_accepted: mpsc::Receiver<Accepted>,
    mut admin_accepted: mpsc::Receiver<Accepted>,
    mut stopped: watch::Receiver<bool>,
) {
    let (service, hub) = setup.core.on_runtime();
    tokio::spawn(hub);
    tokio::spawn(tick());
    let data = Port::open(&setup, &service, Listener::Data, stopped.clone());
    let admin = Port::open(&setup, &service, Listener::Admin, stopped.clone());
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            connection = data_accepted.recv() => match connection {
                None => break,
                Some(connection) => shake_hands(&setup, &setup.data_handshakes, connection, &data),
            },
            connection = admin_accepted.recv() => match connection {
                None => break,
                Some(connection) => shake_hands(&setup, &setup.admin_handshakes, connection, &admin),
            },
        }
    }
    let drained = async {
        data.closed().await;
        admin.closed().await;
    };
    if !wind_down(&setup.core, drained, setup.drain_timeout).await {
        tracing::warn!(
            worker = setup.number,
            "some calls did not end in time and were cut off"
        );
    }
}

/// Keeps a timer pending that ends before nearly every call's own. The runtime is woken by a system call for each timer that
/// ends before all others, which would be the first one after each rest.
async fn tick() {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
    }
}

/// Lets calls end within `bound`, and then changes whose callers went away: those would be lost with this runtime, or
/// would find the store closed. Tells whether all ended.
async fn wind_down(core: &Core, drained: impl Future<Output = ()>, bound: Duration) -> bool {
    let calls = tokio::time::timeout(bound, drained).await.is_ok();
    let changes = tokio::time::timeout(bound.max(LEAVE), core.changes_ended())
        .await
        .is_ok();
    calls && changes
}

/// The HTTP/2 server of one listener on this worker.
struct Port {
    connections: mpsc::Sender<TlsConnection>,
    server: tokio::task::JoinHandle<()>,
}

impl Port {
    fn open(
        setup: &Setup,
        service: &Service,
        listener: Listener,
        mut stopped: watch::Receiver<bool>,
    ) -> Self {
        let (connections, incoming) = mpsc::channel(WAITING);
        let (service, metrics, tracer, health) = (
            service.clone(),
            Arc::clone(&setup.metrics),
            setup.tracer.clone(),
            setup.health.clone(),
        );
        let kind = Kind {
            listener,
            age: setup.age,
        };
        let server = tokio::spawn(async move {
            let shutdown = async move {
                // An error is a worker that is gone, which ends this as well.
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            serve(service, kind, &metrics, tracer, health, incoming, shutdown).await;
        });
        Self {
            connections,
            server,
        }
    }

    async fn closed(self) {
        drop(self.connections);
        if self.server.await.is_err() {
            tracing::error!("a server ended by a defect");
        }
    }
}

/// Shakes hands in a task of its own. One that fails is counted, and is no more than a debug line, since anybody can cause it.
fn shake_hands(setup: &Setup, handshakes: &Slots, connection: Accepted, port: &Port) {
    let Accepted {
        stream,
        address,
        place,
    } = connection;
    let Some(slot) = handshakes.take(address.ip()) else {
        setup.metrics.connections_refused.inc();
        tracing::debug!(%address, "refused a connection: too many handshakes are under way");
        return;
    };
    let connections = port.connections.clone();
    let (handshaker, metrics) = (setup.handshaker.clone(), Arc::clone(&setup.metrics));
    tokio::spawn(async move {
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%address, %error, "cannot take over a connection");
                return;
            }
        };
        let place = Box::new(Place::new(place, &metrics));
        match handshaker.accept(stream, address, place).await {
            Ok(connection) => {
                drop(slot);
                // Without a receiver the server is stopping, and the connection closes.
                let _ = connections.send(connection).await;
            }
            Err(error) => {
                metrics.handshake_failures.inc();
                tracing::debug!(%address, %error, "a handshake failed");
            }
        }
    });
}

/// A place among the open connections, counted while it is held.
struct Place {
    metrics: Arc<Metrics>,
    _slot: Slot,
}

impl Place {
    fn new(slot: Slot, metrics: &Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self {
            metrics: Arc::clone(metrics),
            _slot: slot,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;
    use crate::service::tests::{Fixture, UntilReleased};

    #[tokio::test]
    async fn a_worker_stays_until_changes_without_callers_have_ended() {
        let f = Fixture::make().await;
        let release = UntilReleased::start_and_give_up(&f).await;
        let before = f.last_record_index();
        f.service.core().start_draining();
        let bound = Duration::from_secs(3600);
        let mut down = Box::pin(wind_down(f.service.core(), async {}, bound));
        for _ in 0..100 {
            assert!(poll!(&mut down).is_pending());
            tokio::task::yield_now().await;
        }
        assert_eq!(f.last_record_index(), before);
        release.notify_one();
        assert!(down.await);
        assert_eq!(f.last_record_index(), before + 1);
    }

    #[tokio::test]
    async fn a_worker_does_not_wait_for_ever() {
        let f = Fixture::make().await;
        assert!(!wind_down(f.service.core(), std::future::pending(), Duration::ZERO).await);
    }
}
