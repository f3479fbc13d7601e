//! A log with known frames, sealed or not and damaged as the input says, must open with frames that were written, or be
//! refused; so must reading it offline; the parsers must take any bytes at all.

#![no_main]

use std::path::Path;
use std::sync::{Arc, LazyLock};

use fieldkeep_journal::simulated::SimulatedDisk;
use fieldkeep_journal::{
    Journal, LeafHash, Offline, Options, Seal, SegmentHeader, find_frames, parse_header,
};
use libfuzzer_sys::fuzz_target;

const DIR: &str = "/log";

/// Logs of a few segments, without seals and with them, and every payload in them.
static LOGS: LazyLock<[(SimulatedDisk, Vec<Vec<u8>>); 2]> =
    LazyLock::new(|| [false, true].map(make_log));

fn make_log(sealed: bool) -> (SimulatedDisk, Vec<Vec<u8>>) {
    let disk = SimulatedDisk::new();
    let journal = open(&disk, sealed).expect("an empty disk opens");
    let payloads: Vec<Vec<u8>> = (0..24u8).map(|at| vec![at; usize::from(at) * 7]).collect();
    for payload in &payloads {
        let ticket = journal.append(payload).expect("there is space");
        journal.wait_blocking(ticket).expect("the disk works");
    }
    (disk.fork(), payloads)
}

struct Count(u8);

impl Seal for Count {
    fn seal(&mut self, _first: u64, _leaves: &[[u8; 32]]) -> [u8; 32] {
        self.0 += 1;
        [self.0; 32]
    }

    fn committed(&mut self, _through: u64) {}
}

fn leaf(payload: &[u8]) -> [u8; 32] {
    [payload.len() as u8; 32]
}

fn open(disk: &SimulatedDisk, sealed: bool) -> Option<Journal> {
    let options = Options {
        segment_bytes: 1024,
        max_payload_bytes: 512,
        leaf: sealed.then_some(leaf as LeafHash),
        ..Options::default()
    };
    let opened = Journal::open_on(Arc::new(disk.clone()), Path::new(DIR), options);
    let (journal, _) = opened.ok()?;
    journal.set_seal(Box::new(Count(0)));
    Some(journal)
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
        sealed: true,
    };
    find_frames(&any, data).for_each(drop);

    // The first byte chooses the log; then each four bytes change one byte of one file.
    let Some((choice, changes)) = data.split_first() else {
        return;
    };
    let sealed = choice % 2 == 1;
    let (log, payloads) = &LOGS[usize::from(sealed)];
    let disk = log.fork();
    let paths = disk.paths();
    for change in changes.chunks_exact(4).take(64) {
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
    let check = |sequence: u64, payload: &[u8]| {
        assert_eq!(
            payloads.get(sequence as usize - 1).map(Vec::as_slice),
            Some(payload),
            "frame {sequence} was never written"
        );
    };
    if let Ok(mut offline) = Offline::open_on(Arc::new(disk.clone()), Path::new(DIR)) {
        while let Ok(Some(frame)) = offline.read_next() {
            if !frame.is_seal {
                check(frame.sequence, frame.payload);
            }
        }
    }
    let Some(journal) = open(&disk, sealed) else {
        return;
    };
    for (sequence, payload) in journal
        .read(journal.first())
        .into_iter()
        .flatten()
        .flatten()
    {
        check(sequence, &payload);
    }
});
