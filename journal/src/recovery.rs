//! What happens before a journal serves: each directory is scanned and judged, the whole one is chosen,
//! the other repaired, and the last segment rewritten.

use std::path::{Path, PathBuf};

use crate::disk::{Disk, is_no_space};
use crate::durable::{self, MarkFile};
use crate::error::OpenError;
use crate::frame::{HEADER_BYTES, SegmentHeader, frame_bytes};
use crate::journal::Recovered;
use crate::mirror;
use crate::options::Options;
use crate::scan::{Scan, scan};
use crate::segment::{Failed, Segment, is_temporary, on};
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

/// Recovers the journal in `dirs`, which are the same log once or twice.
pub(crate) fn recover(
    disk: &dyn Disk,
    dirs: &[PathBuf],
    options: &Options,
) -> Result<Recovery, OpenError> {
    let largest_frame = frame_bytes(options.max_payload_bytes);
    let largest = (HEADER_BYTES + largest_frame + options.seal_bytes()) as u64;
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
    let (scan, repaired) = match mirror::choose(disk, outcomes)? {
        Some((mirror::Choice { dir, scan, behind }, plans)) => {
            for dir in dirs {
                remove_temporaries(disk, dir)?;
            }
            for ((to, _), copies) in behind.iter().zip(&plans) {
                mirror::repair(disk, &dir, &scan, to, copies)
                    .map_err(|failed| failed.at_open(options))?;
            }
            let told = behind
                .iter()
                .zip(&plans)
                .find(|((_, other), copies)| !copies.is_empty() || other.is_told(&scan))
                .map(|((to, _), _)| to.clone());
            (Some(scan), told)
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
    let copies = dirs.len() as u32;
    let sealed = options.leaf.is_some();
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
        let header = SegmentHeader {
            id: 1,
            first: 1,
            size: options.segment_bytes,
            salt: Segment::make_salt(),
            log: Segment::make_log_id(),
            copies,
            sealed,
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
    let mut end = (HEADER_BYTES + scan.tail.len()) as u64;
    // The salt is new with each rewrite: segments with the same one have the same frames.
    let mut header = SegmentHeader {
        salt: Segment::make_salt(),
        copies,
        ..scan.last
    };
    header.size = if end <= options.segment_bytes {
        options.segment_bytes
    } else {
        header.size
    };
    if scan.tail.is_empty() {
        header.sealed = sealed;
    }
    let segment = Segment::create(disk, dirs, &header, &scan.tail, scan.next - 1)?;
    if header.sealed != sealed {
        // A segment's commits all have seals, or none has; the next append goes to the next segment.
        end = header.size;
    }
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
        mark_replaced: !scan.mark.is_known(),
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
