//! Figures of rotation on a schedule, and of the counters that it rests on.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Why keys rotate by themselves, as label values.
const CAUSES: [&str; 5] = ["period", "cron", "messages", "bytes", "clock"];

/// How acts end, as label values.
const OUTCOMES: [&str; 2] = ["ok", "failed"];

/// What the service does by itself.
#[derive(Clone)]
pub struct RotationMetrics {
    rotations: IntCounterVec,
    retirements: IntCounterVec,
    /// Keys that are due and have not had their turn.
    pub due: IntGauge,
    /// Keys that are known to be due within the hour, those that are due now too.
    pub waiting: IntGauge,
    /// For how many seconds the most overdue key has been due.
    pub lag_s: IntGauge,
    /// When the planner ran last, Unix seconds.
    pub last_run_s: IntGauge,
    /// 1 if the clock was set by more than an hour since the start.
    pub clock_jumped: IntGauge,
    /// Keys that the planner could not read.
    pub damaged: IntCounter,
    /// How often the planner failed and was started again.
    pub failures: IntCounter,
    usage_commits: IntCounter,
}

impl RotationMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let metrics = Self {
            rotations: counters(
                "fieldkeep_rotations_total",
                "Rotations by the service itself, by cause and outcome.",
                &["cause", "outcome"],
            )?,
            retirements: counters(
                "fieldkeep_retirements_total",
                "Retirements of older versions by the service itself, by outcome.",
                &["outcome"],
            )?,
            due: gauge(
                "fieldkeep_rotation_keys_due",
                "Keys that are due and have not had their turn.",
            )?,
            waiting: gauge(
                "fieldkeep_rotation_keys_waiting",
                "Keys that are known to be due within the hour.",
            )?,
            lag_s: gauge(
                "fieldkeep_rotation_lag_seconds",
                "For how long the most overdue key has been due.",
            )?,
            last_run_s: gauge(
                "fieldkeep_rotation_last_run_timestamp_seconds",
                "When the rotation planner ran last, Unix time.",
            )?,
            clock_jumped: gauge(
                "fieldkeep_clock_jumped",
                "1 if the clock was set by more than an hour since the start.",
            )?,
            damaged: counter(
                "fieldkeep_rotation_unreadable_keys_total",
                "Times that the rotation planner could not read a key.",
            )?,
            failures: counter(
                "fieldkeep_rotation_failures_total",
                "Times that the rotation planner failed and was started again.",
            )?,
            usage_commits: counter(
                "fieldkeep_usage_lease_commits_total",
                "Commits of leases of usage counters.",
            )?,
        };
        // Every series is there from the start, so that an alert sees the first failure.
        for outcome in OUTCOMES {
            metrics.retirements.with_label_values(&[outcome]);
            for cause in CAUSES {
                metrics.rotations.with_label_values(&[cause, outcome]);
            }
        }
        Ok(metrics)
    }

    /// Counts a rotation; `cause` is one of five words.
    pub fn rotated(&self, cause: &str, ok: bool) {
        self.rotations
            .with_label_values(&[cause, outcome(ok)])
            .inc();
    }

    /// Counts a retirement of versions of one key.
    pub fn retired(&self, ok: bool) {
        self.retirements.with_label_values(&[outcome(ok)]).inc();
    }

    pub(super) fn set_usage_commits(&self, total: u64) {
        super::catch_up(&self.usage_commits, total);
    }
}

fn outcome(ok: bool) -> &'static str {
    if ok { "ok" } else { "failed" }
}
