//! The decision: which grant allows a call, or what is missing.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    ops::Bound,
    sync::Arc,
};

use fieldkeep_crypto::context::EncodedContext;
use tokio::sync::watch;

use super::{
    action::{Action, ActionSet},
    condition::{Circumstances, Unmet},
    grant::{Grant, GrantId, Scope, Wanted, Who},
    group::{Group, Membership},
    index::{MAX_ALIKE, Subject, counts_again},
    principal::{Method, Principal},
    settings::Settings,
};

/// What a call asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The right that it needs.
    pub action: Action,
    /// Whose things; `*` for what belongs to all tenants.
    pub tenant: &'a str,
    /// Which key; `None`: all of the tenant's, or none.
    pub key: Option<&'a str>,
    /// Which field; `None`: all, or none.
    pub field: Option<&'a str>,
    /// The encryption context; `None`: there is none, or it is not known yet.
    pub context: Option<&'a EncodedContext>,
    /// The caller's address.
    pub network: IpAddr,
    /// The present time, Unix seconds.
    pub now: i64,
}

impl<'a> Asked<'a> {
    pub(super) fn circumstances(&self) -> Circumstances<'a> {
        Circumstances {
            context: self.context,
            network: self.network,
            now: self.now,
        }
    }
}

/// The right to do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The grant that decided.
    pub grant: GrantId,
    /// Whether values may leave through their mask alone.
    pub masked: bool,
}

impl Allowed {
    pub(super) fn by(grant: GrantId, action: Action) -> Allowed {
        Allowed {
            grant,
            masked: action == Action::DecryptMasked,
        }
    }
}

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// What is missing; of several things, the one that came closest.
    pub missing: Missing,
    /// The grant that would allow it if that were not missing.
    pub grant: Option<GrantId>,
}

/// What a call lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The credential has ended.
    Credential,
    /// What proved the credential is there no longer.
    Proof,
    /// The credential's issuer is not trusted with the action.
    Ceiling,
    /// No grant covers it.
    Grant,
    /// No grant opens that tenant, which is not the caller's own.
    Tenant,
    /// The grant has ended.
    Ended,
    /// A condition of the grant does not hold.
    Condition(Unmet),
}

impl Denied {
    pub(super) const fn of(missing: Missing) -> Denied {
        Denied {
            missing,
            grant: None,
        }
    }

    /// As the audit trail writes the rule that refused.
    #[must_use]
    pub fn rule(&self, method: Method) -> &'static str {
        match self.missing {
            Missing::Credential => match method {
                Method::Mtls => "certificate-expired",
                Method::Jwt => "token-expired",
                Method::ApiKey => "api-key-expired",
            },
            Missing::Proof => match method {
                Method::Mtls => "certificate-revoked",
                Method::Jwt => "issuer-changed",
                Method::ApiKey => "api-key-revoked",
            },
            Missing::Ceiling => "ceiling",
            Missing::Grant => "no-grant",
            Missing::Tenant => "foreign-tenant",
            Missing::Ended => "grant-ended",
            Missing::Condition(Unmet::Context) => "condition-context",
            Missing::Condition(Unmet::Time) => "condition-time",
            Missing::Condition(Unmet::Network) => "condition-network",
            Missing::Condition(Unmet::Method) => "condition-method",
            Missing::Condition(Unmet::SecondFactor) => "condition-second-factor",
        }
    }
}

/// All grants and groups at one moment.
#[derive(Debug)]
pub struct AccessSnapshot {
    generation: u64,
    grants: BTreeMap<GrantId, Arc<Grant>>,
    /// What is granted, by the resource name of the identity or group.
    subjects: HashMap<Arc<str>, Arc<Subject>>,
    memberships: BTreeMap<(Arc<str>, Arc<str>), Arc<Membership>>,
    /// The groups of each identity, by its resource name.
    groups: HashMap<Arc<str>, Arc<[InGroup]>>,
    settings: Arc<Settings>,
    /// Closed when the last holder of this snapshot has dropped it.
    held: watch::Sender<()>,
}

/// A group that an identity is in.
#[derive(Clone, Debug)]
struct InGroup {
    /// Its resource name.
    group: Arc<str>,
    /// What is granted to it, which `AccessSnapshot::subjects` has as well; here a decision needs not look for it.
    subject: Option<Arc<Subject>>,
}

/// One difference between two snapshots.
#[derive(Clone, Debug)]
pub(super) enum Difference {
    Granted(Arc<Grant>),
    Revoked(GrantId),
    Joined(Arc<Membership>),
    Left(Arc<str>, Arc<str>),
    Settings(Arc<Settings>),
    /// Something else that calls look at has changed.
    Nothing,
}

