//! When a key rotates by itself.

use super::cron::CronTimes;
use crate::records::RotationRecord;

/// The shortest period and the shortest time until retirement, in seconds.
pub const MIN_SECONDS: u64 = 1;
/// The longest period, in seconds: 10 years of 365.25 days.
pub const MAX_PERIOD_S: u64 = 315_576_000;

/// When a key rotates by itself, and when its older versions retire. At least one of the parts is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationPolicy {
    parts: RotationParts,
    schedule: Option<Schedule>,
}

/// The parts of a policy as they come from outside, unchecked. Zero and `None`: no such condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RotationParts {
    /// The longest that a version is primary, in seconds. Not together with `cron`.
    pub period: Option<u64>,
    /// A cron expression: five fields, in UTC. Not together with `period`.
    pub cron: Option<String>,
    /// Over how many seconds rotations spread; `None`: the default (see [`super::plan`]).
    pub jitter: Option<u64>,
    /// How many messages a version encrypts.
    pub max_messages: u64,
    /// How many bytes of plaintext a version encrypts.
    pub max_bytes: u64,
    /// After how many seconds a version that was replaced stops decrypting.
    pub retire_after: Option<u64>,
}

/// The times of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At most so many seconds after the last rotation.
    Period(u64),
    /// At these times.
    Cron(CronTimes),
}

/// What is wrong with a policy, and the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The period is too short or too long.
    #[error("`period` is {0} s: it must be 1 second to 10 years (315576000 s)")]
    Period(u64),
    /// Both a period and a cron expression.
    #[error("`period` and `cron` are both set: set one of them")]
    PeriodAndCron,
    /// Not five fields.
    #[error(
        "`cron` must be five fields (minute, hour, day of month, month, day of week) of at most 256 bytes, for example `0 3 * * 1`; seconds and years are not supported"
    )]
    CronFields,
    /// A field is wrong.
    #[error(
        "`cron` is not valid ({0}): five fields (minute, hour, day of month, month, day of week), for example `0 3 * * 1`"
    )]
    Cron(String),
    /// No time fits the expression.
    #[error("`cron` never comes: no date fits its day and month; choose a day that exists")]
    CronNever,
    /// A jitter without times to spread.
    #[error(
        "`jitter` is set without `period` or `cron`: set one of them too, or leave `jitter` out"
    )]
    JitterAlone,
    /// The jitter is longer than the period.
    #[error(
        "`jitter` is {jitter} s: it must be at most {limit} s, the period or the longest period"
    )]
    Jitter {
        /// What was given, in seconds.
        jitter: u64,
        /// The most, in seconds.
        limit: u64,
    },
    /// The time until retirement is zero.
    #[error(
        "`retire_after` is 0 s: it must be at least 1 second; leave it out to keep older versions"
    )]
    RetireAfter,
}

impl RotationPolicy {
    /// Checks the parts. `None` if all are empty: the key rotates on demand alone.
    ///
    /// # Errors
    /// [`PolicyError`], which names the part and what to do.
    pub fn from_parts(parts: RotationParts) -> Result<Option<Self>, PolicyError> {
        Self::check(parts, CronTimes::parse)
    }

    fn check(
        parts: RotationParts,
        cron: impl FnOnce(&str) -> Result<CronTimes, PolicyError>,
    ) -> Result<Option<Self>, PolicyError> {
        let schedule = match (parts.period, &parts.cron) {
            (Some(_), Some(_)) => return Err(PolicyError::PeriodAndCron),
            (Some(period), None) if !(MIN_SECONDS..=MAX_PERIOD_S).contains(&period) => {
                return Err(PolicyError::Period(period));
            }
            (Some(period), None) => Some(Schedule::Period(period)),
            (None, Some(text)) => Some(Schedule::Cron(cron(text)?)),
            (None, None) => None,
        };
        if let Some(jitter) = parts.jitter {
            let limit = match schedule {
                None => return Err(PolicyError::JitterAlone),
                Some(Schedule::Period(period)) => period,
                Some(Schedule::Cron(_)) => MAX_PERIOD_S,
            };
            if jitter > limit {
                return Err(PolicyError::Jitter { jitter, limit });
            }
        }
        if parts.retire_after == Some(0) {
            return Err(PolicyError::RetireAfter);
        }
        let empty = parts == RotationParts::default();
        Ok((!empty).then_some(RotationPolicy { parts, schedule }))
    }

