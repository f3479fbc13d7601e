//! Two directories with the same log: which one is taken, and how the other is brought up to it.

use std::cmp::Reverse;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, write_all};
use crate::durable::MarkFile;
use crate::error::{DamageCause, OpenError};
use crate::frame::{Frame, SegmentHeader, parse_header};
use crate::order::Order;
use crate::scan::{Damage, Outcome, Scan, fault_at_end, frames, read_bytes, read_segment, walk};
use crate::segment::{Failed, on, segment_id, segment_path, temporary_path};

/// The directory that is taken, and the others.
pub(crate) struct Choice {
    pub(crate) dir: PathBuf,
    pub(crate) scan: Scan,
    pub(crate) behind: Vec<(PathBuf, Outcome)>,
}

/// The full segments that each of the others needs, in their order.
pub(crate) type Copies = Vec<Vec<Copy>>;

/// Chooses: the one with the most that may have been acknowledged, then the one that goes back furthest, then the
/// longest; another one, if that one lacks a frame that the other would need from it. With the full segments that each
/// of the others needs. `None` if all are empty: the journal is new. A directory is never taken that lacks what
/// another one says was durable.
pub(crate) fn choose(
    disk: &dyn Disk,
    outcomes: Vec<(PathBuf, Outcome)>,
) -> Result<Option<(Choice, Copies)>, OpenError> {
    let Some(best) = best(outcomes)? else {
        return Ok(None);
    };
    let damaged = match best.plans(disk) {
        Ok(plans) => return Ok(Some((best, plans))),
        Err(damaged @ OpenError::Damaged { .. }) => damaged,
        Err(other) => return Err(other),
    };
    // If the other one does not do either, what is damaged in the best one is what has to be told.
    match best.second().map(|second| (second.plans(disk), second)) {
        Some((Ok(plans), second)) => Ok(Some((second, plans))),
        _ => Err(damaged),
    }
}

