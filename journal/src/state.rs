//! What callers and the journal's two threads share: the group being filled, and what is durable.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use crate::disk::Disk;
use crate::error::{AppendError, FatalError};
use crate::frame::{HEADER_BYTES, Kind, frame_bytes, push_frame};
use crate::options::Options;
use crate::segment::{Failed, Segment};
use crate::waiters::Hub;

/// Buffers above this size are not kept for reuse.
const SPARE_BYTES: usize = 1 << 20;

pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    /// The directory, and the mirror if there is one.
    pub(crate) dirs: Vec<PathBuf>,
    pub(crate) options: Options,
    /// The log's id, for the headers of its segments.
    pub(crate) log: [u8; 16],
    fill: Mutex<Fill>,
    /// The writer waits for frames.
    pub(crate) work: Condvar,
    /// Callers wait for the segment that is being made.
    pub(crate) room: Condvar,
    /// The preparer waits for a segment to be wanted.
    pub(crate) wanted: Condvar,
    durable: AtomicU64,
    /// No frame becomes durable any more.
    stopped: AtomicBool,
    /// The fatal hook was called; it is called once, whichever thread fails first.
    failed: AtomicBool,
    sleepers: Mutex<usize>,
    done: Condvar,
    pub(crate) hubs: Mutex<Vec<Weak<Hub>>>,
    /// Every segment under its name, oldest first.
    pub(crate) index: RwLock<Vec<Entry>>,
    pub(crate) counters: Counters,
}

/// Where a segment begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) first: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) syncs: AtomicU64,
    pub(crate) frames: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) largest_group: AtomicU64,
    pub(crate) mirror_reads: AtomicU64,
}

/// The group that takes appends while the writer is busy with the one before.
pub(crate) struct Fill {
    pub(crate) chunks: Vec<Chunk>,
    /// Appends in the group; each has somebody waiting.
    pub(crate) appends: u64,
    pub(crate) next: u64,
    /// The segment that takes the next frame, and where.
    pub(crate) segment: Arc<Segment>,
    pub(crate) end: u64,
    pub(crate) spare: Vec<Vec<u8>>,
    pub(crate) upcoming: Upcoming,
    pub(crate) idle: bool,
    pub(crate) closing: bool,
}

/// Frames for one write: consecutive, in one segment.
pub(crate) struct Chunk {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// The segment after the current one.
pub(crate) enum Upcoming {
    Ready(Segment),
    /// Being made; callers that need it wait, which is for the time of zero-filling one segment at most.
    Making,
    /// The disk was full. The next append that needs it asks for another attempt.
    Full,
    /// Being tried again; callers are refused meanwhile, so that nobody hangs on a full disk.
    Retrying,
}

impl Shared {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dirs: Vec<PathBuf>,
        options: Options,
        segment: Segment,
        end: u64,
        next: u64,
        index: Vec<Entry>,
    ) -> Self {
        let log = segment.log;
        let fill = Fill {
            chunks: Vec::new(),
            appends: 0,
            next,
            segment: Arc::new(segment),
            end,
            spare: Vec::new(),
            upcoming: Upcoming::Making,
            idle: false,
            closing: false,
        };
        Shared {
            disk,
            dirs,
            options,
            log,
            fill: Mutex::new(fill),
            work: Condvar::new(),
            room: Condvar::new(),
            wanted: Condvar::new(),
            durable: AtomicU64::new(next - 1),
            stopped: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            sleepers: Mutex::new(0),
            done: Condvar::new(),
            hubs: Mutex::new(Vec::new()),
            index: RwLock::new(index),
            counters: Counters::default(),
        }
    }

