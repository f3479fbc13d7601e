//! The grants of one identity or group, found without trying each: by tenant, then by key, then by field.

use std::{collections::HashMap, sync::Arc};

use fieldkeep_crypto::context::EncodedContext;
use smallvec::SmallVec;

use super::{
    action::ActionSet,
    condition::{Circumstances, Unmet},
    grant::{Grant, GrantId, Scope},
    pattern::{self, Pattern, Table},
    principal::Principal,
    snapshot::{Allowed, Asked, Denied, Missing},
};

/// The most grants of one identity or group for exactly the same tenant, key and field. These are tried one after the other.
pub(super) const MAX_ALIKE: usize = 32;

/// So many grants of one identity or group are tried one after the other, which touches less memory than any table. Most have
/// fewer.
const FEW: usize = 4;

/// Grants for exactly the same tenant, key and field; mostly one.
type Alike = SmallVec<[Right; 1]>;

/// The rights to the things of one tenant, or of all: by key, then by field.
type Rights = Table<Table<Alike>>;

/// Everything that is granted to one identity or one group.
#[derive(Debug, Default)]
pub(super) struct Subject {
    /// What some grant allows, for some key and field.
    actions: ActionSet,
    /// Whether values of another tenant are opened.
    data_of_others: bool,
    /// The grants, if there are [`FEW`] at most.
    few: SmallVec<[Covering; 1]>,
    /// The grants by what they cover, if there are more.
    tables: Option<Box<Tables>>,
    grants: Vec<Arc<Grant>>,
}

/// A grant as a decision needs it. What a decision costs is its trips to memory, so all that most of them look at is here,
/// and only what few grants have is left to the grant.
#[derive(Clone, Debug)]
struct Right {
    id: GrantId,
    actions: ActionSet,
    cross_tenant: bool,
    when: When,
    grant: Arc<Grant>,
}

/// When a grant counts.
#[derive(Clone, Debug)]
enum When {
    Always,
    /// With all of these pairs in the encryption context, which are shared by all places of the grant.
    Context(Arc<EncodedContext>),
    /// The grant says it: it ends, or has other conditions.
    Asks,
}

/// A grant, with what it covers in one piece: the scope, the keys and the fields with a zero byte between them, and a line
/// for each key and each field.
#[derive(Debug)]
struct Covering {
    covers: Box<[u8]>,
    right: Right,
}

/// Grants to be found by what they cover.
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
        if grants.len() > FEW {
            subject.tables = Some(Box::new(Tables::new(&grants)));
        } else {
            subject.few = grants.iter().map(Covering::of).collect();
        }
        subject.grants = grants;
        subject
    }

    /// The grants.
    pub(super) fn grants(&self) -> &[Arc<Grant>] {
        &self.grants
    }

    /// The same grants with another one, or with the one of its id replaced.
    pub(super) fn with(&self, grant: Arc<Grant>) -> Subject {
        let others = self.grants.iter().filter(|other| other.id != grant.id);
        let mut grants: Vec<_> = others.cloned().collect();
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
        let has = |right: &&Right| right.actions.has(asked.action);
        let allows = |right: &Right| match right.counts(principal, own, &call) {
            Ok(()) => Some(Allowed::by(right.id, asked.action)),
            Err(missing) => {
                denied.note(missing, right.id);
                None
            }
        };
        match &self.tables {
            None => {
                let few = self.few.iter();
                let covering = few.filter(|grant| has(&&grant.right) && grant.covers(asked));
                covering.map(|grant| &grant.right).find_map(allows)
            }
            Some(tables) => tables.covering(asked).filter(has).find_map(allows),
        }
    }
}

impl Right {
    fn of(grant: &Arc<Grant>) -> Right {
        let what = &grant.what;
        Right {
            id: grant.id,
            actions: what.role.actions(),
            cross_tenant: what.cross_tenant,
            when: When::of(grant),
            grant: Arc::clone(grant),
        }
    }

    /// Whether the grant, which covers what is asked, counts now. `own`: it is asked for the caller's own tenant.
    fn counts(
        &self,
        principal: &Principal,
        own: bool,
        call: &Circumstances<'_>,
    ) -> Result<(), Missing> {
        let reaches = own || (self.cross_tenant && principal.ceiling.cross_tenant);
        if !reaches {
            return Err(Missing::Tenant);
        }
        match &self.when {
            When::Always => Ok(()),
            When::Context(pairs) if call.context.is_some_and(|context| context.has_all(pairs)) => {
                Ok(())
            }
            When::Context(_) => Err(Missing::Condition(Unmet::Context)),
            When::Asks => {
                has_not_ended(&self.grant, call.now)?;
                let conditions = &self.grant.what.conditions;
                let checked = conditions.check(principal, call);
                checked.map_err(Missing::Condition)
            }
        }
    }
}

impl When {
    fn of(grant: &Grant) -> When {
        let what = &grant.what;
        if what.is_lasting() {
            return When::Always;
        }
        let context = what.conditions.context.iter();
        let pairs = context.map(|(name, value)| (&**name, &**value));
        let alone = what.expires.is_none() && what.conditions.is_of_context_alone();
        match EncodedContext::encode(pairs) {
            Ok(pairs) if alone => When::Context(Arc::new(pairs)),
            _ => When::Asks,
        }
    }
}

impl Covering {
    fn of(grant: &Arc<Grant>) -> Covering {
        let what = &grant.what;
        let lines = |patterns: &[Pattern]| {
            let texts: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
            texts.join("\n")
        };
        let parts = [
            what.scope.as_str(),
            &lines(&what.keys),
            &lines(&what.fields),
        ];
        Covering {
            covers: parts.join("\0").into_bytes().into(),
            right: Right::of(grant),
        }
    }

    /// Whether it covers the tenant, the key and the field.
    fn covers(&self, asked: &Asked<'_>) -> bool {
        let mut parts = self.covers.split(|byte| *byte == 0);
        let mut part = || parts.next().unwrap_or_default();
        let any = |lines: &[u8], name: Option<&str>| {
            let mut lines = lines.split(|byte| *byte == b'\n');
            lines.any(|line| pattern::covers(line, name.map(str::as_bytes)))
        };
        let scope = part();
        (scope == Scope::ALL.as_bytes() || scope == asked.tenant.as_bytes())
            && any(part(), asked.key)
            && any(part(), asked.field)
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
            let right = Right::of(grant);
            for key in &what.keys {
                let fields = rights.entry(key);
                for field in &what.fields {
                    fields.entry(field).push(right.clone());
                }
            }
        }
        tables
    }

    /// The grants that cover what is asked, whatever their actions.
    fn covering<'a>(&'a self, asked: &Asked<'a>) -> impl Iterator<Item = &'a Right> {
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
