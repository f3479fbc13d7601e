//! Who may do what, and why: decisions that are explained without being carried out.

use std::net::IpAddr;
use std::sync::Arc;

use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_crypto::names::Name;

use crate::access::action::Action;
use crate::access::advice;
use crate::access::grant::{Grant, GrantId, Scope, Who};
use crate::access::principal::{Identity, Method, Principal};
use crate::access::snapshot::{AccessSnapshot, Allowed, Asked};
use crate::service::Core;
use crate::service::access::{LocalName, after_grant};
use crate::service::failure::Failure;
use crate::service::keys::{Listed, Page};
use crate::service::masking::{RULE_MASKED, Sight, no_mask};
use crate::service::perform::Operation;
use crate::service::perform::permit::{Asks, Permit};
use crate::service::record::Account;
use crate::service::resource::{FieldName, KeyName};

/// The most identities that are named of one group, so that a page of groups stays a message of bounded length.
const MAX_IDENTITIES: usize = 100;

/// What a question is about.
pub struct Subject {
    /// What would be done.
    pub action: Action,
    /// Under which key.
    pub key: Option<KeyName>,
    /// To which field.
    pub field: Option<FieldName>,
    /// Of whose things, if no key says it.
    pub scope: Option<Scope>,
}

impl Subject {
    /// Whose things it is about: the key's, what the question names, or those of `otherwise`.
    fn tenant<'a>(&'a self, caller: &'a Principal, otherwise: &'a Name) -> &'a str {
        match (&self.key, &self.scope) {
            (Some(key), _) => key.tenant(caller),
            (None, Some(scope)) => scope.as_str(),
            (None, None) => otherwise.as_str(),
        }
    }

    fn about(&self, account: &mut Account) {
        let key = self.key.as_ref().map_or("*", KeyName::key);
        let field = self.field.as_ref().map_or("*", FieldName::as_str);
        account.detail(format!("action={} key={key} field={field}", self.action));
    }
}

/// Explain a decision.
pub struct Explain {
    /// Who would call.
    pub identity: LocalName,
    /// What it is about.
    pub subject: Subject,
    /// The encryption context.
    pub context: EncodedContext,
    /// From where; without, from where the question comes.
    pub network: Option<IpAddr>,
    /// How it would be authenticated.
    pub method: Method,
    /// Whether with a second factor.
    pub second_factor: bool,
}

/// A decision that was explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The grant that allows it, or that would if something were not missing.
    pub grant: Option<GrantId>,
    /// Whether the value would leave masked alone.
    pub masked: bool,
    /// Why it is refused; `None`: it is allowed.
    pub refused: Option<Why>,
}

/// Why something is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The rule, as the audit trail names it.
    pub rule: &'static str,
    /// In words.
    pub message: String,
    /// The command that would grant it.
    pub command: Option<String>,
}

impl Operation for Explain {
    const ACTION: Action = Action::Describe;
    type Output = Explained;

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        Asks::Of {
            tenant: self.subject.tenant(caller, self.identity.tenant(caller)),
            key: None,
        }
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        account.used(self.identity.identity(caller).to_string(), 0, "", 0);
        self.subject.about(account);
    }

    async fn run(
        self,
        _core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Explained, Failure> {
        let caller = permit.principal();
        self.about(caller, account);
        let principal = Principal {
            method: self.method,
            second_factor: self.second_factor,
            ..Principal::new(&self.identity.identity(caller), i64::MAX)
        };
        let asked = Asked {
            action: self.subject.action,
            tenant: self.subject.tenant(caller, &principal.tenant),
            key: self.subject.key.as_ref().map(KeyName::key),
            field: self.subject.field.as_ref().map(FieldName::as_str),
            context: Some(&self.context),
            network: self.network.unwrap_or(permit.network()),
            now: i64::try_from(permit.now_s()).unwrap_or(i64::MAX),
        };
        Ok(explain(&permit.snapshot(), &principal, &asked))
    }
}

