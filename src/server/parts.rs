//! Opens and checks the data directory, and closes it again.

use std::sync::Arc;

use arc_swap::ArcSwap;
use fieldkeep_keystore::keystore::Keystore;
use fieldkeep_keystore::store::Store;
use fieldkeep_keystore::store::sled::{SledOptions, SledStore};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;

use super::error::{ShutdownError, StartError};
use crate::access::Access;
use crate::access::ca::Ca;
use crate::access::certificates::Certificates;
use crate::access::limits::shed::ShedOptions;
use crate::audit::AuditLog;
use crate::audit::trail::{check_trail, lower_mark, settle};
use crate::config::Config;
use crate::grpc::tls::{Identity, check_ca_file, server_config};
use crate::init::AUDIT_DIR;
use crate::service::system::{About, CertificateEnd};
use crate::service::vault::Vault;
use crate::service::{Clock, Core, Limits, Parts, SystemClock};
use crate::telemetry::Metrics;

/// Everything that is open while the service runs.
pub(super) struct Opened {
    pub(super) core: Arc<Core>,
    pub(super) keystore: Keystore,
    pub(super) audit: AuditLog,
    pub(super) metrics: Arc<Metrics>,
    /// What handshakes go by, which changes with the files.
    pub(super) tls: Arc<ArcSwap<ServerConfig>>,
    /// The built-in CA's certificate.
    pub(super) ca: CertificateDer<'static>,
    /// The store below the keystore, for its metrics.
    pub(super) store: Arc<SledStore>,
}

/// Opens the store, the keystore and the trail, and compares them. The certificates are read first, since that is quick.
pub(super) async fn open(config: &Config, now_s: u64) -> Result<Opened, StartError> {
    let identity = Identity::load(&config.tls.cert, &config.tls.key)?;
    let root = config.root.provider()?;
    let options = SledOptions {
        create: false,
        mirror: config.store.mirror_dir.clone(),
        ..SledOptions::default()
    };
    let (store, report) = SledStore::open(&config.data_dir, options)?;
    tracing::info!(
        revision = report.revision,
        records = report.records,
        replayed = report.replayed_frames,
        "opened the store"
    );
    if let Some(cause) = &report.rebuilt {
        tracing::warn!(cause, "rebuilt the store's index from its journal");
    }
    let store = Arc::new(store);
    let opened = open_with(config, Arc::clone(&store), root.as_ref(), identity, now_s).await;
    if opened.is_err()
        && let Err(error) = store.close().await
    {
        tracing::warn!(%error, "the store did not close cleanly");
    }
    opened
}

async fn open_with(
    config: &Config,
    store: Arc<SledStore>,
    root: &dyn fieldkeep_keystore::root::RootProvider,
    identity: Identity,
    now_s: u64,
) -> Result<Opened, StartError> {
    let keystore = Keystore::open(Arc::clone(&store) as Arc<dyn Store>, root, config.cache).await?;
    let audit_dir = config.data_dir.join(AUDIT_DIR);
    let audit = AuditLog::open(&audit_dir, &config.audit, &keystore, now_s).await?;
    let compared = check_trail(&keystore, &audit, now_s, config.audit.accept_loss).await?;
    if config.audit.accept_loss {
        lower_mark(&keystore, &audit, now_s).await?;
    }
    tracing::info!(
        records = compared.records,
        changes = compared.changes,
        recovered = compared.recovered,
        "the audit trail agrees with the store"
    );
    if audit.first() > 0 {
        tracing::warn!(
            first = audit.first(),
            "the records before this one are not here, and `audit.archive_dir` does not say where they are: `audit list`, `tail`, `export` and `report` begin with this one"
        );
    }
    let access = Access::load(&keystore).await?;
    let ca = Ca::open(&keystore).await?;
    ca.check_trust_domain(&config.tls.trust_domain)?;
    check_ca_file(&config.tls.ca, ca.certificate())?;
    let certificate_expires_s = identity.not_after_s;
    if certificate_expires_s <= i64::try_from(now_s).unwrap_or(i64::MAX) {
        tracing::error!(path = %config.tls.cert.display(), "the server's certificate has expired; clients will refuse it");
    }
    let built_in = ca.certificate().clone();
    let certificates = Certificates::load(&keystore, &built_in, ca.trust_domain(), now_s).await?;
    let tls = server_config(certificates.trust(), &built_in, identity)?;
    let parts = Parts {
        api_key_hash: keystore.derive_api_key_hash_key(),
        vault: Vault::new(keystore.clone()),
        access,
        audit: audit.clone(),
        ca,
        certificates,
        limits: Limits {
            shed: ShedOptions {
                calls: config.limits.calls,
                ..ShedOptions::default()
            },
            audit_window: !config.audit.window.is_zero(),
            ..Limits::default()
        },
        clock: Arc::new(SystemClock),
        about: About {
            started_s: now_s,
            certificate_end: CertificateEnd::at(certificate_expires_s),
            data_dir: Some(config.data_dir.clone()),
        },
    };
    let core = Core::new(parts).map_err(StartError::Service)?;
    Ok(Opened {
        core,
        keystore,
        audit,
        metrics: Arc::new(Metrics::new()?),
        tls: Arc::new(ArcSwap::new(tls)),
        ca: built_in,
        store,
    })
}

impl Opened {
    /// Marks what the trail and the store agree on, and closes the store. The trail closes when its last handle goes.
    pub(super) async fn close(self) -> Result<(), ShutdownError> {
        let Self {
            core,
            keystore,
            audit,
            metrics: _,
            tls: _,
            ca: _,
            store: _,
        } = self;
        let now_s = SystemClock.now_us() / 1_000_000;
        if let Err(error) = keystore.flush_usage().await {
            tracing::warn!(%error, "the exact use of keys was not written; it counts as a little more");
        }
        let settled = settle(&keystore, &audit, now_s).await;
        let closed = keystore.store().close().await;
        drop((core, audit));
        settled?;
        Ok(closed?)
    }
}
