//! Who may do what to which key and field: grants, groups and settings, kept as authenticated records of the store.
//!
//! Default deny; grants only allow. All of them are held in one immutable [`AccessSnapshot`] that is swapped as a whole, so
//! that a decision is a few look-ups in hash tables, whatever their number, without a lock or an allocation. A change is
//! published before it is acknowledged, acknowledged only when no call holds an older snapshot ([`Access::settled`]), and
//! the service compares generations just before a reply leaves.

pub mod action;
pub mod advice;
pub mod api_key;
pub mod ca;
pub mod certificates;
pub mod condition;
pub mod grant;
pub mod group;
mod index;
pub mod join;
pub mod jwt;
pub mod limits;
pub mod lockout;
pub mod mask;
pub mod network;
pub mod pattern;
pub mod principal;
mod records;
pub mod revocation;
pub mod role;
pub mod settings;
pub mod snapshot;
#[cfg(test)]
mod tests;
pub mod trust;
mod write;

use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use fieldkeep_keystore::{
    error::KeystoreError,
    info::{Change, Changed},
    keystore::Keystore,
    store::Operation,
};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout_at};

use self::api_key::ApiKeyError;
use self::grant::{Grant, GrantError, GrantId, Wanted};
use self::group::{Group, Membership};
use self::jwt::{HttpsFetch, Issuer, IssuerError, Jwt};
use self::limits::record::LimitError;
use self::principal::{Identity, Principal};
use self::records::read_all;
use self::settings::{Setting as _, Settings};
use self::snapshot::AccessSnapshot;

/// The most grants.
pub const MAX_GRANTS: usize = 100_000;
/// The most memberships.
pub const MAX_MEMBERSHIPS: usize = 100_000;
/// The most groups that one identity is in.
pub const MAX_GROUPS_OF_ONE: usize = 32;
/// Where versions before grants kept the roles of identities.
const OLD_ROLES: &str = "sys/role/";

/// The rights of all identities. A clone is the same set of rights.
#[derive(Clone)]
pub struct Access {
    inner: Arc<Inner>,
}

struct Inner {
    keystore: Keystore,
    current: ArcSwap<AccessSnapshot>,
    /// Held from before a change's checks until its publication, so that snapshots follow one another as commits do.
    writer: Mutex<()>,
    /// Snapshots that were replaced and may still be held, oldest first.
    replaced: Lock<Vec<watch::Receiver<()>>>,
    /// Verifies the tokens of the snapshot's issuers.
    jwt: Jwt,
}

/// Who changes rights.
#[derive(Clone, Debug)]
pub enum By {
    /// `fieldkeep init`, which makes the first grant.
    Init,
    /// A caller, who gives himself no right to the values of fields.
    Caller(Box<Principal>),
}

impl By {
    /// As records have it: the resource name of an identity, or `init`.
    fn resource(&self) -> Arc<str> {
        match self {
            By::Init => Arc::from("init"),
            By::Caller(caller) => Arc::clone(&caller.resource),
        }
    }
}

/// Why a right was not granted, revoked or loaded.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// It is nothing that can be granted.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// There is no such grant.
    #[error("there is no grant `{0}`")]
    GrantNotFound(GrantId),
    /// The identity is not in the group.
    #[error("`{member}` is not in `{group}`")]
    NotAMember {
        /// The group's resource name.
        group: Arc<str>,
        /// The identity's resource name.
        member: Arc<str>,
    },
    /// Nobody gives himself, or a group that he is in, a right to the values of fields.
    #[error("nobody gives himself a right to the values of fields: another access admin has to")]
    SelfGrant,
    /// Nobody who sees a field masked makes its mask show him more.
    #[error(
        "nobody who sees a field masked makes its mask show him more: another access admin has to"
    )]
    SelfMask,
    /// Without it nobody could grant rights to everything again.
    #[error(
        "without it nobody could grant rights for all tenants again: grant `admin` or `access-admin` for all tenants to \
         another identity first"
    )]
    LastGrantor,
    /// There are as many as there may be.
    #[error("there are {limit} {what} already, which is the most: {instead}")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many.
        limit: usize,
        /// What to do.
        instead: &'static str,
    },
    /// A stored record is not understood: written by another version, since records are authenticated.
    #[error(
        "the access record `{store_key}` cannot be read by this version: start the version that wrote it"
    )]
    UnknownRecord {
        /// The record's store key.
        store_key: String,
    },
    /// The data directory has roles of a version before grants.
    #[error(
        "the data directory has roles of a version before grants (`{store_key}`), and this version does not read them: \
         start the version that wrote them, or begin a new directory with `fieldkeep init` and grant rights there with \
         `fieldkeep grant create`"
    )]
    OldRoles {
        /// The store key of the first of them.
        store_key: String,
    },
    /// It is no issuer that can be.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// It is no limit that can be.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// It is no API key that can be.
    #[error(transparent)]
    ApiKey(#[from] ApiKeyError),
    /// Tokens cannot be verified, or an issuer's keys not be fetched: a defect of the build.
    #[error("tokens cannot be verified: {0}")]
    Tokens(String),
    /// It was changed since it was looked at.
    #[error("it was changed by another call at the same time: try again")]
    Changed,
    /// There is none to remove.
    #[error("there is no such {what}")]
    NoSuchSetting {
        /// Of which kind.
        what: &'static str,
    },
    /// The keystore refused or failed.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// The task that made the change ended before it could answer; whether the change was made is not known.
    #[error("the change was interrupted: repeat it with the same request id to learn its outcome")]
    Interrupted,
}

/// Calls that began before a change still run, with the rights that they had then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("calls that began before the change have not ended yet")]
pub struct Unsettled;

