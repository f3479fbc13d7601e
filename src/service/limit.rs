//! Limits: setting them, and what a caller has used of them.

use std::sync::Arc;

use fieldkeep_crypto::names::Name;

use crate::access::action::{Action, ActionSet};
use crate::access::grant::Scope;
use crate::access::limits::Usage;
use crate::access::limits::record::{self, Limit, Sharing};
use crate::access::limits::window::Window;
use crate::access::principal::{Identity, Principal};
use crate::service::Core;
use crate::service::access::LocalName;
use crate::service::failure::Failure;
use crate::service::keys::{Listed, Page};
use crate::service::operation::Repeatable;
use crate::service::perform::Operation;
use crate::service::perform::permit::{Asks, Permit};
use crate::service::record::Account;

/// Whose limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Of {
    /// The caller's tenant's.
    Own,
    /// A tenant's.
    Tenant(Name),
    /// The whole service's.
    Service,
}

/// A limit as a call names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitName {
    /// Whose.
    pub of: Of,
    /// The name within.
    pub id: Name,
}

impl LimitName {
    /// The tenant; `None`: the whole service.
    fn tenant<'a>(&'a self, caller: &'a Principal) -> Option<&'a Name> {
        match &self.of {
            Of::Own => Some(&caller.tenant),
            Of::Tenant(tenant) => Some(tenant),
            Of::Service => None,
        }
    }

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        Asks::Of {
            tenant: self.tenant(caller).map_or(Scope::ALL, Name::as_str),
            key: None,
        }
    }

    fn resource(&self, caller: &Principal) -> String {
        record::limit_resource(self.tenant(caller), &self.id)
    }

    fn store_key(&self, caller: &Principal) -> String {
        record::limit_key(&self.resource(caller))
    }
}

/// Set a limit, in place of one of the same name.
pub struct SetLimit {
    /// Its name.
    pub name: LimitName,
    /// The one principal it is about.
    pub principal: Option<LocalName>,
    /// The one key it is about.
    pub key: Option<Name>,
    /// The actions it is about; none: every one.
    pub actions: ActionSet,
    /// Whose calls are counted together.
    pub sharing: Sharing,
    /// How much is allowed.
    pub windows: Vec<Window>,
    /// The request's id.
    pub request: Repeatable,
}

impl SetLimit {
    fn limit(&self, caller: &Principal, now: u64) -> Limit {
        Limit {
            tenant: self.name.tenant(caller).cloned(),
            id: self.name.id.clone(),
            principal: self.principal.as_ref().map(|name| match &name.tenant {
                Some(tenant) => Identity::new(tenant.clone(), name.name.clone()),
                // Of the tenant whose limit it is.
                None => {
                    let tenant = self.name.tenant(caller).unwrap_or(&caller.tenant);
                    Identity::new(tenant.clone(), name.name.clone())
                }
            }),
            key: self.key.clone(),
            actions: self.actions.bits(),
            sharing: self.sharing,
            windows: self.windows.clone(),
            created: now,
            set_by: Arc::clone(&caller.resource),
        }
    }
}

impl Operation for SetLimit {
    const ACTION: Action = Action::Limit;
    const CHANGES: bool = true;
    const CHANGES_RIGHTS: bool = true;
    type Output = Arc<Limit>;

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        self.name.asks(caller)
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        account.used(self.name.resource(caller), 0, "", 0);
        account.detail(detail(&self.limit(caller, 0)));
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Arc<Limit>, Failure> {
        let caller = permit.principal();
        self.about(caller, account);
        let (limit, now) = (self.limit(caller, permit.now_s()), permit.now_s());
        let key = limit.store_key();
        let operation = self.request.begin(permit, key.clone(), account).await?;
        let make = move |_: Option<&Limit>| {
            limit.check()?;
            Ok(limit)
        };
        let changed = core.access.set(key.clone(), make, operation, now).await?;
        core.record_change(account, &changed, &key).await?;
        Ok(changed.value)
    }
}

