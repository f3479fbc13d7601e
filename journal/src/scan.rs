//! Reading and judging one directory, before anything in it is changed.
//!
//! Only headers and the last segment are read: the first frame of a segment testifies that every earlier
//! segment was durable, and damage in those shows when they are read.

use std::io;
use std::path::Path;

use crate::disk::{Disk, read_full};
use crate::durable::{Mark, read_mark};
use crate::error::{DamageCause, Lost, OpenError};
use crate::frame::{
    Frame, HEADER_BYTES, HeaderError, SegmentHeader, find_frames, parse_frame, parse_header,
    starts_with_seal,
};
use crate::order::Order;
use crate::segment::{on, segment_id, segment_path};

/// What one directory holds.
pub(crate) enum Outcome {
    /// No segment, and no mark that says there were any.
    Empty,
    Intact(Scan),
    Damaged(Damage),
}

/// A directory in which nothing is missing that was durable.
pub(crate) struct Scan {
    /// Of every segment, oldest first; at least one.
    pub(crate) headers: Vec<SegmentHeader>,
    pub(crate) last: SegmentHeader,
    /// The whole frames of the last segment, with their seals; in a sealed one as far as they are sealed.
    pub(crate) tail: Vec<u8>,
    pub(crate) next: u64,
    pub(crate) torn: u64,
    pub(crate) mark: Mark,
    /// The last sequence that is known to have been durable.
    pub(crate) claimed: u64,
}

/// A directory in which something is missing that was durable.
#[derive(Clone)]
pub(crate) struct Damage {
    /// The headers that could be read.
    pub(crate) headers: Vec<SegmentHeader>,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) sequence: u64,
    pub(crate) cause: DamageCause,
    pub(crate) claimed: u64,
}

impl Damage {
    pub(crate) fn into_error(self, dir: &Path) -> OpenError {
        let Damage {
            segment,
            offset,
            sequence,
            cause,
            claimed,
            ..
        } = self;
        let lost = Lost {
            from: sequence,
            known_through: claimed,
        };
        OpenError::Damaged {
            path: dir.to_owned(),
            segment,
            offset,
            sequence,
            cause,
            lost,
        }
    }
}

/// Reads a directory and judges it. Changes nothing.
pub(crate) fn scan(disk: &dyn Disk, dir: &Path) -> Result<Outcome, OpenError> {
    let mark = on("read the mark in", dir, read_mark(disk, dir))?;
    let mut ids: Vec<u64> = on("list", dir, disk.list(dir))?
        .iter()
        .filter_map(|name| segment_id(name))
        .collect();
    ids.sort_unstable();
    if ids.is_empty() {
        return Ok(match mark {
            Mark::Absent | Mark::Known(0) => Outcome::Empty,
            Mark::Known(_) | Mark::Unreadable => Outcome::Damaged(Damage {
                headers: Vec::new(),
                segment: 1,
                offset: 0,
                sequence: 1,
                cause: DamageCause::Missing,
                claimed: mark.sequence(),
            }),
        });
    }
    let mut claimed = mark.sequence();
    let (headers, fault) = read_headers(disk, dir, &ids)?;
    let Some(last) = headers.last().copied() else {
        let (segment, cause) = fault.unwrap_or((1, DamageCause::Missing));
        return Ok(Outcome::Damaged(Damage {
            headers,
            segment,
            offset: 0,
            sequence: 1,
            cause,
            claimed,
        }));
    };
    claimed = claimed.max(last.first.saturating_sub(1));
    let bytes = read_segment(disk, dir, &last)?;
    let walk = walk(&last, &bytes);
    claimed = claimed.max(walk.claimed);
    let rest = bytes.get(walk.end..).unwrap_or_default();
    let Order {
        next, whole_next, ..
    } = walk.order;
    let is_cut = !starts_with_seal(rest) && rest.iter().any(|byte| *byte != 0);
    let mut torn = next - whole_next + u64::from(is_cut);
    for (_, frame) in find_frames(&last, rest) {
        claimed = claimed.max(frame.durable_through);
        torn += u64::from(!frame.is_seal);
    }
    if let Some((segment, cause)) = fault {
        let (offset, sequence) = locate(disk, dir, &headers, segment, cause)?;
        return Ok(Outcome::Damaged(Damage {
            headers,
            segment,
            offset,
            sequence,
            cause,
            claimed,
        }));
    }
    let fault_at_end = if walk.out_of_sequence {
        Some((DamageCause::OutOfSequence, next))
    } else {
        fault_at_end(&walk.order, claimed, rest)
    };
    let unknown = torn > 0 && !mark.is_known();
    let fault_at_end = fault_at_end.or(unknown.then_some((DamageCause::FrameAndMark, next)));
    if let Some((cause, sequence)) = fault_at_end {
        let (segment, offset) = (last.id, walk.end as u64);
        return Ok(Outcome::Damaged(Damage {
            headers,
            segment,
            offset,
            sequence,
            cause,
            claimed,
        }));
    }
    let tail = bytes
        .get(HEADER_BYTES..walk.whole_end)
        .unwrap_or_default()
        .to_vec();
    Ok(Outcome::Intact(Scan {
        next: whole_next,
        headers,
        last,
        tail,
        torn,
        mark,
        claimed,
    }))
}

