//! Two directories with the same log: which one is taken, and how the other is brought up to it.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskFile, read_full, write_all};
use crate::durable::MarkFile;
use crate::error::OpenError;
use crate::frame::SegmentHeader;
use crate::scan::{Damage, Outcome, Scan};
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
    let Some((dir, scan)) = chosen else {
        return Ok(None);
    };
    for (other, outcome) in &behind {
        if outcome.headers().iter().any(|theirs| {
            scan.headers
                .iter()
                .any(|ours| ours.id == theirs.id && !same(ours, theirs))
        }) {
            return Err(OpenError::ForeignMirror {
                path: other.clone(),
            });
        }
    }
    Ok(Some(Choice { dir, scan, behind }))
}

/// The size may differ: the last segment is rewritten with the size of the options.
fn same(one: &SegmentHeader, other: &SegmentHeader) -> bool {
    one.first == other.first && one.salt == other.salt
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

    /// Segments below this id are whole here.
    fn whole_below(&self) -> u64 {
        match self {
            Outcome::Intact(scan) => scan.headers.last().map_or(0, |header| header.id),
            Outcome::Empty | Outcome::Damaged(_) => 0,
        }
    }
}

/// Makes `to` hold the same segments as `from`. The last one is rewritten in both afterwards.
pub(crate) fn repair(
    disk: &dyn Disk,
    from: &Path,
    scan: &Scan,
    to: &Path,
    other: &Outcome,
) -> Result<(), Failed> {
    let whole_below = other.whole_below();
    let missing = |header: &&SegmentHeader| {
        header.id >= whole_below || !other.headers().iter().any(|theirs| theirs.id == header.id)
    };
    let sealed = || {
        scan.headers
            .iter()
            .filter(|header| header.id != scan.last.id)
    };
    if sealed().any(|header| missing(&header)) {
        // Until all are there, the mark says that something is missing. It says only what was durable.
        on(
            "write the mark in",
            to,
            MarkFile::replace(disk, to, scan.claimed),
        )?;
    }
    for header in sealed().filter(missing) {
        let source = segment_path(from, header.id);
        let temporary = temporary_path(to, header.id);
        let path = segment_path(to, header.id);
        let original = on("open", &source, disk.open(&source))?;
        let copy = on("make", &temporary, disk.create(&temporary))?;
        on(
            "copy the segment to",
            &temporary,
            copy_bytes(original.as_ref(), copy.as_ref(), header.size),
        )?;
        on("sync", &temporary, copy.sync())?;
        on("name the segment", &path, disk.rename(&temporary, &path))?;
        on("sync the directory", to, disk.sync_dir(to))?;
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

/// Copies the first `size` bytes of a file.
fn copy_bytes(from: &dyn DiskFile, to: &dyn DiskFile, size: u64) -> io::Result<()> {
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
        write_all(to, offset, part)?;
        offset += length as u64;
    }
    Ok(())
}
