//! The sidecar indexes of complete record segments, and the thread that makes them, with the tiles of the same segment.
//!
//! Neither is evidence. What is missing is made again, and a query that finds no index scans.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fieldkeep_audit::filter::Filter;
use fieldkeep_audit::index::{Index, IndexBuilder};
use fieldkeep_audit::query::walk::Walk;
use fieldkeep_audit::query::{self, Page, QueryError};
use fieldkeep_audit::segment;
use fieldkeep_journal::{Journal, Position};
use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::tile::SEGMENT_RECORDS;

use super::archive::Unpacked;
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
const NICENESS: i32 = 19;

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

    /// Whether there is a file for the index of a segment.
    pub(super) fn has(&self, segment: u64) -> bool {
        path(&self.dir, segment).exists()
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
    /// The index of the first record that can be read: those before left for an archive that is not known.
    pub fn first(&self) -> u64 {
        match self.archive {
            Some(_) => 0,
            None => self.journal.first().saturating_sub(1),
        }
    }

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
        let source = Source {
            audit: self,
            unpacked: RefCell::default(),
        };
        query::list(&source, filter, before, limit)
    }

    /// Goes on with a walk over the records, oldest first, as far as they are durable: see [`Walk::go_on`]. What is `held` of the archive
    /// is for the next time. Blocks.
    ///
    /// # Errors
    /// The trail cannot be read.
    pub fn walk(
        &self,
        walk: &mut Walk,
        held: &mut Option<Unpacked>,
        budget: u64,
        visit: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), QueryError<AuditError>> {
        let source = Source {
            audit: self,
            unpacked: RefCell::new(held.take()),
        };
        let walked = walk.go_on(&source, budget, visit);
        *held = source.unpacked.into_inner();
        walked
    }
}

/// The trail as a query reads it.
struct Source<'a> {
    audit: &'a AuditLog,
    /// The archived segment that was read last.
    unpacked: RefCell<Option<Unpacked>>,
}

impl query::Source for Source<'_> {
    type Error = AuditError;

    fn first(&self) -> u64 {
        self.audit.first()
    }

    fn len(&self) -> u64 {
        self.audit.len()
    }

    fn index(&self, segment: u64) -> Option<Arc<Index>> {
        self.audit.indexer.open(segment)
    }

    fn read(
        &self,
        from: u64,
        position: Option<segment::Position>,
        visit: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), AuditError> {
        let segment = from / SEGMENT_RECORDS;
        let mut unpacked = self.unpacked.borrow_mut();
        if unpacked.as_ref().is_none_or(|held| held.segment != segment) {
            *unpacked = Unpacked::of(self.audit, from)?;
        }
        let mut from = from;
        while let Some(record) = unpacked.as_ref().and_then(|held| held.record(from)) {
            if visit(from, record).is_break() {
                return Ok(());
            }
            from += 1;
        }
        let placed = position.and_then(|at| {
            let at = Position {
                segment: at.segment,
                offset: at.offset,
            };
            // It may have moved, or left for the archive.
            let frames = self
                .audit
                .journal
                .read_frames_at(from.saturating_add(1), at);
            frames.ok()
        });
        let mut records = self.audit.cursor(from, placed);
        while let Some(index) = records.read_next()? {
            if visit(index, records.record()).is_break() {
                break;
            }
        }
        Ok(())
    }
}
