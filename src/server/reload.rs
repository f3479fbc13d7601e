//! Takes over the server's certificate when its files change, without a restart.
//!
//! The files are looked at every second, and at once on SIGHUP. What is served changes only to a pair that was read as a
//! whole, belongs together, and verifies against the CA file; with anything else the old pair goes on, and the next look
//! tries again. So a half-written pair is never served, whatever writes it and in whichever order.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::sync::Notify;

use crate::config::Tls;
use crate::grpc::tls::{Identity, TlsError, check_ca_file, server_config};
use crate::service::system::CertificateEnd;
use crate::service::{Clock, SystemClock};
use crate::telemetry::Metrics;

use crate::access::trust::Trust;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What is needed to make the TLS configuration anew.
pub(super) struct Reloader {
    tls: Tls,
    ca: CertificateDer<'static>,
    trust: Arc<Trust>,
    current: Arc<ArcSwap<ServerConfig>>,
    ends: CertificateEnd,
    metrics: Arc<Metrics>,
    /// The files as they were when they were last taken over, or refused.
    seen: Option<[Stamp; 3]>,
    /// What was wrong with them, so that it is said once.
    problem: Option<String>,
}

/// By what a change of a file is seen: its inode, length and time of change in nanoseconds.
type Stamp = Option<(u64, u64, i64, i64)>;

/// What came of a look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// Nothing has changed.
    Unchanged,
    /// A new pair is served.
    Reloaded,
    /// The files cannot be served; the old pair is.
    Kept,
}

impl Reloader {
    pub(super) fn new(
        tls: Tls,
        ca: CertificateDer<'static>,
        trust: Arc<Trust>,
        current: Arc<ArcSwap<ServerConfig>>,
        ends: CertificateEnd,
        metrics: Arc<Metrics>,
    ) -> Self {
        let mut reloader = Self {
            tls,
            ca,
            trust,
            current,
            ends,
            metrics,
            seen: None,
            problem: None,
        };
        reloader.seen = Some(reloader.stamps());
        reloader
    }

    /// Looks every second, and when `now_please` is notified.
    pub(super) async fn run(mut self, now_please: Arc<Notify>) {
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = now_please.notified() => {
                    self.seen = None;
                }
            }
            let now_s = SystemClock.now_us() / 1_000_000;
            // Small files, on the runtime that only accepts and ticks.
            self.look(now_s);
        }
    }

    /// Looks once. `now_s` is in Unix seconds.
    pub(super) fn look(&mut self, now_s: u64) -> Looked {
        let stamps = self.stamps();
        // What was refused is tried again: a file may be written twice within one tick of its clock.
        if self.seen == Some(stamps) && self.problem.is_none() {
            return Looked::Unchanged;
        }
        match self.load(now_s) {
            // Written while it was read: the next look has all of it.
            Ok(_) if self.stamps() != stamps => Looked::Kept,
            Ok((config, not_after_s)) => {
                self.seen = Some(stamps);
                self.problem = None;
                self.current.store(config);
                self.ends.set(not_after_s);
                self.metrics.tls_reloads.inc();
                tracing::info!(
                    not_after_s,
                    "the server's certificate was taken over from its files"
                );
                Looked::Reloaded
            }
            Err(error) => {
                let problem = error.to_string();
                if self.seen != Some(stamps) || self.problem.as_ref() != Some(&problem) {
                    self.metrics.tls_reload_failures.inc();
                    tracing::error!(%error, "the changed certificate files are not served; the server goes on with what it had");
                }
                self.seen = Some(stamps);
                self.problem = Some(problem);
                Looked::Kept
            }
        }
    }

    fn load(&self, now_s: u64) -> Result<(Arc<ServerConfig>, i64), TlsError> {
        check_ca_file(&self.tls.ca, &self.ca)?;
        let identity = Identity::load(&self.tls.cert, &self.tls.key)?;
        identity.verify(&self.tls.ca, now_s)?;
        let not_after_s = identity.not_after_s;
        Ok((server_config(&self.trust, &self.ca, identity)?, not_after_s))
    }

    fn stamps(&self) -> [Stamp; 3] {
        [&self.tls.cert, &self.tls.key, &self.tls.ca].map(|path| stamp(path))
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    ))
}

impl CertificateEnd {
    fn set(&self, not_after_s: i64) {
        self.0.store(not_after_s, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
