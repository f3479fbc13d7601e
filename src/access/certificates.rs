//! The records of revocations and of CAs of others, and the changes to them.
//!
//! A change is committed, published to the [`Trust`], which refuses the calls of every connection that it concerns, and
//! only then acknowledged. Whatever is issued is issued wholly before a revocation, which then covers it, or wholly after it
//! is published, see [`Certificates::issue_with`].

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use fieldkeep_crypto::names::Name;
use fieldkeep_keystore::{
    error::KeystoreError, info::Changed, keystore::Keystore, store::Operation,
};
use prost::Message as _;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio::sync::RwLock;

use super::{
    records::read_all,
    revocation::{
        IDENTITY_PREFIX, MAX_REVOCATIONS, MAX_REVOCATIONS_OF_TENANT, Revocation, Revocations,
        Revoked, SERIAL_PREFIX,
    },
    role::Role,
    trust::{Binding, Root, RootError, Trust, TrustState},
};

/// What the keys of CAs of others begin with.
const ROOT_PREFIX: &str = "sys/ca-root/";
/// The most CAs of others.
pub const MAX_ROOTS: usize = 16;
/// The most tenants that one of them may be bound to.
pub const MAX_TENANTS: usize = 32;
/// The longest certificate of one, PEM, bytes.
pub const MAX_ROOT_PEM_BYTES: usize = 3_000;

/// A CA of others, as it was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaRoot {
    /// What it may vouch for.
    pub binding: Binding,
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// When it was added, Unix seconds.
    pub created: u64,
    /// Who added it: a resource name.
    pub created_by: Arc<str>,
}

/// The payload of its record. The record's key has its name, and the record's MAC covers the key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct CaRootRecord {
    #[prost(string, tag = "1")]
    certificate_pem: String,
    #[prost(string, tag = "2")]
    trust_domain: String,
    #[prost(string, repeated, tag = "3")]
    tenants: Vec<String>,
    /// The name of a role.
    #[prost(string, tag = "4")]
    ceiling: String,
    #[prost(uint64, tag = "5")]
    created: u64,
    #[prost(string, tag = "6")]
    created_by: String,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// The CA is there.
    #[error("there is a CA `{0}` already: remove it first, or choose another name")]
    RootExists(Name),
    /// The CA is not there.
    #[error("there is no CA `{0}`")]
    RootNotFound(Name),
    /// There are as many as can be.
    #[error("there are {MAX_ROOTS} CAs, which is the most: remove one first")]
    TooManyRoots,
    /// The trust domain is the built-in CA's.
    #[error(
        "`{0}` is the trust domain of the built-in CA, which nobody else may vouch for: give the CA one of its own"
    )]
    OwnTrustDomain(String),
    /// The certificate cannot be a root.
    #[error("{0}")]
    Root(#[from] RootError),
    /// The PEM has no certificate, or more than one, or is too long.
    #[error("the file is not one certificate in PEM of at most {MAX_ROOT_PEM_BYTES} bytes")]
    Pem,
    /// There are as many revocations as are held.
    #[error(
        "there are {MAX_REVOCATIONS} revocations, or {MAX_REVOCATIONS_OF_TENANT} of this tenant, which is the most that are held"
    )]
    TooManyRevocations,
    /// A record cannot be read.
    #[error("the record `{0}` cannot be read by this version: start the version that wrote it")]
    UnknownRecord(String),
    /// The keystore refused or failed.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
}

/// What a revocation did.
#[derive(Clone, Debug)]
pub struct RevokedNow {
    /// The revocation.
    pub revocation: Revocation,
    /// How many open connections it ended.
    pub connections: usize,
}

/// The revocations and the CAs of others. A clone is the same set.
#[derive(Clone)]
pub struct Certificates {
    inner: Arc<Inner>,
}

