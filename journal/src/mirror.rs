//! Two directories with the same log: which one is taken, and how the other is brought up to it.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, write_all};
use crate::durable::MarkFile;
use crate::error::{DamageCause, OpenError};
use crate::frame::{SegmentHeader, parse_header};
use crate::scan::{Damage, Outcome, Scan, read_bytes, read_segment, walk};
use crate::segment::{Failed, on, segment_id, segment_path, temporary_path};

/// The directory that is intact and longest, and the others.
pub(crate) struct Choice {
    pub(crate) dir: PathBuf,
    pub(crate) scan: Scan,
    pub(crate) behind: Vec<(PathBuf, Outcome)>,
}

/// Chooses. `None` if all are empty: the journal is new. A directory is never taken that lacks what another
/// one says was durable.
pub(crate) fn choose(outcomes: Vec<(PathBuf, Outcome)>) -> Result<Option<Choice>, OpenError> {
    check_same_log(&outcomes)?;
    let mut chosen: Option<(PathBuf, Scan)> = None;
    let mut behind = Vec::new();
    for (dir, outcome) in outcomes {
        match outcome {
            Outcome::Intact(scan) => match &chosen {
                Some((_, best)) if best.next >= scan.next => {
                    behind.push((dir, Outcome::Intact(scan)))
                }
                _ => {
                    let worse = chosen.replace((dir, scan));
                    behind.extend(worse.map(|(dir, scan)| (dir, Outcome::Intact(scan))));
                }
            },
            other => behind.push((dir, other)),
        }
    }
    let worst = behind
        .iter()
        .position(|(_, outcome)| match (outcome, &chosen) {
            (Outcome::Damaged(damage), Some((_, scan))) => damage.claimed >= scan.next,
            (Outcome::Damaged(_), None) => true,
            _ => false,
        });
    if let Some(worst) = worst
        && let (dir, Outcome::Damaged(damage)) = behind.swap_remove(worst)
    {
        return Err(damage.into_error(&dir));
    }
    Ok(chosen.map(|(dir, scan)| Choice { dir, scan, behind }))
}

/// Refuses directories that hold different logs, or segments of which no header says to which log they belong.
fn check_same_log(outcomes: &[(PathBuf, Outcome)]) -> Result<(), OpenError> {
    for (at, (dir, outcome)) in outcomes.iter().enumerate() {
        let mut before = outcomes.iter().take(at);
        let is_ours = |ours: &SegmentHeader| {
            let mut theirs = outcome.headers().iter();
            theirs.all(|theirs| theirs.log == ours.log)
        };
        if !before.all(|(_, before)| before.headers().iter().all(is_ours)) {
            return Err(OpenError::ForeignMirror { path: dir.clone() });
        }
        if let Outcome::Damaged(damage) = outcome
            && damage.headers.is_empty()
            && damage.cause != DamageCause::Missing
        {
            return Err(damage.clone().into_error(dir));
        }
    }
    Ok(())
}

impl Outcome {
    fn headers(&self) -> &[SegmentHeader] {
        match self {
            Outcome::Empty => &[],
            Outcome::Intact(scan) => &scan.headers,
            Outcome::Damaged(Damage { headers, .. }) => headers,
        }
    }

    /// Whether the operator should hear that this directory was not as `best`: a difference of frames that were
    /// never acknowledged is normal after a crash.
    pub(crate) fn is_told(&self, best: &Scan) -> bool {
        !matches!(self, Outcome::Intact(scan) if scan.next > best.claimed)
    }

    /// Segments below this id were not read, here no more than where they are copied from; they are taken as whole.
    fn unread_below(&self) -> u64 {
        match self {
            Outcome::Intact(scan) => scan.headers.last().map_or(0, |header| header.id),
            Outcome::Empty | Outcome::Damaged(_) => 0,
        }
    }
}

/// A sealed segment that is to be copied.
pub(crate) struct Copy {
    header: SegmentHeader,
    /// The first sequence of the segment after it.
    until: u64,
}

/// The sealed segments of `from` that are missing in `to`, or not whole there. Changes nothing.
///
/// # Errors
/// [`OpenError::Damaged`] if one of them is not whole in `from` either.
pub(crate) fn plan(
    disk: &dyn Disk,
    from: &Path,
    scan: &Scan,
    to: &Path,
    other: &Outcome,
) -> Result<Vec<Copy>, OpenError> {
    let mut copies = Vec::new();
    for (header, after) in scan.headers.iter().zip(scan.headers.iter().skip(1)) {
        let until = after.first;
        let is_kept = other.headers().contains(header)
            && (header.id < other.unread_below()
                || read_segment(disk, to, header)
                    .is_ok_and(|bytes| is_whole(header, &bytes, until)));
        if is_kept {
            continue;
        }
        let bytes = read_segment(disk, from, header)?;
        if !is_whole(header, &bytes, until) {
            let walk = walk(header, &bytes);
            let damage = Damage {
                headers: Vec::new(),
                segment: header.id,
                offset: walk.end as u64,
                sequence: walk.next,
                cause: DamageCause::Frame,
                claimed: until - 1,
            };
            return Err(damage.into_error(from));
        }
        copies.push(Copy {
            header: *header,
            until,
        });
    }
    Ok(copies)
}

/// Whether a sealed segment's bytes hold every frame before `until`.
fn is_whole(header: &SegmentHeader, bytes: &[u8], until: u64) -> bool {
    bytes.len() as u64 == header.size
        && parse_header(bytes).as_ref() == Ok(header)
        && walk(header, bytes).next == until
}

/// Makes `to` hold the same segments as `from`. The last one is rewritten in both afterwards.
pub(crate) fn repair(
    disk: &dyn Disk,
    from: &Path,
    scan: &Scan,
    to: &Path,
    copies: &[Copy],
) -> Result<(), Failed> {
    if !copies.is_empty() {
        // Until all are there, the mark says that something is missing. It says only what was durable.
        on(
            "write the mark in",
            to,
            MarkFile::replace(disk, to, scan.claimed),
        )?;
    }
    for copy in copies {
        copy_segment(disk, from, to, copy)?;
    }
    for name in on("list", to, disk.list(to))? {
        if segment_id(&name).is_some_and(|id| !scan.headers.iter().any(|header| header.id == id)) {
            let path = to.join(name);
            on("remove", &path, disk.remove(&path))?;
            on("sync the directory", to, disk.sync_dir(to))?;
        }
    }
    Ok(())
}

/// Writes the bytes that were checked, so that what gets the name is whole.
fn copy_segment(disk: &dyn Disk, from: &Path, to: &Path, copy: &Copy) -> Result<(), Failed> {
    let Copy { header, until } = copy;
    let source = segment_path(from, header.id);
    let temporary = temporary_path(to, header.id);
    let path = segment_path(to, header.id);
    let read = read_bytes(disk, from, header).and_then(|bytes| {
        let changed = || io::Error::other("it is no longer whole");
        is_whole(header, &bytes, *until)
            .then_some(bytes)
            .ok_or_else(changed)
    });
    let bytes = on("read", &source, read)?;
    let file = on("make", &temporary, disk.create(&temporary))?;
    on(
        "copy the segment to",
        &temporary,
        write_all(file.as_ref(), 0, &bytes),
    )?;
    on("sync", &temporary, file.sync())?;
    on("name the segment", &path, disk.rename(&temporary, &path))?;
    on("sync the directory", to, disk.sync_dir(to))
}
