use std::{
    sync::{Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use fieldkeep_journal::Options;
use tempfile::TempDir;

use super::*;
use crate::store::{
    Operation,
    sled::{
        frame::{Change, Position},
        index::Update,
    },
};

/// An index and its journal, without the writer's thread.
struct Pair {
    dir: TempDir,
    index: Index,
    journal: Journal,
    /// What the last commit left.
    tip: Mutex<State>,
}

impl Pair {
    fn new() -> Pair {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        fs::create_dir(&path).unwrap();
        let options = Options {
            segment_bytes: 4 << 20,
            ..Options::default()
        };
        Pair {
            index: Index::open(&dir.path().join("sled"), 1 << 20).unwrap(),
            journal: Journal::open(&path, options).unwrap().0,
            tip: Mutex::default(),
            dir,
        }
    }

    fn tip(&self) -> MutexGuard<'_, State> {
        self.tip.lock().unwrap()
    }

    /// Commits as the writer does: append, wait, apply.
    fn commit(&self, changes: &[(String, Option<String>)]) {
        let mut tip = self.tip();
        let mut state = *tip;
        state.revision += 1;
        let mut update = Update::default();
        for (key, value) in changes {
            let key = key.as_bytes();
            if let Some(old) = self.index.stored(key).unwrap() {
                state.remove(key, &old);
            }
            match value {
                Some(value) => {
                    let stored = encode_stored(state.revision, value.as_bytes());
                    state.add(key, &stored);
                    update.put(key, stored);
                }
                None => update.delete(key),
            }
        }
        update.set_state(&state);
        let changes = changes.iter().map(|(key, value)| Change {
            key: key.as_bytes(),
            value: value.as_ref().map(String::as_bytes),
        });
        let body = Body::Transaction {
            operation: Operation::ONCE,
            time: 1,
            changes: changes.collect(),
        };
        let position = Position::default();
        let frame = Frame {
            position,
            state,
            body,
        };
        let ticket = self.journal.append(&frame.encode()).unwrap();
        self.journal.wait_blocking(ticket).unwrap();
        self.index.apply(update).unwrap();
        *tip = state;
    }

    fn fill(&self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            self.commit(&[(format!("k{number:05}"), Some(format!("value {number}")))]);
        }
    }

    fn plan(&self) -> Plan {
        let tip = self.tip();
        Plan {
            start: Start {
                sequence: self.journal.next() - 1,
                revision: tip.revision,
            },
            oldest_kept: 0,
            state: *tip,
            min_free_bytes: 0,
        }
    }

    fn make(&self, plan: &Plan) -> Result<(), Failure> {
        let dirs = ["snapshots", "mirror"].map(|name| self.dir.path().join(name));
        make(
            &dirs,
            &self.index,
            &self.journal,
            plan,
            &AtomicBool::new(false),
        )
    }
}

#[test]
fn a_start_that_is_not_durable_yet_is_no_mismatch() {
    let pair = Pair::new();
    pair.fill(0..50);
    // A mark was appended after the last commit and is still on its way to the disk: nobody waits for marks.
    let mut plan = pair.plan();
    plan.start.sequence += 1;
    assert!(pair.journal.durable() < plan.start.sequence);
    pair.make(&plan).unwrap();
}

#[test]
fn a_damaged_index_is_a_mismatch() {
    let stored = encode_stored(1, b"not the value");
    let damages: [&dyn Fn(&mut Update); 3] = [
        &|update| update.delete(b"k00007"),
        &|update| update.put(b"k00007", stored.clone()),
        &|update| update.put(b"nobody's", stored.clone()),
    ];
    for (number, damage) in damages.iter().enumerate() {
        let pair = Pair::new();
        pair.fill(0..50);
        let mut update = Update::default();
        damage(&mut update);
        let plan = pair.plan();
        pair.index.apply(update).unwrap();
        for tail in [0..0, 50..60] {
            pair.fill(tail);
            let made = pair.make(&plan);
            assert!(matches!(made, Err(Failure::Mismatch)), "{number}: {made:?}");
        }
    }
}

