//! Two directories: which is taken, what is repaired, when both are refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DIR, MIRROR, check_content, commit, mirrored, open, payload, small};
use crate::simulated::SimulatedDisk;
use crate::{Disk, Journal, OpenError, ReadError};

fn segment(dir: &str, id: u64) -> PathBuf {
    Path::new(dir).join(format!("{id:016x}.seg"))
}

/// A mirrored log of some segments, closed; with its last sequence.
fn make_log() -> (SimulatedDisk, u64) {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, mirrored()).unwrap();
    let mut last = 0;
    while journal.stats().segments < 4 {
        last = commit(&journal, 2, 0);
    }
    drop(journal);
    (disk, last)
}

fn remove_all(disk: &SimulatedDisk, dir: &str) {
    disk.paths()
        .iter()
        .filter(|path| path.starts_with(dir))
        .for_each(|path| disk.remove(path).unwrap());
}

/// Opens, and expects everything, in both directories, and that `repaired` is told of.
fn expect_repaired(disk: &SimulatedDisk, last: u64, repaired: Option<&str>) {
    let (journal, recovered) = open(disk, mirrored()).unwrap();
    assert_eq!(
        (recovered.next, recovered.repaired),
        (last + 1, repaired.map(PathBuf::from))
    );
    check_content(&journal, 0);
    assert_eq!(journal.verify().unwrap().frames, 2 * last);
    let last = commit(&journal, 2, 0);
    drop(journal);
    // Each alone has it all.
    for gone in [DIR, MIRROR] {
        let disk = disk.fork();
        remove_all(&disk, gone);
        let (journal, recovered) = open(&disk, mirrored()).unwrap();
        assert_eq!(
            (recovered.next, recovered.repaired),
            (last + 1, Some(PathBuf::from(gone)))
        );
        check_content(&journal, 0);
    }
}

#[test]
fn both_are_written_before_the_acknowledgement() {
    let (disk, last) = make_log();
    expect_repaired(&disk, last, None);
}

#[test]
fn a_damaged_directory_is_repaired_from_the_other() {
    for dir in [DIR, MIRROR] {
        for id in 1..=4 {
            let (disk, last) = make_log();
            // Of a full segment, open reads the header only.
            disk.tamper(&segment(dir, id), |bytes| {
                bytes[if id == 4 { 80 } else { 20 }] ^= 1
            });
            expect_repaired(&disk, last, Some(dir));
            let (disk, last) = make_log();
            disk.remove(&segment(dir, id)).unwrap();
            // Of the first segment as well, without which a log looks pruned.
            expect_repaired(&disk, last, Some(dir));
        }
    }
}

#[test]
fn a_directory_that_is_behind_is_brought_up() {
    for (ahead, dir) in [(DIR, MIRROR), (MIRROR, DIR)] {
        let (disk, _) = make_log();
        let stale = disk.fork();
        let (journal, _) = open(&disk, mirrored()).unwrap();
        let mut last = 0;
        while journal.stats().segments < 7 {
            last = commit(&journal, 2, 0);
        }
        drop(journal);
        remove_all(&disk, dir);
        for path in stale.paths().iter().filter(|path| path.starts_with(dir)) {
            disk.tamper(path, |bytes| *bytes = stale.bytes(path));
        }
        expect_repaired(&disk, last, Some(dir));
        // A stale directory is not taken when the other one is damaged, since it lacks what that one had.
        disk.tamper(&segment(ahead, 7), |bytes| bytes[80] ^= 1);
        remove_all(&disk, dir);
        for path in stale.paths().iter().filter(|path| path.starts_with(dir)) {
            disk.tamper(path, |bytes| *bytes = stale.bytes(path));
        }
        let refused = open(&disk, mirrored()).err().unwrap();
        assert!(
            matches!(&refused, OpenError::Damaged { path, .. } if path == Path::new(ahead)),
            "{refused}"
        );
    }
}

#[test]
fn a_directory_that_is_ahead_by_what_nobody_was_told_of_and_damaged_is_repaired_too() {
    for (ahead, dir) in [(DIR, MIRROR), (MIRROR, DIR)] {
        let (disk, mut last) = make_log();
        let (journal, _) = open(&disk, mirrored()).unwrap();
        let mut before = disk.fork();
        while journal.stats().segments < 5 {
            before = disk.fork();
            last = commit(&journal, 2, 0);
        }
        // The process ends after one directory of a new segment has its name, and before anybody is told.
        last -= 2;
        for path in disk.paths().iter().filter(|path| path.starts_with(ahead)) {
            if !path.ends_with("durable") {
                before.tamper(path, |bytes| *bytes = disk.bytes(path));
            }
        }
        drop(journal);
        // The other one goes on alone, and the first one is damaged in what both have.
        drop(open_alone(&before, dir));
        rot(&before, ahead, 4);
        expect_repaired(&before, last, Some(ahead));
    }
}

