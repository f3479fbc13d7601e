//! The times of a cron expression: five fields, in UTC.

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use croner::{
    CivilDate, CivilDateTime, CivilTime, Cron, CronDateTime, Resolution, Weekday,
    errors::CronError,
    parser::{CronParser, Seconds, Year},
};
use time::{Date, Month, OffsetDateTime, Time};

use super::policy::PolicyError;

/// The longest expression, in bytes.
const MAX_BYTES: usize = 256;

/// 2000-01-01. The calendar repeats after 400 years, so an expression that names any time names one after this.
const SEARCH_FROM: u64 = 946_684_800;

/// A checked cron expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronTimes(Arc<str>);

impl CronTimes {
    /// Checks an expression: minute, hour, day of month, month, day of week.
    ///
    /// # Errors
    /// [`PolicyError::CronFields`], [`PolicyError::Cron`], and [`PolicyError::CronNever`] if no time fits it.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let times = Self::from_stored(text)?;
        match Calendar::of(&times).after(SEARCH_FROM) {
            Some(_) => Ok(times),
            None => Err(PolicyError::CronNever),
        }
    }

    /// The same without the look for a time that fits, which takes milliseconds for what never does.
    pub(super) fn from_stored(text: &str) -> Result<Self, PolicyError> {
        if text.len() > MAX_BYTES || text.split_whitespace().count() != 5 {
            return Err(PolicyError::CronFields);
        }
        parse(text).map_err(|error| PolicyError::Cron(error.to_string()))?;
        Ok(CronTimes(Arc::from(text)))
    }

    /// The expression, as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn parse(text: &str) -> Result<Cron, CronError> {
    CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build()
        .parse(text)
}

/// Expressions made ready for look-ups, each once: many keys have the same.
#[derive(Default)]
pub(super) struct Calendars<'t>(HashMap<&'t str, Calendar>);

impl<'t> Calendars<'t> {
    pub(super) fn of(&mut self, times: &'t CronTimes) -> &Calendar {
        let made = || Calendar::of(times);
        self.0.entry(times.as_str()).or_insert_with(made)
    }
}

/// An expression made ready for look-ups. It is large (several KiB), so it is not kept beside each key.
pub(super) struct Calendar(Option<Cron>);

impl Calendar {
    fn of(times: &CronTimes) -> Self {
        // It was checked when it was made.
        Calendar(parse(&times.0).ok())
    }

    /// The first time after `unix_s`; `None` if there is none before the year 5000.
    pub(super) fn after(&self, unix_s: u64) -> Option<u64> {
        let from = Utc(i64::try_from(unix_s).ok()?);
        from.date_time()?;
        let next = self.0.as_ref()?.find_next_occurrence(&from, false).ok()?;
        u64::try_from(next.0).ok()
    }
}

/// Unix seconds, for `croner`: without a time zone there is no gap and no repeated hour.
#[derive(Clone)]
struct Utc(i64);

impl Utc {
    fn date_time(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp(self.0).ok()
    }
}

impl CronDateTime for Utc {
    fn to_civil(&self) -> CivilDateTime {
        let at = self.date_time().unwrap_or(OffsetDateTime::UNIX_EPOCH);
        // `time` keeps every part in its range.
        CivilDateTime::new(
            CivilDate::from_parts_unchecked(
                at.year(),
                u8::from(at.month()).into(),
                at.day().into(),
            ),
            CivilTime::from_parts_unchecked(
                at.hour().into(),
                at.minute().into(),
                at.second().into(),
            ),
        )
    }

    fn civil_weekday(&self) -> Weekday {
        let at = self.date_time().unwrap_or(OffsetDateTime::UNIX_EPOCH);
        Weekday::from_days_from_sunday(at.weekday().number_days_from_sunday().into())
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let part = |number: u32| u8::try_from(number).map_err(|_| CronError::InvalidDate);
        let month = Month::try_from(part(civil.month())?).map_err(|_| CronError::InvalidDate)?;
        let date = Date::from_calendar_date(civil.year(), month, part(civil.day())?)
            .map_err(|_| CronError::InvalidDate)?;
        let time = Time::from_hms(
            part(civil.hour())?,
            part(civil.minute())?,
            part(civil.second())?,
        )
        .map_err(|_| CronError::InvalidTime)?;
        Ok(Resolution::Single(Utc(
            OffsetDateTime::new_utc(date, time).unix_timestamp()
        )))
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        self.0.checked_add(seconds).map(Utc)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22 05:00:00, a Sunday.
    const SUNDAY: u64 = 1_795_323_600;
    const DAY: u64 = 86_400;

    fn after(text: &str, unix_s: u64) -> u64 {
        Calendar::of(&CronTimes::parse(text).unwrap())
            .after(unix_s)
            .unwrap()
    }

    #[test]
    fn times_are_in_utc_and_after_the_time_asked_for() {
        assert_eq!(after("0 3 * * 1", SUNDAY), SUNDAY + DAY - 2 * 3600);
        assert_eq!(after("0 5 * * *", SUNDAY), SUNDAY + DAY, "not now");
        assert_eq!(after("0 5 * * *", SUNDAY - 1), SUNDAY);
        assert_eq!(after("*/15 * * * *", SUNDAY + 1), SUNDAY + 900);
        assert_eq!(after("  0  5 * *  SUN ", SUNDAY), SUNDAY + 7 * DAY);
        // 2028-02-29 00:00:00.
        assert_eq!(after("0 0 29 2 *", SUNDAY), 1_835_395_200);
    }

    #[test]
    fn what_is_not_five_fields_is_refused() {
        for text in [
            "",
            "* * * *",
            "* * * * * *",
            "0 0 3 * * 1",
            "0 3 * * 1 2027",
            "@daily",
            &format!("{} * * * *", "1,".repeat(200)),
        ] {
            assert_eq!(
                CronTimes::parse(text),
                Err(PolicyError::CronFields),
                "{text}"
            );
        }
        for text in [
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "x * * * *",
            "5-1 * * * *",
        ] {
            let error = CronTimes::parse(text).unwrap_err();
            assert!(matches!(error, PolicyError::Cron(_)), "{text}: {error}");
        }
    }

    #[test]
    fn what_never_comes_is_refused() {
        for text in ["0 0 30 2 *", "0 0 31 4,6,9,11 *"] {
            assert_eq!(
                CronTimes::parse(text),
                Err(PolicyError::CronNever),
                "{text}"
            );
        }
    }

    #[test]
    fn the_end_of_time_is_no_error() {
        let calendar = Calendar::of(&CronTimes::parse("* * * * *").unwrap());
        assert_eq!(calendar.after(u64::MAX), None);
        assert_eq!(calendar.after(95_000_000_000_000), None);
    }
}