struct Inner {
    keystore: Keystore,
    trust: Arc<Trust>,
    built_in: Arc<Root>,
    own_trust_domain: String,
    /// Held alone from before a change's checks until its publication, and shared by whoever issues something.
    writer: RwLock<()>,
    /// The latest time of a call that issued something, Unix seconds. Calls overtake each other, and a clock may be set back.
    latest_issue: AtomicU64,
}

impl Certificates {
    /// Reads all records. `ca` is the built-in CA's certificate; `now` is in Unix seconds.
    ///
    /// # Errors
    /// The store cannot be read, or holds a record that this version cannot read.
    pub async fn load(
        keystore: &Keystore,
        ca: &CertificateDer<'_>,
        trust_domain: &str,
        now: u64,
    ) -> Result<Certificates, CertificatesError> {
        let built_in = Arc::new(Root::built_in(ca, trust_domain)?);
        let mut revocations = Vec::new();
        for prefix in [SERIAL_PREFIX, IDENTITY_PREFIX] {
            let live = read_all(keystore, prefix, |key, record| {
                let revocation = decode_revocation(key, &record.payload)?;
                Ok::<_, CertificatesError>((!revocation.is_over(now)).then_some(revocation))
            });
            revocations.extend(live.await?);
        }
        let revocations = Arc::new(Revocations::new(revocations));
        let mut roots = vec![Arc::clone(&built_in)];
        for root in read_roots(keystore).await? {
            roots.push(Arc::new(root.to_root()?));
        }
        Ok(Certificates {
            inner: Arc::new(Inner {
                keystore: keystore.clone(),
                trust: Trust::new(TrustState::new(roots, revocations)),
                built_in,
                own_trust_domain: trust_domain.to_owned(),
                writer: RwLock::new(()),
                latest_issue: AtomicU64::new(0),
            }),
        })
    }

    /// What TLS and the connections go by.
    #[must_use]
    pub fn trust(&self) -> &Arc<Trust> {
        &self.inner.trust
    }

    /// The store, for the join tokens.
    pub(super) fn keystore(&self) -> &Keystore {
        &self.inner.keystore
    }

    /// Issues something that a revocation has to be able to take back. While `issue` runs, no revocation and no removal of a CA
    /// is under way: it has to look here whether the caller still counts, and to date what it issues at `now`, Unix seconds, by
    /// [`Revocations::issuing_time`] of what it is given. Then a later revocation covers it, and an earlier one was seen.
    ///
    /// # Errors
    /// What `issue` fails with.
    pub async fn issue_with<T, E>(
        &self,
        now: u64,
        issue: impl FnOnce(&Revocations) -> Result<T, E>,
    ) -> Result<T, E> {
        let _issuer = self.inner.writer.read().await;
        self.inner.latest_issue.fetch_max(now, Ordering::Relaxed);
        issue(self.inner.trust.state().revocations())
    }