#[test]
fn a_directory_that_begins_later_is_not_taken_for_one_with_rot() {
    // What the operator removed so that it is copied back is still in the other directory, which is damaged elsewhere, or there.
    for (lost, rotted) in [(DIR, MIRROR), (MIRROR, DIR)] {
        for removed in [1, 2] {
            for damaged in 1..=removed {
                let (disk, _) = make_log();
                (1..=removed).for_each(|id| disk.remove(&segment(lost, id)).unwrap());
                rot(&disk, rotted, damaged);
                let refused = expect_refused_untouched(&disk);
                assert!(
                    matches!(&refused, OpenError::Damaged { path, segment, .. }
                        if path == Path::new(rotted) && *segment == damaged),
                    "{refused}"
                );
            }
        }
    }
}

#[test]
fn both_damaged_is_refused() {
    let (disk, _) = make_log();
    disk.tamper(&segment(DIR, 4), |bytes| bytes[80] ^= 1);
    disk.tamper(&segment(MIRROR, 2), |bytes| bytes[20] ^= 1);
    assert!(matches!(
        open(&disk, mirrored()),
        Err(OpenError::Damaged { .. })
    ));
}

#[test]
fn a_mirror_is_made_for_a_log_that_had_none_and_pruned_with_it() {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, small()).unwrap();
    let mut last = 0;
    while journal.stats().segments < 4 {
        last = commit(&journal, 1, 0);
    }
    drop(journal);
    expect_repaired(&disk, last, Some(MIRROR));
    let (journal, _) = open(&disk, mirrored()).unwrap();
    assert!(journal.prune_before(u64::MAX).unwrap() > 0);
    let first = journal.first();
    drop(journal);
    remove_all(&disk, DIR);
    let (journal, recovered) = open(&disk, mirrored()).unwrap();
    assert_eq!(recovered.first, first);
    check_content(&journal, 0);
}

/// Puts what `other` has in `from` in place of what `disk` has in `to`.
fn transplant(other: &SimulatedDisk, from: &str, disk: &SimulatedDisk, to: &str) {
    remove_all(disk, to);
    for path in other.paths().iter().filter(|path| path.starts_with(from)) {
        let target = Path::new(to).join(path.file_name().unwrap());
        disk.tamper(&target, |bytes| *bytes = other.bytes(path));
    }
}

/// Opens, expects a refusal, and that no byte has changed.
fn expect_refused_untouched(disk: &SimulatedDisk) -> OpenError {
    let before = disk.fork();
    let refused = open(disk, mirrored()).err().unwrap();
    assert_eq!(disk.paths(), before.paths());
    for path in disk.paths() {
        assert_eq!(disk.bytes(&path), before.bytes(&path), "{path:?}");
    }
    refused
}

#[test]
fn the_log_of_another_journal_is_not_overwritten() {
    let (disk, _) = make_log();
    let (other, _) = make_log();
    transplant(&other, MIRROR, &disk, MIRROR);
    let refused = expect_refused_untouched(&disk);
    assert!(
        matches!(refused, OpenError::ForeignMirror { .. }),
        "{refused}"
    );
}

#[test]
fn the_log_of_another_journal_is_recognised_without_a_segment_in_common() {
    // The other journal is longer, and has pruned every segment with an id that this one has.
    let (other, _) = make_log();
    let (journal, _) = open(&other, mirrored()).unwrap();
    while journal.stats().segments < 9 {
        commit(&journal, 2, 0);
    }
    journal.prune_before(u64::MAX).unwrap();
    drop(journal);
    for mirror in [DIR, MIRROR] {
        let (disk, last) = make_log();
        transplant(&other, mirror, &disk, mirror);
        let refused = expect_refused_untouched(&disk);
        assert!(
            matches!(refused, OpenError::ForeignMirror { .. }),
            "{refused}"
        );
        // Without the foreign one, all is there.
        remove_all(&disk, mirror);
        expect_repaired(&disk, last, Some(mirror));
    }
}

#[test]
fn an_older_part_of_the_same_log_is_brought_up_without_a_segment_in_common() {
    for dir in [DIR, MIRROR] {
        let (disk, _) = make_log();
        let stale = disk.fork();
        let (journal, _) = open(&disk, mirrored()).unwrap();
        while journal.stats().segments < 9 {
            commit(&journal, 2, 0);
        }
        journal.prune_before(u64::MAX).unwrap();
        let (first, last) = (journal.first(), journal.durable());
        drop(journal);
        transplant(&stale, dir, &disk, dir);
        let (journal, recovered) = open(&disk, mirrored()).unwrap();
        assert_eq!((recovered.first, recovered.next), (first, last + 1));
        assert_eq!(recovered.repaired, Some(PathBuf::from(dir)));
        journal.verify().unwrap();
    }
}

