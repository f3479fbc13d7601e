//! A segment's files: made and zero-filled under a temporary name, renamed when their first write is
//! durable, one in each directory of the journal.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, write_all};
use crate::frame::{HEADER_BYTES, Kind, SegmentHeader, stamp_frames};

const EXTENSION: &str = ".seg";
const TEMPORARY: &str = ".seg.tmp";
const FILL_BYTES: usize = 256 << 10;

/// The path of a segment with its name.
pub(crate) fn segment_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}{EXTENSION}"))
}

/// The path of a segment that is still being made.
pub(crate) fn temporary_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}{TEMPORARY}"))
}

/// The id in a segment's file name, if it is one.
pub(crate) fn segment_id(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(EXTENSION)?;
    let id = u64::from_str_radix(digits, 16).ok()?;
    (format!("{id:016x}") == digits).then_some(id)
}

/// Whether a file name is that of a segment which never got its name.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.ends_with(TEMPORARY)
}

/// A segment that takes frames.
pub(crate) struct Segment {
    pub(crate) id: u64,
    pub(crate) size: u64,
    pub(crate) salt: u64,
    pub(crate) log: [u8; 16],
    pub(crate) sealed: bool,
    /// One a directory, in the journal's order.
    files: Vec<(PathBuf, Arc<dyn DiskFile>)>,
}

/// An operation on a path that failed.
pub(crate) struct Failed {
    pub(crate) action: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

/// Names the action and the path in an I/O error.
pub(crate) fn on<T>(action: &'static str, path: &Path, result: io::Result<T>) -> Result<T, Failed> {
    result.map_err(|source| Failed {
        action,
        path: path.to_owned(),
        source,
    })
}

impl Segment {
    /// Makes the files under their temporary names, zero-filled and synced. On failure none is left behind.
    pub(crate) fn prepare(
        disk: &dyn Disk,
        dirs: &[PathBuf],
        id: u64,
        size: u64,
        log: [u8; 16],
        sealed: bool,
    ) -> Result<Segment, Failed> {
        let salt = Segment::make_salt();
        let mut files = Vec::with_capacity(dirs.len());
        for dir in dirs {
            let path = temporary_path(dir, id);
            match on("make the segment", &path, zero_fill(disk, &path, size)) {
                Ok(file) => files.push((dir.clone(), file)),
                Err(failed) => {
                    for dir in dirs {
                        // Best effort: what stays is removed by the next attempt or the next open.
                        let _ = disk.remove(&temporary_path(dir, id));
                    }
                    return Err(failed);
                }
            }
        }
        Ok(Segment {
            id,
            size,
            salt,
            log,
            sealed,
            files,
        })
    }

    /// Makes a segment that already holds `frames`, durably and under its name, in place of one that may
    /// be there. The frames are stamped as durable through `durable_through`.
    pub(crate) fn create(
        disk: &dyn Disk,
        dirs: &[PathBuf],
        header: &SegmentHeader,
        frames: &[u8],
        durable_through: u64,
    ) -> Result<Segment, Failed> {
        let SegmentHeader { id, size, log, .. } = *header;
        let mut segment = Segment::prepare(disk, dirs, id, size, log, header.sealed)?;
        segment.salt = header.salt;
        let mut bytes = header.encode(Kind::Segment);
        bytes.extend_from_slice(frames);
        if let Some(frames) = bytes.get_mut(HEADER_BYTES..) {
            stamp_frames(frames, header.salt, durable_through);
        }
        segment.write(0, &bytes)?;
        segment.sync()?;
        segment.publish(disk)?;
        Ok(segment)
    }

    /// The standard library's hasher is seeded by the operating system, which is enough here: no key or
    /// plaintext hangs on it.
    pub(crate) fn make_salt() -> u64 {
        RandomState::new().hash_one(0)
    }

    /// The id of a new log; random, by two independent seeds.
    pub(crate) fn make_log_id() -> [u8; 16] {
        let halves = [Segment::make_salt(), Segment::make_salt()];
        let mut log = [0; 16];
        for (to, half) in log.chunks_exact_mut(8).zip(halves) {
            to.copy_from_slice(&half.to_be_bytes());
        }
        log
    }

    pub(crate) fn header(&self, first: u64) -> SegmentHeader {
        SegmentHeader {
            id: self.id,
            first,
            size: self.size,
            salt: self.salt,
            log: self.log,
            copies: self.files.len() as u32,
            sealed: self.sealed,
        }
    }

    /// Writes in every directory. The bytes then survive the end of the process and not a loss of power.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Failed> {
        for (dir, file) in &self.files {
            on(
                "write the segment in",
                dir,
                write_all(file.as_ref(), offset, bytes),
            )?;
        }
        Ok(())
    }

    /// Syncs in every directory. When it returns, what was written is durable in all of them.
    pub(crate) fn sync(&self) -> Result<(), Failed> {
        for (dir, file) in &self.files {
            on("sync the segment in", dir, file.sync())?;
        }
        Ok(())
    }

    /// Gives the files their names, durably.
    pub(crate) fn publish(&self, disk: &dyn Disk) -> Result<(), Failed> {
        for (dir, _) in &self.files {
            let path = segment_path(dir, self.id);
            on(
                "name the segment",
                &path,
                disk.rename(&temporary_path(dir, self.id), &path),
            )?;
            on("sync the directory", dir, disk.sync_dir(dir))?;
        }
        Ok(())
    }

    /// Removes the files of a segment that never got its name.
    pub(crate) fn discard(&self, disk: &dyn Disk) {
        for (dir, _) in &self.files {
            // What stays is removed by the next open.
            let _ = disk.remove(&temporary_path(dir, self.id));
        }
    }
}

fn zero_fill(disk: &dyn Disk, path: &Path, size: u64) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk.create(path)?;
    let zeroes = vec![0; FILL_BYTES.min(usize::try_from(size).unwrap_or(FILL_BYTES))];
    let mut offset = 0;
    while offset < size {
        let length = (size - offset).min(zeroes.len() as u64);
        write_all(
            file.as_ref(),
            offset,
            zeroes.get(..length as usize).unwrap_or_default(),
        )?;
        offset += length;
    }
    file.sync()?;
    Ok(file)
}
