//! What an admin does to tenants and keys.

use fieldkeep_crypto::names::Name;
use fieldkeep_keystore::info::{AuditItems, Change, Changed, KeyInfo, KeySettings, TenantInfo};
use fieldkeep_keystore::keystore::Keystore;
use fieldkeep_keystore::present::{key_record, tenant_record};
use fieldkeep_keystore::store::Operation as StoreOperation;

use crate::access::action::Action;
use crate::access::grant::Scope;
use crate::access::principal::Principal;
use crate::service::Core;
use crate::service::failure::Failure;
use crate::service::items::items_detail;
use crate::service::operation::Repeatable;
use crate::service::perform::Operation;
use crate::service::perform::permit::{Asks, Permit};
use crate::service::record::Account;
use crate::service::resource::{KeyName, tenant_resource};
use crate::service::rotation::policy_detail;
use crate::service::schedule::KeyId;

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The last name of the page before.
    pub after: Option<String>,
    /// The most entries.
    pub limit: usize,
}

/// Entries of a listing, and the name to go on after if there may be more.
#[derive(Debug)]
pub struct Listed<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// Where the next page begins.
    pub next: Option<String>,
}

impl<T> Listed<T> {
    /// A page of at most `page.limit` entries: fewer mean that it is the last.
    pub(super) fn new(entries: Vec<T>, page: &Page, name: impl Fn(&T) -> String) -> Self {
        let next = if entries.len() < page.limit {
            None
        } else {
            entries.last().map(name)
        };
        Self { entries, next }
    }
}

/// The key that a name means to `caller`.
pub(super) fn names(name: &KeyName, caller: &Principal) -> Result<KeyId, Failure> {
    Ok(KeyId {
        tenant: Name::parse(name.tenant(caller)).map_err(Failure::internal)?,
        key: Name::parse(name.key()).map_err(Failure::internal)?,
    })
}

/// Begins a change of a key: its intent is on record, with the operation that it names.
pub(super) async fn begin_key<'a>(
    core: &'a Core,
    permit: &Permit<'_>,
    account: &mut Account,
    key: &KeyName,
    request: &Repeatable,
) -> Result<(KeyId, &'a Keystore, StoreOperation), Failure> {
    let id = names(key, permit.principal())?;
    let keystore = core
        .vault
        .manage(permit, id.tenant.as_str(), Some(id.key.as_str()))?;
    let store_key = key_record(&id.tenant, &id.key);
    let operation = request.begin(permit, store_key, account).await?;
    Ok((id, keystore, operation))
}

/// Reports a change. One that was made before may have ended without its record, so that this one says what the store
/// holds of it now.
fn finish<T>(account: &mut Account, changed: Changed<T>, present: &[Change]) -> T {
    account.changed(&changed);
    account.present(present);
    changed.value
}

/// Reports a change of a key, and tells the rotation planner of it.
pub(super) async fn finish_key(
    core: &Core,
    keystore: &Keystore,
    account: &mut Account,
    id: KeyId,
    changed: Changed<KeyInfo>,
) -> Result<KeyInfo, Failure> {
    let present = if changed.changes.is_empty() {
        keystore.present_key(&id.tenant, &id.key).await?
    } else {
        Vec::new()
    };
    core.key_changed(id);
    Ok(finish(account, changed, &present))
}

/// Create a tenant.
pub struct CreateTenant {
    /// Its name.
    pub tenant: Name,
    /// The request's id.
    pub request: Repeatable,
}

impl Operation for CreateTenant {
    const ACTION: Action = Action::Tenant;
    const CHANGES: bool = true;
    type Output = TenantInfo;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::ALL
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        account.used(tenant_resource(self.tenant.as_str()), 0, "", 0);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<TenantInfo, Failure> {
        self.about(permit.principal(), account);
        let keystore = core.vault.manage(permit, Scope::ALL, None)?;
        let store_key = tenant_record(&self.tenant);
        let operation = self.request.begin(permit, store_key, account).await?;
        let changed = keystore
            .create_tenant(&self.tenant, operation, permit.now_s())
            .await?;
        let present = match changed.changes.as_slice() {
            [] => keystore.present_tenant(&self.tenant).await?,
            _ => Vec::new(),
        };
        Ok(finish(account, changed, &present))
    }
}

/// List tenants.
pub struct ListTenants {
    /// Which page.
    pub page: Page,
}

impl Operation for ListTenants {
    const ACTION: Action = Action::Describe;
    type Output = Listed<TenantInfo>;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::ALL
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        account.used(String::from("tenants"), 0, "", 0);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Listed<TenantInfo>, Failure> {
        self.about(permit.principal(), account);
        let keystore = core.vault.manage(permit, Scope::ALL, None)?;
        let tenants = keystore
            .list_tenants(self.page.after.as_deref(), self.page.limit)
            .await?;
        Ok(Listed::new(tenants, &self.page, |tenant| {
            tenant.name.to_string()
        }))
    }
}

