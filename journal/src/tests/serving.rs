//! Appending, committing, reading, pruning and reopening.

use std::path::Path;
use std::time::Duration;

use super::{append, check_content, commit, open, payload, small};
use crate::simulated::SimulatedDisk;
use crate::{AppendError, Journal, OpenError, Options, ReadError, Recovered};

#[test]
fn what_is_committed_survives_reopening_on_the_systems_disk() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("deep/log");
    let mut last = 0;
    for round in 0..3 {
        let (journal, recovered) = Journal::open(&log, small()).unwrap();
        let expected = Recovered {
            first: 1,
            next: last + 1,
            torn_frames_dropped: 0,
            repaired: None,
            mark_replaced: false,
        };
        assert_eq!(recovered, expected, "round {round}");
        for count in [1, 2, 1, 3, 1, 1, 8] {
            last = commit(&journal, count, 0);
            assert_eq!(journal.durable(), last);
        }
        check_content(&journal, 0);
        assert_eq!(journal.verify().unwrap().frames, last);
        assert!(journal.stats().segments > 1 + round);
    }
}

#[test]
fn a_second_handle_on_the_directory_is_refused_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), small()).unwrap();
    let refused = Journal::open(dir.path(), small()).err().unwrap();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    assert!(
        refused
            .to_string()
            .contains("is in use by another process; stop that one first")
    );
    drop(journal);
    Journal::open(dir.path(), small()).unwrap();
}

#[test]
fn dropping_the_last_handle_writes_what_nobody_waited_for() {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, small()).unwrap();
    append(&journal, 5, 0);
    drop(journal);
    let (journal, recovered) = open(&disk, small()).unwrap();
    assert_eq!(recovered.next, 6);
    check_content(&journal, 0);
}

#[test]
fn frames_that_come_while_a_sync_runs_share_the_next_one() {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(
        &disk,
        Options {
            segment_bytes: 1 << 16,
            ..small()
        },
    )
    .unwrap();
    disk.close_gate();
    let first = append(&journal, 1, 0);
    disk.wait_for_sync_at_gate();
    for _ in 0..100 {
        append(&journal, 1, 0);
    }
    assert_eq!(journal.durable(), 0, "nothing is durable before its sync");
    assert_eq!(journal.read(1).unwrap().count(), 0, "nor can it be read");
    disk.open_gate();
    journal.wait_blocking(first).unwrap();
    let last = append(&journal, 1, 0);
    journal.wait_blocking(last).unwrap();
    let stats = journal.stats();
    assert!(stats.syncs <= 3 && stats.largest_group >= 100, "{stats:?}");
    assert_eq!(stats.frames, 102);
    check_content(&journal, 0);
}

#[test]
fn limits_are_refused_and_leave_the_journal_as_it_was() {
    let disk = SimulatedDisk::new();
    let options = Options {
        max_pending_bytes: 1024,
        ..small()
    };
    let (journal, _) = open(&disk, options).unwrap();
    assert_eq!(journal.append(&[0; 513]), Err(AppendError::TooLarge));
    assert_eq!(
        journal.append_all(&[&[0; 512][..]; 4]),
        Err(AppendError::TooLarge)
    );
    assert_eq!(journal.append_all(&[]).unwrap().sequence, 0);
    disk.close_gate();
    append(&journal, 1, 0);
    disk.wait_for_sync_at_gate();
    let refused = (0..100).find_map(|_| journal.append(&[1; 200]).err());
    assert_eq!(refused, Some(AppendError::Busy));
    let next = journal.next();
    disk.open_gate();
    drop(journal);
    let (journal, recovered) = open(&disk, small()).unwrap();
    assert_eq!(
        recovered.next, next,
        "what was accepted is there, what was refused is not"
    );
    assert_eq!(journal.read_one(2).unwrap().unwrap(), [1; 200]);
}

