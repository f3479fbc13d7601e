//! What a call takes of limits. It is charged once it is known what the call may do under which keys, and before anything is
//! sealed or opened. A call is charged as a whole or refused as a whole.
//!
//! What is not charged: an item that is not valid, that the caller has no right to, or whose key or version cannot be used. A
//! ciphertext that does not open is charged, so that guessing costs.

use std::cmp::Ordering;
use std::sync::Arc;

use fieldkeep_keystore::key::Key;

use crate::access::action::ActionSet;
use crate::access::limits::{Call, Limits, Part};
use crate::service::Core;
use crate::service::failure::Failure;
use crate::service::perform::permit::Permit;

/// Gathers what a call does under each of its keys. Without limits there is none, and nothing is gathered.
pub(super) struct Charge {
    limits: Arc<Limits>,
    uses: Vec<Use>,
}

/// What is done under one key.
struct Use {
    key: Arc<Key>,
    actions: ActionSet,
    sum: Sum,
}

/// Values, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) fields: u64,
    pub(super) bytes: u64,
}

impl Sum {
    /// Adds a value of `bytes` bytes.
    pub(super) fn add(&mut self, bytes: usize) {
        self.fields = self.fields.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }
}

impl Use {
    /// By tenant, key and actions.
    fn order(&self, other: &Use) -> Ordering {
        let (tenant, key) = (other.key.tenant().as_str(), other.key.name().as_str());
        let by_tenant = self.key.tenant().as_str().cmp(tenant);
        by_tenant
            .then_with(|| self.key.name().as_str().cmp(key))
            .then_with(|| self.actions.bits().cmp(&other.actions.bits()))
    }
}

/// Charges a call that does `actions` to one value of `bytes` bytes.
///
/// # Errors
/// [`Failure::LimitExceeded`]; then nothing was charged.
pub(super) fn charge_one(
    core: &Core,
    permit: &Permit<'_>,
    key: &Arc<Key>,
    actions: ActionSet,
    bytes: usize,
) -> Result<(), Failure> {
    let Some(mut charge) = Charge::begin(permit) else {
        return Ok(());
    };
    let mut sum = Sum::default();
    sum.add(bytes);
    charge.add(key, actions, sum);
    charge.make(core, permit)
}

impl Charge {
    /// The charge of a call, which takes nothing yet; `None` without limits.
    pub(super) fn begin(permit: &Permit<'_>) -> Option<Charge> {
        let limits = Arc::clone(permit.limits()?);
        Some(Charge {
            limits,
            uses: Vec::new(),
        })
    }

    /// Adds what is done under `key`.
    pub(super) fn add(&mut self, key: &Arc<Key>, actions: ActionSet, sum: Sum) {
        if sum.fields > 0 {
            self.uses.push(Use {
                key: Arc::clone(key),
                actions,
                sum,
            });
        }
    }

    /// Charges it all, or nothing. The calls count as under way until `permit` has ended.
    ///
    /// # Errors
    /// [`Failure::LimitExceeded`].
    pub(super) fn make(mut self, core: &Core, permit: &Permit<'_>) -> Result<(), Failure> {
        self.uses.sort_unstable_by(Use::order);
        let parts: Vec<Part<'_>> = self
            .uses
            .iter()
            .map(|one| Part {
                key: Some(one.key.name().as_str()),
                actions: one.actions.bits(),
                fields: one.sum.fields,
                bytes: one.sum.bytes,
            })
            .collect();
        let now = core.clock.monotonic_ns();
        let mut charged: Vec<Call<'_>> = Vec::new();
        let mut rest = parts.as_slice();
        // Most calls use keys of one tenant.
        for uses in self
            .uses
            .chunk_by(|one, next| one.key.tenant() == next.key.tenant())
        {
            let (own, others) = rest.split_at(uses.len().min(rest.len()));
            rest = others;
            let Some(first) = uses.first() else { continue };
            let call = Call {
                tenant: first.key.tenant().as_str(),
                principal: &permit.principal().resource,
                parts: own,
            };
            match self.limits.admit(&core.meters, &call, now) {
                Ok(admission) => permit.hold(admission),
                Err(refused) => {
                    for call in &charged {
                        self.limits.give_back(&core.meters, call, now);
                    }
                    return Err(Failure::LimitExceeded(Box::new(refused)));
                }
            }
            charged.push(call);
        }
        Ok(())
    }
}
