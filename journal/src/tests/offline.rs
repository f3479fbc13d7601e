//! Directories that are read without being opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DIR, append_with, commit, leaf, open, payload, seal_of, sealed, small};
use crate::simulated::SimulatedDisk;
use crate::{AppendOptions, DamageCause, Disk, Journal, Offline, OfflineError, Options, Position};

fn both() -> [Options; 2] {
    [small(), sealed(small())]
}

/// A log of five segments, closed.
fn log(options: Options) -> (SimulatedDisk, u64) {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, options).unwrap();
    let mut last = 0;
    while journal.stats().segments < 5 {
        last = commit(&journal, 1 + last % 3, 0);
    }
    commit(&journal, 2, 0);
    last = commit(&journal, 2, 0);
    drop(journal);
    (disk, last)
}

/// What was read, with the place where it begins, and how it ended.
type Frames = Vec<(u64, Position, bool)>;

fn read(disk: &SimulatedDisk) -> (Frames, Result<(), OfflineError>) {
    let mut frames = Vec::new();
    let ended = Offline::open_on(Arc::new(disk.clone()), Path::new(DIR)).and_then(|mut offline| {
        let (mut first, mut leaves) = (offline.first(), Vec::new());
        while let Some(frame) = offline.read_next()? {
            if frame.is_seal {
                assert_eq!(frame.payload, seal_of(first, &leaves));
                (first, leaves) = (frame.sequence + 1, Vec::new());
            } else {
                assert_eq!(frame.payload, payload(frame.sequence, 0));
                leaves.push(leaf(frame.payload));
            }
            frames.push((frame.sequence, frame.position, frame.is_seal));
        }
        assert!(offline.read_next()?.is_none());
        Ok(())
    });
    (frames, ended)
}

fn segment(id: u64) -> PathBuf {
    Path::new(DIR).join(format!("{id:016x}.seg"))
}

/// Reads, expects a defect, and gives its segment, offset, sequence and cause.
fn defect(disk: &SimulatedDisk) -> (u64, u64, u64, DamageCause) {
    match read(disk).1 {
        Err(OfflineError::Damaged {
            segment,
            offset,
            sequence,
            cause,
            ..
        }) => (segment, offset, sequence, cause),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_log_is_read_with_its_places_and_nothing_is_changed() {
    for options in both() {
        let (disk, last) = log(options.clone());
        let before = disk.fork();
        disk.record();
        let (frames, ended) = read(&disk);
        ended.unwrap();
        assert!(disk.recorded().is_empty());
        assert_eq!(disk.paths(), before.paths());
        let (journal, _) = open(&disk, options).unwrap();
        let mut expected = Vec::new();
        let mut online = journal.read_frames(1).unwrap();
        while let Some(frame) = online.read_next().unwrap() {
            expected.push((frame.sequence, frame.position, frame.is_seal));
        }
        assert_eq!(frames, expected);
        assert_eq!(frames.iter().filter(|frame| !frame.2).count() as u64, last);

        journal.prune_before(last / 2).unwrap();
        let first = journal.first();
        let (frames, ended) = read(&disk);
        ended.unwrap();
        assert_eq!(frames[0].0, first);
        let offline = Offline::open_on(Arc::new(disk.clone()), Path::new(DIR)).unwrap();
        assert_eq!(
            (offline.log_id(), offline.first(), offline.durable()),
            (journal.log_id(), first, last)
        );
    }
}

#[test]
fn a_log_is_read_from_a_segment_on_whatever_is_wrong_before_it() {
    for options in both() {
        let (disk, last) = log(options);
        let (frames, _) = read(&disk);
        let first_of = |id: u64| frames.iter().find(|frame| frame.1.segment == id).unwrap().0;
        let from = |disk: &SimulatedDisk, id| {
            Offline::open_from_on(Arc::new(disk.clone()), Path::new(DIR), id)
        };
        let damaged = disk.fork();
        damaged.tamper(&segment(2), |bytes| bytes[100] ^= 1);
        for (asked, begins) in [(0, 1), (1, 1), (3, 3), (5, 5), (u64::MAX, 5)] {
            let mut offline = from(&damaged, asked).unwrap();
            assert_eq!(
                (offline.segment(), offline.first()),
                (Some(begins), first_of(begins))
            );
            if begins == 1 {
                continue;
            }
            let mut read = 0;
            while let Some(frame) = offline.read_next().unwrap() {
                read = frame.sequence;
            }
            assert_eq!((read, offline.segment()), (last, None));
        }
        // Of a segment that is missing, the one before is where the gap shows.
        damaged.remove(&segment(3)).unwrap();
        assert_eq!(from(&damaged, 3).unwrap().segment(), Some(2));
        let pruned = disk.fork();
        pruned.remove(&segment(1)).unwrap();
        assert_eq!(from(&pruned, 1).unwrap().segment(), Some(2));
    }
}

#[test]
fn a_directory_of_the_system_is_read_while_a_journal_has_it_open() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        Offline::open(dir.path()),
        Err(OfflineError::Absent { .. })
    ));
    let options = Options {
        segment_bytes: 4 << 20,
        ..sealed(small())
    };
    let (journal, _) = Journal::open(dir.path(), options).unwrap();
    journal.set_seal(Box::new(super::TestSeal::default()));
    // More than one read's worth.
    while journal.next() < 12_000 {
        let bytes: Vec<Vec<u8>> = (0..100).map(|at| vec![at; 200 + usize::from(at)]).collect();
        let bytes: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
        let ticket = journal.append_all(&bytes).unwrap();
        journal.wait_blocking(ticket).unwrap();
    }
    let mut offline = Offline::open(dir.path()).unwrap();
    let mut next = 1;
    while let Some(frame) = offline.read_next().unwrap() {
        if !frame.is_seal {
            assert_eq!(frame.sequence, next);
            let at = ((next - 1) % 100) as u8;
            assert_eq!(frame.payload, vec![at; 200 + usize::from(at)]);
            next += 1;
        }
    }
    assert_eq!(next, journal.durable() + 1);
}

