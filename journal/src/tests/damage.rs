//! Truncation, zeroing and bit flips at every byte of the last 4 KiB of a log with known acknowledgements.

use std::path::{Path, PathBuf};

use super::{DIR, append, check_content, commit, payload, sealed};
use crate::scan::{Outcome, scan};
use crate::simulated::SimulatedDisk;
use crate::{
    DamageCause, Journal, OpenError, Options, ReadError, Recovered, find_frames, parse_header,
};

const SWEPT_BYTES: usize = 4096;

fn options() -> Options {
    Options {
        segment_bytes: 8192,
        max_payload_bytes: 512,
        ..Options::default()
    }
}

fn open(disk: &SimulatedDisk) -> Result<(Journal, Recovered), OpenError> {
    super::open(disk, options())
}

/// The options of a log without seals and of one with seals.
fn both() -> [Options; 2] {
    [options(), sealed(options())]
}

/// A log whose process was killed: several segments, the last with more than 4 KiB of frames.
struct Log {
    disk: SimulatedDisk,
    options: Options,
    /// The last segment, and where its frames end.
    segment: PathBuf,
    end: usize,
    acknowledged: u64,
    written: u64,
    /// First sequence of the last commit.
    last_write: u64,
}

impl Log {
    /// Everything in it is acknowledged, in commits of one to four frames.
    fn acknowledged(options: Options) -> Log {
        let disk = SimulatedDisk::new();
        let (journal, _) = super::open(&disk, options.clone()).unwrap();
        loop {
            let last_write = journal.next();
            let acknowledged = commit(&journal, 1 + last_write % 4, 0);
            let log = Log {
                last_write,
                ..Log::of(&disk, options.clone(), acknowledged, acknowledged)
            };
            if journal.stats().segments == 3 && log.end > SWEPT_BYTES + 600 {
                return Log {
                    disk: disk.fork(),
                    ..log
                };
            }
        }
    }

    /// The last commit, of five frames, was written and not acknowledged.
    fn with_unacknowledged_tail(options: Options) -> Log {
        let log = Log::acknowledged(options);
        let (journal, _) = log.open(&log.disk).unwrap();
        commit(&journal, 1, 0);
        let acknowledged = commit(&journal, 1, 0);
        let mark = log.disk.bytes(&Path::new(DIR).join("durable"));
        let written = commit(&journal, 5, 0);
        let disk = log.disk.fork();
        disk.tamper(&Path::new(DIR).join("durable"), |bytes| *bytes = mark);
        Log::of(&disk, log.options, acknowledged, written)
    }

    fn open(&self, disk: &SimulatedDisk) -> Result<(Journal, Recovered), OpenError> {
        super::open(disk, self.options.clone())
    }