/// As a call would be decided: who may not decrypt may perhaps decrypt masked.
fn explain(snapshot: &AccessSnapshot, principal: &Principal, asked: &Asked<'_>) -> Explained {
    let masked = Asked {
        action: Action::DecryptMasked,
        ..*asked
    };
    let found = snapshot.authorize(principal, asked);
    let found = match found {
        Err(denied) if asked.action == Action::Decrypt => {
            snapshot.authorize(principal, &masked).map_err(|_| denied)
        }
        found => found,
    };
    match found {
        Ok(allowed) => Explained {
            grant: Some(allowed.grant),
            masked: allowed.masked,
            refused: without_mask(allowed, snapshot, asked),
        },
        Err(denied) => Explained {
            grant: denied.grant,
            masked: false,
            refused: Some(Why {
                rule: denied.rule(principal.method),
                message: advice::message(principal, asked, &denied),
                command: advice::command(&Who::Identity(principal.identity()), asked),
            }),
        },
    }
}

/// Why a value that may leave masked alone does not: its field has no mask. Of all fields together nothing is known.
fn without_mask(allowed: Allowed, snapshot: &AccessSnapshot, asked: &Asked<'_>) -> Option<Why> {
    let hidden = Sight::of(allowed, snapshot, asked) == Sight::Hidden;
    let field = asked.field.filter(|_| hidden)?;
    Some(Why {
        rule: RULE_MASKED,
        message: no_mask(asked.tenant, asked.key, field),
        command: None,
    })
}

/// List who may do something.
pub struct WhoCan {
    /// What.
    pub subject: Subject,
    /// Which page: grants after the one with this name.
    pub page: Page,
}

/// A grant and who has it.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The grant.
    pub grant: Arc<Grant>,
    /// The resource names of the identities that it counts for, as far as the store knows; the first of them.
    pub identities: Vec<Arc<str>>,
    /// Whether there are more.
    pub more: bool,
}

impl Operation for WhoCan {
    const ACTION: Action = Action::Describe;
    type Output = Listed<Holder>;

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        Asks::Of {
            tenant: self.subject.tenant(caller, &caller.tenant),
            key: None,
        }
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        self.subject.about(account);
    }

    async fn run(
        self,
        _core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Listed<Holder>, Failure> {
        let caller = permit.principal();
        self.about(caller, account);
        let after = after_grant(&self.page)?;
        let tenant = self.subject.tenant(caller, &caller.tenant);
        let now = permit.now_s();
        let snapshot = permit.snapshot();
        let holders = snapshot
            .grants(after.as_ref())
            .filter(|grant| self.subject.is_covered(grant, tenant, now))
            .take(self.page.limit)
            .map(|grant| holder(&snapshot, grant, tenant))
            .collect();
        Ok(Listed::new(holders, &self.page, |holder| {
            holder.grant.id.to_string()
        }))
    }
}

impl Subject {
    /// Whether `grant` allows it, if its conditions hold. What is not named is any.
    fn is_covered(&self, grant: &Grant, tenant: &str, now: u64) -> bool {
        let what = &grant.what;
        let opens = match &what.scope {
            Scope::All => true,
            Scope::Tenant(opened) => opened.as_str() == tenant,
        };
        let key = self.key.as_ref().map(KeyName::key);
        let field = self.field.as_ref().map(FieldName::as_str);
        let any = |patterns: &[crate::access::pattern::Pattern], name: Option<&str>| {
            name.is_none() || patterns.iter().any(|pattern| pattern.covers(name))
        };
        opens
            && what.role.actions().has(self.action)
            && what.expires.is_none_or(|end| now < end)
            && any(&what.keys, key)
            && any(&what.fields, field)
    }
}

/// Who has `grant`, and may use it for what `tenant` has: whoever is of another tenant only if the grant says so.
fn holder(snapshot: &AccessSnapshot, grant: &Arc<Grant>, tenant: &str) -> Holder {
    let what = &grant.what;
    let counts = |one: &Identity| what.cross_tenant || one.tenant().as_str() == tenant;
    let mut identities: Vec<Arc<str>> = match &what.who {
        Who::Identity(identity) => vec![Arc::clone(identity.resource())],
        Who::Group(group) => snapshot
            .members(group.resource())
            .filter(|membership| counts(&membership.member))
            .take(MAX_IDENTITIES + 1)
            .map(|membership| Arc::clone(membership.member.resource()))
            .collect(),
    };
    let more = identities.len() > MAX_IDENTITIES;
    identities.truncate(MAX_IDENTITIES);
    Holder {
        grant: Arc::clone(grant),
        identities,
        more,
    }
}