#[test]
fn every_changed_byte_is_found_and_located() {
    for options in both() {
        let (disk, last) = log(options);
        let (frames, _) = read(&disk);
        for id in 1..=5 {
            let bytes = disk.bytes(&segment(id));
            for offset in 0..bytes.len() {
                let damaged = disk.fork();
                damaged.tamper(&segment(id), |bytes| bytes[offset] ^= 0x10);
                let (at_segment, at_offset, sequence, cause) = defect(&damaged);
                let hit = frames
                    .iter()
                    .rfind(|(_, place, _)| place.segment == id && place.offset <= offset as u64);
                assert_eq!(at_segment, id, "byte {offset}");
                if offset < 64 {
                    assert!(matches!(cause, DamageCause::Header(_)), "{cause}");
                    continue;
                }
                let (hit_sequence, place, is_seal) = *hit.unwrap();
                let end = frames.iter().find(|(_, after, _)| {
                    after.segment > id || (after.segment == id && after.offset > place.offset)
                });
                let is_last = end.is_none_or(|(_, after, _)| after.segment > id);
                if cause == DamageCause::Unused || cause == DamageCause::Torn {
                    assert!(is_last && at_offset > place.offset && sequence == hit_sequence + 1);
                    assert_eq!(cause == DamageCause::Torn, id == 5);
                    continue;
                }
                assert_eq!(at_offset, place.offset, "byte {offset} of segment {id}");
                if is_seal && is_last {
                    assert_eq!((sequence, cause), (hit_sequence, DamageCause::Seal));
                } else if !is_seal {
                    assert_eq!((sequence, cause), (hit_sequence, DamageCause::Frame));
                }
                let named = hit_sequence..=hit_sequence + u64::from(is_seal);
                assert!(
                    named.contains(&sequence) && sequence <= last + 1,
                    "byte {offset}"
                );
            }
        }
    }
}

