//! All meters of a process: one a version that was used, for as long as anybody holds it or something is left in it.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use fieldkeep_crypto::{ciphertext::Handle, names::Name};
use futures_util::{StreamExt, stream};

use super::meter::{Limits, Meter, Spent};
use crate::{
    error::{KeyError, KeystoreError, LeaseError, ReadError},
    reader::Reader,
    rotation::plan::Used,
    tenants::Tenant,
};

/// The most keys that are remembered until [`Meters::take_reached`].
const MAX_REACHED: usize = 10_000;
/// The most idle meters that give back what is left after one lease was taken. More than one, so that their number falls.
const MAX_SWEEP: usize = 64;
/// How many give back at once when all do.
const FLUSH_AT_ONCE: usize = 256;

type Id = (Handle, u32);

#[derive(Default)]
pub(crate) struct Meters {
    all: Mutex<All>,
    reached: Mutex<Vec<(Name, Name)>>,
    sweeping: AtomicBool,
    /// Leases taken and given back since the start.
    pub(super) commits: AtomicU64,
}

#[derive(Default)]
struct All {
    meters: HashMap<Id, Registered>,
    /// Those that nobody holds any more.
    idle: HashSet<Id>,
}

struct Registered {
    meter: Arc<Meter>,
    users: usize,
}

/// A version's hold on its meter. A version that is loaded again while the meter is still there gets the same one.
pub(crate) struct MeterUser {
    meter: Arc<Meter>,
    meters: Arc<Meters>,
}

impl Meters {
    /// The meter of a version, made if there is none.
    pub(crate) fn hold(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
        handle: Handle,
        number: u32,
    ) -> MeterUser {
        let id = (handle, number);
        let mut all = lock(&self.all);
        all.idle.remove(&id);
        let registered = all.meters.entry(id).or_insert_with(|| Registered {
            meter: Arc::new(Meter::new(tenant.clone(), name.clone(), handle, number)),
            users: 0,
        });
        registered.users += 1;
        MeterUser {
            meter: Arc::clone(&registered.meter),
            meters: Arc::clone(self),
        }
    }

    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Relaxed)
    }

    pub(crate) fn take_reached(&self) -> Vec<(Name, Name)> {
        mem::take(&mut *lock(&self.reached))
    }

    /// Gives back what is left in all meters.
    pub(crate) async fn flush(&self, reader: &Reader) -> Result<(), KeystoreError> {
        let meters: Vec<_> = lock(&self.all)
            .meters
            .values()
            .map(|registered| Arc::clone(&registered.meter))
            .collect();
        let outcomes = stream::iter(meters)
            .map(|meter| async move { meter.give_back(reader).await })
            .buffer_unordered(FLUSH_AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        Ok(outcomes.into_iter().collect::<Result<(), LeaseError>>()?)
    }

    /// Lets meters that nobody holds give back what is left, and forgets them.
    async fn sweep(&self, reader: &Reader) {
        let idle: Vec<Id> = lock(&self.all)
            .idle
            .iter()
            .take(MAX_SWEEP)
            .copied()
            .collect();
        for id in idle {
            let Some(meter) = self.unused(id) else {
                continue;
            };
            // What could not be given back stays counted.
            let _ = meter.give_back(reader).await;
            let mut all = lock(&self.all);
            if all.idle.contains(&id) && meter.is_empty() {
                all.idle.remove(&id);
                all.meters.remove(&id);
            }
        }
    }

    fn unused(&self, id: Id) -> Option<Arc<Meter>> {
        let all = lock(&self.all);
        let registered = all.meters.get(&id).filter(|one| one.users == 0)?;
        Some(Arc::clone(&registered.meter))
    }

    pub(crate) fn find(&self, id: Id) -> Option<Arc<Meter>> {
        let all = lock(&self.all);
        all.meters.get(&id).map(|one| Arc::clone(&one.meter))
    }

    fn note_reached(&self, meter: &Meter) {
        let mut reached = lock(&self.reached);
        if reached.len() < MAX_REACHED {
            reached.push((meter.tenant.clone(), meter.name.clone()));
        }
    }
}

impl MeterUser {
    /// Counts, if enough is leased.
    pub(crate) fn spend(&self, used: Used) -> Spent {
        self.meter.spend(used)
    }

    /// Counts, and waits for a lease.
    pub(crate) async fn lease_and_spend(
        &self,
        reader: &Arc<Reader>,
        limits: Limits,
        used: Used,
    ) -> Result<(), KeyError> {
        if self.meter.lease_and_spend(reader, limits, used).await? {
            self.meters.note_reached(&self.meter);
        }
        self.sweep_soon(reader);
        Ok(())
    }

    /// Leases more without anybody waiting for it. If it fails, whoever waits next says why.
    pub(crate) fn lease_early(&self, reader: &Arc<Reader>, limits: Limits) {
        let Some(busy) = Busy::begin(&self.meter, |meter| &meter.leasing_early) else {
            return;
        };
        let (user, reader) = (self.clone(), Arc::clone(reader));
        tokio::spawn(async move {
            if user
                .meter
                .lease_early(&reader, limits)
                .await
                .unwrap_or(false)
            {
                user.meters.note_reached(&user.meter);
            }
            drop(busy);
            user.sweep_soon(&reader);
        });
    }

    fn sweep_soon(&self, reader: &Arc<Reader>) {
        if lock(&self.meters.all).idle.is_empty() {
            return;
        }
        let Some(busy) = Busy::begin(&self.meters, |meters| &meters.sweeping) else {
            return;
        };
        let (meters, reader) = (Arc::clone(&self.meters), Arc::clone(reader));
        tokio::spawn(async move {
            meters.sweep(&reader).await;
            drop(busy);
        });
    }
}

impl Clone for MeterUser {
    fn clone(&self) -> Self {
        let Meter {
            tenant,
            name,
            handle,
            number,
            ..
        } = &*self.meter;
        self.meters.hold(tenant, name, *handle, *number)
    }
}

impl Drop for MeterUser {
    fn drop(&mut self) {
        let id = (self.meter.handle, self.meter.number);
        let mut all = lock(&self.meters.all);
        if let Some(registered) = all.meters.get_mut(&id) {
            registered.users -= 1;
            if registered.users == 0 {
                all.idle.insert(id);
            }
        }
    }
}

impl Reader {
    /// What was used under a version: exactly, if this process uses it; else as it is recorded.
    pub(crate) async fn used(
        &self,
        tenant: &Tenant,
        handle: Handle,
        number: u32,
    ) -> Result<Used, ReadError> {
        match self.meters.find((handle, number)) {
            Some(meter) => meter.used(self).await,
            None => Ok(self.recorded(tenant, handle, number).await?.used),
        }
    }
}

/// Lets one at a time do something, and ends when dropped.
struct Busy<T> {
    of: Arc<T>,
    flag: fn(&T) -> &AtomicBool,
}

impl<T> Busy<T> {
    fn begin(of: &Arc<T>, flag: fn(&T) -> &AtomicBool) -> Option<Self> {
        if flag(of).swap(true, Relaxed) {
            return None;
        }
        let of = Arc::clone(of);
        Some(Busy { of, flag })
    }
}

impl<T> Drop for Busy<T> {
    fn drop(&mut self) {
        (self.flag)(&self.of).store(false, Relaxed);
    }
}

/// Nothing panics while a lock is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