/// A segment's id and what is wrong with it.
type Fault = (u64, DamageCause);

/// Reads every header; with the first segment that is at fault, and why.
fn read_headers(
    disk: &dyn Disk,
    dir: &Path,
    ids: &[u64],
) -> Result<(Vec<SegmentHeader>, Option<Fault>), OpenError> {
    let mut headers: Vec<SegmentHeader> = Vec::with_capacity(ids.len());
    let mut fault = None;
    let mut expected = ids.first().copied().unwrap_or_default();
    for id in ids {
        let path = segment_path(dir, *id);
        let file = on("open", &path, disk.open(&path))?;
        let mut bytes = [0; HEADER_BYTES];
        let length = on("read", &path, read_full(file.as_ref(), 0, &mut bytes))?;
        let size = on("read", &path, file.size())?;
        let cause = match parse_header(bytes.get(..length).unwrap_or_default()) {
            Err(HeaderError::Version(version)) => {
                return Err(OpenError::Version {
                    path: dir.to_owned(),
                    version,
                });
            }
            Err(error) => Some(DamageCause::Header(error)),
            Ok(header) => {
                let follows = headers
                    .last()
                    .is_none_or(|before| before.first < header.first && before.log == header.log);
                headers.push(header);
                match (
                    header.id == *id && follows && header.first > 0,
                    header.size <= size,
                ) {
                    (false, _) => Some(DamageCause::OutOfSequence),
                    (true, false) => Some(DamageCause::Short),
                    (true, true) => None,
                }
            }
        };
        if *id != expected {
            fault = fault.or(Some((expected, DamageCause::Missing)));
        }
        fault = fault.or(cause.map(|cause| (*id, cause)));
        expected = id.saturating_add(1);
    }
    Ok((headers, fault))
}

/// Where in the segment at fault the intact part ends, and the first sequence beyond it.
fn locate(
    disk: &dyn Disk,
    dir: &Path,
    headers: &[SegmentHeader],
    segment: u64,
    cause: DamageCause,
) -> Result<(u64, u64), OpenError> {
    let within = cause == DamageCause::Short;
    let before = headers
        .iter()
        .rev()
        .find(|header| header.id < segment || (within && header.id == segment));
    let Some(before) = before else {
        return Ok((0, 1));
    };
    let walk = walk(before, &read_segment(disk, dir, before)?);
    Ok((
        if before.id == segment {
            walk.end as u64
        } else {
            0
        },
        walk.order.next,
    ))
}

