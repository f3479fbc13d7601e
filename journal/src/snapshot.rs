//! Whole files of frames, for what a store writes when it compacts its log.
//!
//! A snapshot has a header with magic `FKJP`, one frame a payload with sequences from 1 on, and a last frame
//! of sequence 0 whose payload is the count of the others, u64. Nothing follows it. So a snapshot that was
//! cut short, at whatever place, is told from a whole one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, SystemDisk, is_no_space, read_full, write_all};
use crate::error::SnapshotError;
use crate::frame::{
    HEAD_BYTES, HEADER_BYTES, Kind, SegmentHeader, frame_bytes_of, parse_frame, push_frame,
    stamp_frames, u64_at,
};
use crate::segment::{Failed, Segment, on};

const WINDOW_BYTES: usize = 256 << 10;
const TRAILER_SEQUENCE: u64 = 0;

/// Writes the payloads to a temporary file beside `path`, syncs it, reads it back, renames it to `path` and
/// syncs the directory. `id` is the caller's. Returns how many payloads there were. When it fails, what was
/// at `path` before is still there.
///
/// # Errors
/// [`SnapshotError`]; `Source` if an item is an error.
pub fn write_snapshot<P: AsRef<[u8]>>(
    path: &Path,
    id: u64,
    payloads: impl IntoIterator<Item = io::Result<P>>,
) -> Result<u64, SnapshotError> {
    write_snapshot_on(&SystemDisk, path, id, payloads)
}

pub(crate) fn write_snapshot_on<P: AsRef<[u8]>>(
    disk: &dyn Disk,
    path: &Path,
    id: u64,
    payloads: impl IntoIterator<Item = io::Result<P>>,
) -> Result<u64, SnapshotError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let written = write_temporary(disk, &temporary, id, payloads).and_then(|count| {
        let read_back =
            read_snapshot_on(disk, &temporary)?.try_fold(0, |read, item| item.map(|_| read + 1))?;
        if read_back != count {
            return Err(SnapshotError::Damaged {
                path: temporary.clone(),
                offset: 0,
            });
        }
        on("rename", &temporary, disk.rename(&temporary, path))?;
        Ok(count)
    });
    if written.is_err() {
        // Best effort: the next snapshot overwrites it.
        let _ = disk.remove(&temporary);
    }
    let count = written?;
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    on("sync the directory", dir, disk.sync_dir(dir))?;
    Ok(count)
}

fn write_temporary<P: AsRef<[u8]>>(
    disk: &dyn Disk,
    path: &Path,
    id: u64,
    payloads: impl IntoIterator<Item = io::Result<P>>,
) -> Result<u64, SnapshotError> {
    let file = on("make", path, disk.create(path))?;
    let header = SegmentHeader {
        id,
        first: 1,
        size: 0,
        salt: Segment::make_salt(),
    };
    let mut buffer = header.encode(Kind::Snapshot);
    let mut offset = 0;
    on("write", path, write_all(file.as_ref(), offset, &buffer))?;
    offset += buffer.len() as u64;
    buffer.clear();
    let mut count = 0;
    for payload in payloads {
        let payload = payload.map_err(SnapshotError::Source)?;
        if payload.as_ref().len() > (u32::MAX - 64) as usize {
            return Err(SnapshotError::TooLarge);
        }
        count += 1;
        push_frame(&mut buffer, id, count, payload.as_ref());
        if buffer.len() >= WINDOW_BYTES {
            stamp_frames(&mut buffer, header.salt, 0);
            on("write", path, write_all(file.as_ref(), offset, &buffer))?;
            offset += buffer.len() as u64;
            buffer.clear();
        }
    }
    push_frame(&mut buffer, id, TRAILER_SEQUENCE, &count.to_be_bytes());
    stamp_frames(&mut buffer, header.salt, 0);
    on("write", path, write_all(file.as_ref(), offset, &buffer))?;
    on("sync", path, file.sync())?;
    Ok(count)
}

/// Opens a snapshot. Only when the iterator has ended without an error was the file whole; until then nothing
/// read from it may be relied on.
///
/// # Errors
/// [`SnapshotError::Damaged`] if its header is not intact, [`SnapshotError::Io`].
pub fn read_snapshot(path: &Path) -> Result<SnapshotReader, SnapshotError> {
    read_snapshot_on(&SystemDisk, path)
}

pub(crate) fn read_snapshot_on(
    disk: &dyn Disk,
    path: &Path,
) -> Result<SnapshotReader, SnapshotError> {
    let file = on("open", path, disk.open(path))?;
    let mut bytes = [0; HEADER_BYTES];
    let length = on("read", path, read_full(file.as_ref(), 0, &mut bytes))?;
    let header = SegmentHeader::decode(Kind::Snapshot, bytes.get(..length).unwrap_or_default());
    let header = header.map_err(|_| SnapshotError::Damaged {
        path: path.to_owned(),
        offset: 0,
    })?;
    let size = on("read", path, file.size())?;
    Ok(SnapshotReader {
        path: path.to_owned(),
        file,
        header,
        size,
        window: Vec::new(),
        window_at: HEADER_BYTES as u64,
        at: 0,
        next: 1,
        ended: false,
    })
}

/// The payloads of a snapshot, in order. It ends after the last or after the first error.
pub struct SnapshotReader {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    header: SegmentHeader,
    size: u64,
    window: Vec<u8>,
    window_at: u64,
    at: usize,
    next: u64,
    ended: bool,
}

impl SnapshotReader {
    /// The id that the writer gave it.
    pub fn id(&self) -> u64 {
        self.header.id
    }

    fn read_next(&mut self) -> Result<Option<Vec<u8>>, SnapshotError> {
        self.load(HEAD_BYTES)?;
        let offset = self.window_at + self.at as u64;
        let frame_bytes = self
            .window
            .get(self.at..)
            .and_then(frame_bytes_of)
            .unwrap_or_default();
        if frame_bytes as u64 <= self.size.saturating_sub(offset) {
            self.load(frame_bytes)?;
        }
        let damaged = || SnapshotError::Damaged {
            path: self.path.clone(),
            offset,
        };
        let frame = parse_frame(&self.header, self.window.get(self.at..).unwrap_or_default())
            .ok_or_else(damaged)?;
        if frame.sequence == self.next {
            let payload = frame.payload.to_vec();
            self.at += frame.frame_bytes;
            self.next += 1;
            return Ok(Some(payload));
        }
        let whole = frame.sequence == TRAILER_SEQUENCE
            && frame.payload.len() == 8
            && u64_at(frame.payload, 0) == Some(self.next - 1)
            && offset + frame.frame_bytes as u64 == self.size;
        if whole { Ok(None) } else { Err(damaged()) }
    }

    fn load(&mut self, length: usize) -> Result<(), SnapshotError> {
        if self.window.len().saturating_sub(self.at) >= length {
            return Ok(());
        }
        self.window_at += self.at as u64;
        self.at = 0;
        self.window.resize(length.max(WINDOW_BYTES), 0);
        let filled = on(
            "read",
            &self.path,
            read_full(self.file.as_ref(), self.window_at, &mut self.window),
        )?;
        self.window.truncate(filled);
        Ok(())
    }
}

impl Iterator for SnapshotReader {
    type Item = Result<Vec<u8>, SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.read_next().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

impl From<Failed> for SnapshotError {
    fn from(
        Failed {
            action,
            path,
            source,
        }: Failed,
    ) -> Self {
        if is_no_space(&source) {
            return SnapshotError::NoSpace { path };
        }
        SnapshotError::Io {
            action,
            path,
            source,
        }
    }
}
