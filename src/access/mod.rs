//! What an identity may do: one role an identity, kept as an authenticated record of the store.
//!
//! Default deny. All roles are held in one immutable [`AccessSnapshot`] that is swapped as a whole, so that a decision
//! is one look-up in a hash map, whatever their number, without a lock or an allocation. A change is published before
//! it is acknowledged, and the service asks [`Access::is_current`] again just before a reply leaves.

pub mod api_key;
mod binding;
pub mod ca;
pub mod jwt;
pub mod limits;
pub mod lockout;
pub mod mask;
pub mod network;
pub mod principal;
mod snapshot;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;
use fieldkeep_crypto::names::Name;
use fieldkeep_keystore::{
    error::KeystoreError,
    info::{Change, Changed},
    keystore::Keystore,
    store::Operation,
};
use tokio::sync::Mutex;

pub use self::{
    binding::{Role, RoleBinding},
    snapshot::{AccessSnapshot, Action, Denied, Rule},
};
use self::{
    binding::{RolePrefix, role_key},
    principal::{Identity, IdentityError},
};

/// The most roles of one page of [`Access::list`], and of one read while loading.
pub const MAX_PAGE: usize = 1000;

/// A generation that no record has: they count from 1.
const NO_GENERATION: u64 = 0;

/// The roles of all identities. A clone is the same set of roles.
#[derive(Clone)]
pub struct Access {
    inner: Arc<Inner>,
}

struct Inner {
    keystore: Keystore,
    current: ArcSwap<AccessSnapshot>,
    /// Held from before a change's checks until its publication, so that snapshots follow one another as commits do.
    writer: Mutex<()>,
}

/// Why a role was not granted, revoked, loaded or listed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The identity has another role already.
    #[error(
        "`{identity}` already has the role `{role}`, and an identity has one role: revoke that first, or use another identity"
    )]
    RoleConflict {
        /// The identity's resource name.
        identity: Arc<str>,
        /// The role it has.
        role: Role,
    },
    /// The identity has no role.
    #[error("`{identity}` has no role")]
    IdentityNotFound {
        /// The identity's resource name.
        identity: Arc<str>,
    },
    /// Without an admin nobody could grant a role again.
    #[error(
        "`{identity}` is the last admin, and without one nobody could grant a role again: grant `admin` to another identity first"
    )]
    LastAdmin {
        /// The identity's resource name.
        identity: Arc<str>,
    },
    /// A stored role is not one: written by another version, since records are authenticated.
    #[error(
        "the role record `{store_key}` cannot be read by this version: start the version that wrote it"
    )]
    UnknownRecord {
        /// The record's store key.
        store_key: String,
    },
    /// A page token names no identity.
    #[error("the page token is not one of this listing")]
    PageToken(#[source] IdentityError),
    /// The keystore refused or failed.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// The task that made the change ended before it could answer; whether the change was made is not known.
    #[error("the change was interrupted: repeat it with the same request id to learn its outcome")]
    Interrupted,
}

