//! The bytes of segment headers and frames (the crate's documentation has the picture).

use crc32fast::Hasher;

/// Bytes of a segment's header.
pub(crate) const HEADER_BYTES: usize = 64;
/// Bytes of a frame before its payload.
pub(crate) const HEAD_BYTES: usize = 32;
const CRC_BYTES: usize = 4;
/// Of a file whose frames stand each for itself.
const VERSION: u32 = 1;
/// Of a segment whose commits each end with a seal.
const VERSION_SEALED: u32 = 2;
const FRAME_MAGIC: [u8; 4] = *b"FKJF";
const SEAL_MAGIC: [u8; 4] = *b"FKJC";
/// Bytes of a seal.
pub(crate) const SEAL_BYTES: usize = 32;
/// Bytes of a seal's frame.
pub(crate) const SEAL_FRAME_BYTES: usize =
    (HEAD_BYTES + SEAL_BYTES + CRC_BYTES).next_multiple_of(8);
const DURABLE_AT: usize = 24;

/// What a file of frames is for; its magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Segment,
    Snapshot,
}

impl Kind {
    fn magic(self) -> [u8; 4] {
        match self {
            Kind::Segment => *b"FKJS",
            Kind::Snapshot => *b"FKJP",
        }
    }
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Id of the segment, as in its file's name.
    pub id: u64,
    /// Sequence of its first frame.
    pub first: u64,
    /// Size of its file in bytes.
    pub size: u64,
    /// Random; goes into the CRC of each of its frames. Drawn anew when the segment is rewritten.
    pub salt: u64,
    /// Random; the same in every segment of a log.
    pub log: [u8; 16],
    /// In how many directories a frame had to be durable before it was acknowledged.
    pub copies: u32,
    /// Whether each commit in it ends with a seal; format version 2.
    pub sealed: bool,
}

/// Why a header is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer than 64 bytes.
    #[error("it is too short")]
    Short,
    /// Not a segment of a journal.
    #[error("its first bytes are wrong")]
    Magic,
    /// The CRC does not fit.
    #[error("its checksum is wrong")]
    Checksum,
    /// Intact, but of another format version.
    #[error("its format version is {0}")]
    Version(u32),
}

impl SegmentHeader {
    /// The header's 64 bytes.
    pub(crate) fn encode(&self, kind: Kind) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&kind.magic());
        let version = if self.sealed { VERSION_SEALED } else { VERSION };
        out.extend_from_slice(&version.to_be_bytes());
        for number in [self.id, self.first, self.size, self.salt] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.log);
        out.extend_from_slice(&self.copies.to_be_bytes());
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        out
    }

    pub(crate) fn decode(kind: Kind, bytes: &[u8]) -> Result<Self, HeaderError> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(HeaderError::Short)?;
        let (body, crc) = bytes
            .split_at_checked(HEADER_BYTES - CRC_BYTES)
            .ok_or(HeaderError::Short)?;
        if !body.starts_with(&kind.magic()) {
            return Err(HeaderError::Magic);
        }
        if u32_at(crc, 0) != Some(crc32fast::hash(body)) {
            return Err(HeaderError::Checksum);
        }
        let sealed = match (kind, u32_at(body, 4).unwrap_or_default()) {
            (_, VERSION) => false,
            (Kind::Segment, VERSION_SEALED) => true,
            (_, other) => return Err(HeaderError::Version(other)),
        };
        let number = |at| u64_at(body, at).ok_or(HeaderError::Short);
        Ok(SegmentHeader {
            id: number(8)?,
            first: number(16)?,
            size: number(24)?,
            salt: number(32)?,
            log: *body
                .get(40..)
                .and_then(|rest| rest.first_chunk())
                .ok_or(HeaderError::Short)?,
            copies: u32_at(body, 56).ok_or(HeaderError::Short)?,
            sealed,
        })
    }
}

/// Reads the header at the start of a segment's bytes.
///
/// # Errors
/// What is wrong with it, if it is not a segment's.
pub fn parse_header(bytes: &[u8]) -> Result<SegmentHeader, HeaderError> {
    SegmentHeader::decode(Kind::Segment, bytes)
}

/// One frame, borrowed from a segment's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its place in the log; of a seal, the sequence of the last frame before it.
    pub sequence: u64,
    /// The last sequence that was durable when it was written.
    pub durable_through: u64,
    /// Whether it is the seal of a commit and not something that a caller appended.
    pub is_seal: bool,
    /// What the caller appended, or the seal's 32 bytes.
    pub payload: &'a [u8],
    /// Bytes that the frame takes in the file, a multiple of 8.
    pub frame_bytes: usize,
}

