//! Refusals that come too fast to have a record each: they are counted, and a record a second says how many there were.
//!
//! | of | so many a second have records of their own | further ones are counted in |
//! |---|---|---|
//! | one principal | 10 | a summary of the principal |
//! | one source without a principal | 10 | a summary of the source |
//! | all callers without a principal | 100 | one summary of all of them |
//! | principals beyond the 4,096 that are followed one by one | 10 | one summary of all of them |
//!
//! So whoever has no right writes a bounded number of records, and memory is bounded with them: a source is followed only once
//! it has a record of its own. A caller's noise hides no refusal of another principal, since each has records of its own.
//! Counting is a state machine without a clock; times are nanoseconds of one that never goes back.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fieldkeep_journal::AppendOptions;
use fieldkeep_proto::v1::{AuditRecord, Decision};
use tonic::Code;

use crate::access::lockout::Source;
use crate::audit::encoded::Encoded;
use crate::service::call::Call;
use crate::service::{Core, unwritten};

/// The rule of a record that stands for several refused calls.
pub const RULE_SUMMARY: &str = "summary";
/// The name of such a record, where calls have their RPC.
pub const SUMMARY: &str = "fieldkeep.internal/RefusedCalls";
/// How often summaries are to be looked for.
pub const SUMMARY_TICK: std::time::Duration = std::time::Duration::from_millis(100);
/// A summary is written so long after its first call. With a tick it makes a second.
const HOLD_NS: u64 = SECOND_NS - 100_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// The most principals that are followed one by one.
const MAX_PRINCIPALS: usize = 4_096;
/// The most sources that are followed one by one. In a second there are as many as have a record, so that this is never reached.
const MAX_SOURCES: usize = 4_096;
/// The most pairs of rule and action that a summary counts one by one.
const MAX_CAUSES: usize = 32;
/// What further ones are counted as.
const OTHER_CAUSE: (&str, &str) = ("other", "other");

/// How many refusals have records of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalOptions {
    /// Those of one caller in a second.
    pub of_one: u32,
    /// Those of all callers without a principal in a second.
    pub unauthenticated: u32,
}

impl Default for RefusalOptions {
    fn default() -> Self {
        Self {
            of_one: 10,
            unauthenticated: 100,
        }
    }
}

/// A refused call.
#[derive(Clone, Copy)]
struct Refusal<'a> {
    call: &'a Call,
    rule: &'static str,
    code: i32,
    time_us: u64,
}

/// What becomes of the record of a refused call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Becomes {
    /// It is written.
    Written,
    /// The call is counted.
    Counted,
}

/// Records within one second.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    /// When it began; `None`: never.
    begin_ns: Option<u64>,
    written: u32,
}

impl Second {
    /// Takes a place for one more, if there are not `most` already.
    fn take(&mut self, most: u32, now_ns: u64) -> bool {
        if self.is_over(now_ns) {
            *self = Second {
                begin_ns: Some(now_ns),
                written: 0,
            };
        }
        let has_room = self.written < most;
        self.written += u32::from(has_room);
        has_room
    }

    fn is_full(&self, most: u32, now_ns: u64) -> bool {
        !self.is_over(now_ns) && self.written >= most
    }

    fn is_over(&self, now_ns: u64) -> bool {
        self.begin_ns
            .is_none_or(|begin| now_ns.saturating_sub(begin) >= SECOND_NS)
    }
}

/// One caller, or several that are counted together.
#[derive(Debug, Default)]
struct Caller {
    second: Second,
    summary: Option<Box<Summary>>,
}

/// The calls of a caller that were counted.
#[derive(Debug)]
struct Summary {
    first_ns: u64,
    last_ns: u64,
    count: u64,
    causes: Vec<((&'static str, &'static str), u64)>,
    /// Of the last call, as all that follows; empty if several callers are counted together.
    principal: Arc<str>,
    credential: Arc<str>,
    address: String,
    authentication: &'static str,
    code: i32,
    time_us: u64,
}

impl Caller {
    fn add(&mut self, refusal: &Refusal<'_>, of_several: bool, now_ns: u64) {
        let summary = self.summary.get_or_insert_with(|| {
            Box::new(Summary {
                first_ns: now_ns,
                last_ns: now_ns,
                count: 0,
                causes: Vec::new(),
                principal: Arc::from(""),
                credential: Arc::from(""),
                address: String::new(),
                authentication: "",
                code: 0,
                time_us: 0,
            })
        });
        summary.add(refusal, of_several, now_ns);
    }

