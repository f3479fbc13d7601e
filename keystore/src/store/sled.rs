//! The embedded store: **the recovery journal is the truth and sled is its index** (design, section 4).
//!
//! sled 0.34.7 alone does not keep what it acknowledged: its `flush` does not wait for the disk, and a crash at the
//! wrong moment makes it unable to open. So:
//!
//! - One writer thread validates a group of transactions, appends it to the journal, waits for the
//!   fdatasync, applies it to sled, and only then answers and publishes. Reads run on a thread of their own.
//! - Now and then, and on close, sled is made durable on our own descriptors, and a mark in the journal says so. Opening replays
//!   everything after the last mark, whether or not sled has it: frames hold absolute values.
//! - Every frame carries the number of records and their set hash. sled must agree on opening, or it is moved aside
//!   and rebuilt from the newest snapshot and the journal. A damaged journal is never repaired silently: the journal crate
//!   refuses to open it, and so does this store.
//! - When the journal has grown, all records go into a snapshot, which is read back and checked before anything older is
//!   removed. Two generations stay.
//!
//! **How thorough the check at open is.** Every record is read, counted and hashed before `open` returns, whatever the
//! size, unless the last stop is *proven* to have been clean: the last step of [`Store::close`] is a file `clean`, which is
//! removed before sled is opened again. Only after such a stop, and only from
//! [`SledOptions::background_check_records`] on, is the same done right after `open` has returned, since reading two million
//! records takes longer than a start may: reads are answered meanwhile from an index that was whole when it was closed,
//! **commits wait for it**, so that no decision is ever made durable on an index that is missing something, and so does a
//! close. If it fails, a marker is left and the process ends; the next open rebuilds.
//!
//! **Operation ids** are in no count and no set hash. After a stop that was not clean, each id that the newest snapshot and the
//! journal's frames after it still name is looked up in sled and put back if it is missing.

mod directory;
mod error;
pub mod frame;
mod group;
mod index;
mod layout;
mod operations;
mod reader;
mod rebuild;
mod recover;
pub mod set_hash;
pub mod snapshot;
mod writer;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

pub use self::{error::StoreOpenError, layout::FORMAT_VERSION};
use self::{
    layout::Layout,
    reader::Read,
    writer::{Request, Writer},
};
use super::{
    CommitError, Committed, Record, Store, StoreError, Transaction, limits,
    watch::{Watch, Watchers},
};

/// How many requests may wait for each of the two threads; further callers wait their turn.
const QUEUE: usize = 1024;

/// The smallest segment of the journal, in bytes.
pub const MIN_SEGMENT_BYTES: u64 = 4 << 20;

/// How a [`SledStore`] behaves. The defaults are for production.
#[derive(Clone, Debug)]
pub struct SledOptions {
    /// Make the store if the directory is missing or has none. Default: yes.
    pub create: bool,
    /// A directory on another disk that gets the journal and the snapshots too; an acknowledgement then means both.
    pub mirror: Option<PathBuf>,
    /// The size of a journal segment, in bytes; at least [`MIN_SEGMENT_BYTES`], so that every group of transactions fits.
    /// Default 16 MiB.
    pub segment_bytes: u64,
    /// sled's cache, in bytes; it takes more memory than it counts. Default 32 MiB.
    pub cache_bytes: u64,
    /// sled is made durable after so many commits. Default 4096. What came after the last time is what a start after a crash
    /// has to replay, at some 15,000 records a second.
    pub mark_commits: u64,
    /// sled is made durable after so many bytes of frames. Default 4 MiB.
    pub mark_bytes: u64,
    /// sled is made durable by the first commit after so many seconds. Default 60.
    pub mark_seconds: u64,
    /// A snapshot is made once the journal has grown by more than this, and by more than twice the records. Default
    /// 64 MiB.
    pub compact_bytes: u64,
    /// Commits are refused with [`CommitError::NoSpace`] while the disk of the index has less than this free, in bytes: sled
    /// cannot live through a full disk, and opening again needs some room. Default 32 MiB.
    pub min_free_bytes: u64,
    /// From so many records on, the full check runs after `open` has returned, if the last stop was clean. Default
    /// 200,000.
    pub background_check_records: u64,
    /// What ends the process when its disk fails.
    pub on_fatal: FatalHook,
}

impl Default for SledOptions {
    fn default() -> Self {
        SledOptions {
            create: true,
            mirror: None,
            segment_bytes: 16 << 20,
            cache_bytes: 32 << 20,
            mark_commits: 4096,
            mark_bytes: 4 << 20,
            mark_seconds: 60,
            compact_bytes: 64 << 20,
            min_free_bytes: 32 << 20,
            background_check_records: 200_000,
            on_fatal: FatalHook::default(),
        }
    }
}

