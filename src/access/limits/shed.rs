//! The guard against too many calls at once: it refuses early, before queues grow, and shares what there is by principal.
//!
//! While there is room, everyone gets it. From half of the capacity on, or when calls wait too long, no principal gets more than his
//! share: the capacity divided by those who have calls under way. At the capacity itself only the first call of a
//! principal is let in, and only while somebody else holds more than his share. So a flood of calls from many is shed from those who hold the most, and
//! whoever has one call under way at a time is not shed on their account.
//!
//! The capacity falls by a quarter for each interval in which even the quickest call waited longer than the target (CoDel's sign of a
//! standing queue: Nichols and Jacobson, RFC 8289, section 4.2), and rises by a sixteenth of the whole for each other one.
//!
//! A call that finds room costs a few atomic operations, and the lock of one of many parts of the table of principals.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

/// The parts of the table of principals, each with a lock of its own.
const PARTS: usize = 64;

/// No wait was seen.
const NONE: u64 = u64::MAX;

/// The bounds of the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShedOptions {
    /// How many calls may be under way: the capacity. At least 1.
    pub calls: u32,
    /// How many principals may have calls under way. There are never more than this and the capacity together. At least 1; more than there
    /// are connections is as good as no bound.
    pub principals: u32,
    /// How long even the quickest call of an interval may have waited before it was begun.
    pub target: Duration,
    /// How often the capacity is adapted.
    pub interval: Duration,
}

impl Default for ShedOptions {
    fn default() -> ShedOptions {
        ShedOptions {
            calls: 4096,
            principals: 1 << 16,
            target: Duration::from_millis(50),
            interval: Duration::from_millis(100),
        }
    }
}

/// The service has too much to do for this call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shed {
    /// Others have calls under way, and this caller has his share.
    #[error(
        "the service is busy and this caller has {share} calls under way, which is its share: wait and repeat the call"
    )]
    Share {
        /// The share.
        share: u32,
        /// When to ask again.
        retry_after: Duration,
    },
    /// All capacity is shared out.
    #[error("the service is busy: wait and repeat the call")]
    Busy {
        /// When to ask again.
        retry_after: Duration,
    },
}

impl Shed {
    /// When to ask again.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        match self {
            Shed::Share { retry_after, .. } | Shed::Busy { retry_after } => *retry_after,
        }
    }
}

/// The guard. One for a process.
pub struct Overload {
    options: ShedOptions,
    hasher: RandomState,
    /// The calls under way of each principal that has any, by the principal's hash.
    held: Box<[Part]>,
    /// How many principals have calls under way.
    principals: AtomicU32,
    /// How many calls are under way.
    total: AtomicU32,
    /// What of `options.calls` is given out now.
    capacity: AtomicU32,
    /// Whether even the shortest wait of the last interval was too long.
    late: AtomicBool,
    /// The shortest wait of this interval, nanoseconds; [`NONE`] so far.
    quickest: AtomicU64,
    /// When the interval ends.
    interval_ends: AtomicU64,
    /// Held by whoever ends an interval.
    adapting: Mutex<()>,
}

impl std::fmt::Debug for Overload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overload")
            .field("under_way", &self.under_way())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

/// On cache lines of its own.
#[derive(Default)]
#[repr(align(64))]
struct Part(Mutex<HashMap<u64, u32>>);

impl Part {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, u32>> {
        // A panic while the lock was held leaves counts, none of them half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Overload {
    /// A guard with nothing under way.
    #[must_use]
    pub fn new(options: ShedOptions) -> Arc<Overload> {
        let options = ShedOptions {
            calls: options.calls.max(1),
            principals: options.principals.max(1),
            ..options
        };
        Arc::new(Overload {
            options,
            hasher: RandomState::new(),
            held: (0..PARTS).map(|_| Part::default()).collect(),
            principals: AtomicU32::new(0),
            total: AtomicU32::new(0),
            capacity: AtomicU32::new(options.calls),
            late: AtomicBool::new(false),
            quickest: AtomicU64::new(NONE),
            interval_ends: AtomicU64::new(0),
            adapting: Mutex::new(()),
        })
    }

    /// Lets a call of `principal`, a resource name, begin at `now`. It is under way until the place is dropped.
    ///
    /// Calls that come at the very same moment count each other, so that the bounds hold; one of them may be refused where the
    /// other, coming first, would have left room.
    ///
    /// # Errors
    /// [`Shed`].
    pub fn enter(self: &Arc<Self>, principal: &str, now: u64) -> Result<Place, Shed> {
        // Two principals of the same hash would share a share.
        let principal = self.hasher.hash_one(principal);
        self.admit(principal, now)?;
        Ok(Place {
            overload: Arc::clone(self),
            principal,
        })
    }

    /// Notes how long a call has waited before it was begun, or for what its reply waits on, at `now`.
    pub fn observe(&self, delay: Duration, now: u64) {
        self.adapt(now);
        let delay = u64::try_from(delay.as_nanos()).unwrap_or(NONE - 1);
        if delay < self.quickest.load(Ordering::Relaxed) {
            self.quickest.fetch_min(delay, Ordering::Relaxed);
        }
    }

