//! What somebody who has the disk cannot do without being found out.

use std::fs;
use std::path::Path;

use crc32fast::Hasher;
use fieldkeep_crypto::keys::RecordKey;
use fieldkeep_journal::{Journal, parse_frame, parse_header};
use fieldkeep_tlog::checkpoint::Checkpoint;
use fieldkeep_tlog::key::SEED_BYTES;
use fieldkeep_tlog::tree::Tree;

use super::*;
use crate::audit::checkpoint::CHECKPOINT_FILE;
use crate::audit::kept::FoundIn;
use crate::audit::verify::{Verified, VerifyError, Wanted, verify};

/// Keys that the store has, so that the log has a checkpoint.
pub(super) fn stored(log: LogId) -> Result<LogKeys, LogKeysError> {
    with_seal(5)(log)
}

/// The same, with a seal key of somebody else unless `seal` is 5.
fn with_seal(seal: u8) -> impl FnOnce(LogId) -> Result<LogKeys, LogKeysError> {
    move |log| {
        let key = RecordKey::dangerous_from_bytes(&[seal; 32]).derive_audit_seal_key();
        LogKeys::of(key, log, &[6; SEED_BYTES], 0)
    }
}

pub(super) fn audit_dir(dir: &TempDir) -> PathBuf {
    dir.path().join("audit")
}

pub(super) fn open_stored(dir: &TempDir) -> Result<AuditLog, AuditError> {
    AuditLog::open_on(
        Arc::new(SystemDisk),
        &audit_dir(dir),
        options(),
        stored,
        None,
    )
}

pub(super) fn loss(opened: Result<AuditLog, AuditError>) -> LossError {
    match opened {
        Err(AuditError::Lost(lost)) => lost,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it was opened"),
    }
}

/// A closed trail of `count` records, each a commit.
pub(super) fn trail(count: u64) -> TempDir {
    let dir = TempDir::new().unwrap();
    more(&dir, count);
    dir
}

pub(super) fn more(dir: &TempDir, count: u64) {
    let log = open(dir);
    for number in 0..count {
        log.append_blocking(&numbered(number)).unwrap();
    }
}

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A copy of the trail.
pub(super) fn copied(dir: &TempDir) -> TempDir {
    let to = TempDir::new().unwrap();
    copy(&audit_dir(dir), &audit_dir(&to));
    to
}

/// Puts the records of `from` in the place of those of `to`, whose checkpoint stays.
fn replace_records(from: &TempDir, to: &TempDir) {
    let kept = fs::read(audit_dir(to).join(CHECKPOINT_FILE)).unwrap();
    fs::remove_dir_all(audit_dir(to)).unwrap();
    copy(&audit_dir(from), &audit_dir(to));
    fs::write(audit_dir(to).join(CHECKPOINT_FILE), kept).unwrap();
}

/// Changes the version of the key in record `index`, so that no checksum tells.
pub(super) fn change(dir: &TempDir, index: u64) {
    rewrite(dir, index, |record| *record.last_mut().unwrap() ^= 2);
}

/// Has `rewrite` change record `index`, so that no checksum tells.
fn rewrite(dir: &TempDir, index: u64, rewrite: impl FnOnce(&mut [u8])) {
    for entry in fs::read_dir(audit_dir(dir)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let mut bytes = fs::read(&path).unwrap();
        let header = parse_header(&bytes).unwrap();
        let mut at = 64;
        let mut found = None;
        // Frames of records and of seals have lengths of the same kind; seals are stepped over.
        while at + 8 < bytes.len() && bytes[at..].starts_with(b"FKJ") {
            let length = u32::from_be_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
            let frame_bytes = (32 + length + 4).next_multiple_of(8);
            if let Some(frame) = parse_frame(&header, &bytes[at..])
                && frame.sequence == index + 1
                && bytes[at..].starts_with(b"FKJF")
            {
                found = Some((at, frame_bytes, length));
            }
            at += frame_bytes;
        }
        if let Some((at, frame_bytes, length)) = found {
            rewrite(&mut bytes[at + 32..at + 32 + length]);
            let mut crc = Hasher::new();
            crc.update(&header.salt.to_be_bytes());
            crc.update(&bytes[at..at + frame_bytes - 4]);
            bytes[at + frame_bytes - 4..at + frame_bytes]
                .copy_from_slice(&crc.finalize().to_be_bytes());
            fs::write(&path, bytes).unwrap();
            return;
        }
    }
    panic!("there is no record {index}");
}