    /// Revokes one certificate, or all of an identity that were issued until `now`, Unix seconds, or later if something was
    /// issued later. When this returns, every call on a connection of such a certificate is refused. To revoke again is success,
    /// and never takes back what was revoked before.
    ///
    /// # Errors
    /// There is no room for one more, or the store cannot be written.
    pub async fn revoke(
        &self,
        what: Revoked,
        by: &str,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<RevokedNow>, CertificatesError> {
        let _writer = self.inner.writer.write().await;
        // Whatever was issued until here is dated by this, or by the previous revocation of its identity.
        let time = now.max(self.inner.latest_issue.load(Ordering::Relaxed));
        let key = what.store_key();
        let present = self.inner.keystore.system_record(&key).await?;
        let previous = match &present {
            Some(record) => Some(decode_revocation(&key, &record.payload)?),
            None => None,
        };
        let has_room = || {
            let state = self.inner.trust.state();
            state.revocations().has_room(what.tenant())
        };
        // One that is there takes no more room: it may be the repetition of a call whose reply was lost.
        if previous.is_none() && !has_room() {
            return Err(CertificatesError::TooManyRevocations);
        }
        let revocation = Revocation::after(previous.as_ref(), what, by.into(), time);
        let changed = self
            .inner
            .keystore
            .change_system_record(
                &key,
                present.map(|record| record.generation),
                Some(&revocation.encode()),
                operation,
                now,
            )
            .await;
        let revoked = self.publish_revocation(&key, now).await?;
        let changed = changed?;
        let revoked = revoked.ok_or(CertificatesError::UnknownRecord(key))?;
        Ok(changed.with(revoked))
    }

    /// Publishes what the store holds of a revocation, whatever the outcome of the change was: of a repeated call, the first
    /// one's.
    async fn publish_revocation(
        &self,
        key: &str,
        now: u64,
    ) -> Result<Option<RevokedNow>, CertificatesError> {
        let Some(stored) = self.inner.keystore.system_record(key).await? else {
            return Ok(None);
        };
        let revocation = decode_revocation(key, &stored.payload)?;
        let state = self.inner.trust.state();
        let revocations = Arc::new(state.revocations().with(revocation.clone(), now));
        let next = TrustState::new(state.roots().to_vec(), revocations);
        let connections = self.inner.trust.publish(next);
        Ok(Some(RevokedNow {
            revocation,
            connections,
        }))
    }

    /// Up to `limit` revocations of one tenant, or of all, after the one with the store key `after`; with the key of each.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn list_revocations(
        &self,
        tenant: Option<&Name>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Revocation)>, CertificatesError> {
        let mut found = Vec::new();
        // Identities first, since `-` is before `/`.
        for prefix in [IDENTITY_PREFIX, SERIAL_PREFIX] {
            let prefix =
                tenant.map_or_else(|| prefix.to_owned(), |name| format!("{prefix}{name}/"));
            if found.len() >= limit || after.is_some_and(|after| after > past(&prefix).as_str()) {
                continue;
            }
            let after = after.filter(|after| after.starts_with(&prefix));
            let page = self
                .inner
                .keystore
                .system_records(&prefix, after, limit - found.len())
                .await?;
            for (key, record) in page {
                let revocation = decode_revocation(&key, &record.payload)?;
                found.push((key, revocation));
            }
        }
        Ok(found)
    }

