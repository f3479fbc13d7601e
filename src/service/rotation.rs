//! When keys rotate by themselves, and how much they encrypted.

use fieldkeep_keystore::info::{KeyInfo, VersionUsage};
use fieldkeep_keystore::rotation::policy::RotationPolicy;

use crate::access::action::Action;
use crate::access::principal::Principal;
use crate::service::Core;
use crate::service::failure::Failure;
use crate::service::keys::{begin_key, finish_key, names};
use crate::service::operation::Repeatable;
use crate::service::perform::Operation;
use crate::service::perform::permit::{Asks, Permit};
use crate::service::record::Account;
use crate::service::resource::KeyName;

/// Set when a key rotates by itself.
pub struct SetRotation {
    /// The key.
    pub key: KeyName,
    /// The new policy; `None`: on demand alone.
    pub rotation: Option<RotationPolicy>,
    /// The request's id.
    pub request: Repeatable,
}

impl Operation for SetRotation {
    const ACTION: Action = Action::Manage;
    const CHANGES: bool = true;
    type Output = KeyInfo;

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        self.key.asks(caller)
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        account.used(self.key.resource(caller), 0, "", 0);
        account.detail(policy_detail(self.rotation.as_ref()));
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<KeyInfo, Failure> {
        self.about(permit.principal(), account);
        let (id, keystore, operation) =
            begin_key(core, permit, account, &self.key, &self.request).await?;
        let now = permit.now_s();
        let changed = keystore
            .set_rotation(&id.tenant, &id.key, self.rotation, operation, now)
            .await?;
        finish_key(core, keystore, account, id, changed).await
    }
}

/// Read how much was encrypted under each version of a key.
pub struct ReadUsage {
    /// The key.
    pub key: KeyName,
}

/// How much was encrypted under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The key, `tenants/{tenant}/keys/{key}`.
    pub resource: String,
    /// By version, newest first, at most 1,000.
    pub versions: Vec<VersionUsage>,
}

impl Operation for ReadUsage {
    const ACTION: Action = Action::Describe;
    type Output = Usage;

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        self.key.asks(caller)
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        account.used(self.key.resource(caller), 0, "", 0);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Usage, Failure> {
        self.about(permit.principal(), account);
        let id = names(&self.key, permit.principal())?;
        let keystore = core
            .vault
            .manage(permit, id.tenant.as_str(), Some(id.key.as_str()))?;
        Ok(Usage {
            resource: self.key.resource(permit.principal()),
            versions: keystore.usage(&id.tenant, &id.key).await?,
        })
    }
}

/// A policy as `name=value` pairs, for the audit record.
pub(super) fn policy_detail(rotation: Option<&RotationPolicy>) -> String {
    let Some(rotation) = rotation else {
        return String::from("rotation=none");
    };
    let parts = rotation.parts();
    let seconds = |name, value: Option<u64>| value.map(|value| format!("{name}={value}s"));
    let limit = |name, value: u64| (value > 0).then(|| format!("{name}={value}"));
    let pairs = [
        seconds("period", parts.period),
        parts.cron.as_ref().map(|cron| format!("cron=`{cron}`")),
        seconds("jitter", parts.jitter),
        limit("max_messages", parts.max_messages),
        limit("max_bytes", parts.max_bytes),
        seconds("retire_after", parts.retire_after),
    ];
    pairs.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
