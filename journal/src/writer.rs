//! The two threads of a journal: one seals, writes and syncs groups, the other makes the next segment ahead.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::disk::is_no_space;
use crate::durable::MarkFile;
use crate::fill::{Chunk, Group, Upcoming};
use crate::frame::{HEADER_BYTES, push_seal, stamp_frames};
use crate::segment::{Failed, Segment, on};
use crate::state::{Entry, Level, Shared, lock};

/// From so many waiters in a group on, the next syncs wait for more company.
const CROWD: u64 = 8;
/// For so many syncs. While callers come faster than the processor serves them, a group is small now and then, and the ones after it
/// would stay so.
const SYNCS_AFTER_CROWD: u32 = 8;

/// Writes groups until the journal is closed; the last one included.
pub(crate) fn run_writer(shared: &Shared, marks: Vec<MarkFile>) {
    let _guard = PanicGuard(shared);
    let mut writer = Writer {
        shared,
        marks,
        unsynced: None,
    };
    if let Err(failed) = writer.run() {
        return shared.fail(failed);
    }
    shared.stop();
}

struct Writer<'a> {
    shared: &'a Shared,
    marks: Vec<MarkFile>,
    unsynced: Option<Unsynced>,
}

/// What was written to a segment and not synced yet.
struct Unsynced {
    segment: Arc<Segment>,
    /// When the oldest of it was about to be written.
    since: Instant,
    /// The first sequence of the segment, if this is its first write: it has no name yet.
    opens: Option<u64>,
    /// The last sequence written.
    through: u64,
}

/// What the writer has to do next.
enum Work {
    Write,
    Sync,
    End,
}

impl Writer<'_> {
    fn run(&mut self) -> Result<(), Failed> {
        let mut last: Option<Instant> = None;
        let mut spaced = 0;
        loop {
            match wait_for_work(self.shared, self.due()) {
                Work::Write => {}
                Work::Sync => {
                    self.sync()?;
                    continue;
                }
                Work::End => break,
            }
            if let Some(last) = last.filter(|_| spaced > 0) {
                let next = last + self.shared.options.sync_spacing;
                std::thread::sleep(rest(next, self.due(), Instant::now()));
            }
            let mut group = self.shared.fill().take_group();
            let start = Instant::now();
            last = Some(start);
            spaced = syncs_to_space(spaced, group.appends);
            // Counted before the acknowledgement, so that whoever has one finds it in the counts.
            self.shared
                .counters
                .largest_group
                .fetch_max(group.appends, Ordering::Relaxed);
            self.write_group(&mut group, start)?;
            self.shared.fill().recycle(group.chunks);
        }
        self.sync()?;
        for (mark, dir) in self.marks.iter().zip(&self.shared.dirs) {
            on("sync the mark in", dir, mark.sync())?;
        }
        Ok(())
    }

    /// When what is only written must be synced.
    fn due(&self) -> Option<Instant> {
        let unsynced = self.unsynced.as_ref()?;
        Some(unsynced.since + self.shared.options.bounded_window())
    }

    /// One write for each chunk, of which there is one unless the group crosses segments. Each is synced at once, unless
    /// all who wait for it are content with the write for some time more.
    fn write_group(&mut self, group: &mut Group, start: Instant) -> Result<(), Failed> {
        let all_relaxed = group.relaxed == group.appends;
        for chunk in &mut group.chunks {
            let opens = chunk.offset == 0;
            if opens {
                // The first frame of a segment testifies that every earlier segment is durable.
                self.sync()?;
            }
            self.write(chunk, start)?;
            // A segment without a name would be gone with the process.
            if group.relaxed > 0 && !opens {
                self.shared.publish(Level::Written, chunk.last);
            }
            let is_due = self.due().is_some_and(|due| due <= Instant::now());
            if opens || !all_relaxed || is_due {
                self.sync()?;
            }
        }
        Ok(())
    }

    fn write(&mut self, chunk: &mut Chunk, start: Instant) -> Result<(), Failed> {
        let shared = self.shared;
        if shared.options.leaf.is_some() {
            seal(shared, chunk)?;
        }
        let opens = chunk.offset == 0;
        let frames = chunk
            .bytes
            .get_mut(if opens { HEADER_BYTES } else { 0 }..)
            .unwrap_or_default();
        stamp_frames(frames, chunk.segment.salt, shared.durable());
        chunk.segment.write(chunk.offset, &chunk.bytes)?;
        let counters = &shared.counters;
        counters.writes.fetch_add(1, Ordering::Relaxed);
        counters
            .bytes
            .fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
        self.unsynced = Some(Unsynced {
            segment: chunk.segment.clone(),
            since: self.unsynced.as_ref().map_or(start, |before| before.since),
            opens: opens.then_some(chunk.first),
            through: chunk.last,
        });
        Ok(())
    }

    /// Makes durable what was written, and says so.
    fn sync(&mut self) -> Result<(), Failed> {
        let shared = self.shared;
        let Some(unsynced) = self.unsynced.take() else {
            return Ok(());
        };
        let Unsynced {
            segment, through, ..
        } = unsynced;
        segment.sync()?;
        if let Some(first) = unsynced.opens {
            segment.publish(shared.disk.as_ref())?;
            let entry = Entry {
                id: segment.id,
                first,
            };
            shared
                .index
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .push(entry);
        }
        // Before the acknowledgement: from here on, the loss of these frames shows.
        for (mark, dir) in self.marks.iter_mut().zip(&shared.dirs) {
            on("write the mark in", dir, mark.write(through))?;
        }
        let counters = &shared.counters;
        counters.syncs.fetch_add(1, Ordering::Relaxed);
        counters
            .frames
            .fetch_add(through - shared.durable(), Ordering::Relaxed);
        if let Some(seal) = lock(&shared.seal).as_mut() {
            seal.committed(through);
        }
        shared.publish(Level::Durable, through);
        Ok(())
    }
}

