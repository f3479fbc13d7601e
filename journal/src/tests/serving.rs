//! Appending, committing, reading and reopening on the system's files.

use crate::{Journal, OpenError, Options};

pub(super) fn small() -> Options {
    Options {
        segment_bytes: 4096,
        max_payload_bytes: 1024,
        ..Options::default()
    }
}

fn payload(sequence: u64) -> Vec<u8> {
    format!("payload {sequence} ")
        .into_bytes()
        .repeat(1 + (sequence % 7) as usize)
}

#[test]
fn what_is_committed_is_read_back_and_survives_reopening_across_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = 1;
    for round in 0..3 {
        let (journal, recovered) = Journal::open(dir.path(), small()).unwrap();
        assert_eq!(
            (
                recovered.first,
                recovered.next,
                recovered.torn_frames_dropped
            ),
            (1, expected, 0),
            "round {round}"
        );
        for _ in 0..100 {
            let ticket = journal.append(&payload(expected)).unwrap();
            assert_eq!(ticket.sequence, expected);
            journal.wait_blocking(ticket).unwrap();
            assert_eq!(journal.durable(), expected);
            expected += 1;
        }
        let frames: Vec<_> = journal.read(1).unwrap().map(Result::unwrap).collect();
        assert_eq!(frames.len() as u64, expected - 1);
        assert!(
            frames
                .iter()
                .enumerate()
                .all(|(at, (sequence, bytes))| *sequence == at as u64 + 1
                    && *bytes == payload(*sequence))
        );
        assert_eq!(journal.verify().unwrap().frames, expected - 1);
        assert!(journal.stats().segments > 1 + round);
    }
}

#[test]
fn a_second_handle_on_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), small()).unwrap();
    let refused = Journal::open(dir.path(), small()).err().unwrap();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    assert!(
        refused
            .to_string()
            .contains("in use by another process; stop that one")
    );
    drop(journal);
    Journal::open(dir.path(), small()).unwrap();
}
