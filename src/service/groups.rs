//! Who is in which group.

use std::sync::Arc;

use fieldkeep_crypto::names::Name;

use crate::access::By;
use crate::access::action::Action;
use crate::access::grant::Scope;
use crate::access::group::{self, Group, Membership};
use crate::access::principal::Principal;
use crate::service::Core;
use crate::service::access::{LocalName, check_reach, listed_of};
use crate::service::failure::Failure;
use crate::service::keys::{Listed, Page};
use crate::service::operation::Repeatable;
use crate::service::perform::Operation;
use crate::service::perform::permit::{Asks, Permit};
use crate::service::record::Account;

impl LocalName {
    fn group(&self, caller: &Principal) -> Group {
        Group::new(self.tenant(caller).clone(), self.name.clone())
    }

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        Asks::Of {
            tenant: self.tenant(caller).as_str(),
            key: None,
        }
    }
}

/// Put an identity into a group, or take it out.
pub struct ChangeMember<const JOINS: bool> {
    /// The group.
    pub group: LocalName,
    /// The identity.
    pub member: LocalName,
    /// The request's id.
    pub request: Repeatable,
}

/// Put an identity into a group.
pub type AddMember = ChangeMember<true>;
/// Take an identity out of a group.
pub type RemoveMember = ChangeMember<false>;

impl<const JOINS: bool> Operation for ChangeMember<JOINS> {
    const ACTION: Action = Action::Grant;
    const CHANGES: bool = true;
    const CHANGES_RIGHTS: bool = true;
    /// The membership, if there is one now.
    type Output = Option<Arc<Membership>>;

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        self.group.asks(caller)
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        account.used(self.group.group(caller).to_string(), 0, "", 0);
        account.detail(format!("member={}", self.member.identity(caller)));
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Option<Arc<Membership>>, Failure> {
        let caller = permit.principal();
        self.about(caller, account);
        let (group, member) = (self.group.group(caller), self.member.identity(caller));
        let key = group::key_of(&group, &member);
        let (access, now) = (&core.access, permit.now_s());
        if JOINS {
            check_reach(permit, permit.snapshot().grants_of(group.resource()).iter())?;
        }
        let operation = self.request.begin(permit, key.clone(), account).await?;
        if JOINS {
            let by = By::Caller(Box::new(caller.clone()));
            let changed = access.join(group, member, by, operation, now).await?;
            core.record_change(account, &changed, &key).await?;
            Ok(Some(changed.value))
        } else {
            let changed = access.leave(group, member, operation, now).await?;
            core.record_change(account, &changed, &key).await?;
            Ok(None)
        }
    }
}

/// List the groups that have members.
pub struct ListGroups {
    /// The tenant; without one, all.
    pub tenant: Option<Name>,
    /// Which page: groups after the one with this resource name.
    pub page: Page,
}

/// A group and how many are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSize {
    /// The group.
    pub group: Group,
    /// How many identities are in it.
    pub members: u64,
}

impl Operation for ListGroups {
    const ACTION: Action = Action::Describe;
    type Output = Listed<GroupSize>;

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
    ) -> Result<Listed<GroupSize>, Failure> {
        self.about(permit.principal(), account);
        let snapshot = permit.snapshot();
        let after = self.page.after.as_deref();
        let mut groups: Vec<GroupSize> = Vec::new();
        for membership in snapshot.memberships(None) {
            let group = &membership.group;
            let wanted = self
                .tenant
                .as_ref()
                .is_none_or(|tenant| tenant == group.tenant());
            if !wanted || after.is_some_and(|after| group.resource().as_ref() <= after) {
                continue;
            }
            let is_full = groups.len() == self.page.limit;
            match groups.last_mut() {
                Some(last) if last.group == *group => last.members += 1,
                _ if is_full => break,
                _ => groups.push(GroupSize {
                    group: group.clone(),
                    members: 1,
                }),
            }
        }
        Ok(Listed::new(groups, &self.page, |size| {
            size.group.to_string()
        }))
    }
}

/// List the members of a group.
pub struct ListMembers {
    /// The group.
    pub group: LocalName,
    /// Which page: members after the one with this resource name.
    pub page: Page,
}

impl Operation for ListMembers {
    const ACTION: Action = Action::Describe;
    type Output = Listed<Arc<Membership>>;

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        self.group.asks(caller)
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        account.used(self.group.group(caller).to_string(), 0, "", 0);
    }

    async fn run(
        self,
        _core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Listed<Arc<Membership>>, Failure> {
        self.about(permit.principal(), account);
        let group = self.group.group(permit.principal());
        let snapshot = permit.snapshot();
        let after = self.page.after.as_deref();
        let members = snapshot
            .members(group.resource())
            .filter(|membership| {
                after.is_none_or(|after| membership.member.resource().as_ref() > after)
            })
            .take(self.page.limit)
            .cloned()
            .collect();
        Ok(Listed::new(members, &self.page, |membership| {
            membership.member.to_string()
        }))
    }
}
