//! The metrics listener: plain HTTP/1, `GET /metrics`, and nothing else.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fieldkeep_keystore::keystore::Keystore;
use fieldkeep_keystore::store::sled::SledStore;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::proto::MetricFamily;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::disks;
use super::parts::Opened;
use crate::audit::AuditLog;
use crate::config::Config;
use crate::service::Core;
use crate::telemetry::state::State;
use crate::telemetry::{AuditFigures, CacheFigures, JournalFigures, JournalName, Metrics};

/// Connections of scrapers at once; more wait.
const CONNECTIONS: usize = 16;
/// How long a scraper may take to send its request.
const HEADERS: Duration = Duration::from_secs(5);
/// How long one connection may last.
const CONNECTION: Duration = Duration::from_secs(60);
/// How long accepting rests after an error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where the figures come from.
pub(super) struct Sources {
    metrics: Arc<Metrics>,
    keystore: Keystore,
    audit: AuditLog,
    store: Arc<SledStore>,
    core: Arc<Core>,
    directories: Vec<(&'static str, PathBuf)>,
}

impl Sources {
    pub(super) fn new(config: &Config, opened: &Opened) -> Arc<Self> {
        Arc::new(Self {
            metrics: Arc::clone(&opened.metrics),
            keystore: opened.keystore.clone(),
            audit: opened.audit.clone(),
            store: Arc::clone(&opened.store),
            core: Arc::clone(&opened.core),
            directories: disks::directories(config),
        })
    }

    /// All metrics as they are now.
    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.refresh();
        self.metrics.gather()
    }

    fn render(&self) -> Result<String, prometheus::Error> {
        self.refresh();
        self.metrics.render()
    }

    fn refresh(&self) {
        let cache = self.keystore.cache_stats();
        self.metrics.set_cache(CacheFigures {
            keys: cache.keys,
            bytes: cache.bytes,
            hits: cache.hits,
            misses: cache.misses,
            evictions: cache.evictions,
        });
        self.metrics
            .set_usage_commits(self.keystore.usage_commits());
        self.metrics
            .set_journal(JournalName::Audit, figures(self.audit.journal().stats()));
        self.metrics
            .set_journal(JournalName::Store, figures(self.store.journal_stats()));
        self.metrics.audit.set(self.audit_figures());
        let about = self.core.about();
        self.metrics.state.set(State {
            serving: self.core.is_serving(),
            certificate_expires_s: about.certificate_end.unix_s(),
            started_s: about.started_s,
            directories: &self.directories,
        });
    }

    fn audit_figures(&self) -> AuditFigures {
        let checkpoints = self.audit.checkpoint_stats();
        let refusals = self.core.summary_stats();
        // The checkpoint first, so that it is not ahead of what is durable.
        let checkpoint_records = self.audit.checkpoint().head.size;
        AuditFigures {
            records: self.audit.len(),
            checkpoint_records,
            checkpoints_made: checkpoints.made,
            checkpoints_failed: checkpoints.failed,
            file_failures: checkpoints.file_failures,
            command_failures: checkpoints.command_failures,
            refusal_summaries: refusals.summaries,
            refusals_summarised: refusals.summarised,
        }
    }
}

fn figures(stats: fieldkeep_journal::Stats) -> JournalFigures {
    JournalFigures {
        syncs: stats.syncs,
        frames: stats.frames,
        bytes: stats.bytes,
        largest_group: stats.largest_group,
    }
}

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, sources: Arc<Sources>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let sources = Arc::clone(&sources);
                connections.spawn(async move {
                    let _place = place;
                    // A scraper that is slow or speaks something else is its own trouble.
                    let _ = tokio::time::timeout(CONNECTION, connection(stream, sources)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for metrics");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, sources: Arc<Sources>) {
    let answered = service_fn(move |request: Request<Incoming>| {
        let response = answer(&request, &sources);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), answered)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection for metrics ended");
    }
}

fn answer(request: &Request<Incoming>, sources: &Sources) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match sources.render() {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => {
                tracing::error!(%error, "the metrics cannot be shown");
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    String::from("the metrics cannot be shown\n"),
                )
            }
        },
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, String::from("only GET\n")),
        _ => (
            StatusCode::NOT_FOUND,
            String::from("only /metrics is here\n"),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
