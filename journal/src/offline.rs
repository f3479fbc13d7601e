//! Reading a directory that is not opened: a copy, or one that a journal has open meanwhile. Nothing in it is changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, SystemDisk};
use crate::durable::{Mark, read_mark};
use crate::error::{DamageCause, OfflineError};
use crate::frame::{HEADER_BYTES, HeaderError, Kind, find_frames, starts_with_seal};
use crate::order::Order;
use crate::reader::{PlacedFrame, Position};
use crate::scan::fault_at_end;
use crate::segment::{Failed, on, segment_id, segment_path};
use crate::window::{Head, Window};

/// Bytes read at a time: a whole log is read, and large reads cost least.
const WINDOW_BYTES: usize = 1 << 20;

/// Every frame in a directory, in order and each checked, up to the first defect. It takes no lock and repairs nothing.
///
/// Zeroes at the end of the last segment are the end of the log; oldest segments that are missing were pruned.
/// In a sealed segment, frames behind the last seal are no part of the log; they are given all the same, and then
/// [`DamageCause::Torn`] says from where on.
pub struct Offline {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// The segments that were not opened yet, newest first.
    later: Vec<u64>,
    current: Option<Current>,
    log: [u8; 16],
    first: u64,
    mark: Mark,
    /// The last sequence that is known to have been durable.
    claimed: u64,
}

struct Current {
    window: Window,
    order: Order,
    /// Offset behind the last whole commit.
    whole_end: u64,
}

/// What is wrong with a segment, and where.
struct Defect {
    segment: u64,
    offset: u64,
    sequence: u64,
    cause: DamageCause,
}

impl Offline {
    /// Begins at the first segment in `dir`. Blocks on the disk, as reading does.
    ///
    /// # Errors
    /// [`OfflineError::Absent`] if there is no segment, and the others if the first one cannot be read.
    pub fn open(dir: &Path) -> Result<Offline, OfflineError> {
        Offline::open_on(Arc::new(SystemDisk), dir)
    }

    /// As [`Offline::open`], but begins at the last segment whose id is at most `segment`, or at the first one if there is no such
    /// segment. What is before it is neither read nor judged.
    ///
    /// # Errors
    /// As [`Offline::open`].
    pub fn open_from(dir: &Path, segment: u64) -> Result<Offline, OfflineError> {
        Offline::open_from_on(Arc::new(SystemDisk), dir, segment)
    }

    /// As [`Offline::open`], on the disk given.
    ///
    /// # Errors
    /// As [`Offline::open`].
    pub fn open_on(disk: Arc<dyn Disk>, dir: &Path) -> Result<Offline, OfflineError> {
        Offline::open_from_on(disk, dir, 0)
    }