    /// Adds a CA of others. Its certificates are accepted from the next handshake on.
    ///
    /// # Errors
    /// The certificate cannot be a root, the name is taken, or the trust domain is the built-in CA's.
    pub async fn add_root(
        &self,
        root: CaRoot,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<CaRoot>, CertificatesError> {
        if root.binding.trust_domain == self.inner.own_trust_domain {
            return Err(CertificatesError::OwnTrustDomain(
                self.inner.own_trust_domain.clone(),
            ));
        }
        root.to_root()?;
        let _writer = self.inner.writer.write().await;
        for tenant in &root.binding.tenants {
            self.inner.keystore.tenant(tenant).await?;
        }
        let key = root_key(&root.binding.name);
        // One that is there takes no more room: it may be the repetition of a call whose reply was lost.
        let is_new = self.inner.keystore.system_record(&key).await?.is_none();
        if is_new && self.inner.trust.state().roots().len() > MAX_ROOTS {
            return Err(CertificatesError::TooManyRoots);
        }
        let added = self
            .inner
            .keystore
            .change_system_record(&key, None, Some(&root.encode()), operation, now)
            .await;
        self.publish_roots().await?;
        match added {
            Ok(changed) => Ok(changed.with(root)),
            Err(KeystoreError::Conflict { .. }) => {
                Err(CertificatesError::RootExists(root.binding.name))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a CA of others. When this returns, every call on a connection whose chain ends in it is refused.
    ///
    /// # Errors
    /// It is not there, or the store cannot be written.
    pub async fn remove_root(
        &self,
        name: &Name,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<usize>, CertificatesError> {
        let _writer = self.inner.writer.write().await;
        let key = root_key(name);
        let present = self.inner.keystore.system_record(&key).await?;
        // One that is not there goes to the keystore too: it may be the repetition of a removal that succeeded.
        let expected = present.as_ref().map_or(0, |record| record.generation);
        let removed = self
            .inner
            .keystore
            .change_system_record(&key, Some(expected), None, operation, now)
            .await;
        let connections = self.publish_roots().await?;
        match removed {
            Err(KeystoreError::Conflict { .. }) if present.is_none() => {
                Err(CertificatesError::RootNotFound(name.clone()))
            }
            removed => Ok(removed?.with(connections)),
        }
    }

    /// All CAs of others, by name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn list_roots(&self) -> Result<Vec<CaRoot>, CertificatesError> {
        read_roots(&self.inner.keystore).await
    }

    /// Publishes what the store holds, whatever the outcome of the change was.
    async fn publish_roots(&self) -> Result<usize, CertificatesError> {
        let mut roots = vec![Arc::clone(&self.inner.built_in)];
        for root in read_roots(&self.inner.keystore).await? {
            roots.push(Arc::new(root.to_root()?));
        }
        let revocations = Arc::clone(self.inner.trust.state().revocations());
        Ok(self
            .inner
            .trust
            .publish(TrustState::new(roots, revocations)))
    }
}

fn decode_revocation(store_key: &str, payload: &[u8]) -> Result<Revocation, CertificatesError> {
    Revocation::decode(store_key, payload)
        .ok_or_else(|| CertificatesError::UnknownRecord(store_key.to_owned()))
}

/// A text behind every key that begins with `prefix`.
fn past(prefix: &str) -> String {
    format!("{prefix}\u{7f}")
}

/// The store key of a CA of others.
#[must_use]
pub fn root_key(name: &Name) -> String {
    format!("{ROOT_PREFIX}{name}")
}

async fn read_roots(keystore: &Keystore) -> Result<Vec<CaRoot>, CertificatesError> {
    read_all(keystore, ROOT_PREFIX, |key, record| {
        CaRoot::decode(key, &record.payload)
            .map(Some)
            .ok_or_else(|| CertificatesError::UnknownRecord(key.to_owned()))
    })
    .await
}

impl CaRoot {
    fn encode(&self) -> Vec<u8> {
        let Binding {
            name: _,
            trust_domain,
            tenants,
            ceiling,
        } = &self.binding;
        let record = CaRootRecord {
            certificate_pem: self.certificate_pem.clone(),
            trust_domain: trust_domain.clone(),
            tenants: tenants
                .iter()
                .map(|name| name.as_str().to_owned())
                .collect(),
            ceiling: ceiling.as_str().to_owned(),
            created: self.created,
            created_by: self.created_by.as_ref().to_owned(),
        };
        record.encode_to_vec()
    }

    fn decode(store_key: &str, payload: &[u8]) -> Option<CaRoot> {
        let name = Name::parse(store_key.strip_prefix(ROOT_PREFIX)?).ok()?;
        let record = CaRootRecord::decode(payload).ok()?;
        let tenants = record.tenants.iter().map(|text| Name::parse(text).ok());
        Some(CaRoot {
            binding: Binding {
                name,
                trust_domain: record.trust_domain,
                tenants: tenants.collect::<Option<Vec<_>>>()?,
                ceiling: Role::parse(&record.ceiling)?,
            },
            certificate_pem: record.certificate_pem,
            created: record.created,
            created_by: record.created_by.into(),
        })
    }

    fn to_root(&self) -> Result<Root, CertificatesError> {
        if self.certificate_pem.len() > MAX_ROOT_PEM_BYTES {
            return Err(CertificatesError::Pem);
        }
        let found = CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| CertificatesError::Pem)?;
        let [certificate] = found.as_slice() else {
            return Err(CertificatesError::Pem);
        };
        Ok(Root::external(certificate, self.binding.clone())?)
    }
}

#[cfg(test)]
mod tests;
