//! What happens before a journal serves: each directory is scanned and judged, the whole one is chosen,
//! the other repaired, and the last segment rewritten.
//!
//! Only headers and the last segment are read: the first frame of a segment testifies that every earlier
//! segment was durable, and damage in those shows when they are read.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskFile, is_no_space, read_full};
use crate::durable::{self, Mark, MarkFile, read_mark};
use crate::error::{DamageCause, Lost, OpenError};
use crate::frame::{
    HEADER_BYTES, HeaderError, SegmentHeader, find_frames, frame_bytes, parse_frame, parse_header,
};
use crate::journal::Recovered;
use crate::mirror;
use crate::options::Options;
use crate::segment::{Failed, Segment, is_temporary, on, segment_id, segment_path};
use crate::state::Entry;

/// A journal that is ready to serve.
pub(crate) struct Recovery {
    pub(crate) segment: Segment,
    pub(crate) end: u64,
    pub(crate) index: Vec<Entry>,
    pub(crate) marks: Vec<MarkFile>,
    pub(crate) recovered: Recovered,
    pub(crate) locks: Vec<Box<dyn Send + Sync>>,
}

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
    /// The whole frames of the last segment.
    pub(crate) tail: Vec<u8>,
    pub(crate) next: u64,
    pub(crate) torn: u64,
    pub(crate) mark: Mark,
    /// The last sequence that is known to have been durable.
    pub(crate) claimed: u64,
}

/// A directory in which something is missing that was durable.
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

/// Recovers the journal in `dirs`, which are the same log once or twice.
pub(crate) fn recover(
    disk: &dyn Disk,
    dirs: &[PathBuf],
    options: &Options,
) -> Result<Recovery, OpenError> {
    let largest = (HEADER_BYTES + frame_bytes(options.max_payload_bytes)) as u64;
    if options.segment_bytes < largest
        || !options.segment_bytes.is_multiple_of(8)
        || options.max_payload_bytes > u32::MAX as usize
    {
        return Err(OpenError::Options {
            segment_bytes: options.segment_bytes,
            max_payload_bytes: options.max_payload_bytes,
        });
    }
    let mut locks = Vec::with_capacity(dirs.len());
    for dir in dirs {
        on("make the directory", dir, disk.make_dir(dir))?;
        let path = dir.join("lock");
        locks.push(
            on("lock", &path, disk.lock(&path))?
                .ok_or_else(|| OpenError::InUse { path: dir.clone() })?,
        );
    }
    let mut outcomes = Vec::with_capacity(dirs.len());
    for dir in dirs {
        outcomes.push((dir.clone(), scan(disk, dir)?));
    }
    let (scan, repaired) = match mirror::choose(outcomes)? {
        Some(chosen) => {
            for dir in dirs {
                remove_temporaries(disk, dir)?;
            }
            for (dir, other) in &chosen.behind {
                mirror::repair(disk, &chosen.dir, &chosen.scan, dir, other)
                    .map_err(|failed| failed.at_open(options))?;
            }
            let told = chosen
                .behind
                .into_iter()
                .find(|(_, other)| other.is_told(&chosen.scan))
                .map(|(dir, _)| dir);
            (Some(chosen.scan), told)
        }
        None => (None, None),
    };
    serve(disk, dirs, options, scan, repaired, locks).map_err(|failed| failed.at_open(options))
}

/// The last steps before serving: rewrites the kept tail, which replaces the old last segment at once,
/// and the marks. After a failed sync the page cache may show frames that the disk does not have; once
/// rewritten and synced they are there.
fn serve(
    disk: &dyn Disk,
    dirs: &[PathBuf],
    options: &Options,
    scan: Option<Scan>,
    repaired: Option<PathBuf>,
    locks: Vec<Box<dyn Send + Sync>>,
) -> Result<Recovery, Failed> {
    let mut marks = Vec::with_capacity(dirs.len());
    let Some(scan) = scan else {
        // The mark comes first, so that a segment without one is a sign of damage.
        for dir in dirs {
            marks.push(on(
                "write the mark in",
                dir,
                MarkFile::replace(disk, dir, 0),
            )?);
        }
        let salt = Segment::make_salt();
        let header = SegmentHeader {
            id: 1,
            first: 1,
            size: options.segment_bytes,
            salt,
        };
        let segment = Segment::create(disk, dirs, &header, &[], 0)?;
        let recovered = Recovered {
            first: 1,
            next: 1,
            torn_frames_dropped: 0,
            repaired: None,
            mark_replaced: false,
        };
        let index = vec![Entry { id: 1, first: 1 }];
        return Ok(Recovery {
            segment,
            end: HEADER_BYTES as u64,
            index,
            marks,
            recovered,
            locks,
        });
    };
    let index: Vec<Entry> = scan
        .headers
        .iter()
        .map(|header| Entry {
            id: header.id,
            first: header.first,
        })
        .collect();
    let end = (HEADER_BYTES + scan.tail.len()) as u64;
    let mut header = scan.last;
    header.size = if end <= options.segment_bytes {
        options.segment_bytes
    } else {
        header.size
    };
    let segment = Segment::create(disk, dirs, &header, &scan.tail, scan.next - 1)?;
    for dir in dirs {
        marks.push(on(
            "write the mark in",
            dir,
            MarkFile::replace(disk, dir, scan.next - 1),
        )?);
    }
    let recovered = Recovered {
        first: index.first().map_or(1, |entry| entry.first),
        next: scan.next,
        torn_frames_dropped: scan.torn,
        repaired,
        mark_replaced: scan.mark == Mark::Unknown,
    };
    Ok(Recovery {
        segment,
        end,
        index,
        marks,
        recovered,
        locks,
    })
}

