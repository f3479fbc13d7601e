//! The issuers whose tokens are taken. Whoever sets one can become anybody of its tenants, as with the CA of others, and needs the
//! right that would let him issue certificates to all of them.

use std::sync::Arc;

use fieldkeep_crypto::names::Name;
use zeroize::Zeroizing;

use crate::access::AccessError;
use crate::access::action::Action;
use crate::access::grant::Scope;
use crate::access::jwt::{Checked, Issuer, IssuerRecord, TokenError, issuer_key};
use crate::access::principal::Principal;
use crate::access::settings::Setting;
use crate::service::Core;
use crate::service::failure::Failure;
use crate::service::operation::Repeatable;
use crate::service::perform::Operation;
use crate::service::perform::permit::{Asks, Permit};
use crate::service::record::Account;
use crate::service::resource::tenant_resource;

/// What a record is about that is about no one tenant.
const ISSUERS: &str = "issuers";

/// Whether the caller may set `issuer`, and so may become whoever it vouches for.
///
/// The groups that an issuer gives are rights to grant as well, which no role has less than the right to issue certificates.
fn check_right(permit: &Permit<'_>, issuer: &Issuer) -> Result<(), Failure> {
    for tenant in issuer.tenants() {
        permit.check(tenant.as_str(), None)?;
    }
    // Grants that open other tenants are not known beforehand, so this takes the right to all. What listens on the service's own host
    // is the operator's, and not to be reached by whoever administers one tenant.
    if issuer.ceiling().cross_tenant || !issuer.url().is_tls() {
        permit.check(Scope::ALL, None)?;
    }
    Ok(())
}

fn present(permit: &Permit<'_>, name: &Name) -> Option<Arc<Issuer>> {
    let snapshot = permit.snapshot();
    let key = issuer_key(name.as_str());
    snapshot.settings().get::<Issuer>(&key).cloned()
}

fn not_found(hidden_by: Option<&'static str>) -> Failure {
    Failure::NoSuchSetting {
        what: Issuer::ONE,
        hidden_by,
    }
}

/// Names an issuer in a record.
fn about(name: &Name, account: &mut Account) {
    account.used(ISSUERS.to_owned(), 0, "", 0);
    account.detail(format!("issuer={name}"));
}

/// Set an issuer, whether there is one of its name or not.
pub struct SetIssuer {
    /// The issuer.
    pub issuer: Issuer,
    /// The request's id.
    pub request: Repeatable,
}

impl Operation for SetIssuer {
    const ACTION: Action = Action::Certificate;
    const CHANGES: bool = true;
    const CHANGES_RIGHTS: bool = true;
    type Output = Arc<Issuer>;

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        let first = self.issuer.tenants().first();
        Asks::Of {
            tenant: first.unwrap_or(&caller.tenant).as_str(),
            key: None,
        }
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        let issuer = &self.issuer;
        for tenant in issuer.tenants() {
            account.used(tenant_resource(tenant.as_str()), 0, "", 0);
        }
        let record = issuer.record();
        account.detail(format!(
            "issuer={} url={} ceiling={} cross_tenant={}",
            issuer.name(),
            record.url,
            record.ceiling,
            record.cross_tenant
        ));
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Arc<Issuer>, Failure> {
        let caller = permit.principal();
        self.about(caller, account);
        check_right(permit, &self.issuer)?;
        for tenant in self.issuer.tenants() {
            let keystore = core.vault.manage(permit, tenant.as_str(), None)?;
            keystore.tenant(tenant).await?;
        }
        let before = present(permit, self.issuer.name());
        if let Some(before) = &before {
            // Whoever replaces one takes it away from the tenants that it had.
            check_right(permit, before)?;
        }
        let record = IssuerRecord {
            created: permit.now_s(),
            created_by: caller.resource.as_ref().to_owned(),
            ..self.issuer.record().clone()
        };
        let issuer =
            Issuer::new(self.issuer.name().clone(), record).map_err(AccessError::Issuer)?;
        let key = issuer_key(issuer.name().as_str());
        let checked = before.map(|before| before.generation());
        let make = move |known: Option<&Issuer>| {
            // The right was asked for the one that was there before.
            if known.map(Issuer::generation) == checked {
                return Ok(issuer);
            }
            Err(AccessError::Changed)
        };
        let operation = self.request.begin(permit, key.clone(), account).await?;
        let access = &core.access;
        let changed = access
            .set(key.clone(), make, operation, permit.now_s())
            .await?;
        core.record_change(account, &changed, &key).await?;
        Ok(changed.value)
    }
}

/// Take the tokens of an issuer no longer.
pub struct RemoveIssuer {
    /// Its name.
    pub name: Name,
    /// The request's id.
    pub request: Repeatable,
}

