//! The grants of one identity or group, found without trying each: by tenant, then by key, then by field.

use std::{collections::HashMap, sync::Arc};

use super::{
    action::ActionSet,
    grant::{Grant, GrantId, Scope},
    pattern::Table,
    principal::Principal,
    snapshot::{Allowed, Asked, Denied, Missing},
};
use crate::access::condition::{Circumstances, Unmet};

/// The most grants of one identity or group for exactly the same tenant, key and field. These are tried one after the other.
pub(super) const MAX_ALIKE: usize = 32;

/// So many grants of one identity or group are tried one after the other, which touches less memory than any table. Most have
/// fewer.
const FEW: usize = 4;

/// Grants for exactly the same tenant, key and field.
type Alike = Vec<(ActionSet, Arc<Grant>)>;

/// The rights to the things of one tenant, or of all: by key, then by field.
type Rights = Table<Table<Alike>>;

/// Everything that is granted to one identity or one group.
#[derive(Debug, Default)]
pub(super) struct Subject {
    /// What some grant allows, for some key and field.
    actions: ActionSet,
    /// Whether values of another tenant are opened.
    data_of_others: bool,
    grants: Vec<Arc<Grant>>,
    /// `None`: there are [`FEW`] at most.
    tables: Option<Tables>,
}

/// The same grants, to be found by what they cover.
#[derive(Debug, Default)]
struct Tables {
    tenants: HashMap<Box<str>, Rights>,
    all: Rights,
}

impl Subject {
    /// The subject with `grants`, all of which are for it.
    pub(super) fn new(grants: Vec<Arc<Grant>>) -> Subject {
        let mut subject = Subject::default();
        for grant in &grants {
            let what = &grant.what;
            subject.actions = subject.actions.with(what.role.actions());
            // Whoever is in a group need not be of its tenant.
            subject.data_of_others |= what.role.is_data() && what.cross_tenant;
        }
        subject.tables = (grants.len() > FEW).then(|| Tables::new(&grants));
        subject.grants = grants;
        subject
    }

    /// The grants.
    pub(super) fn grants(&self) -> &[Arc<Grant>] {
        &self.grants
    }

    /// The same grants with another one.
    pub(super) fn with(&self, grant: Arc<Grant>) -> Subject {
        let mut grants = self.grants.clone();
        grants.push(grant);
        Subject::new(grants)
    }

    /// The same grants without one.
    pub(super) fn without(&self, id: &GrantId) -> Subject {
        let kept = self.grants.iter().filter(|grant| grant.id != *id);
        Subject::new(kept.cloned().collect())
    }

    /// What some grant allows, for some key and field.
    pub(super) fn actions(&self) -> ActionSet {
        self.actions
    }

    /// Whether it opens values of another tenant than its own.
    pub(super) fn opens_data_of_others(&self) -> bool {
        self.data_of_others
    }

    /// Whether some grant is about `key` of `tenant`, whatever the action, the field and the conditions.
    pub(super) fn names_key(&self, tenant: &str, key: &str) -> bool {
        self.grants.iter().any(|grant| {
            opens(grant, tenant) && grant.what.keys.iter().any(|one| one.covers(Some(key)))
        })
    }

    /// Looks for a grant that allows what is asked; notes in `denied` what came closest.
    pub(super) fn find(
        &self,
        principal: &Principal,
        asked: &Asked<'_>,
        denied: &mut Denied,
    ) -> Option<Allowed> {
        if !self.actions.has(asked.action) {
            return None;
        }
        let own = principal.tenant.as_str() == asked.tenant;
        let call = asked.circumstances();
        let mut allows = |grant: &Grant| match counts(grant, principal, own, &call) {
            Ok(()) => Some(Allowed::by(grant.id, asked.action)),
            Err(missing) => {
                denied.note(missing, grant.id);
                None
            }
        };
        match &self.tables {
            None => {
                let covering = self.grants.iter().filter(|grant| covers(grant, asked));
                covering.map(AsRef::as_ref).find_map(allows)
            }
            Some(tables) => {
                let has = |(actions, _): &&(ActionSet, Arc<Grant>)| actions.has(asked.action);
                tables
                    .covering(asked)
                    .filter(has)
                    .find_map(|(_, grant)| allows(grant))
            }
        }
    }
}

