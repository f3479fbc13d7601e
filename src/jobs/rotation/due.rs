//! The keys that are due soon, in the order of their times.

use std::collections::{BTreeSet, HashMap};

use crate::service::schedule::KeyId;

/// The most keys that are held, some 200 bytes each. Beyond it those that are due last are left out; the scan of all
/// keys finds them again.
const MAX_KEYS: usize = 65_536;

/// The keys that are due soon, each with its time in Unix seconds.
#[derive(Debug, Default)]
pub(super) struct Due {
    by_time: BTreeSet<(u64, KeyId)>,
    times: HashMap<KeyId, u64>,
}

impl Due {
    /// Sets when a key is due; `None`: not soon.
    pub(super) fn set(&mut self, id: KeyId, at: Option<u64>) {
        if let Some(before) = self.times.remove(&id) {
            self.by_time.remove(&(before, id.clone()));
        }
        let Some(at) = at else { return };
        self.times.insert(id.clone(), at);
        self.by_time.insert((at, id));
        if self.times.len() > MAX_KEYS
            && let Some((_, last)) = self.by_time.pop_last()
        {
            self.times.remove(&last);
        }
    }

    /// Takes up to `limit` keys that are due at `now` away, the most overdue first.
    pub(super) fn take(&mut self, now: u64, limit: usize) -> Vec<KeyId> {
        let mut taken = Vec::new();
        while taken.len() < limit
            && self.by_time.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, id)) = self.by_time.pop_first()
        {
            self.times.remove(&id);
            taken.push(id);
        }
        taken
    }

    /// How many keys are held.
    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    /// How many keys are due at `now`, and for how many seconds the most overdue is.
    pub(super) fn overdue(&self, now: u64) -> (usize, u64) {
        let keys = self.by_time.iter().take_while(|(at, _)| *at <= now).count();
        let lag = self
            .by_time
            .first()
            .map_or(0, |(at, _)| now.saturating_sub(*at));
        (keys, lag)
    }
}

#[cfg(test)]
mod tests {
    use fieldkeep_crypto::names::Name;

    use super::*;

    fn id(number: usize) -> KeyId {
        KeyId {
            tenant: Name::parse("t").unwrap(),
            key: Name::parse(&format!("k{number}")).unwrap(),
        }
    }

    #[test]
    fn the_most_overdue_come_first_and_at_most_so_many() {
        let mut due = Due::default();
        for (number, at) in [(1, 30), (2, 10), (3, 20), (4, 40)] {
            due.set(id(number), Some(at));
        }
        assert_eq!(due.overdue(30), (3, 20));
        assert_eq!(due.take(30, 2), [id(2), id(3)]);
        assert_eq!(due.take(30, 2), [id(1)]);
        assert!(due.take(39, 2).is_empty());
        assert_eq!((due.len(), due.overdue(39)), (1, (0, 0)));
    }

    #[test]
    fn a_key_has_one_time() {
        let mut due = Due::default();
        due.set(id(1), Some(10));
        due.set(id(1), Some(50));
        assert!(due.take(49, 9).is_empty());
        due.set(id(1), None);
        assert!(due.take(99, 9).is_empty());
        assert_eq!(due.len(), 0);
    }

    #[test]
    fn those_that_are_due_last_are_left_out() {
        let mut due = Due::default();
        for number in 0..MAX_KEYS + 10 {
            due.set(id(number), Some((MAX_KEYS + 10 - number) as u64));
        }
        assert_eq!((due.len(), due.by_time.len()), (MAX_KEYS, MAX_KEYS));
        assert_eq!(due.take(u64::MAX, 1), [id(MAX_KEYS + 9)]);
    }
}
