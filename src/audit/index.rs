//! The sidecar indexes of complete record segments, and the thread that makes them, with the tiles of the same segment.
//!
//! Neither is evidence. What is missing is made again, and a query that finds no index scans.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fieldkeep_audit::filter::Filter;
use fieldkeep_audit::index::{Index, IndexBuilder};
use fieldkeep_audit::query::walk::walk;
use fieldkeep_audit::query::{self, Page, QueryError};
use fieldkeep_audit::segment;
use fieldkeep_journal::{Journal, Position, ReadError};
use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::tile::SEGMENT_RECORDS;

use super::seal::Heads;
use super::tree::Tiles;
use super::{AuditError, AuditLog};

/// The directory of the indexes, in that of the trail.
const INDEX_DIR: &str = "index";
/// How often the thread looks whether a segment is complete.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How much later it tries again after a failure, in looks.
const LOOKS_AFTER_FAILURE: u32 = 30;
/// What the thread adds to its niceness: calls are more urgent.
const NICENESS: i32 = 15;

fn path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:016x}.idx"))
}

/// The thread that makes indexes and tiles. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Indexer {
    dir: PathBuf,
    stop: Arc<Stop>,
    running: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Stop {
    wanted: Mutex<bool>,
    said: Condvar,
}

impl Stop {
    /// Waits for `patience` unless the thread is to end; whether it is.
    fn wait(&self, patience: Duration) -> bool {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let (wanted, _) = self
            .said
            .wait_timeout_while(wanted, patience, |wanted| !*wanted)
            .unwrap_or_else(PoisonError::into_inner);
        *wanted
    }
}

impl Indexer {
    /// Starts on the trail in `dir`.
    ///
    /// # Errors
    /// The directory cannot be made, or there is no thread to be had.
    pub(super) fn start(
        dir: &Path,
        journal: Journal,
        tiles: Arc<Tiles>,
        heads: Arc<Heads>,
    ) -> io::Result<Indexer> {
        let dir = dir.join(INDEX_DIR);
        fs::create_dir_all(&dir)?;
        let stop = Arc::new(Stop::default());
        let maker = Maker {
            dir: dir.clone(),
            stop: Arc::clone(&stop),
            journal,
            tiles,
            heads,
        };
        let running = thread::Builder::new()
            .name("audit-index".to_owned())
            .spawn(move || maker.run())?;
        Ok(Indexer {
            dir,
            stop,
            running: Some(running),
        })
    }

    /// The index of a segment, if it has a whole one.
    fn open(&self, segment: u64) -> Option<Arc<Index>> {
        let path = path(&self.dir, segment);
        let bytes = fs::read(&path).ok()?;
        match Index::open(segment, bytes) {
            Ok(index) => Some(Arc::new(index)),
            Err(error) => {
                // The thread looks for what is missing when it starts.
                tracing::warn!(%error, "an index of the audit trail is damaged; the next start makes it again");
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!(%error, path = %path.display(), "the damaged index was not removed");
                }
                None
            }
        }
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        *self
            .stop
            .wanted
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.said.notify_all();
        if let Some(running) = self.running.take() {
            // What a thread that panicked did not make, the next start makes.
            let _ = running.join();
        }
    }
}

struct Maker {
    dir: PathBuf,
    stop: Arc<Stop>,
    journal: Journal,
    tiles: Arc<Tiles>,
    heads: Arc<Heads>,
}

impl Maker {
    fn run(self) {
        // Without it the thread is only less polite.
        let _ = rustix::process::nice(NICENESS);
        let mut next = (self.journal.first().saturating_sub(1)).div_ceil(SEGMENT_RECORDS);
        let mut patience = Duration::ZERO;
        while !self.stop.wait(patience) {
            patience = LOOK_EVERY;
            let complete = self.heads.durable().size / SEGMENT_RECORDS;
            if next >= complete {
                continue;
            }
            patience = match self.make(next) {
                Ok(()) => {
                    next += 1;
                    Duration::ZERO
                }
                Err(error) => {
                    tracing::error!(%error, segment = next, "the index of a segment of the audit trail cannot be made");
                    LOOK_EVERY * LOOKS_AFTER_FAILURE
                }
            };
        }
    }

    /// Makes what a segment lacks.
    fn make(&self, segment: u64) -> Result<(), AuditError> {
        let path = path(&self.dir, segment);
        if path.exists() && segment < self.tiles.segments() {
            return Ok(());
        }
        let first = segment * SEGMENT_RECORDS;
        let mut index = IndexBuilder::new(segment);
        let mut leaves = Vec::new();
        let mut frames = self.journal.read_frames(first + 1)?;
        while leaves.len() as u64 != SEGMENT_RECORDS
            && let Some(frame) = frames.read_next()?
        {
            if frame.is_seal {
                continue;
            }
            let offset = u16::try_from(leaves.len()).unwrap_or(u16::MAX);
            index.add(offset, frame.payload, placed(frame.position))?;
            leaves.push(Hash::of_leaf(frame.payload));
        }
        self.tiles.write(segment, &leaves)?;
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, index.finish()?)?;
        fs::rename(&temporary, &path)?;
        Ok(())
    }
}

fn placed(position: Position) -> segment::Position {
    segment::Position {
        segment: position.segment,
        offset: position.offset,
    }
}

impl AuditLog {
    /// Up to `limit` records that `filter` accepts, newest first, with indices below `before`, or from the newest on. `limit` is
    /// cut to [`query::MAX_PAGE`]. A page can have fewer and not be the last one. Blocks.
    ///
    /// # Errors
    /// The trail cannot be read.
    pub fn find(
        &self,
        filter: &Filter,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page, QueryError<AuditError>> {
        query::list(&Source(self), filter, before, limit)
    }

    /// The index of the first record that is kept: those before were pruned.
    pub fn first(&self) -> u64 {
        query::Source::first(&Source(self))
    }

    /// Calls `visit` with the records that `filter` accepts, oldest first, from the index `from` on and below `until`, which is at
    /// most the number of records. Stops after a step of bounded work, and gives the index to go on from, which is `until` at the
    /// end. Blocks.
    ///
    /// # Errors
    /// The trail cannot be read, or a record of the range was pruned.
    pub fn walk(
        &self,
        filter: &Filter,
        from: u64,
        until: u64,
        visit: &mut dyn FnMut(u64, &[u8]),
    ) -> Result<u64, QueryError<AuditError>> {
        walk(&Source(self), filter, from, until, visit)
    }
}

/// The trail as a query reads it.
struct Source<'a>(&'a AuditLog);

impl query::Source for Source<'_> {
    type Error = AuditError;

    fn first(&self) -> u64 {
        self.0.journal.first().saturating_sub(1)
    }

    fn len(&self) -> u64 {
        self.0.len()
    }

    fn index(&self, segment: u64) -> Option<Arc<Index>> {
        self.0.indexer.open(segment)
    }

    fn read(
        &self,
        from: u64,
        position: Option<segment::Position>,
        visit: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), AuditError> {
        let sequence = from.saturating_add(1);
        let placed = position.map(|at| {
            let at = Position {
                segment: at.segment,
                offset: at.offset,
            };
            self.0.journal.read_frames_at(sequence, at)
        });
        let mut frames = match placed {
            Some(Err(ReadError::WrongPosition { .. })) | None => {
                self.0.journal.read_frames(sequence)?
            }
            Some(frames) => frames?,
        };
        while let Some(frame) = frames.read_next()? {
            if !frame.is_seal && visit(frame.sequence.saturating_sub(1), frame.payload).is_break() {
                break;
            }
        }
        Ok(())
    }
}
