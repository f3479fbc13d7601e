//! The keys that should have rotated.

use std::collections::BTreeSet;

use super::MAX_LISTED;

/// A key that should have rotated.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OverdueKey {
    /// When it was due, microseconds since the Unix epoch.
    pub due_us: u64,
    /// Its resource name, `tenants/{tenant}/keys/{key}`.
    pub name: String,
    /// Why it was due, for example `its period ended`.
    pub reason: String,
}

/// The keys that should have rotated by the end of a report's range, as whoever makes the report found them: the most overdue ones,
/// and how many more there are. Memory is bounded.
#[derive(Clone, Debug, Default)]
pub struct OverdueKeys {
    most: BTreeSet<OverdueKey>,
    left_out: u64,
}

impl OverdueKeys {
    /// Adds a key.
    pub fn add(&mut self, key: OverdueKey) {
        self.most.insert(key);
        if self.most.len() > MAX_LISTED {
            self.most.pop_last();
            self.left_out += 1;
        }
    }

    /// The keys, the most overdue first, and how many were left out.
    pub(super) fn into_parts(self) -> (impl Iterator<Item = OverdueKey>, u64) {
        (self.most.into_iter(), self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_overdue_are_kept_and_the_others_counted() {
        let mut keys = OverdueKeys::default();
        let most = MAX_LISTED as u64;
        for due_us in (0..most + 3).rev() {
            keys.add(OverdueKey {
                due_us,
                name: String::from("tenants/acme/keys/pii"),
                reason: String::new(),
            });
        }
        let (kept, left_out) = keys.into_parts();
        assert!(kept.map(|key| key.due_us).eq(0..most));
        assert_eq!(left_out, 3);
    }
}
