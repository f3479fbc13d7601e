//! Sends traces and metrics to a collector: OTLP 1.x, protobuf over plain HTTP/1.1.
//!
//! It runs beside the calls and never in one. What a collector does not take is sent again where that may help, and then
//! counted, told once a minute, and forgotten.

mod convert;
mod message;
mod send;

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{Fuse, FusedFuture as _};
use prometheus::IntCounter;
use prometheus::proto::MetricFamily;
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::convert::Moment;
use self::message::Resource;
use self::send::Endpoint;
use crate::config::telemetry::OtlpConfig;
use crate::telemetry::trace::Span;
use crate::version::VERSION;

/// How often ended spans are sent.
const SPANS_EVERY: Duration = Duration::from_millis(250);
/// Spans of one request, without their parts.
const SPANS_A_REQUEST: usize = 1024;
/// Requests with spans at a time, before metrics and the end have their turn: as many as a full queue needs.
const REQUESTS: usize = 16;
/// The pauses before a request is sent again. Meanwhile spans wait in their queue, which is bounded.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];
/// How often failures are told.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Resolves when the service stops; after that it can be asked whether it has.
type Stop = Fuse<oneshot::Receiver<()>>;

/// What is sent, and where.
pub struct Exporter {
    endpoint: Endpoint,
    resource: Resource,
    /// The time since the Unix epoch.
    wall: fn() -> Duration,
    started: Duration,
    /// The spans that ended, if traces are sent.
    spans: Option<mpsc::Receiver<Span>>,
    /// How often metrics are sent, if they are.
    metrics_every: Option<Duration>,
    failures: IntCounter,
    untold: Untold,
}

/// Failures since the last line about them.
#[derive(Default)]
struct Untold {
    count: u64,
    told: Option<Instant>,
}

impl Exporter {
    /// An exporter as `config` says. `failures` counts requests that did not succeed; `wall` tells the time since the Unix
    /// epoch.
    #[must_use]
    pub fn new(
        config: &OtlpConfig,
        headers: http::HeaderMap,
        spans: Option<mpsc::Receiver<Span>>,
        failures: IntCounter,
        wall: fn() -> Duration,
    ) -> Self {
        let resource = Resource {
            attributes: vec![
                convert::text("service.name", &config.service_name),
                convert::text("service.instance.id", &config.service_instance),
                convert::text("service.version", VERSION),
            ],
        };
        Self {
            endpoint: Endpoint::new(&config.endpoint, headers),
            resource,
            wall,
            started: wall(),
            spans,
            metrics_every: config.metrics.then_some(config.metrics_interval),
            failures,
            untold: Untold::default(),
        }
    }

    /// Sends until `stop` resolves, and then what is left. `gather` reads the metrics.
    pub async fn run(
        mut self,
        gather: impl Fn() -> Vec<MetricFamily>,
        stop: oneshot::Receiver<()>,
    ) {
        let mut stop = stop.fuse();
        let mut spans = interval(SPANS_EVERY);
        let mut metrics = interval(self.metrics_every.unwrap_or(TELL_EVERY));
        for ticks in [&mut spans, &mut metrics] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                // Without its sender the server is gone, which ends this as well.
                _ = &mut stop => break,
                _ = spans.tick() => self.send_spans(&mut stop).await,
                _ = metrics.tick() => self.send_metrics(&gather, &mut stop).await,
            }
        }
        self.send_spans(&mut stop).await;
        self.send_metrics(&gather, &mut stop).await;
    }

    async fn send_spans(&mut self, stop: &mut Stop) {
        for _ in 0..REQUESTS {
            let Some(queue) = self.spans.as_mut() else {
                return;
            };
            let mut spans = Vec::new();
            while spans.len() < SPANS_A_REQUEST
                && let Ok(span) = queue.try_recv()
            {
                spans.push(span);
            }
            if spans.is_empty() {
                return;
            }
            let now = Moment {
                instant: Instant::now(),
                wall: (self.wall)(),
            };
            let message = convert::traces(spans, &self.resource, now);
            self.send("v1/traces", &message, stop).await;
        }
    }

    async fn send_metrics(&mut self, gather: &impl Fn() -> Vec<MetricFamily>, stop: &mut Stop) {
        if self.metrics_every.is_none() {
            return;
        }
        let message = convert::metrics(&gather(), &self.resource, self.started, (self.wall)());
        self.send("v1/metrics", &message, stop).await;
    }

    async fn send(&mut self, path: &str, message: &impl Message, stop: &mut Stop) {
        let body = Bytes::from(message.encode_to_vec());
        let mut pauses = PAUSES.into_iter();
        let error = loop {
            let Err(error) = self.endpoint.post(path, body.clone()).await else {
                return;
            };
            // What is left when the service stops has one try: nothing may hold up its end.
            match pauses.next() {
                Some(pause) if error.may_pass() && !stop.is_terminated() => {
                    tokio::select! {
                        () = sleep(pause) => {}
                        _ = &mut *stop => {}
                    }
                }
                _ => break error,
            }
        };
        self.failures.inc();
        self.untold.count += 1;
        if self
            .untold
            .told
            .is_none_or(|told| told.elapsed() >= TELL_EVERY)
        {
            tracing::warn!(%error, path, failures = self.untold.count, "telemetry was not sent; calls are not disturbed");
            self.untold = Untold {
                count: 0,
                told: Some(Instant::now()),
            };
        }
    }
}
