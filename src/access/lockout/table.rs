//! A table of failures of a fixed size: it neither grows nor stops taking in who fails for the first time.
//!
//! Each subject has two buckets of eight entries, found by a hash that is keyed at random, so that nobody can aim at
//! another's. A new subject takes an entry of its two buckets that is empty or, if none is, **the one with the least
//! left to forget**. So those who come and go replace each other, and whoever is locked stays until all the sixteen entries
//! that he could be in have failed as often as he did.

use std::{
    hash::{BuildHasher as _, Hash, RandomState},
    sync::{Mutex, PoisonError},
};

/// Buckets that share a lock are a shard.
const SHARDS: usize = 16;
/// As many as a byte of the hash can tell apart.
const BUCKETS: usize = 256;
const WAYS: usize = 8;
/// How many subjects a table holds.
#[cfg(test)]
pub(super) const CAPACITY: usize = SHARDS * BUCKETS * WAYS;

/// How failures turn into waiting, and how they are forgotten. All times are milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// So many failures cost nothing.
    pub(super) free: u32,
    /// The wait after the first failure beyond those.
    pub(super) first_ms: u64,
    /// The longest wait. Each wait before it is twice as long as the one before.
    pub(super) longest_ms: u64,
    /// After so long without a failure one is forgotten.
    pub(super) forget_ms: u64,
}

impl Pace {
    /// The wait after the last of `failures`.
    fn wait_ms(&self, failures: u32) -> u64 {
        match failures.checked_sub(self.free + 1) {
            None => 0,
            Some(doublings) => self
                .first_ms
                .saturating_mul(1u64.checked_shl(doublings).unwrap_or(u64::MAX))
                .min(self.longest_ms),
        }
    }

    /// More failures than this are not counted: the wait is the longest already.
    fn most(&self) -> u32 {
        let doublings = (self.longest_ms / self.first_ms.max(1)).max(1).ilog2() + 1;
        self.free + 1 + doublings
    }
}

/// One subject's failures.
#[derive(Clone, Copy, Default)]
struct Entry {
    /// The subject's hash; 0 is an empty entry.
    tag: u64,
    /// When it last failed.
    at_ms: u64,
    /// How often it had failed then, without what was forgotten.
    failures: u32,
}

impl Entry {
    fn failures(&self, pace: &Pace, now_ms: u64) -> u32 {
        let forgotten = now_ms.saturating_sub(self.at_ms) / pace.forget_ms.max(1);
        self.failures
            .saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }
}

/// Failures, or anything else that is counted and forgotten.
pub(super) struct Table {
    pace: Pace,
    hasher: RandomState,
    shards: Box<[Mutex<Box<[Entry]>>]>,
}

impl Table {
    pub(super) fn new(pace: Pace) -> Table {
        let shard = |_| Mutex::new(vec![Entry::default(); BUCKETS * WAYS].into_boxed_slice());
        Table {
            pace,
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(shard).collect(),
        }
    }

    /// How long `subject` has to wait at `now_ms`; 0 for whoever is not in the table.
    pub(super) fn wait_ms(&self, subject: impl Hash, now_ms: u64) -> u64 {
        let wait = |entry: &Entry| {
            let whole = self.pace.wait_ms(entry.failures);
            // At most the whole wait, should the clock have gone back.
            let end_ms = entry.at_ms.saturating_add(whole);
            end_ms.saturating_sub(now_ms).min(whole)
        };
        let found = self.with_entry(subject, |entry, _| wait(entry));
        found.unwrap_or(0)
    }

    /// How often `subject` was counted, without what was forgotten at `now_ms`.
    pub(super) fn count(&self, subject: impl Hash, now_ms: u64) -> u32 {
        let found = self.with_entry(subject, |entry, pace| entry.failures(pace, now_ms));
        found.unwrap_or(0)
    }

    /// Counts a failure of `subject` at `now_ms`.
    pub(super) fn add(&self, subject: impl Hash, now_ms: u64) {
        let tag = self.tag(subject);
        let pace = self.pace;
        self.with_candidates(tag, |candidates| {
            let rank = |entry: &&mut Entry| match entry.tag {
                own if own == tag => (0, 0, 0),
                0 => (1, 0, 0),
                _ => (2, entry.failures(&pace, now_ms), entry.at_ms),
            };
            let Some(entry) = candidates.min_by_key(rank) else {
                return;
            };
            let before = if entry.tag == tag {
                entry.failures(&pace, now_ms)
            } else {
                0
            };
            *entry = Entry {
                tag,
                at_ms: now_ms,
                failures: before.saturating_add(1).min(pace.most()),
            };
        });
    }

    /// Forgets `subject`.
    pub(super) fn clear(&self, subject: impl Hash) {
        let tag = self.tag(subject);
        self.with_candidates(tag, |candidates| {
            candidates
                .filter(|entry| entry.tag == tag)
                .for_each(|entry| *entry = Entry::default());
        });
    }

    /// How many entries are taken.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let taken = |shard: &Mutex<Box<[Entry]>>| {
            let shard = shard.lock().unwrap();
            shard.iter().filter(|entry| entry.tag != 0).count()
        };
        self.shards.iter().map(taken).sum()
    }

    fn with_entry<R>(&self, subject: impl Hash, f: impl FnOnce(&Entry, &Pace) -> R) -> Option<R> {
        let tag = self.tag(subject);
        self.with_candidates(tag, |mut candidates| {
            let entry = Iterator::find(&mut candidates, |entry| entry.tag == tag)?;
            Some(f(entry, &self.pace))
        })
        .flatten()
    }

    fn tag(&self, subject: impl Hash) -> u64 {
        self.hasher.hash_one(subject).max(1)
    }

    /// Gives `f` the entries that a subject may be in. `None` never comes: there is a shard for every tag.
    fn with_candidates<R>(
        &self,
        tag: u64,
        f: impl FnOnce(&mut dyn Iterator<Item = &mut Entry>) -> R,
    ) -> Option<R> {
        let [shard, one, two, ..] = tag.to_be_bytes().map(usize::from);
        // What a panic of another thread left here is a count that is off by one.
        let mut entries = self
            .shards
            .get(shard % SHARDS)?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut buckets = entries.chunks_exact_mut(WAYS);
        let first = buckets.nth(one.min(two));
        let second = one
            .abs_diff(two)
            .checked_sub(1)
            .and_then(|n| buckets.nth(n));
        let mut candidates = first.into_iter().chain(second).flatten();
        Some(f(&mut candidates))
    }
}
