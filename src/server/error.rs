//! Why the service does not start, or did not stop cleanly.

use std::io;
use std::net::SocketAddr;

use fieldkeep_keystore::error::KeystoreError;
use fieldkeep_keystore::store::StoreError;
use fieldkeep_keystore::store::sled::StoreOpenError;

use crate::access::AccessError;
use crate::access::ca::CaError;
use crate::access::certificates::CertificatesError;
use crate::audit::AuditError;
use crate::audit::trail::TrailError;
use crate::config::ConfigError;
use crate::grpc::tls::TlsError;
use crate::service::failure::Failure;

/// Why the service could not start: the cause, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The root key's reference in the configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be opened: damaged, of another version, or in use by another process.
    #[error(transparent)]
    Store(#[from] StoreOpenError),
    /// The keystore cannot be opened: a wrong passphrase or key file, or damaged records.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// The grants cannot be read.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The CA cannot be opened.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The revocations and the other CAs cannot be read.
    #[error(transparent)]
    Certificates(#[from] CertificatesError),
    /// The audit trail cannot be opened.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The audit trail and the store do not agree.
    #[error(transparent)]
    Trail(#[from] TrailError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A listener cannot be opened.
    #[error(
        "cannot listen on {address} for {listener} calls: {source}; stop what uses that address, or change `listen.{listener}`"
    )]
    Listen {
        /// Which one: `data`, `admin` or `metrics`.
        listener: &'static str,
        /// Where.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// A thread or its runtime cannot be made.
    #[error(
        "cannot start a thread: {0}; raise the limits of the process on threads and open files"
    )]
    Thread(io::Error),
    /// The metrics cannot be registered.
    #[error("cannot register the metrics: {0}; this is a defect, please report it")]
    Metrics(#[from] prometheus::Error),
    /// The parts cannot be put together.
    #[error("cannot put the service together ({}); check that the system gives random numbers", .0.detail())]
    Service(Failure),
    /// The start was cut short.
    #[error("the start was cut short by a defect; the log has the cause, please report it")]
    Stopped,
}

/// What did not close cleanly. Nothing acknowledged is lost by it; the next start has more to check.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    /// The settled mark could not be written.
    #[error("the audit trail was closed without its mark: {0}")]
    Settle(#[from] TrailError),
    /// The store could not be closed.
    #[error("the store could not be closed: {0}")]
    Store(#[from] StoreError),
    /// The service ended by a defect.
    #[error("the service ended by a defect; the log has the cause, please report it")]
    Stopped,
}
