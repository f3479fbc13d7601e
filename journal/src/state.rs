//! What callers and the journal's two threads share: the group being filled, and what is written and durable.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use crate::disk::Disk;
use crate::error::{AppendError, FatalError};
use crate::fill::{Fill, Upcoming};
use crate::frame::{HEADER_BYTES, frame_bytes};
use crate::journal::Ticket;
use crate::options::{AppendOptions, Options};
use crate::seal::Seal;
use crate::segment::{Failed, Segment};
use crate::waiters::Hub;

pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    /// The directory, and the mirror if there is one.
    pub(crate) dirs: Vec<PathBuf>,
    pub(crate) options: Options,
    /// The log's id, for the headers of its segments.
    pub(crate) log: [u8; 16],
    fill: Mutex<Fill>,
    /// The owner's; used by the writer alone once it is set.
    pub(crate) seal: Mutex<Option<Box<dyn Seal>>>,
    /// The writer waits for frames.
    pub(crate) work: Condvar,
    /// Callers wait for the segment that is being made.
    pub(crate) room: Condvar,
    /// The preparer waits for a segment to be wanted.
    pub(crate) wanted: Condvar,
    durable: AtomicU64,
    /// At least `durable`.
    written: AtomicU64,
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
    pub(crate) writes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) frames: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) largest_group: AtomicU64,
    pub(crate) mirror_reads: AtomicU64,
}

/// What a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// That its frames were given to the operating system: they survive the end of the process.
    Written,
    /// That its frames are on disk: they survive the loss of power.
    Durable,
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
        let fill = Fill::new(segment, end, next, options.leaf.is_some());
        Shared {
            disk,
            dirs,
            options,
            log,
            fill: Mutex::new(fill),
            seal: Mutex::new(None),
            work: Condvar::new(),
            room: Condvar::new(),
            wanted: Condvar::new(),
            durable: AtomicU64::new(next - 1),
            written: AtomicU64::new(next - 1),
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

    /// Gives the seal; from now on appends are taken.
    pub(crate) fn set_seal(&self, seal: Box<dyn Seal>) {
        *lock(&self.seal) = Some(seal);
        self.fill().needs_seal = false;
    }

    /// Copies payloads into the group being filled, side by side in one segment.
    pub(crate) fn append(
        &self,
        payloads: &[&[u8]],
        how: AppendOptions,
    ) -> Result<Ticket, AppendError> {
        let needed = self.needed_bytes(payloads)?;
        // Hashed before the lock is taken. One payload is the usual case, and needs no memory for it.
        let (one, several);
        let leaves: &[[u8; 32]] = match (self.options.leaf, payloads) {
            (None, _) => &[],
            (Some(leaf), [payload]) => {
                one = [leaf(payload)];
                &one
            }
            (Some(leaf), _) => {
                several = payloads
                    .iter()
                    .map(|payload| leaf(payload))
                    .collect::<Vec<_>>();
                &several
            }
        };
        let leaf = leaves.last().copied();
        let mut fill = self.fill();
        loop {
            if fill.closing {
                return Err(AppendError::Closed);
            }
            if payloads.is_empty() {
                return Ok(Ticket::at(fill.next - 1));
            }
            if fill.needs_seal {
                return Err(AppendError::NoSeal);
            }
            let pending = fill.pending_bytes();
            if pending > 0 && pending + needed > self.options.max_pending_bytes {
                return Err(AppendError::Busy);
            }
            let end = fill.end + needed as u64;
            let fits = end <= fill.segment.size;
            let reserve = match how.privileged {
                true => 0,
                false => self.options.reserve_bytes,
            };
            if end.saturating_add(reserve) <= fill.segment.size {
                break;
            }
            // The segment is full, or only its reserve is left, which is for all if there is a segment after it.
            match fill.upcoming {
                Upcoming::Ready(_) => {
                    if !fits {
                        fill.roll();
                        self.wanted.notify_one();
                    }
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
        let sequence = fill.push(payloads, leaves, how.relaxed);
        if fill.idle {
            fill.idle = false;
            self.work.notify_one();
        }
        Ok(Ticket { sequence, leaf })
    }

    /// Bytes of the frames, and of the seal that must still fit behind them.
    fn needed_bytes(&self, payloads: &[&[u8]]) -> Result<usize, AppendError> {
        let mut needed = self.options.seal_bytes();
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

    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Says that everything up to `sequence` is written or durable, and wakes those who wait for it: each runtime once.
    pub(crate) fn publish(&self, level: Level, sequence: u64) {
        self.written.store(sequence, Ordering::Release);
        if level == Level::Durable {
            self.durable.store(sequence, Ordering::Release);
        }
        self.wake_hubs(|hub| hub.wake_for(level, sequence));
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

    /// Whether a sequence is written or durable; `None` if that is not yet known.
    pub(crate) fn outcome(&self, level: Level, sequence: u64) -> Option<Result<(), AppendError>> {
        // In this order: what became durable before the stop is acknowledged.
        let stopped = self.is_stopped();
        let reached = match level {
            // A journal that stopped has synced everything, or has failed: what was only written may be lost then.
            Level::Written if !stopped => self.written(),
            _ => self.durable(),
        };
        if reached >= sequence {
            Some(Ok(()))
        } else if stopped {
            Some(Err(AppendError::Closed))
        } else {
            None
        }
    }

    pub(crate) fn wait_blocking(&self, level: Level, sequence: u64) -> Result<(), AppendError> {
        let mut sleepers = lock(&self.sleepers);
        loop {
            if let Some(outcome) = self.outcome(level, sequence) {
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

/// A poisoned lock still guards whole values here: nothing panics while one is half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
