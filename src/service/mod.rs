//! What the service does, whatever transport asks for it.
//!
//! Every call goes through [`Service::perform`]: authorize, run, audit, check the rights again, reply. It is the only
//! way to a key: the keystore is inside a [`vault::Vault`] that opens only with a [`perform::permit::Permit`], and only
//! `perform` can make a permit or a [`perform::Reply`].

use std::hash::RandomState;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fieldkeep_crypto::keys::ApiKeyHashKey;
use fieldkeep_journal::{Ticket, Waiters};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Access;
use crate::access::ca::Ca;
use crate::access::certificates::Certificates;
use crate::access::limits::shed::{Overload, ShedOptions};
use crate::access::limits::{DEFAULT_PRINCIPALS, Meters};
use crate::access::lockout::Lockout;
use crate::access::trust::Trust;
use crate::audit::AuditLog;
use crate::service::call::RequestIds;
use crate::service::failure::Failure;
use crate::service::offload::Places;
use crate::service::refusals::{RefusalOptions, Refusals};
use crate::service::schedule::ChangedKeys;
use crate::service::unwritten::Unwritten;
use crate::service::vault::Vault;
use crate::service::withdrawn::Withdrawn;

pub mod access;
pub mod api_keys;
pub mod arrival;
pub mod audit;
mod authenticate;
pub mod batch;
pub mod call;
pub mod certificates;
mod charge;
mod distinct;
pub mod enroll;
mod errors;
pub mod explain;
pub mod failure;
pub mod field;
pub mod groups;
mod in_use;
mod intent;
pub mod issuers;
pub mod items;
pub mod keys;
pub mod limit;
mod masking;
pub mod masks;
pub mod offload;
pub mod operation;
pub mod perform;
pub mod record;
pub mod reencrypt;
pub mod refusals;
pub mod report;
pub mod resource;
pub mod rotation;
pub mod schedule;
pub mod system;
#[cfg(test)]
pub(crate) mod tests;
mod unwritten;
mod usage;
pub mod vault;
pub mod withdrawn;

/// How often a busy trail is tried for what is kept when the service ends; one commit takes all that is kept.
const LAST_ATTEMPTS: usize = 8;

/// Where the time comes from; a parameter, so that tests can set it.
pub trait Clock: Send + Sync + 'static {
    /// Microseconds since the Unix epoch.
    fn now_us(&self) -> u64;

    /// Nanoseconds since some moment, the same as long as the process runs. It never goes back and never jumps, so limits and
    /// the flood guard go by it: whoever sets the system's clock gives nobody anything.
    fn monotonic_ns(&self) -> u64;
}

/// When the process first asked for the time.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The system's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_us(&self) -> u64 {
        let elapsed = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(BEGIN.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Bounds on what one call may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest plaintext of a field, bytes.
    pub field_bytes: usize,
    /// The longest reply, as an encoded message, bytes.
    pub reply_bytes: usize,
    /// The most items of a batch.
    pub batch_items: usize,
    /// How long a call waits for a busy audit trail, if its own deadline is not earlier.
    pub busy_patience: Duration,
    /// Whether the record of an Encrypt may be synced after its reply, within the bound of the trail.
    pub audit_window: bool,
    /// How long a change of rights waits for the calls that began before it.
    pub settling: Duration,
    /// How long a stream may be open without a message, or with replies that its caller does not take.
    pub stream_idle: Duration,
    /// How many calls may be under way before some are shed.
    pub shed: ShedOptions,
    /// How many refused calls have records of their own.
    pub refusals: RefusalOptions,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            field_bytes: fieldkeep_crypto::ciphertext::MAX_PLAINTEXT_BYTES,
            reply_bytes: 16 * 1024 * 1024 - 64 * 1024,
            batch_items: 10_000,
            busy_patience: Duration::from_secs(10),
            audit_window: false,
            settling: Duration::from_secs(5),
            stream_idle: Duration::from_secs(300),
            shed: ShedOptions::default(),
            refusals: RefusalOptions::default(),
        }
    }
}

/// The parts that a service is made of.
pub struct Parts {
    /// The keys, behind their permit.
    pub vault: Vault,
    /// The rights.
    pub access: Access,
    /// The audit trail.
    pub audit: AuditLog,
    /// The CA of client identities.
    pub ca: Ca,
    /// What was revoked, and the CAs of others.
    pub certificates: Certificates,
    /// The key of the hashes of API keys.
    pub api_key_hash: ApiKeyHashKey,
    /// Bounds on one call.
    pub limits: Limits,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What status calls say about this process.
    pub about: system::About,
}

/// What all runtimes share.
pub struct Core {
    vault: Vault,
    access: Access,
    audit: AuditLog,
    ca: Ca,
    certificates: Certificates,
    /// Failed enrolments and credentials. Its clock is [`Clock`], in Unix milliseconds: there is no other one here, and if it is set back nobody waits
    /// longer than a whole wait.
    attempts: Lockout,
    /// Keyed by chance, so that nobody can choose credentials that meet.
    credential_hasher: RandomState,
    api_key_hash: ApiKeyHashKey,
    limits: Limits,
    clock: Arc<dyn Clock>,
    /// What is used of limits.
    meters: Meters,
    /// The calls under way, by principal.
    overload: Arc<Overload>,
    about: system::About,
    request_ids: RequestIds,
    places: Places,
    messages: Arc<Semaphore>,
    /// The reports that are being made.
    reports: Semaphore,
    changes: TaskTracker,
    audit_down: AtomicBool,
    unwritten: Unwritten,
    refusals: Refusals,
    changed_keys: ChangedKeys,
    withdrawn: Withdrawn,
    draining: AtomicBool,
    /// Cancelled when draining begins, for those who wait for it.
    drain: CancellationToken,
    state_changed: Notify,
}

