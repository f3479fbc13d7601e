//! Whole files of frames, for what a store writes when it compacts its log.
//!
//! A snapshot has a header with magic `FKJP`, one frame a payload with sequences from 1 on, and a last frame
//! of sequence 0 whose payload is the count of the others, u64. Nothing follows it. So a snapshot that was
//! cut short, at whatever place, is told from a whole one.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, SystemDisk, is_no_space, write_all};
use crate::error::SnapshotError;
use crate::frame::{Kind, SegmentHeader, push_frame, stamp_frames};
use crate::segment::{Failed, Segment, on};
use crate::window::{WINDOW_BYTES, Window};

/// Frames are written in portions of about this size.
const BUFFER_BYTES: usize = 256 << 10;
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
        log: [0; 16],
        copies: 0,
        sealed: false,
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
        if buffer.len() >= BUFFER_BYTES {
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
    let damaged = || SnapshotError::Damaged {
        path: path.to_owned(),
        offset: 0,
    };
    let window = Window::open(disk, path, Kind::Snapshot, WINDOW_BYTES)?
        .ok()
        .ok_or_else(damaged)?;
    Ok(SnapshotReader {
        window,
        next: 1,
        ended: false,
    })
}

/// The payloads of a snapshot, in order. It ends after the last or after the first error.
pub struct SnapshotReader {
    window: Window,
    next: u64,
    ended: bool,
}

impl SnapshotReader {
    /// The id that the writer gave it.
    pub fn id(&self) -> u64 {
        self.window.header.id
    }

    fn read_next(&mut self) -> Result<Option<Vec<u8>>, SnapshotError> {
        let offset = self.window.offset();
        let head = self.window.next_frame()?.filter(|head| !head.is_seal);
        let at_end = self.window.offset() == self.window.size;
        let payload = self.window.payload();
        match head.map(|head| head.sequence) {
            Some(sequence) if sequence == self.next => {
                self.next += 1;
                Ok(Some(payload.to_vec()))
            }
            Some(TRAILER_SEQUENCE) if at_end && payload == (self.next - 1).to_be_bytes() => {
                Ok(None)
            }
            _ => Err(SnapshotError::Damaged {
                path: self.window.path.clone(),
                offset,
            }),
        }
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
