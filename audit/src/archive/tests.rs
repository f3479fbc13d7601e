use std::convert::Infallible;
use std::fs;
use std::io::{Cursor, Write};
use std::sync::LazyLock;

use tempfile::TempDir;

use super::*;
use crate::sample;
use crate::segment::SEGMENT_RECORDS;

const SEGMENT: u64 = 0x2a;
const FIRST: u64 = SEGMENT * SEGMENT_RECORDS as u64;

/// The records of a segment, one of them empty and one as large as may be.
static RECORDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    (0..u64::from(SEGMENT_RECORDS))
        .map(|offset| match offset {
            77 => Vec::new(),
            78 => vec![7; 65_535],
            _ => format!("record {offset}").into_bytes(),
        })
        .collect()
});

/// The segment's archive file.
static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = TempDir::new().unwrap();
    let archive = archive(&dir);
    write(&archive, &RECORDS).unwrap();
    fs::read(archive.file(SEGMENT)).unwrap()
});

fn archive(dir: &TempDir) -> Directory {
    Directory::new(dir.path().to_owned())
}

fn write(archive: &Directory, records: &[Vec<u8>]) -> Result<Written, ArchiveError> {
    let records = records.iter().map(Ok::<_, Infallible>);
    write_segment(archive, SEGMENT, records)
}

/// All records of a file, and why it ended.
fn read(file: &[u8]) -> (Vec<Vec<u8>>, Result<(), ArchiveError>) {
    let mut reader = SegmentReader::new(SEGMENT, Cursor::new(file)).unwrap();
    let mut records = Vec::new();
    loop {
        match reader.next_record() {
            Ok(Some((index, record))) => {
                assert_eq!(index, FIRST + records.len() as u64);
                records.push(record.to_vec());
            }
            Ok(None) => return (records, Ok(())),
            Err(error) => {
                assert!(reader.next_record().is_err(), "it never seems to end well");
                return (records, Err(error));
            }
        }
    }
}

/// Compresses anything, as an archive file has it.
fn compressed(bytes: &[u8], window_log: u32) -> Vec<u8> {
    let mut out = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    out.window_log(window_log).unwrap();
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn bundles(records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        bytes.extend_from_slice(&(record.len() as u16).to_be_bytes());
        bytes.extend_from_slice(record);
    }
    bytes
}

#[test]
fn what_is_archived_is_read_back() {
    let dir = TempDir::new().unwrap();
    let archive = archive(&dir);
    let written = write(&archive, &RECORDS).unwrap();
    assert_eq!(archive.list().unwrap(), [SEGMENT]);
    assert_eq!(written.bytes, bundles(&RECORDS).len() as u64);
    let file = fs::read(dir.path().join("000000000000002a.records.zst")).unwrap();
    assert_eq!(written.compressed_bytes, file.len() as u64);
    let (records, end) = read(&file);
    end.unwrap();
    assert!(records == *RECORDS);
    assert!(zstd::decode_all(file.as_slice()).unwrap() == bundles(&RECORDS));

    let verified = verify(&archive, SEGMENT, |index, hash| {
        *hash == leaf_hash(&RECORDS[(index - FIRST) as usize])
    });
    let expected = Verified {
        records: SEGMENT_RECORDS.into(),
        bytes: written.bytes,
    };
    assert_eq!(verified.unwrap(), expected);
}

#[test]
fn a_record_that_is_not_the_one_in_the_log_is_named() {
    let dir = TempDir::new().unwrap();
    let archive = archive(&dir);
    write(&archive, &RECORDS).unwrap();
    let result = verify(&archive, SEGMENT, |index, _| index != FIRST + 60_000);
    assert!(matches!(result, Err(ArchiveError::OtherRecord { index }) if index == FIRST + 60_000));
}