impl AccessSnapshot {
    /// All of `grants`, `memberships` and `settings`, as they are at a start.
    pub fn new(
        grants: impl IntoIterator<Item = Grant>,
        memberships: impl IntoIterator<Item = Membership>,
        settings: Settings,
    ) -> AccessSnapshot {
        let grants: BTreeMap<GrantId, Arc<Grant>> = grants
            .into_iter()
            .map(|grant| (grant.id, Arc::new(grant)))
            .collect();
        let mut by_subject: HashMap<Arc<str>, Vec<Arc<Grant>>> = HashMap::new();
        for grant in grants.values() {
            let subject = Arc::clone(grant.what.who.resource());
            by_subject
                .entry(subject)
                .or_default()
                .push(Arc::clone(grant));
        }
        let subject = |(resource, grants)| (resource, Arc::new(Subject::new(grants)));
        let subjects: HashMap<_, _> = by_subject.into_iter().map(subject).collect();
        let mut by_member: HashMap<Arc<str>, Vec<InGroup>> = HashMap::new();
        let mut all = BTreeMap::new();
        for membership in memberships {
            let group = Arc::clone(membership.group.resource());
            let member = Arc::clone(membership.member.resource());
            let groups = by_member.entry(Arc::clone(&member)).or_default();
            groups.push(InGroup {
                subject: subjects.get(&group).cloned(),
                group: Arc::clone(&group),
            });
            all.insert((group, member), Arc::new(membership));
        }
        let groups = |(member, groups): (_, Vec<_>)| (member, groups.into());
        AccessSnapshot {
            generation: 0,
            grants,
            subjects,
            memberships: all,
            groups: by_member.into_iter().map(groups).collect(),
            settings: Arc::new(settings),
            held: watch::Sender::new(()),
        }
    }

    /// Decides whether `principal` may do what is asked.
    ///
    /// It looks up the caller and each of his groups, and there what stands at the tenant, the key and the field; it takes no
    /// memory, and its cost does not grow with the number of grants.
    ///
    /// # Errors
    /// [`Denied`] with what is missing.
    pub fn authorize(&self, principal: &Principal, asked: &Asked<'_>) -> Result<Allowed, Denied> {
        self.check_credential(principal, asked.now)?;
        if !principal.ceiling.actions.has(asked.action) {
            return Err(Denied::of(Missing::Ceiling));
        }
        let foreign = asked.tenant != principal.tenant.as_str() && asked.tenant != Scope::ALL;
        let mut denied = Denied::of(if foreign {
            Missing::Tenant
        } else {
            Missing::Grant
        });
        self.subjects_of(principal)
            .find_map(|subject| subject.find(principal, asked, &mut denied))
            .ok_or(denied)
    }

    /// Whether `principal` may do one of `actions` to anything at all: what a call can be refused by before its message is
    /// read. `now` is in Unix seconds.
    ///
    /// # Errors
    /// [`Denied`] with what is missing.
    pub fn may_ever(
        &self,
        principal: &Principal,
        actions: ActionSet,
        now: i64,
    ) -> Result<(), Denied> {
        self.check_credential(principal, now)?;
        if !principal.ceiling.actions.has_any(actions) {
            return Err(Denied::of(Missing::Ceiling));
        }
        if self
            .subjects_of(principal)
            .any(|subject| subject.actions().has_any(actions))
        {
            Ok(())
        } else {
            Err(Denied::of(Missing::Grant))
        }
    }

    /// Whether the grant `id`, which allowed something to `principal` before, still does. The encryption context, which was
    /// looked at then, is not looked at again.
    ///
    /// # Errors
    /// [`Denied`] with what is missing now.
    pub fn still_counts(
        &self,
        principal: &Principal,
        id: &GrantId,
        network: IpAddr,
        now: i64,
    ) -> Result<(), Denied> {
        self.check_credential(principal, now)?;
        let Some(grant) = self.grants.get(id) else {
            return Err(Denied::of(Missing::Grant));
        };
        let who = grant.what.who.resource();
        if *who != principal.resource && !self.groups_of(principal).any(|group| group == who) {
            return Err(Denied::of(Missing::Grant));
        }
        let call = Circumstances {
            context: None,
            network,
            now,
        };
        counts_again(grant, principal, &call).map_err(|missing| Denied {
            missing,
            grant: Some(*id),
        })
    }

    /// Whether the credential of `principal` counts at `now`, Unix seconds. A certificate is good to the end of the second that it
    /// names (RFC 5280, section 4.1.2.5).
    ///
    /// # Errors
    /// [`Denied`] if it has ended, or what proves it is there no longer.
    pub fn check_credential(&self, principal: &Principal, now: i64) -> Result<(), Denied> {
        if now > principal.not_after {
            return Err(Denied::of(Missing::Credential));
        }
        if !self.settings.proves(&principal.proof, now) {
            return Err(Denied::of(Missing::Proof));
        }
        Ok(())
    }

