//! The one way of every call: authorize, run, audit, check the rights again, reply.

pub mod entry;
pub mod own;
pub mod permit;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fieldkeep_journal::{AppendError, AppendOptions, Ticket, Waiters};
use fieldkeep_proto::v1::Decision;
use fieldkeep_tlog::receipt::Receipt;
use tokio::time::{Instant, timeout_at};
use tonic::Code;

use self::permit::{Asks, Finished, Grounds, Permit, Rule};
use crate::access::action::Action;
use crate::access::limits::Admission;
use crate::access::principal::Principal;
use crate::access::snapshot::AccessSnapshot;
use crate::access::trust::Ended;
use crate::audit::AuditError;
use crate::audit::encoded::Encoded;
use crate::service::call::{Call, LOCAL, RequestId};
use crate::service::failure::Failure;
use crate::service::intent::Intents;
use crate::service::record::{self, Account, Ending};
use crate::service::unwritten;
use crate::service::{Core, Service};
use crate::telemetry::trace::CallTrace;

/// The rule of a call whose message was not valid.
pub const RULE_INVALID: &str = "invalid";
/// The rule of a call whose caller could not be named.
pub const RULE_UNAUTHENTICATED: &str = "unauthenticated";
/// The rule of a call that came while the service was not serving.
pub const RULE_NOT_SERVING: &str = "not-serving";

/// What a caller without a name is told.
pub(super) const NO_IDENTITY: Failure = Failure::Unauthenticated {
    rule: RULE_UNAUTHENTICATED,
    told: "the connection has no client certificate that names an identity",
};

/// The refusal of a caller who is known by what counts no longer, or not at all.
pub(super) fn unauthenticated(told: &'static str) -> Failure {
    Failure::Unauthenticated {
        rule: RULE_UNAUTHENTICATED,
        told,
    }
}

/// The refusal of a call on a connection whose certificate counts no longer.
pub(super) fn ended_failure(ended: Ended) -> Failure {
    Failure::Unauthenticated {
        rule: ended.rule(),
        told: ended.message(),
    }
}

/// What a call asks for, parsed into a form that cannot be wrong.
pub trait Operation: Send + Sized + 'static {
    /// The action that the caller needs the right to.
    const ACTION: Action;
    /// Whether it changes the store. A change runs to its end and its record, also if the caller goes away.
    const CHANGES: bool = false;
    /// Whether it changes rights. Such a change is acknowledged only when no call runs with older ones.
    const CHANGES_RIGHTS: bool = false;
    /// What the reply is made of.
    type Output: Send + 'static;

    /// What the operation is about. The right to it is checked first.
    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a>;

    /// Names what a refused call was about, for its record.
    fn about(&self, caller: &Principal, account: &mut Account);

    /// Does it. Everything that the record should say goes into `account`, on failure too.
    fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> impl Future<Output = Result<Self::Output, Failure>> + Send;
}

/// A result that may leave: its record is durable and the caller still has the right. Only [`Service::perform`] makes one.
pub struct Reply<T> {
    value: T,
    request_id: RequestId,
    leave: Leave,
}

/// What a result leaves with.
#[derive(Clone, Debug, Default)]
pub struct Leave {
    /// The rights that allowed it. While somebody holds them, no change of rights is acknowledged; so the transport holds them
    /// until it has the reply.
    _held: Option<Arc<AccessSnapshot>>,
    grounds: Option<Grounds>,
    receipt: Option<Receipt>,
}

impl Leave {
    /// Where the record of the call is, and what it is.
    #[must_use]
    pub fn receipt(&self) -> Option<Receipt> {
        self.receipt
    }