/// What the trail says of a limit.
fn detail(limit: &Limit) -> String {
    let mut detail = format!("windows={}", texts(&limit.windows).join(","));
    if let Some(principal) = &limit.principal {
        detail.push_str(&format!(" principal={principal}"));
    }
    if let Some(key) = &limit.key {
        detail.push_str(&format!(" key={key}"));
    }
    if let Some(actions) = ActionSet::from_bits(limit.actions).filter(|set| *set != ActionSet::NONE)
    {
        let names: Vec<&str> = actions.iter().map(Action::as_str).collect();
        detail.push_str(&format!(" actions={}", names.join(",")));
    }
    detail.push_str(&format!(" counted={}", limit.sharing));
    detail
}

/// Windows as they are written.
#[must_use]
pub fn texts(windows: &[Window]) -> Vec<String> {
    windows.iter().map(ToString::to_string).collect()
}

/// List limits.
pub struct ListLimits {
    /// Those of one tenant; without one, all, and those of the whole service.
    pub tenant: Option<Name>,
    /// Which page: limits after the one with this resource name.
    pub page: Page,
}

impl Operation for ListLimits {
    const ACTION: Action = Action::Limit;
    type Output = Listed<Arc<Limit>>;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::Of {
            tenant: self.tenant.as_ref().map_or(Scope::ALL, Name::as_str),
            key: None,
        }
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        let of = self.tenant.as_ref();
        let resource = of.map_or_else(
            || String::from("limits"),
            |tenant| format!("tenants/{tenant}/limits"),
        );
        account.used(resource, 0, "", 0);
    }

    async fn run(
        self,
        _core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Listed<Arc<Limit>>, Failure> {
        self.about(permit.principal(), account);
        let prefix = match &self.tenant {
            Some(tenant) => Limit::store_prefix(tenant),
            None => record::PREFIX.to_owned(),
        };
        let snapshot = permit.snapshot();
        let after = self.page.after.as_deref().map(record::limit_key);
        let limits = snapshot.settings().list::<Limit>(&prefix, after.as_deref());
        let limits = limits.take(self.page.limit);
        let limits = limits.map(|(_, limit)| Arc::clone(limit)).collect();
        Ok(Listed::new(limits, &self.page, |limit| limit.resource()))
    }
}

/// Remove a limit.
pub struct RemoveLimit {
    /// Its name.
    pub name: LimitName,
    /// The request's id.
    pub request: Repeatable,
}

impl Operation for RemoveLimit {
    const ACTION: Action = Action::Limit;
    const CHANGES: bool = true;
    const CHANGES_RIGHTS: bool = true;
    type Output = ();

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        self.name.asks(caller)
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        account.used(self.name.resource(caller), 0, "", 0);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<(), Failure> {
        let caller = permit.principal();
        self.about(caller, account);
        let key = self.name.store_key(caller);
        let operation = self.request.begin(permit, key.clone(), account).await?;
        let removed = core
            .access
            .unset::<Limit>(key.clone(), operation, permit.now_s());
        let changed = removed.await?;
        core.record_change(account, &changed, &key).await?;
        Ok(())
    }
}

/// Read what the caller has used of the limits that are about him. It needs no right.
pub struct ReadUsage;

impl Operation for ReadUsage {
    const ACTION: Action = Action::Limit;
    type Output = Vec<Usage>;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::Oneself
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        account.used(caller.resource.to_string(), 0, "", 0);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Vec<Usage>, Failure> {
        let caller = permit.principal();
        self.about(caller, account);
        let Some(limits) = permit.limits() else {
            return Ok(Vec::new());
        };
        let now = core.clock.monotonic_ns();
        let mut usage = limits.usage(&core.meters, caller.tenant.as_str(), &caller.resource, now);
        let snapshot = permit.snapshot();
        // Which keys there are is told to those who may do something with them.
        usage.retain(|one| {
            let key = one.limit.key.as_ref();
            key.is_none_or(|key| snapshot.names_key(caller, key.as_str()))
        });
        Ok(usage)
    }
}
