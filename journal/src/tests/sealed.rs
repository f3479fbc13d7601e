//! Logs whose commits end with a seal.

use std::path::{Path, PathBuf};
use std::sync::mpsc;

use super::{
    DIR, MIRROR, TestSeal, append, check_content, check_seals, commit, leaf, mirrored, open,
    payload, seal_of, sealed, small,
};
use crate::frame::SEAL_FRAME_BYTES;
use crate::simulated::SimulatedDisk;
use crate::{AppendError, Disk, Journal, Options, Seal, find_frames, parse_header};

fn segments(disk: &SimulatedDisk, dir: &str) -> Vec<PathBuf> {
    let mut paths = disk.paths();
    paths.retain(|path| path.starts_with(dir) && path.extension().is_some_and(|end| end == "seg"));
    paths
}

#[test]
fn nothing_is_taken_before_the_seal_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), sealed(small())).unwrap();
    assert_eq!(journal.append(b"early"), Err(AppendError::NoSeal));
    assert_eq!(journal.next(), 1);
    journal.set_seal(Box::new(TestSeal::default()));
    commit(&journal, 3, 0);
    assert_eq!(check_seals(&journal), 1);
}

#[test]
fn a_ticket_has_the_leaf_hash_of_the_last_payload() {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, sealed(small())).unwrap();
    let ticket = journal.append(b"one").unwrap();
    assert_eq!((ticket.sequence, ticket.leaf), (1, Some(leaf(b"one"))));
    let ticket = journal.append_all(&[b"two", b"three"]).unwrap();
    assert_eq!((ticket.sequence, ticket.leaf), (3, Some(leaf(b"three"))));
    let (journal, _) = open(&SimulatedDisk::new(), small()).unwrap();
    assert_eq!(journal.append(b"one").unwrap().leaf, None);
}

#[test]
fn one_seal_ends_each_commit_however_many_appends_it_has() {
    let disk = SimulatedDisk::new();
    let options = Options {
        segment_bytes: 1 << 16,
        ..sealed(small())
    };
    let (journal, _) = open(&disk, options).unwrap();
    disk.close_gate();
    append(&journal, 1, 0);
    disk.wait_for_sync_at_gate();
    for count in [1, 3, 2] {
        append(&journal, count, 0);
    }
    disk.open_gate();
    commit(&journal, 1, 0);
    let writes = journal.stats().writes;
    assert!(writes == 2 || writes == 3, "{writes}");
    assert_eq!(check_seals(&journal), writes);
    check_content(&journal, 0);
}

#[test]
fn the_owner_is_told_of_a_commit_before_those_who_wait_for_it() {
    struct Told(TestSeal, mpsc::Sender<u64>);
    impl Seal for Told {
        fn seal(&mut self, first: u64, leaves: &[[u8; 32]]) -> [u8; 32] {
            self.0.seal(first, leaves)
        }
        fn committed(&mut self, through: u64) {
            self.0.committed(through);
            self.1.send(through).unwrap();
        }
    }
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, sealed(small())).unwrap();
    let (sender, told) = mpsc::channel();
    journal.set_seal(Box::new(Told(TestSeal::default(), sender)));
    for count in [1, 4, 2] {
        let last = commit(&journal, count, 0);
        assert_eq!(told.try_recv(), Ok(last));
    }
}

#[test]
fn there_is_room_for_the_seal_at_the_end_of_every_segment() {
    // Payloads of each length, so that the last frame of a segment ends at every place that it can.
    for length in 0..200 {
        let disk = SimulatedDisk::new();
        let (journal, _) = open(&disk, sealed(small())).unwrap();
        let bytes = vec![1; length];
        while journal.stats().segments < 3 {
            journal
                .wait_blocking(journal.append(&bytes).unwrap())
                .unwrap();
        }
        let pair = [bytes.as_slice(), &bytes];
        while journal.stats().segments < 5 {
            journal
                .wait_blocking(journal.append_all(&pair).unwrap())
                .unwrap();
        }
        for path in segments(&disk, DIR) {
            assert_eq!(disk.bytes(&path).len(), 2048, "length {length}");
        }
        check_seals(&journal);
    }
}

#[test]
fn a_payload_that_leaves_no_room_for_its_seal_is_refused() {
    let largest = 2048 - 64 - SEAL_FRAME_BYTES - 36;
    let options = Options {
        max_payload_bytes: largest,
        ..sealed(small())
    };
    let (journal, _) = open(&SimulatedDisk::new(), options.clone()).unwrap();
    let ticket = journal.append(&vec![7; largest]).unwrap();
    journal.wait_blocking(ticket).unwrap();
    assert_eq!(
        journal.append_all(&[&vec![7; largest - 32], b"x"]),
        Err(AppendError::TooLarge)
    );
    let options = Options {
        max_payload_bytes: largest + 8,
        ..options
    };
    assert!(open(&SimulatedDisk::new(), options).is_err());
}

