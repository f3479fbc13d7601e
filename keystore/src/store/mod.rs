//! The store: a small ordered map of bytes with one revision counter, compare-and-commit transactions
//! and a stream of changes (design, section 4).
//!
//! What every store promises, and the module `conformance` checks (feature `conformance`):
//! - A commit is all or nothing, and gets the next revision of the one store-wide counter (1, 2, 3, ...).
//!   A record carries the revision of the commit that last put it.
//! - All concurrency is compare-and-commit: a transaction names the revisions that it was computed from.
//! - A commit that was answered with success is never lost, and every later read on any task sees it.
//! - The operation id makes a retry after an unknown outcome safe: repeated, it gets the first outcome.
//!   Ids are kept for at least [`OPERATION_KEPT_SECONDS`], by the lowest time that the last 64 commits passed in, so that one
//!   commit with a clock that is ahead forgets nothing.
//! - Everything is bounded ([`limits`]).

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod limits;
pub mod memory;
mod operation_age;
pub mod sled;
pub mod watch;

use std::{fmt, io};

use async_trait::async_trait;
use bytes::Bytes;
use fieldkeep_crypto::random::{self, RandomError};

use self::watch::Watch;

/// How long the outcome of an operation id is kept at least, in seconds of [`Transaction::now`].
pub const OPERATION_KEPT_SECONDS: u64 = 24 * 60 * 60;

/// A stored value with the revision of the commit that put it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The value, as it was put.
    pub value: Bytes,
    /// The revision of the commit that put this value; what a later expectation names.
    pub revision: u64,
}

/// Names one intended change, so that a retry is not a second change.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operation {
    /// Unique for each intended change: random, or derived from the caller's request id. Not all zeros, which is
    /// [`Operation::ONCE`].
    pub id: [u8; 16],
    /// Says what the change is (a hash of the request). The same id with another fingerprint is
    /// [`CommitError::OperationReused`].
    pub fingerprint: [u8; 32],
}

impl Operation {
    /// A change that nobody repeats: its outcome is not remembered, and [`Transaction::now`] does not count. For many small
    /// commits, which would fill the store with operation ids.
    pub const ONCE: Operation = Operation {
        id: [0; 16],
        fingerprint: [0; 32],
    };

