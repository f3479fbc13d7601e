//! One window of a limit, and its text form: `1000 fields/s burst 2000`, `100000 fields/day`, `10 MiB/s`, `64 calls`.

use std::{fmt, str::FromStr};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Values of fields: a batch of n counts n.
    Fields,
    /// Bytes of values.
    Bytes,
    /// Calls, whatever is in them.
    Calls,
}

/// How long a window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// One second.
    Second,
    /// 60 seconds.
    Minute,
    /// 3,600 seconds.
    Hour,
    /// 86,400 seconds; not a day of the calendar.
    Day,
}

impl Period {
    /// Its length in nanoseconds.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        const SECOND: u64 = 1_000_000_000;
        match self {
            Period::Second => SECOND,
            Period::Minute => 60 * SECOND,
            Period::Hour => 3_600 * SECOND,
            Period::Day => 86_400 * SECOND,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Period::Second => "s",
            Period::Minute => "min",
            Period::Hour => "hour",
            Period::Day => "day",
        }
    }

    fn parse(text: &str) -> Option<Period> {
        match text {
            "s" | "sec" | "second" => Some(Period::Second),
            "min" | "minute" => Some(Period::Minute),
            "h" | "hour" => Some(Period::Hour),
            "d" | "day" => Some(Period::Day),
            _ => None,
        }
    }
}

/// How much is allowed. No amount is zero: who may do nothing has no grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// At most `amount` in any stretch of time as long as the period, wherever it begins.
    Budget {
        /// What is counted.
        unit: Unit,
        /// How many at most.
        amount: u64,
        /// In which time.
        per: Period,
    },
    /// `amount` a period, given back evenly, and up to `burst` at once after a quiet time (GCRA). Any stretch of time has
    /// at most `burst` and what was given back in it.
    Rate {
        /// What is counted.
        unit: Unit,
        /// How many are given back in a period.
        amount: u64,
        /// The period.
        per: Period,
        /// How many at once.
        burst: u64,
    },
    /// At most so many calls under way at once.
    UnderWay {
        /// How many at most.
        calls: u64,
    },
}

impl Window {
    /// What is counted.
    #[must_use]
    pub const fn unit(&self) -> Unit {
        match self {
            Window::Budget { unit, .. } | Window::Rate { unit, .. } => *unit,
            Window::UnderWay { .. } => Unit::Calls,
        }
    }

    /// The most that one call can ever take, in units.
    #[must_use]
    pub const fn most(&self) -> u64 {
        match self {
            Window::Budget { amount, .. } => *amount,
            Window::Rate { burst, .. } => *burst,
            Window::UnderWay { calls } => *calls,
        }
    }

    /// Whether every amount in it is at least one.
    pub(super) const fn is_valid(&self) -> bool {
        match self {
            Window::Budget { amount, .. } => *amount > 0,
            Window::Rate { amount, burst, .. } => *amount > 0 && *burst > 0,
            Window::UnderWay { calls } => *calls > 0,
        }
    }
}

/// Why a text is no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// It has another form.
    #[error(
        "write a limit as `1000 fields/s burst 2000`, `100000 fields/day`, `10 MiB/s` or `64 calls`; a period is `s`, `min`, `hour` or `day`"
    )]
    Form,
    /// An amount is zero or does not fit 64 bits.
    #[error("an amount is at least 1 and at most {}", u64::MAX)]
    Amount,
    /// Fields or bytes without a period: only calls can be counted while they are under way.
    #[error("add a period such as `/s` or `/day`: only calls are limited without one")]
    Period,
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Window, WindowError> {
        let (head, burst) = match text.trim().split_once(" burst ") {
            Some((head, burst)) => (head, Some(burst.trim())),
            None => (text.trim(), None),
        };
        let (quantity, period) = match head.split_once('/') {
            Some((quantity, period)) => (quantity, Some(period.trim())),
            None => (head, None),
        };
        let (amount, unit) = parse_quantity(quantity)?;
        let unit = unit.ok_or(WindowError::Form)?;
        let Some(period) = period else {
            return match (unit, burst) {
                (Unit::Calls, None) => Ok(Window::UnderWay { calls: amount }),
                (Unit::Calls, Some(_)) => Err(WindowError::Form),
                (Unit::Fields | Unit::Bytes, _) => Err(WindowError::Period),
            };
        };
        let per = Period::parse(period).ok_or(WindowError::Form)?;
        let Some(burst) = burst else {
            return Ok(Window::Budget { unit, amount, per });
        };
        let (burst, burst_unit) = parse_quantity(burst)?;
        if burst_unit.is_some_and(|other| other != unit) {
            return Err(WindowError::Form);
        }
        Ok(Window::Rate {
            unit,
            amount,
            per,
            burst,
        })
    }
}

