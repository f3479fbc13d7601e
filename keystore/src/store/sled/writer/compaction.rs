//! Compaction, as the writer thread sees it: a snapshot is written by a thread of its own, and adopted once it is whole.

use std::{io, sync::Arc, thread::JoinHandle};

use fieldkeep_journal::SnapshotError;

use super::{Fatal, Reply, Request, Writer};
use crate::store::{
    StoreError,
    sled::{
        frame::{Body, Position},
        index::caught,
        snapshot::{self, Failure, Plan, Start},
    },
};

/// A snapshot that is being written.
pub(super) struct Compaction {
    pub(super) thread: JoinHandle<()>,
    waiting: Vec<Reply<(), StoreError>>,
    /// [`Position::since_snapshot_bytes`] when it started.
    start_bytes: u64,
}

impl Writer {
    /// Starts a snapshot, or joins the one that is being written.
    pub(super) fn compact(&mut self, reply: Option<Reply<(), StoreError>>) -> Result<(), Fatal> {
        if let Some(compaction) = &mut self.compaction {
            compaction.waiting.extend(reply);
            return Ok(());
        }
        let newest = self.generations.first();
        if newest.is_some_and(|newest| newest.revision == self.state.revision) {
            // Nothing has changed since; a second one would have the same name.
            reply.map(|reply| reply.send(Ok(())));
            return Ok(());
        }
        let start_bytes = self.position.since_snapshot_bytes;
        // Operation ids are counted, and the space looked at again, by the thread that writes.
        let needed =
            snapshot::file_bytes(&self.state, 0).saturating_add(self.options.min_free_bytes);
        if !self.has_free(needed) || !self.mark(false)? {
            self.put_off_compaction();
            reply.map(|reply| reply.send(Err(no_space())));
            return Ok(());
        }
        let start = Start {
            sequence: self.position.sled_through,
            revision: self.state.revision,
        };
        let (index, journal, dirs) = (
            Arc::clone(&self.index),
            self.journal.clone(),
            self.snapshot_dirs.clone(),
        );
        let (sender, shared) = (self.sender.clone(), Arc::clone(&self.shared));
        let plan = Plan {
            start,
            oldest_kept: self.clock.oldest_kept(),
            state: self.state,
            min_free_bytes: self.options.min_free_bytes,
        };
        let work = move || {
            let made =
                reported(|| snapshot::make(&dirs, &index, &journal, &plan, &shared.stop_snapshot));
            // The index must not outlive the writer, which waits for this thread.
            drop((index, journal));
            if let Some(sender) = sender.upgrade() {
                let _ = sender.blocking_send(Request::Compacted(made.map(|()| start)));
            }
        };
        let spawned = std::thread::Builder::new()
            .name("fieldkeep-snapshot".to_owned())
            .spawn(work);
        let thread = spawned.map_err(Failure::Io)?;
        self.compaction = Some(Compaction {
            thread,
            waiting: reply.into_iter().collect(),
            start_bytes,
        });
        Ok(())
    }

    /// Names a finished snapshot in the journal; only then what it replaces goes. Two generations stay.
    pub(super) fn finish_compaction(
        &mut self,
        result: Result<Start, Failure>,
    ) -> Result<(), Fatal> {
        let Some(Compaction {
            thread,
            waiting,
            start_bytes,
        }) = self.compaction.take()
        else {
            return Ok(());
        };
        let _ = thread.join();
        let done = match result {
            Ok(start) => self.adopt(start, start_bytes)?,
            Err(Failure::File(SnapshotError::NoSpace { .. })) => false,
            Err(failure) => return Err(failure.into()),
        };
        if !done {
            self.put_off_compaction();
        }
        for reply in waiting {
            let _ = reply.send(if done { Ok(()) } else { Err(no_space()) });
        }
        Ok(())
    }

