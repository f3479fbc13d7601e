//! Moves old record segments of the audit trail to the archive, one after the other.

use std::sync::Arc;
use std::time::Duration;

use fieldkeep_keystore::keystore::Keystore;
use prometheus::IntCounter;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::audit::AuditLog;
use crate::audit::trail::note_kept_from;
use crate::service::failure::Failure;
use crate::service::{Clock, SystemClock};
use crate::telemetry::Metrics;

/// How often it is looked whether a segment is due. The setting is in days.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The archiving of one trail.
pub struct Archiving {
    keystore: Keystore,
    audit: AuditLog,
    metrics: Arc<Metrics>,
}

impl Archiving {
    /// Of the trail `audit` beside the store of `keystore`, as its settings say.
    #[must_use]
    pub fn new(keystore: Keystore, audit: AuditLog, metrics: Arc<Metrics>) -> Archiving {
        Archiving {
            keystore,
            audit,
            metrics,
        }
    }

    pub(super) fn failures(&self) -> IntCounter {
        self.metrics.archive.failures.clone()
    }

    /// Runs until `stopped` says so; a segment that is under way is finished first.
    ///
    /// # Errors
    /// The archive cannot be used now. Nothing is lost: the records are where they were.
    pub(super) async fn run(&self, mut stopped: watch::Receiver<bool>) -> Result<(), Failure> {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // An error is a service that is gone.
                _ = stopped.wait_for(|stop| *stop) => return Ok(()),
                _ = ticks.tick() => {}
            }
            while !*stopped.borrow() && self.archive_one().await? {}
        }
    }

    async fn archive_one(&self) -> Result<bool, Failure> {
        let audit = self.audit.clone();
        let archived =
            tokio::task::spawn_blocking(move || audit.archive_next(SystemClock.now_us()))
                .await
                .map_err(Failure::internal)?
                .map_err(Failure::internal)?;
        let Some(archived) = archived else {
            return Ok(false);
        };
        note_kept_from(
            &self.keystore,
            archived.kept_from,
            SystemClock.now_us() / 1_000_000,
        )
        .await
        .map_err(Failure::internal)?;
        let audit = self.audit.clone();
        let removed =
            tokio::task::spawn_blocking(move || audit.remove_archived(archived.kept_from))
                .await
                .map_err(Failure::internal)?
                .map_err(Failure::internal)?;
        let figures = &self.metrics.archive;
        figures.segments.inc();
        figures.bytes.inc_by(archived.written.compressed_bytes);
        tracing::info!(
            segment = archived.segment,
            bytes = archived.written.bytes,
            archived_bytes = archived.written.compressed_bytes,
            removed,
            "archived a record segment of the audit trail"
        );
        Ok(true)
    }
}