pub(super) fn verified(dir: &TempDir, notes: &[String]) -> Result<Verified, VerifyError> {
    let key = key_of(dir);
    let seal = RecordKey::dangerous_from_bytes(&[5; 32]).derive_audit_seal_key();
    let wanted = Wanted {
        dir: &audit_dir(dir),
        key: &key,
        checkpoints: notes,
        archive: None,
        seal: Some(&seal),
    };
    verify(&wanted, &mut |_, _| {})
}

pub(super) fn key_of(dir: &TempDir) -> VerifierKey {
    let bytes = fs::read(audit_dir(dir).join(CHECKPOINT_FILE)).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let id = text.lines().next().unwrap().rsplit('/').next().unwrap();
    let id: [u8; 16] = data_encoding::HEXLOWER
        .decode(id.as_bytes())
        .unwrap()
        .try_into()
        .unwrap();
    let keys = stored(LogId::from_bytes(id)).unwrap();
    keys.signing.verifier_key().clone()
}

#[test]
fn a_trail_goes_on_with_its_tree_and_its_checkpoint() {
    let dir = trail(3);
    {
        let log = open_stored(&dir).unwrap();
        assert_eq!(log.checkpoint().head.size, 3);
        for number in 3..7 {
            log.append_blocking(&numbered(number)).unwrap();
        }
        let mut tree = Tree::new();
        for number in (0..3).chain(3..7) {
            tree.append(Hash::of_leaf(&numbered(number).encode_to_vec()));
        }
        assert_eq!(log.head(), tree.head());
        for size in 0..=7 {
            let mut tree = Tree::new();
            (0..size).for_each(|n| tree.append(Hash::of_leaf(&numbered(n).encode_to_vec())));
            assert_eq!(log.root_at(size).unwrap(), tree.root(), "{size}");
        }
    }
    // The last checkpoint is over all that was appended.
    let found = verified(&dir, &[]).unwrap();
    assert_eq!((found.records, found.checkpoint.size), (7, 7));
    assert_eq!(found.behind_checkpoint, 0);
    open_stored(&dir).unwrap();
}

#[test]
fn a_signed_record_that_was_changed_is_found() {
    for index in [0, 4, 9] {
        let dir = trail(10);
        change(&dir, index);
        let changed = LossError::Changed {
            signed: 10,
            found_in: FoundIn::Trail,
        };
        assert_eq!(loss(open_stored(&dir)), changed);
        assert!(matches!(
            verified(&dir, &[]),
            Err(VerifyError::ChangedWithin { from: 0, to: 10 })
        ));
    }
}

#[test]
fn what_is_no_record_is_found_where_it_is() {
    let dir = trail(10);
    // A field without a tag.
    rewrite(&dir, 4, |record| record[0] = 0);
    let found = verified(&dir, &[]).unwrap_err();
    assert!(
        matches!(found, VerifyError::NoRecord { index: 4, .. }),
        "{found}"
    );
}

#[test]
fn a_log_that_was_cut_off_before_its_checkpoint_is_found() {
    let dir = trail(5);
    let earlier = copied(&dir);
    more(&dir, 4);
    replace_records(&earlier, &dir);
    let truncated = LossError::Truncated {
        found: 5,
        signed: 9,
        found_in: FoundIn::Trail,
    };
    assert_eq!(loss(open_stored(&dir)), truncated);
    assert!(matches!(
        verified(&dir, &[]),
        Err(VerifyError::Truncated {
            found: 5,
            signed: 9
        })
    ));
    // A checkpoint that was kept elsewhere tells it, whatever was done to the one here.
    let kept = {
        let whole = trail(0);
        copy(&audit_dir(&earlier), &audit_dir(&whole));
        more(&whole, 4);
        fs::read_to_string(audit_dir(&whole).join(CHECKPOINT_FILE)).unwrap()
    };
    let note = newest_note(&kept);
    assert!(verified(&earlier, &[]).is_ok());
    assert!(matches!(
        verified(&earlier, &[note]),
        Err(VerifyError::Truncated {
            found: 5,
            signed: 9
        })
    ));
}

