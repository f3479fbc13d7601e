//! What an access admin does: grants, and certificates.

use std::sync::Arc;

use bytes::Bytes;
use fieldkeep_crypto::names::Name;

use crate::access::By;
use crate::access::action::Action;
use crate::access::ca::{CLIENT_TTL_S, Issued};
use crate::access::grant::{self, Grant, GrantId, Scope, Wanted, Who};
use crate::access::principal::{Identity, Principal};
use crate::access::revocation::Revocations;
use crate::service::Core;
use crate::service::failure::Failure;
use crate::service::keys::{Listed, Page};
use crate::service::operation::Repeatable;
use crate::service::perform::permit::{Asks, Permit};
use crate::service::perform::{Operation, ended_failure};
use crate::service::record::Account;
use crate::service::resource::{identity_resource, tenant_resource};

/// An identity or a group as a call names it: its tenant is the caller's if it names none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalName {
    /// The tenant, if named.
    pub tenant: Option<Name>,
    /// The name within the tenant.
    pub name: Name,
}

impl LocalName {
    /// The tenant, whose the caller's is if none is named.
    pub(super) fn tenant<'a>(&'a self, caller: &'a Principal) -> &'a Name {
        self.tenant.as_ref().unwrap_or(&caller.tenant)
    }

    /// The identity of this name.
    pub(super) fn identity(&self, caller: &Principal) -> Identity {
        Identity::new(self.tenant(caller).clone(), self.name.clone())
    }

    pub(super) fn resource(&self, caller: &Principal) -> String {
        identity_resource(self.tenant(caller).as_str(), self.name.as_str())
    }
}

/// Grant something.
pub struct CreateGrant {
    /// What, with the identity or group that it is for.
    pub wanted: Wanted,
    /// The request's id.
    pub request: Repeatable,
}

impl Operation for CreateGrant {
    const ACTION: Action = Action::Grant;
    const CHANGES: bool = true;
    const CHANGES_RIGHTS: bool = true;
    type Output = Arc<Grant>;

    /// Who opens something has to have the right to grant it, whoever it is for.
    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::Of {
            tenant: self.wanted.scope.as_str(),
            key: None,
        }
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        account.used(self.wanted.who.to_string(), 0, "", 0);
        account.detail(detail(&self.wanted));
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Arc<Grant>, Failure> {
        self.about(permit.principal(), account);
        let planned = self.request.plan(permit)?;
        let store_key = planned.grant_key();
        let operation = permit.begin(planned, store_key.into(), account).await?;
        let by = By::Caller(Box::new(permit.principal().clone()));
        let changed = core
            .access
            .grant(self.wanted, by, operation, permit.now_s())
            .await?;
        let key = grant::key_of(&changed.value.id);
        core.record_change(account, &changed, &key).await?;
        account.detail(format!(
            "id={} {}",
            changed.value.id,
            detail(&changed.value.what)
        ));
        Ok(changed.value)
    }
}

/// What is granted, as `name=value` pairs for the audit record. The values of context conditions stay in the grant.
pub(super) fn detail(what: &Wanted) -> String {
    let list = |patterns: &[crate::access::pattern::Pattern]| {
        let texts: Vec<&str> = patterns.iter().map(|pattern| pattern.as_str()).collect();
        texts.join(",")
    };
    let mut text = format!(
        "role={} tenant={} keys={} fields={}",
        what.role,
        what.scope,
        list(&what.keys),
        list(&what.fields)
    );
    if what.cross_tenant {
        text.push_str(" cross_tenant=true");
    }
    if !what.conditions.is_empty() {
        text.push_str(" conditions=true");
    }
    if let Some(expires) = what.expires {
        text.push_str(&format!(" expires={expires}"));
    }
    text
}

/// Show a grant.
pub struct ShowGrant {
    /// Its name.
    pub id: GrantId,
}

/// The grant `id`, if the caller may do to its tenant what the permit is for; otherwise it is as if there were none.
fn found(permit: &Permit<'_>, id: &GrantId) -> Result<Arc<Grant>, Failure> {
    let not_found = |hidden_by| Failure::GrantNotFound {
        name: id.as_str().into(),
        hidden_by,
    };
    let grant = permit
        .snapshot()
        .grant(id)
        .cloned()
        .ok_or_else(|| not_found(None))?;
    permit
        .check(grant.what.scope.as_str(), None)
        .map_err(|refused| not_found(refused.refused_by()))?;
    Ok(grant)
}

impl Operation for ShowGrant {
    const ACTION: Action = Action::Describe;
    type Output = Arc<Grant>;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::Found
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        account.used(self.id.to_string(), 0, "", 0);
    }

    async fn run(
        self,
        _core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Arc<Grant>, Failure> {
        self.about(permit.principal(), account);
        found(permit, &self.id)
    }
}

/// Take a grant back.
pub struct RevokeGrant {
    /// Its name.
    pub id: GrantId,
    /// The request's id.
    pub request: Repeatable,
}

