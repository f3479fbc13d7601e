//! Sends traces and metrics to a collector while the service runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::error::StartError;
use super::metrics::Sources;
use crate::config::telemetry::OtlpConfig;
use crate::service::{Clock, SystemClock};
use crate::telemetry::Metrics;
use crate::telemetry::otlp::Exporter;
use crate::telemetry::trace::Tracer;

/// How long the last traces and metrics may take to be sent.
const LAST: Duration = Duration::from_secs(2);

/// What sends traces and metrics to a collector.
pub(super) struct Export {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Export {
    pub(super) fn start(
        config: &OtlpConfig,
        metrics: &Metrics,
        sources: &Arc<Sources>,
    ) -> Result<(Option<Tracer>, Self), StartError> {
        let headers = config.headers()?;
        let (tracer, spans) = config
            .traces
            .then(|| Tracer::new(config.sample_per_million, metrics.spans_dropped.clone()))
            .unzip();
        let wall = || Duration::from_micros(SystemClock.now_us());
        let failures = metrics.export_failures.clone();
        let exporter = Exporter::new(config, headers, spans, failures, wall);
        let (stop, stopped) = oneshot::channel();
        let sources = Arc::clone(sources);
        let task = tokio::spawn(exporter.run(move || sources.gather(), stopped));
        Ok((tracer, Self { stop, task }))
    }

    /// Sends what is left.
    pub(super) async fn stop(mut self) {
        drop(self.stop);
        match tokio::time::timeout(LAST, &mut self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::error!("sending telemetry ended by a defect"),
            Err(_) => {
                self.task.abort();
                let _ = self.task.await;
                tracing::warn!("the collector took too long; the last telemetry is lost");
            }
        }
    }
}