impl Drop for Core {
    /// Nobody comes any more who would write what is kept or counted.
    fn drop(&mut self) {
        self.write_last_summaries();
        let journal = self.audit.journal();
        for _ in 0..LAST_ATTEMPTS {
            match self.unwritten.write(&self.audit) {
                Ok(()) => return,
                Err(error) if unwritten::is_busy(&error) => {
                    let next = journal.durable().saturating_add(1);
                    let _ = journal.wait_blocking(Ticket::at(next));
                }
                Err(error) => {
                    tracing::error!(%error, "records of the audit trail are lost, since it takes none");
                    return;
                }
            }
        }
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").finish_non_exhaustive()
    }
}

/// The service as one runtime sees it: the shared parts, and that runtime's hub of calls that wait for the audit trail.
#[derive(Clone)]
pub struct Service {
    core: Arc<Core>,
    waiters: Waiters,
}

impl Core {
    /// Puts the parts together.
    ///
    /// # Errors
    /// If the operating system has no random numbers.
    pub fn new(parts: Parts) -> Result<Arc<Self>, Failure> {
        let Parts {
            vault,
            access,
            audit,
            ca,
            certificates,
            api_key_hash,
            limits,
            clock,
            about,
        } = parts;
        Ok(Arc::new(Self {
            vault,
            access,
            audit,
            ca,
            certificates,
            attempts: Lockout::default(),
            credential_hasher: RandomState::new(),
            api_key_hash,
            limits,
            clock,
            meters: Meters::new(DEFAULT_PRINCIPALS),
            overload: Overload::new(limits.shed),
            about,
            request_ids: RequestIds::make()?,
            places: Places::new(),
            messages: Arc::new(Semaphore::new(arrival::MESSAGES_BYTES)),
            reports: Semaphore::new(report::MAX_REPORTS),
            changes: TaskTracker::new(),
            audit_down: AtomicBool::new(false),
            unwritten: Unwritten::default(),
            refusals: Refusals::default(),
            changed_keys: ChangedKeys::default(),
            withdrawn: Withdrawn::default(),
            draining: AtomicBool::new(false),
            drain: CancellationToken::new(),
            state_changed: Notify::new(),
        }))
    }

    /// The service for one runtime, with the future of its hub, which must be spawned there.
    pub fn on_runtime(self: &Arc<Self>) -> (Service, impl Future<Output = ()> + Send + 'static) {
        let waiters = self.audit.journal().waiters();
        let hub = waiters.clone();
        (
            Service {
                core: Arc::clone(self),
                waiters,
            },
            async move { hub.run().await },
        )
    }

    /// Whether calls are served: the audit trail can be written and no shutdown has begun.
    pub fn is_serving(&self) -> bool {
        !self.audit_down.load(Ordering::Acquire) && !self.draining.load(Ordering::Acquire)
    }

    /// Whether a shutdown has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Resolves after [`Core::is_serving`] may have changed.
    pub async fn state_changed(&self) {
        self.state_changed.notified().await;
    }

    /// Resolves when a shutdown has begun.
    pub async fn drained(&self) {
        self.drain.cancelled().await;
    }

    /// From now on new calls are refused with `SHUTTING_DOWN`.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
        self.drain.cancel();
        self.state_changed.notify_one();
    }

    /// Resolves when no change is under way any more, also of those whose callers went away. Their tasks need their
    /// runtimes until then. New ones are refused once [`Core::start_draining`] was called.
    pub async fn changes_ended(&self) {
        self.changes.close();
        self.changes.wait().await;
    }

    /// Whether the audit trail should be tried, see [`Service::probe_audit`].
    #[must_use]
    pub fn needs_probe(&self) -> bool {
        self.audit_down.load(Ordering::Acquire) || !self.unwritten.is_empty()
    }

    fn set_audit_down(&self, down: bool) {
        // Read first: every call says that it is not down, and a swap takes the line from the other cores.
        if self.audit_down.load(Ordering::Acquire) != down
            && self.audit_down.swap(down, Ordering::AcqRel) != down
        {
            self.state_changed.notify_one();
        }
    }

    /// Where request ids come from.
    #[must_use]
    pub fn request_ids(&self) -> &RequestIds {
        &self.request_ids
    }

    /// Bounds on one call.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What does not change while the process runs.
    #[must_use]
    pub fn about(&self) -> &system::About {
        &self.about
    }

    /// Whose certificates are accepted, and the connections that were made with them.
    #[must_use]
    pub fn trust(&self) -> &Arc<Trust> {
        self.certificates.trust()
    }

    /// The audit trail, for its metrics and its end.
    #[must_use]
    pub fn audit(&self) -> &AuditLog {
        &self.audit
    }
}

impl Service {
    /// What all runtimes share.
    #[must_use]
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }
}