impl Operation for RemoveIssuer {
    const ACTION: Action = Action::Certificate;
    const CHANGES: bool = true;
    const CHANGES_RIGHTS: bool = true;
    type Output = ();

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::Found
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        about(&self.name, account);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<(), Failure> {
        self.about(permit.principal(), account);
        if let Some(issuer) = present(permit, &self.name) {
            check_right(permit, &issuer)?;
        }
        let (access, key) = (&core.access, issuer_key(self.name.as_str()));
        let operation = self.request.begin(permit, key.clone(), account).await?;
        let changed = access
            .unset::<Issuer>(key.clone(), operation, permit.now_s())
            .await?;
        core.record_change(account, &changed, &key).await?;
        Ok(())
    }
}

/// An issuer as a caller may see it.
pub struct Shown {
    /// The issuer.
    pub issuer: Arc<Issuer>,
    /// The tenants for which the caller has the right. The names of others are not for him.
    pub tenants: Vec<Name>,
}

impl Shown {
    /// As whoever has the right for all of its tenants sees it.
    #[must_use]
    pub fn whole(issuer: Arc<Issuer>) -> Shown {
        Shown {
            tenants: issuer.tenants().to_vec(),
            issuer,
        }
    }

    /// As the caller sees it.
    ///
    /// # Errors
    /// The caller has no right for any of its tenants.
    fn to_caller(permit: &Permit<'_>, issuer: &Arc<Issuer>) -> Result<Shown, Failure> {
        let mut tenants = Vec::new();
        let mut refused = not_found(None);
        for tenant in issuer.tenants() {
            match permit.check(tenant.as_str(), None) {
                Ok(()) => tenants.push(tenant.clone()),
                Err(denied) => refused = denied,
            }
        }
        if tenants.is_empty() {
            return Err(refused);
        }
        Ok(Shown {
            issuer: Arc::clone(issuer),
            tenants,
        })
    }
}

/// Show an issuer.
pub struct ShowIssuer {
    /// Its name.
    pub name: Name,
}

impl Operation for ShowIssuer {
    const ACTION: Action = Action::Certificate;
    type Output = Shown;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::Found
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        about(&self.name, account);
    }

    async fn run(
        self,
        _core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Shown, Failure> {
        self.about(permit.principal(), account);
        let issuer = present(permit, &self.name).ok_or_else(|| not_found(None))?;
        // One of other tenants is as if there were none.
        Shown::to_caller(permit, &issuer).map_err(|refused| not_found(refused.refused_by()))
    }
}

/// List the issuers.
pub struct ListIssuers;

impl Operation for ListIssuers {
    const ACTION: Action = Action::Certificate;
    type Output = Vec<Shown>;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::Found
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        account.used(ISSUERS.to_owned(), 0, "", 0);
    }

    async fn run(
        self,
        _core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Vec<Shown>, Failure> {
        self.about(permit.principal(), account);
        let snapshot = permit.snapshot();
        let all = snapshot.settings().issuers();
        Ok(all
            .filter_map(|issuer| Shown::to_caller(permit, issuer).ok())
            .collect())
    }
}

/// Say whom a token would name.
pub struct CheckToken {
    /// The issuer's name.
    pub issuer: Name,
    /// The token.
    pub token: Zeroizing<String>,
}

/// Whom a token would name, or why it is refused.
pub struct CheckedToken {
    /// The caller, or the reason in full; `None`: there was no token.
    pub outcome: Option<Result<Arc<Principal>, TokenError>>,
    /// How many keys of the issuer are known.
    pub keys: usize,
    /// Why the issuer's keys could not be fetched at the last attempt, if that is why and the caller may know.
    pub fetch_problem: Option<Arc<str>>,
}

impl Operation for CheckToken {
    const ACTION: Action = Action::Certificate;
    type Output = CheckedToken;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::Found
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        about(&self.issuer, account);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<CheckedToken, Failure> {
        self.about(permit.principal(), account);
        let issuer = present(permit, &self.issuer).ok_or_else(|| not_found(None))?;
        check_right(permit, &issuer)?;
        let sees_network = permit.check(Scope::ALL, None).is_ok();
        // The keys may have to be fetched, and no change of rights is to wait for that.
        permit.release();
        let now = permit.now_s();
        let checked = core.access.jwt().check(&self.issuer, &self.token, now);
        let Checked {
            outcome,
            keys,
            fetch_problem,
        } = checked.await.ok_or_else(|| not_found(None))?;
        let name = &self.issuer;
        account.detail(match &outcome {
            None => format!("issuer={name} keys={keys}"),
            Some(Ok(principal)) => format!("issuer={name} names={}", principal.resource),
            Some(Err(error)) => format!("issuer={name} refused={}", error.rule()),
        });
        Ok(CheckedToken {
            outcome,
            keys,
            fetch_problem: fetch_problem.filter(|_| sees_network),
        })
    }
}
