//! A segment of the journal, as somebody takes it apart and puts it together who has the disk and docs/audit-format.md, and no key.

use crc32fast::Hasher;
use fieldkeep_journal::{SegmentHeader, parse_frame, parse_header};

/// Bytes of a header, and of a frame before its payload.
pub(crate) const HEADER_BYTES: usize = 64;
pub(crate) const HEAD_BYTES: usize = 32;
const CRC_BYTES: usize = 4;

/// A frame, taken out of its segment.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) is_seal: bool,
    pub(crate) sequence: u64,
    pub(crate) durable_through: u64,
    pub(crate) payload: Vec<u8>,
}

/// Where a frame is in its segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) at: usize,
    pub(crate) bytes: usize,
    pub(crate) is_seal: bool,
    /// The index of its record; of a seal, that of the last record before it.
    pub(crate) index: u64,
}

pub(crate) fn header(bytes: &[u8]) -> SegmentHeader {
    parse_header(bytes).expect("an undamaged segment")
}

/// Where the frames are.
pub(crate) fn places(bytes: &[u8]) -> Vec<Place> {
    let header = header(bytes);
    let (mut places, mut at) = (Vec::new(), HEADER_BYTES);
    while let Some(frame) = parse_frame(&header, &bytes[at..]) {
        places.push(Place {
            at,
            bytes: frame.frame_bytes,
            is_seal: frame.is_seal,
            index: frame.sequence - 1,
        });
        at += frame.frame_bytes;
    }
    places
}

/// The byte behind the last frame.
pub(crate) fn end(places: &[Place]) -> usize {
    places
        .last()
        .map_or(HEADER_BYTES, |place| place.at + place.bytes)
}

/// The frames.
pub(crate) fn frames(bytes: &[u8]) -> Vec<Frame> {
    let header = header(bytes);
    let (mut frames, mut at) = (Vec::new(), HEADER_BYTES);
    while let Some(frame) = parse_frame(&header, &bytes[at..]) {
        frames.push(Frame {
            is_seal: frame.is_seal,
            sequence: frame.sequence,
            durable_through: frame.durable_through,
            payload: frame.payload.to_vec(),
        });
        at += frame.frame_bytes;
    }
    frames
}

/// Numbers frames from the sequence `first` on, without gaps, and drops seals that have nothing to seal any more.
pub(crate) fn renumber(frames: &mut Vec<Frame>, first: u64) {
    let mut after_record = false;
    frames.retain(|frame| {
        let kept = !frame.is_seal || after_record;
        after_record = !frame.is_seal;
        kept
    });
    let mut next = first;
    for frame in frames {
        if frame.is_seal {
            frame.sequence = next - 1;
        } else {
            frame.sequence = next;
            next += 1;
        }
    }
}

/// The segment of `bytes` with other frames, the first of which has the sequence `first`; larger if they need it.
pub(crate) fn with_frames(bytes: &[u8], first: u64, frames: &[Frame]) -> Vec<u8> {
    let header = header(bytes);
    let mut out = bytes[..HEADER_BYTES].to_vec();
    for frame in frames {
        push(&mut out, &header, frame);
    }
    out.resize(out.len().max(bytes.len()), 0);
    let size = out.len() as u64;
    out[16..24].copy_from_slice(&first.to_be_bytes());
    out[24..32].copy_from_slice(&size.to_be_bytes());
    fix_header(&mut out);
    out
}

fn push(out: &mut Vec<u8>, header: &SegmentHeader, frame: &Frame) {
    let start = out.len();
    out.extend_from_slice(if frame.is_seal { b"FKJC" } else { b"FKJF" });
    out.extend_from_slice(&(frame.payload.len() as u32).to_be_bytes());
    for number in [header.id, frame.sequence, frame.durable_through] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&frame.payload);
    let bytes = frame_bytes(frame.payload.len());
    out.resize(start + bytes, 0);
    fix_frame(out, header.salt, start, bytes);
}

/// Bytes of a frame with so large a payload.
pub(crate) fn frame_bytes(payload_bytes: usize) -> usize {
    (HEAD_BYTES + payload_bytes + CRC_BYTES).next_multiple_of(8)
}

/// Computes a header's CRC anew.
pub(crate) fn fix_header(bytes: &mut [u8]) {
    let crc = crc32fast::hash(&bytes[..HEADER_BYTES - CRC_BYTES]);
    bytes[HEADER_BYTES - CRC_BYTES..HEADER_BYTES].copy_from_slice(&crc.to_be_bytes());
}

/// Computes a frame's CRC anew.
pub(crate) fn fix_frame(bytes: &mut [u8], salt: u64, at: usize, frame_bytes: usize) {
    let crc_at = at + frame_bytes - CRC_BYTES;
    let mut crc = Hasher::new();
    crc.update(&salt.to_be_bytes());
    crc.update(&bytes[at..crc_at]);
    bytes[crc_at..crc_at + CRC_BYTES].copy_from_slice(&crc.finalize().to_be_bytes());
}
