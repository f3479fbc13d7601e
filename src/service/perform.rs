//! The one way of every call: authorize, run, audit, check the rights again, reply.

pub mod own;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fieldkeep_journal::{AppendError, Ticket};
use fieldkeep_proto::v1::Decision;
use tokio::time::{Instant, timeout_at};
use tonic::Code;

use crate::access::principal::Principal;
use crate::access::{AccessSnapshot, Action};
use crate::audit::AuditError;
use crate::audit::encoded::Encoded;
use crate::service::call::{Call, RequestId};
use crate::service::failure::Failure;
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
pub(super) const NO_IDENTITY: &str = "the certificate names no identity";

/// What a call asks for, parsed into a form that cannot be wrong.
pub trait Operation: Send + Sized + 'static {
    /// The action that the caller needs the right to.
    const ACTION: Action;
    /// Whether it changes the store. A change runs to its end and its record, also if the caller goes away.
    const CHANGES: bool = false;
    /// What the reply is made of.
    type Output: Send + 'static;

    /// The tenant that the operation is about. The right to it is checked first.
    fn tenant<'a>(&'a self, caller: &'a Principal) -> &'a str;

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

/// The proof that a call was authorized. Only [`Service::perform`] makes one, and without one no key can be reached.
pub struct Permit<'a> {
    snapshot: &'a AccessSnapshot,
    call: &'a Call,
    action: Action,
    principal: &'a Principal,
    now_us: u64,
}

impl Permit<'_> {
    /// Who calls.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        self.principal
    }

    /// The RPC's name.
    #[must_use]
    pub fn rpc(&self) -> &'static str {
        self.call.rpc
    }

    /// When the call was authorized, Unix seconds.
    #[must_use]
    pub fn now_s(&self) -> u64 {
        self.now_us / 1_000_000
    }

    /// Whether the caller may do the permitted action to what `tenant` has.
    ///
    /// # Errors
    /// The refusal.
    pub fn check(&self, tenant: &str) -> Result<(), Failure> {
        authorize(
            self.snapshot,
            self.principal,
            self.action,
            tenant,
            self.now_us,
        )
        .map(|_| ())
    }
}

/// A result that may leave: its record is durable and the caller still has the right. Only [`Service::perform`] makes one.
pub struct Reply<T> {
    value: T,
    request_id: RequestId,
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

impl<T> Reply<T> {
    /// The result and the call's id.
    pub fn into_parts(self) -> (T, RequestId) {
        (self.value, self.request_id)
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
            Ok(value) => Ok(Reply { value, request_id }),
            Err(failure) => Err(Refusal {
                failure,
                request_id,
            }),
        }
    }

    /// Records a call that the transport refused before there was a message to parse, and gives back the refusal.
    pub async fn refuse(&self, call: Call, failure: Failure) -> Refusal {
        let request_id = call.request_id;
        let mut attempt = Attempt::with_rule(&self.core, call, rule_for(&failure));
        let failure = match self.record(&mut attempt, Err(&failure)).await {
            Ok(()) => failure,
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
    ) -> Result<O::Output, Failure> {
        let mut attempt = Attempt::new(&self.core, call);
        let outcome = attempt.authorize_and_run(parsed).await;
        self.record(&mut attempt, outcome.as_ref().map(|_| ()))
            .await?;
        let (value, granted) = outcome?;
        if !O::CHANGES {
            // A change has happened and is on record; to refuse its reply would only hide that.
            self.check_again(&mut attempt, &granted).await?;
        }
        Ok(value)
    }

    /// Writes the record of a call and waits until it is durable.
    async fn record(
        &self,
        attempt: &mut Attempt,
        outcome: Result<(), &Failure>,
    ) -> Result<(), Failure> {
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
        self.write(attempt).await
    }

    async fn write(&self, attempt: &mut Attempt) -> Result<(), Failure> {
        let _waiting = CallTrace::part(attempt.call.trace.as_ref(), "audit");
        let error = match self.append_in_time(attempt).await {
            Ok(ticket) => match self.waiters.committed(ticket).await {
                Ok(()) => {
                    self.core.set_audit_down(false);
                    return Ok(());
                }
                Err(error) => AuditError::Append(error),
            },
            Err(error) => error,
        };
        attempt.keep(&error);
        Err(Failure::AuditUnavailable)
    }

    /// Appends a composed record. While more waits for the disk than the trail takes, this waits with it.
    async fn append_in_time(&self, attempt: &mut Attempt) -> Result<Ticket, AuditError> {
        let mut deadline = None;
        loop {
            // Read before the trail is found busy: then a record is on its way that is the next to be durable.
            let next = Ticket {
                sequence: self.core.audit.journal().durable().saturating_add(1),
            };
            let error = match attempt.append() {
                Err(error) if unwritten::is_busy(&error) => error,
                appended => return appended,
            };
            let patience = self.core.limits.busy_patience;
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + patience);
            match timeout_at(deadline, self.waiters.committed(next)).await {
                Ok(committed) => committed?,
                Err(_) => return Err(error),
            }
        }
    }

