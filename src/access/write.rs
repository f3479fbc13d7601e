//! Changes of rights: checked, committed, published.

use std::sync::Arc;

use fieldkeep_keystore::{
    error::KeystoreError,
    info::{Changed, SystemRecord},
    store::Operation,
};

use super::{
    AccessError, By, Inner, MAX_GRANTS, MAX_GROUPS_OF_ONE, MAX_MEMBERSHIPS,
    grant::{self, Grant, GrantId, Scope, Wanted, Who},
    group::{self, Group, Membership},
    index::MAX_ALIKE,
    principal::Identity,
    snapshot::{AccessSnapshot, Difference},
};

/// A generation that no record has: they count from 1.
const NO_GENERATION: u64 = 0;

impl Inner {
    pub(super) async fn grant(
        &self,
        wanted: Wanted,
        by: By,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<Arc<Grant>>, AccessError> {
        let _writer = self.writer.lock().await;
        let id = GrantId::of_operation(&operation);
        let known = self.current.load().grant(&id).cloned();
        let grant = match known {
            // Repeated: the store says whether it was the same request.
            Some(known) => known,
            None => {
                wanted.check(now)?;
                if self.current.load().is_self_grant(&by, &wanted) {
                    return Err(AccessError::SelfGrant);
                }
                self.check_room(&wanted)?;
                self.check_tenants(&wanted).await?;
                Arc::new(Grant {
                    id,
                    what: wanted,
                    created: now,
                    granted_by: by.resource(),
                })
            }
        };
        let key = grant::key_of(&grant.id);
        let payload = grant.encode();
        let outcome = self
            .keystore
            .change_system_record(&key, None, Some(&payload), operation, now)
            .await;
        // Published whatever the outcome was: what the store has is what counts.
        let stored = self.keystore.system_record(&key).await?;
        let stored = self.publish_grant(&key, id, stored.as_ref())?;
        Ok(outcome?.with(stored.unwrap_or(grant)))
    }

    fn check_room(&self, wanted: &Wanted) -> Result<(), AccessError> {
        let current = self.current.load();
        if current.grant_count() >= MAX_GRANTS {
            return Err(AccessError::Full {
                what: "grants",
                limit: MAX_GRANTS,
                instead: "revoke some, or grant to groups and with prefixes",
            });
        }
        if current.is_crowded(wanted) {
            return Err(AccessError::Full {
                what: "grants of the same keys and fields to the same identity or group",
                limit: MAX_ALIKE,
                instead: "revoke some of them",
            });
        }
        Ok(())
    }

    async fn check_tenants(&self, wanted: &Wanted) -> Result<(), AccessError> {
        self.keystore.tenant(wanted.who.tenant()).await?;
        if let Scope::Tenant(tenant) = &wanted.scope {
            self.keystore.tenant(tenant).await?;
        }
        Ok(())
    }

    /// Publishes what the store has of a grant, and returns it.
    fn publish_grant(
        &self,
        key: &str,
        id: GrantId,
        stored: Option<&SystemRecord>,
    ) -> Result<Option<Arc<Grant>>, AccessError> {
        let stored = stored
            .map(|record| grant::decode(key, record))
            .transpose()?;
        let known = self.current.load().grant(&id).cloned();
        match stored {
            Some(stored) if known.as_deref() == Some(&stored) => Ok(known),
            Some(stored) => {
                let grant = Arc::new(stored);
                self.publish(Difference::Granted(Arc::clone(&grant)));
                Ok(Some(grant))
            }
            None => {
                if known.is_some() {
                    self.publish(Difference::Revoked(id));
                }
                Ok(None)
            }
        }
    }

    pub(super) async fn revoke(
        &self,
        id: GrantId,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<()>, AccessError> {
        let _writer = self.writer.lock().await;
        let Some(grant) = self.current.load().grant(&id).cloned() else {
            return self
                .repeated(AccessError::GrantNotFound(id), operation, now)
                .await;
        };
        let key = grant::key_of(&grant.id);
        let difference = Difference::Revoked(id);
        if grant.what.is_grantor() && !self.current.load().has_grantor_without(&difference) {
            return Err(AccessError::LastGrantor);
        }
        let outcome = self.delete(&key, operation, now).await;
        let stored = self.keystore.system_record(&key).await?;
        self.publish_grant(&key, id, stored.as_ref())?;
        Ok(outcome?)
    }

    pub(super) async fn join(
        &self,
        group: Group,
        member: Identity,
        by: By,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<Arc<Membership>>, AccessError> {
        let _writer = self.writer.lock().await;
        let known = {
            let current = self.current.load();
            let known = current.membership(&group, member.resource()).cloned();
            if known.is_none() {
                if current.is_self_join(&by, &group, &member) {
                    return Err(AccessError::SelfGrant);
                }
                check_group_room(&current, &group, &member)?;
            }
            known
        };
        let membership = Membership {
            group: group.clone(),
            member: member.clone(),
            created: now,
            added_by: by.resource(),
        };
        self.keystore.tenant(group.tenant()).await?;
        self.keystore.tenant(member.tenant()).await?;
        let key = group::key_of(&group, &member);
        let payload = membership.encode();
        let outcome = self
            .keystore
            .change_system_record(&key, None, Some(&payload), operation, now)
            .await;
        let stored = self.publish_membership(&key, &group, &member).await?;
        match (outcome, known) {
            (Ok(changed), _) => Ok(changed.with(stored.unwrap_or(Arc::new(membership)))),
            (Err(KeystoreError::Conflict { .. }), Some(known)) => {
                Ok(Changed {
                    // Nothing was committed.
                    revision: 0,
                    value: known,
                    repeated: false,
                    changes: Vec::new(),
                })
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    pub(super) async fn leave(
        &self,
        group: Group,
        member: Identity,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<()>, AccessError> {
        let _writer = self.writer.lock().await;
        let key = group::key_of(&group, &member);
        let (names, found, grantors_left) = {
            let current = self.current.load();
            let names = (Arc::clone(group.resource()), Arc::clone(member.resource()));
            let difference = Difference::Left(Arc::clone(&names.0), Arc::clone(&names.1));
            let grants = current.grants_of(group.resource());
            let left = !grants.iter().any(|grant| grant.what.is_grantor())
                || current.has_grantor_without(&difference);
            let found = current.membership(&group, member.resource()).is_some();
            (names, found, left)
        };
        if !found {
            let (group, member) = names;
            let refusal = AccessError::NotAMember { group, member };
            return self.repeated(refusal, operation, now).await;
        }
        if !grantors_left {
            return Err(AccessError::LastGrantor);
        }
        let outcome = self.delete(&key, operation, now).await;
        self.publish_membership(&key, &group, &member).await?;
        Ok(outcome?)
    }

    async fn publish_membership(
        &self,
        key: &str,
        group: &Group,
        member: &Identity,
    ) -> Result<Option<Arc<Membership>>, AccessError> {
        let stored = self.keystore.system_record(key).await?;
        let stored = stored
            .map(|record| Membership::decode(key, &record))
            .transpose()?;
        let known = self
            .current
            .load()
            .membership(group, member.resource())
            .cloned();
        match stored {
            Some(stored) if known.as_deref() == Some(&stored) => Ok(known),
            Some(stored) => {
                let membership = Arc::new(stored);
                self.publish(Difference::Joined(Arc::clone(&membership)));
                Ok(Some(membership))
            }
            None => {
                if known.is_some() {
                    let (group, member) = (group.resource(), member.resource());
                    self.publish(Difference::Left(Arc::clone(group), Arc::clone(member)));
                }
                Ok(None)
            }
        }
    }

    /// Deletes a record that is there.
    async fn delete(
        &self,
        key: &str,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<()>, KeystoreError> {
        let record = self.keystore.system_record(key).await?;
        let generation = record.map_or(NO_GENERATION, |record| record.generation);
        self.keystore
            .change_system_record(key, Some(generation), None, operation, now)
            .await
    }

    /// The outcome of a deletion of what is not there: the first outcome if it is the repetition of one that succeeded,
    /// otherwise `refusal`.
    async fn repeated(
        &self,
        refusal: AccessError,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<()>, AccessError> {
        let key = match &refusal {
            AccessError::GrantNotFound(id) => grant::key_of(id),
            _ => format!("{}-", group::PREFIX),
        };
        let outcome = self
            .keystore
            .change_system_record(&key, Some(NO_GENERATION), None, operation, now)
            .await;
        match outcome {
            Err(KeystoreError::Conflict { .. }) => Err(refusal),
            outcome => Ok(outcome?),
        }
    }

    pub(super) async fn publish_again(&self) {
        let _writer = self.writer.lock().await;
        self.publish(Difference::Nothing);
    }

    /// Swaps the snapshot, and remembers the old one until it is dropped.
    pub(super) fn publish(&self, difference: Difference) {
        let next = Arc::new(self.current.load().with(difference));
        let old = self.current.swap(next);
        let mut replaced = self.replaced();
        replaced.retain(|held| held.has_changed().is_ok());
        replaced.push(old.until_dropped());
    }
}

fn check_group_room(
    current: &AccessSnapshot,
    group: &Group,
    member: &Identity,
) -> Result<(), AccessError> {
    if current.membership_count() >= MAX_MEMBERSHIPS {
        return Err(AccessError::Full {
            what: "memberships",
            limit: MAX_MEMBERSHIPS,
            instead: "take members out of groups that need them no more",
        });
    }
    if current.group_count_beside(group, member.resource()) >= MAX_GROUPS_OF_ONE {
        return Err(AccessError::Full {
            what: "groups of this identity",
            limit: MAX_GROUPS_OF_ONE,
            instead: "take it out of one",
        });
    }
    Ok(())
}

impl AccessSnapshot {
    /// Whether `by` would give himself, or a group that he is in, a right to the values of fields.
    fn is_self_grant(&self, by: &By, wanted: &Wanted) -> bool {
        let By::Caller(by) = by else { return false };
        wanted.role.is_data()
            && match &wanted.who {
                Who::Identity(identity) => *identity.resource() == by.resource,
                Who::Group(group) => self.groups_of(by).any(|own| own == group.resource()),
            }
    }

    /// Whether `by` would join a group that has rights to the values of fields.
    fn is_self_join(&self, by: &By, group: &Group, member: &Identity) -> bool {
        let By::Caller(by) = by else { return false };
        *member.resource() == by.resource
            && self
                .grants_of(group.resource())
                .iter()
                .any(|grant| grant.what.role.is_data())
    }
}
