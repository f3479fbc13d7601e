//! Whether the system's clock can be believed.

use std::time::Instant;

/// How far the clock may be set forward or back while the process runs, microseconds: an hour.
const MAX_JUMP_US: i128 = 3_600_000_000;

/// Compares the clock with the time that really passed since the process started.
#[derive(Debug)]
pub(super) struct ClockWatch {
    wall_us: u64,
    steady: Instant,
    jumped: bool,
}

impl ClockWatch {
    /// Begins at this moment.
    pub(super) fn new(wall_us: u64, steady: Instant) -> Self {
        Self {
            wall_us,
            steady,
            jumped: false,
        }
    }

    /// Whether the clock has not jumped up to this moment. Once it has, nobody knows which time is right, so that this
    /// stays false. `Err` is the jump in seconds, told once.
    pub(super) fn is_steady(&mut self, wall_us: u64, steady: Instant) -> Result<bool, i64> {
        if self.jumped {
            return Ok(false);
        }
        let passed = steady.saturating_duration_since(self.steady).as_micros();
        let passed = i128::try_from(passed).unwrap_or(i128::MAX);
        let jump = i128::from(wall_us) - i128::from(self.wall_us) - passed;
        if jump.abs() <= MAX_JUMP_US {
            return Ok(true);
        }
        self.jumped = true;
        Err(i64::try_from(jump / 1_000_000).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR_US: u64 = 3_600_000_000;

    #[test]
    fn a_jump_is_told_once_and_not_forgotten() {
        for wall in [20 * HOUR_US, 0] {
            let start = Instant::now();
            let mut watch = ClockWatch::new(10 * HOUR_US, start);
            assert_eq!(watch.is_steady(10 * HOUR_US, start), Ok(true));
            assert_eq!(watch.is_steady(11 * HOUR_US, start), Ok(true));
            let hours = (wall / HOUR_US) as i64 - 10;
            assert_eq!(watch.is_steady(wall, start), Err(hours * 3600));
            assert_eq!(watch.is_steady(wall, start), Ok(false));
            assert_eq!(watch.is_steady(10 * HOUR_US, start), Ok(false));
        }
    }

    #[test]
    fn a_long_life_is_no_jump_and_small_ones_add_up() {
        let start = Instant::now();
        let mut watch = ClockWatch::new(0, start);
        let later = start + Duration::from_secs(100 * 3600);
        assert_eq!(watch.is_steady(100 * HOUR_US, later), Ok(true));
        assert_eq!(
            watch.is_steady(100 * HOUR_US + HOUR_US * 3 / 4, later),
            Ok(true)
        );
        assert!(
            watch
                .is_steady(100 * HOUR_US + HOUR_US * 3 / 2, later)
                .is_err()
        );
    }
}
