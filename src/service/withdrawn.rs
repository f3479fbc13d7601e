//! What a reply that was made before it can leave is looked at again for: the caller's right, and whether keys or versions
//! were disabled meanwhile.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::service::call::Call;
use crate::service::failure::Failure;
use crate::service::perform::permit::{Grounds, recheck};
use crate::service::perform::{NO_IDENTITY, ended_failure};
use crate::service::{Core, Service};

/// How often a key or a version of each tenant was disabled since start.
#[derive(Debug, Default)]
pub(super) struct Withdrawn(Mutex<HashMap<Box<str>, u64>>);

impl Core {
    /// Takes notice that a key or a version of `tenant` was or may have been disabled, before that is acknowledged.
    pub(super) fn withdraw(&self, tenant: &str) {
        let mut counts = self
            .withdrawn
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *counts.entry(tenant.into()).or_default() += 1;
    }

    fn withdrawals(&self, tenant: &str) -> u64 {
        let counts = self
            .withdrawn
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        counts.get(tenant).copied().unwrap_or_default()
    }
}

impl Core {
    fn all_withdrawals(&self) -> u64 {
        let counts = self
            .withdrawn
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        counts.values().sum()
    }
}

/// How things were before the work for a reply began.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    withdrawals: u64,
    /// Of all tenants, if the caller may have values of others.
    everywhere: Option<u64>,
}

impl Service {
    /// How things are before the work for `call` begins, for [`Service::may_leave`].
    #[must_use]
    pub fn before(&self, call: &Call) -> Before {
        let Some(own) = call.peer.principal.as_ref() else {
            return Before {
                withdrawals: 0,
                everywhere: None,
            };
        };
        let others = self.core.access.snapshot().opens_data_of_others(own);
        Before {
            withdrawals: self.core.withdrawals(own.tenant.as_str()),
            everywhere: others.then(|| self.core.all_withdrawals()),
        }
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
        let everywhere = before.everywhere.map(|_| core.all_withdrawals());
        if core.withdrawals(principal.tenant.as_str()) == before.withdrawals
            && everywhere == before.everywhere
        {
            Ok(())
        } else {
            Err(Failure::Conflict)
        }
    }
}