/// Reads the frame at the start of `bytes`, which belong to the segment of `header`. `None` if any byte of it
/// is wrong, or if there is none.
pub fn parse_frame<'a>(header: &SegmentHeader, bytes: &'a [u8]) -> Option<Frame<'a>> {
    let frame_bytes = frame_bytes_of(bytes)?;
    let (body, crc) = bytes
        .get(..frame_bytes)?
        .split_at_checked(frame_bytes.checked_sub(CRC_BYTES)?)?;
    if u64_at(body, 8)? != header.id || u32_at(crc, 0)? != salted_crc(header.salt, body) {
        return None;
    }
    let payload_bytes = u32_at(body, 4)? as usize;
    let (payload, padding) = body.get(HEAD_BYTES..)?.split_at_checked(payload_bytes)?;
    if padding.iter().any(|byte| *byte != 0) {
        return None;
    }
    let is_seal = starts_with_seal(bytes);
    if is_seal && payload_bytes != SEAL_BYTES {
        return None;
    }
    Some(Frame {
        sequence: u64_at(body, 16)?,
        durable_through: u64_at(body, DURABLE_AT)?,
        is_seal,
        payload,
        frame_bytes,
    })
}

/// Every whole frame in `bytes`, seals included, found by trying each multiple of 8, with its offset. This is how
/// recovery learns what lies beyond a bad frame.
pub fn find_frames<'a>(
    header: &'a SegmentHeader,
    bytes: &'a [u8],
) -> impl Iterator<Item = (usize, Frame<'a>)> + 'a {
    let mut offset = 0;
    std::iter::from_fn(move || {
        while let Some(rest) = bytes.get(offset..).filter(|rest| rest.len() >= HEAD_BYTES) {
            if !starts_with_frame(rest) {
                // Most of what is searched is zeroes; this skips them eight bytes at a time.
                offset += 8 * rest
                    .chunks_exact(8)
                    .skip(1)
                    .take_while(|word| !starts_with_frame(word))
                    .count()
                    + 8;
                continue;
            }
            match parse_frame(header, rest) {
                Some(frame) => {
                    let found = (offset, frame);
                    offset += frame.frame_bytes;
                    return Some(found);
                }
                None => offset += 8,
            }
        }
        None
    })
}

/// Bytes that a frame with this payload takes.
pub(crate) fn frame_bytes(payload_bytes: usize) -> usize {
    (HEAD_BYTES + payload_bytes + CRC_BYTES).next_multiple_of(8)
}

/// The size that a frame's head announces, if it is the head of one.
pub(crate) fn frame_bytes_of(head: &[u8]) -> Option<usize> {
    starts_with_frame(head)
        .then(|| u32_at(head, 4).map(|len| frame_bytes(len as usize)))
        .flatten()
}

fn starts_with_frame(bytes: &[u8]) -> bool {
    bytes.starts_with(&FRAME_MAGIC) || bytes.starts_with(&SEAL_MAGIC)
}

/// Whether the first four bytes are those of a seal's frame, whole or not.
pub(crate) fn starts_with_seal(bytes: &[u8]) -> bool {
    bytes.starts_with(&SEAL_MAGIC)
}

/// Appends a frame that still lacks durable-through and CRC; [`stamp_frames`] adds them.
pub(crate) fn push_frame(out: &mut Vec<u8>, segment: u64, sequence: u64, payload: &[u8]) {
    push(out, FRAME_MAGIC, segment, sequence, payload);
}

/// Appends the seal of the frames up to `sequence`, which still lacks what [`stamp_frames`] adds.
pub(crate) fn push_seal(out: &mut Vec<u8>, segment: u64, sequence: u64, seal: &[u8; SEAL_BYTES]) {
    push(out, SEAL_MAGIC, segment, sequence, seal);
}

fn push(out: &mut Vec<u8>, magic: [u8; 4], segment: u64, sequence: u64, payload: &[u8]) {
    let end = out.len() + frame_bytes(payload.len());
    out.reserve(end - out.len());
    out.extend_from_slice(&magic);
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(&segment.to_be_bytes());
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&0u64.to_be_bytes());
    out.extend_from_slice(payload);
    out.resize(end, 0);
}

/// Completes a run of frames made by [`push_frame`] or copied from the same segment.
pub(crate) fn stamp_frames(mut frames: &mut [u8], salt: u64, durable_through: u64) {
    while let Some(length) = frame_bytes_of(frames) {
        let Some((frame, rest)) = frames.split_at_mut_checked(length) else {
            return;
        };
        let Some((body, crc)) = frame.split_at_mut_checked(length - CRC_BYTES) else {
            return;
        };
        if let Some(field) = body.get_mut(DURABLE_AT..HEAD_BYTES) {
            field.copy_from_slice(&durable_through.to_be_bytes());
        }
        crc.copy_from_slice(&salted_crc(salt, body).to_be_bytes());
        frames = rest;
    }
}

fn salted_crc(salt: u64, body: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&salt.to_be_bytes());
    hasher.update(body);
    hasher.finalize()
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|field| u64::from_be_bytes(*field))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|field| u32::from_be_bytes(*field))
}
