//! What the rotation planner reads and keeps: which keys rotate by themselves, which of them changed, and the plan that is
//! being carried out. None of it leads to a key.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use fieldkeep_crypto::names::Name;
use fieldkeep_crypto::random;
use fieldkeep_keystore::info::{CandidatePage, KeyCursor, SystemRecord};
use fieldkeep_keystore::rotation::plan::Candidate;
use fieldkeep_keystore::store::Operation;

use crate::service::Core;
use crate::service::failure::Failure;

/// The most keys whose changes are told one by one. Of more, a new scan of all keys takes notice.
const MAX_CHANGED: usize = 4_096;

/// The system record of the plan that is being carried out.
const PLAN_KEY: &str = "sys/rotation-plan";

/// A key, by its tenant and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId {
    /// The tenant.
    pub tenant: Name,
    /// The key's name.
    pub key: Name,
}

/// Keys that changed in a way that may change when they rotate.
#[derive(Debug, Default)]
pub(super) struct ChangedKeys(Mutex<Changed>);

#[derive(Debug, Default)]
struct Changed {
    keys: HashSet<KeyId>,
    /// Whether there were more.
    more: bool,
}

impl Core {
    /// Microseconds since the Unix epoch.
    pub fn now_us(&self) -> u64 {
        self.clock.now_us()
    }

    /// Tells the planner to look at a key again.
    pub(crate) fn key_changed(&self, id: KeyId) {
        let mut changed = self
            .changed_keys
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if changed.keys.len() < MAX_CHANGED {
            changed.keys.insert(id);
        } else {
            changed.more = true;
        }
    }

    /// The keys that changed, or reached a limit of use, since this was asked last; and whether there were more than are
    /// told one by one.
    #[must_use]
    pub fn take_changed(&self) -> (HashSet<KeyId>, bool) {
        let Changed { mut keys, more } = {
            let mut changed = self
                .changed_keys
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *changed)
        };
        let reached = self.vault.records().take_limits_reached();
        keys.extend(
            reached
                .into_iter()
                .map(|(tenant, key)| KeyId { tenant, key }),
        );
        (keys, more)
    }

    /// The keys with a rotation policy among the next `limit` keys of all tenants.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn candidates(
        &self,
        after: Option<&KeyCursor>,
        limit: usize,
    ) -> Result<CandidatePage, Failure> {
        Ok(self.vault.records().candidates(after, limit).await?)
    }

    /// One key, if it has a rotation policy.
    ///
    /// # Errors
    /// Its records are damaged, or the store cannot be read.
    pub async fn candidate(&self, id: &KeyId) -> Result<Option<Candidate>, Failure> {
        let keystore = self.vault.records();
        Ok(keystore.candidate(&id.tenant, &id.key).await?)
    }

    /// The plan that was stored last.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn stored_plan(&self) -> Result<Option<SystemRecord>, Failure> {
        Ok(self.vault.records().system_record(PLAN_KEY).await?)
    }

    /// Stores a plan in place of the one with `generation`, and gives its own generation.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn store_plan(&self, generation: Option<u64>, plan: &[u8]) -> Result<u64, Failure> {
        let mut id = [0; 16];
        random::fill(&mut id)?;
        let operation = Operation {
            id,
            fingerprint: [0; 32],
        };
        let now_s = self.clock.now_us() / 1_000_000;
        self.vault
            .records()
            .change_system_record(PLAN_KEY, generation, Some(plan), operation, now_s)
            .await?;
        Ok(generation.unwrap_or(0) + 1)
    }
}
