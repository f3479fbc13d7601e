//! What an admin does to roles and certificates.

use bytes::Bytes;
use fieldkeep_crypto::names::Name;

use crate::access::ca::Issued;
use crate::access::principal::{Identity, Principal};
use crate::access::{Action, Role, RoleBinding};
use crate::service::Core;
use crate::service::failure::Failure;
use crate::service::keys::{Listed, Page};
use crate::service::operation::Repeatable;
use crate::service::perform::{Operation, Permit};
use crate::service::record::Account;
use crate::service::resource::{identity_resource, tenant_resource};

/// An identity as a call names it: its tenant is the caller's if it names none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityName {
    /// The tenant, if named.
    pub tenant: Option<Name>,
    /// The name within the tenant.
    pub name: Name,
}

impl IdentityName {
    fn tenant<'a>(&'a self, caller: &'a Principal) -> &'a Name {
        self.tenant.as_ref().unwrap_or(&caller.tenant)
    }

    fn identity(&self, caller: &Principal) -> Identity {
        Identity::new(self.tenant(caller).clone(), self.name.clone())
    }

    fn resource(&self, caller: &Principal) -> String {
        identity_resource(self.tenant(caller).as_str(), self.name.as_str())
    }
}

/// Give an identity a role.
pub struct GrantRole {
    /// The identity.
    pub identity: IdentityName,
    /// The role.
    pub role: Role,
    /// The request's id.
    pub request: Repeatable,
}

impl Operation for GrantRole {
    const ACTION: Action = Action::RoleGrant;
    const CHANGES: bool = true;
    type Output = RoleBinding;

    fn tenant<'a>(&'a self, caller: &'a Principal) -> &'a str {
        self.identity.tenant(caller).as_str()
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        account.used(self.identity.resource(caller), 0, "", 0);
        account.detail(format!("role={}", self.role));
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<RoleBinding, Failure> {
        let caller = permit.principal();
        self.about(permit.principal(), account);
        let operation = self.request.operation(permit)?;
        let identity = self.identity.identity(caller);
        let changed = core
            .access
            .grant(
                &identity,
                self.role,
                &caller.resource,
                operation,
                permit.now_s(),
            )
            .await?;
        if changed.changes.is_empty() {
            // It was made before, perhaps by a call whose record was not written.
            account.present(&core.access.present(&identity).await?);
        }
        account.changed(&changed);
        Ok(changed.value)
    }
}

/// Take an identity's role away.
pub struct RevokeRole {
    /// The identity.
    pub identity: IdentityName,
    /// The request's id.
    pub request: Repeatable,
}

impl Operation for RevokeRole {
    const ACTION: Action = Action::RoleRevoke;
    const CHANGES: bool = true;
    type Output = ();

    fn tenant<'a>(&'a self, caller: &'a Principal) -> &'a str {
        self.identity.tenant(caller).as_str()
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        account.used(self.identity.resource(caller), 0, "", 0);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<(), Failure> {
        self.about(permit.principal(), account);
        let operation = self.request.operation(permit)?;
        let identity = self.identity.identity(permit.principal());
        if let Some(binding) = core.access.snapshot().binding(identity.resource()) {
            account.detail(format!("role={}", binding.role));
        }
        let changed = core
            .access
            .revoke(&identity, operation, permit.now_s())
            .await?;
        if changed.changes.is_empty() {
            // It was made before, perhaps by a call whose record was not written.
            account.present(&core.access.present(&identity).await?);
        }
        account.changed(&changed);
        Ok(())
    }
}

/// List roles.
pub struct ListRoles {
    /// The tenant; without one, all.
    pub tenant: Option<Name>,
    /// Which page.
    pub page: Page,
}

impl Operation for ListRoles {
    const ACTION: Action = Action::RoleRead;
    type Output = Listed<RoleBinding>;

    fn tenant<'a>(&'a self, caller: &'a Principal) -> &'a str {
        self.tenant.as_ref().unwrap_or(&caller.tenant).as_str()
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
    ) -> Result<Listed<RoleBinding>, Failure> {
        self.about(permit.principal(), account);
        let page = &self.page;
        let bindings = core
            .access
            .list(self.tenant.as_ref(), page.after.as_deref(), page.limit)
            .await?;
        Ok(Listed::new(bindings, page, |binding| {
            binding.identity.to_string()
        }))
    }
}

/// Sign a certificate for an identity of a tenant that exists.
pub struct IssueCertificate {
    /// The identity.
    pub identity: IdentityName,
    /// The signing request, PKCS #10 in DER.
    pub csr_der: Bytes,
    /// The certificate's life in seconds; 0: the default.
    pub ttl_s: u64,
}

impl Operation for IssueCertificate {
    const ACTION: Action = Action::CertificateIssue;
    const CHANGES: bool = true;
    type Output = Issued;

    fn tenant<'a>(&'a self, caller: &'a Principal) -> &'a str {
        self.identity.tenant(caller).as_str()
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        account.used(self.identity.resource(caller), 0, "", 0);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Issued, Failure> {
        let caller = permit.principal();
        self.about(permit.principal(), account);
        let tenant = self.identity.tenant(caller);
        core.vault
            .manage(permit, tenant.as_str())?
            .tenant(tenant)
            .await?;
        let issued = core.ca.issue(
            &self.csr_der,
            &self.identity.identity(caller),
            self.ttl_s,
            permit.now_s(),
        )?;
        account.detail(issued.detail.clone());
        Ok(issued)
    }
}
