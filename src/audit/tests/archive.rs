//! What happens to records that leave for the archive.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::thread;
use std::time::Duration;

use fieldkeep_audit::archive::{ArchiveStore, write_segment};
use fieldkeep_audit::filter::Filter;
use fieldkeep_audit::query::walk::Walk;
use fieldkeep_tlog::evidence::InclusionProof;
use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::tile::SEGMENT_RECORDS;

use super::*;
use crate::audit::archive::{ArchiveConfig, Archived};
use crate::audit::recover::TREE_DIR;
use crate::audit::verify::{Place, Verified, VerifyError, Wanted, verify};

/// Two whole record segments and a few records.
const COUNT: u64 = 2 * SEGMENT_RECORDS + 100;
const HOUR: Duration = Duration::from_secs(3600);
/// Later than every record by more than an hour.
const LATE_US: u64 = COUNT + 3_600_000_001;

/// A trail with an archive beside it.
struct Kept {
    dir: TempDir,
}

impl Kept {
    fn new() -> Kept {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("archive")).unwrap();
        Kept { dir }
    }

    fn trail(&self) -> PathBuf {
        self.dir.path().join("audit")
    }

    fn archive(&self) -> PathBuf {
        self.dir.path().join("archive")
    }

    fn config(&self) -> ArchiveConfig {
        ArchiveConfig {
            dir: self.archive(),
            after: Some(HOUR),
        }
    }

    fn open(&self) -> Result<AuditLog, AuditError> {
        self.open_with(Some(&self.config()))
    }

    fn open_with(&self, archive: Option<&ArchiveConfig>) -> Result<AuditLog, AuditError> {
        let disk = Arc::new(SystemDisk);
        AuditLog::open_on(disk, &self.trail(), options(), LogKeys::testing, archive)
    }

    /// The trail with its two segments, neither of which left, and both of which may.
    fn filled() -> (Kept, AuditLog) {
        let place = Kept::new();
        let log = place.open().unwrap();
        fill(&log, COUNT - 1);
        let complete = || {
            log.tiles.segments() == 2
                && log.indexer.has(1)
                && log.checkpoint().head.size >= COUNT - 100
        };
        while !complete() {
            thread::sleep(Duration::from_millis(5));
        }
        log.progress.settled.store(COUNT, Ordering::Relaxed);
        (place, log)
    }

    /// The trail after both segments left, closed.
    fn archived() -> (Kept, Vec<Archived>) {
        let (place, log) = Kept::filled();
        let mut archived = Vec::new();
        while let Some(step) = log.archive_next(LATE_US).unwrap() {
            assert!(log.remove_archived(step.kept_from).unwrap() > 0);
            archived.push(step);
        }
        (place, archived)
    }

    fn verify(&self, archive: Option<&Path>) -> Result<Verified, VerifyError> {
        let journal = fieldkeep_journal::Offline::open(&self.trail()).unwrap();
        let keys = LogKeys::testing(LogId::from_bytes(journal.log_id())).unwrap();
        let wanted = Wanted {
            dir: &self.trail(),
            key: keys.signing.verifier_key(),
            checkpoints: &[],
            archive,
            seal: Some(&keys.seal),
        };
        verify(&wanted, &mut |_, _| {})
    }
}

/// All records of a trail, by the number that each has.
fn numbers(log: &AuditLog) -> Result<Vec<u64>, AuditError> {
    log.read_from(0)
        .map(|entry| entry.map(|(_, record)| record.time_us))
        .collect()
}

fn page(log: &AuditLog, before: u64) -> Vec<u64> {
    let page = log.find(&Filter::default(), Some(before), 100).unwrap();
    page.records.iter().map(|(index, _)| *index).collect()
}

