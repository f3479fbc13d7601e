//! Reading what is durable, segment by segment, every frame checked.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::disk::Disk;
use crate::error::ReadError;
use crate::frame::{HEADER_BYTES, Kind};
use crate::order::Order;
use crate::segment::segment_path;
use crate::state::{Entry, Shared};
use crate::window::{Head, WINDOW_BYTES, Window};

/// Where a frame is. Good as long as its segment is kept: no restart and no repair moves a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Id of the segment, as in its file's name.
    pub segment: u64,
    /// Byte in the segment's file at which the frame begins; a multiple of 8.
    pub offset: u64,
}

/// One frame with its place, borrowed from the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedFrame<'a> {
    /// Its place in the log; of a seal, the sequence of the last frame before it.
    pub sequence: u64,
    /// Where it is.
    pub position: Position,
    /// Whether it is the seal of the frames since the last seal.
    pub is_seal: bool,
    /// What was appended, or the seal's 32 bytes.
    pub payload: &'a [u8],
}

/// Payloads and seals in order, from [`crate::Journal::read_frames`]. It ends at what was durable when it was made, the
/// last seal included, and after the first error. It turns to the mirror as [`Reader`] does.
pub struct Frames {
    shared: Arc<Shared>,
    /// The directory that is read, and those to turn to if it is damaged.
    dirs: Range<usize>,
    /// Whether seals are wanted.
    seals: bool,
    /// What is read next: the payload of this sequence or, if true, the seal after it if there is one.
    next: (u64, bool),
    last: u64,
    open: Option<OpenSegment>,
}

/// Payloads in order, from [`crate::Journal::read`]; each item is a sequence and its payload. It ends at what
/// was durable when it was made, and after the first error. What is damaged is read from the mirror, if there
/// is one ([`crate::Stats::mirror_reads`] counts that).
pub struct Reader(Frames);

/// What [`crate::Journal::verify`] read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Frames without the seals, counted once for each directory.
    pub frames: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
}

impl Frames {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        from: u64,
        count: u64,
        seals: bool,
    ) -> Result<Frames, ReadError> {
        let last = match count {
            0 => 0,
            _ => shared.durable().min(from.saturating_add(count - 1)),
        };
        let frames = Frames {
            shared: shared.clone(),
            dirs: 0..shared.dirs.len(),
            seals,
            next: (from, false),
            last,
            open: None,
        };
        let first = first(shared);
        if from < first && from <= last {
            Err(ReadError::Pruned {
                sequence: from,
                first,
            })
        } else {
            Ok(frames)
        }
    }

    /// As [`Frames::new`], without a search for `from`: its frame is at `position`.
    pub(crate) fn at(
        shared: &Arc<Shared>,
        from: u64,
        position: Position,
    ) -> Result<Frames, ReadError> {
        let mut frames = Frames::new(shared, from, u64::MAX, true)?;
        if from <= frames.last {
            let mut open = frames.open_segment()?;
            if !open.go_to(from, position)? {
                return Err(ReadError::WrongPosition {
                    sequence: from,
                    segment: position.segment,
                    offset: position.offset,
                });
            }
            frames.open = Some(open);
        }
        Ok(frames)
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// [`ReadError`]; the reader has ended then.
    pub fn read_next(&mut self) -> Result<Option<PlacedFrame<'_>>, ReadError> {
        let head = match self.advance_anywhere() {
            Ok(head) => head,
            Err(error) => {
                self.next = (u64::MAX, true);
                return Err(error);
            }
        };
        let (Some(head), Some(open)) = (head, &self.open) else {
            return Ok(None);
        };
        Ok(Some(PlacedFrame {
            sequence: head.sequence,
            position: Position {
                segment: open.window.header.id,
                offset: head.offset,
            },
            is_seal: head.is_seal,
            payload: open.window.payload(),
        }))
    }

    fn dir(&self) -> PathBuf {
        let dir = self.shared.dirs.get(self.dirs.start);
        dir.cloned().unwrap_or_default()
    }

    /// Opens the segment that holds the next frame.
    fn open_segment(&self) -> Result<OpenSegment, ReadError> {
        let (next, _) = self.next;
        // Held until the file is open, so that it is not unlinked in between.
        let index = self
            .shared
            .index
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let after = index.partition_point(|entry| entry.first <= next);
        let entry = after.checked_sub(1).and_then(|at| index.get(at));
        let first = index.first().map_or(1, |entry| entry.first);
        let entry = entry.ok_or(ReadError::Pruned {
            sequence: next,
            first,
        })?;
        let until = index.get(after).map(|entry| entry.first);
        OpenSegment::open(self.shared.disk.as_ref(), &self.dir(), *entry, until)
    }

    /// Goes over the next frame; `None` at the end.
    fn advance(&mut self) -> Result<Option<Head>, ReadError> {
        while self.next.0 <= self.last {
            let mut open = match self.open.take() {
                Some(open) if open.until.is_none_or(|until| self.next.0 < until) => open,
                _ => self.open_segment()?,
            };
            let head = open.next_frame()?;
            let sealed = open.window.header.sealed;
            self.open = Some(open);
            if (head.sequence, head.is_seal) < self.next {
                continue;
            }
            self.next = if !head.is_seal && sealed && self.seals {
                (head.sequence, true)
            } else {
                (head.sequence.saturating_add(1), false)
            };
            return Ok(Some(head));
        }
        Ok(None)
    }

    /// Goes over the next frame, in the mirror if the directory has it no longer.
    fn advance_anywhere(&mut self) -> Result<Option<Head>, ReadError> {
        loop {
            match self.advance() {
                Err(ReadError::Damaged { .. } | ReadError::Io { .. }) if self.dirs.len() > 1 => {
                    self.dirs.start += 1;
                    self.open = None;
                    self.shared
                        .counters
                        .mirror_reads
                        .fetch_add(1, Ordering::Relaxed);
                }
                result => return result,
            }
        }
    }
}

