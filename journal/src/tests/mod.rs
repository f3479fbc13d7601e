//! Tests of the whole journal, on the system's files and on the simulated disk.

mod damage;
mod faults;
mod format;
mod mirrors;
mod model;
mod offline;
mod pair;
mod places;
mod power_loss;
mod sealed;
mod serving;
mod snapshots;
mod waiting;
mod window;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::simulated::SimulatedDisk;
use crate::{AppendOptions, Journal, OpenError, Options, Recovered, Seal, Ticket};

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

fn sealed(options: Options) -> Options {
    Options {
        leaf: Some(leaf),
        ..options
    }
}

fn leaf(payload: &[u8]) -> [u8; 32] {
    let mut leaf = [0; 32];
    leaf[..4].copy_from_slice(&crc32fast::hash(payload).to_be_bytes());
    leaf[4..12].copy_from_slice(&(payload.len() as u64).to_be_bytes());
    leaf
}

/// A seal that names the frames that it stands for.
fn seal_of(first: u64, leaves: &[[u8; 32]]) -> [u8; 32] {
    let mut seal = [0; 32];
    seal[..8].copy_from_slice(&first.to_be_bytes());
    seal[8..16].copy_from_slice(&(leaves.len() as u64).to_be_bytes());
    seal[16..20].copy_from_slice(&crc32fast::hash(&leaves.concat()).to_be_bytes());
    seal
}

/// Seals with [`seal_of`], and checks in which order it is called.
#[derive(Default)]
struct TestSeal {
    next: Option<u64>,
}

impl Seal for TestSeal {
    fn seal(&mut self, first: u64, leaves: &[[u8; 32]]) -> [u8; 32] {
        assert!(self.next.is_none_or(|next| next == first) && !leaves.is_empty());
        self.next = Some(first + leaves.len() as u64);
        seal_of(first, leaves)
    }

    fn committed(&mut self, through: u64) {
        assert_eq!(self.next, Some(through + 1));
    }
}

/// Opens in the first directory; a sealed log gets its seal.
fn open(disk: &SimulatedDisk, options: Options) -> Result<(Journal, Recovered), OpenError> {
    open_in(disk, DIR, options)
}

fn open_in(
    disk: &SimulatedDisk,
    dir: &str,
    options: Options,
) -> Result<(Journal, Recovered), OpenError> {
    let is_sealed = options.leaf.is_some();
    let opened = Journal::open_on(Arc::new(disk.clone()), Path::new(dir), options)?;
    if is_sealed {
        opened.0.set_seal(Box::new(TestSeal::default()));
    }
    Ok(opened)
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
    append_with(journal, count, generation, AppendOptions::default())
}

fn append_with(journal: &Journal, count: u64, generation: u64, how: AppendOptions) -> Ticket {
    let next = journal.next();
    let payloads: Vec<Vec<u8>> = (next..next + count)
        .map(|sequence| payload(sequence, generation))
        .collect();
    let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
    journal.append_with(&payloads, how).unwrap()
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
    check_seals(journal);
}

/// Reads everything with its seals. Each seal must stand for exactly the frames before it, and no frame of a sealed
/// segment may be without one: so no commit is there in part. With the number of seals.
fn check_seals(journal: &Journal) -> u64 {
    let mut frames = journal.read_frames(journal.first()).unwrap();
    let mut seals = 0;
    let (mut segment, mut is_sealed) = (0, false);
    let (mut first, mut leaves) = (journal.first(), Vec::new());
    while let Some(frame) = frames.read_next().unwrap() {
        if frame.position.segment != segment {
            assert!(
                !is_sealed || leaves.is_empty(),
                "a segment ends with a seal"
            );
            (segment, is_sealed) = (frame.position.segment, false);
            first = frame.sequence;
            leaves.clear();
        }
        if frame.is_seal {
            assert_eq!(frame.payload, seal_of(first, &leaves));
            first = frame.sequence + 1;
            leaves.clear();
            seals += 1;
            is_sealed = true;
        } else {
            leaves.push(leaf(frame.payload));
        }
    }
    assert!(!is_sealed || leaves.is_empty(), "the log ends with a seal");
    assert_eq!(first + leaves.len() as u64, journal.durable() + 1);
    seals
}