/// Called when a disk has failed or the index is found wrong while the store is serving. Nothing is retried: what the
/// disk holds is unknown until the store is opened again. If a hook returns, which only a test's should, the store is closed
/// to every caller.
#[derive(Clone)]
pub struct FatalHook(Arc<dyn Fn(&str) + Send + Sync>);

impl FatalHook {
    /// A hook that does what `hook` does; it gets the cause.
    pub fn new(hook: impl Fn(&str) + Send + Sync + 'static) -> Self {
        FatalHook(Arc::new(hook))
    }

    fn call(&self, cause: &str) {
        (self.0)(cause);
    }
}

impl Default for FatalHook {
    /// Prints the cause and exits with status 74 (`EX_IOERR`).
    fn default() -> Self {
        FatalHook::new(|cause| {
            eprintln!(
                "fatal: {cause}; ending the process; check the disk, then start again: recovery runs by itself"
            );
            std::process::exit(74);
        })
    }
}

impl fmt::Debug for FatalHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FatalHook")
    }
}

/// What opening found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenReport {
    /// The store was made now.
    pub created: bool,
    /// The newest revision.
    pub revision: u64,
    /// How many records there are.
    pub records: u64,
    /// How many commits were replayed from the journal.
    pub replayed_frames: u64,
    /// How many frames at the journal's end were torn by a crash and dropped; none had been acknowledged.
    pub torn_frames_dropped: u64,
    /// The journal's directory, or its mirror, that was behind or damaged and has been repaired from the other one.
    pub journal_repaired: Option<PathBuf>,
    /// What the journal keeps about what was acknowledged was not readable, and was written anew; the journal was whole.
    pub journal_mark_replaced: bool,
    /// Why the index was rebuilt, if it was.
    pub rebuilt: Option<String>,
    /// The full check goes on after `open`; commits and a close wait for it.
    pub check_pending: bool,
}

/// What both threads and all callers share.
struct Shared {
    revision: AtomicU64,
    watchers: Mutex<Watchers>,
    /// Ends the check that runs after open, when the store is dropped without a close.
    stop: AtomicBool,
    /// Ends a snapshot that is being written.
    stop_snapshot: AtomicBool,
    failed: AtomicBool,
    /// The journal's counts after the last group; the journal itself belongs to the writer.
    journal_stats: Mutex<fieldkeep_journal::Stats>,
    layout: Layout,
    on_fatal: FatalHook,
}

impl Shared {
    fn new(layout: Layout, options: &SledOptions, revision: u64) -> Self {
        Shared {
            revision: AtomicU64::new(revision),
            watchers: Mutex::new(Watchers::new(revision)),
            stop: AtomicBool::new(false),
            stop_snapshot: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            journal_stats: Mutex::default(),
            layout,
            on_fatal: options.on_fatal.clone(),
        }
    }

    /// Ends the process, after leaving word for the next open.
    fn fail(&self, cause: &str, rebuild: bool) {
        if self.failed.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut cause = cause.to_owned();
        if rebuild && let Err(error) = self.layout.mark_for_rebuild(&cause) {
            cause = format!("{cause} (and the marker for a rebuild could not be written: {error})");
        }
        self.watchers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .close();
        self.on_fatal.call(&cause);
    }

    fn note_journal(&self, stats: fieldkeep_journal::Stats) {
        *self
            .journal_stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = stats;
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }
}

/// The embedded store. Dropping it without [`Store::close`] loses nothing; the next open has more to replay.
pub struct SledStore {
    shared: Arc<Shared>,
    reads: mpsc::Sender<Read>,
    writes: mpsc::Sender<Request>,
    /// Last, so that the threads are waited for after their queues are gone.
    _threads: Threads,
}

/// Waits for its threads when dropped, so that the directory is free afterwards.
struct Threads(Vec<JoinHandle<()>>);

impl Drop for Threads {
    fn drop(&mut self) {
        for thread in self.0.drain(..) {
            // A thread that panicked has nothing left to say.
            let _ = thread.join();
        }
    }
}