    pub(crate) fn fill(&self) -> MutexGuard<'_, Fill> {
        lock(&self.fill)
    }

    /// Copies payloads into the group being filled, side by side in one segment; the last one's sequence.
    pub(crate) fn append(&self, payloads: &[&[u8]]) -> Result<u64, AppendError> {
        let needed = self.needed_bytes(payloads)?;
        let mut fill = self.fill();
        loop {
            if fill.closing {
                return Err(AppendError::Closed);
            }
            if payloads.is_empty() {
                return Ok(fill.next - 1);
            }
            let pending: usize = fill.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
            if pending > 0 && pending + needed > self.options.max_pending_bytes {
                return Err(AppendError::Busy);
            }
            if fill.end + needed as u64 <= fill.segment.size {
                break;
            }
            match fill.upcoming {
                Upcoming::Ready(_) => {
                    fill.roll();
                    self.wanted.notify_one();
                    // `needed_bytes` saw to it that all fits into an empty segment.
                    break;
                }
                Upcoming::Making => {
                    fill = self.room.wait(fill).unwrap_or_else(PoisonError::into_inner)
                }
                Upcoming::Full => {
                    fill.upcoming = Upcoming::Retrying;
                    self.wanted.notify_one();
                    return Err(AppendError::NoSpace);
                }
                Upcoming::Retrying => return Err(AppendError::NoSpace),
            }
        }
        let last = fill.push(payloads);
        if fill.idle {
            fill.idle = false;
            self.work.notify_one();
        }
        Ok(last)
    }

    fn needed_bytes(&self, payloads: &[&[u8]]) -> Result<usize, AppendError> {
        let mut needed = 0;
        for payload in payloads {
            if payload.len() > self.options.max_payload_bytes {
                return Err(AppendError::TooLarge);
            }
            needed += frame_bytes(payload.len());
        }
        if (needed + HEADER_BYTES) as u64 > self.options.segment_bytes {
            return Err(AppendError::TooLarge);
        }
        Ok(needed)
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Says that everything up to `sequence` is durable, and wakes those who wait for it: each runtime once.
    pub(crate) fn publish(&self, sequence: u64) {
        self.durable.store(sequence, Ordering::Release);
        self.wake_hubs(|hub| hub.wake_for(sequence));
    }

    /// Says that nothing more becomes durable.
    pub(crate) fn stop(&self) {
        self.fill().closing = true;
        self.stopped.store(true, Ordering::Release);
        self.room.notify_all();
        self.wanted.notify_all();
        self.work.notify_all();
        self.wake_hubs(Hub::wake);
    }

    fn wake_hubs(&self, wake: impl Fn(&Hub)) {
        lock(&self.hubs).retain(|hub| hub.upgrade().inspect(|hub| wake(hub)).is_some());
        if *lock(&self.sleepers) > 0 {
            self.done.notify_all();
        }
    }

    /// Whether a sequence is durable; `None` if that is not yet known.
    pub(crate) fn outcome(&self, sequence: u64) -> Option<Result<(), AppendError>> {
        // In this order: what became durable before the stop is acknowledged.
        let stopped = self.is_stopped();
        if self.durable() >= sequence {
            Some(Ok(()))
        } else if stopped {
            Some(Err(AppendError::Closed))
        } else {
            None
        }
    }

    pub(crate) fn wait_blocking(&self, sequence: u64) -> Result<(), AppendError> {
        let mut sleepers = lock(&self.sleepers);
        loop {
            if let Some(outcome) = self.outcome(sequence) {
                return outcome;
            }
            *sleepers += 1;
            sleepers = self
                .done
                .wait(sleepers)
                .unwrap_or_else(PoisonError::into_inner);
            *sleepers -= 1;
        }
    }

    /// Ends the process, or in tests the journal.
    pub(crate) fn fail(&self, failed: Failed) {
        if self.failed.swap(true, Ordering::AcqRel) {
            return;
        }
        let Failed {
            action,
            path,
            source,
        } = failed;
        self.options.on_fatal.call(&FatalError {
            action,
            path,
            source,
        });
        self.stop();
    }
}

impl Fill {
    /// Continues in the upcoming segment. Its header goes in front of its first frame, in the same write.
    fn roll(&mut self) {
        let Upcoming::Ready(segment) = std::mem::replace(&mut self.upcoming, Upcoming::Making)
        else {
            return;
        };
        self.segment = Arc::new(segment);
        self.end = 0;
        self.start_chunk();
        let header = self.segment.header(self.next).encode(Kind::Segment);
        self.end = header.len() as u64;
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.bytes.extend_from_slice(&header);
        }
    }

    fn start_chunk(&mut self) {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        self.chunks.push(Chunk {
            segment: self.segment.clone(),
            offset: self.end,
            bytes,
            first: self.next,
            last: self.next,
        });
    }

    fn push(&mut self, payloads: &[&[u8]]) -> u64 {
        if self.chunks.is_empty() {
            self.start_chunk();
        }
        let id = self.segment.id;
        if let Some(chunk) = self.chunks.last_mut() {
            for payload in payloads {
                push_frame(&mut chunk.bytes, id, self.next, payload);
                chunk.last = self.next;
                self.next += 1;
            }
            self.end = chunk.offset + chunk.bytes.len() as u64;
        }
        self.appends += 1;
        self.next - 1
    }

    /// Keeps the buffers of written chunks for the next groups.
    pub(crate) fn recycle(&mut self, chunks: Vec<Chunk>) {
        let buffers = chunks.into_iter().map(|chunk| chunk.bytes);
        self.spare.extend(
            buffers
                .filter(|bytes| bytes.capacity() <= SPARE_BYTES)
                .take(1),
        );
        self.spare.truncate(2);
    }
}

/// A poisoned lock still guards whole values here: nothing panics while one is half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