    /// As [`Offline::open_from`], on the disk given.
    ///
    /// # Errors
    /// As [`Offline::open`].
    pub fn open_from_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        segment: u64,
    ) -> Result<Offline, OfflineError> {
        // Before the segments, so that in a live directory they have all that the mark says.
        let mark = on("read the mark in", dir, read_mark(disk.as_ref(), dir))?;
        let names = on("list", dir, disk.list(dir))?;
        let mut later: Vec<u64> = names.iter().filter_map(|name| segment_id(name)).collect();
        later.sort_unstable_by(|a, b| b.cmp(a));
        let before = later.iter().rev().take_while(|id| **id <= segment).count();
        later.truncate(later.len() - before.saturating_sub(1));
        let mut offline = Offline {
            disk,
            dir: dir.to_owned(),
            later,
            current: None,
            log: [0; 16],
            first: 0,
            mark,
            claimed: mark.sequence(),
        };
        let id = offline.later.pop().ok_or_else(|| OfflineError::Absent {
            path: dir.to_owned(),
        })?;
        let window = offline
            .open_segment(id)?
            .map_err(|cause| offline.damaged(Defect::at_start(id, 1, cause)))?;
        (offline.log, offline.first) = (window.header.log, window.header.first);
        offline.current = Some(Current::new(window));
        Ok(offline)
    }

    /// The log's id, as [`crate::Journal::log_id`] gives it.
    pub fn log_id(&self) -> [u8; 16] {
        self.log
    }

    /// The first sequence of the segment that it began at; so the first that is kept, if it began at the beginning.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The id of the segment that the next frame is looked for in; `None` at the end.
    pub fn segment(&self) -> Option<u64> {
        self.current
            .as_ref()
            .map(|current| current.window.header.id)
    }

    /// The last sequence that is known to have been durable, from the mark when this was made and from what was read since.
    pub fn durable(&self) -> u64 {
        self.claimed
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// The first defect, or what the system says. It has ended then.
    pub fn read_next(&mut self) -> Result<Option<PlacedFrame<'_>>, OfflineError> {
        let head = match self.advance() {
            Ok(head) => head,
            Err(error) => {
                self.current = None;
                return Err(error);
            }
        };
        let (Some(head), Some(current)) = (head, &self.current) else {
            return Ok(None);
        };
        Ok(Some(PlacedFrame {
            sequence: head.sequence,
            position: Position {
                segment: current.window.header.id,
                offset: head.offset,
            },
            is_seal: head.is_seal,
            payload: current.window.payload(),
        }))
    }

    fn advance(&mut self) -> Result<Option<Head>, OfflineError> {
        loop {
            let Some(current) = &mut self.current else {
                return Ok(None);
            };
            let Some(head) = current.window.next_frame()? else {
                self.end_segment()?;
                continue;
            };
            if !current.order.take(head.sequence, head.is_seal) {
                let defect = Defect {
                    segment: current.window.header.id,
                    offset: head.offset,
                    sequence: current.order.next,
                    cause: DamageCause::OutOfSequence,
                };
                return Err(self.damaged(defect));
            }
            if !current.order.is_within_commit() {
                current.whole_end = current.window.offset();
            }
            self.claimed = self.claimed.max(head.durable_through);
            return Ok(Some(head));
        }
    }

    /// Judges the place where the current segment's frames end, and goes on to the next segment if there is one.
    fn end_segment(&mut self) -> Result<(), OfflineError> {
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let rest = current.window.read_rest()?;
        if current.window.size < current.window.header.size {
            return Err(self.damaged(current.defect(DamageCause::Short)));
        }
        let Some(id) = self.later.pop() else {
            return match self.judge_end(&current, &rest) {
                Some(defect) => Err(self.damaged(defect)),
                None => Ok(()),
            };
        };
        let next = self.open_segment(id)?;
        let follows = match &next {
            Ok(window) => window.header.first == current.order.next,
            Err(_) => false,
        };
        if let Some(defect) = current.judge_full(&rest, follows) {
            return Err(self.damaged(defect));
        }
        let sequence = current.order.next;
        let expected = current.window.header.id.saturating_add(1);
        let defect = match next {
            _ if id != expected => Defect::at_start(expected, sequence, DamageCause::Missing),
            Err(cause) => Defect::at_start(id, sequence, cause),
            Ok(window) if window.header.log != self.log || window.header.first < sequence => {
                Defect::at_start(id, sequence, DamageCause::OutOfSequence)
            }
            // The next segment begins later: frames at the end of this one are gone.
            Ok(_) if !follows => current.defect(DamageCause::Frame),
            Ok(window) => {
                self.claimed = self.claimed.max(sequence - 1);
                self.current = Some(Current::new(window));
                return Ok(());
            }
        };
        Err(self.damaged(defect))
    }

    /// What is wrong at the end of the log, if anything is.
    fn judge_end(&mut self, current: &Current, rest: &[u8]) -> Option<Defect> {
        for (_, frame) in find_frames(&current.window.header, rest) {
            self.claimed = self.claimed.max(frame.durable_through);
        }
        if let Some((cause, sequence)) = fault_at_end(&current.order, self.claimed, rest) {
            return Some(Defect {
                sequence,
                ..current.defect(cause)
            });
        }
        if !current.order.is_within_commit() && is_zero(rest) {
            return None;
        }
        if !self.mark.is_known() {
            return Some(current.defect(DamageCause::FrameAndMark));
        }
        Some(Defect {
            offset: current.whole_end,
            sequence: current.order.whole_next,
            ..current.defect(DamageCause::Torn)
        })
    }

    /// Opens a segment, or says what is wrong with its header.
    fn open_segment(&self, id: u64) -> Result<Result<Window, DamageCause>, OfflineError> {
        let path = segment_path(&self.dir, id);
        match Window::open(self.disk.as_ref(), &path, Kind::Segment, WINDOW_BYTES)? {
            Err(HeaderError::Version(version)) => Err(OfflineError::Version { path, version }),
            Err(error) => Ok(Err(DamageCause::Header(error))),
            Ok(window) if window.header.id != id || window.header.first == 0 => {
                Ok(Err(DamageCause::OutOfSequence))
            }
            Ok(window) => Ok(Ok(window)),
        }
    }

    fn damaged(&self, defect: Defect) -> OfflineError {
        OfflineError::Damaged {
            path: self.dir.clone(),
            segment: defect.segment,
            offset: defect.offset,
            sequence: defect.sequence,
            cause: defect.cause,
        }
    }
}

impl Current {
    fn new(window: Window) -> Current {
        Current {
            order: Order::from(&window.header, window.header.first),
            whole_end: HEADER_BYTES as u64,
            window,
        }
    }

    /// A defect at the place where the frames end.
    fn defect(&self, cause: DamageCause) -> Defect {
        Defect {
            segment: self.window.header.id,
            offset: self.window.offset(),
            sequence: self.order.next,
            cause,
        }
    }

    /// What is wrong at the end of a segment that another one follows; `follows` says that no frame is missing in between.
    fn judge_full(&self, rest: &[u8], follows: bool) -> Option<Defect> {
        let within_commit = self.order.is_within_commit();
        if starts_with_seal(rest) || (follows && within_commit) {
            Some(Defect {
                sequence: self.order.next.saturating_sub(1),
                ..self.defect(DamageCause::Seal)
            })
        } else if within_commit || (!follows && !is_zero(rest)) {
            Some(self.defect(DamageCause::Frame))
        } else if !is_zero(rest) {
            Some(self.defect(DamageCause::Unused))
        } else {
            None
        }
    }
}

impl Defect {
    fn at_start(segment: u64, sequence: u64, cause: DamageCause) -> Defect {
        Defect {
            segment,
            offset: 0,
            sequence,
            cause,
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

impl From<Failed> for OfflineError {
    fn from(
        Failed {
            action,
            path,
            source,
        }: Failed,
    ) -> Self {
        OfflineError::Io {
            action,
            path,
            source,
        }
    }
}