    /// The grants that the result relies on, for a later look. The rights themselves are held no longer.
    #[must_use]
    pub fn into_grounds(self) -> Option<Grounds> {
        self.grounds
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

impl<T> Reply<T> {
    /// The result, the call's id, and what the transport keeps until it has the reply.
    pub fn into_parts(self) -> (T, RequestId, Leave) {
        (self.value, self.request_id, self.leave)
    }
}

/// A failure that may leave: it too is in the audit trail, unless it says that the trail cannot be written.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub failure: Failure,
    /// The call's id.
    pub request_id: RequestId,
}

impl Refusal {
    pub(super) fn new(failure: Failure, request_id: RequestId) -> Self {
        Self {
            failure,
            request_id,
        }
    }
}

impl Service {
    /// Performs one call. `parsed` is what its message asks for, or why it is not valid.
    ///
    /// # Errors
    /// [`Refusal`] for every call without a result; no result leaves without its durable audit record.
    pub async fn perform<O: Operation>(
        &self,
        call: Call,
        parsed: Result<O, Failure>,
    ) -> Result<Reply<O::Output>, Refusal> {
        let request_id = call.request_id;
        let outcome = if O::CHANGES {
            let service = self.clone();
            let change = async move { service.attempt(call, parsed).await };
            match self.core.changes.spawn(change).await {
                Ok(outcome) => outcome,
                Err(stopped) => Err(Failure::internal(stopped)),
            }
        } else {
            self.attempt(call, parsed).await
        };
        match outcome {
            Ok((value, leave)) => Ok(Reply {
                value,
                request_id,
                leave,
            }),
            Err(failure) => Err(Refusal {
                failure,
                request_id,
            }),
        }
    }

    /// Records a call that the transport refused before there was a message to parse, and gives back the refusal.
    pub async fn refuse(&self, call: Call, failure: Failure) -> Refusal {
        self.refuse_with(call, failure, String::new()).await
    }

    /// As [`Service::refuse`], with more for the record.
    pub(super) async fn refuse_with(
        &self,
        call: Call,
        failure: Failure,
        detail: String,
    ) -> Refusal {
        let request_id = call.request_id;
        let mut attempt = Attempt::with_rule(&self.core, call, rule_for(&failure));
        attempt.account.detail(detail);
        let failure = match self.record(&mut attempt, Err(&failure)).await {
            Ok(_) => failure,
            Err(unavailable) => unavailable,
        };
        Refusal {
            failure,
            request_id,
        }
    }

    async fn attempt<O: Operation>(
        &self,
        call: Call,
        parsed: Result<O, Failure>,
    ) -> Result<(O::Output, Leave), Failure> {
        let mut attempt = Attempt::new(&self.core, call);
        let outcome = attempt.authorize_and_run(parsed, &self.waiters).await;
        let receipt = self
            .record(&mut attempt, outcome.as_ref().map(|_| ()))
            .await?;
        let (value, grounds) = outcome?;
        if O::CHANGES_RIGHTS {
            let settled = self.core.access.settled(self.core.limits.settling).await;
            settled.map_err(|_| Failure::ChangePending)?;
        }
        if O::CHANGES {
            // A change has happened and is on record; to refuse its reply would only hide that.
            let leave = Leave {
                receipt,
                ..Leave::default()
            };
            return Ok((value, leave));
        }
        let held = self.check_again(&mut attempt, &grounds).await?;
        let leave = Leave {
            _held: Some(held),
            grounds: Some(grounds),
            receipt,
        };
        Ok((value, leave))
    }

    /// Writes the record of a call and waits until it is durable, or written if that is enough for it.
    async fn record(
        &self,
        attempt: &mut Attempt,
        outcome: Result<(), &Failure>,
    ) -> Result<Option<Receipt>, Failure> {
        if let Err(failure) = outcome {
            self.core.look_after(&mut attempt.account, failure).await;
        }
        attempt.compose_outcome(outcome);
        self.write(attempt).await
    }

    /// As [`Service::record`], for a call that ended with a code alone.
    pub(super) async fn record_code(
        &self,
        attempt: &mut Attempt,
        code: Code,
    ) -> Result<(), Failure> {
        attempt.compose(code, None);
        self.write(attempt).await.map(drop)
    }

