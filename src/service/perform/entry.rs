//! Calls that no right is needed for, since they are how a caller gets to be one: a workload that enrols has no identity yet,
//! and one that renews its certificate stays who it is. They leave a record like every call.

use bytes::Bytes;
use fieldkeep_journal::Waiters;
use fieldkeep_keystore::store::Operation as StoreOperation;
use fieldkeep_proto::v1::Decision;

use super::attempt::Attempt;
use super::permit::Rule;
use super::{Leave, Refusal, Reply, rule_for};
use crate::service::call::{Call, Peer};
use crate::service::failure::Failure;
use crate::service::intent::Intents;
use crate::service::operation::Planned;
use crate::service::record::Account;
use crate::service::{Core, Service};

/// What such a call asks for.
pub trait Entry: Send + Sized + 'static {
    /// Where calls with a right have the rule that allowed them.
    const RULE: &'static str;
    /// What the reply is made of.
    type Output: Send + 'static;

    /// Looks whether the caller may, and does it.
    fn run(
        self,
        core: &Core,
        entrant: &Entrant<'_>,
        account: &mut Account,
    ) -> impl Future<Output = Result<Self::Output, Failure>> + Send;
}

/// Who makes such a call, and when.
pub struct Entrant<'a> {
    call: &'a Call,
    intents: Intents<'a>,
    rule: &'static str,
    now_us: u64,
}

impl Entrant<'_> {
    /// The other end of the connection.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.call.peer
    }

    /// When the call was begun, Unix seconds.
    #[must_use]
    pub fn now_s(&self) -> u64 {
        self.now_us / 1_000_000
    }

    /// As [`super::permit::Permit::begin`], once it is known that the caller may.
    ///
    /// # Errors
    /// As there.
    pub(in crate::service) async fn begin(
        &self,
        planned: Planned,
        store_key: Bytes,
        account: &mut Account,
    ) -> Result<StoreOperation, Failure> {
        self.intents
            .write(self.call, self.rule, planned, store_key, account)
            .await
    }
}

impl Service {
    /// Performs one such call, to its end and its record even if the caller goes away.
    ///
    /// # Errors
    /// [`Refusal`] for every call without a result; no result leaves without its durable audit record.
    pub async fn enter<E: Entry>(
        &self,
        call: Call,
        parsed: Result<E, Failure>,
    ) -> Result<Reply<E::Output>, Refusal> {
        let request_id = call.request_id;
        let service = self.clone();
        let entered = async move { service.attempt_entry(call, parsed).await };
        let outcome = match self.core.changes.spawn(entered).await {
            Ok(outcome) => outcome,
            Err(stopped) => Err(Failure::internal(stopped)),
        };
        match outcome {
            Ok(value) => Ok(Reply {
                value,
                request_id,
                leave: Leave::default(),
            }),
            Err(failure) => Err(Refusal {
                failure,
                request_id,
            }),
        }
    }

    async fn attempt_entry<E: Entry>(
        &self,
        call: Call,
        parsed: Result<E, Failure>,
    ) -> Result<E::Output, Failure> {
        let mut attempt = Attempt::new(&self.core, call);
        let outcome = attempt.enter(parsed, &self.waiters).await;
        self.record(&mut attempt, outcome.as_ref().map(|_| ()))
            .await?;
        outcome
    }
}

impl Attempt {
    async fn enter<E: Entry>(
        &mut self,
        parsed: Result<E, Failure>,
        waiters: &Waiters,
    ) -> Result<E::Output, Failure> {
        self.check_serving()?;
        self.rule = Rule::Named(parsed.as_ref().err().map_or(E::RULE, rule_for));
        let entry = parsed?;
        let entrant = Entrant {
            call: &self.call,
            intents: Intents {
                core: &self.core,
                waiters,
            },
            rule: E::RULE,
            now_us: self.core.clock.now_us(),
        };
        let outcome = entry.run(&self.core, &entrant, &mut self.account).await;
        let refused = matches!(
            outcome,
            Err(Failure::Unauthenticated { .. } | Failure::TooManyAttempts { .. })
        );
        if !refused {
            self.decision = Decision::Allowed;
        }
        outcome
    }
}
