//! One call on its way, from its arrival to its record.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fieldkeep_journal::{AppendError, AppendOptions, Ticket, Waiters};
use fieldkeep_proto::v1::Decision;
use tonic::Code;

use super::permit::{Asks, Finished, Grounds, Permit, Rule};
use super::{
    NO_IDENTITY, Operation, RULE_INVALID, RULE_NOT_SERVING, RULE_UNAUTHENTICATED, ended_failure,
    rule_for,
};
use crate::access::action::Action;
use crate::access::limits::Admission;
use crate::audit::AuditError;
use crate::audit::encoded::Encoded;
use crate::service::Core;
use crate::service::call::{Call, LOCAL};
use crate::service::failure::Failure;
use crate::service::intent::Intents;
use crate::service::record::{self, Account, Ending};
use crate::service::unwritten;
use crate::telemetry::trace::CallTrace;
use crate::version::AUDITED;

/// One call on its way. If it is dropped before its record was written, because the caller went away or ran out of time,
/// it leaves a record that says so; unless it has begun an operation of the store, of which nobody knows then what became of it:
/// its intent is on record, and the next start writes the outcome.
pub(in crate::service) struct Attempt {
    pub(super) core: Arc<Core>,
    pub(super) call: Call,
    pub(super) account: Account,
    pub(super) decision: Decision,
    pub(super) rule: Rule,
    pub(super) ending: Record,
    /// The code of the composed record.
    pub(super) code: Code,
    /// Whether the composed record is of a call that has begun an operation of the store.
    pub(super) began: bool,
    /// Where limits count the call as under way.
    pub(super) under_way: Vec<Admission>,
}

/// Where the record of an attempt is.
pub(super) enum Record {
    None,
    Composed(Encoded),
    /// In the trail, or kept for it, or counted in a summary; or in a build that is not [`AUDITED`], nowhere.
    Appended,
}

impl Attempt {
    pub(super) fn new(core: &Arc<Core>, call: Call) -> Self {
        Self {
            core: Arc::clone(core),
            call,
            account: Account::default(),
            decision: Decision::Refused,
            rule: Rule::Named(RULE_NOT_SERVING),
            ending: Record::None,
            code: Code::Ok,
            began: false,
            under_way: Vec::new(),
        }
    }

    /// An attempt that ended by `rule` before it began.
    pub(in crate::service) fn with_rule(core: &Arc<Core>, call: Call, rule: &'static str) -> Self {
        let mut attempt = Self::new(core, call);
        attempt.rule = Rule::Named(rule);
        attempt
    }

    /// The same, as one that nothing speaks against.
    pub(in crate::service) fn allowed(mut self) -> Self {
        self.decision = Decision::Allowed;
        self
    }

    pub(super) async fn authorize_and_run<O: Operation>(
        &mut self,
        parsed: Result<O, Failure>,
        waiters: &Waiters,
    ) -> Result<(O::Output, Grounds), Failure> {
        self.check_serving()?;
        let Some(principal) = self.call.peer.principal.as_ref() else {
            self.rule = Rule::Named(RULE_UNAUTHENTICATED);
            return Err(NO_IDENTITY);
        };
        let now_us = self.core.clock.now_us();
        let intents = Intents {
            core: &self.core,
            waiters,
        };
        let permit = Permit::new(intents, &self.call, principal, O::ACTION, now_us);
        // Looked at while the permit holds a snapshot, as in `Service::check_again`.
        if let Some(ended) = self.call.peer.ended() {
            self.rule = Rule::Named(ended.rule());
            return Err(ended_failure(ended));
        }
        self.rule = Rule::Named(parsed.as_ref().err().map_or(RULE_INVALID, rule_for));
        let operation = parsed?;
        if self.call.action != O::ACTION {
            return Err(Failure::internal(
                "the route and the operation name different actions",
            ));
        }
        let asked = match operation.asks(principal) {
            Asks::OfFields | Asks::Found => permit.admit(),
            Asks::Field => Ok(()),
            Asks::Oneself => permit.check_oneself(),
            Asks::Of { tenant, key } => permit.check(tenant, key),
        };
        asked.inspect_err(|refused| {
            self.rule = Rule::Named(rule_for(refused));
            operation.about(principal, &mut self.account);
        })?;
        self.decision = Decision::Allowed;
        let name = if O::CHANGES { "change" } else { "run" };
        let running = CallTrace::part(self.call.trace.as_ref(), name);
        let outcome = operation.run(&self.core, &permit, &mut self.account).await;
        drop(running);
        let Finished { grounds, under_way } = permit.finish();
        self.under_way = under_way;
        // The right to the call is not yet the right to each key and field that it names.
        let refused = match &outcome {
            Ok(_) => self.account.refused_by(),
            Err(failure) => failure.refused_by(),
        };
        match refused {
            Some(rule) => {
                self.decision = Decision::Refused;
                self.rule = Rule::Named(rule);
            }
            None => self.rule = grounds.rule(),
        }
        Ok((outcome?, grounds))
    }