    /// The receipt, unless the call is only counted.
    async fn write(&self, attempt: &mut Attempt) -> Result<Option<Receipt>, Failure> {
        // A reply without a result need not wait for the summary that its call is in.
        if attempt.is_only_counted() {
            return Ok(None);
        }
        let _waiting = CallTrace::part(attempt.call.trace.as_ref(), "audit");
        let appended = append_in_time(&self.core, &self.waiters, || attempt.append()).await;
        let how = attempt.how();
        let error = match appended {
            Ok(ticket) => {
                let reached = if how.relaxed {
                    self.waiters.written(ticket).await
                } else {
                    self.waiters.committed(ticket).await
                };
                match reached {
                    Ok(()) => {
                        // What is kept for when the disk is full says nothing about the others.
                        if !how.privileged {
                            self.core.set_audit_down(false);
                        }
                        let durable = !how.relaxed || self.core.audit.is_durable(ticket);
                        return Ok(self.core.audit.receipt(ticket, durable));
                    }
                    Err(error) => AuditError::Append(error),
                }
            }
            Err(error) => error,
        };
        attempt.keep(&error);
        Err(Failure::AuditUnavailable)
    }

    /// Refuses the reply if the caller lost a right while the call ran; otherwise gives the rights to hold until it leaves.
    async fn check_again(
        &self,
        attempt: &mut Attempt,
        grounds: &Grounds,
    ) -> Result<Arc<AccessSnapshot>, Failure> {
        let Some(principal) = attempt.call.peer.principal.as_ref() else {
            return Err(NO_IDENTITY);
        };
        let refused = {
            let snapshot = self.core.access.snapshot();
            let now_us = self.core.clock.now_us();
            // Looked at while the snapshot is held: whoever ends the connection publishes a newer one afterwards, and waits.
            match attempt.call.peer.ended() {
                Some(ended) => ended_failure(ended),
                None if grounds.are_of(&snapshot) => return Ok(snapshot),
                None => {
                    match permit::recheck(&snapshot, &attempt.call, principal, grounds, now_us) {
                        Ok(()) => return Ok(snapshot),
                        Err(refused) => refused,
                    }
                }
            }
        };
        attempt.decision = Decision::Refused;
        attempt.rule = Rule::Named(rule_for(&refused));
        self.record(attempt, Err(&refused)).await?;
        Err(refused)
    }

    /// Writes a record of the service's own, to learn whether the trail can be written again. While it can, writes only what
    /// is kept from when it could not.
    pub async fn probe_audit(&self, call: Call) {
        if !self.core.audit_down.load(Ordering::Acquire) {
            if let Err(error) = self.core.unwritten.write(&self.core.audit) {
                self.core.audit_failed(&error);
            }
            return;
        }
        let mut attempt = Attempt::new(&self.core, call);
        attempt.rule = Rule::Named(RULE_NOT_SERVING);
        let _still_down = self
            .record(&mut attempt, Err(&Failure::AuditUnavailable))
            .await;
    }
}

/// Appends a record by `append`. While more waits for the disk than the trail takes, this waits with it.
pub(super) async fn append_in_time(
    core: &Core,
    waiters: &Waiters,
    mut append: impl FnMut() -> Result<Ticket, AuditError>,
) -> Result<Ticket, AuditError> {
    let mut deadline = None;
    loop {
        // Read before the trail is found busy: then a record is on its way that is the next to be durable.
        let next = Ticket::at(core.audit.journal().durable().saturating_add(1));
        let error = match append() {
            Err(error) if unwritten::is_busy(&error) => error,
            appended => return appended,
        };
        let patience = core.limits.busy_patience;
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + patience);
        match timeout_at(deadline, waiters.committed(next)).await {
            Ok(committed) => committed?,
            Err(_) => return Err(error),
        }
    }
}