#[test]
fn missing_swapped_shortened_and_newer_segments_are_named() {
    for options in both() {
        let (disk, last) = log(options);
        let (frames, _) = read(&disk);
        let first_of = |id: u64| frames.iter().find(|frame| frame.1.segment == id).unwrap().0;
        let damaged = disk.fork();
        damaged.remove(&segment(3)).unwrap();
        assert_eq!(defect(&damaged), (3, 0, first_of(3), DamageCause::Missing));
        // The last one: what the mark says is not there.
        let damaged = disk.fork();
        damaged.remove(&segment(5)).unwrap();
        let (at, _, sequence, cause) = defect(&damaged);
        assert_eq!((at, sequence, cause), (4, first_of(5), DamageCause::Frame));

        let damaged = disk.fork();
        let (two, three) = (disk.bytes(&segment(2)), disk.bytes(&segment(3)));
        damaged.tamper(&segment(2), |bytes| *bytes = three);
        damaged.tamper(&segment(3), |bytes| *bytes = two);
        let (at, offset, sequence, cause) = defect(&damaged);
        assert_eq!(
            (at, offset, sequence, cause),
            (2, 0, first_of(2), DamageCause::OutOfSequence)
        );

        for (id, length) in [(2, 500), (2, 2047), (5, 300), (5, 2047)] {
            let damaged = disk.fork();
            damaged.tamper(&segment(id), |bytes| bytes.truncate(length));
            let (at, offset, sequence, cause) = defect(&damaged);
            assert_eq!((at, cause), (id, DamageCause::Short));
            assert!(offset <= length as u64 && (first_of(id)..=last + 1).contains(&sequence));
        }
        let damaged = disk.fork();
        damaged.tamper(&segment(1), |bytes| {
            bytes[7] = 9;
            let crc = crc32fast::hash(&bytes[..60]).to_be_bytes();
            bytes[60..64].copy_from_slice(&crc);
        });
        assert!(matches!(
            read(&damaged).1,
            Err(OfflineError::Version { version: 9, .. })
        ));
    }
}

#[test]
fn a_lost_tail_is_seen_by_the_mark_and_a_torn_one_is_told_from_it() {
    for options in both() {
        let disk = SimulatedDisk::new();
        let (journal, _) = open(&disk, options.clone()).unwrap();
        let durable = commit(&journal, 3, 0);
        let mark = disk.bytes(&Path::new(DIR).join("durable"));
        commit(&journal, 2, 0);
        let whole = disk.fork();
        let (frames, _) = read(&whole);
        let last_payload = frames.iter().rfind(|frame| !frame.2).unwrap().1;
        let cut = |disk: &SimulatedDisk| {
            disk.tamper(&segment(1), |bytes| {
                bytes[last_payload.offset as usize + 33..].fill(0)
            });
        };
        cut(&whole);
        let (_, offset, sequence, cause) = defect(&whole);
        assert_eq!(
            (offset, sequence, cause),
            (last_payload.offset, durable + 2, DamageCause::Frame)
        );
        // The same, had it not been acknowledged.
        whole.tamper(&Path::new(DIR).join("durable"), |bytes| *bytes = mark);
        let (_, _, sequence, cause) = defect(&whole);
        let is_sealed = options.leaf.is_some();
        let kept = if is_sealed { durable } else { durable + 1 };
        assert_eq!((sequence, cause), (kept + 1, DamageCause::Torn));
        let (_, recovered) = open(&whole, options).unwrap();
        assert_eq!(recovered.next, kept + 1);
    }
}

#[test]
fn what_is_only_written_is_read_offline_and_not_by_the_journal() {
    let disk = SimulatedDisk::new();
    let options = Options {
        window: std::time::Duration::from_millis(100),
        ..sealed(small())
    };
    let (journal, _) = open(&disk, options).unwrap();
    commit(&journal, 1, 0);
    disk.close_gate();
    let relaxed = AppendOptions {
        relaxed: true,
        ..AppendOptions::default()
    };
    let ticket = append_with(&journal, 2, 0, relaxed);
    journal.wait_written_blocking(ticket).unwrap();
    assert_eq!(journal.read(1).unwrap().count(), 1);
    let (frames, ended) = read(&disk);
    ended.unwrap();
    assert_eq!(frames.last().map(|frame| frame.0), Some(ticket.sequence));
    disk.open_gate();
}
