//! The planner: which keys are due, and what is to be done first.
//!
//! - A rotation by period comes *early*, within `jitter` before the period ends: the period is an upper bound. One by cron
//!   comes *late*, within `jitter` after its time. Each key and version has a place of its own within that.
//! - The default jitter is a tenth of the period (or of the time between two times of the cron expression), at most a day.
//! - Times that were missed while the service was down are one rotation.
//! - A disabled key is left alone.

use std::{collections::HashSet, sync::Arc};

use fieldkeep_crypto::{ciphertext::Handle, names::Name};
use ring::digest::{Context, SHA256};

use super::{
    cron::Calendars,
    policy::{RotationPolicy, Schedule},
};

/// A version that was made further than this in the future, in seconds, was made by a wrong clock.
pub const CLOCK_TOLERANCE_S: u64 = 60 * 60;

const MAX_DEFAULT_JITTER_S: u64 = 24 * 60 * 60;

/// Why a key rotates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Its period ends.
    Period,
    /// A time of its cron expression has come.
    Cron,
    /// It encrypted as many messages as its policy allows.
    Messages,
    /// It encrypted as many bytes as its policy allows.
    Bytes,
    /// Its primary version says that it was made more than an hour in the future.
    Clock,
}

/// What was encrypted under a version. Never less than the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Messages.
    pub messages: u64,
    /// Bytes of plaintext.
    pub bytes: u64,
}

/// A key with a policy, as the planner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The tenant that owns it.
    pub tenant: Name,
    /// Its name.
    pub name: Name,
    /// What its ciphertexts carry.
    pub handle: Handle,
    /// The version that encrypts.
    pub primary: u32,
    /// When the primary version was made, in Unix seconds.
    pub rotated: u64,
    /// Whether the key is enabled.
    pub enabled: bool,
    /// When it rotates by itself.
    pub policy: Arc<RotationPolicy>,
    /// The use of the primary version; zero if the policy does not ask for it.
    pub used: Used,
    /// The oldest version that has not been retired; `None` if there is none, or the policy retires nothing.
    pub oldest: Option<Replaced>,
}

/// A version that is not primary any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// The version.
    pub version: u32,
    /// When its successor was made, in Unix seconds.
    pub since: u64,
}

/// The rotation that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// When it is due, in Unix seconds; `None` if only the use of the key decides.
    pub at: Option<u64>,
    /// Why.
    pub cause: Cause,
}

/// The present time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// In Unix seconds.
    pub unix_s: u64,
    /// Whether the clock has run evenly. After a jump nothing retires, since that would take data away by mistake.
    pub steady: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Make a new version, if `from` is still primary.
    Rotate {
        /// The primary version that the plan was made for.
        from: u32,
        /// Why.
        cause: Cause,
    },
    /// Disable the versions up to this one that were not retired before.
    Retire {
        /// The last version to retire.
        through: u32,
    },
}

/// One act of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Which candidate.
    pub index: usize,
    /// What is to be done with it.
    pub act: Act,
    /// Since when it is due, in Unix seconds. For a limit of use: since the last rotation, which is all that is known.
    pub due: u64,
}

/// The rotation that comes next; `None` for a disabled key, and if the policy rotates nothing.
#[must_use]
pub fn next(candidate: &Candidate, now: u64) -> Option<Next> {
    next_by(&mut Calendars::default(), candidate, now)
}

fn next_by<'c>(calendars: &mut Calendars<'c>, candidate: &'c Candidate, now: u64) -> Option<Next> {
    if !candidate.enabled {
        return None;
    }
    let scheduled = scheduled(calendars, candidate, now);
    let reached = limit_reached(candidate);
    match (scheduled, reached) {
        (Some((at, cause)), None) => Some(Next {
            at: Some(at),
            cause,
        }),
        (Some((at, cause)), Some(_)) if at <= now => Some(Next {
            at: Some(at),
            cause,
        }),
        (_, Some(cause)) => Some(Next {
            at: Some(now),
            cause,
        }),
        (None, None) => nearer_limit(candidate).map(|cause| Next { at: None, cause }),
    }
}

/// What is to be done now: at most `budget` acts, at most one rotation and one retirement a key. Rotations come first, so that
/// many old versions hold none up; then the most overdue.
#[must_use]
pub fn plan(now: Now, candidates: &[Candidate], budget: usize) -> Vec<Planned> {
    let mut due = Vec::new();
    let mut calendars = Calendars::default();
    for (index, candidate) in candidates.iter().enumerate() {
        due.extend(rotation_due(&mut calendars, index, candidate, now.unix_s));
        if now.steady {
            due.extend(retirement_due(index, candidate, now.unix_s));
        }
    }
    let order = |planned: &Planned| {
        let handle = candidates.get(planned.index).map(|key| key.handle);
        let retires = matches!(planned.act, Act::Retire { .. });
        (
            retires,
            planned.due,
            handle.map(|handle| *handle.as_bytes()),
        )
    };
    due.sort_unstable_by_key(|planned| (order(planned), planned.index));
    // A key that was given twice is one key.
    let mut seen = HashSet::new();
    due.retain(|planned| {
        let (retires, _, handle) = order(planned);
        seen.insert((handle, retires))
    });
    due.truncate(budget);
    due
}