#[test]
fn segments_that_do_not_say_to_which_log_they_belong_are_not_replaced() {
    let (disk, _) = make_log();
    for id in 1..=4 {
        disk.tamper(&segment(MIRROR, id), |bytes| bytes[20] ^= 1);
    }
    let refused = expect_refused_untouched(&disk);
    assert!(
        matches!(&refused, OpenError::Damaged { path, .. } if path == Path::new(MIRROR)),
        "{refused}"
    );
}

#[test]
fn a_segment_of_another_log_between_those_of_this_one_is_damage() {
    let (disk, _) = make_log();
    let (other, _) = make_log();
    remove_all(&disk, MIRROR);
    disk.tamper(&segment(DIR, 3), |bytes| {
        *bytes = other.bytes(&segment(DIR, 3))
    });
    assert!(matches!(
        open(&disk, small()),
        Err(OpenError::Damaged { segment: 3, .. })
    ));
}

#[test]
fn damage_in_a_full_segment_is_read_from_the_mirror_and_counted() {
    let (disk, last) = make_log();
    disk.tamper(&segment(DIR, 2), |bytes| bytes[80] ^= 1);
    let (journal, _) = open(&disk, mirrored()).unwrap();
    assert_eq!(
        journal.read(1).unwrap().filter(Result::is_ok).count() as u64,
        last
    );
    assert_eq!((journal.durable(), journal.stats().mirror_reads), (last, 1));
    check_content(&journal, 0);
    let refused = journal.verify().unwrap_err();
    assert!(
        matches!(&refused, ReadError::Damaged { path, segment: 2, .. } if path == Path::new(DIR)),
        "{refused}"
    );
    // The same place in both cannot be helped.
    disk.tamper(&segment(MIRROR, 2), |bytes| bytes[80] ^= 1);
    assert!(journal.read(1).unwrap().any(|item| item.is_err()));
    // The way out that the documentation names: without the file, the next open copies it back.
    disk.tamper(&segment(MIRROR, 2), |bytes| bytes[80] ^= 1);
    drop(journal);
    disk.remove(&segment(DIR, 2)).unwrap();
    expect_repaired(&disk, last, Some(DIR));
}

/// Flips a bit in a frame of a full segment, which open does not read.
fn rot(disk: &SimulatedDisk, dir: &str, id: u64) {
    disk.tamper(&segment(dir, id), |bytes| bytes[80] ^= 1);
}

#[test]
fn a_repair_leaves_whole_segments_alone_however_the_other_directory_is() {
    for (dir, other) in [(DIR, MIRROR), (MIRROR, DIR)] {
        let (disk, _) = make_log();
        // One directory has lost segment 2, the other has bit rot in segment 3.
        disk.remove(&segment(dir, 2)).unwrap();
        rot(&disk, other, 3);
        let before = disk.bytes(&segment(dir, 3));
        let (journal, recovered) = open(&disk, mirrored()).unwrap();
        assert_eq!(recovered.repaired, Some(PathBuf::from(dir)));
        assert_eq!(disk.bytes(&segment(dir, 3)), before);
        check_content(&journal, 0);
    }
}

#[test]
fn a_segment_that_is_whole_in_neither_directory_is_named_and_nothing_changed() {
    for damaged in [2, 3] {
        let (disk, _) = make_log();
        disk.remove(&segment(DIR, 2)).unwrap();
        rot(&disk, DIR, 3);
        rot(&disk, MIRROR, damaged);
        let refused = expect_refused_untouched(&disk);
        assert!(
            matches!(&refused, OpenError::Damaged { path, segment, offset: 64, .. }
                if path == Path::new(MIRROR) && *segment == damaged),
            "{refused}"
        );
    }
    // A log that has no mirror yet is not copied with its damage.
    let (disk, _) = make_log();
    remove_all(&disk, MIRROR);
    rot(&disk, DIR, 2);
    assert!(matches!(
        open(&disk, mirrored()),
        Err(OpenError::Damaged { segment: 2, .. })
    ));
}

#[test]
fn what_is_present_and_not_whole_is_replaced_while_a_directory_is_repaired() {
    let (disk, last) = make_log();
    disk.remove(&segment(DIR, 2)).unwrap();
    rot(&disk, DIR, 3);
    expect_repaired(&disk, last, Some(DIR));
}

