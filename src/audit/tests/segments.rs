//! One journal segment of a long trail, verified by itself; and where damage to a long trail is located.

use std::fs;
use std::path::Path;

use fieldkeep_journal::{Offline, SegmentHeader, parse_header};
use fieldkeep_tlog::tile::SEGMENT_RECORDS;

use super::evidence::{audit_dir, change, copied, copy, key_of, open_stored, verified};
use super::*;
use crate::audit::recover::TREE_DIR;
use crate::audit::verify::segment::verify_segment;
use crate::audit::verify::{Place, Verified, VerifyError, Wanted};

/// More than one record segment, so that some have tiles and some have not; several files of the journal of both.
const RECORDS: u64 = SEGMENT_RECORDS + 24_000;

/// A closed trail of many records, with its tiles.
fn long() -> TempDir {
    let dir = TempDir::new().unwrap();
    fill(&open(&dir), RECORDS - 1);
    // A start makes the tiles that are missing.
    drop(open_stored(&dir).unwrap());
    assert!(
        audit_dir(&dir)
            .join(TREE_DIR)
            .join("0000000000000000.tiles")
            .exists()
    );
    dir
}

fn segment_file(dir: &TempDir, id: u64) -> PathBuf {
    audit_dir(dir).join(format!("{id:016x}.seg"))
}

fn header(dir: &TempDir, id: u64) -> SegmentHeader {
    parse_header(&fs::read(segment_file(dir, id)).unwrap()).unwrap()
}

fn last_segment(dir: &Path) -> u64 {
    Offline::open_from(dir, u64::MAX)
        .unwrap()
        .segment()
        .unwrap()
}

fn alone(dir: &TempDir, id: u64) -> Result<Verified, VerifyError> {
    let key = key_of(dir);
    let wanted = Wanted {
        dir: &audit_dir(dir),
        key: &key,
        checkpoints: &[],
        archive: None,
        seal: None,
    };
    verify_segment(&wanted, id)
}

#[test]
fn each_segment_verifies_alone_and_what_is_wrong_with_it_is_located() {
    let dir = long();
    let last = last_segment(&audit_dir(&dir));
    assert!(last >= 6, "{last}");
    for id in 1..=last {
        let found = alone(&dir, id).unwrap();
        assert_eq!((found.checkpoint.size, found.torn), (RECORDS, false));
        assert!(found.records < RECORDS || id == last);
    }

    // Another record, which the tiles have.
    let changed = copied(&dir);
    let index = header(&dir, 3).first + 17;
    change(&changed, index);
    for result in [alone(&changed, 3), verified(&changed, &[])] {
        let Err(VerifyError::Changed {
            index: found,
            place: Place::Journal(position),
        }) = result
        else {
            panic!("{result:?}");
        };
        assert_eq!((found, position.segment), (index, 3));
    }
    alone(&changed, 1).unwrap();
    // Behind it the log is damaged as well; the first thing that is wrong is named.
    let file = fs::File::options()
        .write(true)
        .open(segment_file(&changed, 4))
        .unwrap();
    file.set_len(5_000).unwrap();
    let result = verified(&changed, &[]);
    let Err(VerifyError::Differs {
        index: found, then, ..
    }) = &result
    else {
        panic!("{result:?}");
    };
    assert_eq!(*found, index);
    assert!(matches!(**then, VerifyError::Damaged { .. }), "{then}");

    // Another record, which no tile has: only the root tells.
    let changed = copied(&dir);
    let index = header(&dir, last).first + 5;
    change(&changed, index);
    let result = alone(&changed, last);
    let Err(VerifyError::ChangedOrHashes { from, to }) = result else {
        panic!("{result:?}");
    };
    assert!((from..to).contains(&index) && from > 0);

    // A segment that is gone.
    let without = copied(&dir);
    fs::remove_file(segment_file(&without, 2)).unwrap();
    let result = alone(&without, 2);
    let Err(VerifyError::Damaged { index, .. }) = result else {
        panic!("{result:?}");
    };
    assert_eq!(index, header(&dir, 2).first - 1);
}

#[test]
fn a_record_that_is_missing_between_two_segments_is_found() {
    let dir = long();
    // The segment begins a record later, and says so.
    let path = segment_file(&dir, 3);
    let mut bytes = fs::read(&path).unwrap();
    let header = parse_header(&bytes).unwrap();
    let length = u32::from_be_bytes(bytes[68..72].try_into().unwrap()) as usize;
    let frame_bytes = (32 + length + 4).next_multiple_of(8);
    bytes.drain(64..64 + frame_bytes);
    bytes.resize(bytes.len() + frame_bytes, 0);
    bytes[16..24].copy_from_slice(&(header.first + 1).to_be_bytes());
    let crc = crc32fast::hash(&bytes[..60]).to_be_bytes();
    bytes[60..64].copy_from_slice(&crc);
    fs::write(&path, bytes).unwrap();
    for result in [alone(&dir, 3), verified(&dir, &[])] {
        let Err(VerifyError::Damaged { index, .. }) = result else {
            panic!("{result:?}");
        };
        assert_eq!(index, header.first - 1);
    }
}

#[test]
fn hashes_that_are_wrong_are_not_taken_for_records() {
    let dir = long();
    let whole = copied(&dir);
    let tiles = audit_dir(&dir)
        .join(TREE_DIR)
        .join("0000000000000000.tiles");
    let mut bytes = fs::read(&tiles).unwrap();
    // Of the first record, and so of the tile of the first 256, and of the segment.
    bytes[0] ^= 1;
    bytes[256 * 8192] ^= 1;
    fs::write(&tiles, bytes).unwrap();
    assert!(matches!(
        alone(&dir, 4),
        Err(VerifyError::ChangedOrHashes { .. })
    ));
    assert_eq!(verified(&dir, &[]).unwrap().wrong_tiles, 1);
    fs::remove_file(&tiles).unwrap();
    // Without them, all records are read.
    assert_eq!(alone(&dir, 4).unwrap().records, RECORDS);
    assert_eq!(verified(&dir, &[]).unwrap().records, RECORDS);

    // Of records that were pruned, the hashes are all that is left; they verify as well.
    fs::remove_dir_all(audit_dir(&dir)).unwrap();
    copy(&audit_dir(&whole), &audit_dir(&dir));
    for id in 1..=2 {
        fs::remove_file(segment_file(&dir, id)).unwrap();
    }
    let pruned = verified(&dir, &[]).unwrap();
    assert_eq!(pruned.first, header(&whole, 3).first - 1);
    assert_eq!(pruned.first + pruned.records, RECORDS);
}