fn newest_note(file: &str) -> String {
    format!("{}\n", file[..512].trim_end_matches('\n'))
}

#[test]
fn a_forged_tail_is_found() {
    let dir = trail(5);
    // Somebody with the disk, and without the service's keys, adds records.
    let forged = copied(&dir);
    {
        let log = AuditLog::open_on(
            Arc::new(SystemDisk),
            &audit_dir(&forged),
            options(),
            with_seal(4),
            None,
        )
        .unwrap();
        log.append_blocking(&numbered(99)).unwrap();
    }
    replace_records(&forged, &dir);
    assert_eq!(loss(open_stored(&dir)), LossError::Forged { last: 5 });
    assert!(matches!(
        verified(&dir, &[]),
        Err(VerifyError::Forged { from: 5, last: 5 })
    ));
}

#[test]
fn a_tail_without_seals_is_found() {
    let dir = trail(5);
    let forged = copied(&dir);
    {
        let (journal, _) = Journal::open(&audit_dir(&forged), options()).unwrap();
        let ticket = journal.append(&numbered(99).encode_to_vec()).unwrap();
        journal.wait_blocking(ticket).unwrap();
    }
    replace_records(&forged, &dir);
    assert_eq!(loss(open_stored(&dir)), LossError::Unsealed { first: 5 });
}

#[test]
fn a_log_without_its_checkpoint_is_not_opened() {
    let dir = trail(5);
    fs::write(audit_dir(&dir).join(CHECKPOINT_FILE), "").unwrap();
    assert_eq!(loss(open_stored(&dir)), LossError::NoCheckpoint);
    fs::remove_file(audit_dir(&dir).join(CHECKPOINT_FILE)).unwrap();
    assert_eq!(loss(open_stored(&dir)), LossError::NoCheckpoint);
}

#[test]
fn one_torn_slot_leaves_the_other_checkpoint() {
    let dir = trail(5);
    let path = audit_dir(&dir).join(CHECKPOINT_FILE);
    for torn in [100, 700] {
        let mut bytes = fs::read(&path).unwrap();
        bytes[torn] ^= 1;
        fs::write(&path, &bytes).unwrap();
        drop(open_stored(&dir).unwrap());
    }
}

#[test]
fn each_record_is_proven_and_no_other() {
    let dir = trail(9);
    let log = open_stored(&dir).unwrap();
    let keys = [log.verifier_key().clone()];
    let first = log.checkpoint().note;
    for index in 0..9 {
        let record = numbered(index).encode_to_vec();
        let proof = log.prove(index, Some(Hash::of_leaf(&record))).unwrap();
        assert_eq!(proof.extra(), Some(record.as_slice()));
        let checkpoint = proof.verify(Hash::of_leaf(&record), &keys).unwrap();
        assert_eq!(checkpoint.head().size, 9);
        let other = Hash::of_leaf(&numbered(index + 1).encode_to_vec());
        assert!(proof.verify(other, &keys).is_err());
        assert!(log.prove(index, Some(other)).is_err());
    }
    assert!(log.prove(9, None).is_err());
    drop(log);
    more(&dir, 3);
    let log = open_stored(&dir).unwrap();
    let old = Checkpoint::open(&first, &keys).unwrap();
    let proof = log.prove_consistency(&first).unwrap();
    assert_eq!(proof.verify(&old, &keys).unwrap().head().size, 12);
    assert!(log.prove_consistency("no note").is_err());
}