/// Puts the seal behind the frames of a chunk.
fn seal(shared: &Shared, chunk: &mut Chunk) -> Result<(), Failed> {
    let made = lock(&shared.seal)
        .as_mut()
        .map(|seal| seal.seal(chunk.first, &chunk.leaves))
        // No append is taken before there is a seal.
        .ok_or_else(|| io::Error::other("there is no seal"));
    let path = shared.dirs.first().cloned().unwrap_or_default();
    let made = on("seal a commit in", &path, made)?;
    push_seal(&mut chunk.bytes, chunk.segment.id, chunk.last, &made);
    Ok(())
}

/// How many of the next syncs wait for more company, after one that served so many: none, unless there was a crowd lately. Who waited for
/// a sync comes again soon after it.
fn syncs_to_space(before: u32, appends: u64) -> u32 {
    if appends >= CROWD {
        SYNCS_AFTER_CROWD
    } else {
        before.saturating_sub(1)
    }
}

/// How long the writer rests at `now`: until the `next` sync may be, but not when one is `due` before.
fn rest(next: Instant, due: Option<Instant>, now: Instant) -> Duration {
    let until = due.map_or(next, |due| due.min(next));
    until.saturating_duration_since(now)
}

/// Sleeps until there are frames to write, or it is `due` to sync, or there are none and the journal closes.
fn wait_for_work(shared: &Shared, due: Option<Instant>) -> Work {
    let mut fill = shared.fill();
    let work = loop {
        if !fill.is_empty() {
            break Work::Write;
        }
        if fill.closing {
            break Work::End;
        }
        let rest = due.map(|due| due.saturating_duration_since(Instant::now()));
        fill.idle = true;
        fill = match rest {
            Some(rest) if rest.is_zero() => break Work::Sync,
            Some(rest) => {
                let waited = shared.work.wait_timeout(fill, rest);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => shared
                .work
                .wait(fill)
                .unwrap_or_else(PoisonError::into_inner),
        };
    };
    fill.idle = false;
    work
}

/// Makes a segment whenever one is wanted, so that it is there before the current one is full.
pub(crate) fn run_preparer(shared: &Shared, mut id: u64) {
    let _guard = PanicGuard(shared);
    while wait_until_wanted(shared) {
        let started = Instant::now();
        match Segment::prepare(
            shared.disk.as_ref(),
            &shared.dirs,
            id,
            shared.options.segment_bytes,
            shared.log,
            shared.options.leaf.is_some(),
        ) {
            Ok(segment) => {
                id += 1;
                shared.fill().upcoming = Upcoming::Ready(segment);
                shared.room.notify_all();
            }
            Err(failed) if is_no_space(&failed.source) => {
                shared.fill().upcoming = Upcoming::Full;
                shared.room.notify_all();
                rest_after_no_space(shared, started);
            }
            Err(failed) => return shared.fail(failed),
        }
    }
    let mut fill = shared.fill();
    if let Upcoming::Ready(segment) = &fill.upcoming {
        segment.discard(shared.disk.as_ref());
        fill.upcoming = Upcoming::Full;
    }
}

fn wait_until_wanted(shared: &Shared) -> bool {
    let mut fill = shared.fill();
    loop {
        if fill.closing {
            return false;
        }
        if matches!(fill.upcoming, Upcoming::Making | Upcoming::Retrying) {
            return true;
        }
        fill = shared
            .wanted
            .wait(fill)
            .unwrap_or_else(PoisonError::into_inner);
    }
}

/// A full disk is not asked again at once, however many callers come.
fn rest_after_no_space(shared: &Shared, started: Instant) {
    let mut fill = shared.fill();
    while !fill.closing {
        let rest = shared
            .options
            .no_space_retry
            .saturating_sub(started.elapsed());
        if rest.is_zero() {
            return;
        }
        fill = shared
            .wanted
            .wait_timeout(fill, rest)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
}

/// A thread that panicked would leave its callers waiting for ever; that is as fatal as a failed write.
struct PanicGuard<'a>(&'a Shared);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = self.0.dirs.first().cloned().unwrap_or_default();
            self.0.fail(Failed {
                action: "go on with",
                path,
                source: io::Error::other("its thread panicked"),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_crowd_spaces_the_syncs_after_it() {
        assert_eq!(syncs_to_space(0, 7), 0);
        let mut spaced = syncs_to_space(0, 8);
        assert_eq!(spaced, SYNCS_AFTER_CROWD);
        for left in (0..SYNCS_AFTER_CROWD).rev() {
            spaced = syncs_to_space(spaced, 7);
            assert_eq!(spaced, left);
        }
        assert_eq!(syncs_to_space(spaced, 7), 0);
        assert_eq!(syncs_to_space(3, 500), SYNCS_AFTER_CROWD);
    }

    #[test]
    fn no_rest_is_longer_than_until_the_sync_that_is_due() {
        let now = Instant::now();
        let ms = Duration::from_millis;
        assert_eq!(rest(now + ms(5), None, now), ms(5));
        assert_eq!(rest(now + ms(5), Some(now + ms(9)), now), ms(5));
        assert_eq!(rest(now + ms(5), Some(now + ms(2)), now), ms(2));
        assert_eq!(rest(now, None, now + ms(1)), Duration::ZERO);
        assert_eq!(rest(now + ms(5), Some(now), now + ms(1)), Duration::ZERO);
    }
}