    fn of(disk: &SimulatedDisk, options: Options, acknowledged: u64, written: u64) -> Log {
        let segments = disk
            .paths()
            .into_iter()
            .filter(|path| path.extension().is_some_and(|end| end == "seg"));
        let segment = segments.max().unwrap();
        let bytes = disk.bytes(&segment);
        let end = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| (last + 1).next_multiple_of(8));
        Log {
            disk: disk.clone(),
            options,
            segment,
            end,
            acknowledged,
            written,
            last_write: acknowledged + 1,
        }
    }

    fn swept(&self) -> std::ops::Range<usize> {
        self.end - SWEPT_BYTES..self.end
    }

    /// The sequence of the frame that covers a byte of the last segment.
    fn sequence_at(&self, offset: usize) -> u64 {
        let bytes = self.disk.bytes(&self.segment);
        let header = parse_header(&bytes).unwrap();
        let found = find_frames(&header, &bytes)
            .filter(|(at, _)| *at <= offset)
            .last()
            .map(|(_, frame)| frame.sequence);
        found.unwrap()
    }

    /// Damages a copy. It must open with everything acknowledged and nothing that was not written, or refuse.
    fn check(&self, sequence: u64, what: &str, offset: usize, change: impl FnOnce(&mut Vec<u8>)) {
        let disk = self.disk.fork();
        let before = disk.bytes(&self.segment);
        disk.tamper(&self.segment, change);
        let changed = disk.bytes(&self.segment) != before;
        let outcome = scan(&disk, Path::new(DIR)).unwrap();
        match outcome {
            Outcome::Damaged(damage) => {
                assert!(changed, "{what} at {offset}: refused an intact log");
                if what == "truncated" {
                    assert_eq!(damage.cause, DamageCause::Short);
                } else {
                    assert!(
                        sequence <= self.acknowledged,
                        "{what} at {offset}: refused although nothing acknowledged is lost"
                    );
                }
                assert!(
                    damage.sequence >= sequence && damage.sequence <= self.written + 1,
                    "{what} at {offset}"
                );
            }
            Outcome::Intact(scan) => {
                assert!(
                    !changed || sequence > self.acknowledged,
                    "{what} at {offset}: damage was not seen"
                );
                assert!(
                    scan.next > self.acknowledged && scan.next <= self.written + 1,
                    "{what} at {offset}"
                );
                let (journal, recovered) = self.open(&disk).unwrap();
                assert_eq!(recovered.next, scan.next);
                check_content(&journal, 0);
            }
            Outcome::Empty => panic!("{what} at {offset}: taken for empty"),
        }
    }
}

fn zero(bytes: &mut [u8], from: usize, length: usize) {
    let to = bytes.len().min(from.saturating_add(length));
    bytes[from..to].fill(0);
}

fn sweep(log: &Log) {
    for offset in log.swept() {
        let sequence = log.sequence_at(offset);
        log.check(sequence, "truncated", offset, |bytes| {
            bytes.truncate(offset)
        });
        log.check(sequence, "zeroed one byte", offset, |bytes| {
            zero(bytes, offset, 1)
        });
        log.check(sequence, "zeroed 512 bytes", offset, |bytes| {
            zero(bytes, offset, 512)
        });
        log.check(sequence, "zeroed 4096 bytes", offset, |bytes| {
            zero(bytes, offset, 4096)
        });
        log.check(sequence, "zeroed the rest", offset, |bytes| {
            zero(bytes, offset, usize::MAX)
        });
        for bit in 0..8 {
            log.check(sequence, "flipped", offset, |bytes| {
                bytes[offset] ^= 1 << bit
            });
        }
    }
}

#[test]
fn damage_at_every_byte_of_an_acknowledged_tail_is_seen() {
    for options in both() {
        sweep(&Log::acknowledged(options));
    }
}

#[test]
fn damage_at_every_byte_of_an_unacknowledged_tail_loses_nothing_that_was_acknowledged() {
    for options in both() {
        let log = Log::with_unacknowledged_tail(options);
        assert!(
            log.acknowledged < log.written
                && log.sequence_at(log.swept().start) <= log.acknowledged
        );
        sweep(&log);
    }
}

#[test]
fn the_refusal_names_segment_offset_and_loss_and_changes_nothing() {
    let log = Log::acknowledged(options());
    let offset = log.end - 1;
    log.disk.tamper(&log.segment, |bytes| bytes[offset] ^= 1);
    let before = log.disk.bytes(&log.segment);
    let refused = open(&log.disk).err().unwrap();
    let OpenError::Damaged {
        segment,
        sequence,
        cause,
        lost,
        ..
    } = &refused
    else {
        panic!("{refused}")
    };
    assert_eq!(
        (*segment, *sequence, *cause),
        (3, log.acknowledged, DamageCause::Frame)
    );
    assert_eq!(
        (lost.from, lost.known_through),
        (log.acknowledged, log.acknowledged)
    );
    let told = refused.to_string();
    assert!(
        told.contains("segment 0000000000000003 at byte")
            && told.contains("was acknowledged and is lost; restore"),
        "{told}"
    );
    assert_eq!(log.disk.bytes(&log.segment), before);
}