    fn take_due(&mut self, now_ns: u64) -> Option<Box<Summary>> {
        self.summary
            .take_if(|summary| now_ns.saturating_sub(summary.first_ns) >= HOLD_NS)
    }
}

impl Summary {
    fn add(&mut self, refusal: &Refusal<'_>, of_several: bool, now_ns: u64) {
        self.count += 1;
        self.last_ns = now_ns;
        self.code = refusal.code;
        self.time_us = refusal.time_us;
        let peer = &refusal.call.peer;
        self.authentication = peer.authentication;
        if !of_several {
            if let Some(principal) = &peer.principal {
                self.principal = Arc::clone(&principal.resource);
                self.credential = Arc::clone(&principal.credential);
            }
            if self.address != peer.address() {
                peer.address().clone_into(&mut self.address);
            }
        }
        let mut cause = (refusal.rule, refusal.call.action.as_str());
        let is_known = |known: &((&str, &str), u64), cause| known.0 == cause;
        if self.causes.len() >= MAX_CAUSES
            && !self.causes.iter().any(|known| is_known(known, cause))
        {
            cause = OTHER_CAUSE;
        }
        match self.causes.iter_mut().find(|known| known.0 == cause) {
            Some((_, count)) => *count += 1,
            None => self.causes.push((cause, 1)),
        }
    }

    /// The record, with `request_id` as an id of its own.
    fn record(self, request_id: &[u8; 16]) -> AuditRecord {
        let mut causes = self.causes;
        causes.sort_unstable();
        let mut detail = String::new();
        for ((rule, action), count) in causes {
            let space = if detail.is_empty() { "" } else { " " };
            let _ = write!(detail, "{space}{rule}:{action}={count}");
        }
        AuditRecord {
            time_us: self.time_us,
            request_id: bytes::Bytes::copy_from_slice(request_id),
            principal: self.principal.as_ref().to_owned(),
            authentication: self.authentication.to_owned(),
            address: self.address,
            rpc: SUMMARY.to_owned(),
            decision: Decision::Refused.into(),
            rule: RULE_SUMMARY.to_owned(),
            code: self.code,
            reason: String::from("refused calls beyond those that have records of their own"),
            duration_us: self.last_ns.saturating_sub(self.first_ns) / 1_000,
            detail,
            credential: self.credential.as_ref().to_owned(),
            summarised: self.count,
            ..AuditRecord::default()
        }
    }
}

/// The counting.
#[derive(Debug, Default)]
struct Counts {
    principals: HashMap<Arc<str>, Caller>,
    /// Principals that have no place among those.
    other_principals: Caller,
    sources: HashMap<Source, Caller>,
    /// All callers without a principal. Its second counts the records that they have together.
    unauthenticated: Caller,
    swept_ns: u64,
}

impl Counts {
    fn note(&mut self, refusal: &Refusal<'_>, options: &RefusalOptions, now_ns: u64) -> Becomes {
        if now_ns.saturating_sub(self.swept_ns) >= SECOND_NS {
            self.sweep(now_ns);
        }
        match &refusal.call.peer.principal {
            Some(principal) => self.note_principal(&principal.resource, refusal, options, now_ns),
            None => self.note_source(refusal, options, now_ns),
        }
    }

    fn note_principal(
        &mut self,
        resource: &Arc<str>,
        refusal: &Refusal<'_>,
        options: &RefusalOptions,
        now_ns: u64,
    ) -> Becomes {
        let is_followed = self.principals.contains_key(resource);
        let followed = is_followed || self.principals.len() < MAX_PRINCIPALS;
        let caller = if followed {
            self.principals.entry(Arc::clone(resource)).or_default()
        } else {
            &mut self.other_principals
        };
        if caller.second.take(options.of_one, now_ns) {
            return Becomes::Written;
        }
        caller.add(refusal, !followed, now_ns);
        Becomes::Counted
    }

