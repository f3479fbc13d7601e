//! Compliance reports: who decrypted what and how much, what was refused, what was changed, in a range of time.
//!
//! A [`Builder`](builder::Builder) takes the records one after the other and keeps sums, in memory that does not grow with their number; what it
//! makes is a [`Report`](model::Report), which is written as JSON, as text or as a page.

pub mod builder;
mod call;
pub mod html;
pub mod model;
mod names;
pub mod overdue;
mod plot;
mod section;
mod sections;
mod table;
pub mod text;

use thiserror::Error;

/// Microseconds of an hour and of a day.
const HOUR_US: u64 = 3_600_000_000;
const DAY_US: u64 = 24 * HOUR_US;
/// Up to so many days, activity is shown by the hour.
const MAX_HOURLY_DAYS: u64 = 7;
/// The most management acts, changes of grants, and overdue keys that a report lists; further ones are counted.
const MAX_LISTED: usize = 5_000;
/// The most buckets that activity is shown in, but for one that is cut at either end.
const MAX_BUCKETS: u64 = 400;

/// A range of time: from `from_us` to just before `to_us`, microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    from_us: u64,
    to_us: u64,
}

/// A range that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the range ends at `{to_us}` microseconds, not after its begin at `{from_us}`: give an end that is later"
)]
pub struct RangeError {
    /// The begin that was given.
    pub from_us: u64,
    /// The end that was given.
    pub to_us: u64,
}

impl Range {
    /// The range from `from_us` to just before `to_us`, microseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`RangeError`] unless the end is after the begin.
    pub fn new(from_us: u64, to_us: u64) -> Result<Self, RangeError> {
        if from_us < to_us {
            Ok(Self { from_us, to_us })
        } else {
            Err(RangeError { from_us, to_us })
        }
    }

    /// Its begin, microseconds since the Unix epoch.
    #[must_use]
    pub const fn begin_us(self) -> u64 {
        self.from_us
    }

    /// Its end, microseconds since the Unix epoch.
    #[must_use]
    pub const fn end_us(self) -> u64 {
        self.to_us
    }

    fn contains(self, time_us: u64) -> bool {
        (self.from_us..self.to_us).contains(&time_us)
    }

    /// How long the buckets are that activity is shown in: an hour, a day, or as many days as keep them below [`MAX_BUCKETS`].
    fn bucket_us(self) -> u64 {
        let span = self.to_us - self.from_us;
        if span <= MAX_HOURLY_DAYS * DAY_US {
            HOUR_US
        } else {
            span.div_ceil(DAY_US).div_ceil(MAX_BUCKETS) * DAY_US
        }
    }
}

/// What a report rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Basis {
    /// The log's id.
    pub log_id: [u8; 16],
    /// The signed checkpoint below whose size the records are; empty if there is none.
    pub checkpoint: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_after_its_begin() {
        assert!(Range::new(1, 2).is_ok());
        for to_us in [0, 1] {
            assert_eq!(Range::new(1, to_us), Err(RangeError { from_us: 1, to_us }));
        }
    }

    #[test]
    fn buckets_are_never_many() {
        let days = |days: u64| Range::new(5, 5 + days * DAY_US).unwrap().bucket_us();
        assert_eq!(days(1), HOUR_US);
        assert_eq!(days(7), HOUR_US);
        assert_eq!(days(8), DAY_US);
        assert_eq!(days(400), DAY_US);
        assert_eq!(days(401), 2 * DAY_US);
        let whole = Range::new(0, u64::MAX).unwrap();
        assert!(u64::MAX / whole.bucket_us() <= MAX_BUCKETS);
    }
}
