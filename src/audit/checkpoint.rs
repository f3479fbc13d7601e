//! Checkpoints: signed notes of the log's size and root (C2SP tlog-checkpoint), made every second or every 1,000 records.
//!
//! The newest two stand in the file `checkpoint`, each in a slot of its own, so that a write that is torn leaves the other one. A slot
//! is the note and newlines up to its size; the signature tells whether it is whole. A checkpoint is only made of what is
//! durable, so that the log contains each that was ever written, or it was cut off afterwards.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fieldkeep_tlog::checkpoint::{Checkpoint, CheckpointError};
use fieldkeep_tlog::key::{SigningKey, VerifierKey};
use fieldkeep_tlog::tree::TreeHead;

use super::seal::Heads;
use super::sinks::{CheckpointSinks, SinkFailures, Sinks};

/// The file of the newest checkpoints, in the directory of the trail.
pub const CHECKPOINT_FILE: &str = "checkpoint";
/// Bytes of a slot. A note has about 250.
const SLOT_BYTES: usize = 512;
const SLOTS: u64 = 2;
/// A checkpoint is due after so many records,
const EVERY_RECORDS: u64 = 1_000;
/// and after this time if there is any.
const EVERY: Duration = Duration::from_secs(1);

/// A checkpoint with its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The signed note.
    pub note: String,
    /// What it says.
    pub head: TreeHead,
}

impl Signed {
    /// Signs `head`.
    ///
    /// # Errors
    /// The key is not the log's.
    pub(super) fn make(key: &SigningKey, head: TreeHead) -> Result<Signed, CheckpointError> {
        let checkpoint = Checkpoint::new(key.verifier_key().name(), head)?;
        Ok(Signed {
            note: checkpoint.sign(key)?,
            head,
        })
    }
}

/// The newest checkpoint in the bytes of a checkpoint file, or of a single note. `None` if none is signed by `key`.
#[must_use]
pub fn newest(bytes: &[u8], key: &VerifierKey) -> Option<Signed> {
    let whole = [bytes].into_iter();
    let slots = bytes.chunks(SLOT_BYTES).take(SLOTS as usize);
    let open = |slot: &[u8]| {
        let note = format!(
            "{}\n",
            std::str::from_utf8(slot).ok()?.trim_end_matches('\n')
        );
        let checkpoint = Checkpoint::open(&note, std::slice::from_ref(key)).ok()?;
        Some(Signed {
            head: checkpoint.head(),
            note,
        })
    };
    whole
        .chain(slots)
        .filter_map(open)
        .max_by_key(|signed| signed.head.size)
}

/// The file of the newest checkpoints, in each directory of the trail.
#[derive(Debug)]
pub(super) struct Slots {
    files: Vec<File>,
    next: u64,
}

impl Slots {
    /// The newest checkpoint in any of `dirs`.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn read(dirs: &[PathBuf], key: &VerifierKey) -> io::Result<Option<Signed>> {
        let mut found: Option<Signed> = None;
        for dir in dirs {
            let bytes = match fs::read(dir.join(CHECKPOINT_FILE)) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let newer = newest(&bytes, key);
            found = found
                .into_iter()
                .chain(newer)
                .max_by_key(|signed| signed.head.size);
        }
        Ok(found)
    }

    /// Opens the files, and writes `first` to both slots, durably.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(super) fn open(dirs: &[PathBuf], first: &Signed) -> io::Result<Slots> {
        let mut files = Vec::with_capacity(dirs.len());
        for dir in dirs {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(dir.join(CHECKPOINT_FILE))?;
            // One slot after the other, so that one of the two is whole at any time.
            for slot in 0..SLOTS {
                file.write_all_at(&padded(first), slot * SLOT_BYTES as u64)?;
                file.sync_data()?;
            }
            File::open(dir)?.sync_all()?;
            files.push(file);
        }
        Ok(Slots { files, next: 0 })
    }

    /// Writes the newest checkpoint over the older slot. It is not synced: after a loss of power an older one is found, which the
    /// log contains as well.
    fn write(&mut self, signed: &Signed) -> io::Result<()> {
        for file in &self.files {
            file.write_all_at(&padded(signed), self.next * SLOT_BYTES as u64)?;
        }
        self.next = (self.next + 1) % SLOTS;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.files.iter().try_for_each(File::sync_data)
    }
}

fn padded(signed: &Signed) -> Vec<u8> {
    let mut slot = signed.note.clone().into_bytes();
    slot.resize(SLOT_BYTES.max(slot.len()), b'\n');
    slot
}

/// What became of the checkpoints of a log since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointStats {
    /// Those that were written.
    pub made: u64,
    /// Attempts that failed; each is repeated.
    pub failed: u64,
    /// Those that were not appended to the file that they are sent to.
    pub file_failures: u64,
    /// Failed runs of the command that they are sent to.
    pub command_failures: u64,
}

#[derive(Debug, Default)]
struct Counts {
    made: AtomicU64,
    failed: AtomicU64,
    sinks: Arc<SinkFailures>,
}

