//! The meters of many subjects in bounded memory.
//!
//! A table has sets of eight places, each set behind its own lock, and a subject has a place in one set only, by its hash. So two
//! cores wait for each other only where their callers meet in one set. A newcomer takes a place that is free or whose use
//! has all been given back. If there is none, it takes that of whoever has used the least part of his limits: who has used much is forgotten last, and only for
//! eight others who have used more. Who has used up a limit is never forgotten: if all eight have, the newcomer is refused.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::{meter::Meter, window::Window};

/// The places of one set.
pub(super) const WAYS: usize = 8;

/// A subject keeps more meters than this only while they are in use.
const PRUNE_AT: usize = 16;

/// No subject. A hash of 0 counts as 1.
const NOBODY: u64 = 0;

/// The whole of a share as [`Meter::share`] gives it.
const WHOLE: u128 = 1 << 32;

pub(super) struct Table {
    /// How many sets: a power of two.
    sets: usize,
    /// Made when it is first used: without limits it costs nothing.
    places: OnceLock<Box<[Set]>>,
}

/// On cache lines of its own.
#[derive(Default)]
#[repr(align(64))]
struct Set(Mutex<[Entry; WAYS]>);

/// One subject and what it has used.
#[derive(Default)]
struct Entry {
    subject: u64,
    meters: Vec<Meter>,
}

impl Entry {
    /// The greatest part used of any meter; `None` if nothing is used.
    fn share(&mut self, now: u64) -> Option<u128> {
        if self.subject == NOBODY {
            return None;
        }
        let shares = self.meters.iter_mut().filter_map(|meter| {
            let used = meter.used(now) > 0;
            used.then(|| meter.share(now))
        });
        shares.max()
    }
}

/// A place in a set that is locked: the subject's own, or the one it would take.
pub(super) struct Seat<'a> {
    entries: MutexGuard<'a, [Entry; WAYS]>,
    index: usize,
    subject: u64,
}

impl Table {
    /// A table for at least `subjects` at once, rounded up to a power of two and one set.
    pub(super) fn new(subjects: usize) -> Table {
        let sets = subjects.div_ceil(WAYS).max(1);
        Table {
            sets: sets.checked_next_power_of_two().unwrap_or(sets),
            places: OnceLock::new(),
        }
    }

    /// The place of `subject`, a hash; `None` if all that it could have are of subjects that have used up a limit.
    pub(super) fn seat(&self, subject: u64, now: u64) -> Option<Seat<'_>> {
        let (mut entries, subject) = self.lock(subject)?;
        let own = entries.iter().position(|entry| entry.subject == subject);
        let index = match own {
            Some(index) => index,
            None => least_used(&mut entries, now)?,
        };
        Some(Seat {
            entries,
            index,
            subject,
        })
    }

    /// The place of `subject` if it has one.
    pub(super) fn find(&self, subject: u64) -> Option<Seat<'_>> {
        self.places.get()?;
        let (entries, subject) = self.lock(subject)?;
        let index = entries.iter().position(|entry| entry.subject == subject)?;
        Some(Seat {
            entries,
            index,
            subject,
        })
    }

    fn lock(&self, subject: u64) -> Option<(MutexGuard<'_, [Entry; WAYS]>, u64)> {
        let places = self
            .places
            .get_or_init(|| (0..self.sets).map(|_| Set::default()).collect());
        let subject = subject.max(NOBODY + 1);
        // The remainder is less than the number of sets, which is a usize.
        let set = usize::try_from(subject % places.len().max(1) as u64).ok()?;
        let Set(lock) = places.get(set)?;
        // A panic while the lock was held leaves counts, none of them half written.
        let entries = lock.lock().unwrap_or_else(PoisonError::into_inner);
        Some((entries, subject))
    }
}

fn least_used(entries: &mut [Entry; WAYS], now: u64) -> Option<usize> {
    let mut least: Option<(usize, u128)> = None;
    for (index, entry) in entries.iter_mut().enumerate() {
        match entry.share(now) {
            None => return Some(index),
            Some(share) if share < least.map_or(WHOLE, |(_, share)| share) => {
                least = Some((index, share));
            }
            Some(_) => {}
        }
    }
    least.map(|(index, _)| index)
}