    /// The groups of `principal`: those of the store, and those that his credential vouches for.
    pub fn groups_of<'a>(&'a self, principal: &'a Principal) -> impl Iterator<Item = &'a Arc<str>> {
        let stored = self.stored_groups(&principal.resource).iter();
        stored
            .map(|stored| &stored.group)
            .chain(principal.groups.iter())
    }

    /// The groups of the store that the identity with this resource name is in.
    fn stored_groups(&self, identity: &str) -> &[InGroup] {
        self.groups.get(identity).map_or(&[], |groups| groups)
    }

    fn subjects_of<'a>(&'a self, principal: &'a Principal) -> impl Iterator<Item = &'a Subject> {
        let stored = || self.stored_groups(&principal.resource).iter();
        let through_stored = std::iter::once_with(stored)
            .flatten()
            .filter_map(|stored| stored.subject.as_ref());
        let through_credential = principal.groups.iter();
        self.subjects
            .get(&principal.resource)
            .into_iter()
            .chain(through_stored)
            .chain(through_credential.filter_map(|group| self.subjects.get(group)))
            .map(AsRef::as_ref)
    }

    /// Whether some grant is about `key` of the tenant of `principal`, so that he may know that there is one of this name.
    pub fn names_key(&self, principal: &Principal, key: &str) -> bool {
        let tenant = principal.tenant.as_str();
        self.subjects_of(principal)
            .any(|subject| subject.names_key(tenant, key))
    }

    /// Whether some grant opens to `principal` values of another tenant.
    pub fn opens_data_of_others(&self, principal: &Principal) -> bool {
        principal.ceiling.cross_tenant
            && self
                .subjects_of(principal)
                .any(Subject::opens_data_of_others)
    }

    /// What is set beside the grants.
    #[must_use]
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// How often this process changed its rights before.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A grant.
    #[must_use]
    pub fn grant(&self, id: &GrantId) -> Option<&Arc<Grant>> {
        self.grants.get(id)
    }

    /// The grants after `after`, in the order of their ids.
    pub fn grants(&self, after: Option<&GrantId>) -> impl Iterator<Item = &Arc<Grant>> {
        let begin = after.map_or(Bound::Unbounded, |id| Bound::Excluded(*id));
        self.grants
            .range((begin, Bound::Unbounded))
            .map(|(_, grant)| grant)
    }

    /// What is granted to the identity or group with this resource name itself.
    #[must_use]
    pub fn grants_of(&self, resource: &str) -> &[Arc<Grant>] {
        self.subjects
            .get(resource)
            .map_or(&[], |subject| subject.grants())
    }

