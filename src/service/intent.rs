//! The intent of a management operation: on record before the operation is done.
//!
//! Nothing is committed by a call without it, since [`Intents::write`] alone gives the store's operation. Each operation has an
//! intent of its own, and a call has at most one: so an outcome is of one commit, and what became of it is one look-up.

use bytes::Bytes;
use fieldkeep_journal::{AppendOptions, Waiters};
use fieldkeep_keystore::store::Operation as StoreOperation;

use crate::audit::AuditError;
use crate::service::Core;
use crate::service::call::Call;
use crate::service::failure::Failure;
use crate::service::operation::Planned;
use crate::service::perform::append_in_time;
use crate::service::record::{self, Account};

/// What was begun, for the record of what became of it.
#[derive(Debug)]
pub(super) struct Intended {
    /// The id of the store's operation.
    pub(super) operation_id: [u8; 16],
    /// The store key of the record that it is about to change.
    pub(super) store_key: Bytes,
    /// The store's revision before.
    pub(super) revision: u64,
}

/// What writes intents.
#[derive(Clone, Copy)]
pub(super) struct Intents<'a> {
    pub(super) core: &'a Core,
    pub(super) waiters: &'a Waiters,
}

impl Intents<'_> {
    /// Writes that `call` is about to carry out `planned`, which changes the record under `store_key`, and gives the operation
    /// when that is durable. `rule` is what allowed it, and `account` what is known of it.
    ///
    /// # Errors
    /// [`Failure::AuditUnavailable`], or the store cannot say its revision: nothing may be done. The call has begun another
    /// operation, which is a defect.
    pub(super) async fn write(
        &self,
        call: &Call,
        rule: &str,
        planned: Planned,
        store_key: Bytes,
        account: &mut Account,
    ) -> Result<StoreOperation, Failure> {
        if account.intended().is_some() {
            return Err(Failure::internal("a call with two operations of the store"));
        }
        let Self { core, waiters } = *self;
        let operation = planned.into_inner();
        let store = core.vault.records().store();
        let intended = Intended {
            operation_id: operation.id,
            store_key,
            revision: store.revision().await.map_err(Failure::store)?,
        };
        let record = record::compose_intent(call, rule, core.clock.now_us(), account, &intended);
        let unavailable = |error: &AuditError| {
            core.audit_failed(error);
            Failure::AuditUnavailable
        };
        let append = || {
            core.unwritten
                .append(&core.audit, &record, AppendOptions::default())
        };
        let ticket = append_in_time(core, waiters, append).await;
        let ticket = ticket.map_err(|error| unavailable(&error))?;
        // From here on it may be on record, so the call owes an outcome.
        account.begun(intended);
        let committed = waiters.committed(ticket).await;
        committed.map_err(|error| unavailable(&AuditError::Append(error)))?;
        Ok(operation)
    }
}

impl Core {
    /// After a failed call: finds out whether its operation was committed all the same. What cannot be known now is left to the
    /// next start.
    pub(super) async fn look_after(&self, account: &mut Account, failure: &Failure) {
        let Some(intended) = account.intended() else {
            return;
        };
        // Then the id is that of another operation.
        if matches!(failure, Failure::RequestIdReused) {
            return;
        }
        let keystore = self.vault.records();
        let found = keystore.operation_revision(&intended.operation_id).await;
        match found {
            Ok(Some(revision)) => {
                let present = keystore.present_records(std::slice::from_ref(&intended.store_key));
                let present = present.await.unwrap_or_default();
                account.committed(revision, &present);
            }
            // A store that failed may have committed it, and not know that yet.
            Ok(None) if !matches!(failure, Failure::StoreUnavailable(_)) => {}
            Ok(None) | Err(_) => account.leave_open(),
        }
    }
}
