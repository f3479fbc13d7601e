//! Rotation on a schedule: policies, planned acts, and the use that policies look at.

use std::sync::Arc;

use fieldkeep_crypto::{ciphertext::Handle, names::Name};

use crate::{
    candidates,
    error::KeystoreError,
    info::{CandidatePage, Changed, KeyCursor, KeyInfo, VersionUsage},
    keystore::Keystore,
    lifecycle::KeyChange,
    listing, mutation,
    rotation::{plan::Candidate, policy::RotationPolicy},
    store::Operation,
};

impl Keystore {
    /// [`Keystore::rotate_key`] as it was planned: only if `from` is still the primary version, so that a plan is carried out
    /// once, whoever else rotates the key.
    ///
    /// # Errors
    /// As [`Keystore::rotate_key`], and [`KeystoreError::PrimaryMoved`]; not for a repetition of the same operation.
    pub async fn rotate_key_from(
        &self,
        tenant: &Name,
        name: &Name,
        from: u32,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<KeyInfo>, KeystoreError> {
        let change = KeyChange::RotateFrom(from);
        self.change_key(tenant, name, change, operation, now).await
    }

    /// The operation of a planned rotation. It is the same each time, so that a second attempt after a crash is the same
    /// rotation.
    #[must_use]
    pub fn rotation_operation(&self, handle: Handle, from: u32) -> Operation {
        mutation::derive_operation("rotate", self.store_id(), handle, from)
    }

    /// Disables the versions up to `through` that were not retired before, except the primary one. A version that was
    /// enabled again since it was retired stays enabled.
    ///
    /// # Errors
    /// As [`Keystore::rotate_key`], and [`KeystoreError::NoSuchVersion`], [`KeystoreError::TooManyDisabledRanges`].
    pub async fn retire_versions(
        &self,
        tenant: &Name,
        name: &Name,
        through: u32,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<KeyInfo>, KeystoreError> {
        let change = KeyChange::Retire(through);
        self.change_key(tenant, name, change, operation, now).await
    }

    /// The operation of a planned retirement, like [`Keystore::rotation_operation`].
    #[must_use]
    pub fn retirement_operation(&self, handle: Handle, through: u32) -> Operation {
        mutation::derive_operation("retire", self.store_id(), handle, through)
    }

    /// Sets when a key rotates by itself; `None`: on demand alone.
    ///
    /// # Errors
    /// As [`Keystore::rotate_key`].
    pub async fn set_rotation(
        &self,
        tenant: &Name,
        name: &Name,
        rotation: Option<RotationPolicy>,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<KeyInfo>, KeystoreError> {
        let change = KeyChange::SetRotation(rotation.map(Arc::new));
        self.change_key(tenant, name, change, operation, now).await
    }

    /// Looks at up to `limit` keys (at most [`crate::keystore::MAX_PAGE`]) of all tenants after `after`, and gives those that have a rotation
    /// policy, enabled or not. A key with a damaged record is reported in the page and left out.
    ///
    /// # Errors
    /// What reading the store gives.
    pub async fn candidates(
        &self,
        after: Option<&KeyCursor>,
        limit: usize,
    ) -> Result<CandidatePage, KeystoreError> {
        candidates::page(&self.inner.reader, after, limit).await
    }

    /// One key as [`Keystore::candidates`] gives it; `None` without a policy.
    ///
    /// # Errors
    /// [`KeystoreError::TenantNotFound`], [`KeystoreError::KeyNotFound`], and what reading the store gives.
    pub async fn candidate(
        &self,
        tenant: &Name,
        name: &Name,
    ) -> Result<Option<Candidate>, KeystoreError> {
        let tenant = self.inner.tenant(tenant).await?;
        let state = self.inner.stored(&tenant, name).await?.state;
        Ok(candidates::of_state(&self.inner.reader, &tenant, name, &state).await?)
    }

    /// Keys that reached a limit of use of their policy since this was asked last, each at most once: a hint, so that they
    /// need not be looked for. After a restart, or if very many come at once, only [`Keystore::candidates`] has them all.
    #[must_use]
    pub fn take_limits_reached(&self) -> Vec<(Name, Name)> {
        self.inner.reader.meters.take_reached()
    }

    /// Commits of leases of usage counters since the start.
    #[must_use]
    pub fn usage_commits(&self) -> u64 {
        self.inner.reader.meters.commits()
    }

    /// What was encrypted under each version of a key, newest first, at most the newest 1,000; versions that encrypted nothing
    /// are left out.
    ///
    /// # Errors
    /// [`KeystoreError::TenantNotFound`], [`KeystoreError::KeyNotFound`], and what reading the store gives.
    pub async fn usage(
        &self,
        tenant: &Name,
        name: &Name,
    ) -> Result<Vec<VersionUsage>, KeystoreError> {
        let tenant = self.inner.tenant(tenant).await?;
        let state = self.inner.stored(&tenant, name).await?.state;
        listing::usage(&self.inner.reader, &tenant, &state).await
    }

    /// Writes the exact counts of use, before a clean stop. Call it when nothing is encrypted any more; what is encrypted
    /// later is counted all the same.
    ///
    /// # Errors
    /// The first failure to write; the counts then stay too high by what was leased.
    pub async fn flush_usage(&self) -> Result<(), KeystoreError> {
        self.inner.reader.meters.flush(&self.inner.reader).await
    }
}