fn rotation_due<'c>(
    calendars: &mut Calendars<'c>,
    index: usize,
    candidate: &'c Candidate,
    now: u64,
) -> Option<Planned> {
    let Next { at, cause } = next_by(calendars, candidate, now)?;
    let due = match cause {
        Cause::Messages | Cause::Bytes => at.map(|_| candidate.rotated.min(now)),
        Cause::Period | Cause::Cron | Cause::Clock => at,
    };
    let from = candidate.primary;
    due.filter(|due| *due <= now).map(|due| Planned {
        index,
        act: Act::Rotate { from, cause },
        due,
    })
}

fn retirement_due(index: usize, candidate: &Candidate, now: u64) -> Option<Planned> {
    let retire_after = candidate.policy.parts().retire_after?;
    let oldest = candidate.oldest?;
    let due = oldest.since.saturating_add(retire_after);
    let retires = candidate.enabled && oldest.version < candidate.primary && due <= now;
    retires.then_some(Planned {
        index,
        act: Act::Retire {
            through: oldest.version,
        },
        due,
    })
}

/// When the schedule rotates the key.
fn scheduled<'c>(
    calendars: &mut Calendars<'c>,
    candidate: &'c Candidate,
    now: u64,
) -> Option<(u64, Cause)> {
    let schedule = candidate.policy.schedule()?;
    let ahead = candidate.rotated.saturating_sub(now);
    if ahead > CLOCK_TOLERANCE_S {
        return Some((now, Cause::Clock));
    }
    let rotated = candidate.rotated.min(now);
    let jitter = candidate.policy.parts().jitter;
    match schedule {
        // A clock that was set back by a whole period or more would hold a short period up.
        Schedule::Period(period) if ahead >= *period => Some((now, Cause::Period)),
        Schedule::Period(period) => {
            let jitter = jitter.unwrap_or_else(|| default_jitter(*period));
            // A new version is not due in the second in which it is made.
            let early = place(candidate, jitter.min(period - 1));
            let at = rotated.saturating_add(period - early);
            Some((at, Cause::Period))
        }
        Schedule::Cron(times) => {
            let calendar = calendars.of(times);
            let time = calendar.after(rotated)?;
            let gap = calendar.after(time).map_or(u64::MAX, |after| after - time);
            let jitter = jitter.unwrap_or_else(|| default_jitter(gap));
            // Before the next time, or that would be missed.
            let late = place(candidate, jitter.min(gap - 1));
            Some((time.saturating_add(late), Cause::Cron))
        }
    }
}

fn default_jitter(between: u64) -> u64 {
    (between / 10).min(MAX_DEFAULT_JITTER_S)
}

/// The place of a key and version within `0..=jitter`: the same each time, and evenly spread over keys.
fn place(candidate: &Candidate, jitter: u64) -> u64 {
    let mut context = Context::new(&SHA256);
    context.update(candidate.handle.as_bytes());
    context.update(&candidate.primary.to_be_bytes());
    let digest = context.finish();
    let fraction = digest
        .as_ref()
        .first_chunk::<8>()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes));
    // Below jitter + 1, since the fraction is below 2^64.
    let place = (u128::from(fraction) * (u128::from(jitter) + 1)) >> 64;
    u64::try_from(place).unwrap_or(jitter)
}

fn limit_reached(candidate: &Candidate) -> Option<Cause> {
    let reached = |limit, used| limit > 0 && used >= limit;
    let (policy, used) = (candidate.policy.parts(), candidate.used);
    if reached(policy.max_messages, used.messages) {
        return Some(Cause::Messages);
    }
    reached(policy.max_bytes, used.bytes).then_some(Cause::Bytes)
}

/// The limit of which the greater part is used.
fn nearer_limit(candidate: &Candidate) -> Option<Cause> {
    let (policy, used) = (candidate.policy.parts(), candidate.used);
    match (policy.max_messages, policy.max_bytes) {
        (0, 0) => None,
        (_, 0) => Some(Cause::Messages),
        (0, _) => Some(Cause::Bytes),
        (messages, bytes) => {
            let by_bytes = u128::from(used.bytes) * u128::from(messages);
            let by_messages = u128::from(used.messages) * u128::from(bytes);
            Some(if by_bytes > by_messages {
                Cause::Bytes
            } else {
                Cause::Messages
            })
        }
    }
}
