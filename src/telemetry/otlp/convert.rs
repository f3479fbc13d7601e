//! Spans and Prometheus metrics as OTLP messages.

use std::time::{Duration, Instant};

use fieldkeep_crypto::random;
use prometheus::proto::{LabelPair, Metric as Sample, MetricFamily, MetricType};

use super::message::{
    AnyValue, Data, ExportMetrics, ExportTraces, Gauge, Histogram, HistogramPoint, KeyValue,
    Metric, NumberPoint, Resource, ResourceMetrics, ResourceSpans, Scope, ScopeMetrics, ScopeSpans,
    Span as SpanMessage, Status, Sum, Value,
};
use crate::telemetry::trace::Span;
use crate::version::VERSION;

const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const ERROR: i32 = 2;
const CUMULATIVE: i32 = 2;
/// Codes that are the server's fault, by OpenTelemetry's conventions for gRPC: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED,
/// INTERNAL, UNAVAILABLE, DATA_LOSS.
const FAULTS: [i32; 6] = [2, 4, 12, 13, 14, 15];

/// One moment on both clocks.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    /// Since the Unix epoch.
    pub(super) wall: Duration,
}

impl Moment {
    fn unix_nanos(&self, at: Instant) -> u64 {
        let since_then = self.instant.saturating_duration_since(at);
        nanos(self.wall.saturating_sub(since_then))
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::Text(value.into()))
}

fn number(key: &str, value: impl Into<i64>) -> KeyValue {
    attribute(key, Value::Number(value.into()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
    }
}

fn scope() -> Option<Scope> {
    Some(Scope {
        name: String::from("fieldkeep"),
        version: String::from(VERSION),
    })
}

/// The spans that ended, and those of their parts.
pub(super) fn traces(spans: Vec<Span>, resource: &Resource, now: Moment) -> ExportTraces {
    let mut messages = Vec::with_capacity(spans.len() * 2);
    for span in spans {
        parts(&span, now, &mut messages);
        messages.push(call(&span, now));
    }
    ExportTraces {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans {
                scope: scope(),
                spans: messages,
            }],
        }],
    }
}

fn call(span: &Span, now: Moment) -> SpanMessage {
    let (service, method) = span.rpc.rsplit_once('/').unwrap_or(("", span.rpc));
    let mut attributes = vec![
        text("rpc.system", "grpc"),
        text("rpc.service", service),
        text("rpc.method", method),
        number("rpc.grpc.status_code", span.code),
        text(
            "fieldkeep.request_id",
            data_encoding::HEXLOWER.encode(&span.request_id),
        ),
    ];
    if let Some((ok, failed)) = span.notes.items {
        attributes.push(number("fieldkeep.items_ok", ok));
        attributes.push(number("fieldkeep.items_failed", failed));
    }
    if let Some(reason) = span.notes.reason {
        attributes.push(text("fieldkeep.reason", reason));
    }
    SpanMessage {
        trace_id: span.trace_id.to_vec(),
        span_id: span.span_id.to_vec(),
        parent_span_id: span.parent.map(Vec::from).unwrap_or_default(),
        name: span.rpc.to_owned(),
        kind: SERVER,
        start_time_unix_nano: now.unix_nanos(span.started),
        end_time_unix_nano: now.unix_nanos(span.ended),
        attributes,
        status: FAULTS.contains(&span.code).then(|| Status {
            message: span.notes.reason.unwrap_or_default().to_owned(),
            code: ERROR,
        }),
    }
}

fn parts(span: &Span, now: Moment, messages: &mut Vec<SpanMessage>) {
    for part in &span.notes.parts {
        let mut id = [0; 8];
        if random::fill(&mut id).is_err() {
            return;
        }
        messages.push(SpanMessage {
            trace_id: span.trace_id.to_vec(),
            span_id: id.to_vec(),
            parent_span_id: span.span_id.to_vec(),
            name: part.name.to_owned(),
            kind: INTERNAL,
            start_time_unix_nano: now.unix_nanos(part.started),
            end_time_unix_nano: now.unix_nanos(part.ended),
            attributes: Vec::new(),
            status: None,
        });
    }
}

/// The metrics under their Prometheus names, cumulative since `started`.
pub(super) fn metrics(
    families: &[MetricFamily],
    resource: &Resource,
    started: Duration,
    now: Duration,
) -> ExportMetrics {
    let times = (nanos(started), nanos(now));
    let metrics = families.iter().filter_map(|family| metric(family, times));
    ExportMetrics {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource.clone()),
            scope_metrics: vec![ScopeMetrics {
                scope: scope(),
                metrics: metrics.collect(),
            }],
        }],
    }
}