#[test]
fn contradictory_options_are_refused() {
    let disk = SimulatedDisk::new();
    for options in [
        Options {
            segment_bytes: 256,
            ..small()
        },
        Options {
            segment_bytes: 2044,
            ..small()
        },
    ] {
        assert!(matches!(
            open(&disk, options),
            Err(OpenError::Options { .. })
        ));
    }
    assert!(disk.paths().is_empty());
}

#[test]
fn single_frames_and_ranges_are_found_in_any_segment() {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, small()).unwrap();
    while journal.stats().segments < 6 {
        commit(&journal, 3, 0);
    }
    let last = journal.durable();
    for sequence in 1..=last {
        assert_eq!(
            journal.read_one(sequence).unwrap().unwrap(),
            payload(sequence, 0)
        );
        let range = journal.read_range(sequence, 7).unwrap();
        let expected: Vec<(u64, Vec<u8>)> = (sequence..=last.min(sequence + 6))
            .map(|at| (at, payload(at, 0)))
            .collect();
        assert_eq!(range, expected);
    }
    assert_eq!(journal.read_one(last + 1).unwrap(), None);
    assert_eq!(journal.read_range(last + 1, 9).unwrap(), []);
    assert_eq!(journal.read_range(1, 0).unwrap(), []);
    assert!(matches!(
        journal.read_one(0),
        Err(ReadError::Pruned {
            sequence: 0,
            first: 1
        })
    ));
}

#[test]
fn pruning_removes_whole_segments_only_and_survives_reopening() {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, small()).unwrap();
    while journal.stats().segments < 6 {
        commit(&journal, 1, 0);
    }
    let last = journal.durable();
    assert_eq!(journal.prune_before(1).unwrap(), 0);
    let foretold = journal.first_after_prune_before(last / 2);
    assert!(journal.prune_before(last / 2).unwrap() > 0);
    assert_eq!(journal.first(), foretold);
    assert_eq!(journal.first_after_prune_before(1), foretold);
    let first = journal.first();
    assert!(1 < first && first <= last / 2);
    assert!(matches!(
        journal.read(first - 1),
        Err(ReadError::Pruned { .. })
    ));
    check_content(&journal, 0);
    assert!(journal.prune_before(u64::MAX).unwrap() > 0);
    assert_eq!(journal.stats().segments, 1, "the one being written stays");
    let first = journal.first();
    drop(journal);
    let (journal, recovered) = open(&disk, small()).unwrap();
    assert_eq!((recovered.first, recovered.next), (first, last + 1));
    check_content(&journal, 0);
}

#[test]
fn segments_of_another_size_are_taken_over() {
    let disk = SimulatedDisk::new();
    let sizes = [4096, 1024, 640, 8192];
    let mut last = 0;
    for segment_bytes in sizes {
        let (journal, recovered) = open(
            &disk,
            Options {
                segment_bytes,
                ..small()
            },
        )
        .unwrap();
        assert_eq!(recovered.next, last + 1);
        for _ in 0..20 {
            last = commit(&journal, 1, 0);
        }
        check_content(&journal, 0);
    }
}

#[test]
fn leftovers_are_removed_and_foreign_files_left_alone() {
    let disk = SimulatedDisk::new();
    for name in [
        "0000000000000009.seg.tmp",
        "durable.tmp",
        "notes.txt",
        "9.seg",
    ] {
        disk.tamper(&Path::new(super::DIR).join(name), |bytes| bytes.push(1));
    }
    drop(open(&disk, small()).unwrap());
    drop(open(&disk, small()).unwrap());
    let mut names: Vec<_> = disk
        .paths()
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["0000000000000001.seg", "9.seg", "durable", "notes.txt"]
    );
}

#[test]
fn a_single_caller_is_never_kept_waiting() {
    // With this spacing the test would hang if a single caller were spaced at all.
    let disk = SimulatedDisk::new();
    let (journal, _) = open(
        &disk,
        Options {
            sync_spacing: Duration::from_secs(3600),
            ..small()
        },
    )
    .unwrap();
    for _ in 0..50 {
        commit(&journal, 1, 0);
    }
    assert_eq!(journal.stats().syncs, 50);
}
