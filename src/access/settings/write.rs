//! Changes of settings: checked, committed, published.

use std::sync::Arc;

use fieldkeep_keystore::{error::KeystoreError, info::Changed, store::Operation};

use super::{super::snapshot::Difference, Setting, Settings};
use crate::access::{Access, AccessError, Inner};

/// A generation that no record has: they count from 1.
const NO_GENERATION: u64 = 0;

impl Access {
    /// Sets what `make` makes of the setting with this store key that is there. The same operation again has its first outcome.
    /// `now` is in Unix seconds.
    ///
    /// The change goes on to its end even if the returned future is dropped, so that what is stored is published.
    ///
    /// # Errors
    /// What `make` fails with; [`AccessError::Full`]; the tenant does not exist; the keystore's errors.
    pub async fn set<T: Setting>(
        &self,
        key: String,
        make: impl FnOnce(Option<&T>) -> Result<T, AccessError> + Send + 'static,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<Arc<T>>, AccessError> {
        let inner = Arc::clone(&self.inner);
        let change = tokio::spawn(async move { inner.set(&key, make, operation, now).await });
        change.await.map_err(|_| AccessError::Interrupted)?
    }

    /// Removes the setting with this store key. `now` is in Unix seconds.
    ///
    /// The change goes on to its end even if the returned future is dropped.
    ///
    /// # Errors
    /// [`AccessError::NoSuchSetting`]; the keystore's errors.
    pub async fn unset<T: Setting>(
        &self,
        key: String,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<()>, AccessError> {
        let inner = Arc::clone(&self.inner);
        let change = tokio::spawn(async move { inner.unset::<T>(&key, operation, now).await });
        change.await.map_err(|_| AccessError::Interrupted)?
    }
}

impl Inner {
    async fn set<T: Setting>(
        &self,
        key: &str,
        make: impl FnOnce(Option<&T>) -> Result<T, AccessError>,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<Arc<T>>, AccessError> {
        let _writer = self.writer.lock().await;
        let before = Arc::clone(self.current.load().settings());
        let known = before.get::<T>(key);
        let setting = make(known.map(AsRef::as_ref))?;
        if known.is_none() {
            before.check_room(&setting)?;
        }
        // The new settings have to suit one another before one of them is stored.
        let setting = Arc::new(setting);
        let next = before.with(key, Some(Arc::clone(&setting)))?;
        if let Some(tenant) = setting.tenant() {
            self.keystore.tenant(tenant).await?;
        }
        let present = self.keystore.system_record(key).await?;
        let outcome = self
            .keystore
            .change_system_record(
                key,
                present.map(|record| record.generation),
                Some(&setting.encode()),
                operation,
                now,
            )
            .await;
        let stored = self.publish_setting(key, &before, Some(next)).await?;
        Ok(outcome?.with(stored.unwrap_or(setting)))
    }

    async fn unset<T: Setting>(
        &self,
        key: &str,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<()>, AccessError> {
        let _writer = self.writer.lock().await;
        let before = Arc::clone(self.current.load().settings());
        let present = self.keystore.system_record(key).await?;
        // What is not there goes to the keystore too: it may be the repetition of a removal that succeeded.
        let expected = present
            .as_ref()
            .map_or(NO_GENERATION, |record| record.generation);
        let outcome = self
            .keystore
            .change_system_record(key, Some(expected), None, operation, now)
            .await;
        self.publish_setting::<T>(key, &before, None).await?;
        match outcome {
            Err(KeystoreError::Conflict { .. }) if present.is_none() => {
                Err(AccessError::NoSuchSetting { what: T::ONE })
            }
            outcome => Ok(outcome?),
        }
    }

    /// Publishes what the store has of a setting, whatever the outcome of its change was, and returns it. `made` are the settings
    /// with the one that was to be stored.
    async fn publish_setting<T: Setting>(
        &self,
        key: &str,
        before: &Settings,
        made: Option<Settings>,
    ) -> Result<Option<Arc<T>>, AccessError> {
        let stored = self.keystore.system_record(key).await?;
        let stored = stored.map(|record| T::decode(key, &record)).transpose()?;
        let known = before.get::<T>(key);
        if stored.as_ref() == known.map(AsRef::as_ref) {
            return Ok(known.cloned());
        }
        let as_made = |made: &Settings| made.get::<T>(key).map(AsRef::as_ref) == stored.as_ref();
        let next = match made.filter(as_made) {
            Some(made) => made,
            None => before.with(key, stored.map(Arc::new))?,
        };
        let next = Arc::new(next);
        self.publish(Difference::Settings(Arc::clone(&next)));
        T::published(&next, &self.jwt)?;
        Ok(next.get::<T>(key).cloned())
    }
}
