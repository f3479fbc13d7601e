//! What a reply that was made before it can leave is looked at again for: the caller's right, and whether keys or versions
//! were disabled meanwhile.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::service::call::Call;
use crate::service::failure::Failure;
use crate::service::perform::permit::{Grounds, recheck};
use crate::service::perform::{NO_IDENTITY, ended_failure};
use crate::service::{Core, Service};

/// How often a key or a version was disabled since start.
#[derive(Debug, Default)]
pub(super) struct Withdrawn(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    by_tenant: HashMap<Box<str>, u64>,
    all: u64,
}

impl Withdrawn {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often of `tenant`, and of all.
    fn of(&self, tenant: &str) -> Before {
        let counts = self.counts();
        Before {
            own: counts.by_tenant.get(tenant).copied().unwrap_or_default(),
            all: counts.all,
        }
    }
}

impl Core {
    /// Takes notice that a key or a version of `tenant` was or may have been disabled, before that is acknowledged.
    pub(super) fn withdraw(&self, tenant: &str) {
        let mut counts = self.withdrawn.counts();
        *counts.by_tenant.entry(tenant.into()).or_default() += 1;
        counts.all += 1;
    }
}

/// How things were before the work for a reply began: how often keys and versions of the caller's tenant had been disabled, and of
/// all tenants.
#[derive(Debug, Clone, Copy, Default)]
pub struct Before {
    own: u64,
    all: u64,
}

impl Service {
    /// How things are before the work for `call` begins, for [`Service::may_leave`].
    #[must_use]
    pub fn before(&self, call: &Call) -> Before {
        call.peer
            .principal
            .as_ref()
            .map_or_else(Before::default, |own| {
                self.core.withdrawn.of(own.tenant.as_str())
            })
    }

    /// Whether the reply to `call`, which was made some time ago and relied on `grounds`, may still leave.
    ///
    /// # Errors
    /// The refusal, which has to go on record: the caller lost a right, or a key or version of its tenant was disabled.
    /// Whether the reply needs that one is not known any more, so the caller has to ask again.
    pub fn may_leave(
        &self,
        call: &Call,
        before: Before,
        grounds: Option<&Grounds>,
    ) -> Result<(), Failure> {
        let core = &self.core;
        let (Some(principal), Some(grounds)) = (call.peer.principal.as_ref(), grounds) else {
            return Err(NO_IDENTITY);
        };
        if let Some(ended) = call.peer.ended() {
            return Err(ended_failure(ended));
        }
        let (snapshot, now_us) = (core.access.snapshot(), core.clock.now_us());
        // Also if no right changed: a grant may have ended, or its hours.
        recheck(&snapshot, call, principal, grounds, now_us)?;
        let now = core.withdrawn.of(principal.tenant.as_str());
        // Asked now, when the call has its rights: they may open more than they did when it began.
        if now.all == before.all
            || (now.own == before.own && !snapshot.opens_data_of_others(principal))
        {
            Ok(())
        } else {
            Err(Failure::Conflict)
        }
    }
}