/// `None`: a kind that the service does not have.
fn metric(family: &MetricFamily, times: (u64, u64)) -> Option<Metric> {
    let samples = family.get_metric().iter();
    let data = match family.get_field_type() {
        MetricType::COUNTER => Data::Sum(Sum {
            data_points: samples
                .map(|sample| point(sample, sample.get_counter().get_value(), times))
                .collect(),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        }),
        MetricType::GAUGE => Data::Gauge(Gauge {
            data_points: samples
                .map(|sample| point(sample, sample.get_gauge().get_value(), times))
                .collect(),
        }),
        MetricType::HISTOGRAM => Data::Histogram(Histogram {
            data_points: samples.map(|sample| histogram(sample, times)).collect(),
            aggregation_temporality: CUMULATIVE,
        }),
        MetricType::SUMMARY | MetricType::UNTYPED => return None,
    };
    Some(Metric {
        name: family.name().to_owned(),
        description: family.help().to_owned(),
        data: Some(data),
    })
}

fn labels(pairs: &[LabelPair]) -> Vec<KeyValue> {
    pairs
        .iter()
        .map(|pair| text(pair.name(), pair.value()))
        .collect()
}

fn point(sample: &Sample, value: f64, (started, now): (u64, u64)) -> NumberPoint {
    NumberPoint {
        attributes: labels(sample.get_label()),
        start_time_unix_nano: started,
        time_unix_nano: now,
        as_double: Some(value),
    }
}

/// Prometheus counts up to each bound; OTLP counts between bounds, and has one count more than bounds.
fn histogram(sample: &Sample, (started, now): (u64, u64)) -> HistogramPoint {
    let histogram = sample.get_histogram();
    let finite = histogram
        .get_bucket()
        .iter()
        .filter(|bucket| bucket.upper_bound().is_finite());
    let (mut bounds, mut counts, mut below) = (Vec::new(), Vec::new(), 0);
    for bucket in finite {
        bounds.push(bucket.upper_bound());
        counts.push(bucket.cumulative_count().saturating_sub(below));
        below = bucket.cumulative_count();
    }
    let count = histogram.get_sample_count();
    counts.push(count.saturating_sub(below));
    HistogramPoint {
        attributes: labels(sample.get_label()),
        start_time_unix_nano: started,
        time_unix_nano: now,
        count,
        sum: Some(histogram.get_sample_sum()),
        bucket_counts: counts,
        explicit_bounds: bounds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn buckets_are_counted_between_their_bounds() {
        let metrics = Metrics::new().unwrap();
        let rpc = metrics.rpc("a/B");
        for micros in [70, 80, 30_000, 60_000_000] {
            rpc.ended(0, Duration::from_micros(micros));
        }
        let families = metrics.gather();
        let sent = super::metrics(
            &families,
            &Resource::default(),
            Duration::from_secs(1),
            Duration::from_secs(2),
        );
        let found = sent.resource_metrics[0].scope_metrics[0]
            .metrics
            .iter()
            .find(|metric| metric.name == "fieldkeep_call_duration_seconds")
            .unwrap();
        let Some(Data::Histogram(histogram)) = &found.data else {
            panic!("{found:?}");
        };
        let point = &histogram.data_points[0];
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!(point.bucket_counts.iter().sum::<u64>(), 4);
        assert_eq!((point.count, point.bucket_counts[1]), (4, 2));
        assert_eq!(point.bucket_counts.last(), Some(&1));
        assert_eq!(point.attributes[0].key, "rpc");
    }

    #[test]
    fn a_fault_of_the_server_is_an_error_and_one_of_the_caller_is_not() {
        let started = Instant::now();
        let span = |code| Span {
            trace_id: [1; 16],
            span_id: [2; 8],
            parent: None,
            rpc: "a.B/C",
            request_id: [3; 16],
            code,
            started,
            ended: started + Duration::from_millis(5),
            notes: Default::default(),
        };
        let now = Moment {
            instant: started + Duration::from_secs(1),
            wall: Duration::from_secs(100),
        };
        let sent = traces(vec![span(7), span(13)], &Resource::default(), now);
        let spans = &sent.resource_spans[0].scope_spans[0].spans;
        assert_eq!(spans[0].status, None);
        assert_eq!(spans[1].status.as_ref().unwrap().code, ERROR);
        assert_eq!(spans[0].start_time_unix_nano, 99_000_000_000);
        assert_eq!(spans[0].end_time_unix_nano, 99_005_000_000);
        assert!(spans[0].parent_span_id.is_empty());
    }
}