    /// Refuses the reply if the caller lost the right while the call ran.
    async fn check_again(&self, attempt: &mut Attempt, granted: &Granted) -> Result<(), Failure> {
        if self.core.access.is_current(&granted.snapshot) {
            return Ok(());
        }
        let Some(principal) = attempt.call.peer.principal.as_ref() else {
            return Err(Failure::Unauthenticated(RULE_UNAUTHENTICATED));
        };
        let snapshot = self.core.access.snapshot();
        let now_us = self.core.clock.now_us();
        match authorize(
            &snapshot,
            principal,
            attempt.call.action,
            granted
                .tenant
                .as_deref()
                .unwrap_or(principal.tenant.as_str()),
            now_us,
        ) {
            Ok(_) => Ok(()),
            Err(refused) => {
                attempt.decision = Decision::Refused;
                attempt.rule = rule_of(&refused);
                self.record(attempt, Err(&refused)).await?;
                Err(refused)
            }
        }
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
        attempt.rule = RULE_NOT_SERVING;
        let _still_down = self
            .record(&mut attempt, Err(&Failure::AuditUnavailable))
            .await;
    }
}

/// What a call was granted with, to check it again before the reply.
struct Granted {
    snapshot: Arc<AccessSnapshot>,
    /// `None`: the caller's own.
    tenant: Option<Box<str>>,
}

/// One call on its way. If it is dropped before its record was written, because the caller went away or ran out of time,
/// it leaves a record that says so.
pub(super) struct Attempt {
    core: Arc<Core>,
    call: Call,
    account: Account,
    decision: Decision,
    rule: &'static str,
    ending: Record,
}

/// Where the record of an attempt is.
enum Record {
    None,
    Composed(Encoded),
    /// In the trail, or kept for it.
    Appended,
}

impl Attempt {
    fn new(core: &Arc<Core>, call: Call) -> Self {
        Self {
            core: Arc::clone(core),
            call,
            account: Account::default(),
            decision: Decision::Refused,
            rule: RULE_NOT_SERVING,
            ending: Record::None,
        }
    }