fn remove_temporaries(disk: &dyn Disk, dir: &Path) -> Result<(), Failed> {
    for name in on("list", dir, disk.list(dir))? {
        if is_temporary(&name) || name == durable::TEMPORARY {
            let path = dir.join(name);
            on("remove", &path, disk.remove(&path))?;
        }
    }
    Ok(())
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
        let cause = DamageCause::Missing;
        return Ok(match mark.sequence() {
            0 => Outcome::Empty,
            claimed => Outcome::Damaged(Damage {
                headers: Vec::new(),
                segment: 0,
                offset: 0,
                sequence: 1,
                cause,
                claimed,
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
    let mut torn = u64::from(rest.iter().any(|byte| *byte != 0));
    for (_, frame) in find_frames(&last, rest) {
        claimed = claimed.max(frame.durable_through);
        torn += 1;
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
    let cause = if walk.out_of_sequence {
        Some(DamageCause::OutOfSequence)
    } else if claimed >= walk.next {
        // A frame that follows within the same write proves nothing; one of a later write says
        // durable-through at or beyond the bad frame.
        Some(DamageCause::Frame)
    } else if torn > 0 && mark == Mark::Unknown {
        Some(DamageCause::FrameAndMark)
    } else {
        None
    };
    if let Some(cause) = cause {
        let (segment, offset, sequence) = (last.id, walk.end as u64, walk.next);
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
        .get(HEADER_BYTES..walk.end)
        .unwrap_or_default()
        .to_vec();
    Ok(Outcome::Intact(Scan {
        next: walk.next,
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
                    .is_none_or(|before| before.first < header.first);
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
        walk.next,
    ))
}

/// A segment's bytes, up to the size in its header or the end of its file.
pub(crate) fn read_segment(
    disk: &dyn Disk,
    dir: &Path,
    header: &SegmentHeader,
) -> Result<Vec<u8>, OpenError> {
    let path = segment_path(dir, header.id);
    let read = || -> io::Result<Vec<u8>> {
        let file = disk.open(&path)?;
        let length = file.size()?.min(header.size);
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        let filled = read_full(file.as_ref(), 0, &mut bytes)?;
        bytes.truncate(filled);
        Ok(bytes)
    };
    Ok(on("read", &path, read())?)
}

/// The frames at the start of a segment.
pub(crate) struct Walk {
    /// Offset behind the last whole frame.
    pub(crate) end: usize,
    /// The sequence that would follow.
    pub(crate) next: u64,
    /// The highest durable-through in them.
    pub(crate) claimed: u64,
    /// What follows is a whole frame with another sequence.
    pub(crate) out_of_sequence: bool,
}

pub(crate) fn walk(header: &SegmentHeader, bytes: &[u8]) -> Walk {
    let mut walk = Walk {
        end: HEADER_BYTES.min(bytes.len()),
        next: header.first,
        claimed: 0,
        out_of_sequence: false,
    };
    loop {
        match parse_frame(header, bytes.get(walk.end..).unwrap_or_default()) {
            Some(frame) if frame.sequence == walk.next => {
                walk.end += frame.frame_bytes;
                walk.next += 1;
                walk.claimed = walk.claimed.max(frame.durable_through);
            }
            Some(_) => {
                return Walk {
                    out_of_sequence: true,
                    ..walk
                };
            }
            None => return walk,
        }
    }
}

impl Failed {
    fn at_open(self, options: &Options) -> OpenError {
        if is_no_space(&self.source) {
            return OpenError::NoSpace {
                path: self.path,
                needed_bytes: options.segment_bytes,
            };
        }
        self.into()
    }
}

impl From<Failed> for OpenError {
    fn from(
        Failed {
            action,
            path,
            source,
        }: Failed,
    ) -> Self {
        OpenError::Io {
            action,
            path,
            source,
        }
    }
}

/// Copies the first `size` bytes of a file.
pub(crate) fn copy_bytes(from: &dyn DiskFile, to: &dyn DiskFile, size: u64) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut offset = 0;
    while offset < size {
        let length = buffer
            .len()
            .min(usize::try_from(size - offset).unwrap_or(usize::MAX));
        let part = buffer.get_mut(..length).unwrap_or_default();
        let filled = read_full(from, offset, part)?;
        if filled < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        crate::disk::write_all(to, offset, part)?;
        offset += length as u64;
    }
    Ok(())
}
