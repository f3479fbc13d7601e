//! What one process may still encrypt under one version before it has to lease more.

use std::sync::atomic::AtomicBool;

use fieldkeep_crypto::{ciphertext::Handle, names::Name};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    dimension::{Dimension, MAX_AT_ONCE, MAX_DOUBLINGS},
    record::Recorded,
};
use crate::{
    error::{LeaseError, ReadError},
    mutation::MAX_ATTEMPTS,
    reader::Reader,
    rotation::{plan::Used, policy::RotationPolicy},
    store::CommitError,
    store_key,
};

const LEAST_MESSAGES: u64 = 1024;
const LEAST_BYTES: u64 = 1 << 20;

/// The meter of one version.
pub(crate) struct Meter {
    pub(super) tenant: Name,
    pub(super) name: Name,
    pub(super) handle: Handle,
    pub(super) number: u32,
    messages: Dimension,
    bytes: Dimension,
    /// Held while a lease is taken or given back, so that one commit serves all who wait.
    lease: Mutex<Lease>,
    pub(super) leasing_early: AtomicBool,
}

/// What is known of the record.
#[derive(Default)]
pub(super) struct Lease {
    /// `None` until it was read, and while the outcome of a commit is not known.
    recorded: Option<Recorded>,
    /// How often blocks have doubled.
    doublings: u32,
    /// The limits that are known to be reached.
    reached: Option<Limits>,
}

/// Limits of use of a version; zero: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    messages: u64,
    bytes: u64,
}

impl Limits {
    pub(crate) fn of(policy: Option<&RotationPolicy>) -> Self {
        policy.map_or_else(Limits::default, |policy| Limits {
            messages: policy.parts().max_messages,
            bytes: policy.parts().max_bytes,
        })
    }

    fn reached(self, used: Used) -> bool {
        let reached = |limit, used| limit > 0 && used >= limit;
        reached(self.messages, used.messages) || reached(self.bytes, used.bytes)
    }
}

/// What came of an attempt to spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spent {
    /// It is counted.
    Yes,
    /// It is counted, and more should be leased soon.
    Low,
    /// It is not counted.
    No,
}

impl Meter {
    pub(super) fn new(tenant: Name, name: Name, handle: Handle, number: u32) -> Self {
        Meter {
            tenant,
            name,
            handle,
            number,
            messages: Dimension::new(LEAST_MESSAGES),
            bytes: Dimension::new(LEAST_BYTES),
            lease: Mutex::new(Lease::default()),
            leasing_early: AtomicBool::new(false),
        }
    }

    /// Counts, if enough is leased. Two atomic subtractions and comparisons.
    pub(crate) fn spend(&self, used: Used) -> Spent {
        if used.messages > MAX_AT_ONCE || used.bytes > MAX_AT_ONCE {
            return Spent::No;
        }
        let messages = self.messages.take(used.messages);
        let bytes = self.bytes.take(used.bytes);
        if messages < 0 || bytes < 0 {
            self.messages.put(used.messages);
            self.bytes.put(used.bytes);
            return Spent::No;
        }
        if self.messages.is_low(messages) || self.bytes.is_low(bytes) {
            return Spent::Low;
        }
        Spent::Yes
    }

    /// Counts, and waits for a lease as often as needed. Whether a limit was reached and had not been before.
    pub(super) async fn lease_and_spend(
        &self,
        reader: &Reader,
        limits: Limits,
        used: Used,
    ) -> Result<bool, LeaseError> {
        let most = used.messages.max(used.bytes);
        if most > MAX_AT_ONCE {
            return Err(LeaseError::Commit(CommitError::TooLarge {
                what: "use of a key at once",
                actual: usize::try_from(most).unwrap_or(usize::MAX),
                limit: usize::try_from(MAX_AT_ONCE).unwrap_or(usize::MAX),
            }));
        }
        let _waiting = Waiting::new(self, used);
        let mut lease = self.lease.lock().await;
        // Calls that do not wait may take what was leased for this one, but each turn leases more than all want that wait.
        for _ in 0..MAX_ATTEMPTS {
            if self.spend(used) != Spent::No {
                return Ok(self.newly_reached(&mut lease, limits));
            }
            self.extend(&mut lease, reader, limits).await?;
        }
        Err(self.crowded())
    }

    /// Leases more if it is still needed. Whether a limit was reached and had not been before.
    pub(super) async fn lease_early(
        &self,
        reader: &Reader,
        limits: Limits,
    ) -> Result<bool, LeaseError> {
        let mut lease = self.lease.lock().await;
        if self.spend(Used::default()) == Spent::Low {
            self.extend(&mut lease, reader, limits).await?;
        }
        Ok(self.newly_reached(&mut lease, limits))
    }

