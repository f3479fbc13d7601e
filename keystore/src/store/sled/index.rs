//! The index: sled, and the rules for living with it.
//!
//! Two trees: `records` (key to stored value, and under the empty key, which no record can have, the [`State`]) and
//! `operations` (operation id to [`Outcome`]). sled's own flusher is off: what is on disk is decided by
//! [`Index::make_durable`] alone, and everything after it is replayed from the journal.

use std::{
    any::Any,
    fs::{self, File},
    io,
    ops::Bound,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use ::sled::{Batch, Db, IVec, Tree};
use bytes::Bytes;

use super::{
    frame::{Input, Outcome, State, append_lp, decode_stored},
    layout::sync_dir,
};
use crate::store::Record;

const STATE_KEY: &[u8] = b"";
/// How long to wait for the lock on sled's file, in steps: dropping sled leaves it to a thread of its own, and our
/// own lock on the directory says that nobody else can hold it.
const LOCK_STEPS: u32 = 400;
const LOCK_STEP: Duration = Duration::from_millis(25);

/// Buffers of a recount, and their size in bytes.
const RECOUNT_BUFFERS: usize = 4;
const RECOUNT_BUFFER_BYTES: usize = 256 * 1024;

/// Why the index cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum IndexError {
    #[error("sled failed: {0}")]
    Sled(#[from] ::sled::Error),
    #[error("sled panicked: {0}")]
    Panicked(String),
    #[error("a file of sled failed: {0}")]
    Io(#[from] io::Error),
    #[error("the stored value of `{}` is damaged", .0.escape_ascii())]
    Damaged(Bytes),
    #[error("its records do not have the count and set hash of the journal")]
    Mismatch,
    #[error("the snapshot cannot be used: {0}")]
    Snapshot(String),
}

/// sled, open.
pub(super) struct Index {
    db: Db,
    records: Tree,
    operations: Tree,
    /// Our own descriptors of sled's files, open since before anything was written, so that no write error is
    /// reported to somebody else.
    files: Vec<File>,
    dir: PathBuf,
    /// Held for writing while a batch is applied, so that a page never shows half a commit.
    applying: RwLock<()>,
}

/// What one group of commits changes.
#[derive(Default)]
pub(super) struct Update {
    records: Batch,
    operations: Batch,
}

impl Update {
    pub(super) fn put(&mut self, key: &[u8], stored: Vec<u8>) {
        self.records.insert(key, stored);
    }

    pub(super) fn delete(&mut self, key: &[u8]) {
        self.records.remove(key);
    }

    pub(super) fn set_state(&mut self, state: &State) {
        self.records.insert(STATE_KEY, state.to_bytes());
    }

    pub(super) fn remember(&mut self, id: &[u8; 16], outcome: &Outcome) {
        self.operations.insert(id, outcome.encode());
    }

    pub(super) fn forget(&mut self, id: &[u8]) {
        self.operations.remove(id);
    }
}

impl Index {
    /// Removes torn snapshots (spacejam/sled issue 1527), then opens sled in `dir`. Whatever goes wrong inside sled is
    /// an error here, panics too.
    pub(super) fn open(dir: &Path, cache_bytes: u64) -> Result<Index, IndexError> {
        fs::create_dir_all(dir)?;
        remove_torn_snapshots(dir)?;
        let config = ::sled::Config::new()
            .path(dir)
            .cache_capacity(cache_bytes)
            .flush_every_ms(None);
        let mut steps = 0;
        let db = loop {
            let opened = panic::catch_unwind(AssertUnwindSafe(|| config.open()));
            match opened.map_err(|panic| IndexError::Panicked(panic_text(&*panic)))? {
                Ok(db) => break db,
                Err(::sled::Error::Io(error)) if steps < LOCK_STEPS && is_lock_error(&error) => {
                    steps += 1;
                    thread::sleep(LOCK_STEP);
                }
                Err(error) => return Err(error.into()),
            }
        };
        caught(|| {
            let records = db.open_tree("records")?;
            let operations = db.open_tree("operations")?;
            let files = vec![File::open(dir.join("db"))?, File::open(dir.join("conf"))?];
            Ok(Index {
                db,
                records,
                operations,
                files,
                dir: dir.to_path_buf(),
                applying: RwLock::new(()),
            })
        })
    }

    /// What sled says that it holds; `None` if it was never told.
    pub(super) fn state(&self) -> Result<Option<State>, IndexError> {
        let Some(bytes) = self.records.get(STATE_KEY)? else {
            return Ok(None);
        };
        State::from_bytes(&bytes)
            .map(Some)
            .map_err(|_| IndexError::Damaged(Bytes::new()))
    }

    /// The stored value of a key: be64(revision) || value.
    pub(super) fn stored(&self, key: &[u8]) -> Result<Option<IVec>, IndexError> {
        if key == STATE_KEY {
            return Ok(None);
        }
        Ok(self.records.get(key)?)
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Record>, IndexError> {
        let _guard = self.applying.read().unwrap_or_else(PoisonError::into_inner);
        self.stored(key)?
            .map(|stored| read_record(key, &stored))
            .transpose()
    }

    pub(super) fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Record)>, IndexError> {
        let _guard = self.applying.read().unwrap_or_else(PoisonError::into_inner);
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ if prefix == STATE_KEY => Bound::Excluded(STATE_KEY),
            _ => Bound::Included(prefix),
        };
        let mut page = Vec::new();
        for entry in self
            .records
            .range::<&[u8], _>((start, Bound::Unbounded))
            .take(limit)
        {
            let (key, stored) = entry?;
            if !key.starts_with(prefix) {
                break;
            }
            page.push((Bytes::copy_from_slice(&key), read_record(&key, &stored)?));
        }
        Ok(page)
    }

    /// The remembered outcome of an operation id.
    pub(super) fn outcome(&self, id: &[u8; 16]) -> Result<Option<Outcome>, IndexError> {
        let Some(bytes) = self.operations.get(id)? else {
            return Ok(None);
        };
        Outcome::decode(&bytes)
            .map(Some)
            .map_err(|_| IndexError::Damaged(Bytes::copy_from_slice(id)))
    }

    /// Every record as (key, stored value), in the order of keys, fuzzy: a change made meanwhile may be seen or not.
    pub(super) fn records(&self) -> impl Iterator<Item = Result<(IVec, IVec), IndexError>> + use<> {
        self.records
            .range::<&[u8], _>((Bound::Excluded(STATE_KEY), Bound::Unbounded))
            .map(|entry| entry.map_err(IndexError::from))
    }

    /// Every remembered outcome as (id, encoded outcome) after the given id, fuzzy like [`Index::records`].
    pub(super) fn outcomes(
        &self,
        after: &[u8],
    ) -> impl Iterator<Item = Result<(IVec, IVec), IndexError>> + use<> {
        self.operations
            .range::<&[u8], _>((Bound::Excluded(after), Bound::Unbounded))
            .map(|entry| entry.map_err(IndexError::from))
    }

    /// Applies an update: all of its records at once, then its operation ids. A crash between the two is
    /// harmless, since both are replayed.
    pub(super) fn apply(&self, update: Update) -> Result<(), IndexError> {
        let _guard = self
            .applying
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        self.records.apply_batch(update.records)?;
        self.operations.apply_batch(update.operations)?;
        Ok(())
    }

    /// Makes everything applied so far durable. sled's flush hands its writes to the kernel and does not wait for the
    /// disk (spacejam/sled issues 1351 and 1452), so the files are synced on our own descriptors afterwards.
    pub(super) fn make_durable(&self) -> Result<(), IndexError> {
        self.db.flush()?;
        for file in &self.files {
            file.sync_data()?;
        }
        // Values of at most 4 KiB never become blobs of their own, but if one did, it must count.
        let blobs = self.dir.join("blobs");
        let mut any = false;
        for entry in fs::read_dir(&blobs)? {
            any = true;
            match File::open(entry?.path()) {
                Ok(file) => file.sync_data()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        if any {
            sync_dir(&blobs)?;
        }
        sync_dir(&self.dir)?;
        Ok(())
    }

    /// Reads all records and counts and hashes them anew; `None` if told to stop. Nothing may be applied meanwhile. The
    /// revision of the result is 0.
    ///
    /// One thread reads, one hashes. Records go over in a few large buffers that go round: freeing millions of small
    /// values on another thread than the one that made them would leave the allocator with a hundred megabytes of holes.
    pub(super) fn recount(&self, stop: &AtomicBool) -> Result<Option<State>, IndexError> {
        thread::scope(|scope| {
            let (full, to_hash) = mpsc::sync_channel::<Vec<u8>>(RECOUNT_BUFFERS);
            let (empty, to_fill) = mpsc::sync_channel::<Vec<u8>>(RECOUNT_BUFFERS);
            for _ in 0..RECOUNT_BUFFERS {
                // There is room for all of them.
                let _ = empty.send(Vec::with_capacity(RECOUNT_BUFFER_BYTES + 8192));
            }
            let hashing = scope.spawn(move || {
                let mut state = State::default();
                for buffer in to_hash {
                    add_all(&mut state, &buffer);
                    // The reader may be through already.
                    let _ = empty.send(buffer);
                }
                state
            });
            let read = caught(|| {
                let mut entries = self.records();
                for mut buffer in to_fill {
                    buffer.clear();
                    while buffer.len() < RECOUNT_BUFFER_BYTES {
                        let Some(entry) = entries.next() else { break };
                        let (key, stored) = entry?;
                        append_lp(&mut buffer, &key);
                        append_lp(&mut buffer, &stored);
                    }
                    if buffer.is_empty()
                        || stop.load(Ordering::Relaxed)
                        || full.send(buffer).is_err()
                    {
                        break;
                    }
                }
                Ok(())
            });
            drop(full);
            let counted = hashing
                .join()
                .map_err(|panic| IndexError::Panicked(panic_text(&*panic)))?;
            read?;
            Ok(if stop.load(Ordering::Relaxed) {
                None
            } else {
                Some(counted)
            })
        })
    }
}

/// Counts in what a buffer of ( lp(key) lp(stored value) )* has.
fn add_all(state: &mut State, buffer: &[u8]) {
    let mut input = Input(buffer);
    // It was written a moment ago; were it cut short, the count would not fit and the check would fail.
    while let (Ok(key), Ok(stored)) = (input.lp(usize::MAX), input.lp(usize::MAX)) {
        state.add(key, stored);
    }
}

/// Runs what calls sled, with its panics as errors.
pub(super) fn caught<T>(run: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    // What is left behind by a panic is the index, which is closed and rebuilt then.
    panic::catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Err(IndexError::Panicked(panic_text(&*panic))))
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

fn read_record(key: &[u8], stored: &[u8]) -> Result<Record, IndexError> {
    let (revision, value) =
        decode_stored(stored).map_err(|_| IndexError::Damaged(Bytes::copy_from_slice(key)))?;
    Ok(Record {
        value: Bytes::copy_from_slice(value),
        revision,
    })
}

impl IndexError {
    /// Whether the cause is a full disk. sled panics where it did not expect one.
    pub(super) fn is_no_space(&self) -> bool {
        match self {
            IndexError::Sled(::sled::Error::Io(error)) | IndexError::Io(error) => {
                is_storage_full(error)
            }
            IndexError::Panicked(text) => {
                text.contains("StorageFull") || text.contains("No space left")
            }
            _ => false,
        }
    }
}

/// Whether the system refused for want of space; sled copies its errors, and keeps the kind or only the text.
pub(super) fn is_storage_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    ) || error.to_string().contains("No space left")
}

fn is_lock_error(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other && error.to_string().contains("could not acquire lock")
}

/// Removes what sled leaves when it dies while it writes a snapshot, and returns how many there were.
fn remove_torn_snapshots(dir: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let torn = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with("snap.") && name.ends_with(".generating"));
        if torn {
            fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests;
