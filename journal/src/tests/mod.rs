//! Tests of the whole journal, on the system's files and on the simulated disk.

mod damage;
mod faults;
mod format;
mod mirrors;
mod model;
mod pair;
mod power_loss;
mod serving;
mod snapshots;
mod waiting;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::simulated::SimulatedDisk;
use crate::{Journal, OpenError, Options, Recovered, Ticket};

const DIR: &str = "/log";
const MIRROR: &str = "/mirror";

/// Segments of 2 KiB, so that a few dozen frames roll several times.
fn small() -> Options {
    Options {
        segment_bytes: 2048,
        max_payload_bytes: 512,
        ..Options::default()
    }
}

fn mirrored() -> Options {
    Options {
        mirror: Some(PathBuf::from(MIRROR)),
        ..small()
    }
}

fn open(disk: &SimulatedDisk, options: Options) -> Result<(Journal, Recovered), OpenError> {
    Journal::open_on(Arc::new(disk.clone()), Path::new(DIR), options)
}

/// What the tests append as a sequence's payload; `generation` tells frames apart that got the same sequence.
fn payload(sequence: u64, generation: u64) -> Vec<u8> {
    let length = (sequence * 37 + generation * 11) % 150;
    let mut bytes = format!("{sequence}/{generation} ").into_bytes();
    bytes.extend((0..length).map(|at| (at + sequence) as u8));
    bytes
}

/// Appends `count` frames in one commit, without waiting for it.
fn append(journal: &Journal, count: u64, generation: u64) -> Ticket {
    let next = journal.next();
    let payloads: Vec<Vec<u8>> = (next..next + count)
        .map(|sequence| payload(sequence, generation))
        .collect();
    let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
    journal.append_all(&payloads).unwrap()
}

/// Appends `count` frames in one commit, and waits for it.
fn commit(journal: &Journal, count: u64, generation: u64) -> u64 {
    let ticket = append(journal, count, generation);
    journal.wait_blocking(ticket).unwrap();
    ticket.sequence
}

/// Reads everything; every frame must be one that was written, by one of the generations up to `generation`.
fn check_content(journal: &Journal, generation: u64) {
    let mut expected = journal.first();
    for item in journal.read(expected).unwrap() {
        let (sequence, bytes) = item.unwrap();
        assert_eq!(sequence, expected);
        assert!(
            (0..=generation).any(|generation| bytes == payload(sequence, generation)),
            "frame {sequence} was never written"
        );
        expected += 1;
    }
    assert_eq!(expected, journal.durable() + 1);
}