/// Create a key.
pub struct CreateKey {
    /// Its name.
    pub key: KeyName,
    /// What is chosen for it.
    pub settings: KeySettings,
    /// The request's id.
    pub request: Repeatable,
}

impl Operation for CreateKey {
    const ACTION: Action = Action::Manage;
    const CHANGES: bool = true;
    type Output = KeyInfo;

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        self.key.asks(caller)
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        account.used(self.key.resource(caller), 0, "", 0);
        let KeySettings {
            suite,
            rotation,
            audit_items,
        } = &self.settings;
        let mut detail = format!("suite={}", suite.code());
        if let Some(rotation) = rotation {
            detail = format!("{detail} {}", policy_detail(Some(rotation)));
        }
        if *audit_items != AuditItems::default() {
            detail = format!("{detail} {}", items_detail(*audit_items));
        }
        account.detail(detail);
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
        let changed = keystore
            .create_key(
                &id.tenant,
                &id.key,
                self.settings,
                operation,
                permit.now_s(),
            )
            .await?;
        account.used_version(changed.value.primary);
        finish_key(core, keystore, account, id, changed).await
    }
}

/// Describe a key and its versions.
pub struct DescribeKey {
    /// The key.
    pub key: KeyName,
}

impl Operation for DescribeKey {
    const ACTION: Action = Action::Describe;
    type Output = KeyInfo;

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
    ) -> Result<KeyInfo, Failure> {
        self.about(permit.principal(), account);
        let id = names(&self.key, permit.principal())?;
        let keystore = core
            .vault
            .manage(permit, id.tenant.as_str(), Some(id.key.as_str()))?;
        Ok(keystore
            .describe_key(&id.tenant, &id.key, permit.now_s())
            .await?)
    }
}

/// List a tenant's keys.
pub struct ListKeys {
    /// The tenant; without one, the caller's.
    pub tenant: Option<Name>,
    /// Which page.
    pub page: Page,
}

impl Operation for ListKeys {
    const ACTION: Action = Action::Describe;
    type Output = Listed<KeyInfo>;

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        Asks::Of {
            tenant: self.tenant.as_ref().unwrap_or(&caller.tenant).as_str(),
            key: None,
        }
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        let tenant = self.tenant.as_ref().unwrap_or(&caller.tenant);
        account.used(tenant_resource(tenant.as_str()), 0, "", 0);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Listed<KeyInfo>, Failure> {
        let tenant = self.tenant.as_ref().unwrap_or(&permit.principal().tenant);
        self.about(permit.principal(), account);
        let keystore = core.vault.manage(permit, tenant.as_str(), None)?;
        let keys = keystore
            .list_keys(tenant, self.page.after.as_deref(), self.page.limit)
            .await?;
        Ok(Listed::new(keys, &self.page, |key| key.name.to_string()))
    }
}

/// Add a version to a key and make it primary.
pub struct RotateKey {
    /// The key.
    pub key: KeyName,
    /// The request's id.
    pub request: Repeatable,
}

impl Operation for RotateKey {
    const ACTION: Action = Action::Rotate;
    const CHANGES: bool = true;
    type Output = KeyInfo;

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
    ) -> Result<KeyInfo, Failure> {
        self.about(permit.principal(), account);
        let (id, keystore, operation) =
            begin_key(core, permit, account, &self.key, &self.request).await?;
        let changed = keystore
            .rotate_key(&id.tenant, &id.key, operation, permit.now_s())
            .await?;
        account.used_version(changed.value.primary);
        finish_key(core, keystore, account, id, changed).await
    }
}

/// Enable or disable a key, or one version of it.
pub struct ChangeState {
    /// The key.
    pub key: KeyName,
    /// The version; without one, the whole key.
    pub version: Option<u32>,
    /// The state after the change.
    pub enabled: bool,
    /// The request's id.
    pub request: Repeatable,
}

impl Operation for ChangeState {
    const ACTION: Action = Action::Manage;
    const CHANGES: bool = true;
    type Output = KeyInfo;

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        self.key.asks(caller)
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        account.used(self.key.resource(caller), self.version.unwrap_or(0), "", 0);
        account.detail(format!("enabled={}", self.enabled));
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
        let changed = match self.version {
            None => {
                keystore
                    .set_key_enabled(&id.tenant, &id.key, self.enabled, operation, now)
                    .await
            }
            Some(version) => {
                keystore
                    .set_version_enabled(&id.tenant, &id.key, version, self.enabled, operation, now)
                    .await
            }
        };
        if !self.enabled {
            core.withdraw(id.tenant.as_str());
        }
        finish_key(core, keystore, account, id, changed?).await
    }
}
