//! One of the two things that are counted, and the sizes of leases.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// The most that one call counts, so that no sum of calls overflows.
pub(super) const MAX_AT_ONCE: u64 = 1 << 40;

/// How often the first block doubles at most.
pub(super) const MAX_DOUBLINGS: u32 = 7;

/// Nobody gets what leaves less than nothing.
const NEVER_LOW: i64 = -1;

/// What is left of a lease. Each change is one atomic operation on one number, which is all that the invariant needs; nothing
/// else is published with it, so relaxed order is enough.
pub(super) struct Dimension {
    /// Below zero only while a call that did not get what it wanted is about to put that back.
    left: AtomicI64,
    /// At this or below, more is to be leased soon.
    low: AtomicI64,
    /// What the calls want that wait for a lease.
    waiting: AtomicU64,
    /// The first block.
    least_block: u64,
}

impl Dimension {
    pub(super) fn new(least_block: u64) -> Self {
        Dimension {
            left: AtomicI64::new(0),
            low: AtomicI64::new(NEVER_LOW),
            waiting: AtomicU64::new(0),
            least_block,
        }
    }

    /// Takes `amount`; what is left then. Below zero: it is not there, and [`Dimension::put`] must follow.
    pub(super) fn take(&self, amount: u64) -> i64 {
        let amount = amount.cast_signed();
        self.left.fetch_sub(amount, Relaxed) - amount
    }

    pub(super) fn put(&self, amount: u64) {
        self.left.fetch_add(amount.cast_signed(), Relaxed);
    }

    /// Takes all that is left. Nothing is leased early then until somebody has to wait for a lease.
    pub(super) fn give_up(&self) -> u64 {
        self.low.store(NEVER_LOW, Relaxed);
        // Never below zero: that belongs to a call that is about to put it back.
        let taken = self
            .left
            .fetch_update(Relaxed, Relaxed, |left| (left > 0).then_some(0));
        taken.map_or(0, i64::cast_unsigned)
    }

    pub(super) fn left(&self) -> u64 {
        u64::try_from(self.left.load(Relaxed)).unwrap_or(0)
    }

    pub(super) fn is_low(&self, left: i64) -> bool {
        left <= self.low.load(Relaxed)
    }

    pub(super) fn wait(&self, amount: u64) {
        self.waiting.fetch_add(amount, Relaxed);
    }

    pub(super) fn stop_waiting(&self, amount: u64) {
        self.waiting.fetch_sub(amount, Relaxed);
    }

    /// How much to lease: what is waited for and a block, which has doubled `doublings` times. A lease ends at `limit` (0: none),
    /// so that whoever reaches that notices; only who needs more goes beyond.
    pub(super) fn wanted(&self, recorded: u64, limit: u64, doublings: u32) -> u64 {
        let (left, waiting) = (self.left(), self.waiting.load(Relaxed));
        let block = self.least_block << doublings.min(MAX_DOUBLINGS);
        let wanted = waiting.saturating_add(block).saturating_sub(left);
        match limit.checked_sub(recorded) {
            Some(rest) if limit > 0 && wanted > rest && left.saturating_add(rest) >= waiting => {
                rest
            }
            _ => wanted,
        }
    }

    /// Adds what was leased.
    pub(super) fn leased(&self, amount: u64, recorded: u64, limit: u64, doublings: u32) {
        let block = self.least_block << doublings.min(MAX_DOUBLINGS);
        // A lease that ends at the limit is used up to its end.
        let low = if limit > 0 && recorded == limit {
            0
        } else {
            block / 2
        };
        self.low.store(low.cast_signed(), Relaxed);
        self.put(amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_call_is_about_to_put_back_is_not_given_up() {
        let dimension = Dimension::new(1024);
        dimension.leased(10, 10, 0, 0);
        assert_eq!(dimension.take(20), -10);
        assert_eq!(dimension.give_up(), 0);
        dimension.put(20);
        assert_eq!(dimension.give_up(), 10);
        assert_eq!(dimension.take(1), -1);
    }

    #[test]
    fn blocks_double_up_to_a_bound_and_cover_who_waits() {
        let dimension = Dimension::new(1024);
        assert_eq!(dimension.wanted(0, 0, 0), 1024);
        assert_eq!(dimension.wanted(0, 0, 3), 8192);
        assert_eq!(dimension.wanted(0, 0, 7), 131_072);
        assert_eq!(dimension.wanted(0, 0, u32::MAX), 131_072);
        dimension.wait(5000);
        assert_eq!(dimension.wanted(0, 0, 0), 6024);
        dimension.leased(6000, 6000, 0, 0);
        assert_eq!(dimension.wanted(6000, 0, 0), 24);
    }

    #[test]
    fn a_lease_ends_at_the_limit_unless_more_is_needed() {
        let dimension = Dimension::new(1024);
        dimension.wait(10);
        assert_eq!(dimension.wanted(0, 100, 0), 100);
        assert_eq!(dimension.wanted(95, 100, 0), 1034, "10 are waited for");
        assert_eq!(dimension.wanted(100, 100, 0), 1034, "reached");
        assert_eq!(dimension.wanted(500, 100, 0), 1034, "passed");
        dimension.leased(100, 100, 100, 0);
        assert!(!dimension.is_low(1) && dimension.is_low(0));
    }
}