    fn adopt(&mut self, start: Start, start_bytes: u64) -> Result<bool, Fatal> {
        let position = Position {
            snapshot: self.journal.next(),
            since_snapshot_bytes: self
                .position
                .since_snapshot_bytes
                .saturating_sub(start_bytes),
            ..self.position
        };
        let body = Body::Snapshot {
            start_sequence: start.sequence,
            start_revision: start.revision,
            previous: self.position.snapshot,
        };
        if !self.append(position, body, true)? {
            return Ok(false);
        }
        self.generations.insert(0, start);
        self.generations.truncate(2);
        if let [_, previous] = self.generations.as_slice() {
            self.journal.prune_before(previous.sequence)?;
        }
        for dir in &self.snapshot_dirs {
            snapshot::keep_only(dir, &self.generations).map_err(Failure::Io)?;
        }
        self.retry_at_bytes = 0;
        Ok(true)
    }

    fn put_off_compaction(&mut self) {
        tracing::warn!(
            "there is no space to compact the store's journal; free some space on its disk"
        );
        self.retry_at_bytes = self.position.since_snapshot_bytes + self.options.compact_bytes / 4;
    }
}

/// Runs what reads sled on the snapshot's thread. A panic there must be reported too: the writer and those who wait for the
/// snapshot would wait for ever.
fn reported(make: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    caught(|| Ok(make())).unwrap_or_else(|error| Err(Failure::Index(error)))
}

fn no_space() -> StoreError {
    StoreError::Io(io::Error::from(io::ErrorKind::StorageFull))
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, thread};

    use bytes::Bytes;
    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::store::{
        Operation, Transaction,
        sled::{
            FatalHook, MIN_SEGMENT_BYTES, Shared, SledOptions, SledStore, index::Update,
            layout::Layout, recover::recover,
        },
    };

    #[test]
    fn an_index_that_lost_a_record_ends_the_process_and_is_rebuilt() {
        let dir = tempfile::tempdir().unwrap();
        let causes = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&causes);
        let options = SledOptions {
            segment_bytes: MIN_SEGMENT_BYTES,
            on_fatal: FatalHook::new(move |cause| heard.lock().unwrap().push(cause.to_owned())),
            ..SledOptions::default()
        };
        let layout = Layout::new(dir.path());
        let recovered = recover(layout.clone(), &options).unwrap();
        let index = Arc::clone(&recovered.index);
        let shared = Arc::new(Shared::new(layout, &options, 0));
        let (writes, requests) = mpsc::channel(4);
        let writer = Writer::new(
            recovered,
            options.clone(),
            shared,
            requests,
            writes.downgrade(),
        );
        let writing = thread::spawn(move || writer.run());
        let (reply, answer) = oneshot::channel();
        let pair = |key: &'static str| (Bytes::from(key), Bytes::from("value"));
        let transaction = Transaction {
            operation: Operation::ONCE,
            expect: Vec::new(),
            puts: vec![pair("a"), pair("b")],
            deletes: Vec::new(),
            now: 1,
        };
        let commit = Request::Commit(transaction, reply);
        assert!(writes.blocking_send(commit).is_ok());
        answer.blocking_recv().unwrap().unwrap();

        let mut damage = Update::default();
        damage.delete(b"a");
        index.apply(damage).unwrap();
        drop(index);
        let (reply, answer) = oneshot::channel();
        assert!(writes.blocking_send(Request::Compact(reply)).is_ok());
        assert!(
            answer.blocking_recv().is_err(),
            "nobody is told that it went well"
        );
        writing.join().unwrap();
        let causes = causes.lock().unwrap();
        assert_eq!(
            *causes,
            ["a snapshot failed: records and set hash are not those of the journal"]
        );

        let (store, report) = SledStore::open(dir.path(), options).unwrap();
        assert_eq!(report.rebuilt.as_ref(), causes.first());
        drop(store);
        let index =
            crate::store::sled::index::Index::open(&Layout::new(dir.path()).sled(), 1 << 20);
        assert!(index.unwrap().get(b"a").unwrap().is_some());
    }

    #[test]
    fn a_panic_of_the_index_is_reported_and_asks_for_a_rebuild() {
        let failure = reported(|| panic!("sled")).unwrap_err();
        assert!(failure.to_string().contains("panicked: sled"), "{failure}");
        assert!(Fatal::from(failure).is_of_index());
        assert!(reported(|| Ok(())).is_ok());
    }
}