    /// How many calls are under way.
    #[must_use]
    pub fn under_way(&self) -> u32 {
        self.total.load(Ordering::Relaxed)
    }

    /// How many calls may be under way now.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity.load(Ordering::Relaxed)
    }

    fn part(&self, principal: u64) -> Option<&Part> {
        // The remainder is less than the number of parts.
        let index = usize::try_from(principal % PARTS as u64).ok()?;
        self.held.get(index)
    }

    fn admit(&self, principal: u64, now: u64) -> Result<(), Shed> {
        self.adapt(now);
        let Some(part) = self.part(principal) else {
            return Ok(());
        };
        let mut held = part.lock();
        let total = self.total.fetch_add(1, Ordering::Relaxed);
        let decided = match held.entry(principal) {
            Entry::Occupied(mut own) => {
                let principals = self.principals.load(Ordering::Relaxed);
                let decided = self.decide_another(*own.get(), principals, total);
                if decided.is_ok() {
                    *own.get_mut() = own.get().saturating_add(1);
                }
                decided
            }
            Entry::Vacant(place) => {
                let principals = self.principals.fetch_add(1, Ordering::Relaxed);
                let decided = self.decide_first(principals, total);
                if decided.is_ok() {
                    place.insert(1);
                } else {
                    self.principals.fetch_sub(1, Ordering::Relaxed);
                }
                decided
            }
        };
        if decided.is_err() {
            self.total.fetch_sub(1, Ordering::Relaxed);
        }
        decided
    }

    /// Whether a call may begin of a principal with none under way, beside `total` of `principals` others.
    fn decide_first(&self, principals: u32, total: u32) -> Result<(), Shed> {
        let capacity = self.capacity();
        // With the capacity used up, the average of the others is more than a share for one more would be, and so is what one of
        // them has; unless there are more of them than capacity, when a share is one call and somebody has two.
        let room = total < capacity || principals < capacity || total > principals;
        if room && principals < self.options.principals {
            Ok(())
        } else {
            Err(Shed::Busy {
                retry_after: self.options.interval,
            })
        }
    }

    /// Whether a call may begin of a principal with `own` of the `total` under way of `principals`.
    fn decide_another(&self, own: u32, principals: u32, total: u32) -> Result<(), Shed> {
        let capacity = self.capacity();
        let retry_after = self.options.interval;
        let contended = self.late.load(Ordering::Relaxed) || total >= capacity / 2;
        if contended {
            let share = (capacity / principals.max(1)).max(1);
            if own >= share {
                return Err(Shed::Share { share, retry_after });
            }
        }
        if total >= capacity {
            return Err(Shed::Busy { retry_after });
        }
        Ok(())
    }

    fn leave(&self, principal: u64) {
        let Some(part) = self.part(principal) else {
            return;
        };
        let mut held = part.lock();
        let Entry::Occupied(mut own) = held.entry(principal) else {
            return;
        };
        if *own.get() > 1 {
            *own.get_mut() -= 1;
        } else {
            own.remove();
            self.principals.fetch_sub(1, Ordering::Relaxed);
        }
        self.total.fetch_sub(1, Ordering::Relaxed);
    }

    /// Ends the interval if it is over.
    fn adapt(&self, now: u64) {
        if now < self.interval_ends.load(Ordering::Relaxed) {
            return;
        }
        // Whoever comes second would find the next interval begun.
        let Ok(_turn) = self.adapting.try_lock() else {
            return;
        };
        if now < self.interval_ends.load(Ordering::Relaxed) {
            return;
        }
        let (whole, capacity) = (self.options.calls, self.capacity());
        let target = u64::try_from(self.options.target.as_nanos()).unwrap_or(NONE - 1);
        let (late, next) = match self.quickest.swap(NONE, Ordering::Relaxed) {
            // Nothing came out in a whole interval. With calls under way that says nothing; without, all is well.
            NONE if self.under_way() == 0 => (false, whole),
            NONE => (self.late.load(Ordering::Relaxed), capacity),
            delay if delay > target => {
                let less = capacity.saturating_sub((capacity / 4).max(1));
                (true, less.max((whole / 16).max(1)))
            }
            _ => {
                let more = capacity.saturating_add((whole / 16).max(1));
                (false, more.min(whole))
            }
        };
        self.late.store(late, Ordering::Relaxed);
        self.capacity.store(next, Ordering::Relaxed);
        let interval = u64::try_from(self.options.interval.as_nanos()).unwrap_or(u64::MAX);
        self.interval_ends
            .store(now.saturating_add(interval), Ordering::Relaxed);
    }
}

/// The place of one call under way.
#[derive(Debug)]
#[must_use = "the call counts as under way until this is dropped"]
pub struct Place {
    overload: Arc<Overload>,
    principal: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.overload.leave(self.principal);
    }
}

#[cfg(test)]
mod tests;