    /// Its parts.
    #[must_use]
    pub fn parts(&self) -> &RotationParts {
        &self.parts
    }

    /// Its times.
    #[must_use]
    pub fn schedule(&self) -> Option<&Schedule> {
        self.schedule.as_ref()
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        // The text is held twice.
        size_of::<Self>() + 2 * self.parts.cron.as_ref().map_or(0, String::len)
    }

    pub(crate) fn to_record(&self) -> RotationRecord {
        let parts = self.parts.clone();
        RotationRecord {
            period: parts.period.unwrap_or(0),
            cron: parts.cron.unwrap_or_default(),
            jitter: parts.jitter,
            max_messages: parts.max_messages,
            max_bytes: parts.max_bytes,
            retire_after: parts.retire_after.unwrap_or(0),
        }
    }

    /// From an authenticated record; what is wrong with it if it is not one that this code writes.
    pub(crate) fn from_record(record: &RotationRecord) -> Result<Self, &'static str> {
        let parts = RotationParts {
            period: (record.period > 0).then_some(record.period),
            cron: (!record.cron.is_empty()).then(|| record.cron.clone()),
            jitter: record.jitter,
            max_messages: record.max_messages,
            max_bytes: record.max_bytes,
            retire_after: (record.retire_after > 0).then_some(record.retire_after),
        };
        Self::check(parts, CronTimes::from_stored)
            .ok()
            .flatten()
            .ok_or("its rotation policy is not valid")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> RotationParts {
        RotationParts::default()
    }

    #[test]
    fn each_part_is_checked_and_named() {
        let refused = |parts: RotationParts| RotationPolicy::from_parts(parts).unwrap_err();
        let period = |period| RotationParts {
            period: Some(period),
            ..parts()
        };
        assert_eq!(refused(period(0)), PolicyError::Period(0));
        let long = MAX_PERIOD_S + 1;
        assert_eq!(refused(period(long)), PolicyError::Period(long));
        let cron = Some(String::from("0 3 * * 1"));
        let both = RotationParts {
            cron: cron.clone(),
            ..period(5)
        };
        assert_eq!(refused(both), PolicyError::PeriodAndCron);
        let jitter = Some(6);
        let error = PolicyError::Jitter {
            jitter: 6,
            limit: 5,
        };
        assert_eq!(
            refused(RotationParts {
                jitter,
                ..period(5)
            }),
            error
        );
        let alone = RotationParts {
            jitter: Some(0),
            max_bytes: 1,
            ..parts()
        };
        assert_eq!(refused(alone), PolicyError::JitterAlone);
        let retire_after = Some(0);
        let retires = RotationParts {
            retire_after,
            ..parts()
        };
        assert_eq!(refused(retires), PolicyError::RetireAfter);
        for error in [
            PolicyError::Period(0),
            PolicyError::PeriodAndCron,
            PolicyError::CronFields,
            PolicyError::Cron(String::from("x")),
            PolicyError::CronNever,
            PolicyError::JitterAlone,
            PolicyError::RetireAfter,
        ] {
            assert!(error.to_string().starts_with('`'), "{error} names its part");
        }
    }

    #[test]
    fn records_keep_every_part() {
        assert_eq!(RotationPolicy::from_parts(parts()), Ok(None));
        let all = [
            RotationParts {
                period: Some(MAX_PERIOD_S),
                jitter: Some(0),
                max_messages: u64::MAX,
                ..parts()
            },
            RotationParts {
                cron: Some(String::from("0 3 * * 1")),
                retire_after: Some(u64::MAX),
                ..parts()
            },
            RotationParts {
                max_bytes: 1,
                ..parts()
            },
        ];
        for parts in all {
            let policy = RotationPolicy::from_parts(parts.clone()).unwrap().unwrap();
            assert_eq!(policy.parts(), &parts);
            let stored = RotationPolicy::from_record(&policy.to_record());
            assert_eq!(stored.as_ref(), Ok(&policy));
        }
        RotationPolicy::from_record(&RotationRecord::default()).unwrap_err();
    }
}