/// The leaf hash of the empty record, which RFC 6962 implementations test with, and one made with `sha256sum`.
#[test]
fn leaf_hashes_are_those_of_rfc_6962() {
    let hex = |hash: [u8; 32]| {
        hash.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    assert_eq!(
        hex(leaf_hash(b"")),
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    );
    assert_eq!(
        hex(leaf_hash(b"L123456")),
        "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    );
}

#[test]
fn bundles_are_read_one_by_one() {
    let dir = TempDir::new().unwrap();
    let archive = archive(&dir);
    write(&archive, &RECORDS).unwrap();
    for bundle in [0, 1, 7, 255] {
        let first = usize::from(bundle) * 256;
        let expected = bundles(&RECORDS[first..first + 256]);
        assert!(
            read_bundle(&archive, SEGMENT, bundle).unwrap() == expected,
            "{bundle}"
        );
    }
}

#[test]
fn damaged_files_are_refused_at_the_record_that_is_damaged() {
    let place = |file: &[u8]| match read(file) {
        (
            records,
            Err(ArchiveError::Damaged {
                segment: SEGMENT,
                index,
                ..
            }),
        ) => {
            assert_eq!(index, FIRST + records.len() as u64);
            assert!(records.as_slice() == &RECORDS[..records.len()]);
            index - FIRST
        }
        (records, end) => panic!("{} records, {end:?}", records.len()),
    };
    assert_eq!(place(b""), 0);
    assert_eq!(place(b"not compressed"), 0);
    assert!(place(&FILE[..FILE.len() / 2]) > 1000);
    // The checksum at the end, and what follows it.
    let end = u64::from(SEGMENT_RECORDS);
    assert_eq!(place(&FILE[..FILE.len() - 1]), end);
    assert_eq!(place(&[&FILE[..], &[0]].concat()), end);
    assert_eq!(place(&[&FILE[..], &FILE[..]].concat()), end);
    // A frame of another, and a window that would need more memory.
    let all = bundles(&RECORDS);
    assert_eq!(place(&compressed(&all[..all.len() - 1], 20)), end - 1);
    assert_eq!(place(&compressed(&[&all[..], &[0, 0]].concat(), 20)), end);
    assert_eq!(place(&compressed(&all, 27)), 0);
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    for number in 0..200 {
        let mut file = FILE.clone();
        let at = sample::scattered(number) as usize % (file.len() * 8);
        file[at / 8] ^= 1 << (at % 8);
        let (records, end) = read(&file);
        // The frame's header has bits that say nothing about the content: which checksum, how it was compressed.
        assert!(end.is_err() || records == *RECORDS, "bit {at}");
    }
}

#[test]
fn what_is_no_complete_segment_is_not_archived() {
    let dir = TempDir::new().unwrap();
    let archive = archive(&dir);
    let refused = |records: &[Vec<u8>]| {
        let error = write(&archive, records).unwrap_err();
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            0,
            "nothing is left"
        );
        error
    };
    let short = refused(&RECORDS[..65_535]);
    assert!(matches!(
        short,
        ArchiveError::Incomplete {
            records: 65_535,
            ..
        }
    ));
    let long = refused(&[&RECORDS[..], &RECORDS[..2]].concat());
    assert!(matches!(
        long,
        ArchiveError::Incomplete {
            records: 65_537,
            ..
        }
    ));
    let large = refused(&[vec![1], vec![0; 65_536]]);
    assert!(matches!(large, ArchiveError::TooLarge { index, bytes: 65_536 } if index == FIRST + 1));
    let unread = [Ok(vec![1]), Err(io::Error::other("disk"))];
    let error = write_segment(&archive, SEGMENT, unread).unwrap_err();
    assert!(matches!(error, ArchiveError::Records { index, .. } if index == FIRST + 1));
    assert_eq!(archive.list().unwrap(), [] as [u64; 0]);
    let error = write_segment(&archive, u64::MAX, [Ok::<_, Infallible>(b"")]).unwrap_err();
    assert!(matches!(
        error,
        ArchiveError::NoSegment { segment: u64::MAX }
    ));
}

#[test]
fn an_attempt_that_fails_leaves_the_file_that_was_there() {
    let dir = TempDir::new().unwrap();
    let archive = archive(&dir);
    write(&archive, &RECORDS).unwrap();
    // What a crash left behind is not taken for a file, and does not disturb the next attempt.
    fs::write(dir.path().join("000000000000002a.records.zst.tmp"), b"half").unwrap();
    assert_eq!(archive.list().unwrap(), [SEGMENT]);
    write(&archive, &RECORDS[..9]).unwrap_err();
    assert!(fs::read(archive.file(SEGMENT)).unwrap() == *FILE);
    write(&archive, &RECORDS).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn only_names_of_archive_files_are_listed() {
    let dir = TempDir::new().unwrap();
    for name in [
        "0000000000000001.records.zst",
        "00000000000000ff.records.zst",
        "00000000000000FE.records.zst",
        "2.records.zst",
        "0000000000000003.records",
        "+000000000000004.records.zst",
        "README",
    ] {
        fs::write(dir.path().join(name), b"").unwrap();
    }
    assert_eq!(archive(&dir).list().unwrap(), [1, 255]);
}

#[test]
fn what_is_not_there_is_missing() {
    let dir = TempDir::new().unwrap();
    assert!(matches!(
        open(&archive(&dir), SEGMENT).err(),
        Some(ArchiveError::Missing { segment: SEGMENT })
    ));
    // An archive whose directory is not there is not made anew.
    let unmounted = Directory::new(dir.path().join("share"));
    assert!(matches!(
        unmounted.list(),
        Err(ArchiveError::Io {
            action: "listed",
            ..
        })
    ));
    let error = write(&unmounted, &RECORDS).unwrap_err();
    assert!(matches!(error, ArchiveError::Io { action: "made", .. }));
}
