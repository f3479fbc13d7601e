//! Logs on stderr, Prometheus metrics, and traces and metrics for an OpenTelemetry collector.
//!
//! None of them ever holds plaintext, context values or key material. Labels are bounded: names of RPCs, of
//! `google.rpc.Code`s, of the two journals, of directories, of the causes of rotations, and of what checkpoints are sent to.

mod audit;
pub mod otlp;
mod rotation;
pub mod state;
#[cfg(test)]
mod tests;
pub mod trace;

use std::{
    collections::HashMap,
    io::{self, IsTerminal as _},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    Opts, Registry, TextEncoder,
    core::{AtomicU64, GenericGauge, GenericGaugeVec},
    proto::MetricFamily,
};
use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer as _, filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

pub use self::audit::{AuditFigures, AuditMetrics};
pub use self::rotation::RotationMetrics;
use self::state::StateMetrics;
use crate::config::{LogConfig, LogFormat, LogLevel};

type UintGauge = GenericGauge<AtomicU64>;
type UintGaugeVec = GenericGaugeVec<AtomicU64>;

/// The names of `google.rpc.Code`, by code.
pub const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The upper ends of the latency buckets: 50 microseconds to 10 seconds.
const LATENCY_BUCKETS_S: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0,
    2.0, 5.0, 10.0,
];

/// Starts logging to stderr. A second call in one process changes nothing.
///
/// The level holds for Fieldkeep's own events. Those of its dependencies are shown from `warn` and no lower: at finer
/// levels a transport may show what passes through it.
pub fn init_logging(config: &LogConfig) {
    let format = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let format = match config.format {
        LogFormat::Text => format.compact().boxed(),
        LogFormat::Json => format.with_ansi(false).json().flatten_event(true).boxed(),
    };
    let started = tracing_subscriber::registry()
        .with(format.with_filter(log_filter(config.level)))
        .try_init();
    // The one cause of failure is that logging was started before, as a test or the demo may have done.
    drop(started);
}

/// What is logged: our own crates, whose names all begin with `fieldkeep`, from `level`; the rest from `warn`.
fn log_filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    let others = LevelFilter::from_level(level.min(Level::WARN));
    Targets::new()
        .with_default(others)
        .with_target("fieldkeep", level)
}

/// The metrics of one server. Handles to single metrics are taken once, so that the data path touches atomics alone.
pub struct Metrics {
    registry: Registry,
    calls: IntCounterVec,
    latency: HistogramVec,
    items: IntCounterVec,
    rpcs: Mutex<HashMap<&'static str, Arc<RpcMetrics>>>,
    /// Connections that are open.
    pub connections: IntGauge,
    /// Connections that were accepted.
    pub connections_accepted: IntCounter,
    /// Connections that were turned away because as many as allowed were open.
    pub connections_refused: IntCounter,
    /// TLS handshakes that failed.
    pub handshake_failures: IntCounter,
    /// Certificates of the server that were taken over from their files while it ran.
    pub tls_reloads: IntCounter,
    /// Changed certificate files that could not be served.
    pub tls_reload_failures: IntCounter,
    /// Requests to the collector that failed.
    pub export_failures: IntCounter,
    /// Spans that did not fit into the exporter's queue.
    pub spans_dropped: IntCounter,
    /// The process, and what surrounds it.
    pub state: StateMetrics,
    /// Rotation on a schedule.
    pub rotation: RotationMetrics,
    /// The archiving of the audit trail.
    pub archive: ArchiveMetrics,
    /// The audit trail.
    pub audit: AuditMetrics,
    cache: CacheMetrics,
    journal: JournalMetrics,
}

/// The metrics of one RPC.
pub struct RpcMetrics {
    calls: [IntCounter; CODES.len()],
    latency: Histogram,
    items_ok: IntCounter,
    items_failed: IntCounter,
}

struct CacheMetrics {
    keys: UintGauge,
    bytes: UintGauge,
    hits: IntCounter,
    misses: IntCounter,
    evictions: IntCounter,
}

struct JournalMetrics {
    syncs: IntCounterVec,
    frames: IntCounterVec,
    bytes: IntCounterVec,
    largest_group: UintGaugeVec,
}

