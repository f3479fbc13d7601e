//! Sums by key in bounded memory.

use std::collections::BTreeMap;

/// The most rows of a table in a report.
pub(super) const MAX_ROWS: usize = 1_000;
/// At so many rows in memory, the lighter half goes into one row.
const MAX_LIVE_ROWS: usize = 8 * MAX_ROWS;
/// How many rows stay then.
const KEPT_ROWS: usize = MAX_LIVE_ROWS / 2;

/// What can be summed up.
pub(super) trait Tally: Default {
    /// Adds what another one counts.
    fn merge(&mut self, other: Self);

    /// What rows are ordered by, the heaviest first.
    fn weight(&self) -> (u64, u64);
}

/// A sum for each of the heaviest keys, and one for all others together. What is added is never lost, so that all sums together
/// are exact.
///
/// A key that comes again after its row went into the others' has only what came later in its own: such rows are marked, and say
/// "at least".
#[derive(Debug)]
pub(super) struct Table<K, V> {
    rows: BTreeMap<K, Counted<V>>,
    others: Option<V>,
}

#[derive(Debug)]
struct Counted<V> {
    value: V,
    at_least: bool,
}

/// The rows of a table, heaviest first, and what all others have together.
#[derive(Debug)]
pub(super) struct Sums<K, V> {
    pub(super) rows: Vec<(K, V, bool)>,
    pub(super) others: Option<V>,
}

impl<K: Ord + Clone, V: Tally> Table<K, V> {
    pub(super) fn new() -> Self {
        Self {
            rows: BTreeMap::new(),
            others: None,
        }
    }

    /// Adds to the row of `key`.
    pub(super) fn add(&mut self, key: K, value: V) {
        if self.rows.len() >= MAX_LIVE_ROWS && !self.rows.contains_key(&key) {
            self.keep(KEPT_ROWS);
        }
        let at_least = self.others.is_some();
        let row = self.rows.entry(key).or_insert_with(|| Counted {
            value: V::default(),
            at_least,
        });
        row.value.merge(value);
    }

    /// Keeps the `most` heaviest rows. Rows of one weight go by their keys, so that the same records make the same report.
    fn keep(&mut self, most: usize) {
        if self.rows.len() <= most {
            return;
        }
        let mut order: Vec<((u64, u64), K)> = self
            .rows
            .iter()
            .map(|(key, row)| (row.value.weight(), key.clone()))
            .collect();
        order.sort_by(|(a, a_key), (b, b_key)| b.cmp(a).then_with(|| a_key.cmp(b_key)));
        for (_, key) in order.split_off(most) {
            if let Some(row) = self.rows.remove(&key) {
                self.others.get_or_insert_default().merge(row.value);
            }
        }
    }

    /// The [`MAX_ROWS`] heaviest rows.
    pub(super) fn finish(mut self) -> Sums<K, V> {
        self.keep(MAX_ROWS);
        let mut rows: Vec<(K, V, bool)> = self
            .rows
            .into_iter()
            .map(|(key, row)| (key, row.value, row.at_least))
            .collect();
        // The sort is stable, and the rows come in the order of their keys.
        rows.sort_by_key(|(_, value, _)| std::cmp::Reverse(value.weight()));
        Sums {
            rows,
            others: self.others,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Tally for u64 {
        fn merge(&mut self, other: Self) {
            *self += other;
        }
        fn weight(&self) -> (u64, u64) {
            (*self, 0)
        }
    }

    #[test]
    fn the_heaviest_rows_stay_and_nothing_is_lost() {
        let mut table = Table::new();
        table.add(7_000_000, 1_000);
        for key in 0..100_000_u64 {
            table.add(key, 1);
            assert!(table.rows.len() <= MAX_LIVE_ROWS);
        }
        table.add(7_000_000, 1_000);
        let sums = table.finish();
        assert_eq!(sums.rows.len(), MAX_ROWS);
        assert_eq!(sums.rows[0], (7_000_000, 2_000, false));
        let sum: u64 = sums.rows.iter().map(|(_, value, _)| value).sum();
        assert_eq!(sum + sums.others.unwrap(), 102_000);
    }

    #[test]
    fn what_comes_back_is_marked() {
        let mut table = Table::new();
        for key in 0..=MAX_LIVE_ROWS as u64 {
            table.add(key, 1);
        }
        // Rows of one weight go by their keys, so that this one has gone.
        let gone = KEPT_ROWS as u64 + 5;
        table.add(gone, 9);
        let sums = table.finish();
        assert_eq!(sums.rows[0], (gone, 9, true));
    }

    #[test]
    fn a_few_rows_leave_no_others() {
        let mut table = Table::new();
        table.add("b", 1_u64);
        table.add("a", 1);
        table.add("c", 3);
        let sums = table.finish();
        assert_eq!(
            sums.rows,
            [("c", 3, false), ("a", 1, false), ("b", 1, false)]
        );
        assert_eq!(sums.others, None);
    }
}