#[test]
fn what_left_is_found_and_proven_and_verified_as_before() {
    let (place, log) = Kept::filled();
    let early = log.checkpoint().note;
    let bytes = fs::read_dir(place.trail()).unwrap().count();
    let mut left = Vec::new();
    while let Some(step) = log.archive_next(LATE_US).unwrap() {
        log.remove_archived(step.kept_from).unwrap();
        left.push(step.segment);
    }
    assert_eq!(left, [0, 1]);
    assert!(
        log.journal.first() > SEGMENT_RECORDS,
        "{}",
        log.journal.first()
    );
    assert!(fs::read_dir(place.trail()).unwrap().count() < bytes);
    // It is on record what left.
    let records = log.list(None, 2).unwrap();
    assert!(records.iter().all(|(_, record)| {
        record.rpc == "fieldkeep.internal/ArchiveAudit" && record.detail.contains("kept_from=")
    }));

    let all: Vec<u64> = (0..COUNT).collect();
    assert!(numbers(&log).unwrap()[..COUNT as usize] == all);
    assert_eq!(page(&log, 100), (0..100).rev().collect::<Vec<_>>());
    let border = SEGMENT_RECORDS + 50;
    assert_eq!(
        page(&log, border),
        (border - 100..border).rev().collect::<Vec<_>>()
    );
    let mut walk = Walk::new(Filter::default(), 0, COUNT);
    let (mut walked, mut held) = (Vec::new(), None);
    while !walk.is_over() {
        log.walk(&mut walk, &mut held, 10_000, &mut |index, record| {
            assert!(record == numbered(index).encode_to_vec());
            walked.push(index);
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    assert!(walked == all);
    for index in [0, 7, SEGMENT_RECORDS, COUNT - 1] {
        let leaf = Hash::of_leaf(&numbered(index).encode_to_vec());
        let proof: InclusionProof = log.prove(index, Some(leaf)).unwrap();
        let known = std::slice::from_ref(log.verifier_key());
        assert_eq!(
            proof.verify(leaf, known).unwrap().head(),
            log.checkpoint().head
        );
    }
    log.prove_consistency(&early).unwrap();
    drop(log);

    let without = place.verify(None).unwrap();
    assert!(without.first > SEGMENT_RECORDS && without.records < COUNT);
    let with = place.verify(Some(&place.archive())).unwrap();
    assert_eq!((with.first, with.records), (0, COUNT + 2));
    // After a restart, too.
    let log = place.open().unwrap();
    assert!(numbers(&log).unwrap()[..COUNT as usize] == all);
    assert!(log.archive_next(LATE_US).unwrap().is_none());
}

#[test]
fn nothing_leaves_before_its_time() {
    let (place, log) = Kept::filled();
    // The newest record of the first segment is not an hour old.
    let due_us = SEGMENT_RECORDS - 1 + 3_600_000_000;
    assert_eq!(log.archive_next(due_us - 1).unwrap(), None);
    // Not every operation in it has its outcome.
    log.progress
        .settled
        .store(SEGMENT_RECORDS - 1, Ordering::Relaxed);
    assert_eq!(log.archive_next(due_us).unwrap(), None);
    log.progress.settled.store(COUNT, Ordering::Relaxed);
    let step = log.archive_next(due_us).unwrap().unwrap();
    assert_eq!((step.segment, log.journal.first()), (0, 1));
    log.remove_archived(step.kept_from).unwrap();
    assert_eq!(log.kept_from(), step.kept_from);
    assert_eq!(log.archive_next(due_us).unwrap(), None);
    drop(log);
    let only_read = ArchiveConfig {
        after: None,
        ..place.config()
    };
    let log = place.open_with(Some(&only_read)).unwrap();
    log.progress.settled.store(COUNT, Ordering::Relaxed);
    assert_eq!(log.archive_next(u64::MAX).unwrap(), None);
    assert_eq!(page(&log, 1), [0]);
}

#[test]
fn without_its_archive_nothing_is_removed() {
    let (place, log) = Kept::filled();
    let unmounted = place.dir.path().join("unmounted");
    fs::rename(place.archive(), &unmounted).unwrap();
    let refused = log.archive_next(LATE_US).unwrap_err();
    assert!(matches!(refused, AuditError::Archive(_)), "{refused}");
    assert_eq!(log.journal.first(), 1);
    fs::rename(unmounted, place.archive()).unwrap();
    // Tiles that are not those of the signed records vouch for nothing.
    let others: Vec<Hash> = (0..SEGMENT_RECORDS)
        .map(|n| Hash::of_leaf(&n.to_be_bytes()))
        .collect();
    log.tiles.write(0, &others).unwrap();
    let refused = log.archive_next(LATE_US).unwrap_err();
    assert!(matches!(refused, AuditError::Tree(_)), "{refused}");
    assert_eq!(log.journal.first(), 1);
}

#[test]
fn tiles_of_what_left_are_made_again_from_the_archive() {
    let (place, left) = Kept::archived();
    assert_eq!(left.len(), 2);
    // Without the archive the tiles do, and what is asked for says where it is.
    let log = place.open_with(None).unwrap();
    let asked = numbers(&log).unwrap_err();
    assert!(
        matches!(asked, AuditError::InArchive { index: 0 }),
        "{asked}"
    );
    assert!(asked.to_string().contains("audit.archive_dir"));
    drop(log);
    // One that is changed, and then all of them lost.
    let tiles = place.trail().join(TREE_DIR);
    let first = tiles.join(format!("{:016x}.tiles", 0));
    let good = fs::read(&first).unwrap();
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&first, &changed).unwrap();
    assert!(matches!(place.open_with(None), Err(AuditError::Lost(_))));
    drop(place.open().unwrap());
    assert!(fs::read(&first).unwrap() == good);
    fs::remove_dir_all(&tiles).unwrap();
    assert!(matches!(
        place.open_with(None),
        Err(AuditError::InArchive { index: 0 })
    ));
    let log = place.open().unwrap();
    assert!(fs::read(&first).unwrap() == good);
    log.prove(3, None).unwrap();
}

#[test]
fn an_archive_that_was_changed_is_found_out() {
    let (place, _) = Kept::archived();
    let store = fieldkeep_audit::archive::Directory::new(place.archive());
    // Whole, but with another record.
    let forged: Vec<Vec<u8>> = (0..SEGMENT_RECORDS)
        .map(|n| numbered(if n == 77 { 78 } else { n }).encode_to_vec())
        .collect();
    write_segment(&store, 0, forged.iter().map(Ok::<_, Infallible>)).unwrap();
    let found = place.verify(Some(&place.archive())).unwrap_err();
    assert!(
        matches!(
            found,
            VerifyError::Changed {
                index: 77,
                place: Place::Archive(0)
            }
        ),
        "{found}"
    );
    // Who proves that record proves nothing.
    let log = place.open().unwrap();
    let proof = log.prove(77, None).unwrap();
    let leaf = Hash::of_leaf(proof.extra().unwrap());
    let known = std::slice::from_ref(log.verifier_key());
    assert!(proof.verify(leaf, known).is_err());
    drop(log);
    // Damaged, and missing.
    let file = store.file(0);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let found = place.verify(Some(&place.archive())).unwrap_err();
    assert!(matches!(found, VerifyError::Archive(_)), "{found}");
    fs::remove_file(&file).unwrap();
    let found = place.verify(Some(&place.archive())).unwrap_err();
    assert!(matches!(found, VerifyError::Archive(_)), "{found}");
}

/// An archive that gives back another record than it was given, in a whole file.
struct Lying(fieldkeep_audit::archive::Directory);

impl ArchiveStore for Lying {
    fn put(
        &self,
        segment: u64,
        write: &mut dyn FnMut(&mut dyn io::Write) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        write(&mut io::sink())?;
        let first = segment * SEGMENT_RECORDS;
        let others = (first..first + SEGMENT_RECORDS)
            .map(|n| numbered(if n == first + 77 { n + 1 } else { n }).encode_to_vec())
            .map(Ok::<_, Infallible>);
        write_segment(&self.0, segment, others).map(drop)
    }

    fn get(&self, segment: u64) -> Result<Box<dyn io::Read + Send>, ArchiveError> {
        self.0.get(segment)
    }

    fn list(&self) -> Result<Vec<u64>, ArchiveError> {
        self.0.list()
    }
}

#[test]
fn what_is_read_back_otherwise_does_not_leave() {
    let (place, mut log) = Kept::filled();
    let below = fieldkeep_audit::archive::Directory::new(place.archive());
    log.archive.as_mut().unwrap().store = Arc::new(Lying(below));
    let refused = log.archive_next(LATE_US).unwrap_err();
    assert!(
        matches!(
            refused,
            AuditError::Archive(ArchiveError::OtherRecord { index: 77 })
        ),
        "{refused}"
    );
    assert!(log.list(None, 1).unwrap()[0].1.detail.is_empty());
}
