//! The composition root: builds every part of the service, serves it, and takes it down in order.

use std::net::SocketAddr;

use crate::config::Config;

/// Why the service could not start: the cause, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{cause}: {remedy}")]
pub struct StartError {
    cause: String,
    remedy: String,
}

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
        let _ = config;
        Err(StartError {
            cause: String::from("the listeners are not there yet"),
            remedy: String::from("wait for the next commit"),
        })
    }
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
}

impl Running {
    /// Stops the service: no new connections, running calls end within 10 s, then the audit trail and the store close.
    ///
    /// Blocks until that is done. It may be called from any thread.
    ///
    /// # Errors
    /// [`ShutdownError`] if the trail or the store could not be closed cleanly; the next start recovers them.
    pub fn shutdown(self) -> Result<(), ShutdownError> {
        Ok(())
    }
}

/// What did not close cleanly.
#[derive(Debug, thiserror::Error)]
#[error("could not close the {part}: {cause}")]
pub struct ShutdownError {
    part: &'static str,
    cause: String,
}
