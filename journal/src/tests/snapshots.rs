//! Snapshots: whole or refused.

use std::io;
use std::path::Path;

use crate::simulated::SimulatedDisk;
use crate::snapshot::{read_snapshot_on, write_snapshot_on};
use crate::{SnapshotError, read_snapshot, write_snapshot};

const PATH: &str = "/snapshots/1.snap";

fn payloads(count: usize) -> Vec<io::Result<Vec<u8>>> {
    (0..count).map(|at| Ok(vec![at as u8; at % 90])).collect()
}

fn read_all(disk: &SimulatedDisk) -> Result<Vec<Vec<u8>>, SnapshotError> {
    read_snapshot_on(disk, Path::new(PATH))?.collect()
}

#[test]
fn a_snapshot_is_read_back_on_the_systems_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.snap");
    for count in [0, 1, 20_000] {
        assert_eq!(
            write_snapshot(&path, 7, payloads(count)).unwrap(),
            count as u64
        );
        let reader = read_snapshot(&path).unwrap();
        assert_eq!(reader.id(), 7);
        let read: Vec<Vec<u8>> = reader.map(Result::unwrap).collect();
        let expected: Vec<Vec<u8>> = payloads(count).into_iter().map(Result::unwrap).collect();
        assert_eq!(read, expected);
    }
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "no temporary stays"
    );
}

#[test]
fn any_byte_that_is_missing_changed_or_added_is_refused() {
    let disk = SimulatedDisk::new();
    write_snapshot_on(&disk, Path::new(PATH), 7, payloads(30)).unwrap();
    assert_eq!(read_all(&disk).unwrap().len(), 30);
    let length = disk.bytes(Path::new(PATH)).len();
    for at in 0..length {
        for change in [
            |bytes: &mut Vec<u8>, at: usize| bytes.truncate(at),
            |bytes: &mut Vec<u8>, at: usize| bytes[at] ^= 0x20,
        ] {
            let damaged = disk.fork();
            damaged.tamper(Path::new(PATH), |bytes| change(bytes, at));
            let refused = read_all(&damaged).unwrap_err();
            assert!(
                matches!(refused, SnapshotError::Damaged { offset, .. } if offset as usize <= at),
                "byte {at}: {refused}"
            );
        }
    }
    for extra in [1, 8, 64] {
        let damaged = disk.fork();
        damaged.tamper(Path::new(PATH), |bytes| bytes.extend(vec![0; extra]));
        assert!(read_all(&damaged).is_err());
    }
}

#[test]
fn a_snapshot_that_fails_leaves_the_one_before_and_no_temporary() {
    let disk = SimulatedDisk::new();
    write_snapshot_on(&disk, Path::new(PATH), 7, payloads(3)).unwrap();
    let failing = payloads(5)
        .into_iter()
        .chain([Err(io::Error::other("source"))]);
    assert!(matches!(
        write_snapshot_on(&disk, Path::new(PATH), 8, failing),
        Err(SnapshotError::Source(_))
    ));
    disk.set_capacity_bytes(Some(disk.used_bytes() + 100));
    assert!(matches!(
        write_snapshot_on(&disk, Path::new(PATH), 8, payloads(50)),
        Err(SnapshotError::NoSpace { .. })
    ));
    disk.set_capacity_bytes(None);
    disk.fail_syncs_after(0);
    assert!(matches!(
        write_snapshot_on(&disk, Path::new(PATH), 8, payloads(5)),
        Err(SnapshotError::Io { .. })
    ));
    assert_eq!(disk.paths(), [Path::new(PATH)]);
    assert_eq!(read_all(&disk).unwrap().len(), 3);
}

#[test]
fn a_segment_is_not_a_snapshot() {
    let disk = SimulatedDisk::new();
    drop(super::open(&disk, super::small()).unwrap());
    assert!(read_snapshot_on(&disk, Path::new("/log/0000000000000001.seg")).is_err());
}
