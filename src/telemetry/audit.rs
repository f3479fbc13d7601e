//! Figures of the audit trail: its checkpoints, where they are sent, and the refusals that were counted instead of recorded.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::{UintGauge, catch_up};

/// The metrics; [`AuditMetrics::set`] brings them up to date.
pub struct AuditMetrics {
    checkpoint_records: UintGauge,
    behind: UintGauge,
    made: IntCounter,
    failed: IntCounter,
    file_failures: IntCounter,
    command_failures: IntCounter,
    summaries: IntCounter,
    summarised: IntCounter,
}

/// What the trail holds, and has done since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditFigures {
    /// Records that are durable.
    pub records: u64,
    /// Records that the newest checkpoint is signed over.
    pub checkpoint_records: u64,
    /// Checkpoints that were made.
    pub checkpoints_made: u64,
    /// Attempts to make one that failed.
    pub checkpoints_failed: u64,
    /// Checkpoints that were not appended to the file that they are sent to.
    pub file_failures: u64,
    /// Failed runs of the command that they are sent to.
    pub command_failures: u64,
    /// Records that stand for several refused calls.
    pub refusal_summaries: u64,
    /// The calls that they stand for.
    pub refusals_summarised: u64,
}

impl AuditMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<UintGauge, prometheus::Error> {
            let metric = UintGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counters = |name: &str, help: &str, label: &str| {
            let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let checkpoints = counters(
            "fieldkeep_audit_checkpoints_total",
            "Checkpoints of the audit trail, by outcome.",
            "outcome",
        )?;
        let sinks = counters(
            "fieldkeep_audit_sink_failures_total",
            "Checkpoints that were not sent on, by sink.",
            "sink",
        )?;
        Ok(Self {
            checkpoint_records: gauge(
                "fieldkeep_audit_checkpoint_records",
                "Records that the newest checkpoint is signed over.",
            )?,
            behind: gauge(
                "fieldkeep_audit_behind_checkpoint_records",
                "Records that no checkpoint is signed over yet.",
            )?,
            made: checkpoints.with_label_values(&["ok"]),
            failed: checkpoints.with_label_values(&["failed"]),
            file_failures: sinks.with_label_values(&["file"]),
            command_failures: sinks.with_label_values(&["command"]),
            summaries: counter(
                "fieldkeep_audit_refusal_summaries_total",
                "Records that stand for several refused calls.",
            )?,
            summarised: counter(
                "fieldkeep_audit_refusals_summarised_total",
                "Refused calls that have no record of their own.",
            )?,
        })
    }

    /// Takes over the figures of the trail.
    pub fn set(&self, figures: AuditFigures) {
        self.checkpoint_records.set(figures.checkpoint_records);
        self.behind
            .set(figures.records.saturating_sub(figures.checkpoint_records));
        catch_up(&self.made, figures.checkpoints_made);
        catch_up(&self.failed, figures.checkpoints_failed);
        catch_up(&self.file_failures, figures.file_failures);
        catch_up(&self.command_failures, figures.command_failures);
        catch_up(&self.summaries, figures.refusal_summaries);
        catch_up(&self.summarised, figures.refusals_summarised);
    }
}
