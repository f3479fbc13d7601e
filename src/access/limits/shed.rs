//! The guard against too many calls at once: it refuses early, before queues grow, and shares what there is by principal.
//!
//! While there is room, everyone gets it. From half of the capacity on, or when calls wait too long, no principal gets more than his
//! share: the capacity divided by those who have calls under way. At the capacity itself only the first call of a
//! principal is let in, and only while somebody else holds more than his share. So a flood of calls from many is shed from those who hold the most, and
//! whoever has one call under way at a time is not shed on their account.
//!
//! The capacity falls by a quarter for each interval in which even the quickest call waited longer than the target (CoDel's sign of a
//! standing queue: Nichols and Jacobson, RFC 8289, section 4.2), and rises by a sixteenth of the whole for each other one.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

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
    hasher: RandomState,
    state: Mutex<State>,
}

impl Overload {
    /// A guard with nothing under way.
    #[must_use]
    pub fn new(options: ShedOptions) -> Arc<Overload> {
        Arc::new(Overload {
            hasher: RandomState::new(),
            state: Mutex::new(State::new(options)),
        })
    }

    /// Lets a call of `principal`, a resource name, begin at `now`. It is under way until the place is dropped.
    ///
    /// # Errors
    /// [`Shed`].
    pub fn enter(self: &Arc<Self>, principal: &str, now: u64) -> Result<Place, Shed> {
        // Two principals of the same hash would share a share.
        let principal = self.hasher.hash_one(principal);
        self.state().enter(principal, now)?;
        Ok(Place {
            overload: Arc::clone(self),
            principal,
        })
    }

    /// Notes how long a call has waited before it was begun, or for what its reply waits on, at `now`.
    pub fn observe(&self, delay: Duration, now: u64) {
        self.state().observe(delay, now);
    }

    /// How many calls are under way.
    #[must_use]
    pub fn under_way(&self) -> u32 {
        self.state().total
    }

    /// How many calls may be under way now.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.state().capacity
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one call under way.
#[must_use = "the call counts as under way until this is dropped"]
pub struct Place {
    overload: Arc<Overload>,
    principal: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.overload.state().leave(self.principal);
    }
}

struct State {
    options: ShedOptions,
    /// The calls under way of each principal that has any.
    held: HashMap<u64, u32>,
    /// How many principals have exactly so many calls under way, by that number; it ends at the capacity.
    holders: Vec<u32>,
    /// The most calls that one principal has under way.
    most: u32,
    total: u32,
    /// What of `options.calls` is given out now.
    capacity: u32,
    /// The shortest wait of this interval.
    quickest: Option<Duration>,
    /// Whether even that of the last interval was too long.
    late: bool,
    interval_ends: u64,
}

impl State {
    fn new(options: ShedOptions) -> State {
        let options = ShedOptions {
            calls: options.calls.max(1),
            principals: options.principals.max(1),
            ..options
        };
        State {
            options,
            held: HashMap::new(),
            holders: vec![0; size(options.calls).saturating_add(1)],
            most: 0,
            total: 0,
            capacity: options.calls,
            quickest: None,
            late: false,
            interval_ends: 0,
        }
    }

    fn enter(&mut self, principal: u64, now: u64) -> Result<(), Shed> {
        self.adapt(now);
        let own = self.held.get(&principal).copied().unwrap_or(0);
        let principals = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        let retry_after = self.options.interval;
        if own == 0 {
            let share = self.share(principals.saturating_add(1));
            let room = self.total < self.capacity || self.most > share;
            if !room || principals >= self.options.principals {
                return Err(Shed::Busy { retry_after });
            }
        } else {
            let share = self.share(principals);
            let contended = self.late || self.total >= self.capacity / 2;
            if contended && own >= share {
                return Err(Shed::Share { share, retry_after });
            }
            if self.total >= self.capacity {
                return Err(Shed::Busy { retry_after });
            }
        }
        self.total = self.total.saturating_add(1);
        self.set(principal, own, own.saturating_add(1));
        Ok(())
    }

    fn leave(&mut self, principal: u64) {
        let Some(own) = self.held.get(&principal).copied() else {
            return;
        };
        self.total = self.total.saturating_sub(1);
        self.set(principal, own, own.saturating_sub(1));
    }

    /// A principal goes from `old` calls under way to `new`, which is one more or one less.
    fn set(&mut self, principal: u64, old: u32, new: u32) {
        if new == 0 {
            self.held.remove(&principal);
        } else {
            self.held.insert(principal, new);
        }
        if let Some(count) = self.holders.get_mut(size(old)) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = self.holders.get_mut(size(new)) {
            *count = count.saturating_add(1);
        }
        let none_left = self.holders.get(size(old)).is_none_or(|count| *count == 0);
        if new > self.most || (old == self.most && none_left) {
            // The one that had the most is at one less now, so nobody else can lie between.
            self.most = new;
        }
    }

    fn share(&self, principals: u32) -> u32 {
        (self.capacity / principals.max(1)).max(1)
    }

    fn observe(&mut self, delay: Duration, now: u64) {
        self.adapt(now);
        self.quickest = Some(self.quickest.map_or(delay, |least| least.min(delay)));
    }

    fn adapt(&mut self, now: u64) {
        if now < self.interval_ends {
            return;
        }
        let whole = self.options.calls;
        match self.quickest.take() {
            Some(delay) if delay > self.options.target => {
                self.late = true;
                let less = self.capacity.saturating_sub((self.capacity / 4).max(1));
                self.capacity = less.max((whole / 16).max(1));
            }
            Some(_) => {
                self.late = false;
                let more = self.capacity.saturating_add((whole / 16).max(1));
                self.capacity = more.min(whole);
            }
            // Nothing came out in a whole interval. With calls under way that says nothing; without, all is well.
            None if self.total == 0 => {
                self.late = false;
                self.capacity = whole;
            }
            None => {}
        }
        let interval = u64::try_from(self.options.interval.as_nanos()).unwrap_or(u64::MAX);
        self.interval_ends = now.saturating_add(interval);
    }
}

/// A `u32` as a size: no supported machine has smaller ones.
fn size(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