    fn note_source(
        &mut self,
        refusal: &Refusal<'_>,
        options: &RefusalOptions,
        now_ns: u64,
    ) -> Becomes {
        let source = Source::from(refusal.call.peer.network());
        let is_followed = match self.sources.get_mut(&source) {
            Some(caller) if caller.second.is_full(options.of_one, now_ns) => {
                caller.add(refusal, false, now_ns);
                return Becomes::Counted;
            }
            caller => caller.is_some(),
        };
        let all = &mut self.unauthenticated;
        if !all.second.take(options.unauthenticated, now_ns) {
            all.add(refusal, true, now_ns);
            return Becomes::Counted;
        }
        if is_followed || self.sources.len() < MAX_SOURCES {
            let caller = self.sources.entry(source).or_default();
            caller.second.take(options.of_one, now_ns);
        }
        Becomes::Written
    }

    /// The summaries that are to be written now.
    fn take_due(&mut self, now_ns: u64) -> Vec<Summary> {
        let callers = self
            .principals
            .values_mut()
            .chain(self.sources.values_mut());
        let shared = [&mut self.other_principals, &mut self.unauthenticated];
        let due = callers
            .chain(shared)
            .filter_map(|caller| caller.take_due(now_ns))
            .map(|summary| *summary)
            .collect();
        self.sweep(now_ns);
        due
    }

    fn has_summaries(&self) -> bool {
        let callers = self.principals.values().chain(self.sources.values());
        let shared = [&self.other_principals, &self.unauthenticated];
        callers.chain(shared).any(|caller| caller.summary.is_some())
    }

    /// Forgets callers of whom nothing is to be remembered.
    fn sweep(&mut self, now_ns: u64) {
        let counts = |caller: &Caller| caller.summary.is_some() || !caller.second.is_over(now_ns);
        self.principals.retain(|_, caller| counts(caller));
        self.sources.retain(|_, caller| counts(caller));
        self.swept_ns = now_ns;
    }
}

/// The refusals of all callers.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    counts: Mutex<Counts>,
    /// Whether there may be a summary, so that a tick without one takes no lock.
    counted: AtomicBool,
    summaries: AtomicU64,
    summarised: AtomicU64,
}

/// The summaries of refused calls since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SummaryStats {
    /// Records that stand for several calls.
    pub summaries: u64,
    /// The calls that they stand for.
    pub summarised: u64,
}

impl Refusals {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        // What a panic of another thread left here is whole counts.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn summed_up(&self, record: &AuditRecord) {
        self.summaries.fetch_add(1, Ordering::Relaxed);
        self.summarised
            .fetch_add(record.summarised, Ordering::Relaxed);
    }
}

impl Core {
    /// Whether a refused call is only counted, and has no record of its own.
    pub(super) fn counts_refusal(&self, call: &Call, rule: &'static str, code: Code) -> bool {
        let refusal = Refusal {
            call,
            rule,
            code: code.into(),
            time_us: self.clock.now_us(),
        };
        let (options, now_ns) = (&self.limits.refusals, self.clock.monotonic_ns());
        let becomes = self.refusals.lock().note(&refusal, options, now_ns);
        if becomes == Becomes::Counted {
            self.refusals.counted.store(true, Ordering::Release);
        }
        becomes == Becomes::Counted
    }

    /// The summaries of refused calls since the start.
    #[must_use]
    pub fn summary_stats(&self) -> SummaryStats {
        SummaryStats {
            summaries: self.refusals.summaries.load(Ordering::Relaxed),
            summarised: self.refusals.summarised.load(Ordering::Relaxed),
        }
    }

    /// Writes the summaries of refused calls that are due. To be called every [`SUMMARY_TICK`].
    pub fn write_summaries(&self) {
        self.write_summaries_until(self.clock.monotonic_ns());
    }

    /// Writes all summaries, due or not. Nobody comes any more who would be counted.
    pub(super) fn write_last_summaries(&self) {
        self.write_summaries_until(u64::MAX);
    }

    fn write_summaries_until(&self, now_ns: u64) {
        if !self.refusals.counted.swap(false, Ordering::AcqRel) {
            return;
        }
        let (due, rest) = {
            let mut counts = self.refusals.lock();
            (counts.take_due(now_ns), counts.has_summaries())
        };
        if rest {
            self.refusals.counted.store(true, Ordering::Release);
        }
        for summary in due {
            let record = summary.record(self.request_ids.next().as_bytes());
            self.refusals.summed_up(&record);
            let appended = {
                let encoded = Encoded::from(&record);
                self.unwritten
                    .append(&self.audit, &encoded, AppendOptions::default())
            };
            if let Err(error) = appended {
                self.audit_failed(&error);
                if !unwritten::is_too_large(&error) {
                    self.unwritten.keep(record);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
