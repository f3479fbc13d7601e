//! Reading what is durable, segment by segment, every frame checked.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::disk::Disk;
use crate::error::ReadError;
use crate::frame::Kind;
use crate::segment::segment_path;
use crate::state::{Entry, Shared};
use crate::window::Window;

/// Frames in order, from [`crate::Journal::read`]; each item is a sequence and its payload. It ends at what
/// was durable when it was made, and after the first error. What is damaged is read from the mirror, if there
/// is one ([`crate::Stats::mirror_reads`] counts that).
pub struct Reader {
    shared: Arc<Shared>,
    /// The directory that is read, and those to turn to if it is damaged.
    dirs: Range<usize>,
    next: u64,
    last: u64,
    open: Option<OpenSegment>,
}

/// What [`crate::Journal::verify`] read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Frames, counted once for each directory.
    pub frames: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
}

impl Reader {
    pub(crate) fn new(shared: &Arc<Shared>, from: u64, count: u64) -> Result<Reader, ReadError> {
        let last = match count {
            0 => 0,
            _ => shared.durable().min(from.saturating_add(count - 1)),
        };
        let reader = Reader {
            shared: shared.clone(),
            dirs: 0..shared.dirs.len(),
            next: from,
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
            Ok(reader)
        }
    }

    /// Opens the segment that holds the next frame.
    fn open_segment(&self, dir: &Path) -> Result<OpenSegment, ReadError> {
        // Held until the file is open, so that it is not unlinked in between.
        let index = self
            .shared
            .index
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let after = index.partition_point(|entry| entry.first <= self.next);
        let entry = after.checked_sub(1).and_then(|at| index.get(at));
        let first = index.first().map_or(1, |entry| entry.first);
        let entry = entry.ok_or(ReadError::Pruned {
            sequence: self.next,
            first,
        })?;
        let until = index.get(after).map(|entry| entry.first);
        OpenSegment::open(self.shared.disk.as_ref(), dir, *entry, until)
    }

    fn read_next(&mut self) -> Result<Vec<u8>, ReadError> {
        loop {
            let mut open = match self.open.take() {
                Some(open) if open.until.is_none_or(|until| self.next < until) => open,
                _ => self.open_segment(
                    &self
                        .shared
                        .dirs
                        .get(self.dirs.start)
                        .cloned()
                        .unwrap_or_default(),
                )?,
            };
            let (sequence, payload) = open.next_frame()?;
            self.open = Some(open);
            if sequence == self.next {
                return Ok(payload);
            }
        }
    }

    /// Reads the next frame, from the mirror if the directory has it no longer.
    fn read_next_anywhere(&mut self) -> Result<Vec<u8>, ReadError> {
        loop {
            match self.read_next() {
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

impl Iterator for Reader {
    type Item = Result<(u64, Vec<u8>), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next > self.last {
            return None;
        }
        let sequence = self.next;
        let item = self.read_next_anywhere().map(|payload| (sequence, payload));
        self.next = if item.is_ok() { sequence + 1 } else { u64::MAX };
        Some(item)
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
        let mut reader = Reader::new(shared, first(shared), u64::MAX)?;
        reader.dirs = dir..dir + 1;
        for item in reader {
            let (_, payload) = item?;
            verified.frames += 1;
            verified.payload_bytes += payload.len() as u64;
        }
    }
    Ok(verified)
}

/// A segment that is being read.
struct OpenSegment {
    window: Window,
    sequence: u64,
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
        let window = Window::open(disk, &segment_path(dir, entry.id), Kind::Segment)?;
        let right =
            |window: &Window| window.header.id == entry.id && window.header.first == entry.first;
        let damaged = || ReadError::Damaged {
            path: dir.to_owned(),
            segment: entry.id,
            offset: 0,
            sequence: entry.first,
        };
        let window = window.filter(right).ok_or_else(damaged)?;
        Ok(OpenSegment {
            window,
            sequence: entry.first,
            until,
        })
    }

    fn next_frame(&mut self) -> Result<(u64, Vec<u8>), ReadError> {
        let offset = self.window.offset();
        match self.window.next_frame()? {
            Some((sequence, payload)) if sequence == self.sequence => {
                self.sequence += 1;
                Ok((sequence, payload))
            }
            _ => Err(ReadError::Damaged {
                path: self
                    .window
                    .path
                    .parent()
                    .unwrap_or(Path::new(""))
                    .to_owned(),
                segment: self.window.header.id,
                offset,
                sequence: self.sequence,
            }),
        }
    }
}
