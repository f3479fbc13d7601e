//! A service that runs in this process: what `dev` and `demo` share.

use tempfile::TempDir;

use super::failure::{Exit, Failure, file_failure};
use crate::config::Config;
use crate::server::{Running, Server, StartError};

/// A running service and, if it is temporary, its directory. Dropped, it stops and vanishes.
pub(super) struct Local {
    // Fields are dropped in this order: the service goes before its directory.
    running: Running,
    temporary: Option<TempDir>,
    /// `https://` and the address of the data listener.
    pub(super) data_address: String,
    /// `https://` and the address of the admin listener.
    pub(super) admin_address: String,
}

impl Local {
    /// Starts the service of a configuration, whose directory may be in a temporary one.
    pub(super) async fn start(
        config: Config,
        temporary: Option<TempDir>,
    ) -> Result<Local, Failure> {
        // The directory goes along: whoever interrupts the start, it is removed after the service has ended.
        let (running, temporary) = blocking(move || (Server::start(config), temporary)).await?;
        let running = running.map_err(|error| match &error {
            StartError::Listen {
                address, source, ..
            } if source.kind() == std::io::ErrorKind::AddrInUse => Failure::new(
                Exit::Conflict,
                format_args!("`{address}` is in use by another program"),
            )
            .help("`--port N` takes the ports N, N+1 and N+2; `--port 0` takes free ones"),
            _ => failed(&error),
        })?;
        Ok(Local {
            data_address: format!("https://{}", running.data),
            admin_address: format!("https://{}", running.admin),
            running,
            temporary,
        })
    }

    /// Stops the service, and removes its directory if that is temporary.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        let running = self.running;
        let stopped = blocking(move || running.shutdown()).await?;
        stopped.map_err(|error| failed(&error))?;
        let Some(directory) = self.temporary else {
            return Ok(());
        };
        let path = directory.path().to_owned();
        directory
            .close()
            .map_err(|error| file_failure("remove", &path, &error))
    }
}

/// A directory that goes when it is dropped.
pub(super) fn temporary_directory(prefix: &str) -> Result<TempDir, Failure> {
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir()
        .map_err(|error| file_failure("make a directory in", &std::env::temp_dir(), &error))
}

/// A failure that says what the error says.
pub(super) fn failed<E: std::error::Error + 'static>(error: &E) -> Failure {
    Failure::new(Exit::Failed, error).caused_by(error)
}

/// Runs something that blocks, away from the runtime's threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| Failure::new(Exit::Failed, "a part of it did not end").caused_by(&error))
}