impl Seat<'_> {
    /// The meter with this id, if the subject has it.
    pub(super) fn meter(&mut self, id: u64) -> Option<&mut Meter> {
        let entry = self.entries.get_mut(self.index)?;
        if entry.subject != self.subject {
            return None;
        }
        entry.meters.iter_mut().find(|meter| meter.id == id)
    }

    /// The meter with this id, which is added if the subject has none. From then on the place is the subject's.
    pub(super) fn meter_or(&mut self, id: u64, window: &Window, now: u64) -> Option<&mut Meter> {
        let entry = self.entries.get_mut(self.index)?;
        if entry.subject != self.subject {
            entry.subject = self.subject;
            entry.meters.clear();
        }
        let position = entry.meters.iter().position(|meter| meter.id == id);
        if let Some(position) = position {
            return entry.meters.get_mut(position);
        }
        // Limits come and go; what is left of those that went is not kept for ever.
        if entry.meters.len() >= PRUNE_AT {
            entry.meters.retain_mut(|meter| meter.used(now) > 0);
        }
        entry.meters.push(Meter::new(id, *window));
        entry.meters.last_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Subjects of one set of a table with one set.
    fn table() -> Table {
        Table::new(1)
    }

    fn use_calls(table: &Table, subject: u64, n: u64, most: u64, now: u64) -> bool {
        let window: Window = format!("{most} calls/s").parse().unwrap();
        let Some(mut seat) = table.seat(subject, now) else {
            return false;
        };
        let meter = seat.meter_or(1, &window, now).unwrap();
        assert_eq!(meter.check(&window, n, now), Ok(()));
        meter.take(&window, n, now);
        true
    }

    fn used(table: &Table, subject: u64, now: u64) -> Option<u64> {
        Some(table.find(subject)?.meter(1)?.used(now))
    }

    #[test]
    fn whoever_used_the_least_is_forgotten_first() {
        let table = table();
        for subject in 1..=8 {
            assert!(use_calls(&table, subject, subject, 10, 0));
        }
        assert!(use_calls(&table, 9, 5, 10, 0));
        assert_eq!(used(&table, 1, 0), None);
        for subject in 2..=8 {
            assert_eq!(used(&table, subject, 0), Some(subject));
        }
        assert_eq!(used(&table, 9, 0), Some(5));
    }

    #[test]
    fn whoever_used_up_a_limit_is_never_forgotten() {
        let table = table();
        for subject in 1..=7 {
            assert!(use_calls(&table, subject, 10, 10, 0));
        }
        for newcomer in 100..10_000 {
            assert!(use_calls(&table, newcomer, 1, 10, 0));
        }
        assert!(use_calls(&table, 8, 10, 10, 0));
        assert!(table.seat(9, 0).is_none());
        for subject in 1..=8 {
            assert_eq!(used(&table, subject, 0), Some(10));
        }
        // When they are within their limits again, there is room again.
        assert!(use_calls(&table, 9, 1, 10, 2_000_000_000));
    }

    #[test]
    fn looking_at_a_seat_takes_no_place() {
        let table = table();
        for subject in 1..=8 {
            assert!(use_calls(&table, subject, 1, 10, 0));
        }
        drop(table.seat(9, 0).unwrap());
        for subject in 1..=8 {
            assert_eq!(used(&table, subject, 0), Some(1));
        }
    }

    #[test]
    fn meters_of_limits_that_went_are_dropped() {
        let table = table();
        let window: Window = "5 calls/s".parse().unwrap();
        for id in 0..1_000 {
            let now = id * 2_000_000_000;
            let mut seat = table.seat(1, now).unwrap();
            let meter = seat.meter_or(id, &window, now).unwrap();
            meter.take(&window, 1, now);
            assert!(seat.entries[seat.index].meters.len() <= PRUNE_AT + 1);
        }
    }

    #[test]
    fn a_table_is_made_when_it_is_first_used() {
        let table = Table::new(1 << 20);
        assert!(table.find(7).is_none());
        assert!(table.places.get().is_none());
        assert_eq!(table.sets, 1 << 17);
        assert!(use_calls(&table, 0, 1, 1, 0));
        assert_eq!(used(&table, 0, 0), Some(1));
    }
}