impl Reader {
    pub(crate) fn new(shared: &Arc<Shared>, from: u64, count: u64) -> Result<Reader, ReadError> {
        Frames::new(shared, from, count, false).map(Reader)
    }
}

impl Iterator for Reader {
    type Item = Result<(u64, Vec<u8>), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let frame = self.0.read_next().transpose()?;
        Some(frame.map(|frame| (frame.sequence, frame.payload.to_vec())))
    }
}

/// The first sequence that is kept.
pub(crate) fn first(shared: &Shared) -> u64 {
    shared
        .index
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .first()
        .map_or(1, |entry| entry.first)
}

/// Reads everything durable in every directory.
pub(crate) fn verify(shared: &Arc<Shared>) -> Result<Verified, ReadError> {
    let mut verified = Verified::default();
    for dir in 0..shared.dirs.len() {
        let mut frames = Frames::new(shared, first(shared), u64::MAX, true)?;
        frames.dirs = dir..dir + 1;
        while let Some(frame) = frames.read_next()? {
            if !frame.is_seal {
                verified.frames += 1;
                verified.payload_bytes += frame.payload.len() as u64;
            }
        }
    }
    Ok(verified)
}

/// A segment that is being read.
struct OpenSegment {
    window: Window,
    order: Order,
    /// The first sequence of the segment after this one.
    until: Option<u64>,
}

impl OpenSegment {
    fn open(
        disk: &dyn Disk,
        dir: &Path,
        entry: Entry,
        until: Option<u64>,
    ) -> Result<OpenSegment, ReadError> {
        let path = segment_path(dir, entry.id);
        let window = Window::open(disk, &path, Kind::Segment, WINDOW_BYTES)?.ok();
        let right =
            |window: &Window| window.header.id == entry.id && window.header.first == entry.first;
        let damaged = || ReadError::Damaged {
            path: dir.to_owned(),
            segment: entry.id,
            offset: 0,
            sequence: entry.first,
        };
        let window = window.filter(right).ok_or_else(damaged)?;
        let order = Order::from(&window.header, entry.first);
        Ok(OpenSegment {
            window,
            order,
            until,
        })
    }

    /// Goes to the frame of `sequence`; false if it is not at `position`.
    fn go_to(&mut self, sequence: u64, position: Position) -> Result<bool, ReadError> {
        let Position { segment, offset } = position;
        if segment != self.window.header.id
            || !(HEADER_BYTES as u64..self.window.size).contains(&offset)
            || !offset.is_multiple_of(8)
        {
            return Ok(false);
        }
        self.window.seek(offset);
        let head = self.window.next_frame()?;
        self.window.seek(offset);
        self.order = Order::from(&self.window.header, sequence);
        Ok(head.is_some_and(|head| head.sequence == sequence && !head.is_seal))
    }

    fn next_frame(&mut self) -> Result<Head, ReadError> {
        let offset = self.window.offset();
        let head = self.window.next_frame()?;
        let fits = head.filter(|head| self.order.take(head.sequence, head.is_seal));
        fits.ok_or_else(|| ReadError::Damaged {
            path: self
                .window
                .path
                .parent()
                .unwrap_or(Path::new(""))
                .to_owned(),
            segment: self.window.header.id,
            offset,
            sequence: self.order.next,
        })
    }
}
