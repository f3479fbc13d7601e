//! The stored counts of a version.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use fieldkeep_crypto::ciphertext::Handle;
use prost::Message;

use crate::{
    error::{Damaged, ReadError},
    mutation::{Draft, Outcome},
    reader::Reader,
    records::UsageRecord,
    rotation::plan::Used,
    sealed,
    store::{CommitError, Operation},
    store_key,
    tenants::Tenant,
};

/// A record as it was read or written last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) used: Used,
    /// Zero: there is no record yet.
    generation: u64,
    revision: Option<u64>,
}

impl Reader {
    /// The recorded counts of a version; zero if there are none.
    pub(crate) async fn recorded(
        &self,
        tenant: &Tenant,
        handle: Handle,
        number: u32,
    ) -> Result<Recorded, ReadError> {
        let store_key = store_key::usage(handle, number);
        match self.store.get(&store_key).await? {
            None => Ok(Recorded::default()),
            Some(record) => {
                let (used, generation) = self.open_usage(tenant, &store_key, &record.value)?;
                Ok(Recorded {
                    used,
                    generation,
                    revision: Some(record.revision),
                })
            }
        }
    }

    /// Authenticates counts. Returns them with their generation.
    pub(crate) fn open_usage(
        &self,
        tenant: &Tenant,
        store_key: &[u8],
        value: &[u8],
    ) -> Result<(Used, u64), Damaged> {
        let record = sealed::open(&tenant.record_key, &self.system.store_id, store_key, value)?;
        let UsageRecord { messages, bytes } = UsageRecord::decode(record.payload)
            .map_err(|_| Damaged::new(store_key, "it does not parse"))?;
        Ok((Used { messages, bytes }, record.generation))
    }

    /// Replaces counts. `None`: the record is not the one that `recorded` is. An error may mean that it happened all the same.
    pub(crate) async fn record_usage(
        &self,
        tenant: &Tenant,
        (handle, number): (Handle, u32),
        recorded: Recorded,
        used: Used,
    ) -> Result<Option<Recorded>, CommitError> {
        let generation = recorded.generation.saturating_add(1);
        let payload = UsageRecord {
            messages: used.messages,
            bytes: used.bytes,
        };
        let sealed = sealed::seal(
            &tenant.record_key,
            &self.system.store_id,
            store_key::usage(handle, number),
            generation,
            &payload.encode_to_vec(),
        );
        let mut draft = Draft::new(Operation::ONCE, 0);
        draft.put(recorded.revision, sealed);
        let outcome = draft.commit(&*self.store).await?;
        self.meters.commits.fetch_add(1, Relaxed);
        match outcome {
            Outcome::Done { revision, .. } => Ok(Some(Recorded {
                used,
                generation,
                revision: Some(revision),
            })),
            // Nothing changed now. Nobody repeats these, but a repetition would not be a lease.
            Outcome::Repeated { .. } | Outcome::Conflict { .. } => Ok(None),
        }
    }

    /// The tenant of a key that is in use.
    pub(super) async fn tenant_in_use(&self, tenant: &str) -> Result<Arc<Tenant>, ReadError> {
        let missing = || Damaged::new(store_key::tenant(tenant), "it is missing");
        Ok(self.tenant(tenant).await?.ok_or_else(missing)?)
    }
}