/// The two journals of a server, as label values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalName {
    /// The audit trail.
    Audit,
    /// The store's recovery journal.
    Store,
}

impl JournalName {
    fn label(self) -> &'static str {
        match self {
            JournalName::Audit => "audit",
            JournalName::Store => "store",
        }
    }
}

/// What a journal has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalFigures {
    /// Syncs to disk.
    pub syncs: u64,
    /// Frames written.
    pub frames: u64,
    /// Bytes written.
    pub bytes: u64,
    /// The most frames that one sync carried.
    pub largest_group: u64,
}

/// What the key cache holds, and has done since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheFigures {
    /// Keys that are held.
    pub keys: u64,
    /// Memory that they take, bytes.
    pub bytes: u64,
    /// Look-ups that found their key.
    pub hits: u64,
    /// Look-ups that had to load it.
    pub misses: u64,
    /// Keys that made room for others.
    pub evictions: u64,
}

/// The archiving of the audit trail.
#[derive(Clone, Debug)]
pub struct ArchiveMetrics {
    /// Record segments that were archived.
    pub segments: IntCounter,
    /// Bytes of their files.
    pub bytes: IntCounter,
    /// Attempts that failed.
    pub failures: IntCounter,
}

impl Metrics {
    /// Makes and registers every metric.
    ///
    /// # Errors
    /// Two metrics have one name, or a name is not valid: a mistake in this file.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counters =
            |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
                let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
                registry.register(Box::new(metric.clone()))?;
                Ok(metric)
            };
        let gauge = |name: &str, help: &str| -> Result<UintGauge, prometheus::Error> {
            let metric = UintGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let connections = IntGauge::new("fieldkeep_connections", "Open connections.")?;
        registry.register(Box::new(connections.clone()))?;
        let latency = HistogramVec::new(
            HistogramOpts::new(
                "fieldkeep_call_duration_seconds",
                "Duration of calls, until their audit record is durable.",
            )
            .buckets(LATENCY_BUCKETS_S.to_vec()),
            &["rpc"],
        )?;
        registry.register(Box::new(latency.clone()))?;
        let largest_group = UintGaugeVec::new(
            Opts::new(
                "fieldkeep_journal_largest_group_frames",
                "The most frames that one sync carried.",
            ),
            &["journal"],
        )?;
        registry.register(Box::new(largest_group.clone()))?;
        Ok(Metrics {
            calls: counters(
                "fieldkeep_calls_total",
                "Calls that ended, by RPC and google.rpc.Code.",
                &["rpc", "code"],
            )?,
            items: counters(
                "fieldkeep_batch_items_total",
                "Items of batches, by RPC and result.",
                &["rpc", "result"],
            )?,
            connections_accepted: counter(
                "fieldkeep_connections_accepted_total",
                "Connections that were accepted.",
            )?,
            connections_refused: counter(
                "fieldkeep_connections_refused_total",
                "Connections beyond the limit.",
            )?,
            handshake_failures: counter(
                "fieldkeep_handshake_failures_total",
                "TLS handshakes that failed.",
            )?,
            tls_reloads: counter(
                "fieldkeep_tls_reloads_total",
                "Certificates of the server that were taken over from changed files.",
            )?,
            tls_reload_failures: counter(
                "fieldkeep_tls_reload_failures_total",
                "Changed certificate files of the server that could not be served.",
            )?,
            export_failures: counter(
                "fieldkeep_otlp_failures_total",
                "Requests to the OpenTelemetry collector that failed; what they held is lost.",
            )?,
            spans_dropped: counter(
                "fieldkeep_otlp_spans_dropped_total",
                "Spans that did not fit into the queue.",
            )?,
            cache: CacheMetrics {
                keys: gauge("fieldkeep_cache_keys", "Keys in the key cache.")?,
                bytes: gauge(
                    "fieldkeep_cache_bytes",
                    "Memory of the keys in the key cache.",
                )?,
                hits: counter(
                    "fieldkeep_cache_hits_total",
                    "Look-ups that found their key in the cache.",
                )?,
                misses: counter(
                    "fieldkeep_cache_misses_total",
                    "Look-ups that had to load their key.",
                )?,
                evictions: counter(
                    "fieldkeep_cache_evictions_total",
                    "Keys that made room for others.",
                )?,
            },
            journal: JournalMetrics {
                syncs: counters(
                    "fieldkeep_journal_syncs_total",
                    "Syncs to disk.",
                    &["journal"],
                )?,
                frames: counters(
                    "fieldkeep_journal_frames_total",
                    "Frames written.",
                    &["journal"],
                )?,
                bytes: counters(
                    "fieldkeep_journal_bytes_total",
                    "Bytes written.",
                    &["journal"],
                )?,
                largest_group,
            },
            rotation: RotationMetrics::new(&registry)?,
            archive: ArchiveMetrics {
                segments: counter(
                    "fieldkeep_audit_archived_segments_total",
                    "Record segments of the audit trail that went to the archive.",
                )?,
                bytes: counter(
                    "fieldkeep_audit_archived_bytes_total",
                    "Bytes of their files in the archive.",
                )?,
                failures: counter(
                    "fieldkeep_audit_archive_failures_total",
                    "Attempts to archive that failed and are repeated.",
                )?,
            },
            audit: AuditMetrics::register(&registry)?,
            latency,
            connections,
            state: StateMetrics::register(&registry)?,
            rpcs: Mutex::default(),
            registry,
        })
    }

    /// The metrics of one RPC, for example `fieldkeep.v1.FieldService/Encrypt`; take them once, not on every call.
    pub fn rpc(&self, name: &'static str) -> Arc<RpcMetrics> {
        let mut rpcs = self.rpcs.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = rpcs.entry(name).or_insert_with(|| {
            Arc::new(RpcMetrics {
                calls: CODES.map(|code| self.calls.with_label_values(&[name, code])),
                latency: self.latency.with_label_values(&[name]),
                items_ok: self.items.with_label_values(&[name, "ok"]),
                items_failed: self.items.with_label_values(&[name, "failed"]),
            })
        });
        Arc::clone(metrics)
    }

    /// The calls that ended, of all RPCs.
    pub fn calls_total(&self) -> u64 {
        let rpcs = self.rpcs.lock().unwrap_or_else(PoisonError::into_inner);
        rpcs.values()
            .flat_map(|rpc| &rpc.calls)
            .map(IntCounter::get)
            .sum()
    }

    /// Takes over the figures of a journal; call it before [`Metrics::render`].
    pub fn set_journal(&self, journal: JournalName, figures: JournalFigures) {
        let label = [journal.label()];
        catch_up(&self.journal.syncs.with_label_values(&label), figures.syncs);
        catch_up(
            &self.journal.frames.with_label_values(&label),
            figures.frames,
        );
        catch_up(&self.journal.bytes.with_label_values(&label), figures.bytes);
        self.journal
            .largest_group
            .with_label_values(&label)
            .set(figures.largest_group);
    }

    /// Takes over the figures of the key cache; call it before [`Metrics::render`].
    pub fn set_cache(&self, figures: CacheFigures) {
        self.cache.keys.set(figures.keys);
        self.cache.bytes.set(figures.bytes);
        catch_up(&self.cache.hits, figures.hits);
        catch_up(&self.cache.misses, figures.misses);
        catch_up(&self.cache.evictions, figures.evictions);
    }

    /// All metrics.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// Takes over the commits of leases of usage counters since start; call it before [`Metrics::render`].
    pub fn set_usage_commits(&self, total: u64) {
        self.rotation.set_usage_commits(total);
    }

    /// All metrics in the Prometheus text format, version 0.0.4.
    ///
    /// # Errors
    /// A metric cannot be shown as text: a mistake in the metrics library.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

impl RpcMetrics {
    /// Counts a call that ended with a `google.rpc.Code` after `duration`. An unknown code counts as `UNKNOWN`.
    pub fn ended(&self, code: i32, duration: Duration) {
        let [_, _, unknown, ..] = &self.calls;
        let counter = usize::try_from(code)
            .ok()
            .and_then(|code| self.calls.get(code));
        counter.unwrap_or(unknown).inc();
        self.latency.observe(duration.as_secs_f64());
    }

    /// Counts the items of a batch.
    pub fn items(&self, ok: u64, failed: u64) {
        self.items_ok.inc_by(ok);
        self.items_failed.inc_by(failed);
    }
}

/// Brings a counter up to a total that is kept elsewhere.
fn catch_up(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}