impl Operation for RevokeGrant {
    const ACTION: Action = Action::Grant;
    const CHANGES: bool = true;
    const CHANGES_RIGHTS: bool = true;
    type Output = ();

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::Found
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        account.used(self.id.to_string(), 0, "", 0);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<(), Failure> {
        self.about(permit.principal(), account);
        match found(permit, &self.id) {
            Ok(grant) => account.detail(format!("from={} {}", grant.what.who, detail(&grant.what))),
            // It may be gone because this very request was made before.
            Err(refused) if permit.snapshot().grant(&self.id).is_some() => return Err(refused),
            Err(_) => {}
        }
        let key = grant::key_of(&self.id);
        let operation = self.request.begin(permit, key.clone(), account).await?;
        let changed = core
            .access
            .revoke(self.id, operation, permit.now_s())
            .await?;
        core.record_change(account, &changed, &key).await
    }
}

/// List grants.
pub struct ListGrants {
    /// Those that open this tenant; without one, all.
    pub tenant: Option<Name>,
    /// Those of this identity or group alone.
    pub who: Option<Who>,
    /// Which page: grants after the one with this name.
    pub page: Page,
}

impl Operation for ListGrants {
    const ACTION: Action = Action::Describe;
    type Output = Listed<Arc<Grant>>;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::Of {
            tenant: self.tenant.as_ref().map_or(Scope::ALL, Name::as_str),
            key: None,
        }
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        account.used(listed_of(self.tenant.as_ref()), 0, "", 0);
    }

    async fn run(
        self,
        _core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Listed<Arc<Grant>>, Failure> {
        self.about(permit.principal(), account);
        let after = after_grant(&self.page)?;
        let of_tenant = |grant: &&Arc<Grant>| match (&self.tenant, &grant.what.scope) {
            (None, _) => true,
            (Some(wanted), Scope::Tenant(tenant)) => wanted == tenant,
            (Some(_), Scope::All) => false,
        };
        let of_who =
            |grant: &&Arc<Grant>| self.who.as_ref().is_none_or(|who| grant.what.who == *who);
        let snapshot = permit.snapshot();
        let grants = snapshot
            .grants(after.as_ref())
            .filter(of_tenant)
            .filter(of_who);
        let grants = grants.take(self.page.limit).cloned().collect();
        Ok(Listed::new(grants, &self.page, |grant| {
            grant.id.to_string()
        }))
    }
}

/// Whoever makes somebody else able to use `grants`, by a credential or as a member of a group, must have the right to do so
/// wherever they reach: otherwise the admin of one tenant could take the rights of one of all.
pub(super) fn check_reach<'a>(
    permit: &Permit<'_>,
    grants: impl Iterator<Item = &'a Arc<Grant>>,
) -> Result<(), Failure> {
    for grant in grants {
        permit.check(grant.what.scope.as_str(), None)?;
    }
    Ok(())
}

/// Whether the caller may make credentials for `identity`: its tenant exists, and the caller has the right wherever it reaches.
pub(super) async fn check_identity(
    core: &Core,
    permit: &Permit<'_>,
    identity: &Identity,
) -> Result<(), Failure> {
    let tenant = identity.tenant();
    core.vault
        .manage(permit, tenant.as_str(), None)?
        .tenant(tenant)
        .await?;
    check_reach(permit, permit.snapshot().reached_by(identity.resource()))
}

/// What the record says that a listing is of.
pub(super) fn listed_of(tenant: Option<&Name>) -> String {
    tenant.map_or_else(
        || String::from("tenants"),
        |tenant| tenant_resource(tenant.as_str()),
    )
}

/// The grant that a page begins after.
pub(super) fn after_grant(page: &Page) -> Result<Option<GrantId>, Failure> {
    let parse = |text: &String| {
        GrantId::parse(text)
            .ok_or_else(|| Failure::invalid("page_token", "not a token of this listing"))
    };
    page.after.as_ref().map(parse).transpose()
}

/// Sign a certificate for an identity of a tenant that exists.
pub struct IssueCertificate {
    /// The identity.
    pub identity: LocalName,
    /// The signing request, PKCS #10 in DER.
    pub csr_der: Bytes,
    /// The certificate's life in seconds; 0: the default.
    pub ttl_s: u64,
}

impl Operation for IssueCertificate {
    const ACTION: Action = Action::Certificate;
    const CHANGES: bool = true;
    type Output = Issued;

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        Asks::Of {
            tenant: self.identity.tenant(caller).as_str(),
            key: None,
        }
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
        let identity = self.identity.identity(caller);
        check_identity(core, permit, &identity).await?;
        let now = permit.now_s();
        let issue = |revocations: &Revocations| {
            if let Some(ended) = permit.ended() {
                return Err(ended_failure(ended));
            }
            let from = revocations.issuing_time(identity.resource(), now);
            let issued = core
                .ca
                .issue(&self.csr_der, &identity, self.ttl_s, CLIENT_TTL_S, from)?;
            Ok(issued)
        };
        let issued = core.certificates.issue_with(now, issue).await?;
        account.detail(issued.detail.clone());
        Ok(issued)
    }
}