/// The thread that makes checkpoints. It ends when it is dropped, after a last one.
#[derive(Debug)]
pub(super) struct Checkpoints {
    heads: Arc<Heads>,
    newest: Arc<Mutex<Signed>>,
    counts: Arc<Counts>,
    running: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Starts behind `newest`, which is in the slots.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn start(
        heads: Arc<Heads>,
        key: Arc<SigningKey>,
        slots: Slots,
        newest: Signed,
        sinks: CheckpointSinks,
    ) -> io::Result<Checkpoints> {
        let newest = Arc::new(Mutex::new(newest));
        let counts = Arc::new(Counts::default());
        let maker = Maker {
            heads: Arc::clone(&heads),
            newest: Arc::clone(&newest),
            key,
            slots,
            sinks: Sinks::new(sinks, Arc::clone(&counts.sinks)),
            counts: Arc::clone(&counts),
        };
        let running = thread::Builder::new()
            .name("audit-checkpoint".to_owned())
            .spawn(move || maker.run())?;
        Ok(Checkpoints {
            heads,
            newest,
            counts,
            running: Some(running),
        })
    }

    /// What became of the checkpoints so far.
    pub(super) fn stats(&self) -> CheckpointStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CheckpointStats {
            made: of(&self.counts.made),
            failed: of(&self.counts.failed),
            file_failures: of(&self.counts.sinks.file),
            command_failures: of(&self.counts.sinks.command),
        }
    }

    /// The newest checkpoint.
    pub(super) fn newest(&self) -> Signed {
        self.newest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.heads.close();
        if let Some(running) = self.running.take() {
            // A thread that panicked has made its last checkpoint; the log is whole without it.
            let _ = running.join();
        }
    }
}

struct Maker {
    heads: Arc<Heads>,
    newest: Arc<Mutex<Signed>>,
    key: Arc<SigningKey>,
    slots: Slots,
    sinks: Sinks,
    counts: Arc<Counts>,
}

impl Maker {
    fn run(mut self) {
        let mut size = self.size();
        while let Some(head) = self
            .heads
            .wait_for(size.saturating_add(EVERY_RECORDS), EVERY)
        {
            if !self.make(head) {
                // The next one is tried in a moment. Records do not wait for checkpoints: their seals hold meanwhile.
                thread::sleep(EVERY);
            }
            size = self.size();
        }
        self.make(self.heads.durable());
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        self.sinks.finish(&newest.note, newest.head.size);
        drop(newest);
        if let Err(error) = self.slots.sync() {
            tracing::warn!(%error, "the last checkpoint of the audit trail was not synced");
        }
    }

    fn size(&self) -> u64 {
        self.newest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .head
            .size
    }

    /// Makes a checkpoint of `head` if it is news, and sends on what is. Whether it is written.
    fn make(&mut self, head: TreeHead) -> bool {
        let mut is_written = true;
        if head.size > self.size() {
            let made = Signed::make(&self.key, head)
                .map_err(io::Error::other)
                .and_then(|signed| self.slots.write(&signed).map(|()| signed));
            match made {
                Ok(signed) => {
                    self.counts.made.fetch_add(1, Ordering::Relaxed);
                    self.sinks.append(&signed.note);
                    *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = signed;
                }
                Err(error) => {
                    self.counts.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%error, "a checkpoint of the audit trail cannot be written");
                    is_written = false;
                }
            }
        }
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        self.sinks.run(&newest.note, newest.head.size);
        is_written
    }
}

#[cfg(test)]
mod tests {
    use fieldkeep_tlog::hash::Hash;
    use fieldkeep_tlog::key::SEED_BYTES;
    use fieldkeep_tlog::tree::Tree;

    use super::*;

    fn head(size: u64) -> TreeHead {
        let mut tree = Tree::new();
        (0..size).for_each(|leaf| tree.append(Hash::of_leaf(&leaf.to_be_bytes())));
        tree.head()
    }

    #[test]
    fn checkpoints_that_were_made_and_those_that_failed_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::from_seed("fieldkeep/audit/test", &[1; SEED_BYTES]).unwrap();
        let first = Signed::make(&key, head(1)).unwrap();
        let slots = Slots::open(&[dir.path().to_owned()], &first).unwrap();
        let counts = Arc::new(Counts::default());
        let mut maker = Maker {
            heads: Arc::new(Heads::new(head(1))),
            newest: Arc::new(Mutex::new(first)),
            key: Arc::new(key),
            slots,
            sinks: Sinks::new(CheckpointSinks::default(), Arc::default()),
            counts: Arc::clone(&counts),
        };
        let counted = || {
            let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            (of(&counts.made), of(&counts.failed))
        };
        assert!(maker.make(head(1)), "no news");
        assert_eq!(counted(), (0, 0));
        assert!(maker.make(head(2)));
        assert_eq!((maker.size(), counted()), (2, (1, 0)));
        // A file that is open for reading alone takes nothing.
        maker.slots.files = vec![File::open(dir.path().join(CHECKPOINT_FILE)).unwrap()];
        assert!(!maker.make(head(3)));
        assert_eq!((maker.size(), counted()), (2, (1, 1)));
    }
}