    pub(super) fn check_serving(&self) -> Result<(), Failure> {
        if self.core.is_draining() {
            return Err(Failure::ShuttingDown);
        }
        let down = self.core.audit_down.load(Ordering::Acquire) || self.core.unwritten.is_full();
        if down && !self.looks() {
            return Err(Failure::AuditUnavailable);
        }
        Ok(())
    }

    pub(super) fn compose_outcome(&mut self, outcome: Result<(), &Failure>) {
        let (ok, failed) = self.account.item_counts();
        if ok + failed > 0 {
            self.call.metrics.items(ok.into(), failed.into());
        }
        if let Some(trace) = &self.call.trace {
            if ok + failed > 0 {
                trace.items(ok, failed);
            }
            if let Err(failure) = outcome {
                trace.reason(failure.verdict().1);
            }
        }
        let code = outcome.map_or_else(|failure| failure.verdict().0, |()| Code::Ok);
        self.compose(code, outcome.err());
    }

    /// Makes the record, for [`Attempt::append`].
    pub(super) fn compose(&mut self, code: Code, failure: Option<&Failure>) {
        let ending = Ending {
            decision: self.decision,
            rule: self.rule.as_str(),
            code,
            failure,
            now_us: self.core.clock.now_us(),
        };
        self.code = code;
        self.began = self.account.intended().is_some();
        if !leaves_record(self.call.action) {
            self.ending = Record::Appended;
            return;
        }
        let record = record::compose(&self.call, ending, &mut self.account);
        self.ending = Record::Composed(record);
    }

    /// Whether nothing is to be appended, after [`Attempt::compose`]: the call is a refusal that has no record of its own, since
    /// its caller was refused too often of late. Then it is counted now. What was allowed, and what the service does itself, always
    /// has its record.
    pub(super) fn needs_no_record(&mut self) -> bool {
        if matches!(self.ending, Record::Appended) {
            return true;
        }
        let (Decision::Refused, Rule::Named(rule)) = (self.decision, &self.rule) else {
            return false;
        };
        let is_own = self.call.peer.authentication == LOCAL;
        if is_own || self.began || !self.core.counts_refusal(&self.call, rule, self.code) {
            return false;
        }
        self.ending = Record::Appended;
        true
    }

    /// Whether somebody looks at the trail or the state while the trail takes no usual records; the service's own probe is no such.
    pub(super) fn looks(&self) -> bool {
        matches!(self.call.action, Action::Audit | Action::Status)
            && self.call.peer.authentication != LOCAL
            && self.core.audit_down.load(Ordering::Acquire)
    }

    /// How the composed record is appended. Where an operator chose the bounded window, an Encrypt that succeeded waits for
    /// its write alone. Who may look uses what is kept for when the disk is full.
    pub(super) fn how(&self) -> AppendOptions {
        let allowed = self.decision == Decision::Allowed;
        AppendOptions {
            relaxed: self.core.limits.audit_window
                && self.call.action == Action::Encrypt
                && self.code == Code::Ok
                && allowed,
            privileged: allowed && self.looks(),
        }
    }

    /// Appends the composed record, behind all that are kept.
    pub(super) fn append(&mut self) -> Result<Ticket, AuditError> {
        let Record::Composed(record) = &self.ending else {
            return Err(AuditError::Append(AppendError::Closed));
        };
        let how = self.how();
        let ticket = if how.privileged {
            // The others wait for room; this one has some.
            self.core.audit.append_encoded(record, how)?
        } else {
            self.core.unwritten.append(&self.core.audit, record, how)?
        };
        self.ending = Record::Appended;
        Ok(ticket)
    }

    /// After `error`: keeps the record, if it was not appended and ever can be. A call that was refused because the trail
    /// cannot be written did nothing, and is not kept.
    pub(super) fn keep(&mut self, error: &AuditError) {
        self.core.audit_failed(error);
        let kept = self.rule != Rule::Named(RULE_NOT_SERVING) && !unwritten::is_too_large(error);
        if let Record::Composed(record) = std::mem::replace(&mut self.ending, Record::Appended)
            && kept
        {
            self.core.unwritten.keep(record.decoded());
        }
    }
}

/// Whether calls for `action` leave records: all of them, but in the one build that is not [`AUDITED`].
const fn leaves_record(action: Action) -> bool {
    AUDITED || !action.is_data()
}

impl Drop for Attempt {
    fn drop(&mut self) {
        match &mut self.ending {
            Record::Appended => return,
            Record::None if self.account.intended().is_some() => return,
            Record::None => {
                self.compose(Code::Cancelled, None);
                if self.needs_no_record() {
                    return;
                }
            }
            // The outcome of an operation stays what it is.
            Record::Composed(record) if record.step().is_some() => {}
            // It waited for a busy trail; its result did not leave.
            Record::Composed(record) => {
                let mut changed = record.decoded();
                changed.code = Code::Cancelled.into();
                *record = Encoded::from(&changed);
            }
        }
        if let Err(error) = self.append() {
            self.keep(&error);
        }
    }
}