/// sled splits and merges nodes for readers too, so these go on as well.
#[test]
fn snapshots_made_while_commits_and_reads_go_on_are_exact() {
    const STEADY: u32 = 400;
    let pair = Pair::new();
    pair.fill(0..STEADY);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Runs of keys come between the steady ones and go again, so that nodes are split and merged all the time.
            for round in 0_u32.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let at = round.wrapping_mul(7919) % STEADY;
                let value = (round / 7)
                    .is_multiple_of(2)
                    .then(|| format!("round {round}"));
                let changes =
                    (0..60).map(|n| (format!("k{:05}/{}", at + n / 3, n % 3), value.clone()));
                pair.commit(&changes.collect::<Vec<_>>());
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for number in (0..STEADY).step_by(17) {
                    let key = format!("k{number:05}");
                    assert!(pair.index.get(key.as_bytes()).unwrap().is_some(), "{key}");
                }
            }
        });
        let until = Instant::now() + Duration::from_secs(3);
        let made = loop {
            let made = pair.make(&pair.plan());
            if made.is_err() || Instant::now() > until {
                break made;
            }
        };
        stop.store(true, Ordering::Relaxed);
        made.unwrap();
    });
}

#[test]
fn parts_are_read_strictly() {
    let start = Start {
        sequence: 5,
        revision: 6,
    };
    let mut head = vec![HEAD, VERSION];
    head.extend_from_slice(&5_u64.to_be_bytes());
    head.extend_from_slice(&6_u64.to_be_bytes());
    assert_eq!(decode_part(&head), Ok(Part::Head(start)));
    let mut records = vec![RECORDS];
    append_lp(&mut records, b"key");
    append_lp(&mut records, &encode_stored(1, b"value"));
    assert_eq!(
        decode_part(&records),
        Ok(Part::Records(vec![(b"key", &encode_stored(1, b"value"))]))
    );
    for bytes in [head, records] {
        for length in [1, 2, 5, bytes.len() - 1] {
            // A records payload may be empty, but never end inside a record.
            if length == 1 && bytes[0] == RECORDS {
                continue;
            }
            assert!(
                decode_part(&bytes[..length]).is_err(),
                "{length} bytes of {bytes:?}"
            );
        }
    }
    let mut short = vec![RECORDS];
    append_lp(&mut short, b"key");
    append_lp(&mut short, b"7 bytes");
    assert_eq!(decode_part(&short), Err(FrameError::Truncated));
    assert_eq!(decode_part(&[HEAD, 2]), Err(FrameError::UnknownKind(2)));
    assert_eq!(decode_part(&[0x14]), Err(FrameError::UnknownKind(0x14)));
}

#[test]
fn a_file_takes_no_more_than_was_reckoned() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(&dir.path().join("sled"), 1 << 20).unwrap();
    let (mut update, mut state) = (Update::default(), State::default());
    for number in 0..5000_u128 {
        let outcome = Outcome {
            time: 1,
            revision: 1,
            fingerprint: [1; 32],
        };
        update.remember(&number.to_be_bytes(), &outcome);
        let (key, stored) = (number.to_be_bytes(), encode_stored(1, b""));
        state.add(&key, &stored);
        update.put(&key, stored);
    }
    index.apply(update).unwrap();
    let start = Start {
        sequence: 1,
        revision: 1,
    };
    let path = path_of(dir.path(), start);
    journal::write_snapshot(&path, 1, payloads(&index, start, 0)).unwrap();
    let written = fs::metadata(&path).unwrap().len();
    let reckoned = file_bytes(&state, 5000);
    assert!(
        (written..written * 2).contains(&reckoned),
        "{written} {reckoned}"
    );
    assert!(file_bytes(&state, 0) < written, "operation ids count");
}

#[test]
fn a_directory_without_room_is_no_space() {
    let dir = tempfile::tempdir().unwrap();
    let made = make_room(&dir.path().join("snapshots"), u64::MAX);
    assert!(matches!(
        made,
        Err(Failure::File(SnapshotError::NoSpace { .. }))
    ));
    make_room(&dir.path().join("snapshots"), 1).unwrap();
}
