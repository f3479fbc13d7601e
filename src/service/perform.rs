//! The one way of every call: authorize, run, audit, check the rights again, reply.

pub(super) mod attempt;
pub mod entry;
pub mod own;
pub mod permit;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fieldkeep_journal::{Ticket, Waiters};
use fieldkeep_proto::v1::Decision;
use fieldkeep_tlog::receipt::Receipt;
use tokio::time::{Instant, timeout_at};
use tonic::Code;

use self::attempt::Attempt;
use self::permit::{Asks, Grounds, Permit, Rule};
use crate::access::action::Action;
use crate::access::principal::Principal;
use crate::access::snapshot::AccessSnapshot;
use crate::access::trust::Ended;
use crate::audit::AuditError;
use crate::service::call::{Call, RequestId};
use crate::service::failure::Failure;
use crate::service::record::Account;
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
            pin!(self.attempt(call, parsed)).await
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
        let outcome = pin!(attempt.authorize_and_run(parsed, &self.waiters)).await;
        let receipt = self
            .record(&mut attempt, outcome.as_ref().map(|_| ()))
            .await?;
        let (value, grounds) = outcome?;
        if O::CHANGES_RIGHTS {
            let settled = self.core.access.settled(self.core.limits.settling);
            let settled = Box::pin(settled).await;
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
            Box::pin(self.core.look_after(&mut attempt.account, failure)).await;
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
        if attempt.needs_no_record() {
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
        Box::pin(self.record(attempt, Err(&refused))).await?;
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
        match Box::pin(timeout_at(deadline, waiters.committed(next))).await {
            Ok(committed) => committed?,
            Err(_) => return Err(error),
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