/// One call on its way. If it is dropped before its record was written, because the caller went away or ran out of time,
/// it leaves a record that says so; unless it has begun an operation of the store, of which nobody knows then what became of it:
/// its intent is on record, and the next start writes the outcome.
pub(super) struct Attempt {
    core: Arc<Core>,
    call: Call,
    account: Account,
    decision: Decision,
    rule: Rule,
    ending: Record,
    /// The code of the composed record.
    code: Code,
    /// Whether the composed record is of a call that has begun an operation of the store.
    began: bool,
    /// Where limits count the call as under way.
    under_way: Vec<Admission>,
}

/// Where the record of an attempt is.
enum Record {
    None,
    Composed(Encoded),
    /// In the trail, or kept for it, or counted in a summary.
    Appended,
}

impl Attempt {
    fn new(core: &Arc<Core>, call: Call) -> Self {
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
    pub(super) fn with_rule(core: &Arc<Core>, call: Call, rule: &'static str) -> Self {
        let mut attempt = Self::new(core, call);
        attempt.rule = Rule::Named(rule);
        attempt
    }

    /// The same, as one that nothing speaks against.
    pub(super) fn allowed(mut self) -> Self {
        self.decision = Decision::Allowed;
        self
    }

    async fn authorize_and_run<O: Operation>(
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

    fn check_serving(&self) -> Result<(), Failure> {
        if self.core.is_draining() {
            return Err(Failure::ShuttingDown);
        }
        let down = self.core.audit_down.load(Ordering::Acquire) || self.core.unwritten.is_full();
        if down && !self.looks() {
            return Err(Failure::AuditUnavailable);
        }
        Ok(())
    }

    fn compose_outcome(&mut self, outcome: Result<(), &Failure>) {
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
    fn compose(&mut self, code: Code, failure: Option<&Failure>) {
        let ending = Ending {
            decision: self.decision,
            rule: self.rule.as_str(),
            code,
            failure,
            now_us: self.core.clock.now_us(),
        };
        self.code = code;
        self.began = self.account.intended().is_some();
        let record = record::compose(&self.call, ending, &mut self.account);
        self.ending = Record::Composed(record);
    }

    /// Whether the call is a refusal that has no record of its own, since its caller was refused too often of late. Then it is
    /// counted now. What was allowed, and what the service does itself, always has its record.
    fn is_only_counted(&mut self) -> bool {
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
    fn looks(&self) -> bool {
        matches!(self.call.action, Action::Audit | Action::Status)
            && self.call.peer.authentication != LOCAL
            && self.core.audit_down.load(Ordering::Acquire)
    }

    /// How the composed record is appended. Where an operator chose the bounded window, an Encrypt that succeeded waits for
    /// its write alone. Who may look uses what is kept for when the disk is full.
    fn how(&self) -> AppendOptions {
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
    fn append(&mut self) -> Result<Ticket, AuditError> {
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
    fn keep(&mut self, error: &AuditError) {
        self.core.audit_failed(error);
        let kept = self.rule != Rule::Named(RULE_NOT_SERVING) && !unwritten::is_too_large(error);
        if let Record::Composed(record) = std::mem::replace(&mut self.ending, Record::Appended)
            && kept
        {
            self.core.unwritten.keep(record.decoded());
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        match &mut self.ending {
            Record::Appended => return,
            Record::None if self.account.intended().is_some() => return,
            Record::None => {
                self.compose(Code::Cancelled, None);
                if self.is_only_counted() {
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

impl Core {
    /// The trail did not take a record. A busy one is not broken: only this call has no result.
    pub(super) fn audit_failed(&self, error: &AuditError) {
        if unwritten::is_busy(error) {
            tracing::warn!(%error, "the audit trail is busy; a call has no result, and its record is kept");
        } else {
            tracing::error!(%error, "the audit trail cannot be written; no result leaves until it can");
            self.set_audit_down(true);
        }
    }
}

/// The rule that refused a call.
fn rule_for(refused: &Failure) -> &'static str {
    match refused {
        Failure::ShuttingDown | Failure::AuditUnavailable => RULE_NOT_SERVING,
        other => other.refused_by().unwrap_or(RULE_INVALID),
    }
}