/// A segment's bytes, up to the size in its header or the end of its file.
pub(crate) fn read_segment(
    disk: &dyn Disk,
    dir: &Path,
    header: &SegmentHeader,
) -> Result<Vec<u8>, OpenError> {
    let path = segment_path(dir, header.id);
    Ok(on("read", &path, read_bytes(disk, dir, header))?)
}

/// Bytes of a segment that are read at a time.
const READ_BYTES: usize = 64 << 10;

/// As [`read_segment`], with the system's own error. A segment is zeroes until it is full; those are not copied, so that the
/// system gives memory for what was written alone.
pub(crate) fn read_bytes(
    disk: &dyn Disk,
    dir: &Path,
    header: &SegmentHeader,
) -> io::Result<Vec<u8>> {
    let file = disk.open(&segment_path(dir, header.id))?;
    let length = file.size()?.min(header.size);
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    let mut part = vec![0; READ_BYTES.min(bytes.len())];
    let mut filled = 0;
    for place in bytes.chunks_mut(READ_BYTES) {
        let wanted = part.get_mut(..place.len()).unwrap_or_default();
        let read = read_full(file.as_ref(), filled as u64, wanted)?;
        if wanted.iter().any(|byte| *byte != 0) {
            place.copy_from_slice(wanted);
        }
        filled += read;
        if read < place.len() {
            break;
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// What is wrong if the log ends with the frames of `order` and then `rest`, although everything up to `claimed` was
/// durable; with the sequence at fault. `None` if nothing is lost: what follows the last whole commit is torn.
pub(crate) fn fault_at_end(order: &Order, claimed: u64, rest: &[u8]) -> Option<(DamageCause, u64)> {
    // A frame that follows within the same write proves nothing; one of a later write says
    // durable-through at or beyond the bad frame.
    if claimed >= order.next && !starts_with_seal(rest) {
        Some((DamageCause::Frame, order.next))
    } else if claimed >= order.whole_next {
        Some((DamageCause::Seal, order.next.saturating_sub(1)))
    } else {
        None
    }
}

/// The frames at the start of a segment.
pub(crate) struct Walk {
    /// Offset behind the last whole frame.
    pub(crate) end: usize,
    /// Offset behind the last whole commit.
    pub(crate) whole_end: usize,
    /// Sequences that would follow.
    pub(crate) order: Order,
    /// The highest durable-through in them.
    pub(crate) claimed: u64,
    /// What follows is a whole frame with another sequence.
    pub(crate) out_of_sequence: bool,
}

/// The payload frames at the start of a segment, as far as they are whole and in sequence.
pub(crate) fn frames<'a>(
    header: &'a SegmentHeader,
    bytes: &'a [u8],
) -> impl Iterator<Item = Frame<'a>> {
    let mut offset = HEADER_BYTES;
    let mut order = Order::from(header, header.first);
    let in_order = std::iter::from_fn(move || {
        let frame = parse_frame(header, bytes.get(offset..)?)?;
        offset += frame.frame_bytes;
        order.take(frame.sequence, frame.is_seal).then_some(frame)
    });
    in_order.fuse().filter(|frame| !frame.is_seal)
}

pub(crate) fn walk(header: &SegmentHeader, bytes: &[u8]) -> Walk {
    let start = HEADER_BYTES.min(bytes.len());
    let mut walk = Walk {
        end: start,
        whole_end: start,
        order: Order::from(header, header.first),
        claimed: 0,
        out_of_sequence: false,
    };
    while let Some(frame) = parse_frame(header, bytes.get(walk.end..).unwrap_or_default()) {
        if !walk.order.take(frame.sequence, frame.is_seal) {
            walk.out_of_sequence = true;
            break;
        }
        walk.end += frame.frame_bytes;
        walk.claimed = walk.claimed.max(frame.durable_through);
        if !walk.order.is_within_commit() {
            walk.whole_end = walk.end;
        }
    }
    walk
}
