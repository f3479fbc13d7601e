//! From when on a remembered operation id is old enough to be forgotten.

use std::collections::VecDeque;

use super::OPERATION_KEPT_SECONDS;

/// The time is the lowest that so many last commits had. A clock that is ahead for fewer commits forgets nothing.
pub(super) const CLOCK_COMMITS: usize = 64;

/// The times of the last commits.
#[derive(Clone, Debug, Default)]
pub(super) struct OperationClock {
    recent: VecDeque<u64>,
}

impl OperationClock {
    /// Takes the time of a commit, in Unix seconds.
    pub(super) fn note(&mut self, time: u64) {
        if self.recent.len() >= CLOCK_COMMITS {
            self.recent.pop_front();
        }
        self.recent.push_back(time);
    }

    /// Ids that were committed before this time, in Unix seconds, may be forgotten. 0 until there were enough commits.
    pub(super) fn oldest_kept(&self) -> u64 {
        if self.recent.len() < CLOCK_COMMITS {
            return 0;
        }
        let lowest = self.recent.iter().min().copied().unwrap_or(0);
        lowest.saturating_sub(OPERATION_KEPT_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_low_time_among_the_last_holds_it_back() {
        let day = OPERATION_KEPT_SECONDS;
        let mut clock = OperationClock::default();
        for _ in 1..CLOCK_COMMITS {
            clock.note(2 * day);
            assert_eq!(clock.oldest_kept(), 0, "not enough commits yet");
        }
        clock.note(day + 5);
        assert_eq!(clock.oldest_kept(), 5);
        for _ in 1..CLOCK_COMMITS {
            clock.note(u64::MAX);
            assert_eq!(clock.oldest_kept(), 5);
        }
        clock.note(2 * day);
        assert_eq!(clock.oldest_kept(), day);
    }
}
