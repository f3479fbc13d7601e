use proptest::prelude::*;

use super::*;
use crate::access::limits::window::Unit;

const S: u64 = 1_000_000_000;

fn window(text: &str) -> Window {
    text.parse().unwrap()
}

/// Takes if there is room.
fn charge(meter: &mut Meter, window: &Window, n: u64, now: u64) -> Result<(), Full> {
    meter.check(window, n, now)?;
    meter.take(window, n, now);
    Ok(())
}

#[test]
fn a_budget_is_given_back_after_its_window() {
    let window = window("10 fields/min");
    let mut meter = Meter::new(1, window);
    assert_eq!(charge(&mut meter, &window, 10, 0), Ok(()));
    assert_eq!(
        charge(&mut meter, &window, 1, 0),
        Err(Full::Until(Duration::from_secs(65)))
    );
    assert_eq!(meter.resets_in(60 * S), Duration::from_secs(5));
    assert!(charge(&mut meter, &window, 1, 65 * S - 1).is_err());
    assert_eq!(charge(&mut meter, &window, 10, 65 * S), Ok(()));
    assert_eq!(charge(&mut meter, &window, 11, 500 * S), Err(Full::Never));
}

#[test]
fn a_rate_gives_back_evenly() {
    let window = window("10 fields/s burst 20");
    let mut meter = Meter::new(1, window);
    assert_eq!(charge(&mut meter, &window, 20, 0), Ok(()));
    assert_eq!(
        charge(&mut meter, &window, 5, 0),
        Err(Full::Until(Duration::from_millis(500)))
    );
    assert_eq!(charge(&mut meter, &window, 5, S / 2), Ok(()));
    assert_eq!(meter.used(S / 2), 20);
    assert_eq!(meter.resets_in(S / 2), Duration::from_secs(2));
    assert_eq!(charge(&mut meter, &window, 21, 100 * S), Err(Full::Never));
}

#[test]
fn calls_under_way_are_given_back_by_their_end() {
    let window = window("2 calls");
    let mut meter = Meter::new(1, window);
    let first = Arc::clone(meter.take(&window, 1, 0).unwrap());
    meter.take(&window, 1, 0);
    assert_eq!(
        meter.check(&window, 1, u64::MAX),
        Err(Full::Until(UNDER_WAY_RETRY))
    );
    first.fetch_sub(1, Ordering::AcqRel);
    assert_eq!(meter.check(&window, 1, 0), Ok(()));
}

#[test]
fn a_changed_amount_keeps_what_was_used() {
    for (before, after) in [
        ("10 fields/day", "20 fields/day"),
        ("10 fields/day burst 10", "10 fields/day burst 20"),
    ] {
        let (before, after) = (window(before), window(after));
        let mut meter = Meter::new(1, before);
        assert_eq!(charge(&mut meter, &before, 10, 5), Ok(()));
        assert!(charge(&mut meter, &after, 11, 5).is_err());
        assert_eq!(charge(&mut meter, &after, 10, 5), Ok(()));
        assert!(charge(&mut meter, &before, 1, 5).is_err());
    }
}

#[test]
fn a_rate_that_changes_leaks_at_the_old_one_until_then() {
    let (slow, quick) = (
        window("1 fields/s burst 10"),
        window("10 fields/s burst 10"),
    );
    let mut meter = Meter::new(1, slow);
    assert_eq!(charge(&mut meter, &slow, 10, 0), Ok(()));
    assert!(charge(&mut meter, &quick, 2, S).is_err());
    assert_eq!(charge(&mut meter, &quick, 1, S), Ok(()));
}

/// The oracle: every charge that was let through, and nothing clever.
#[derive(Default)]
struct Log {
    /// When, how many.
    taken: Vec<(u64, u64)>,
    /// The latest time that was seen.
    now: u64,
}

impl Log {
    fn within(&self, length: u64) -> u128 {
        let recent = self
            .taken
            .iter()
            .filter(|(time, _)| self.now - time < length);
        recent.map(|(_, n)| u128::from(*n)).sum()
    }

    /// The level of a bucket that leaks `amount` in `per` nanoseconds, times `per`.
    fn level(&self, amount: u64, per: u64) -> u128 {
        let (mut level, mut last) = (0_u128, 0);
        for (time, n) in self.taken.iter().chain([&(self.now, 0)]) {
            level = level.saturating_sub(u128::from(time - last) * u128::from(amount));
            level += u128::from(*n) * u128::from(per);
            last = *time;
        }
        level
    }
}

/// Times that mostly go on, by steps of all sizes beside the period, and sometimes go back.
fn steps() -> impl Strategy<Value = Vec<(bool, u64, u64)>> {
    let length = prop_oneof![
        0..10_u64,
        0..S / 10,
        0..2 * S,
        0..90 * S,
        (0..30_u64).prop_map(|n| n * S / 12)
    ];
    prop::collection::vec((prop::bool::weighted(0.1), length, 0..14_u64), 0..120)
}

