//! What an admin reads about the service itself: its state and its audit trail.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::access::action::Action;
use crate::access::grant::Scope;
use crate::access::principal::Principal;
use crate::disk::Space;
use crate::service::Core;
use crate::service::failure::Failure;
use crate::service::perform::Operation;
use crate::service::perform::permit::{Asks, Permit};
use crate::service::record::Account;

/// What does not change while the process runs.
#[derive(Debug, Clone)]
pub struct About {
    /// When the process started, Unix seconds.
    pub started_s: u64,
    /// When the server's certificate ends, which moves when it is replaced.
    pub certificate_end: CertificateEnd,
    /// The directory whose file system holds the data; `None`: all is in memory.
    pub data_dir: Option<PathBuf>,
}

/// When the server's certificate ends. A clone is the same moment.
#[derive(Debug, Clone, Default)]
pub struct CertificateEnd(pub(crate) Arc<AtomicI64>);

impl CertificateEnd {
    /// It ends at `unix_s`, Unix seconds.
    #[must_use]
    pub fn at(unix_s: i64) -> Self {
        Self(Arc::new(AtomicI64::new(unix_s)))
    }

    /// Unix seconds.
    #[must_use]
    pub fn unix_s(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The state of the service.
#[derive(Debug, Clone)]
pub struct Status {
    /// What does not change.
    pub about: About,
    /// `sled` or `memory`.
    pub store: &'static str,
    /// The store's id.
    pub store_id: [u8; 16],
    /// The store's revision.
    pub store_revision: u64,
    /// Records in the audit trail.
    pub audit_records: u64,
    /// Keys in the cache.
    pub cached_keys: u64,
    /// Calls since start.
    pub calls: u64,
    /// `key-file` or `passphrase`.
    pub root_provider: String,
    /// Free space for the data, bytes.
    pub free_bytes: u64,
}

/// Read the state.
pub struct ReadStatus;

impl Operation for ReadStatus {
    const ACTION: Action = Action::Status;
    type Output = Status;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::ALL
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        account.used(String::from("status"), 0, "", 0);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Status, Failure> {
        self.about(permit.principal(), account);
        let keystore = core.vault.manage(permit, Scope::ALL, None)?;
        let store_revision = keystore.store().revision().await.map_err(Failure::store)?;
        Ok(Status {
            about: core.about.clone(),
            store: keystore.store().kind(),
            store_id: *keystore.store_id().as_bytes(),
            store_revision,
            audit_records: core.audit.len(),
            cached_keys: keystore.cache_stats().keys,
            calls: core.request_ids.count(),
            root_provider: keystore.root_provider().to_owned(),
            free_bytes: core
                .about
                .data_dir
                .as_deref()
                .and_then(Space::of)
                .map_or(0, |space| space.free_bytes),
        })
    }
}