#[test]
fn a_commit_without_its_seal_is_dropped_wholly_and_what_follows_is_sealed() {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, sealed(small())).unwrap();
    commit(&journal, 3, 0);
    let mark = disk.bytes(&Path::new(DIR).join("durable"));
    commit(&journal, 4, 0);
    let left = disk.fork();
    drop(journal);
    left.tamper(&Path::new(DIR).join("durable"), |bytes| *bytes = mark);
    let path = segments(&left, DIR).remove(0);
    let bytes = left.bytes(&path);
    let header = parse_header(&bytes).unwrap();
    let seals: Vec<usize> = find_frames(&header, &bytes)
        .filter(|(_, frame)| frame.is_seal)
        .map(|(at, _)| at)
        .collect();
    left.tamper(&path, |bytes| bytes[seals[1]..].fill(0));
    let (journal, recovered) = open(&left, sealed(small())).unwrap();
    assert_eq!((recovered.next, recovered.torn_frames_dropped), (4, 4));
    assert_eq!(check_seals(&journal), 1);
    commit(&journal, 2, 1);
    check_content(&journal, 1);
    assert_eq!(check_seals(&journal), 2);
}

#[test]
fn seals_survive_reopening_and_a_repair_from_the_mirror() {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, sealed(mirrored())).unwrap();
    while journal.stats().segments < 4 {
        commit(&journal, 2, 0);
    }
    let (last, seals) = (journal.durable(), check_seals(&journal));
    drop(journal);
    for lost in ["0000000000000002.seg", "0000000000000004.seg"] {
        for dir in [DIR, MIRROR] {
            disk.remove(&Path::new(dir).join(lost)).unwrap();
            let (journal, recovered) = open(&disk, sealed(mirrored())).unwrap();
            assert_eq!(recovered.next, last + 1);
            assert_eq!(recovered.repaired, Some(PathBuf::from(dir)));
            assert_eq!(check_seals(&journal), seals);
            journal.verify().unwrap();
        }
    }
}

#[test]
fn a_seal_that_is_damaged_in_both_directories_refuses_the_repair() {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, sealed(mirrored())).unwrap();
    while journal.stats().segments < 4 {
        commit(&journal, 2, 0);
    }
    drop(journal);
    let in_mirror = Path::new(MIRROR).join("0000000000000002.seg");
    let bytes = disk.bytes(&in_mirror);
    let header = parse_header(&bytes).unwrap();
    let (at, _) = find_frames(&header, &bytes)
        .filter(|(_, frame)| frame.is_seal)
        .last()
        .unwrap();
    // The last seal of a segment: every frame is whole, and the next segment follows.
    disk.tamper(&in_mirror, |bytes| bytes[at + 40] ^= 1);
    disk.remove(&Path::new(DIR).join("0000000000000002.seg"))
        .unwrap();
    let refused = open(&disk, sealed(mirrored())).err().unwrap().to_string();
    assert!(
        refused.contains("the seal of frames that were durable is missing or not intact"),
        "{refused}"
    );
}

#[test]
fn a_log_goes_on_with_seals_or_without_in_its_next_segment() {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, small()).unwrap();
    let mut last = commit(&journal, 4, 0);
    let log_id = journal.log_id();
    drop(journal);
    for (number, options) in [(2, sealed(small())), (3, small()), (4, sealed(small()))] {
        // Nothing changes before the first append, however often it is opened.
        for _ in 0..2 {
            let (journal, recovered) = open(&disk, options.clone()).unwrap();
            assert_eq!(
                (recovered.next, journal.stats().segments),
                (last + 1, number - 1)
            );
            check_content(&journal, 0);
        }
        let (journal, _) = open(&disk, options.clone()).unwrap();
        commit(&journal, 2, 0);
        last = commit(&journal, 1, 0);
        assert_eq!(
            (journal.log_id(), journal.stats().segments),
            (log_id, number)
        );
        check_content(&journal, 0);
        drop(journal);
        let path = segments(&disk, DIR).pop().unwrap();
        let header = parse_header(&disk.bytes(&path)).unwrap();
        assert_eq!(header.sealed, options.leaf.is_some());
    }
    // An empty log has no frames that would be without a seal.
    let disk = SimulatedDisk::new();
    drop(open(&disk, small()).unwrap());
    let (journal, _) = open(&disk, sealed(small())).unwrap();
    commit(&journal, 2, 0);
    assert_eq!((journal.stats().segments, check_seals(&journal)), (1, 1));
}

#[test]
fn the_bytes_of_a_seal_are_fixed() {
    let mut bytes = Vec::new();
    crate::frame::push_seal(
        &mut bytes,
        0x0102,
        0x0305,
        &seal_of(5, &[leaf(&payload(5, 0))]),
    );
    crate::frame::stamp_frames(&mut bytes, 0x1122_3344_5566_7788, 0x0304);
    assert_eq!(bytes.len(), SEAL_FRAME_BYTES);
    assert_eq!(bytes[..8], *b"FKJC\0\0\0\x20");
    assert_eq!(bytes[8..16], 0x0102u64.to_be_bytes());
    assert_eq!(bytes[16..24], 0x0305u64.to_be_bytes());
    assert_eq!(bytes[24..32], 0x0304u64.to_be_bytes());
    assert_eq!(bytes[64..68], [0; 4]);
    let mut covered = 0x1122_3344_5566_7788u64.to_be_bytes().to_vec();
    covered.extend_from_slice(&bytes[..68]);
    assert_eq!(bytes[68..], crc32fast::hash(&covered).to_be_bytes());
}
