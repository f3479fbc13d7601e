//! What the service does to keys by itself. No caller is there to be authorized; the permit is for one act on one key, and
//! leads to nothing else. The act is in the trail like every call, once, with its cause.

use std::sync::Arc;
use std::time::Instant;

use fieldkeep_crypto::ciphertext::Handle;
use fieldkeep_journal::Waiters;
use fieldkeep_keystore::info::KeyInfo;
use fieldkeep_keystore::present::key_record;
use fieldkeep_keystore::rotation::plan::{Act, Cause};
use fieldkeep_keystore::store::Operation as StoreOperation;
use fieldkeep_proto::v1::Decision;

use super::attempt::Attempt;
use crate::access::action::Action;
use crate::service::Service;
use crate::service::call::{Call, Peer, RequestId};
use crate::service::failure::Failure;
use crate::service::intent::Intents;
use crate::service::operation::Planned;
use crate::service::resource::key_resource;
use crate::service::schedule::KeyId;
use crate::telemetry::RpcMetrics;

/// The name of rotations by the service itself, where calls have their RPC.
pub const ROTATION: &str = "fieldkeep.internal/ScheduledRotation";
/// The same of retirements.
pub const RETIREMENT: &str = "fieldkeep.internal/ScheduledRetirement";

/// One act of the service on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAct {
    /// The key.
    pub id: KeyId,
    /// Its handle.
    pub handle: Handle,
    /// What to do.
    pub act: Act,
    /// When it was due, Unix seconds.
    pub due: u64,
}

impl OwnAct {
    /// The name, where calls have their RPC.
    #[must_use]
    pub fn rpc(&self) -> &'static str {
        match self.act {
            Act::Rotate { .. } => ROTATION,
            Act::Retire { .. } => RETIREMENT,
        }
    }

    fn action(&self) -> Action {
        match self.act {
            Act::Rotate { .. } => Action::Rotate,
            Act::Retire { .. } => Action::Manage,
        }
    }

    /// The rule of the record, where calls have the one that allowed them.
    fn rule(&self) -> &'static str {
        match self.act {
            Act::Rotate { cause, .. } => match cause {
                Cause::Period => "schedule:period",
                Cause::Cron => "schedule:cron",
                Cause::Messages => "schedule:messages",
                Cause::Bytes => "schedule:bytes",
                Cause::Clock => "schedule:clock",
            },
            Act::Retire { .. } => "schedule:retire-after",
        }
    }

    /// Why, in a word.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        let rule = self.rule();
        rule.strip_prefix("schedule:").unwrap_or(rule)
    }

    /// `name=value` pairs for the record.
    fn detail(&self) -> String {
        let (cause, due) = (self.cause(), self.due);
        match self.act {
            Act::Rotate { from, .. } => format!("cause={cause} due={due} from={from}"),
            Act::Retire { through } => format!("cause={cause} due={due} through={through}"),
        }
    }
}

/// The proof that the service does one act of its own, whose intent is on record. Only [`Service::perform_own`] makes one.
pub struct OwnPermit {
    act: OwnAct,
    operation: StoreOperation,
    now_us: u64,
}

impl OwnPermit {
    /// What it permits.
    #[must_use]
    pub fn act(&self) -> &OwnAct {
        &self.act
    }

    /// The store's operation.
    #[must_use]
    pub fn operation(&self) -> StoreOperation {
        self.operation
    }

    /// When it was given, Unix seconds.
    #[must_use]
    pub fn now_s(&self) -> u64 {
        self.now_us / 1_000_000
    }
}

impl Service {
    /// The request id of an act's record: the same whenever the act is tried, so that a trail can be searched for it.
    #[must_use]
    pub fn own_request_id(&self, act: &OwnAct) -> RequestId {
        RequestId::of_operation(&self.core.vault.own_operation(act))
    }

    /// Does one act of the service's own, and returns when its record is durable. Like a change that a caller asked for, it
    /// runs to its end and its record whatever becomes of the returned future.
    ///
    /// # Errors
    /// The act failed, or nothing is begun since the trail cannot be written or a shutdown has begun.
    pub async fn perform_own(
        &self,
        act: OwnAct,
        metrics: Arc<RpcMetrics>,
    ) -> Result<KeyInfo, Failure> {
        if self.core.is_draining() {
            return Err(Failure::ShuttingDown);
        }
        if !self.core.is_serving() || self.core.unwritten.is_full() {
            return Err(Failure::AuditUnavailable);
        }
        let service = self.clone();
        let change = async move { service.attempt_own(act, metrics).await };
        match self.core.changes.spawn(change).await {
            Ok(outcome) => outcome,
            Err(stopped) => Err(Failure::internal(stopped)),
        }
    }

    async fn attempt_own(&self, act: OwnAct, metrics: Arc<RpcMetrics>) -> Result<KeyInfo, Failure> {
        let call = Call {
            peer: Arc::new(Peer::local()),
            request_id: self.own_request_id(&act),
            started: Instant::now(),
            rpc: act.rpc(),
            action: act.action(),
            request_bytes: 0,
            wants_receipt: false,
            metrics,
            trace: None,
        };
        let mut attempt = Attempt::with_rule(&self.core, call, act.rule());
        attempt.decision = Decision::Allowed;
        let id = act.id.clone();
        let outcome = attempt.run_own(act, &self.waiters).await;
        self.core.key_changed(id);
        self.record(&mut attempt, outcome.as_ref().map(|_| ()))
            .await?;
        outcome
    }
}

impl Attempt {
    async fn run_own(&mut self, act: OwnAct, waiters: &Waiters) -> Result<KeyInfo, Failure> {
        let name = key_resource(act.id.tenant.as_str(), act.id.key.as_str());
        self.account.used(name, 0, "", 0);
        self.account.detail(act.detail());
        let planned = Planned::own(self.core.vault.own_operation(&act));
        let store_key = key_record(&act.id.tenant, &act.id.key);
        let intents = Intents {
            core: &self.core,
            waiters,
        };
        let begun = intents.write(
            &self.call,
            act.rule(),
            planned,
            store_key,
            &mut self.account,
        );
        let permit = OwnPermit {
            operation: begun.await?,
            now_us: self.core.clock.now_us(),
            act,
        };
        let done = self.core.vault.do_own_act(&permit).await;
        let act = permit.act();
        if matches!(act.act, Act::Retire { .. }) {
            self.core.withdraw(act.id.tenant.as_str());
        }
        let (changed, present) = done?;
        self.account.used_version(changed.value.primary);
        self.account.changed(&changed);
        self.account.present(&present);
        Ok(changed.value)
    }
}
