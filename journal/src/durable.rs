//! The mark `durable`: the last sequence that was synced, written after each sync and before its
//! acknowledgement. It is what makes the loss of an acknowledged tail visible, when no later frame
//! testifies for it.
//!
//! Two slots of 24 bytes, in sectors of their own and written in turn: `"FKJD" | version u32 |
//! sequence u64 | zero u32 | CRC-32`. The mark is not synced while serving, so that after a power
//! loss it may be behind; it is never ahead.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, read_full, write_all};
use crate::frame::{u32_at, u64_at};

const NAME: &str = "durable";
pub(crate) const TEMPORARY: &str = "durable.tmp";
const SLOT_BYTES: usize = 24;
const SLOT_SPACING: usize = 512;

/// What the mark in a directory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Known(u64),
    /// There is no such file.
    Absent,
    /// Neither slot is intact, which no crash leaves behind.
    Unreadable,
}

impl Mark {
    pub(crate) fn is_known(self) -> bool {
        matches!(self, Mark::Known(_))
    }

    pub(crate) fn sequence(self) -> u64 {
        match self {
            Mark::Known(sequence) => sequence,
            Mark::Absent | Mark::Unreadable => 0,
        }
    }
}

pub(crate) fn read_mark(disk: &dyn Disk, dir: &Path) -> io::Result<Mark> {
    let file = match disk.open(&dir.join(NAME)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Mark::Absent),
        Err(error) => return Err(error),
    };
    let mut bytes = [0; 2 * SLOT_SPACING];
    read_full(file.as_ref(), 0, &mut bytes)?;
    let newest = bytes
        .chunks_exact(SLOT_SPACING)
        .filter_map(decode_slot)
        .max();
    Ok(newest.map_or(Mark::Unreadable, Mark::Known))
}

/// The open mark of one directory.
pub(crate) struct MarkFile {
    file: Arc<dyn DiskFile>,
    second: bool,
}

impl MarkFile {
    /// Puts a new mark in place of what is there, durably.
    pub(crate) fn replace(disk: &dyn Disk, dir: &Path, sequence: u64) -> io::Result<MarkFile> {
        let temporary = dir.join(TEMPORARY);
        let file = disk.create(&temporary)?;
        let mut bytes = vec![0; 2 * SLOT_SPACING];
        if let Some(slot) = bytes.get_mut(..SLOT_BYTES) {
            slot.copy_from_slice(&encode_slot(sequence));
        }
        write_all(file.as_ref(), 0, &bytes)?;
        file.sync()?;
        disk.rename(&temporary, &dir.join(NAME))?;
        disk.sync_dir(dir)?;
        Ok(MarkFile { file, second: true })
    }

    pub(crate) fn write(&mut self, sequence: u64) -> io::Result<()> {
        let offset = if self.second { SLOT_SPACING as u64 } else { 0 };
        self.second = !self.second;
        write_all(self.file.as_ref(), offset, &encode_slot(sequence))
    }

    /// For a clean stop, so that the mark is exact even if power fails later.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

fn encode_slot(sequence: u64) -> [u8; SLOT_BYTES] {
    let mut body = Vec::with_capacity(SLOT_BYTES);
    body.extend_from_slice(b"FKJD");
    body.extend_from_slice(&1u32.to_be_bytes());
    body.extend_from_slice(&sequence.to_be_bytes());
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
    let mut slot = [0; SLOT_BYTES];
    slot.copy_from_slice(&body);
    slot
}

fn decode_slot(bytes: &[u8]) -> Option<u64> {
    let (body, crc) = bytes.get(..SLOT_BYTES)?.split_at_checked(SLOT_BYTES - 4)?;
    let intact = body.starts_with(b"FKJD\0\0\0\x01") && u32_at(crc, 0)? == crc32fast::hash(body);
    intact.then(|| u64_at(body, 8)).flatten()
}
