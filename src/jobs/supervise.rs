//! Keeps a loop running whatever happens in it.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use prometheus::IntCounter;
use tokio::sync::watch;

use crate::service::failure::Failure;

/// How long a failed loop rests before it is started again.
#[derive(Clone, Copy)]
pub(super) struct Pauses {
    /// The first time; it doubles with each failure.
    first: Duration,
    /// At most. A loop that ran for so long begins again with the first.
    longest: Duration,
}

/// The pauses of all jobs.
pub(super) const PAUSES: Pauses = Pauses {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
};

/// Runs what `make` makes until it ends by itself or `stopped` says so. What fails, by a defect too, is logged, counted
/// and made anew after a pause.
pub(super) async fn supervise<F: Future<Output = Result<(), Failure>>>(
    job: &'static str,
    pauses: Pauses,
    failures: IntCounter,
    mut stopped: watch::Receiver<bool>,
    mut make: impl FnMut() -> F,
) {
    let mut pause = pauses.first;
    loop {
        let started = Instant::now();
        // The loop's state is made anew, so that nothing that a panic left half done is seen again.
        let cause = match AssertUnwindSafe(make()).catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(failure)) => failure.detail().into_owned(),
            Err(_) => String::from("a defect; standard error has its place"),
        };
        failures.inc();
        if started.elapsed() >= pauses.longest {
            pause = pauses.first;
        }
        tracing::error!(job, cause, ?pause, "a job failed and is started again");
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = pause.saturating_mul(2).min(pauses.longest);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const NONE: Pauses = Pauses {
        first: Duration::ZERO,
        longest: Duration::from_secs(3600),
    };

    #[tokio::test]
    async fn a_job_that_fails_or_panics_is_started_again() {
        let failures = IntCounter::new("failures", "-").unwrap();
        let (_stop, stopped) = watch::channel(false);
        let runs = AtomicU32::new(0);
        let run = || async {
            match runs.fetch_add(1, Ordering::SeqCst) {
                0 => Err(Failure::internal("once")),
                1 => panic!("a defect"),
                _ => Ok(()),
            }
        };
        supervise("test", NONE, failures.clone(), stopped, run).await;
        assert_eq!((runs.load(Ordering::SeqCst), failures.get()), (3, 2));
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_for_a_pause() {
        let failures = IntCounter::new("failures", "-").unwrap();
        let (stop, stopped) = watch::channel(false);
        let for_ever = Pauses {
            first: Duration::MAX,
            ..NONE
        };
        let run = || async {
            stop.send_replace(true);
            Err(Failure::internal("always"))
        };
        supervise("test", for_ever, failures.clone(), stopped, run).await;
        assert_eq!(failures.get(), 1);
    }
}