#[test]
fn damage_to_a_header_or_a_missing_file_is_seen_at_open() {
    let log = Log::acknowledged(options());
    let segment = |id: u64| Path::new(DIR).join(format!("{id:016x}.seg"));
    for id in 1..=3 {
        for offset in 0..64 {
            let disk = log.disk.fork();
            disk.tamper(&segment(id), |bytes| bytes[offset] ^= 0x10);
            let refused = open(&disk).err().unwrap();
            assert!(
                matches!(refused, OpenError::Damaged { segment, .. } if segment == id),
                "{refused}"
            );
        }
        let disk = log.disk.fork();
        disk.tamper(&segment(id), |bytes| bytes.truncate(bytes.len() - 1));
        let refused = open(&disk).err().unwrap();
        assert!(
            matches!(
                refused,
                OpenError::Damaged {
                    cause: DamageCause::Short,
                    ..
                }
            ),
            "{refused}"
        );
    }
    for id in 2..=3 {
        let disk = log.disk.fork();
        crate::Disk::remove(&disk, &segment(id)).unwrap();
        let refused = open(&disk).err().unwrap();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    }
    let disk = log.disk.fork();
    (1..=3).for_each(|id| crate::Disk::remove(&disk, &segment(id)).unwrap());
    let refused = open(&disk).err().unwrap();
    assert!(
        matches!(
            refused,
            OpenError::Damaged {
                cause: DamageCause::Missing,
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn segments_that_were_swapped_or_copied_are_refused() {
    let log = Log::acknowledged(options());
    let segment = |id: u64| Path::new(DIR).join(format!("{id:016x}.seg"));
    let first = log.disk.bytes(&segment(1));
    for (id, bytes) in [(2, first.clone()), (3, first.clone()), (4, first)] {
        let disk = log.disk.fork();
        disk.tamper(&segment(id), |target| *target = bytes);
        assert!(matches!(
            open(&disk),
            Err(OpenError::Damaged {
                cause: DamageCause::OutOfSequence,
                ..
            })
        ));
    }
}

#[test]
fn damage_in_a_full_segment_is_seen_when_it_is_read() {
    for options in both() {
        let log = Log::acknowledged(options);
        let full = Path::new(DIR).join("0000000000000002.seg");
        let bytes = log.disk.bytes(&full);
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        for offset in (64..bytes.len()).step_by(3) {
            let disk = log.disk.fork();
            disk.tamper(&full, |bytes| bytes[offset] ^= 4);
            let (journal, recovered) = log.open(&disk).unwrap();
            assert_eq!(recovered.next, log.acknowledged + 1);
            for (expected, item) in (1..).zip(journal.read(1).unwrap()) {
                match item {
                    Ok((sequence, bytes)) => {
                        assert_eq!((sequence, bytes), (expected, payload(expected, 0)))
                    }
                    Err(error) => assert!(
                        matches!(error, ReadError::Damaged { segment: 2, sequence, .. } if sequence == expected)
                    ),
                }
            }
            assert_eq!(journal.verify().is_ok(), offset > last, "byte {offset}");
        }
    }
}

#[test]
fn an_unreadable_mark_is_replaced_if_the_log_is_whole_and_refused_if_it_is_not() {
    let log = Log::acknowledged(options());
    let mark = Path::new(DIR).join("durable");
    let disk = log.disk.fork();
    // One slot may be lost: the other is older, and the log says the rest.
    disk.tamper(&mark, |bytes| bytes[10] ^= 1);
    let (journal, recovered) = open(&disk.fork()).unwrap();
    assert_eq!(
        (recovered.next, recovered.mark_replaced),
        (log.acknowledged + 1, false)
    );
    drop(journal);
    disk.tamper(&mark, |bytes| bytes.fill(0));
    let (_, recovered) = open(&disk.fork()).unwrap();
    assert_eq!(
        (recovered.next, recovered.mark_replaced),
        (log.acknowledged + 1, true)
    );
    disk.tamper(&log.segment, |bytes| bytes[log.end - 9] ^= 1);
    assert!(matches!(
        open(&disk),
        Err(OpenError::Damaged {
            cause: DamageCause::FrameAndMark,
            ..
        })
    ));
}

#[test]
fn a_payload_that_contains_a_frame_is_not_taken_for_one() {
    // The payload is a frame of this very segment, copied byte for byte but for the salt, which nobody can know.
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk).unwrap();
    let mut forged = Vec::new();
    crate::frame::push_frame(&mut forged, 1, 9, b"planted");
    crate::frame::stamp_frames(&mut forged, 0, 9);
    forged.splice(0..0, [0; 8]);
    journal
        .wait_blocking(journal.append(&forged).unwrap())
        .unwrap();
    append(&journal, 1, 0);
    drop(journal);
    let path = Path::new(DIR).join("0000000000000001.seg");
    let bytes = disk.bytes(&path);
    let header = parse_header(&bytes).unwrap();
    // Even with the first frame's magic gone, so that its payload is searched.
    let searched: Vec<u64> = find_frames(&header, &bytes[72..])
        .map(|(_, frame)| frame.sequence)
        .collect();
    assert_eq!(searched, [2]);
}

#[test]
fn frames_of_later_writes_testify_when_the_mark_is_behind() {
    for options in both() {
        frames_testify_when_the_mark_is_behind(&Log::acknowledged(options));
    }
}

fn frames_testify_when_the_mark_is_behind(log: &Log) {
    // As after a power loss: the mark is an old one.
    let disk = SimulatedDisk::new();
    drop(log.open(&disk).unwrap());
    let old = disk.bytes(&Path::new(DIR).join("durable"));
    log.disk
        .tamper(&Path::new(DIR).join("durable"), |bytes| *bytes = old);
    let bytes = log.disk.bytes(&log.segment);
    let header = parse_header(&bytes).unwrap();
    let frames: Vec<(usize, u64, bool)> = find_frames(&header, &bytes)
        .map(|(at, frame)| (at, frame.sequence, frame.is_seal))
        .collect();
    let last_write = log.last_write;
    for (offset, sequence, is_seal) in frames {
        let disk = log.disk.fork();
        disk.tamper(&log.segment, |bytes| bytes[offset + 33] ^= 1);
        match log.open(&disk) {
            // No one can tell a torn last write from a damaged one then; it may go, and nothing before it.
            Ok((journal, recovered)) => {
                let is_sealed = log.options.leaf.is_some();
                assert_eq!(
                    recovered.next,
                    if is_sealed { last_write } else { sequence }
                );
                assert!(sequence >= last_write && recovered.torn_frames_dropped > 0);
                check_content(&journal, 0);
            }
            Err(OpenError::Damaged { cause, lost, .. }) => {
                assert!(sequence < last_write);
                let expected = if is_seal {
                    DamageCause::Seal
                } else {
                    DamageCause::Frame
                };
                assert_eq!(
                    (cause, lost.from, lost.known_through),
                    (expected, sequence, last_write - 1)
                );
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_rewritten_tail_testifies_for_itself_without_the_mark() {
    for options in both() {
        let log = Log::acknowledged(options);
        drop(log.open(&log.disk).unwrap());
        log.disk
            .tamper(&Path::new(DIR).join("durable"), |bytes| bytes.fill(7));
        for offset in (log.end - 600..log.end).step_by(8) {
            let disk = log.disk.fork();
            disk.tamper(&log.segment, |bytes| zero(bytes, offset, usize::MAX));
            let Err(OpenError::Damaged { lost, .. }) = log.open(&disk) else {
                panic!("zeroed from {offset} on")
            };
            // Where nothing is left of a seal, the next frame is taken for the first that is lost.
            let sequence = log.sequence_at(offset);
            let is_named =
                lost.from == sequence || (log.options.leaf.is_some() && lost.from == sequence + 1);
            assert!(is_named, "zeroed from {offset} on: {lost:?}");
            assert_eq!(lost.known_through, log.acknowledged);
        }
    }
}