fn best(outcomes: Vec<(PathBuf, Outcome)>) -> Result<Option<Choice>, OpenError> {
    check_same_log(&outcomes)?;
    let mut chosen: Option<(PathBuf, Scan)> = None;
    let mut behind = Vec::new();
    for (dir, outcome) in outcomes {
        match outcome {
            Outcome::Intact(scan) => match &chosen {
                Some((_, best)) if !scan.is_better_than(best) => {
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

impl Choice {
    /// What each of the others needs. Changes nothing.
    ///
    /// # Errors
    /// [`OpenError::Diverged`] if one has what this one lacks, [`OpenError::Damaged`] if one needs what is not whole here.
    fn plans(&self, disk: &dyn Disk) -> Result<Copies, OpenError> {
        for (other, outcome) in &self.behind {
            if let Some(sequence) = first_difference(disk, &self.dir, &self.scan, other, outcome)? {
                return Err(OpenError::Diverged {
                    path: self.dir.clone(),
                    other: other.clone(),
                    sequence,
                });
            }
        }
        self.behind
            .iter()
            .map(|(to, other)| plan(disk, &self.dir, &self.scan, to, other))
            .collect()
    }

    /// The other directory, if it goes back as far, and has all that may have been acknowledged here. What lies before
    /// its first segment would be removed here as pruned, and may be lost there.
    fn second(mut self) -> Option<Choice> {
        match self.behind.pop()? {
            (dir, Outcome::Intact(scan))
                if scan.next > self.scan.promised() && scan.first() <= self.scan.first() =>
            {
                self.behind.push((self.dir, Outcome::Intact(self.scan)));
                Some(Choice {
                    dir,
                    scan,
                    behind: self.behind,
                })
            }
            _ => None,
        }
    }
}

/// The first frame of `other` that may have been acknowledged and that is not the same in the directory chosen.
/// Only segments that differ in their headers are read: the salt is new whenever a journal is opened, so that one
/// with the same salt was written by the same process. What the chosen directory has pruned is not compared.
fn first_difference(
    disk: &dyn Disk,
    dir: &Path,
    scan: &Scan,
    other: &Path,
    outcome: &Outcome,
) -> Result<Option<u64>, OpenError> {
    for theirs in outcome.headers() {
        if scan.headers.contains(theirs) {
            continue;
        }
        // What cannot be read is no frame that could be lost.
        let bytes = read_segment(disk, other, theirs).unwrap_or_default();
        let claimed: Vec<Frame<'_>> = frames(theirs, &bytes)
            .take_while(|frame| outcome.may_be_acknowledged(frame.sequence))
            .collect();
        for (at, ours) in scan.headers.iter().enumerate() {
            let until = scan.headers.get(at + 1).map_or(u64::MAX, |next| next.first);
            let within = |frame: &&Frame<'_>| (ours.first..until).contains(&frame.sequence);
            let mut wanted = claimed.iter().filter(within).peekable();
            let Some(start) = wanted.peek().map(|frame| frame.sequence) else {
                continue;
            };
            let bytes = read_segment(disk, dir, ours)?;
            let mut ours = frames(ours, &bytes).skip_while(|frame| frame.sequence < start);
            // A damaged one of ours is no contradiction; the plan of the repair refuses it.
            let differs = wanted.find(|frame| {
                frame.sequence >= scan.next
                    || ours
                        .next()
                        .is_some_and(|ours| ours.payload != frame.payload)
            });
            if let Some(frame) = differs {
                return Ok(Some(frame.sequence));
            }
        }
    }
    Ok(None)
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

impl Scan {
    /// Of two that were written together, and both have all that was acknowledged, the one that goes back further
    /// is better: the other one may have lost its oldest segments rather than pruned them.
    fn is_better_than(&self, other: &Scan) -> bool {
        let promised = self.promised().max(other.promised());
        let together = self.last == other.last && promised < self.next.min(other.next);
        let rank = |scan: &Scan| {
            let promised = if together { promised } else { scan.promised() };
            (promised, Reverse(scan.first()), scan.next)
        };
        rank(self) > rank(other)
    }

    /// The sequence that it begins with.
    fn first(&self) -> u64 {
        self.headers.first().map_or(0, |header| header.first)
    }

    /// The last sequence that may have been acknowledged. Of two directories, both had to have it and one of them
    /// says so; a directory that was written alone may have lost the mark of its last commits in a power loss.
    fn promised(&self) -> u64 {
        if self.is_alone() {
            self.next - 1
        } else {
            self.claimed
        }
    }

    /// Whether it was written without a mirror since it was last opened.
    fn is_alone(&self) -> bool {
        self.last.copies < 2
    }
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
    /// never acknowledged is normal after a crash, unless `best` was last written alone.
    pub(crate) fn is_told(&self, best: &Scan) -> bool {
        best.is_alone() || !matches!(self, Outcome::Intact(scan) if scan.next > best.claimed)
    }

    /// Whether a caller may have been told that a frame, which is whole here, is durable.
    fn may_be_acknowledged(&self, sequence: u64) -> bool {
        match self {
            Outcome::Empty => false,
            Outcome::Intact(scan) => sequence <= scan.promised(),
            Outcome::Damaged(damage) => {
                sequence <= damage.claimed
                    || damage.headers.last().is_some_and(|last| last.copies < 2)
            }
        }
    }

    /// Segments below this id were not read, here no more than where they are copied from; they are taken as whole.
    fn unread_below(&self) -> u64 {
        match self {
            Outcome::Intact(scan) => scan.headers.last().map_or(0, |header| header.id),
            Outcome::Empty | Outcome::Damaged(_) => 0,
        }
    }
}

/// A full segment that is to be copied.
pub(crate) struct Copy {
    header: SegmentHeader,
    /// The first sequence of the segment after it.
    until: u64,
}

/// The full segments of `from` that are missing in `to`, or not whole there. Changes nothing.
///
/// # Errors
/// [`OpenError::Damaged`] if one of them is not whole in `from` either.
fn plan(
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
            let rest = bytes.get(walk.end..).unwrap_or_default();
            let (cause, sequence) = fault_at_end(&walk.order, until - 1, rest)
                .unwrap_or((DamageCause::Frame, walk.order.next));
            let damage = Damage {
                headers: Vec::new(),
                segment: header.id,
                offset: walk.end as u64,
                sequence,
                cause,
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

/// Whether a full segment's bytes hold every frame before `until`.
fn is_whole(header: &SegmentHeader, bytes: &[u8], until: u64) -> bool {
    bytes.len() as u64 == header.size
        && parse_header(bytes).as_ref() == Ok(header)
        && is_whole_until(&walk(header, bytes).order, until)
}

fn is_whole_until(order: &Order, until: u64) -> bool {
    (order.next, order.whole_next) == (until, until)
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
