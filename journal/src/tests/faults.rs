//! Full disks, failing disks and short writes.

use std::sync::mpsc;
use std::time::Duration;

use super::{append, check_content, commit, open, payload, sealed, small};
use crate::simulated::SimulatedDisk;
use crate::{AppendError, AppendOptions, FatalHook, Journal, OpenError, Options};

/// Options whose fatal hook sends the message instead of ending the process.
fn watched() -> (Options, mpsc::Receiver<String>) {
    let (sender, receiver) = mpsc::channel();
    let hook = FatalHook::new(move |error| drop(sender.send(error.to_string())));
    (
        Options {
            on_fatal: hook,
            no_space_retry: Duration::ZERO,
            ..small()
        },
        receiver,
    )
}

fn fill_until_refused(journal: &Journal) -> AppendError {
    loop {
        let next = journal.next();
        match journal.append(&payload(next, 0)) {
            Ok(ticket) => journal.wait_blocking(ticket).unwrap(),
            Err(error) => return error,
        }
    }
}

#[test]
fn a_full_disk_refuses_appends_and_recovers_with_nothing_lost() {
    let (options, fatal) = watched();
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, options.clone()).unwrap();
    commit(&journal, 1, 0);
    // Room for the segments there are, and not for one more.
    disk.set_capacity_bytes(Some(3 * 2048));
    assert_eq!(fill_until_refused(&journal), AppendError::NoSpace);
    let accepted = journal.durable();
    assert!(accepted > 5);
    assert_eq!(
        journal.append(&payload(accepted + 1, 0)),
        Err(AppendError::NoSpace)
    );
    assert_eq!(
        journal.next(),
        accepted + 1,
        "a refused append takes no sequence"
    );
    check_content(&journal, 0);
    assert!(fatal.try_recv().is_err(), "a full disk is not fatal");

    disk.set_capacity_bytes(None);
    while journal.append(&payload(accepted + 1, 0)) == Err(AppendError::NoSpace) {
        std::thread::yield_now();
    }
    while journal.stats().segments < 5 {
        commit(&journal, 1, 0);
    }
    check_content(&journal, 0);
    drop(journal);
    let (journal, _) = open(&disk, options).unwrap();
    check_content(&journal, 0);
}

#[test]
fn the_last_bytes_of_a_full_disk_are_for_privileged_appends() {
    let (options, fatal) = watched();
    for options in [options.clone(), sealed(options)] {
        let options = Options {
            reserve_bytes: 800,
            ..options
        };
        let disk = SimulatedDisk::new();
        let (journal, _) = open(&disk, options).unwrap();
        commit(&journal, 1, 0);
        disk.set_capacity_bytes(Some(3 * 2048));
        assert_eq!(fill_until_refused(&journal), AppendError::NoSpace);
        let privileged = AppendOptions {
            privileged: true,
            ..AppendOptions::default()
        };
        let mut taken = 0;
        let refused = loop {
            let bytes = payload(journal.next(), 0);
            assert_eq!(journal.append(&bytes), Err(AppendError::NoSpace));
            match journal.append_with(&[&bytes], privileged) {
                Ok(ticket) => journal.wait_blocking(ticket).unwrap(),
                Err(error) => break error,
            }
            taken += 1;
        };
        assert_eq!(refused, AppendError::NoSpace);
        assert!(taken >= 3, "{taken} appends found room in the reserve");
        check_content(&journal, 0);

        // With room for the next segment, the reserve is for all.
        disk.set_capacity_bytes(None);
        while journal.append(&payload(journal.next(), 0)) == Err(AppendError::NoSpace) {
            std::thread::yield_now();
        }
        let segments = journal.stats().segments;
        while journal.stats().segments < segments + 3 {
            commit(&journal, 1, 0);
        }
        check_content(&journal, 0);
    }
    assert!(fatal.try_recv().is_err(), "a full disk is not fatal");
}

#[test]
fn a_disk_too_full_to_open_says_so_and_loses_nothing() {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, small()).unwrap();
    let last = commit(&journal, 3, 0);
    drop(journal);
    disk.set_capacity_bytes(Some(disk.used_bytes() + 100));
    let refused = open(&disk, small()).err().unwrap();
    assert!(
        matches!(
            refused,
            OpenError::NoSpace {
                needed_bytes: 2048,
                ..
            }
        ),
        "{refused}"
    );
    assert!(
        refused
            .to_string()
            .contains("nothing is lost: free some space and start again")
    );
    disk.set_capacity_bytes(None);
    let (journal, recovered) = open(&disk, small()).unwrap();
    assert_eq!(recovered.next, last + 1);
    check_content(&journal, 0);
}

#[test]
fn a_failed_write_or_sync_is_fatal_once_and_acknowledges_nothing() {
    for fail in [
        SimulatedDisk::fail_writes_after,
        SimulatedDisk::fail_syncs_after,
    ] {
        let (options, fatal) = watched();
        // One segment that is never full, so that only the writer touches the disk.
        let options = Options {
            segment_bytes: 1 << 16,
            ..options
        };
        let disk = SimulatedDisk::new();
        let (journal, _) = open(&disk, options.clone()).unwrap();
        let acknowledged = commit(&journal, 2, 0);
        // The upcoming segment is made concurrently: wait until it is there.
        while !disk.paths().iter().any(|path| {
            path.to_string_lossy().ends_with("2.seg.tmp") && disk.bytes(path).len() == 1 << 16
        }) {
            std::thread::yield_now();
        }
        disk.close_gate();
        disk.record();
        append(&journal, 1, 0);
        disk.wait_for_sync_at_gate();
        fail(&disk, 0);
        let ticket = append(&journal, 1, 0);
        disk.open_gate();
        assert_eq!(journal.wait_blocking(ticket), Err(AppendError::Closed));
        assert_eq!(journal.append(b"more"), Err(AppendError::Closed));
        let told = fatal.recv().unwrap();
        assert!(
            told.starts_with("the journal cannot ") && told.contains("/log"),
            "{told}"
        );
        drop(journal);
        assert!(fatal.try_recv().is_err(), "told once, never retried");
        let (journal, recovered) = open(&disk.fork(), options).unwrap();
        assert!(recovered.next > acknowledged);
        check_content(&journal, 0);
    }
}

#[test]
fn short_writes_are_continued() {
    let disk = SimulatedDisk::new();
    disk.set_longest_write_bytes(7);
    let (journal, _) = open(&disk, small()).unwrap();
    for _ in 0..20 {
        commit(&journal, 3, 0);
    }
    check_content(&journal, 0);
    drop(journal);
    let (journal, recovered) = open(&disk, small()).unwrap();
    assert_eq!(recovered.next, 61);
    check_content(&journal, 0);
}
