//! The charge of one call to every limit that is about it, or to none.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    Call, Limits, Meters, Subject,
    meter::{Full, check_unused},
    record::Limit,
    table::Seat,
    window::Window,
};

/// When to ask again where all places are taken by subjects that have used up a limit.
const CROWDED_RETRY: Duration = Duration::from_secs(1);

/// How many counts of calls under way an admission holds without an allocation.
const HELD: usize = 4;

/// Why a call may not be now. It has been charged nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A limit has no room. Of several, the one that has none for the longest time.
    #[error(
        "the limit `{}` allows {window} and has no room for this call now: repeat it in {} s, or ask an operator for more",
        limit.resource(), seconds(*retry_after)
    )]
    Spent {
        /// The limit.
        limit: Arc<Limit>,
        /// Its window.
        window: Window,
        /// When there is room, if nobody else takes it.
        retry_after: Duration,
    },
    /// The call alone is more than the limit ever allows at once. There is no use in repeating it.
    #[error(
        "the call counts {count} and the limit `{}` of {window} never allows more than {most} at once: send smaller batches",
        limit.resource()
    )]
    TooLarge {
        /// The limit.
        limit: Arc<Limit>,
        /// Its window.
        window: Window,
        /// What the call takes, in the window's unit.
        count: u64,
        /// The most that can be taken at once.
        most: u64,
    },
    /// More principals than can be counted have used up their limits.
    #[error("too many callers have used up their limits: repeat the call in {} s", seconds(*retry_after))]
    Crowded {
        /// When to ask again.
        retry_after: Duration,
    },
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> u128 {
    time.as_millis().div_ceil(1_000)
}

impl Refused {
    /// How long to wait before the call is repeated; `None` if that is of no use.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Refused::Spent { retry_after, .. } | Refused::Crowded { retry_after } => {
                Some(*retry_after)
            }
            Refused::TooLarge { .. } => None,
        }
    }

    /// How bad it is, to report the worst.
    fn rank(&self) -> Duration {
        self.retry_after().unwrap_or(Duration::MAX)
    }
}

/// A call that may be. It is under way until this is dropped.
#[derive(Debug, Default)]
#[must_use = "the call counts as under way until this is dropped"]
pub struct Admission {
    held: [Option<Arc<AtomicU64>>; HELD],
    more: Vec<Arc<AtomicU64>>,
}

impl Admission {
    fn hold(&mut self, count: Arc<AtomicU64>) {
        match self.held.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(count),
            None => self.more.push(count),
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        for count in self.held.iter().flatten().chain(&self.more) {
            count.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Limits {
    /// Charges `call` to every limit that is about it, at `now`, or to none.
    ///
    /// All of its meters are locked, in the order of `Subject::ALL`, until all have been asked and all been charged.
    ///
    /// # Errors
    /// [`Refused`]; then nothing has been charged.
    pub fn admit(&self, meters: &Meters, call: &Call<'_>, now: u64) -> Result<Admission, Refused> {
        let mut admission = Admission::default();
        if self.is_empty() {
            return Ok(admission);
        }
        let mut asked = Asked {
            seats: [None, None, None],
            worst: None,
        };
        for (subject, seat) in Subject::ALL.into_iter().zip(&mut asked.seats) {
            let worst = &mut asked.worst;
            self.each(subject, call, |one, taken| {
                if seat.is_none() {
                    let (table, hash) = subject.place(meters, call.tenant, call.principal);
                    *seat = table.seat(hash, now);
                }
                for (id, window) in &one.windows {
                    let count = taken.of(window.unit());
                    if count == 0 {
                        continue;
                    }
                    let refused = match check(seat.as_mut(), *id, window, count, now) {
                        Ok(()) => continue,
                        Err(refused) => refused.explain(&one.limit, *window, count),
                    };
                    if worst
                        .as_ref()
                        .is_none_or(|worst| refused.rank() > worst.rank())
                    {
                        *worst = Some(refused);
                    }
                }
            });
        }
        if let Some(refused) = asked.worst {
            return Err(refused);
        }
        for (subject, seat) in Subject::ALL.into_iter().zip(&mut asked.seats) {
            let Some(seat) = seat else { continue };
            self.each(subject, call, |one, taken| {
                for (id, window) in &one.windows {
                    let count = taken.of(window.unit());
                    if count == 0 {
                        continue;
                    }
                    let meter = seat.meter_or(*id, window, now);
                    let under_way = meter.and_then(|meter| meter.take(window, count, now));
                    if let Some(under_way) = under_way {
                        admission.hold(Arc::clone(under_way));
                    }
                }
            });
        }
        Ok(admission)
    }

    /// Takes back what [`Limits::admit`] charged for `call` at `charged_at`, since the rest of what it belongs to was refused. Calls
    /// under way end with their admission. Never takes back more than is certain still to count.
    pub fn give_back(&self, meters: &Meters, call: &Call<'_>, charged_at: u64) {
        for subject in Subject::ALL {
            let (table, hash) = subject.place(meters, call.tenant, call.principal);
            let Some(mut seat) = table.find(hash) else {
                continue;
            };
            self.each(subject, call, |one, taken| {
                for (id, window) in &one.windows {
                    if let Some(meter) = seat.meter(*id) {
                        meter.give_back(taken.of(window.unit()), charged_at);
                    }
                }
            });
        }
    }
}

struct Asked<'a> {
    seats: [Option<Seat<'a>>; 3],
    worst: Option<Refused>,
}

enum Why {
    Full(Full),
    Crowded,
}

impl Why {
    fn explain(self, limit: &Arc<Limit>, window: Window, count: u64) -> Refused {
        let limit = Arc::clone(limit);
        match self {
            Why::Crowded => Refused::Crowded {
                retry_after: CROWDED_RETRY,
            },
            Why::Full(Full::Until(retry_after)) => Refused::Spent {
                limit,
                window,
                retry_after,
            },
            Why::Full(Full::Never) => Refused::TooLarge {
                limit,
                window,
                count,
                most: window.most(),
            },
        }
    }
}

fn check(
    seat: Option<&mut Seat<'_>>,
    id: u64,
    window: &Window,
    count: u64,
    now: u64,
) -> Result<(), Why> {
    let seat = seat.ok_or(Why::Crowded)?;
    match seat.meter(id) {
        Some(meter) => meter.check(window, count, now),
        None => check_unused(window, count),
    }
    .map_err(Why::Full)
}