impl Tables {
    fn new(grants: &[Arc<Grant>]) -> Tables {
        let mut tables = Tables::default();
        for grant in grants {
            let what = &grant.what;
            let rights = match &what.scope {
                Scope::All => &mut tables.all,
                Scope::Tenant(tenant) => tables.tenants.entry(tenant.as_str().into()).or_default(),
            };
            for key in &what.keys {
                let fields = rights.entry(key);
                for field in &what.fields {
                    let entry = (what.role.actions(), Arc::clone(grant));
                    fields.entry(field).push(entry);
                }
            }
        }
        tables
    }

    /// The grants that cover what is asked, whatever their actions.
    fn covering<'a>(
        &'a self,
        asked: &Asked<'a>,
    ) -> impl Iterator<Item = &'a (ActionSet, Arc<Grant>)> {
        let (key, field) = (asked.key, asked.field);
        let scopes = [self.tenants.get(asked.tenant), Some(&self.all)];
        scopes
            .into_iter()
            .flatten()
            .flat_map(move |rights| rights.covering(key))
            .flat_map(move |fields| fields.covering(field))
            .flatten()
    }
}

fn opens(grant: &Grant, tenant: &str) -> bool {
    match &grant.what.scope {
        Scope::All => true,
        Scope::Tenant(opened) => opened.as_str() == tenant,
    }
}

/// Whether a grant covers what is asked.
fn covers(grant: &Grant, asked: &Asked<'_>) -> bool {
    let what = &grant.what;
    opens(grant, asked.tenant)
        && what.role.actions().has(asked.action)
        && what.keys.iter().any(|key| key.covers(asked.key))
        && what.fields.iter().any(|field| field.covers(asked.field))
}

/// Whether a grant that covers what is asked counts now. `own`: it is asked for the caller's own tenant.
fn counts(
    grant: &Grant,
    principal: &Principal,
    own: bool,
    call: &Circumstances<'_>,
) -> Result<(), Missing> {
    let reaches = own || (grant.what.cross_tenant && principal.ceiling.cross_tenant);
    if !reaches {
        return Err(Missing::Tenant);
    }
    has_not_ended(grant, call.now)?;
    let conditions = &grant.what.conditions;
    conditions
        .check(principal, call)
        .map_err(Missing::Condition)
}

/// Whether a grant that counted for `principal` before counts now; the encryption context is not looked at again.
pub(super) fn counts_again(
    grant: &Grant,
    principal: &Principal,
    call: &Circumstances<'_>,
) -> Result<(), Missing> {
    has_not_ended(grant, call.now)?;
    let conditions = &grant.what.conditions;
    conditions
        .check_but_context(principal, call)
        .map_err(Missing::Condition)
}

fn has_not_ended(grant: &Grant, now: i64) -> Result<(), Missing> {
    let ended = grant
        .what
        .expires
        .is_some_and(|end| i64::try_from(end).is_ok_and(|end| now >= end));
    if ended { Err(Missing::Ended) } else { Ok(()) }
}

impl Denied {
    /// Keeps what came closest: a context that may still be another one first, since a batch asks again for each item.
    fn note(&mut self, missing: Missing, grant: GrantId) {
        if weight(missing) > weight(self.missing) {
            *self = Denied {
                missing,
                grant: Some(grant),
            };
        }
    }
}

fn weight(missing: Missing) -> u8 {
    match missing {
        Missing::Grant | Missing::Credential | Missing::Proof | Missing::Ceiling => 0,
        Missing::Tenant => 1,
        Missing::Ended => 2,
        Missing::Condition(Unmet::Time | Unmet::Network | Unmet::Method | Unmet::SecondFactor) => 3,
        Missing::Condition(Unmet::Context) => 4,
    }
}
