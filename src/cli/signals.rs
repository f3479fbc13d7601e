//! Ctrl-C, SIGTERM and SIGHUP.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use super::failure::{Exit, Failure};

/// Ends when the process is told to stop. The signals are caught from the call on, not from the first poll.
pub(crate) fn stop_signal() -> Result<impl Future<Output = ()> + Send, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Failed, "cannot catch signals").caused_by(&error)
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Calls `reload` whenever the process gets SIGHUP.
pub(crate) async fn on_hangup(reload: impl Fn()) {
    match signal(SignalKind::hangup()) {
        Ok(mut hangup) => {
            while hangup.recv().await.is_some() {
                reload();
            }
        }
        Err(error) => {
            tracing::warn!(%error, "SIGHUP is not caught; the files are looked at every second all the same")
        }
    }
    std::future::pending().await
}

/// Runs a command; a signal drops it, and with it everything that it had begun and not finished.
pub(crate) async fn unless_stopped<T>(
    command: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let stop = stop_signal()?;
    tokio::select! {
        outcome = command => outcome,
        () = stop => Err(Failure::new(Exit::Interrupted, "interrupted")),
    }
}
