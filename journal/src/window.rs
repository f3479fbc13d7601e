//! Reading a file of frames in order, through a window of bounded size.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, read_full};
use crate::frame::{HEAD_BYTES, HEADER_BYTES, Kind, SegmentHeader, frame_bytes_of, parse_frame};
use crate::segment::{Failed, on};

/// Bytes read from the file at a time, unless a frame is larger.
const WINDOW_BYTES: u64 = 128 << 10;

pub(crate) struct Window {
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    /// The file's length in bytes.
    pub(crate) size: u64,
    file: Arc<dyn DiskFile>,
    bytes: Vec<u8>,
    /// Offset of `bytes` in the file, and of the next frame in `bytes`.
    start: u64,
    at: usize,
}

impl Window {
    /// Opens a file and reads its header; `None` if that is not intact.
    pub(crate) fn open(disk: &dyn Disk, path: &Path, kind: Kind) -> Result<Option<Window>, Failed> {
        let file = on("open", path, disk.open(path))?;
        let mut bytes = [0; HEADER_BYTES];
        let length = on("read", path, read_full(file.as_ref(), 0, &mut bytes))?;
        let size = on("read", path, file.size())?;
        let header = SegmentHeader::decode(kind, bytes.get(..length).unwrap_or_default());
        Ok(header.ok().map(|header| Window {
            path: path.to_owned(),
            header,
            size,
            file,
            bytes: Vec::new(),
            start: HEADER_BYTES as u64,
            at: 0,
        }))
    }

    /// Where in the file the next frame begins.
    pub(crate) fn offset(&self) -> u64 {
        self.start + self.at as u64
    }

    /// The next frame's sequence and payload; `None` if what is there is not an intact frame.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(u64, Vec<u8>)>, Failed> {
        self.load(HEAD_BYTES)?;
        let frame_bytes = self
            .rest()
            .first_chunk::<HEAD_BYTES>()
            .and_then(|head| frame_bytes_of(head));
        // A length that is itself damaged must not make us read, or allocate, beyond the file.
        let inside = |bytes: &usize| *bytes as u64 <= self.size.saturating_sub(self.offset());
        let Some(frame_bytes) = frame_bytes.filter(inside) else {
            return Ok(None);
        };
        self.load(frame_bytes)?;
        let frame = parse_frame(&self.header, self.rest());
        let found = frame.map(|frame| (frame.sequence, frame.payload.to_vec()));
        if found.is_some() {
            self.at += frame_bytes;
        }
        Ok(found)
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Makes the window hold `length` bytes from the next frame on, or as many as the file has.
    fn load(&mut self, length: usize) -> Result<(), Failed> {
        if self.rest().len() < length {
            self.start = self.offset();
            self.at = 0;
            self.bytes
                .resize(length.max(WINDOW_BYTES.min(self.size) as usize), 0);
            let read = read_full(self.file.as_ref(), self.start, &mut self.bytes);
            let filled = on("read", &self.path, read)?;
            self.bytes.truncate(filled);
        }
        Ok(())
    }
}