impl SledStore {
    /// Opens the store in `dir`, or makes it ([`SledOptions::create`]). Blocks while it recovers.
    ///
    /// # Errors
    /// [`StoreOpenError`], each with what to do.
    pub fn open(
        dir: &Path,
        options: SledOptions,
    ) -> Result<(SledStore, OpenReport), StoreOpenError> {
        let failed = |source| StoreOpenError::io("start a thread for", dir, source);
        let layout = Layout::new(dir);
        // Before the queues, so that on an early return it waits for the threads after those are gone.
        let mut threads = Threads(Vec::new());
        let (reads, read_requests) = mpsc::channel(QUEUE);
        let (writes, write_requests) = mpsc::channel(QUEUE);
        let sender = writes.downgrade();
        let (opened, opening) = std::sync::mpsc::sync_channel(1);
        // The writer's own thread opens sled. What the caller's thread had allocated for a large index would be freed by
        // the writer's and not be used again, since an allocator keeps memory by thread: some 80 MiB at two million records.
        let write = move || match recover::recover(layout.clone(), &options) {
            Ok(recovered) => {
                let report = recovered.report.clone();
                let shared = Arc::new(Shared::new(layout, &options, report.revision));
                let parts = (Arc::clone(&shared), Arc::clone(&recovered.index), report);
                let writer = Writer::new(recovered, options, shared, write_requests, sender);
                if opened.send(Ok(parts)).is_ok() {
                    writer.run();
                }
            }
            // Whoever opens waits for it.
            Err(error) => drop(opened.send(Err(error))),
        };
        threads
            .0
            .push(spawn("fieldkeep-write", write).map_err(failed)?);
        let panicked = |_| StoreOpenError::Index {
            why: "the thread that opened it panicked".to_owned(),
        };
        let (shared, index, report) = opening.recv().map_err(panicked)??;
        let store = Arc::clone(&shared);
        let read = move || reader::run(index, &store, read_requests);
        threads
            .0
            .push(spawn("fieldkeep-read", read).map_err(failed)?);
        Ok((
            SledStore {
                shared,
                reads,
                writes,
                _threads: threads,
            },
            report,
        ))
    }

    /// What the recovery journal did since it was opened, as of the last commit.
    pub fn journal_stats(&self) -> fieldkeep_journal::Stats {
        *self
            .shared
            .journal_stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a snapshot of all records now, and removes what is older than the one before it.
    ///
    /// # Errors
    /// [`StoreError::Io`] of kind `StorageFull` if there was no space; nothing has changed then.
    pub async fn compact(&self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.writes
            .send(Request::Compact(reply))
            .await
            .map_err(|_| self.gone())?;
        answer.await.map_err(|_| self.gone())?
    }

    /// Why a thread does not answer any more.
    fn gone(&self) -> StoreError {
        if self.shared.has_failed() {
            StoreError::Io(failed())
        } else {
            StoreError::Closed
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

fn failed() -> io::Error {
    io::Error::other("the store has failed")
}

#[async_trait]
impl Store for SledStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Record>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.reads
            .send(Read::Get(key.to_vec(), reply))
            .await
            .map_err(|_| self.gone())?;
        answer.await.map_err(|_| self.gone())?
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Record)>, StoreError> {
        limits::check_scan(limit)?;
        let (reply, answer) = oneshot::channel();
        let scan = Read::Scan {
            prefix: prefix.to_vec(),
            after: after.map(<[u8]>::to_vec),
            limit,
            reply,
        };
        self.reads.send(scan).await.map_err(|_| self.gone())?;
        answer.await.map_err(|_| self.gone())?
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        limits::check_transaction(&transaction)?;
        let gone = || {
            if self.shared.has_failed() {
                CommitError::Io(failed())
            } else {
                CommitError::Closed
            }
        };
        let (reply, answer) = oneshot::channel();
        self.writes
            .send(Request::Commit(transaction, reply))
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    async fn operation(&self, id: &[u8; 16]) -> Result<Option<u64>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.reads
            .send(Read::Operation(*id, reply))
            .await
            .map_err(|_| self.gone())?;
        answer.await.map_err(|_| self.gone())?
    }

    async fn watch(&self, from: u64) -> Result<Watch, StoreError> {
        self.shared
            .watchers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .subscribe(from)
    }

    async fn revision(&self) -> Result<u64, StoreError> {
        if self.writes.is_closed() {
            return Err(self.gone());
        }
        Ok(self.shared.revision.load(Ordering::Acquire))
    }

    async fn close(&self) -> Result<(), StoreError> {
        let (reply, stopped) = oneshot::channel();
        if self.reads.send(Read::Stop(reply)).await.is_ok() {
            // If the thread is gone it has stopped, too.
            let _ = stopped.await;
        }
        let (reply, answer) = oneshot::channel();
        let closed = match self.writes.send(Request::Close(reply)).await {
            Ok(()) => answer.await.unwrap_or(Ok(())),
            Err(_) => Ok(()),
        };
        self.shared
            .watchers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .close();
        if self.shared.has_failed() {
            Err(StoreError::Io(failed()))
        } else {
            closed
        }
    }

    fn kind(&self) -> &'static str {
        "sled"
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for SledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SledStore({})", self.shared.layout.dir().display())
    }
}
