//! How a change is committed: drafts of transactions, retries after conflicts, and repeated operations.

use bytes::Bytes;
use fieldkeep_crypto::{ciphertext::Handle, wrap::StoreId};
use ring::digest::{Context, SHA256};

use crate::{
    error::KeystoreError,
    info::{Change, Changed},
    sealed::Sealed,
    store::{CommitError, Operation, Store, Transaction},
    store_key,
};

/// How often a change is computed again because another one came first.
pub(crate) const MAX_ATTEMPTS: usize = 64;

/// A transaction being put together, with its entries for the audit trail.
pub(crate) struct Draft {
    transaction: Transaction,
    changes: Vec<Change>,
}

/// What became of a draft.
pub(crate) enum Outcome {
    /// It was committed now.
    Done { revision: u64, changes: Vec<Change> },
    /// This operation was committed before.
    Repeated { revision: u64 },
    /// This record is not as expected.
    Conflict { key: Bytes },
}

impl Draft {
    pub(crate) fn new(operation: Operation, now: u64) -> Self {
        Draft {
            transaction: Transaction {
                operation,
                expect: Vec::new(),
                puts: Vec::new(),
                deletes: Vec::new(),
                now,
            },
            changes: Vec::new(),
        }
    }

    /// Puts a record whose present revision is `expected`; `None`: that is absent.
    pub(crate) fn put(&mut self, expected: Option<u64>, sealed: Sealed) {
        self.transaction
            .expect
            .push((sealed.store_key.clone(), expected));
        self.transaction.puts.push((sealed.store_key, sealed.value));
        self.changes.push(sealed.change);
    }

    /// Puts a new record that is protected by the keys wrapped in it, and not listed in the audit trail.
    pub(crate) fn put_plain(&mut self, store_key: Bytes, value: Bytes) {
        self.transaction.expect.push((store_key.clone(), None));
        self.transaction.puts.push((store_key, value));
    }

    pub(crate) async fn commit(self, store: &dyn Store) -> Result<Outcome, CommitError> {
        match store.commit(self.transaction).await {
            Ok(committed) if committed.repeated => Ok(Outcome::Repeated {
                revision: committed.revision,
            }),
            Ok(committed) => Ok(Outcome::Done {
                revision: committed.revision,
                changes: self.changes,
            }),
            Err(CommitError::Conflict { key }) => Ok(Outcome::Conflict { key }),
            Err(error) => Err(error),
        }
    }
}

/// The operation of a planned act on a version of a key: the same each time. The first 16 bytes of SHA-256 over the act (and
/// a zero byte), store id, handle and version are its id, and all of it is its fingerprint.
pub(crate) fn derive_operation(
    act: &str,
    store_id: &StoreId,
    handle: Handle,
    version: u32,
) -> Operation {
    let mut context = Context::new(&SHA256);
    context.update(act.as_bytes());
    context.update(&[0]);
    context.update(store_id.as_bytes());
    context.update(handle.as_bytes());
    context.update(&version.to_be_bytes());
    let digest = context.finish();
    let mut operation = Operation {
        id: [0; 16],
        fingerprint: [0; 32],
    };
    for (to, from) in operation.id.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    for (to, from) in operation.fingerprint.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    operation
}

/// The revision of an operation that was committed before; `None` if it was not. Asked when a change is refused, since
/// the refusal may be the effect of its own first run.
pub(crate) async fn committed_before(
    store: &dyn Store,
    operation: Operation,
    now: u64,
) -> Result<Option<u64>, KeystoreError> {
    let mut probe = Draft::new(operation, now);
    // Operation ids are looked up before expectations, and this expectation never holds: an initialised store has
    // this record. So the probe finds a committed operation, and never commits one.
    probe
        .transaction
        .expect
        .push((Bytes::from_static(store_key::META.as_bytes()), None));
    match probe.commit(store).await? {
        Outcome::Repeated { revision } => Ok(Some(revision)),
        Outcome::Done { .. } | Outcome::Conflict { .. } => Ok(None),
    }
}

impl<T> Changed<T> {
    pub(crate) fn done(value: T, revision: u64, changes: Vec<Change>) -> Self {
        Changed {
            value,
            revision,
            repeated: false,
            changes,
        }
    }

    pub(crate) fn repeated(value: T, revision: u64) -> Self {
        Changed {
            value,
            revision,
            repeated: true,
            changes: Vec::new(),
        }
    }
}
