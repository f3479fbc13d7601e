//! Reading a file of frames in order, through a window of bounded size.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, read_full};
use crate::frame::{
    HEAD_BYTES, HEADER_BYTES, HeaderError, Kind, SegmentHeader, frame_bytes_of, parse_frame,
};
use crate::segment::{Failed, on};

/// Bytes read from the file at a time, unless a frame is larger. For a page of frames more would be in vain.
pub(crate) const WINDOW_BYTES: usize = 128 << 10;

pub(crate) struct Window {
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    /// The file's length in bytes.
    pub(crate) size: u64,
    file: Arc<dyn DiskFile>,
    window_bytes: usize,
    bytes: Vec<u8>,
    /// Offset of `bytes` in the file, and of the next frame in `bytes`.
    start: u64,
    at: usize,
    /// Where in `bytes` the payload of the frame before it is.
    payload: Range<usize>,
}

/// What a frame says about its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) sequence: u64,
    pub(crate) durable_through: u64,
    pub(crate) is_seal: bool,
    /// Where in the file it begins.
    pub(crate) offset: u64,
}

impl Window {
    /// Opens a file and reads its header, or says why that is none. Frames are read `window_bytes` at a time.
    pub(crate) fn open(
        disk: &dyn Disk,
        path: &Path,
        kind: Kind,
        window_bytes: usize,
    ) -> Result<Result<Window, HeaderError>, Failed> {
        let file = on("open", path, disk.open(path))?;
        let mut bytes = [0; HEADER_BYTES];
        let length = on("read", path, read_full(file.as_ref(), 0, &mut bytes))?;
        let size = on("read", path, file.size())?;
        let header = SegmentHeader::decode(kind, bytes.get(..length).unwrap_or_default());
        Ok(header.map(|header| Window {
            path: path.to_owned(),
            header,
            size,
            file,
            window_bytes,
            bytes: Vec::new(),
            start: HEADER_BYTES as u64,
            at: 0,
            payload: 0..0,
        }))
    }

    /// Where in the file the next frame begins.
    pub(crate) fn offset(&self) -> u64 {
        self.start + self.at as u64
    }

    /// Goes to a place in the file.
    pub(crate) fn seek(&mut self, offset: u64) {
        let within = offset
            .checked_sub(self.start)
            .and_then(|at| usize::try_from(at).ok())
            .filter(|at| *at <= self.bytes.len());
        match within {
            Some(at) => self.at = at,
            None => {
                self.bytes.clear();
                (self.start, self.at) = (offset, 0);
            }
        }
        self.payload = 0..0;
    }

    /// Goes over the next frame, whose [`Window::payload`] it then has; `None` if what is there is not an intact one.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Head>, Failed> {
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
        let Some(frame) = parse_frame(&self.header, self.rest()) else {
            return Ok(None);
        };
        let start = self.at + HEAD_BYTES;
        let payload = start..start + frame.payload.len();
        let head = Head {
            sequence: frame.sequence,
            durable_through: frame.durable_through,
            is_seal: frame.is_seal,
            offset: self.offset(),
        };
        self.payload = payload;
        self.at += frame_bytes;
        Ok(Some(head))
    }

    /// The payload of the frame that [`Window::next_frame`] last went over.
    pub(crate) fn payload(&self) -> &[u8] {
        self.bytes.get(self.payload.clone()).unwrap_or_default()
    }

    /// What follows the frames read so far, up to the end of the file.
    pub(crate) fn read_rest(&self) -> Result<Vec<u8>, Failed> {
        let length = self.size.saturating_sub(self.offset());
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        let read = read_full(self.file.as_ref(), self.offset(), &mut bytes);
        let filled = on("read", &self.path, read)?;
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Makes the window hold `length` bytes from the next frame on, or as many as the file has.
    fn load(&mut self, length: usize) -> Result<(), Failed> {
        if self.rest().len() < length {
            self.start = self.offset();
            self.at = 0;
            let left = self.size.saturating_sub(self.start);
            let window =
                usize::try_from(left).map_or(self.window_bytes, |left| left.min(self.window_bytes));
            self.bytes.resize(length.max(window), 0);
            let read = read_full(self.file.as_ref(), self.start, &mut self.bytes);
            let filled = on("read", &self.path, read)?;
            self.bytes.truncate(filled);
        }
        Ok(())
    }
}
