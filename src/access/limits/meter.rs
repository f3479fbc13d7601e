//! What one subject has used of one window: exact integer arithmetic, with time as a parameter.
//!
//! Times are nanoseconds of a clock that does not jump, from any origin. A time before one that was seen counts as that one,
//! so a clock that goes back gives nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::window::{Period, Window};

/// A budget's window is cut into 12 slices. They and the one that is being filled are counted, so that a stretch as long as the
/// window, wherever it begins, lies within them; what was used is given back at most a twelfth of the window late.
const CUTS: u64 = 12;
const SLICES: usize = 13;

/// When to ask again for a place among the calls under way. Calls end by themselves, nobody knows when.
const UNDER_WAY_RETRY: Duration = Duration::from_millis(50);

/// The use of one window.
#[derive(Debug)]
pub(super) struct Meter {
    /// Which limit and window.
    pub(super) id: u64,
    /// The window as it was last charged.
    window: Window,
    state: State,
}

#[derive(Debug)]
enum State {
    Budget {
        /// The number of the slice that is being filled, counted from time 0.
        slice: u64,
        /// The use of each slice, at its number modulo [`SLICES`].
        counts: [u64; SLICES],
    },
    /// GCRA as a leaking bucket. The debt is in units times nanoseconds of the period, so that `amount` leaks each nanosecond
    /// without a fraction. It is below 2^112: a burst of 64 bits times a day of 47.
    Rate {
        debt: u128,
        at: u64,
    },
    UnderWay(Arc<AtomicU64>),
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// There will be after this time.
    Until(Duration),
    /// There never will be.
    Never,
}

/// Says whether a subject that has used nothing may take `n`.
pub(super) fn check_unused(window: &Window, n: u64) -> Result<(), Full> {
    if n > window.most() {
        return Err(Full::Never);
    }
    Ok(())
}

impl Meter {
    /// A meter of which nothing is used.
    pub(super) fn new(id: u64, window: Window) -> Meter {
        let state = match window {
            Window::Budget { .. } => State::Budget {
                slice: 0,
                counts: [0; SLICES],
            },
            Window::Rate { .. } => State::Rate { debt: 0, at: 0 },
            Window::UnderWay { .. } => State::UnderWay(Arc::default()),
        };
        Meter { id, window, state }
    }

    /// Says whether `n` more fit `window` at `now`. Takes nothing. The window is the limit's present one: its amounts may have
    /// changed since the last charge.
    pub(super) fn check(&mut self, window: &Window, n: u64, now: u64) -> Result<(), Full> {
        self.advance(window, now);
        check_unused(window, n)?;
        let until = |time: u64| Full::Until(Duration::from_nanos(time.saturating_sub(now)));
        match (&self.state, *window) {
            (State::Budget { slice, counts }, Window::Budget { amount, per, .. }) => {
                match budget_frees_at(*slice, counts, amount, n, per) {
                    None => Ok(()),
                    Some(time) => Err(until(time)),
                }
            }
            (
                State::Rate { debt, at },
                Window::Rate {
                    amount, per, burst, ..
                },
            ) => {
                let room = scaled(burst, per).saturating_sub(scaled(n, per));
                let excess = debt.saturating_sub(room);
                if excess == 0 {
                    return Ok(());
                }
                let nanos = excess.div_ceil(u128::from(amount.max(1)));
                let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
                Err(until(at.saturating_add(nanos)))
            }
            (State::UnderWay(count), Window::UnderWay { calls }) => {
                if count.load(Ordering::Acquire) < calls {
                    Ok(())
                } else {
                    Err(Full::Until(UNDER_WAY_RETRY))
                }
            }
            // The id of a meter says of which kind it is.
            _ => Err(Full::Never),
        }
    }

    /// Takes `n`, which has been found to fit. For calls under way, returns where to give the call back.
    pub(super) fn take(&mut self, window: &Window, n: u64, now: u64) -> Option<&Arc<AtomicU64>> {
        self.advance(window, now);
        match &mut self.state {
            State::Budget { slice, counts } => {
                if let Some(count) = slot(counts, *slice) {
                    *count = count.saturating_add(n);
                }
                None
            }
            State::Rate { debt, .. } => {
                if let Window::Rate { per, .. } = window {
                    *debt = debt.saturating_add(scaled(n, *per));
                }
                None
            }
            State::UnderWay(count) => {
                count.fetch_add(1, Ordering::AcqRel);
                Some(count)
            }
        }
    }

    /// Takes `n` back that were taken at `charged_at`, as far as it is certain that they still count.
    pub(super) fn give_back(&mut self, n: u64, charged_at: u64) {
        match (&mut self.state, self.window) {
            (State::Budget { slice, counts }, Window::Budget { per, .. }) => {
                let charged = charged_at / slice_nanos(per);
                let counts_still = (slice.saturating_sub(CUTS)..=*slice).contains(&charged);
                if counts_still && let Some(count) = slot(counts, charged) {
                    *count = count.saturating_sub(n);
                }
            }
            // What leaked since then may have been of these.
            (State::Rate { debt, at }, Window::Rate { amount, per, .. }) => {
                let elapsed = u128::from(at.saturating_sub(charged_at));
                let leaked = elapsed.saturating_mul(u128::from(amount));
                *debt = debt.saturating_sub(scaled(n, per).saturating_sub(leaked));
            }
            _ => {}
        }
    }

