//! Reading with places: every frame is found again at its own, and nowhere else.

use std::path::Path;

use super::{DIR, MIRROR, commit, mirrored, open, payload, sealed, small};
use crate::simulated::SimulatedDisk;
use crate::{Disk, Journal, Options, Position, ReadError};

fn log(options: Options) -> (SimulatedDisk, Journal) {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, options).unwrap();
    while journal.stats().segments < 5 {
        commit(&journal, 3, 0);
    }
    (disk, journal)
}

/// The sequence and place of each frame, and whether it is a seal.
fn places(journal: &Journal, from: u64) -> Vec<(u64, Position, bool)> {
    let mut frames = journal.read_frames(from).unwrap();
    let mut places = Vec::new();
    while let Some(frame) = frames.read_next().unwrap() {
        if !frame.is_seal {
            assert_eq!(frame.payload, payload(frame.sequence, 0));
        }
        places.push((frame.sequence, frame.position, frame.is_seal));
    }
    places
}

#[test]
fn frames_and_seals_come_in_order_from_any_sequence_on() {
    for options in [small(), sealed(small())] {
        let is_sealed = options.leaf.is_some();
        let (_, journal) = log(options);
        let all = places(&journal, 1);
        let seals = all.iter().filter(|(.., is_seal)| *is_seal).count();
        assert_eq!(
            seals as u64,
            if is_sealed { journal.stats().writes } else { 0 }
        );
        assert!(
            all.windows(2)
                .all(|two| (two[0].0, two[0].2) < (two[1].0, two[1].2))
        );
        for from in 1..=journal.durable() {
            let expected: Vec<_> = all.iter().filter(|(at, ..)| *at >= from).copied().collect();
            assert_eq!(places(&journal, from), expected);
        }
        assert_eq!(places(&journal, journal.next()), []);
        assert_eq!(places(&journal, u64::MAX), []);
    }
}

#[test]
fn reading_begins_at_a_place_and_refuses_a_wrong_one() {
    for options in [small(), sealed(small())] {
        let (disk, journal) = log(options.clone());
        let all = places(&journal, 1);
        drop(journal);
        // A restart rewrites the last segment and moves nothing.
        let (journal, _) = open(&disk, options).unwrap();
        for (at, (sequence, position, is_seal)) in all.iter().enumerate() {
            if *is_seal {
                continue;
            }
            let mut frames = journal.read_frames_at(*sequence, *position).unwrap();
            let mut rest = Vec::new();
            while let Some(frame) = frames.read_next().unwrap() {
                rest.push((frame.sequence, frame.position, frame.is_seal));
            }
            assert_eq!(rest, all[at..]);
        }
        // Of one frame, all other places that there are.
        let sequence = journal.durable() / 2;
        let right = all.iter().find(|place| place.0 == sequence).unwrap().1;
        let offsets = (0..2100).chain([u64::MAX, u64::MAX - 7, 1 << 62]);
        for offset in offsets {
            for segment in [0, right.segment - 1, right.segment, right.segment + 1, 99] {
                let position = Position { segment, offset };
                let read = journal.read_frames_at(sequence, position);
                if position == right {
                    assert!(read.is_ok());
                    continue;
                }
                assert!(
                    matches!(read, Err(ReadError::WrongPosition { sequence: of, .. }) if of == sequence),
                    "{position:?}"
                );
            }
        }
        assert!(matches!(
            journal.read_frames_at(0, right),
            Err(ReadError::Pruned { .. })
        ));
    }
}

#[test]
fn a_reader_with_places_turns_to_the_mirror_at_a_damaged_seal() {
    let (disk, journal) = log(sealed(mirrored()));
    let all = places(&journal, 1);
    let damaged: Vec<Position> = all
        .iter()
        .filter(|(_, position, is_seal)| *is_seal && position.segment == 2)
        .map(|(_, position, _)| *position)
        .collect();
    for at in damaged {
        let path = Path::new(DIR).join("0000000000000002.seg");
        let offset = at.offset as usize + 40;
        disk.tamper(&path, |bytes| bytes[offset] ^= 1);
        assert_eq!(places(&journal, 1), all);
        disk.tamper(&path, |bytes| bytes[offset] ^= 1);
    }
    assert!(journal.stats().mirror_reads > 0);
    disk.remove(&Path::new(MIRROR).join("0000000000000002.seg"))
        .unwrap();
    assert_eq!(places(&journal, 1), all);
}
