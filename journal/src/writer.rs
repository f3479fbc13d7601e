//! The two threads of a journal: one writes and syncs groups, the other makes the next segment ahead.

use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::disk::is_no_space;
use crate::durable::MarkFile;
use crate::frame::{HEADER_BYTES, stamp_frames};
use crate::segment::{Failed, Segment, on};
use crate::state::{Chunk, Entry, Shared, Upcoming};

/// From so many waiters in a group on, the next sync waits for more company.
const CROWD: u64 = 8;
/// From so many appends in the last quarter of that wait on, it is as long again.
const RUSH: u64 = 4;

/// Writes groups until the journal is closed; the last one included.
pub(crate) fn run_writer(shared: &Shared, mut marks: Vec<MarkFile>) {
    let _guard = PanicGuard(shared);
    let mut last_start: Option<Instant> = None;
    let mut last_appends = 0;
    while wait_for_frames(shared) {
        if let Some(start) = last_start {
            gather(shared, last_appends, start);
        }
        let (mut chunks, appends) = {
            let mut fill = shared.fill();
            last_appends = std::mem::take(&mut fill.appends);
            (std::mem::take(&mut fill.chunks), last_appends)
        };
        last_start = Some(Instant::now());
        // Counted before the acknowledgement, so that whoever has one finds it in the counts.
        shared
            .counters
            .largest_group
            .fetch_max(appends, Ordering::Relaxed);
        if let Err(failed) = write_group(shared, &mut chunks, &mut marks) {
            return shared.fail(failed);
        }
        shared.fill().recycle(chunks);
    }
    for (mark, dir) in marks.iter().zip(&shared.dirs) {
        if let Err(failed) = on("sync the mark in", dir, mark.sync()) {
            return shared.fail(failed);
        }
    }
    shared.stop();
}

/// Waits for more company before the next sync.
///
/// Whoever waited for the last sync comes again soon after it, and then there is silence until the next. While appends still
/// come at the end of the wait, the processor holds their callers up and not the disk, and fewer syncs leave more of it.
fn gather(shared: &Shared, last_appends: u64, last_start: Instant) {
    let spacing = shared.options.sync_spacing;
    let appends_after = |wait: Duration| {
        let rest = rest_before_sync(last_appends, last_start.elapsed(), wait);
        std::thread::sleep(rest);
        shared.fill().appends
    };
    let before = appends_after(spacing / 4 * 3);
    if appends_after(spacing) - before >= RUSH {
        appends_after(spacing * 2);
    }
}

/// How long the next sync waits for more company, if that may take `wait`: not at all, unless the last one served a crowd.
fn rest_before_sync(last_appends: u64, since_last: Duration, wait: Duration) -> Duration {
    if last_appends < CROWD {
        Duration::ZERO
    } else {
        wait.saturating_sub(since_last)
    }
}

/// Sleeps until there are frames to write; false when there are none and the journal closes.
fn wait_for_frames(shared: &Shared) -> bool {
    let mut fill = shared.fill();
    while fill.chunks.is_empty() {
        if fill.closing {
            return false;
        }
        fill.idle = true;
        fill = shared
            .work
            .wait(fill)
            .unwrap_or_else(PoisonError::into_inner);
    }
    fill.idle = false;
    true
}

/// One write and one sync for each chunk, of which there is one unless the group crosses segments.
fn write_group(
    shared: &Shared,
    chunks: &mut [Chunk],
    marks: &mut [MarkFile],
) -> Result<(), Failed> {
    for chunk in chunks {
        let opens = chunk.offset == 0;
        let frames = chunk
            .bytes
            .get_mut(if opens { HEADER_BYTES } else { 0 }..)
            .unwrap_or_default();
        stamp_frames(frames, chunk.segment.salt, chunk.first - 1);
        chunk.segment.write(chunk.offset, &chunk.bytes)?;
        if opens {
            chunk.segment.publish(shared.disk.as_ref())?;
            let entry = Entry {
                id: chunk.segment.id,
                first: chunk.first,
            };
            shared
                .index
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .push(entry);
        }
        // Before the acknowledgement: from here on, the loss of these frames shows.
        for (mark, dir) in marks.iter_mut().zip(&shared.dirs) {
            on("write the mark in", dir, mark.write(chunk.last))?;
        }
        let counters = &shared.counters;
        counters.syncs.fetch_add(1, Ordering::Relaxed);
        counters
            .frames
            .fetch_add(chunk.last + 1 - chunk.first, Ordering::Relaxed);
        counters
            .bytes
            .fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
        shared.publish(chunk.last);
    }
    Ok(())
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
    fn only_a_crowd_spaces_the_syncs() {
        let ms = Duration::from_millis;
        assert_eq!(rest_before_sync(7, ms(0), ms(1)), ms(0));
        assert_eq!(rest_before_sync(8, ms(0), ms(1)), ms(1));
        assert_eq!(
            rest_before_sync(500, Duration::from_micros(300), ms(1)),
            Duration::from_micros(700)
        );
        assert_eq!(rest_before_sync(500, ms(5), ms(1)), ms(0));
    }
}
