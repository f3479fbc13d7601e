//! Power is lost after every single operation, with everything that was not synced gone, or all of it there,
//! or any of its sectors.

use std::time::Duration;

use super::{MIRROR, append, append_with, check_content, commit, mirrored, open, sealed, small};
use crate::simulated::{Operation, PowerLoss, SimulatedDisk};
use crate::{AppendOptions, FatalHook, Options};

/// Deterministic choices (xorshift64*), seeded by place.
fn coin(seed: u64) -> impl FnMut() -> bool {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 63 == 1
    }
}

/// Some life of a journal; what is durable is noted among the disk's operations after each acknowledgement. With a window,
/// three commits of four are relaxed and only written when the next one comes.
fn live(disk: &SimulatedDisk, options: &Options, generation: u64, commits: u64) {
    let (journal, recovered) = open(disk, options.clone()).unwrap();
    // What recovery kept is served, and so must stay.
    disk.note(recovered.next - 1);
    for commit_number in 0..commits {
        let count = 1 + (commit_number * 7 + generation) % 5;
        if options.window.is_zero() || commit_number % 4 == 3 {
            commit(&journal, count, generation);
        } else {
            let relaxed = AppendOptions {
                relaxed: true,
                ..AppendOptions::default()
            };
            let ticket = append_with(&journal, count, generation, relaxed);
            journal.wait_written_blocking(ticket).unwrap();
        }
        let acknowledged = journal.durable();
        disk.note(acknowledged);
        if commit_number % 20 == 19 {
            journal.prune_before(acknowledged / 3).unwrap();
        }
    }
}

/// Opens what a power loss left; everything acknowledged by then must be there.
fn check(lost: &SimulatedDisk, options: &Options, acknowledged: u64, generation: u64, place: &str) {
    let opened = open(lost, options.clone());
    let (journal, recovered) = opened.unwrap_or_else(|error| panic!("{place}: {error}"));
    assert!(
        recovered.next > acknowledged,
        "{place}: kept up to {}, acknowledged {acknowledged}",
        recovered.next - 1
    );
    assert!(recovered.first <= 1 + acknowledged / 3, "{place}");
    check_content(&journal, generation);
    commit(&journal, 1, 99);
}

fn lose_power_everywhere(
    options: &Options,
    start: &SimulatedDisk,
    already: u64,
    generation: u64,
    commits: u64,
) -> Vec<(SimulatedDisk, u64)> {
    let disk = start.fork();
    let mut power = PowerLoss::after(&disk);
    disk.record();
    live(&disk, options, generation, commits);
    let operations = disk.recorded();
    let mut acknowledged = already;
    let mut left = Vec::new();
    for (number, operation) in operations.iter().enumerate() {
        power.step(operation);
        if let Operation::Note(sequence) = operation {
            acknowledged = *sequence;
            continue;
        }
        let place =
            |mode: &str| format!("after operation {number} of {}, {mode}", operations.len());
        check(
            &power.lose(|| false),
            options,
            acknowledged,
            generation,
            &place("all lost"),
        );
        check(
            &power.lose(|| true),
            options,
            acknowledged,
            generation,
            &place("all kept"),
        );
        for seed in 0..3 {
            let lost = power.lose(coin(number as u64 * 31 + seed));
            check(
                &lost.fork(),
                options,
                acknowledged,
                generation,
                &place("some sectors kept"),
            );
            left.push((lost, acknowledged));
        }
    }
    left
}

#[test]
fn nothing_acknowledged_is_lost_and_every_open_succeeds() {
    let left = lose_power_everywhere(&small(), &SimulatedDisk::new(), 0, 0, 45);
    assert!(left.len() > 400, "{}", left.len());
    // And power is lost again while what was left is recovered.
    for (disk, acknowledged) in left.iter().step_by(29) {
        lose_power_everywhere(&small(), disk, *acknowledged, 1, 2);
    }
}

#[test]
fn a_sealed_log_keeps_commits_wholly_or_not_at_all() {
    let left = lose_power_everywhere(&sealed(small()), &SimulatedDisk::new(), 0, 0, 45);
    assert!(left.len() > 400, "{}", left.len());
    for (disk, acknowledged) in left.iter().step_by(29) {
        lose_power_everywhere(&sealed(small()), disk, *acknowledged, 1, 2);
    }
}

#[test]
fn only_what_is_within_the_window_is_lost() {
    for options in [small(), sealed(small()), sealed(mirrored())] {
        let options = Options {
            window: Duration::from_millis(100),
            ..options
        };
        lose_power_everywhere(&options, &SimulatedDisk::new(), 0, 0, 40);
    }
}

#[test]
fn a_log_that_goes_on_sealed_loses_nothing_either() {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, small()).unwrap();
    let already = commit(&journal, 9, 0);
    drop(journal);
    lose_power_everywhere(&sealed(small()), &disk, already, 0, 12);
}

#[test]
fn the_same_with_a_mirror_and_with_either_directory_lost_for_good() {
    for options in [mirrored(), sealed(mirrored())] {
        let left = lose_power_everywhere(&options, &SimulatedDisk::new(), 0, 0, 25);
        for (number, (disk, acknowledged)) in left.iter().enumerate().step_by(3) {
            let disk = disk.fork();
            let gone = if number % 2 == 0 { super::DIR } else { MIRROR };
            for path in disk.paths() {
                if path.starts_with(gone) {
                    crate::Disk::remove(&disk, &path).unwrap();
                }
            }
            let place = format!("case {number} without {gone}");
            check(&disk, &options, *acknowledged, 0, &place);
        }
    }
}

#[test]
fn a_disk_that_did_not_sync_would_be_caught() {
    // The control: the same check, with the syncs left out, must fail.
    let disk = SimulatedDisk::new();
    let mut power = PowerLoss::after(&disk);
    disk.record();
    live(&disk, &small(), 0, 10);
    disk.recorded()
        .iter()
        .filter(|operation| !matches!(operation, Operation::Sync(_)))
        .for_each(|operation| power.step(operation));
    let opened = open(&power.lose(|| false), small());
    assert!(opened.is_err());
}

#[test]
fn what_recovery_found_in_the_page_cache_alone_is_durable_once_it_is_served() {
    let disk = SimulatedDisk::new();
    let mut power = PowerLoss::after(&disk);
    disk.record();
    let options = Options {
        segment_bytes: 1 << 16,
        on_fatal: FatalHook::new(|_| {}),
        ..small()
    };
    let (journal, _) = open(&disk, options.clone()).unwrap();
    let acknowledged = commit(&journal, 3, 0);
    disk.close_gate();
    append(&journal, 2, 0);
    disk.wait_for_sync_at_gate();
    disk.fail_syncs_after(0);
    disk.open_gate();
    drop(journal);
    // The process is gone and the kernel is not: the two frames are in its cache and not on the disk.
    disk.heal();
    let (journal, recovered) = open(&disk, options.clone()).unwrap();
    assert_eq!(recovered.next, acknowledged + 3);
    disk.recorded()
        .iter()
        .for_each(|operation| power.step(operation));
    check(
        &power.lose(|| false),
        &options,
        acknowledged + 2,
        0,
        "after recovery",
    );
    drop(journal);
}