    /// A new change with a random id, which nobody repeats under the same one.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub fn make() -> Result<Operation, RandomError> {
        let mut id = [0; 16];
        random::fill(&mut id)?;
        Ok(Operation {
            id,
            fingerprint: [0; 32],
        })
    }

    pub(crate) fn is_once(&self) -> bool {
        self.id == Self::ONCE.id
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Operation(")?;
        for byte in self.id {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

/// A change that happens wholly or not at all.
///
/// A key may be named once among `puts` and `deletes` together, and once in `expect`. Deleting an absent
/// key is allowed and changes nothing. A transaction may change nothing; it still gets a revision.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Which change this is, for retries.
    pub operation: Operation,
    /// What must be so for the transaction to happen: the record's revision is exactly this, or with `None`
    /// there is no such record.
    pub expect: Vec<(Bytes, Option<u64>)>,
    /// Keys and their new values.
    pub puts: Vec<(Bytes, Bytes)>,
    /// Keys to remove.
    pub deletes: Vec<Bytes>,
    /// The present time in Unix seconds, from which operation ids age.
    pub now: u64,
}

/// The outcome of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The revision of the change.
    pub revision: u64,
    /// This operation had been committed before; `revision` is the first outcome's, and nothing changed now.
    pub repeated: bool,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The commit that made the change.
    pub revision: u64,
    /// Which key.
    pub key: Bytes,
    /// The new value; `None` if the key was deleted.
    pub value: Option<Bytes>,
}

/// Why a transaction was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// An expectation does not hold. Read again, compute again, commit again.
    #[error("the record `{}` has changed meanwhile", key.escape_ascii())]
    Conflict {
        /// The first key in `expect` whose expectation failed.
        key: Bytes,
    },
    /// The operation id was used before, for a change with another fingerprint.
    #[error("this operation id was used before for a different change")]
    OperationReused,
    /// A limit of [`limits`] is exceeded.
    #[error("the transaction's {what} is {actual}, and the limit is {limit}")]
    TooLarge {
        /// What is too large, with its unit.
        what: &'static str,
        /// How large it is.
        actual: usize,
        /// How large it may be.
        limit: usize,
    },
    /// The transaction contradicts itself or names an empty key.
    #[error("the transaction is not valid: {0}")]
    Invalid(&'static str),
    /// The disk has no room for the change. Nothing happened; free some space and try again.
    #[error("no space left for the store's journal: free some space on its disk, then try again")]
    NoSpace,
    /// The journal takes nothing for the moment. Nothing happened; try again.
    #[error("the store's journal is busy; try again")]
    Busy,
    /// The store is closed or closing.
    #[error("the store is closed")]
    Closed,
    /// The disk failed. Whether the change happened is not known until the store is opened again.
    #[error("the store's disk failed")]
    Io(#[source] io::Error),
}

/// Why a read, a watch or a close failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A watch asked for changes that are not kept any more. Read everything, then watch from that revision.
    #[error("changes up to revision {oldest} are not kept any more")]
    Compacted {
        /// The oldest revision that a watch can start from.
        oldest: u64,
    },
    /// This watcher fell too far behind and was dropped. Every commit was delivered wholly or not at all:
    /// watch again from the last revision seen.
    #[error("the watcher fell too far behind")]
    Lagged,
    /// More watchers than [`limits::MAX_WATCHERS`].
    #[error("too many watchers: the limit is {limit}")]
    TooManyWatchers {
        /// The limit.
        limit: usize,
    },
    /// A scan asked for more records at once than [`limits::MAX_SCAN`].
    #[error("a scan of {asked} records at once is too much: the limit is {limit}")]
    ScanTooLarge {
        /// How many were asked for.
        asked: usize,
        /// The limit.
        limit: usize,
    },
    /// A stored value is too short to be one of ours.
    #[error("the stored value of `{}` is damaged", key.escape_ascii())]
    Damaged {
        /// Whose value.
        key: Bytes,
    },
    /// The store is closed or closing.
    #[error("the store is closed")]
    Closed,
    /// The disk failed.
    #[error("the store's disk failed")]
    Io(#[source] io::Error),
}

/// A store. See the module for what it promises.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The record under `key`, or `None`.
    async fn get(&self, key: &[u8]) -> Result<Option<Record>, StoreError>;

    /// Up to `limit` records whose keys begin with `prefix` and are greater than `after`, in the order of their
    /// keys. Fewer than `limit` means that there are no more. A page is what the store held at one moment between
    /// the call and its return; pages of one listing are not one moment.
    ///
    /// `limit` is at most [`limits::MAX_SCAN`].
    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Record)>, StoreError>;

    /// Commits a transaction. The operation id is looked up before the expectations, so that a repeated
    /// operation succeeds although its own first run made its expectations untrue.
    ///
    /// Dropping the future does not take the transaction back; repeat it with the same operation id to learn
    /// the outcome.
    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError>;

    /// The revision of the commit with this operation id; `None` if there was none, or if its id is not kept any more. What is
    /// being committed meanwhile may be seen or not.
    async fn operation(&self, id: &[u8; 16]) -> Result<Option<u64>, StoreError>;

    /// Every change with a revision greater than `from`, in order and without gaps.
    async fn watch(&self, from: u64) -> Result<Watch, StoreError>;

    /// The revision of the newest commit; 0 if there has been none.
    async fn revision(&self) -> Result<u64, StoreError>;

    /// Finishes what was queued, makes it durable and stops. Further calls of other methods fail with `Closed`;
    /// closing again is allowed.
    async fn close(&self) -> Result<(), StoreError>;

    /// `memory` or `sled`.
    fn kind(&self) -> &'static str;
}
