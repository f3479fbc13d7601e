//! The reader thread: sled reads block, so they run beside the runtime, never on it.
//!
//! A commit is answered after it was applied, and this thread reads what is applied, so every acknowledged commit
//! is seen.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{
    Shared,
    index::{Index, IndexError, caught},
};
use crate::store::{Record, StoreError};

/// What the reader is asked.
pub(super) enum Read {
    Get(Vec<u8>, oneshot::Sender<Result<Option<Record>, StoreError>>),
    Scan {
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: usize,
        reply: oneshot::Sender<Result<Page, StoreError>>,
    },
    Operation([u8; 16], oneshot::Sender<Result<Option<u64>, StoreError>>),
    Stop(oneshot::Sender<()>),
}

/// Records in the order of their keys.
pub(super) type Page = Vec<(Bytes, Record)>;

/// Answers until told to stop or nobody can ask any more.
pub(super) fn run(index: Arc<Index>, shared: &Shared, mut requests: mpsc::Receiver<Read>) {
    let stopped = loop {
        match requests.blocking_recv() {
            // An answer that nobody waits for any more is dropped.
            Some(Read::Get(key, reply)) => {
                let _ = reply.send(answer(shared, caught(|| index.get(&key))));
            }
            Some(Read::Operation(id, reply)) => {
                let revision = || Ok(index.outcome(&id)?.map(|outcome| outcome.revision));
                let _ = reply.send(answer(shared, caught(revision)));
            }
            Some(Read::Scan {
                prefix,
                after,
                limit,
                reply,
            }) => {
                let _ = reply.send(answer(
                    shared,
                    caught(|| index.scan(&prefix, after.as_deref(), limit)),
                ));
            }
            Some(Read::Stop(reply)) => break Some(reply),
            None => break None,
        }
    };
    requests.close();
    // The index goes before the answer, so that the directory can be opened again at once.
    drop(index);
    if let Some(reply) = stopped {
        let _ = reply.send(());
    }
}

/// A failed read is as fatal as a failed write: what sled would say next cannot be trusted.
fn answer<T>(shared: &Shared, result: Result<T, IndexError>) -> Result<T, StoreError> {
    result.map_err(|error| {
        shared.fail(&format!("the index failed: {error}"), true);
        match error {
            IndexError::Damaged(key) => StoreError::Damaged { key },
            other => StoreError::Io(std::io::Error::other(other)),
        }
    })
}
