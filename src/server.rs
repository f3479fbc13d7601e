//! The composition root: builds every part of the service, serves it, and takes it down in order.
//!
//! ```text
//! control thread   opens and checks everything; accepts connections; serves metrics; ticks; shuts down
//! worker threads   one a core, each with a current-thread runtime: TLS handshakes, HTTP/2, the calls themselves
//! journal threads  one for the audit trail, and the store's own
//! ```

mod disks;
mod error;
mod export;
mod listen;
mod metrics;
mod parts;
mod reload;
mod slots;
mod worker;

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use tokio::sync::{Notify, oneshot};

use crate::config::Config;
use crate::service::{Clock, SystemClock};

pub use self::error::{ShutdownError, StartError};

/// The service, before it runs.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Starts the service on threads of its own and returns once every listener accepts connections.
    ///
    /// Blocks while it opens the data directory. It may be called from any thread, inside a tokio runtime too.
    ///
    /// # Errors
    /// [`StartError`] says what is in the way and what to do; nothing is left running.
    pub fn start(config: Config) -> Result<Running, StartError> {
        let (ready, started) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        let reload = Arc::new(Notify::new());
        let reload_asked = Arc::clone(&reload);
        let control = thread::Builder::new()
            .name(String::from("fieldkeep-control"))
            .spawn(move || control(&config, &ready, stopped, &reload_asked))
            .map_err(StartError::Thread)?;
        match started.recv() {
            Ok(Ok(addresses)) => Ok(Running {
                data: addresses.data,
                admin: addresses.admin,
                metrics: addresses.metrics,
                stop: Some(stop),
                reload,
                control: Some(control),
            }),
            Ok(Err(error)) => {
                // The thread has nothing left to do, and its parts are closed when it has ended.
                let _ = control.join();
                Err(error)
            }
            Err(_) => Err(StartError::Stopped),
        }
    }
}

/// Where the listeners are, with their real ports.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    data: SocketAddr,
    admin: SocketAddr,
    metrics: SocketAddr,
}

/// A running service. Dropping it stops the service like [`Running::shutdown`].
#[derive(Debug)]
pub struct Running {
    /// The data listener's address, with its real port.
    pub data: SocketAddr,
    /// The admin listener's address, with its real port.
    pub admin: SocketAddr,
    /// The metrics listener's address, with its real port.
    pub metrics: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    reload: Arc<Notify>,
    control: Option<JoinHandle<Result<(), ShutdownError>>>,
}

impl Running {
    /// Looks at the server's certificate files at once, as it does every second anyway.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Stops the service: no new connections, running calls end within the configured bound, then the audit trail and the
    /// store close.
    ///
    /// Blocks until that is done. It may be called from any thread.
    ///
    /// # Errors
    /// [`ShutdownError`] if the trail or the store could not be closed cleanly; the next start recovers them.
    pub fn shutdown(mut self) -> Result<(), ShutdownError> {
        self.stop()
    }

    fn stop(&mut self) -> Result<(), ShutdownError> {
        if let Some(stop) = self.stop.take() {
            // If nobody listens, the service has stopped already.
            let _ = stop.send(());
        }
        match self.control.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(closed)) => closed,
            Some(Err(_)) => Err(ShutdownError::Stopped),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!(%error, "the service did not stop cleanly");
        }
    }
}

/// The life of the service, on the control thread.
fn control(
    config: &Config,
    ready: &mpsc::SyncSender<Result<Addresses, StartError>>,
    stopped: oneshot::Receiver<()>,
    reload: &Arc<Notify>,
) -> Result<(), ShutdownError> {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(StartError::Thread(error)));
            return Ok(());
        }
    };
    runtime.block_on(async {
        let clock = SystemClock;
        match parts::open(config, clock.now_us() / 1_000_000).await {
            Err(error) => {
                let _ = ready.send(Err(error));
                Ok(())
            }
            Ok(opened) => live(config, opened, ready, stopped, reload).await,
        }
    })
}

async fn live(
    config: &Config,
    opened: parts::Opened,
    ready: &mpsc::SyncSender<Result<Addresses, StartError>>,
    stopped: oneshot::Receiver<()>,
    reload: &Arc<Notify>,
) -> Result<(), ShutdownError> {
    let served = match listen::Listening::start(config, &opened, reload).await {
        Ok(served) => served,
        Err(error) => {
            let closed = opened.close().await;
            let _ = ready.send(Err(error));
            return closed;
        }
    };
    let addresses = served.addresses;
    tracing::info!(data = %addresses.data, admin = %addresses.admin, metrics = %addresses.metrics, "serving");
    if ready.send(Ok(addresses)).is_ok() {
        // An error is a `Running` that is gone without having asked: stop as well.
        let _ = stopped.await;
    }
    tracing::info!("shutting down");
    opened.core.start_draining();
    served.stop().await;
    let closed = opened.close().await;
    tracing::info!("stopped");
    closed
}