impl Access {
    /// Reads all roles.
    ///
    /// # Errors
    /// The store cannot be read, or holds a record that this version cannot read.
    pub async fn load(keystore: &Keystore) -> Result<Access, AccessError> {
        let mut bindings = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let prefix = RolePrefix::All;
            let page = read_page(keystore, &prefix, after.as_deref(), MAX_PAGE).await?;
            let full = page.len() == MAX_PAGE;
            after = page.last().map(|binding| role_key(&binding.identity));
            bindings.extend(page);
            if !full {
                break;
            }
        }
        Ok(Access {
            inner: Arc::new(Inner {
                keystore: keystore.clone(),
                current: ArcSwap::from_pointee(AccessSnapshot::new(bindings)),
                writer: Mutex::new(()),
            }),
        })
    }

    /// The roles as they are now.
    pub fn snapshot(&self) -> Arc<AccessSnapshot> {
        self.inner.current.load_full()
    }

    /// Whether no change was published since `snapshot` was taken.
    pub fn is_current(&self, snapshot: &Arc<AccessSnapshot>) -> bool {
        Arc::ptr_eq(&self.inner.current.load(), snapshot)
    }

    /// Gives `identity` a role. That it has the same role already is success without changes.
    ///
    /// The change goes on to its end even if the returned future is dropped, so that what is stored is published.
    /// `by` says who granted it: a resource name, or `init`. `now` is in Unix seconds.
    ///
    /// # Errors
    /// [`AccessError::RoleConflict`]; the tenant does not exist; the keystore's errors.
    pub async fn grant(
        &self,
        identity: &Identity,
        role: Role,
        by: &str,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<RoleBinding>, AccessError> {
        let inner = Arc::clone(&self.inner);
        let binding = RoleBinding {
            identity: identity.clone(),
            role,
            created: now,
            granted_by: by.into(),
        };
        let change = tokio::spawn(async move { inner.grant(binding, operation, now).await });
        change.await.map_err(|_| AccessError::Interrupted)?
    }

    /// Takes the role of `identity` away, at once on open connections too. `now` is in Unix seconds.
    ///
    /// The change goes on to its end even if the returned future is dropped.
    ///
    /// # Errors
    /// [`AccessError::IdentityNotFound`], [`AccessError::LastAdmin`]; the keystore's errors.
    pub async fn revoke(
        &self,
        identity: &Identity,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<()>, AccessError> {
        let inner = Arc::clone(&self.inner);
        let identity = identity.clone();
        let change = tokio::spawn(async move { inner.revoke(identity, operation, now).await });
        change.await.map_err(|_| AccessError::Interrupted)?
    }

    /// What the store holds of the role of `identity` now, for the record of a change that was made before.
    ///
    /// # Errors
    /// The record is damaged, or the store cannot be read.
    pub async fn present(&self, identity: &Identity) -> Result<Vec<Change>, AccessError> {
        let key = role_key(identity);
        Ok(self.inner.keystore.present_system_record(&key).await?)
    }

    /// Up to `limit` roles of one tenant, or of all, in the order of their resource names, after the identity
    /// with the resource name `after`. `limit` is cut to [`MAX_PAGE`].
    ///
    /// # Errors
    /// `after` is no resource name of an identity; the store cannot be read.
    pub async fn list(
        &self,
        tenant: Option<&Name>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RoleBinding>, AccessError> {
        let prefix = tenant.map_or(RolePrefix::All, RolePrefix::Tenant);
        let after = after
            .map(binding::key_of_resource)
            .transpose()
            .map_err(AccessError::PageToken)?;
        read_page(
            &self.inner.keystore,
            &prefix,
            after.as_deref(),
            limit.min(MAX_PAGE),
        )
        .await
    }
}

async fn read_page(
    keystore: &Keystore,
    prefix: &RolePrefix<'_>,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<RoleBinding>, AccessError> {
    let records = keystore
        .system_records(&prefix.to_key(), after, limit)
        .await?;
    let decode = |(key, record): &(String, _)| RoleBinding::decode(key, record);
    records.iter().map(decode).collect()
}

impl Inner {
    async fn grant(
        &self,
        wanted: RoleBinding,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<RoleBinding>, AccessError> {
        let _writer = self.writer.lock().await;
        self.keystore.tenant(wanted.identity.tenant()).await?;
        let key = role_key(&wanted.identity);
        let payload = wanted.encode();
        let outcome = self
            .keystore
            .change_system_record(&key, None, Some(&payload), operation, now)
            .await;
        let stored = self.publish(&wanted.identity).await?;
        match (outcome, stored) {
            (Ok(changed), stored) => Ok(changed_to(changed, stored.unwrap_or(wanted))),
            (Err(KeystoreError::Conflict { .. }), Some(stored)) if stored.role == wanted.role => {
                Ok(Changed {
                    revision: self.revision().await?,
                    value: stored,
                    repeated: false,
                    changes: Vec::new(),
                })
            }
            (Err(KeystoreError::Conflict { .. }), Some(stored)) => Err(AccessError::RoleConflict {
                identity: Arc::clone(stored.identity.resource()),
                role: stored.role,
            }),
            (Err(error), _) => Err(error.into()),
        }
    }

    async fn revoke(
        &self,
        identity: Identity,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<()>, AccessError> {
        let _writer = self.writer.lock().await;
        let key = role_key(&identity);
        let resource = Arc::clone(identity.resource());
        let record = self.keystore.system_record(&key).await?;
        let (expected, refusal) = match record {
            Some(_) if self.current.load().is_last_admin(&resource) => (
                NO_GENERATION,
                Some(AccessError::LastAdmin { identity: resource }),
            ),
            Some(record) => (record.generation, None),
            None => (
                NO_GENERATION,
                Some(AccessError::IdentityNotFound { identity: resource }),
            ),
        };
        // A refused revocation goes to the keystore too: it may be the repetition of one that succeeded.
        let outcome = self
            .keystore
            .change_system_record(&key, Some(expected), None, operation, now)
            .await;
        self.publish(&identity).await?;
        match (outcome, refusal) {
            (Err(KeystoreError::Conflict { .. }), Some(refusal)) => Err(refusal),
            (outcome, _) => Ok(outcome?),
        }
    }

    /// Publishes what the store holds for `identity`, whatever the outcome of the change was, and returns it.
    async fn publish(&self, identity: &Identity) -> Result<Option<RoleBinding>, AccessError> {
        let key = role_key(identity);
        let record = self.keystore.system_record(&key).await?;
        let binding = record
            .map(|record| RoleBinding::decode(&key, &record))
            .transpose()?;
        let current = self.current.load();
        if current.binding(identity.resource()) != binding.as_ref() {
            self.current
                .store(Arc::new(current.with(identity, binding.clone())));
        }
        Ok(binding)
    }

    async fn revision(&self) -> Result<u64, AccessError> {
        let revision = self.keystore.store().revision().await;
        revision.map_err(|error| KeystoreError::Unavailable(error).into())
    }
}

fn changed_to<T>(changed: Changed<()>, value: T) -> Changed<T> {
    let Changed {
        value: (),
        revision,
        repeated,
        changes,
    } = changed;
    Changed {
        value,
        revision,
        repeated,
        changes,
    }
}