fn times(now: u64, back: bool, length: u64) -> u64 {
    if back {
        now.saturating_sub(length)
    } else {
        now + length
    }
}

proptest! {
    /// Never more in any window, and whatever fits a window of 13/12 of the length is let through.
    #[test]
    fn a_budget_is_as_the_log_says(steps in steps(), amount in 1..30_u64, minute in any::<bool>()) {
        let per = if minute { Period::Minute } else { Period::Second };
        let window = Window::Budget { unit: Unit::Fields, amount, per };
        let mut meter = Meter::new(1, window);
        let mut log = Log::default();
        let mut now = 0;
        for (back, length, n) in steps {
            now = times(now, back, length);
            log.now = log.now.max(now);
            let outcome = charge(&mut meter, &window, n, now);
            let strict = log.within(per.nanos()) + u128::from(n);
            let wide = log.within(slice_nanos(per) * 13) + u128::from(n);
            if strict > u128::from(amount) {
                prop_assert!(outcome.is_err());
            }
            if wide <= u128::from(amount) {
                prop_assert_eq!(outcome, Ok(()));
            }
            match outcome {
                Ok(()) => log.taken.push((log.now, n)),
                Err(Full::Never) => prop_assert!(n > amount),
                Err(Full::Until(wait)) => {
                    // There is room exactly then.
                    let then = now + u64::try_from(wait.as_nanos()).unwrap();
                    prop_assert!(then > log.now);
                    let mut later = copy(&meter);
                    prop_assert!(later.check(&window, n, then - 1).is_err());
                    prop_assert_eq!(later.check(&window, n, then), Ok(()));
                }
            }
        }
    }

    /// Exactly as the log, to the nanosecond.
    #[test]
    fn a_rate_is_as_the_log_says(
        steps in steps(),
        amount in 1..30_u64,
        burst in 1..30_u64,
        minute in any::<bool>(),
    ) {
        let per = if minute { Period::Minute } else { Period::Second };
        let window = Window::Rate { unit: Unit::Fields, amount, per, burst };
        let mut meter = Meter::new(1, window);
        let mut log = Log::default();
        let mut now = 0;
        for (back, length, n) in steps {
            now = times(now, back, length);
            log.now = log.now.max(now);
            let outcome = charge(&mut meter, &window, n, now);
            let level = log.level(amount, per.nanos()) + scaled(n, per);
            prop_assert_eq!(outcome.is_ok(), level <= scaled(burst, per));
            match outcome {
                Ok(()) => log.taken.push((log.now, n)),
                Err(Full::Never) => prop_assert!(n > burst),
                Err(Full::Until(wait)) => {
                    let then = now + u64::try_from(wait.as_nanos()).unwrap();
                    let mut later = copy(&meter);
                    prop_assert!(later.check(&window, n, then - 1).is_err());
                    prop_assert_eq!(later.check(&window, n, then), Ok(()));
                }
            }
            let most = u128::from(burst) + u128::from(amount);
            prop_assert!(log.within(per.nanos()) <= most);
        }
    }

    /// No number panics, and none gives more than its limit at one time.
    #[test]
    fn numbers_of_all_sizes(
        steps in prop::collection::vec((sizes(), sizes()), 0..40),
        amount in sizes(),
        burst in sizes(),
        kind in 0..3,
    ) {
        let (amount, burst) = (amount.max(1), burst.max(1));
        let window = match kind {
            0 => Window::Budget { unit: Unit::Bytes, amount, per: Period::Day },
            1 => Window::Rate { unit: Unit::Bytes, amount, per: Period::Day, burst },
            _ => Window::UnderWay { calls: amount },
        };
        let mut meter = Meter::new(1, window);
        let (mut at_once, mut seen) = (0_u128, 0);
        for (now, n) in steps {
            let n = if kind == 2 { 1 } else { n };
            if now > seen {
                (at_once, seen) = (0, now);
            }
            if charge(&mut meter, &window, n, now).is_ok() {
                at_once += u128::from(n);
            }
            prop_assert!(at_once <= u128::from(window.most()));
            meter.used(now);
            meter.share(now);
            meter.resets_in(now);
        }
    }
}

fn sizes() -> impl Strategy<Value = u64> {
    prop_oneof![0..3_u64, any::<u64>(), u64::MAX - 2..=u64::MAX]
}

fn copy(meter: &Meter) -> Meter {
    let state = match &meter.state {
        State::Budget { slice, counts } => State::Budget {
            slice: *slice,
            counts: *counts,
        },
        State::Rate { debt, at } => State::Rate {
            debt: *debt,
            at: *at,
        },
        State::UnderWay(count) => State::UnderWay(Arc::clone(count)),
    };
    Meter { state, ..*meter }
}
