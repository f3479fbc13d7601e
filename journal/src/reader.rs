//! Reading what is durable, segment by segment, every frame checked.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use crate::disk::{Disk, DiskFile, read_full};
use crate::error::ReadError;
use crate::frame::{
    HEAD_BYTES, HEADER_BYTES, SegmentHeader, frame_bytes_of, parse_frame, parse_header,
};
use crate::segment::{on, segment_path};
use crate::state::{Entry, Shared};

/// Bytes read from the file at a time.
const WINDOW_BYTES: usize = 128 << 10;

/// Frames in order, from [`crate::Journal::read`]; each item is a sequence and its payload. It ends at what
/// was durable when it was made, and after the first error.
pub struct Reader {
    shared: Arc<Shared>,
    /// Which directory is read.
    dir: usize,
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
        let last = shared
            .durable()
            .min(from.saturating_add(count).saturating_sub(1));
        let reader = Reader {
            shared: shared.clone(),
            dir: 0,
            next: from,
            last,
            open: None,
        };
        if count > 0 && from <= last {
            reader.find_segment()?;
        }
        Ok(Reader {
            last: if count == 0 { 0 } else { last },
            ..reader
        })
    }

    /// The segment that holds the next frame, and where the one after begins.
    fn find_segment(&self) -> Result<(Entry, Option<u64>), ReadError> {
        let index = self
            .shared
            .index
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let after = index.partition_point(|entry| entry.first <= self.next);
        let entry = after.checked_sub(1).and_then(|at| index.get(at));
        let entry = entry.ok_or(ReadError::Pruned {
            sequence: self.next,
            first: index.first().map_or(1, |entry| entry.first),
        })?;
        Ok((*entry, index.get(after).map(|entry| entry.first)))
    }

    fn read_next(&mut self) -> Result<Vec<u8>, ReadError> {
        loop {
            let mut open = match self.open.take() {
                Some(open) if open.until.is_none_or(|until| self.next < until) => open,
                _ => {
                    let (entry, until) = self.find_segment()?;
                    let dir = self.shared.dirs.get(self.dir).cloned().unwrap_or_default();
                    OpenSegment::open(self.shared.disk.as_ref(), dir, entry, until)?
                }
            };
            let (sequence, payload) = open.next_frame()?;
            self.open = Some(open);
            if sequence == self.next {
                return Ok(payload);
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
        let item = self.read_next().map(|payload| (sequence, payload));
        self.next = if item.is_ok() { sequence + 1 } else { u64::MAX };
        Some(item)
    }
}

/// Reads everything durable in every directory.
pub(crate) fn verify(shared: &Arc<Shared>) -> Result<Verified, ReadError> {
    let first = shared
        .index
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .first()
        .map_or(1, |entry| entry.first);
    let mut verified = Verified::default();
    for dir in 0..shared.dirs.len() {
        let mut reader = Reader::new(shared, first, u64::MAX)?;
        reader.dir = dir;
        for item in reader {
            let (_, payload) = item?;
            verified.frames += 1;
            verified.payload_bytes += payload.len() as u64;
        }
    }
    Ok(verified)
}

/// A segment that is being read through a window of its file.
struct OpenSegment {
    dir: PathBuf,
    id: u64,
    file: Arc<dyn DiskFile>,
    header: SegmentHeader,
    window: Vec<u8>,
    /// Offset of the window in the file, and of the next frame in the window.
    window_at: u64,
    at: usize,
    sequence: u64,
    /// The first sequence of the segment after this one.
    until: Option<u64>,
}

impl OpenSegment {
    fn open(
        disk: &dyn Disk,
        dir: PathBuf,
        entry: Entry,
        until: Option<u64>,
    ) -> Result<OpenSegment, ReadError> {
        let path = segment_path(&dir, entry.id);
        let file = on("open", &path, disk.open(&path))?;
        let mut bytes = [0; HEADER_BYTES];
        let length = on("read", &path, read_full(file.as_ref(), 0, &mut bytes))?;
        let header = parse_header(bytes.get(..length).unwrap_or_default()).ok();
        let header = header.filter(|header| header.id == entry.id && header.first == entry.first);
        let damaged = ReadError::Damaged {
            path: dir.clone(),
            segment: entry.id,
            offset: 0,
            sequence: entry.first,
        };
        let header = header.ok_or(damaged)?;
        let window_at = HEADER_BYTES as u64;
        Ok(OpenSegment {
            dir,
            id: entry.id,
            file,
            header,
            window: Vec::new(),
            window_at,
            at: 0,
            sequence: entry.first,
            until,
        })
    }

    fn next_frame(&mut self) -> Result<(u64, Vec<u8>), ReadError> {
        self.load(HEAD_BYTES)?;
        let frame_bytes = self
            .window
            .get(self.at..)
            .and_then(frame_bytes_of)
            .unwrap_or_default();
        let offset = self.window_at + self.at as u64;
        // A length that is itself damaged must not make us read beyond the segment.
        if frame_bytes as u64 <= self.header.size.saturating_sub(offset) {
            self.load(frame_bytes)?;
        }
        let frame = parse_frame(&self.header, self.window.get(self.at..).unwrap_or_default());
        let frame = frame.filter(|frame| frame.sequence == self.sequence);
        let damaged = ReadError::Damaged {
            path: self.dir.clone(),
            segment: self.id,
            offset,
            sequence: self.sequence,
        };
        let frame = frame.ok_or(damaged)?;
        let found = (frame.sequence, frame.payload.to_vec());
        self.at += frame.frame_bytes;
        self.sequence += 1;
        Ok(found)
    }

    /// Makes the window hold `length` bytes from the next frame on, or as many as the file has.
    fn load(&mut self, length: usize) -> Result<(), ReadError> {
        if self.window.len().saturating_sub(self.at) >= length {
            return Ok(());
        }
        self.window_at += self.at as u64;
        self.at = 0;
        self.window.resize(length.max(WINDOW_BYTES), 0);
        let path = segment_path(&self.dir, self.id);
        let filled = on(
            "read",
            &path,
            read_full(self.file.as_ref(), self.window_at, &mut self.window),
        )?;
        self.window.truncate(filled);
        Ok(())
    }
}
