//! The handle that callers hold.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};

use crate::disk::{Disk, SystemDisk};
use crate::error::{AppendError, OpenError, ReadError};
use crate::options::{AppendOptions, Options};
use crate::reader::{self, Frames, Position, Reader, Verified};
use crate::recovery::{self, Recovery};
use crate::seal::Seal;
use crate::segment::{Failed, on, segment_path};
use crate::state::{Level, Shared, lock};
use crate::waiters::Waiters;
use crate::writer::{run_preparer, run_writer};

/// An open journal; clone it freely. When the last clone is dropped, what was appended is written and
/// synced, and the threads end.
#[derive(Clone)]
pub struct Journal {
    threads: Arc<Threads>,
}

/// What [`Journal::open`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The first sequence that is kept; equal to `next` if the journal is empty.
    pub first: u64,
    /// The sequence that the next append gets.
    pub next: u64,
    /// Frames at the end that were only partly written, or belong to a commit that was, and were never acknowledged as
    /// durable; at least so many.
    pub torn_frames_dropped: u64,
    /// The directory that was behind or damaged and has been repaired from the other one.
    pub repaired: Option<PathBuf>,
    /// Neither slot of the mark `durable` could be read; the log itself was whole.
    pub mark_replaced: bool,
}

/// Names what was appended, to wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The last frame of the append.
    pub sequence: u64,
    /// Leaf hash of the last payload, if the log is sealed ([`Options::leaf`]).
    pub leaf: Option<[u8; 32]>,
}

impl Ticket {
    /// To wait for a sequence, whoever appends it.
    pub fn at(sequence: u64) -> Ticket {
        Ticket {
            sequence,
            leaf: None,
        }
    }
}

/// Counts since the journal was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Writes of frames; one for each commit.
    pub writes: u64,
    /// Syncs, each of everything written until then; fewer than writes only if appends are relaxed.
    pub syncs: u64,
    /// Frames that became durable.
    pub frames: u64,
    /// Bytes written, frame overhead included.
    pub bytes: u64,
    /// The most appends that one write served.
    pub largest_group: u64,
    /// Segments on disk.
    pub segments: u64,
    /// Times that a reader turned to the mirror since the directory was damaged; above 0, call for a repair:
    /// remove the damaged segment (see [`Journal::verify`]) while stopped, and the next open copies it back.
    pub mirror_reads: u64,
}

struct Threads {
    shared: Arc<Shared>,
    running: Vec<JoinHandle<()>>,
    /// Held until the threads have ended.
    _locks: Vec<Box<dyn Send + Sync>>,
}

impl Journal {
    /// Opens the journal in `dir`, after recovery; makes one if there is none. Blocks on the disk.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] if an acknowledged frame is lost, [`OpenError::InUse`] if another process has
    /// it, [`OpenError::NoSpace`] if the last segment cannot be rewritten, and others.
    pub fn open(dir: &Path, options: Options) -> Result<(Journal, Recovered), OpenError> {
        Journal::open_on(Arc::new(SystemDisk), dir, options)
    }