/// Opens one of the directories without the other.
fn open_alone(disk: &SimulatedDisk, dir: &str) -> Journal {
    let opened = Journal::open_on(Arc::new(disk.clone()), Path::new(dir), small());
    opened.unwrap().0
}

/// A mirrored log after a crash in the middle of a commit: `dir` has the frames of generation 0 that nobody was
/// told of, the other directory has not. With the last sequence that was acknowledged.
fn crash_with_unacknowledged(dir: &str) -> (SimulatedDisk, u64) {
    let (disk, last) = make_log();
    let killed = disk.fork();
    let (journal, _) = open(&disk, mirrored()).unwrap();
    let before = disk.fork();
    commit(&journal, 3, 0);
    let after = disk.fork();
    drop(journal);
    for path in killed.paths() {
        let holds_frames =
            path.starts_with(dir) && path.extension().is_some_and(|end| end == "seg");
        let from = if holds_frames { &after } else { &before };
        killed.tamper(&path, |bytes| *bytes = from.bytes(&path));
    }
    (killed, last)
}

#[test]
fn what_was_acknowledged_wins_over_what_is_longer() {
    for (dir, other) in [(DIR, MIRROR), (MIRROR, DIR)] {
        // The mark may be lost with the power; the directory that ran alone wins all the same.
        for mark_is_lost in [false, true] {
            let (disk, last) = crash_with_unacknowledged(dir);
            let journal = open_alone(&disk, other);
            let mark = Path::new(other).join("durable");
            let old = disk.bytes(&mark);
            assert_eq!(journal.next(), last + 1);
            let acknowledged = commit(&journal, 2, 1);
            let left = disk.fork();
            if mark_is_lost {
                left.tamper(&mark, |bytes| *bytes = old);
            }
            let (journal, recovered) = open(&left, mirrored()).unwrap();
            assert_eq!(
                (recovered.next, recovered.repaired),
                (acknowledged + 1, Some(PathBuf::from(dir)))
            );
            for sequence in last + 1..=acknowledged {
                assert_eq!(
                    journal.read_one(sequence).unwrap().unwrap(),
                    payload(sequence, 1)
                );
            }
            journal.verify().unwrap();
        }
    }
}

#[test]
fn frames_that_were_not_acknowledged_are_kept_if_nothing_contradicts_them() {
    for dir in [DIR, MIRROR] {
        let (disk, last) = crash_with_unacknowledged(dir);
        let (journal, recovered) = open(&disk, mirrored()).unwrap();
        assert_eq!((recovered.next, recovered.repaired), (last + 4, None));
        check_content(&journal, 0);
    }
}

#[test]
fn directories_that_were_written_apart_are_refused() {
    // As many, fewer and more frames than the other; within one segment and across several.
    for (ours, theirs) in [(2, 2), (2, 3), (3, 2), (60, 2), (2, 60), (60, 61)] {
        let (disk, last) = make_log();
        for (dir, count, generation) in [(DIR, ours, 0), (MIRROR, theirs, 1)] {
            let journal = open_alone(&disk, dir);
            for _ in 0..count {
                commit(&journal, 1, generation);
            }
        }
        let refused = expect_refused_untouched(&disk);
        assert!(
            matches!(refused, OpenError::Diverged { sequence, .. } if sequence == last + 1),
            "{refused}"
        );
        // The way out that the message names.
        remove_all(&disk, DIR);
        let (_, recovered) = open(&disk, mirrored()).unwrap();
        assert_eq!(recovered.next, last + theirs + 1);
    }
}

#[test]
fn a_directory_that_was_written_alone_is_copied_to_the_one_that_was_not() {
    for (dir, other) in [(DIR, MIRROR), (MIRROR, DIR)] {
        for count in [1, 60] {
            let (disk, mut last) = make_log();
            let journal = open_alone(&disk, dir);
            for _ in 0..count {
                last = commit(&journal, 1, 0);
            }
            drop(journal);
            expect_repaired(&disk, last, Some(other));
        }
    }
}

#[test]
fn a_directory_that_lost_its_oldest_segment_is_repaired_even_if_its_mark_is_newer() {
    for (dir, other) in [(DIR, MIRROR), (MIRROR, DIR)] {
        let (disk, _) = make_log();
        let (journal, _) = open(&disk, mirrored()).unwrap();
        let mark = Path::new(other).join("durable");
        let older = disk.bytes(&mark);
        let last = commit(&journal, 1, 0);
        // Killed between the two marks of the last commit.
        let killed = disk.fork();
        killed.tamper(&mark, |bytes| *bytes = older);
        killed.remove(&segment(dir, 1)).unwrap();
        expect_repaired(&killed, last, Some(dir));
    }
}