    /// What the identity with this resource name has, itself and through the groups of the store.
    pub fn reached_by<'a>(&'a self, identity: &str) -> impl Iterator<Item = &'a Arc<Grant>> {
        let subjects = self.stored_groups(identity).iter();
        let subjects = subjects.filter_map(|stored| stored.subject.as_ref());
        let through = subjects.flat_map(|subject| subject.grants());
        self.grants_of(identity).iter().chain(through)
    }

    /// The membership of `member` in `group`, both resource names.
    #[must_use]
    pub fn membership(&self, group: &Group, member: &Arc<str>) -> Option<&Arc<Membership>> {
        let key = (Arc::clone(group.resource()), Arc::clone(member));
        self.memberships.get(&key)
    }

    /// The memberships after the one of (group, member), both resource names, in their order.
    pub fn memberships(
        &self,
        after: Option<(Arc<str>, Arc<str>)>,
    ) -> impl Iterator<Item = &Arc<Membership>> {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.memberships
            .range((begin, Bound::Unbounded))
            .map(|(_, membership)| membership)
    }

    /// The members of the group with this resource name, in order.
    pub fn members(&self, group: &Arc<str>) -> impl Iterator<Item = &Arc<Membership>> {
        let begin = (Arc::clone(group), Arc::from(""));
        let of_group = Arc::clone(group);
        self.memberships
            .range(begin..)
            .take_while(move |((group, _), _)| *group == of_group)
            .map(|(_, membership)| membership)
    }

    /// How many grants there are.
    #[must_use]
    pub fn grant_count(&self) -> usize {
        self.grants.len()
    }

    /// How many memberships there are.
    #[must_use]
    pub fn membership_count(&self) -> usize {
        self.memberships.len()
    }

    /// How many groups of the tenant of `group` the identity with this resource name is in. Those of others do not count: no
    /// tenant can use up the places that another needs.
    #[must_use]
    pub fn group_count_beside(&self, group: &Group, member: &str) -> usize {
        let of_tenant = |stored: &&InGroup| group.is_beside(&stored.group);
        self.stored_groups(member).iter().filter(of_tenant).count()
    }

    /// Whether there are as many grants as there may be for the same identity or group, tenant, key and field.
    pub(super) fn is_crowded(&self, wanted: &Wanted) -> bool {
        let Some(subject) = self.subjects.get(wanted.who.resource()) else {
            return false;
        };
        let same_scope = |grant: &&Arc<Grant>| grant.what.scope == wanted.scope;
        wanted.keys.iter().any(|key| {
            let same_key = |grant: &&Arc<Grant>| grant.what.keys.contains(key);
            wanted.fields.iter().any(|field| {
                let alike = subject.grants().iter().filter(same_scope).filter(same_key);
                alike
                    .filter(|grant| grant.what.fields.contains(field))
                    .count()
                    >= MAX_ALIKE
            })
        })
    }

    /// Whether somebody could grant rights to everything if all of `without` were not there.
    pub(super) fn has_grantor_without(&self, without: &Difference) -> bool {
        self.grants.values().any(|grant| {
            let kept = !matches!(without, Difference::Revoked(id) if *id == grant.id);
            kept && grant.what.is_grantor() && self.has_somebody(&grant.what.who, without)
        })
    }

    fn has_somebody(&self, who: &Who, without: &Difference) -> bool {
        match who {
            Who::Identity(_) => true,
            Who::Group(group) => self.members(group.resource()).any(|membership| {
                !matches!(without, Difference::Left(group, member)
                    if group == membership.group.resource() && member == membership.member.resource())
            }),
        }
    }

    /// The next snapshot.
    pub(super) fn with(&self, difference: Difference) -> AccessSnapshot {
        let mut next = AccessSnapshot {
            generation: self.generation + 1,
            grants: self.grants.clone(),
            subjects: self.subjects.clone(),
            memberships: self.memberships.clone(),
            groups: self.groups.clone(),
            settings: Arc::clone(&self.settings),
            held: watch::Sender::new(()),
        };
        match difference {
            Difference::Granted(grant) => {
                let resource = Arc::clone(grant.what.who.resource());
                let subject = match next.subjects.get(&resource) {
                    Some(subject) => subject.with(Arc::clone(&grant)),
                    None => Subject::new(vec![Arc::clone(&grant)]),
                };
                next.set_subject(&resource, Some(Arc::new(subject)));
                next.grants.insert(grant.id, grant);
            }
            Difference::Revoked(id) => {
                if let Some(grant) = next.grants.remove(&id) {
                    let resource = grant.what.who.resource();
                    let left = next.subjects.get(resource).map(|left| left.without(&id));
                    let left = left.filter(|left| !left.grants().is_empty());
                    next.set_subject(resource, left.map(Arc::new));
                }
            }
            Difference::Joined(membership) => {
                let group = Arc::clone(membership.group.resource());
                let member = Arc::clone(membership.member.resource());
                next.memberships
                    .insert((group, Arc::clone(&member)), membership);
                next.regroup(member);
            }
            Difference::Left(group, member) => {
                next.memberships.remove(&(group, Arc::clone(&member)));
                next.regroup(member);
            }
            Difference::Settings(settings) => next.settings = settings,
            Difference::Nothing => {}
        }
        next
    }

    /// Sets what is granted to the identity or group with this resource name, here and at the members of the group.
    fn set_subject(&mut self, resource: &Arc<str>, subject: Option<Arc<Subject>>) {
        let begin = (Arc::clone(resource), Arc::from(""));
        let memberships = self.memberships.range(begin..);
        for (_, member) in memberships
            .map(|(both, _)| both)
            .take_while(|(group, _)| group == resource)
        {
            let groups = self.groups.get_mut(member).map(Arc::make_mut);
            let own = groups.into_iter().flatten();
            for place in own.filter(|place| place.group == *resource) {
                place.subject.clone_from(&subject);
            }
        }
        match subject {
            Some(subject) => self.subjects.insert(Arc::clone(resource), subject),
            None => self.subjects.remove(resource),
        };
    }

    /// Makes the groups of `member` anew from the memberships.
    fn regroup(&mut self, member: Arc<str>) {
        let of_member = |(group, other): &(Arc<str>, Arc<str>)| {
            (*other == member).then(|| InGroup {
                group: Arc::clone(group),
                subject: self.subjects.get(group).cloned(),
            })
        };
        let groups: Arc<[InGroup]> = self.memberships.keys().filter_map(of_member).collect();
        if groups.is_empty() {
            self.groups.remove(&member);
        } else {
            self.groups.insert(member, groups);
        }
    }

    /// Resolves with an error when nobody holds this snapshot any more.
    pub(super) fn until_dropped(&self) -> watch::Receiver<()> {
        self.held.subscribe()
    }
}
