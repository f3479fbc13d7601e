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
    tenants: HashMap<Box<str>, Rights>,
    all: Rights,
    grants: Vec<Arc<Grant>>,
}

impl Subject {
    /// The subject with `grants`, all of which are for it.
    pub(super) fn new(grants: Vec<Arc<Grant>>) -> Subject {
        let mut subject = Subject::default();
        for grant in &grants {
            subject.insert(grant);
        }
        subject.grants = grants;
        subject
    }

    fn insert(&mut self, grant: &Arc<Grant>) {
        let what = &grant.what;
        let actions = what.role.actions();
        self.actions = self.actions.with(actions);
        let rights = match &what.scope {
            Scope::All => &mut self.all,
            Scope::Tenant(tenant) => {
                self.data_of_others |= what.role.is_data() && tenant != what.who.tenant();
                self.tenants.entry(tenant.as_str().into()).or_default()
            }
        };
        for key in &what.keys {
            let fields = rights.entry(key);
            for field in &what.fields {
                fields.entry(field).push((actions, Arc::clone(grant)));
            }
        }
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
        let scopes = [self.tenants.get(asked.tenant), Some(&self.all)];
        for rights in scopes.into_iter().flatten() {
            for fields in rights.covering(asked.key) {
                for alike in fields.covering(asked.field) {
                    for (actions, grant) in alike {
                        if !actions.has(asked.action) {
                            continue;
                        }
                        match counts(grant, principal, own, &call) {
                            Ok(()) => return Some(Allowed::by(grant.id, asked.action)),
                            Err(missing) => denied.note(missing, grant.id),
                        }
                    }
                }
            }
        }
        None
    }
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
        Missing::Grant | Missing::Credential | Missing::Ceiling => 0,
        Missing::Tenant => 1,
        Missing::Ended => 2,
        Missing::Condition(Unmet::Time | Unmet::Network | Unmet::Method | Unmet::SecondFactor) => 3,
        Missing::Condition(Unmet::Context) => 4,
    }
}