    /// An attempt that ended by `rule` before it began.
    pub(super) fn with_rule(core: &Arc<Core>, call: Call, rule: &'static str) -> Self {
        let mut attempt = Self::new(core, call);
        attempt.rule = rule;
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
    ) -> Result<(O::Output, Granted), Failure> {
        if self.core.is_draining() {
            return Err(Failure::ShuttingDown);
        }
        if self.core.audit_down.load(Ordering::Acquire) || self.core.unwritten.is_full() {
            return Err(Failure::AuditUnavailable);
        }
        let Some(principal) = self.call.peer.principal.as_ref() else {
            self.rule = RULE_UNAUTHENTICATED;
            return Err(Failure::Unauthenticated(NO_IDENTITY));
        };
        self.rule = parsed.as_ref().err().map_or(RULE_INVALID, rule_for);
        let operation = parsed?;
        if self.call.action != O::ACTION {
            return Err(Failure::internal(
                "the route and the operation name different actions",
            ));
        }
        let now_us = self.core.clock.now_us();
        let snapshot = self.core.access.snapshot();
        let tenant = operation.tenant(principal);
        self.rule =
            authorize(&snapshot, principal, O::ACTION, tenant, now_us).inspect_err(|refused| {
                self.rule = rule_of(refused);
                operation.about(principal, &mut self.account);
            })?;
        self.decision = Decision::Allowed;
        let tenant = (tenant != principal.tenant.as_str()).then(|| tenant.into());
        let permit = Permit {
            snapshot: &snapshot,
            call: &self.call,
            action: O::ACTION,
            principal,
            now_us,
        };
        let name = if O::CHANGES { "change" } else { "run" };
        let running = CallTrace::part(self.call.trace.as_ref(), name);
        let outcome = operation.run(&self.core, &permit, &mut self.account).await;
        drop(running);
        // The right to the call is not yet the right to the key that its ciphertext or destination names.
        let refused = match &outcome {
            Ok(_) => self.account.refused_by(),
            Err(failure) => failure.refused_by(),
        };
        if let Some(rule) = refused {
            self.decision = Decision::Refused;
            self.rule = rule;
        }
        Ok((outcome?, Granted { snapshot, tenant }))
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
            rule: self.rule,
            code,
            failure,
            now_us: self.core.clock.now_us(),
        };
        let record = record::compose(&self.call, ending, &mut self.account);
        self.ending = Record::Composed(record);
    }

    /// Appends the composed record, behind all that are kept.
    fn append(&mut self) -> Result<Ticket, AuditError> {
        let Record::Composed(record) = &self.ending else {
            return Err(AuditError::Append(AppendError::Closed));
        };
        let ticket = self.core.unwritten.append(&self.core.audit, record)?;
        self.ending = Record::Appended;
        Ok(ticket)
    }

    /// After `error`: keeps the record, if it was not appended and ever can be. A call that was refused because the trail
    /// cannot be written did nothing, and is not kept.
    fn keep(&mut self, error: &AuditError) {
        self.core.audit_failed(error);
        let kept = self.rule != RULE_NOT_SERVING && !unwritten::is_too_large(error);
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
            Record::None => self.compose(Code::Cancelled, None),
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
    fn audit_failed(&self, error: &AuditError) {
        if unwritten::is_busy(error) {
            tracing::warn!(%error, "the audit trail is busy; a call has no result, and its record is kept");
        } else {
            tracing::error!(%error, "the audit trail cannot be written; no result leaves until it can");
            self.set_audit_down(true);
        }
    }
}

/// The rule that allows `action`, or the refusal.
pub(super) fn authorize(
    snapshot: &AccessSnapshot,
    principal: &Principal,
    action: Action,
    tenant: &str,
    now_us: u64,
) -> Result<&'static str, Failure> {
    let now_s = i64::try_from(now_us / 1_000_000).unwrap_or(i64::MAX);
    snapshot
        .authorize(principal, action, tenant, now_s)
        .map_err(|denied| match denied.rule {
            CERTIFICATE_EXPIRED => {
                Failure::Unauthenticated("the certificate has expired; issue a new one")
            }
            _ => Failure::PermissionDenied(denied),
        })
}

/// The rule of [`AccessSnapshot::authorize`] for a certificate that has ended.
const CERTIFICATE_EXPIRED: &str = "certificate-expired";

fn rule_of(refused: &Failure) -> &'static str {
    refused.refused_by().unwrap_or(CERTIFICATE_EXPIRED)
}

/// The rule that refused a call before there was an operation to authorize.
fn rule_for(refused: &Failure) -> &'static str {
    match refused {
        Failure::Unauthenticated(NO_IDENTITY) => RULE_UNAUTHENTICATED,
        Failure::Unauthenticated(_) | Failure::PermissionDenied { .. } => rule_of(refused),
        Failure::ShuttingDown | Failure::AuditUnavailable => RULE_NOT_SERVING,
        _ => RULE_INVALID,
    }
}
