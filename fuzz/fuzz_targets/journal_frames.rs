//! A log with known frames, damaged as the input says, must open with frames that were written, or be
//! refused; the parsers must take any bytes at all.

#![no_main]

use std::path::Path;
use std::sync::{Arc, LazyLock};

use fieldkeep_journal::simulated::SimulatedDisk;
use fieldkeep_journal::{Journal, Options, SegmentHeader, find_frames, parse_header};
use libfuzzer_sys::fuzz_target;

const DIR: &str = "/log";

/// A log of a few segments, and every payload in it.
static LOG: LazyLock<(SimulatedDisk, Vec<Vec<u8>>)> = LazyLock::new(|| {
    let disk = SimulatedDisk::new();
    let journal = open(&disk).expect("an empty disk opens");
    let payloads: Vec<Vec<u8>> = (0..24u8).map(|at| vec![at; usize::from(at) * 7]).collect();
    for payload in &payloads {
        let ticket = journal.append(payload).expect("there is space");
        journal.wait_blocking(ticket).expect("the disk works");
    }
    (disk.fork(), payloads)
});

fn open(disk: &SimulatedDisk) -> Option<Journal> {
    let options = Options {
        segment_bytes: 1024,
        max_payload_bytes: 512,
        ..Options::default()
    };
    Journal::open_on(Arc::new(disk.clone()), Path::new(DIR), options)
        .ok()
        .map(|(journal, _)| journal)
}

fuzz_target!(|data: &[u8]| {
    let _ = parse_header(data);
    let any = SegmentHeader {
        id: 1,
        first: 1,
        size: data.len() as u64,
        salt: 0,
        log: [0; 16],
        copies: 1,
    };
    find_frames(&any, data).for_each(drop);

    // Each four bytes change one byte of one file.
    let (log, payloads) = &*LOG;
    let disk = log.fork();
    let paths = disk.paths();
    for change in data.chunks_exact(4).take(64) {
        let &[file, high, low, value] = change else {
            continue;
        };
        disk.tamper(&paths[usize::from(file) % paths.len()], |bytes| {
            let at = usize::from(u16::from_be_bytes([high, low]));
            match bytes.len() {
                length if at < length => bytes[at] = value,
                length => bytes.truncate(length.saturating_sub(usize::from(value))),
            }
        });
    }
    let Some(journal) = open(&disk) else { return };
    for (sequence, payload) in journal
        .read(journal.first())
        .into_iter()
        .flatten()
        .flatten()
    {
        assert_eq!(
            payloads.get(sequence as usize - 1),
            Some(&payload),
            "frame {sequence} was never written"
        );
    }
});