    /// As [`Journal::open`], on the disk given.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
    ) -> Result<(Journal, Recovered), OpenError> {
        let mut dirs = vec![dir.to_owned()];
        dirs.extend(options.mirror.clone());
        let Recovery {
            segment,
            end,
            index,
            marks,
            recovered,
            locks,
        } = recovery::recover(disk.as_ref(), &dirs, &options)?;
        let upcoming = segment.id + 1;
        let shared = Arc::new(Shared::new(
            disk,
            dirs,
            options,
            segment,
            end,
            recovered.next,
            index,
        ));
        let mut threads = Threads {
            shared: shared.clone(),
            running: Vec::new(),
            _locks: locks,
        };
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let spawned = thread::Builder::new().name(name.to_owned()).spawn(run);
            spawned.map_err(|source| OpenError::Io {
                action: "start the thread for",
                path: dir.to_owned(),
                source,
            })
        };
        let writer = shared.clone();
        threads.running.push(spawn(
            "journal-writer",
            Box::new(move || run_writer(&writer, marks)),
        )?);
        threads.running.push(spawn(
            "journal-segments",
            Box::new(move || run_preparer(&shared, upcoming)),
        )?);
        Ok((
            Journal {
                threads: Arc::new(threads),
            },
            recovered,
        ))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.threads.shared
    }

    /// Copies a payload into the group that is written next. It does not wait for the disk, except for a
    /// segment that is being made when callers outrun it.
    ///
    /// # Errors
    /// [`AppendError`]; the journal is then as if the call had not been made.
    pub fn append(&self, payload: &[u8]) -> Result<Ticket, AppendError> {
        self.append_all(&[payload])
    }

    /// Appends several payloads with consecutive sequences, in one write: all are accepted or none. They
    /// are acknowledged together; after a crash before that, the first few may be there without the rest, unless the
    /// log is sealed.
    ///
    /// # Errors
    /// [`AppendError`]; `TooLarge` also if all together do not fit into one segment.
    pub fn append_all(&self, payloads: &[&[u8]]) -> Result<Ticket, AppendError> {
        self.append_with(payloads, AppendOptions::default())
    }

    /// As [`Journal::append_all`], relaxed or privileged.
    ///
    /// # Errors
    /// As [`Journal::append_all`].
    pub fn append_with(
        &self,
        payloads: &[&[u8]],
        how: AppendOptions,
    ) -> Result<Ticket, AppendError> {
        self.shared().append(payloads, how)
    }

    /// Gives a log with [`Options::leaf`] its seal. Until then every append is refused ([`AppendError::NoSeal`]), so that the
    /// owner can first read what was recovered and bring its seal up to that. Of a log without leaf hashes the seal is never
    /// asked.
    pub fn set_seal(&self, seal: Box<dyn Seal>) {
        self.shared().set_seal(seal);
    }

    /// The log's id: random, made with the log, and the same in each of its segments.
    pub fn log_id(&self) -> [u8; 16] {
        self.shared().log
    }

    /// A new hub, for the tasks of one runtime.
    pub fn waiters(&self) -> Waiters {
        Waiters::new(self.shared().clone())
    }

    /// Blocks the thread until the frames of `ticket` are durable.
    ///
    /// # Errors
    /// [`AppendError::Closed`] if the journal failed before they were.
    pub fn wait_blocking(&self, ticket: Ticket) -> Result<(), AppendError> {
        self.shared().wait_blocking(Level::Durable, ticket.sequence)
    }

    /// Blocks the thread until the frames of `ticket` are written, as [`Waiters::written`] has it.
    ///
    /// # Errors
    /// [`AppendError::Closed`] if the journal failed before they were.
    pub fn wait_written_blocking(&self, ticket: Ticket) -> Result<(), AppendError> {
        self.shared().wait_blocking(Level::Written, ticket.sequence)
    }

    /// The last sequence that is durable; 0 if none was ever appended.
    pub fn durable(&self) -> u64 {
        self.shared().durable()
    }

    /// The sequence that the next append gets.
    pub fn next(&self) -> u64 {
        self.shared().fill().next
    }

    /// The first sequence that is kept.
    pub fn first(&self) -> u64 {
        reader::first(self.shared())
    }

    /// What [`Journal::first`] is after [`Journal::prune_before`] of `sequence`.
    pub fn first_after_prune_before(&self, sequence: u64) -> u64 {
        let index = self
            .shared()
            .index
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let starts = index.iter().map(|segment| segment.first);
        let first = starts.clone().next().unwrap_or(1);
        starts
            .skip(1)
            .take_while(|start| *start <= sequence)
            .last()
            .unwrap_or(first)
    }

    /// Counts since the journal was opened.
    pub fn stats(&self) -> Stats {
        let counters = &self.shared().counters;
        Stats {
            writes: counters.writes.load(Ordering::Relaxed),
            syncs: counters.syncs.load(Ordering::Relaxed),
            frames: counters.frames.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
            largest_group: counters.largest_group.load(Ordering::Relaxed),
            segments: self
                .shared()
                .index
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .len() as u64,
            mirror_reads: counters.mirror_reads.load(Ordering::Relaxed),
        }
    }

    /// Reads in order from `from` up to what is durable now; nothing if `from` is beyond that.
    ///
    /// # Errors
    /// [`ReadError::Pruned`] if `from` is no longer kept; the iterator has the errors of reading.
    pub fn read(&self, from: u64) -> Result<Reader, ReadError> {
        Reader::new(self.shared(), from, u64::MAX)
    }

    /// As [`Journal::read`], with the place of each frame and with the seals, and without a copy of each payload.
    ///
    /// # Errors
    /// [`ReadError::Pruned`] if `from` is no longer kept; the reader has the errors of reading.
    pub fn read_frames(&self, from: u64) -> Result<Frames, ReadError> {
        Frames::new(self.shared(), from, u64::MAX, true)
    }

    /// As [`Journal::read_frames`], without a search in the segment: `position` is where the frame of `from` is.
    ///
    /// # Errors
    /// [`ReadError::WrongPosition`] if it is not, or is damaged there; [`Journal::read_frames`] tells which, and turns to the
    /// mirror. Others as there.
    pub fn read_frames_at(&self, from: u64, position: Position) -> Result<Frames, ReadError> {
        Frames::at(self.shared(), from, position)
    }

    /// Reads at most `count` frames from `from` on. A page that ends at `n` is `read_range(n + 1 - count, count)`:
    /// one segment's header search and a scan inside it, whatever the length of the log.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read_range(&self, from: u64, count: u64) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
        Reader::new(self.shared(), from, count)?.collect()
    }

    /// Reads one frame; `None` if it is not durable (yet).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read_one(&self, sequence: u64) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(Reader::new(self.shared(), sequence, 1)?
            .next()
            .transpose()?
            .map(|(_, payload)| payload))
    }

    /// Reads every durable frame in every directory and checks it.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] at the first that is not intact.
    pub fn verify(&self) -> Result<Verified, ReadError> {
        reader::verify(self.shared())
    }

    /// Unlinks the segments whose frames are all older than `sequence`, oldest first; how many. The one being
    /// written stays. A process that is killed meanwhile leaves fewer unlinked.
    ///
    /// # Errors
    /// [`ReadError::Io`]; what was not unlinked stays in the log.
    pub fn prune_before(&self, sequence: u64) -> Result<u64, ReadError> {
        let shared = self.shared();
        let mut pruned = 0;
        loop {
            // Held while the file goes, so that two callers do not race for it; readers wait only for the unlink.
            let mut index = shared.index.write().unwrap_or_else(PoisonError::into_inner);
            let oldest = match index.as_slice() {
                [oldest, second, ..] if second.first <= sequence => oldest.id,
                _ => return Ok(pruned),
            };
            for dir in &shared.dirs {
                let path = segment_path(dir, oldest);
                // One that is gone already was removed by a call that failed half-way.
                let removed = shared
                    .disk
                    .remove(&path)
                    .or_else(|error| match error.kind() {
                        io::ErrorKind::NotFound => Ok(()),
                        _ => Err(error),
                    });
                on("remove the segment", &path, removed)
                    .and_then(|()| on("sync the directory", dir, shared.disk.sync_dir(dir)))
                    .map_err(ReadError::from)?;
            }
            index.remove(0);
            pruned += 1;
        }
    }
}

impl From<Failed> for ReadError {
    fn from(
        Failed {
            action,
            path,
            source,
        }: Failed,
    ) -> Self {
        ReadError::Io {
            action,
            path,
            source,
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.fill().closing = true;
        self.shared.work.notify_all();
        self.shared.wanted.notify_all();
        self.shared.room.notify_all();
        for thread in self.running.drain(..) {
            // A thread that panicked has nothing more to write; its callers are told by `stop` below.
            let _ = thread.join();
        }
        self.shared.stop();
        lock(&self.shared.hubs).clear();
    }
}