/// The units of bytes, the greatest first.
const BYTE_UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// `{digits} {unit}`, or `{digits}` alone.
fn parse_quantity(text: &str) -> Result<(u64, Option<Unit>), WindowError> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, word) = text.split_at(end);
    if digits.is_empty() {
        return Err(WindowError::Form);
    }
    let amount: u64 = digits.parse().map_err(|_| WindowError::Amount)?;
    let (unit, factor) = match word.trim() {
        "" => (None, 1),
        "field" | "fields" => (Some(Unit::Fields), 1),
        "call" | "calls" => (Some(Unit::Calls), 1),
        "byte" | "bytes" => (Some(Unit::Bytes), 1),
        word => {
            let found = BYTE_UNITS.iter().find(|(name, _)| *name == word);
            let (_, factor) = found.ok_or(WindowError::Form)?;
            (Some(Unit::Bytes), *factor)
        }
    };
    match amount.checked_mul(factor) {
        None | Some(0) => Err(WindowError::Amount),
        Some(amount) => Ok((amount, unit)),
    }
}

struct Quantity(u64, Unit);

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quantity(amount, unit) = *self;
        match unit {
            Unit::Fields => write!(f, "{amount} fields"),
            Unit::Calls => write!(f, "{amount} calls"),
            Unit::Bytes => {
                let fits = |(_, factor): &&(&str, u64)| amount % factor == 0;
                let (name, factor) = BYTE_UNITS.iter().find(fits).unwrap_or(&("B", 1));
                write!(f, "{} {name}", amount / factor)
            }
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Window::UnderWay { calls } => Quantity(calls, Unit::Calls).fmt(f),
            Window::Budget { unit, amount, per } => {
                write!(f, "{}/{}", Quantity(amount, unit), per.as_str())
            }
            Window::Rate {
                unit: Unit::Bytes,
                amount,
                per,
                burst,
            } => {
                let (amount, burst) = (Quantity(amount, Unit::Bytes), Quantity(burst, Unit::Bytes));
                write!(f, "{amount}/{} burst {burst}", per.as_str())
            }
            Window::Rate {
                unit,
                amount,
                per,
                burst,
            } => write!(
                f,
                "{}/{} burst {burst}",
                Quantity(amount, unit),
                per.as_str()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_read_and_written() {
        for (text, written) in [
            ("1000 fields/s burst 2000", "1000 fields/s burst 2000"),
            ("100000 fields/day", "100000 fields/day"),
            ("10 MiB/s", "10 MiB/s"),
            ("10MiB/second burst 20480 KiB", "10 MiB/s burst 20 MiB"),
            ("1 byte/h burst 1025", "1 B/hour burst 1025 B"),
            ("64 calls", "64 calls"),
            (" 5 calls / min ", "5 calls/min"),
        ] {
            assert_eq!(text.parse::<Window>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for (text, error) in [
            ("", WindowError::Form),
            ("fields/s", WindowError::Form),
            ("-1 fields/s", WindowError::Form),
            ("10 files/s", WindowError::Form),
            ("10/s", WindowError::Form),
            ("10 fields/week", WindowError::Form),
            ("10 fields/s burst", WindowError::Form),
            ("10 fields/s burst 10 B", WindowError::Form),
            ("10 calls burst 10", WindowError::Form),
            ("0 fields/s", WindowError::Amount),
            ("1 fields/s burst 0", WindowError::Amount),
            ("18446744073709551616 fields/s", WindowError::Amount),
            ("18446744073709551615 KiB/s", WindowError::Amount),
            ("10 fields", WindowError::Period),
        ] {
            assert_eq!(text.parse::<Window>(), Err(error), "{text}");
        }
    }

    pub(crate) fn windows() -> impl Strategy<Value = Window> {
        let unit = prop_oneof![Just(Unit::Fields), Just(Unit::Bytes), Just(Unit::Calls)];
        let per = prop_oneof![
            Just(Period::Second),
            Just(Period::Minute),
            Just(Period::Hour),
            Just(Period::Day)
        ];
        let amount = prop_oneof![1..=64_u64, 1..=u64::MAX];
        (unit, amount.clone(), per, amount, 0..3_u8).prop_map(|(unit, amount, per, burst, kind)| {
            match kind {
                0 => Window::Budget { unit, amount, per },
                1 => Window::Rate {
                    unit,
                    amount,
                    per,
                    burst,
                },
                _ => Window::UnderWay { calls: amount },
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(window in windows()) {
            prop_assert_eq!(window.to_string().parse(), Ok(window));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<Window>();
        }
    }
}