    /// Lets time go on to `now`.
    fn advance(&mut self, window: &Window, now: u64) {
        match (&mut self.state, self.window) {
            (State::Budget { slice, counts }, Window::Budget { per, .. }) => {
                let new = now / slice_nanos(per);
                let steps = new.saturating_sub(*slice).min(SLICES as u64);
                for step in 0..steps {
                    if let Some(count) = slot(counts, new.saturating_sub(step)) {
                        *count = 0;
                    }
                }
                *slice = new.max(*slice);
            }
            // What has leaked until now leaked at the amount that held until now.
            (State::Rate { debt, at }, Window::Rate { amount, .. }) => {
                let elapsed = now.saturating_sub(*at);
                let leaked = u128::from(elapsed).saturating_mul(u128::from(amount));
                *debt = debt.saturating_sub(leaked);
                *at = now.max(*at);
            }
            _ => {}
        }
        self.window = *window;
    }

    /// How much is used at `now`, in units, a begun unit as a whole one.
    pub(super) fn used(&mut self, now: u64) -> u64 {
        let window = self.window;
        self.advance(&window, now);
        match (&self.state, window) {
            (State::Budget { counts, .. }, _) => {
                counts.iter().fold(0, |sum, one| sum.saturating_add(*one))
            }
            (State::Rate { debt, .. }, Window::Rate { per, .. }) => {
                let units = debt.div_ceil(u128::from(per.nanos()));
                u64::try_from(units).unwrap_or(u64::MAX)
            }
            (State::UnderWay(count), _) => count.load(Ordering::Acquire),
            _ => 0,
        }
    }

    /// How long after `now` nothing is used any more, if nobody uses it; zero for calls under way.
    pub(super) fn resets_in(&mut self, now: u64) -> Duration {
        let window = self.window;
        self.advance(&window, now);
        let time = match (&self.state, window) {
            (State::Budget { slice, counts }, Window::Budget { per, .. }) => {
                last_used(*slice, counts).map_or(0, |last| leaves_at(last, per))
            }
            (State::Rate { debt, at }, Window::Rate { amount, .. }) => {
                let nanos = debt.div_ceil(u128::from(amount.max(1)));
                at.saturating_add(u64::try_from(nanos).unwrap_or(u64::MAX))
            }
            _ => 0,
        };
        Duration::from_nanos(time.saturating_sub(now))
    }

    /// The part that is used, in 2^-32 of the whole. What is used up has the whole or more.
    pub(super) fn share(&mut self, now: u64) -> u128 {
        (u128::from(self.used(now)) << 32) / u128::from(self.window.most().max(1))
    }
}

/// `n` units in the scale of a rate's debt.
fn scaled(n: u64, per: Period) -> u128 {
    u128::from(n) * u128::from(per.nanos())
}

/// Rounded up, so that [`CUTS`] slices are never shorter than the period.
const fn slice_nanos(per: Period) -> u64 {
    per.nanos().div_ceil(CUTS)
}

fn slot(counts: &mut [u64; SLICES], slice: u64) -> Option<&mut u64> {
    let index = usize::try_from(slice % SLICES as u64).ok()?;
    counts.get_mut(index)
}

fn count_of(counts: &[u64; SLICES], slice: u64) -> u64 {
    let index = usize::try_from(slice % SLICES as u64).unwrap_or(0);
    counts.get(index).copied().unwrap_or(0)
}

/// When the use of a slice is given back.
fn leaves_at(slice: u64, per: Period) -> u64 {
    slice
        .saturating_add(SLICES as u64)
        .saturating_mul(slice_nanos(per))
}

fn last_used(slice: u64, counts: &[u64; SLICES]) -> Option<u64> {
    let first = slice.saturating_sub(CUTS);
    (first..=slice).rfind(|one| count_of(counts, *one) > 0)
}

/// When `n` more will fit, at most `amount`; `None` if they do now.
fn budget_frees_at(
    slice: u64,
    counts: &[u64; SLICES],
    amount: u64,
    n: u64,
    per: Period,
) -> Option<u64> {
    let used: u128 = counts.iter().map(|one| u128::from(*one)).sum();
    let mut wanted = used + u128::from(n);
    if wanted <= u128::from(amount) {
        return None;
    }
    for one in slice.saturating_sub(CUTS)..=slice {
        wanted = wanted.saturating_sub(u128::from(count_of(counts, one)));
        if wanted <= u128::from(amount) {
            return Some(leaves_at(one, per));
        }
    }
    Some(leaves_at(slice, per))
}

#[cfg(test)]
mod tests;