    /// Gives back what is left.
    pub(super) async fn give_back(&self, reader: &Reader) -> Result<(), LeaseError> {
        let mut lease = self.lease.lock().await;
        lease.doublings = 0;
        let left = Used {
            messages: self.messages.give_up(),
            bytes: self.bytes.give_up(),
        };
        if left == Used::default() {
            return Ok(());
        }
        self.change(&mut lease, reader, |recorded| Used {
            messages: recorded.messages.saturating_sub(left.messages),
            bytes: recorded.bytes.saturating_sub(left.bytes),
        })
        .await
        .map(|_| ())
    }

    /// What was used. Reads the record, since another process may use the version too.
    pub(crate) async fn used(&self, reader: &Reader) -> Result<Used, ReadError> {
        let mut lease = self.lease.lock().await;
        lease.recorded = None;
        let recorded = self.recorded(&mut lease, reader).await?;
        Ok(self.used_of(recorded))
    }

    /// Whether nothing is left to give back, and nobody is leasing.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.left() == 0 && self.bytes.left() == 0 && self.lease.try_lock().is_ok()
    }

    fn used_of(&self, recorded: Recorded) -> Used {
        let Used { messages, bytes } = recorded.used;
        Used {
            messages: messages.saturating_sub(self.messages.left()),
            bytes: bytes.saturating_sub(self.bytes.left()),
        }
    }

    fn newly_reached(&self, lease: &mut MutexGuard<'_, Lease>, limits: Limits) -> bool {
        let reached = lease
            .recorded
            .is_some_and(|recorded| limits.reached(self.used_of(recorded)));
        let known = lease.reached == Some(limits);
        if reached {
            lease.reached = Some(limits);
        }
        reached && !known
    }

    async fn extend(
        &self,
        lease: &mut MutexGuard<'_, Lease>,
        reader: &Reader,
        limits: Limits,
    ) -> Result<(), LeaseError> {
        let doublings = lease.doublings;
        let mut leased = Used::default();
        let recorded = self
            .change(lease, reader, |recorded| {
                let more = |dimension: &Dimension, recorded, limit| {
                    let wanted = dimension.wanted(recorded, limit, doublings);
                    wanted.min(u64::MAX - recorded)
                };
                leased = Used {
                    messages: more(&self.messages, recorded.messages, limits.messages),
                    bytes: more(&self.bytes, recorded.bytes, limits.bytes),
                };
                Used {
                    messages: recorded.messages + leased.messages,
                    bytes: recorded.bytes + leased.bytes,
                }
            })
            .await?;
        // Only now: the commit is confirmed.
        let Used { messages, bytes } = recorded.used;
        self.messages
            .leased(leased.messages, messages, limits.messages, doublings);
        self.bytes
            .leased(leased.bytes, bytes, limits.bytes, doublings);
        lease.doublings = (doublings + 1).min(MAX_DOUBLINGS);
        Ok(())
    }

    /// Commits a change of the record, computed again for as long as others come first.
    async fn change(
        &self,
        lease: &mut MutexGuard<'_, Lease>,
        reader: &Reader,
        mut next: impl FnMut(Used) -> Used,
    ) -> Result<Recorded, LeaseError> {
        let tenant = reader.tenant_in_use(self.tenant.as_str()).await?;
        for _ in 0..MAX_ATTEMPTS {
            let recorded = self.recorded(lease, reader).await?;
            let used = next(recorded.used);
            if used == recorded.used {
                return Ok(recorded);
            }
            // Forgotten until the outcome is known, also if the caller goes away meanwhile.
            lease.recorded = None;
            let id = (self.handle, self.number);
            let committed = reader.record_usage(&tenant, id, recorded, used).await;
            if let Some(committed) = committed.map_err(LeaseError::Commit)? {
                lease.recorded = Some(committed);
                return Ok(committed);
            }
        }
        Err(self.crowded())
    }

    async fn recorded(
        &self,
        lease: &mut MutexGuard<'_, Lease>,
        reader: &Reader,
    ) -> Result<Recorded, ReadError> {
        if let Some(recorded) = lease.recorded {
            return Ok(recorded);
        }
        let tenant = reader.tenant_in_use(self.tenant.as_str()).await?;
        let recorded = reader.recorded(&tenant, self.handle, self.number).await?;
        lease.recorded = Some(recorded);
        Ok(recorded)
    }

    fn crowded(&self) -> LeaseError {
        LeaseError::Commit(CommitError::Conflict {
            key: store_key::usage(self.handle, self.number),
        })
    }
}

/// A call that waits for a lease.
struct Waiting<'m> {
    meter: &'m Meter,
    used: Used,
}

impl<'m> Waiting<'m> {
    fn new(meter: &'m Meter, used: Used) -> Self {
        meter.messages.wait(used.messages);
        meter.bytes.wait(used.bytes);
        Waiting { meter, used }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.meter.messages.stop_waiting(self.used.messages);
        self.meter.bytes.stop_waiting(self.used.bytes);
    }
}
