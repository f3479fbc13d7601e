//! Taking certificates back, and the CAs whose certificates are accepted.

use fieldkeep_crypto::names::Name;

use crate::access::action::Action;
use crate::access::certificates::{CaRoot, RevokedNow, root_key};
use crate::access::principal::{Identity, Principal};
use crate::access::revocation::{Revocation, Revoked};
use crate::access::trust::Binding;
use crate::service::Core;
use crate::service::failure::Failure;
use crate::service::keys::{Listed, Page};
use crate::service::operation::Repeatable;
use crate::service::perform::Operation;
use crate::service::perform::permit::{Asks, Permit};
use crate::service::record::Account;
use crate::service::resource::tenant_resource;

/// What a call names to be revoked.
pub enum Target {
    /// One certificate, by its serial number.
    Serial(String),
    /// All of an identity: its tenant, if it names one, and its name.
    Identity(Name),
}

/// Revoke a certificate, or all of an identity.
pub struct Revoke {
    /// The tenant; without one, the caller's.
    pub tenant: Option<Name>,
    /// What.
    pub target: Target,
    /// The request's id.
    pub request: Repeatable,
}

impl Revoke {
    fn tenant_name<'a>(&'a self, caller: &'a Principal) -> &'a Name {
        self.tenant.as_ref().unwrap_or(&caller.tenant)
    }

    fn revoked(&self, caller: &Principal) -> Result<Revoked, Failure> {
        let tenant = self.tenant_name(caller).clone();
        match &self.target {
            Target::Serial(serial) => Revoked::serial(tenant, serial)
                .map_err(|error| Failure::invalid("serial", error.to_string())),
            Target::Identity(name) => Ok(Revoked::Identity(Identity::new(tenant, name.clone()))),
        }
    }
}

impl Operation for Revoke {
    const ACTION: Action = Action::Certificate;
    const CHANGES: bool = true;
    const CHANGES_RIGHTS: bool = true;
    type Output = RevokedNow;

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        Asks::Of {
            tenant: self.tenant_name(caller).as_str(),
            key: None,
        }
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        match self.revoked(caller) {
            Ok(Revoked::Identity(identity)) => {
                account.used(identity.resource().to_string(), 0, "", 0);
            }
            Ok(Revoked::Serial { tenant, serial }) => {
                account.used(tenant_resource(tenant.as_str()), 0, "", 0);
                account.detail(format!("revoked_serial={serial}"));
            }
            Err(_) => account.used(tenant_resource(self.tenant_name(caller).as_str()), 0, "", 0),
        }
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<RevokedNow, Failure> {
        let caller = permit.principal();
        self.about(caller, account);
        let what = self.revoked(caller)?;
        let key = what.store_key();
        let operation = self.request.begin(permit, key.clone(), account).await?;
        let changed = core
            .certificates
            .revoke(what, &caller.resource, operation, permit.now_s())
            .await?;
        // Calls that looked at their connection before are waited for.
        core.access.publish_again().await;
        core.record_change(account, &changed, &key).await?;
        Ok(changed.value)
    }
}

/// List revocations.
pub struct ListRevocations {
    /// The tenant; without one, all.
    pub tenant: Option<Name>,
    /// Which page.
    pub page: Page,
}

impl Operation for ListRevocations {
    const ACTION: Action = Action::Certificate;
    type Output = Listed<(String, Revocation)>;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        self.tenant.as_ref().map_or(Asks::ALL, |tenant| Asks::Of {
            tenant: tenant.as_str(),
            key: None,
        })
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        let resource = self
            .tenant
            .as_ref()
            .map_or_else(|| String::from("tenants"), |t| tenant_resource(t.as_str()));
        account.used(resource, 0, "", 0);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Listed<(String, Revocation)>, Failure> {
        self.about(permit.principal(), account);
        let page = &self.page;
        let found = core
            .certificates
            .list_revocations(self.tenant.as_ref(), page.after.as_deref(), page.limit)
            .await?;
        Ok(Listed::new(found, page, |(key, _)| key.clone()))
    }
}

/// Accept another CA.
pub struct AddCa {
    /// What it may vouch for.
    pub binding: Binding,
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// The request's id.
    pub request: Repeatable,
}

impl Operation for AddCa {
    const ACTION: Action = Action::Certificate;
    const CHANGES: bool = true;
    type Output = CaRoot;

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        Asks::Of {
            tenant: first_tenant(&self.binding, caller),
            key: None,
        }
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        let binding = &self.binding;
        for tenant in &binding.tenants {
            account.used(tenant_resource(tenant.as_str()), 0, "", 0);
        }
        account.detail(format!(
            "ca={} trust_domain={} ceiling={}",
            binding.name, binding.trust_domain, binding.ceiling
        ));
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<CaRoot, Failure> {
        self.about(permit.principal(), account);
        for tenant in &self.binding.tenants {
            permit.check(tenant.as_str(), None)?;
        }
        let key = root_key(&self.binding.name);
        let operation = self.request.begin(permit, key.clone(), account).await?;
        let root = CaRoot {
            binding: self.binding,
            certificate_pem: self.certificate_pem,
            created: permit.now_s(),
            created_by: permit.principal().resource.clone(),
        };
        let changed = core
            .certificates
            .add_root(root, operation, permit.now_s())
            .await?;
        core.record_change(account, &changed, &key).await?;
        Ok(changed.value)
    }
}

/// List the CAs that were added.
pub struct ListCas;

impl Operation for ListCas {
    const ACTION: Action = Action::Certificate;
    type Output = Vec<CaRoot>;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::ALL
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        account.used(String::from("cas"), 0, "", 0);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Vec<CaRoot>, Failure> {
        self.about(permit.principal(), account);
        Ok(core.certificates.list_roots().await?)
    }
}

/// Accept a CA no longer.
pub struct RemoveCa {
    /// Its name.
    pub name: Name,
    /// The request's id.
    pub request: Repeatable,
}

impl Operation for RemoveCa {
    const ACTION: Action = Action::Certificate;
    const CHANGES: bool = true;
    const CHANGES_RIGHTS: bool = true;
    /// How many open connections it ended.
    type Output = usize;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::Found
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        account.used(String::from("cas"), 0, "", 0);
        account.detail(format!("ca={}", self.name));
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<usize, Failure> {
        self.about(permit.principal(), account);
        // Whoever may not issue for a tenant may not take its certificates away.
        for root in core.certificates.list_roots().await? {
            if root.binding.name == self.name {
                for tenant in &root.binding.tenants {
                    permit
                        .check(tenant.as_str(), None)
                        .map_err(|refused| Failure::CaNotFound {
                            name: self.name.as_str().into(),
                            hidden_by: refused.refused_by(),
                        })?;
                }
            }
        }
        let key = root_key(&self.name);
        let operation = self.request.begin(permit, key.clone(), account).await?;
        let changed = core
            .certificates
            .remove_root(&self.name, operation, permit.now_s())
            .await?;
        core.access.publish_again().await;
        core.record_change(account, &changed, &key).await?;
        Ok(changed.value)
    }
}

fn first_tenant<'a>(binding: &'a Binding, caller: &'a Principal) -> &'a str {
    binding.tenants.first().unwrap_or(&caller.tenant).as_str()
}