impl Access {
    /// Reads all grants and groups.
    ///
    /// # Errors
    /// The store cannot be read, or holds a record that this version cannot read.
    pub async fn load(keystore: &Keystore) -> Result<Access, AccessError> {
        if let Some((store_key, _)) = keystore
            .system_records(OLD_ROLES, None, 1)
            .await?
            .into_iter()
            .next()
        {
            return Err(AccessError::OldRoles { store_key });
        }
        let grants = read_all(keystore, grant::PREFIX, |key, record| {
            grant::decode(key, record).map(Some)
        });
        let memberships = read_all(keystore, group::PREFIX, |key, record| {
            Membership::decode(key, record).map(Some)
        });
        let (grants, memberships) = (grants.await?, memberships.await?);
        let settings = Settings::load(keystore).await?;
        let defect = |error: &dyn std::fmt::Display| AccessError::Tokens(error.to_string());
        let fetch = HttpsFetch::new().map_err(|error| defect(&error))?;
        let jwt = Jwt::new(Arc::new(fetch)).map_err(|error| defect(&error))?;
        Issuer::published(&settings, &jwt)?;
        Ok(Access {
            inner: Arc::new(Inner {
                keystore: keystore.clone(),
                current: ArcSwap::from_pointee(AccessSnapshot::new(grants, memberships, settings)),
                writer: Mutex::new(()),
                replaced: Lock::new(Vec::new()),
                jwt,
            }),
        })
    }

    /// What verifies tokens.
    #[must_use]
    pub fn jwt(&self) -> &Jwt {
        &self.inner.jwt
    }

    /// The rights as they are now. Who holds it holds up [`Access::settled`].
    pub fn snapshot(&self) -> Arc<AccessSnapshot> {
        self.inner.current.load_full()
    }

    /// Waits until nobody holds a snapshot that is older than the present one, at most for `patience`.
    ///
    /// # Errors
    /// [`Unsettled`]: a call holds one still.
    pub async fn settled(&self, patience: Duration) -> Result<(), Unsettled> {
        let until = Instant::now() + patience;
        let replaced = self.inner.replaced().clone();
        for mut held in replaced {
            // Nothing is ever sent: the wait ends when the snapshot is dropped, and its sender with it.
            let dropped = async { while held.changed().await.is_ok() {} };
            if timeout_at(until, dropped).await.is_err() {
                return Err(Unsettled);
            }
        }
        Ok(())
    }

    /// Grants what is wanted. The same operation again has its first outcome.
    ///
    /// The change goes on to its end even if the returned future is dropped, so that what is stored is published.
    /// `now` is in Unix seconds.
    ///
    /// # Errors
    /// [`AccessError::Grant`], [`AccessError::SelfGrant`], [`AccessError::Full`]; the tenant does not exist; the keystore's
    /// errors.
    pub async fn grant(
        &self,
        wanted: Wanted,
        by: By,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<Arc<Grant>>, AccessError> {
        let inner = Arc::clone(&self.inner);
        let change = tokio::spawn(async move { inner.grant(wanted, by, operation, now).await });
        change.await.map_err(|_| AccessError::Interrupted)?
    }

    /// Takes the grant `id` back, at once on open connections too. `now` is in Unix seconds.
    ///
    /// The change goes on to its end even if the returned future is dropped.
    ///
    /// # Errors
    /// [`AccessError::GrantNotFound`], [`AccessError::LastGrantor`]; the keystore's errors.
    pub async fn revoke(
        &self,
        id: GrantId,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<()>, AccessError> {
        let inner = Arc::clone(&self.inner);
        let change = tokio::spawn(async move { inner.revoke(id, operation, now).await });
        change.await.map_err(|_| AccessError::Interrupted)?
    }

    /// Puts `member` into `group`. That it is in it already is success without changes. `now` is in Unix seconds.
    ///
    /// The change goes on to its end even if the returned future is dropped.
    ///
    /// # Errors
    /// [`AccessError::SelfGrant`], [`AccessError::Full`]; a tenant does not exist; the keystore's errors.
    pub async fn join(
        &self,
        group: Group,
        member: Identity,
        by: By,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<Arc<Membership>>, AccessError> {
        let inner = Arc::clone(&self.inner);
        let change =
            tokio::spawn(async move { inner.join(group, member, by, operation, now).await });
        change.await.map_err(|_| AccessError::Interrupted)?
    }

    /// Takes `member` out of `group`. `now` is in Unix seconds.
    ///
    /// The change goes on to its end even if the returned future is dropped.
    ///
    /// # Errors
    /// [`AccessError::NotAMember`], [`AccessError::LastGrantor`]; the keystore's errors.
    pub async fn leave(
        &self,
        group: Group,
        member: Identity,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<()>, AccessError> {
        let inner = Arc::clone(&self.inner);
        let change = tokio::spawn(async move { inner.leave(group, member, operation, now).await });
        change.await.map_err(|_| AccessError::Interrupted)?
    }

    /// Publishes the same rights as a new generation, after something else that calls look at was changed: calls that looked
    /// before hold an older one, and [`Access::settled`] waits for them.
    pub async fn publish_again(&self) {
        self.inner.publish_again().await;
    }

    /// What the store holds under a store key now, for the record of a change that was made before.
    ///
    /// # Errors
    /// The record is damaged, or the store cannot be read.
    pub async fn present(&self, key: &str) -> Result<Vec<Change>, AccessError> {
        Ok(self.inner.keystore.present_system_record(key).await?)
    }
}

impl Inner {
    fn replaced(&self) -> std::sync::MutexGuard<'_, Vec<watch::Receiver<()>>> {
        // A poisoned lock still guards a whole list.
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
