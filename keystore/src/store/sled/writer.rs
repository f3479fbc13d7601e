//! The writer thread: the only one that appends to the journal and changes the index.
//!
//! A group of commits goes: validate, append, fdatasync, apply, publish, reply. Nothing is told to anyone before it is
//! durable.

mod compaction;

use std::{
    fs::File,
    path::PathBuf,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use fieldkeep_journal::{AppendError, Journal, ReadError, SnapshotError};
use tokio::sync::{mpsc, oneshot};

use self::compaction::Compaction;
use super::{
    Shared, SledOptions,
    frame::{Body, Frame, Outcome, Position, State},
    group::{Group, Refusal},
    index::{Index, IndexError, Update, caught},
    recover::{Recovered, snapshot_dirs},
    snapshot::{Failure, Start},
};
use crate::store::{
    CommitError, Committed, StoreError, Transaction, operation_age::OperationClock,
};

/// The most commits of one group.
const GROUP_COMMITS: usize = 256;
/// A group takes no further commit once it has this many bytes of frames.
const GROUP_BYTES: usize = 1 << 20;
/// How many remembered operation ids each group looks at for expired ones, for each commit in it.
const EXPIRY_STEP: usize = 8;

/// After so many bytes of frames a close shortens the next open ([`write_sled_snapshot`]).
const SLED_SNAPSHOT_BYTES: u64 = 64 << 20;

type Reply<T, E> = oneshot::Sender<Result<T, E>>;

/// What the writer is asked to do.
pub(super) enum Request {
    Commit(Transaction, Reply<Committed, CommitError>),
    Compact(Reply<(), StoreError>),
    /// The snapshot thread has finished.
    Compacted(Result<Start, Failure>),
    Close(Reply<(), StoreError>),
}

/// Why the writer cannot go on. The process ends with it.
#[derive(Debug, thiserror::Error)]
enum Fatal {
    #[error("the index failed: {0}")]
    Index(#[from] IndexError),
    #[error("the journal failed: {0}")]
    Append(AppendError),
    #[error("the journal failed: {0}")]
    Read(#[from] ReadError),
    #[error("a snapshot failed: {0}")]
    Snapshot(#[from] Failure),
}

impl Fatal {
    /// Whether the next open must rebuild the index.
    fn is_of_index(&self) -> bool {
        matches!(
            self,
            Fatal::Index(_)
                | Fatal::Snapshot(Failure::Index(_) | Failure::Mismatch | Failure::Part(_))
                | Fatal::Snapshot(Failure::File(SnapshotError::Source(_)))
        )
    }
}

/// The writer's own state.
pub(super) struct Writer {
    requests: mpsc::Receiver<Request>,
    /// For the snapshot thread to report back; weak, so that it does not keep the writer running.
    sender: mpsc::WeakSender<Request>,
    shared: Arc<Shared>,
    index: Arc<Index>,
    journal: Journal,
    options: SledOptions,
    snapshot_dirs: Vec<PathBuf>,
    state: State,
    position: Position,
    /// The two newest snapshots, the newest first.
    generations: Vec<Start>,
    check_pending: bool,
    since_mark: SinceMark,
    /// What operation ids age by.
    clock: OperationClock,
    /// Up to where operation ids were looked at for expired ones.
    expiry_cursor: Vec<u8>,
    compaction: Option<Compaction>,
    /// No snapshot is tried before the journal has grown to this, since there was no space for the last one.
    retry_at_bytes: u64,
    now: u64,
    /// Bytes of frames since sled wrote its own snapshot, which it does when it is opened.
    since_opened_bytes: u64,
    _lock: File,
}

#[derive(Default)]
struct SinceMark {
    commits: u64,
    bytes: u64,
    /// When the first commit after the mark came, in Unix seconds.
    since: Option<u64>,
}

impl Writer {
    pub(super) fn new(
        recovered: Recovered,
        options: SledOptions,
        shared: Arc<Shared>,
        requests: mpsc::Receiver<Request>,
        sender: mpsc::WeakSender<Request>,
    ) -> Writer {
        let Recovered {
            layout,
            lock,
            journal,
            index,
            state,
            position,
            generations,
            check_pending,
            clock,
            ..
        } = recovered;
        Writer {
            requests,
            sender,
            shared,
            index,
            journal,
            snapshot_dirs: snapshot_dirs(&layout, &options),
            options,
            state,
            position,
            generations,
            check_pending,
            since_mark: SinceMark::default(),
            clock,
            expiry_cursor: Vec::new(),
            compaction: None,
            retry_at_bytes: 0,
            now: 0,
            since_opened_bytes: 0,
            _lock: lock,
        }
    }

    /// Runs until closed, dropped or failed. Everything that the thread holds, the lock too, is let go before a close is
    /// answered.
    pub(super) fn run(mut self) {
        let closing = match self.serve() {
            Ok(closing) => closing,
            Err(fatal) => {
                // While requests still queue: a close that finds nobody must know why.
                self.shared.fail(&fatal.to_string(), fatal.is_of_index());
                None
            }
        };
        // Before the snapshot thread is waited for: it may be about to report to a full queue.
        self.requests.close();
        if let Some(compaction) = self.compaction.take() {
            self.shared.stop_snapshot.store(true, Ordering::Relaxed);
            // It reports its own failure; there is nothing more to learn here.
            let _ = compaction.thread.join();
        }
        let Writer {
            shared,
            index,
            journal,
            options,
            since_opened_bytes,
            _lock,
            ..
        } = self;
        let last = journal.next() - 1;
        drop(index);
        let mut clean = closing.is_some();
        if clean && since_opened_bytes >= SLED_SNAPSHOT_BYTES {
            clean = write_sled_snapshot(&shared, options.cache_bytes);
        }
        drop(journal);
        // The very last step: whatever ended before it was no clean stop.
        if clean
            && !shared.has_failed()
            && let Err(error) = shared.layout.mark_clean(last)
        {
            tracing::warn!(%error, "the next start checks everything first, since this close could not be marked");
        }
        drop(_lock);
        if let Some(reply) = closing {
            // Nobody waits any more: nothing to do.
            let _ = reply.send(Ok(()));
        }
    }

    fn serve(&mut self) -> Result<Option<Reply<(), StoreError>>, Fatal> {
        // A close waits for the check, so that what it finds is not forgotten; only a drop ends it early.
        if self.check_pending && !self.check_in_background()? {
            return Ok(None);
        }
        while let Some(request) = self.requests.blocking_recv() {
            let mut request = Some(request);
            while let Some(next) = request.take() {
                match next {
                    Request::Commit(transaction, reply) => {
                        request = self.commit_group((transaction, reply))?
                    }
                    Request::Compact(reply) => self.compact(Some(reply))?,
                    Request::Compacted(result) => self.finish_compaction(result)?,
                    Request::Close(reply) => {
                        self.close()?;
                        return Ok(Some(reply));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The full check of a large index, with reads going on and commits waiting. Whether it was finished.
    fn check_in_background(&mut self) -> Result<bool, Fatal> {
        match self.index.recount(&self.shared.stop)? {
            None => Ok(false),
            Some(found) if found.same_records(&self.state) => {
                self.check_pending = false;
                Ok(true)
            }
            Some(_) => Err(IndexError::Mismatch.into()),
        }
    }

    /// Commits one transaction and all that are queued behind it. Returns the first request of another kind.
    fn commit_group(
        &mut self,
        first: (Transaction, Reply<Committed, CommitError>),
    ) -> Result<Option<Request>, Fatal> {
        let mut group = Group::new(self.state, self.position);
        let mut answers = Vec::new();
        let mut other = None;
        let mut next = Some(first);
        while let Some((transaction, reply)) = next.take() {
            if !transaction.operation.is_once() {
                self.now = transaction.now;
            }
            let verdict = caught(|| group.add(&self.index, transaction))?;
            answers.push((verdict, reply));
            let bytes: usize = group.frames.iter().map(Vec::len).sum();
            if answers.len() >= GROUP_COMMITS || bytes >= GROUP_BYTES {
                break;
            }
            match self.requests.try_recv() {
                Ok(Request::Commit(transaction, reply)) => next = Some((transaction, reply)),
                Ok(request) => other = Some(request),
                Err(_) => {}
            }
        }
        let stored = self.store(&mut group)?;
        for (verdict, reply) in answers {
            let answer = match stored {
                Ok(()) => verdict.durable(),
                Err(refusal) => verdict.refused(refusal),
            };
            // A caller that is gone can ask again with the same operation id.
            let _ = reply.send(answer);
        }
        self.keep_house()?;
        Ok(other)
    }

    /// Makes a group durable, applies and publishes it. A refusal: nothing has changed.
    fn store(&mut self, group: &mut Group) -> Result<Result<(), Refusal>, Fatal> {
        if group.frames.is_empty() {
            return Ok(Ok(()));
        }
        if !self.has_free(self.options.min_free_bytes) {
            return Ok(Err(Refusal::NoSpace));
        }
        let frames: Vec<&[u8]> = group.frames.iter().map(Vec::as_slice).collect();
        match self
            .journal
            .append_all(&frames)
            .and_then(|ticket| self.journal.wait_blocking(ticket))
        {
            Ok(()) => {}
            Err(error) => {
                let bytes = frames.iter().map(|frame| frame.len()).sum();
                return Refusal::of(error, bytes)
                    .map(Err)
                    .ok_or(Fatal::Append(error));
            }
        }
        group.times.drain(..).for_each(|time| self.clock.note(time));
        let mut update = group.update();
        self.forget_operations(&mut update, group.frames.len())?;
        caught(|| self.index.apply(update))?;
        self.since_mark.commits += group.frames.len() as u64;
        let bytes = group.position.since_snapshot_bytes - self.position.since_snapshot_bytes;
        self.since_mark.bytes += bytes;
        self.since_opened_bytes += bytes;
        self.since_mark.since.get_or_insert(self.now);
        self.state = group.state;
        self.position = group.position;
        self.shared.note_journal(self.journal.stats());
        self.shared
            .publish(self.state.revision, group.events.drain(..));
        Ok(Ok(()))
    }

    /// Whether the disk has so much free. What the system does not say is left to the first write that fails.
    fn has_free(&self, bytes: u64) -> bool {
        self.shared
            .layout
            .free_bytes()
            .is_none_or(|free| free >= bytes)
    }

    /// Looks at a few remembered operation ids, round and round, and forgets the expired ones. It looks at more than are
    /// added, so that their number stays in proportion to those of the last day.
    fn forget_operations(&mut self, update: &mut Update, commits: usize) -> Result<(), Fatal> {
        let look = commits * EXPIRY_STEP;
        let entries = caught(|| {
            self.index
                .outcomes(&self.expiry_cursor)
                .take(look)
                .collect::<Result<Vec<_>, _>>()
        })?;
        let round = entries.len() < look;
        let oldest_kept = self.clock.oldest_kept();
        for (id, outcome) in &entries {
            let expired =
                Outcome::decode(outcome).map_or(true, |outcome| outcome.time < oldest_kept);
            if expired {
                update.forget(id);
            }
        }
        self.expiry_cursor = match entries.last() {
            Some((id, _)) if !round => id.to_vec(),
            _ => Vec::new(),
        };
        Ok(())
    }

    /// What is due after a group: a mark, a snapshot.
    fn keep_house(&mut self) -> Result<(), Fatal> {
        let age = self
            .since_mark
            .since
            .map_or(0, |since| self.now.saturating_sub(since));
        let due = self.since_mark.commits >= self.options.mark_commits
            || self.since_mark.bytes >= self.options.mark_bytes
            || age >= self.options.mark_seconds;
        if due {
            self.mark(false)?;
        }
        let grown = self.position.since_snapshot_bytes;
        let limit = self
            .options
            .compact_bytes
            .max(self.state.live_bytes.saturating_mul(2));
        if grown > limit && grown >= self.retry_at_bytes && self.compaction.is_none() {
            self.compact(None)?;
        }
        Ok(())
    }

    /// Makes the index durable and says so in the journal. Whether the journal had space for it.
    fn mark(&mut self, wait: bool) -> Result<bool, Fatal> {
        caught(|| self.index.make_durable())?;
        self.since_mark = SinceMark::default();
        // All that was appended has been applied: this thread does both.
        let through = self.journal.next() - 1;
        let position = Position {
            sled_through: through,
            ..self.position
        };
        self.append(position, Body::Mark, wait)
    }

    /// Appends a frame that changes no record, and takes over its position. `false` if the journal did not take it.
    fn append(&mut self, position: Position, body: Body<'_>, wait: bool) -> Result<bool, Fatal> {
        let frame = Frame {
            position,
            state: self.state,
            body,
        }
        .encode();
        let appended = self.journal.append(&frame).and_then(|ticket| {
            if wait {
                self.journal.wait_blocking(ticket)
            } else {
                Ok(())
            }
        });
        match appended {
            Ok(()) => {
                self.position = position;
                self.position.since_snapshot_bytes += frame.len() as u64;
                Ok(true)
            }
            Err(error) if Refusal::of(error, frame.len()).is_some() => Ok(false),
            Err(error) => Err(Fatal::Append(error)),
        }
    }

    /// Everything queued before was done. Marks, so that the next open has nothing to replay.
    fn close(&mut self) -> Result<(), Fatal> {
        if self.position.sled_through + 1 < self.journal.next() - 1 || self.since_mark.commits > 0 {
            self.mark(true)?;
        } else {
            // sled may have written when it was opened.
            caught(|| self.index.make_durable())?;
        }
        Ok(())
    }
}

/// sled writes its own snapshot only while it is opened, and reads its whole log since the last one then. After much
/// was written, that is better done by the one who stops than by the next one who starts. Whether it went well.
fn write_sled_snapshot(shared: &Shared, cache_bytes: u64) -> bool {
    let opened = Index::open(&shared.layout.sled(), cache_bytes);
    // Everything is marked already; whatever is wrong, the next open finds it and rebuilds.
    let done = opened.and_then(|index| caught(|| index.make_durable()));
    if let Err(error) = &done {
        tracing::warn!(%error, "the index could not be opened again to shorten the next start");
    }
    done.is_ok()
}

impl Shared {
    fn publish(&self, revision: u64, commits: impl Iterator<Item = Vec<crate::store::Event>>) {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        for events in commits {
            watchers.publish(events);
        }
        // Inside the lock, so that a watcher that starts sees a revision and its events together.
        self.revision.store(revision, Ordering::Release);
    }
}
