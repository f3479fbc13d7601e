//! What a reply that was made before it can leave is looked at again for: the caller's right, and whether keys or versions
//! were disabled meanwhile.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::service::call::Call;
use crate::service::failure::Failure;
use crate::service::perform::{NO_IDENTITY, authorize};
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

/// How things were before the work for a reply began.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    withdrawals: u64,
}

impl Service {
    /// How things are before the work for `call` begins, for [`Service::may_leave`]. A data role has keys of its own tenant
    /// alone.
    #[must_use]
    pub fn before(&self, call: &Call) -> Before {
        let principal = call.peer.principal.as_ref();
        Before {
            withdrawals: principal.map_or(0, |own| self.core.withdrawals(own.tenant.as_str())),
        }
    }

    /// Whether the reply to `call`, which was made some time ago, may still leave.
    ///
    /// # Errors
    /// The refusal, which has to go on record: the caller lost the right, or a key or version of its tenant was disabled.
    /// Whether the reply needs that one is not known any more, so the caller has to ask again.
    pub fn may_leave(&self, call: &Call, before: Before) -> Result<(), Failure> {
        let core = &self.core;
        let Some(principal) = call.peer.principal.as_ref() else {
            return Err(Failure::Unauthenticated(NO_IDENTITY));
        };
        let tenant = principal.tenant.as_str();
        let (snapshot, now_us) = (core.access.snapshot(), core.clock.now_us());
        authorize(&snapshot, principal, call.action, tenant, now_us)?;
        if core.withdrawals(tenant) == before.withdrawals {
            Ok(())
        } else {
            Err(Failure::Conflict)
        }
    }
}
