//! The bounded window: relaxed appends wait for the write alone, all others for the disk.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{append, append_with, check_content, commit, open, seal_of, sealed, small};
use crate::simulated::{PowerLoss, SimulatedDisk};
use crate::{AppendError, AppendOptions, FatalHook, Journal, Options, Seal, Ticket};

const RELAXED: AppendOptions = AppendOptions {
    relaxed: true,
    privileged: false,
};

fn windowed() -> Options {
    Options {
        segment_bytes: 1 << 16,
        window: Duration::from_millis(100),
        on_fatal: FatalHook::new(|_| {}),
        ..small()
    }
}

fn both() -> [Options; 2] {
    [windowed(), sealed(windowed())]
}

/// Appends relaxed and waits until it is written.
fn write(journal: &Journal, count: u64) -> Ticket {
    let ticket = append_with(journal, count, 0, RELAXED);
    journal.wait_written_blocking(ticket).unwrap();
    ticket
}

#[test]
fn a_relaxed_append_does_not_wait_for_the_disk_and_is_not_durable() {
    for options in both() {
        let disk = SimulatedDisk::new();
        let (journal, _) = open(&disk, options.clone()).unwrap();
        let durable = commit(&journal, 1, 0);
        disk.close_gate();
        // No sync can end, so that it does not wait for one.
        let ticket = write(&journal, 3);
        assert_eq!(journal.durable(), durable);
        assert_eq!(journal.read_one(ticket.sequence).unwrap(), None);
        // The end of the process does not lose it.
        let (killed, recovered) = open(&disk.fork(), options).unwrap();
        assert_eq!(recovered.next, ticket.sequence + 1);
        check_content(&killed, 0);
        disk.open_gate();
        journal.wait_blocking(ticket).unwrap();
        check_content(&journal, 0);
    }
}

#[test]
fn the_sync_comes_by_itself_within_the_window() {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, windowed()).unwrap();
    for _ in 0..3 {
        let ticket = write(&journal, 1);
        let written = Instant::now();
        journal.wait_blocking(ticket).unwrap();
        // Nothing else was appended. Far more than the window is allowed for a busy machine.
        assert!(written.elapsed() < Duration::from_secs(20));
    }
    let stats = journal.stats();
    assert!(stats.writes == 3 && stats.syncs <= 3, "{stats:?}");
}

#[test]
fn the_next_ordinary_append_makes_all_before_it_durable() {
    for options in both() {
        let disk = SimulatedDisk::new();
        let (journal, _) = open(&disk, options).unwrap();
        let ticket = write(&journal, 2);
        let last = append(&journal, 1, 0);
        journal.wait_blocking(last).unwrap();
        assert!(journal.durable() >= last.sequence && last.sequence == ticket.sequence + 1);
        assert_eq!(journal.stats().frames, 3);
        check_content(&journal, 0);
    }
}

#[test]
fn many_writes_share_a_sync() {
    let disk = SimulatedDisk::new();
    let options = Options {
        segment_bytes: 1 << 20,
        ..windowed()
    };
    let (journal, _) = open(&disk, options).unwrap();
    let started = Instant::now();
    for _ in 0..500 {
        write(&journal, 1);
    }
    let windows = started.elapsed().as_millis() as u64 / 100;
    let stats = journal.stats();
    assert_eq!(stats.writes, 500);
    assert!(stats.syncs <= windows + 1, "{stats:?}, {windows} windows");
    drop(journal);
    let (journal, recovered) = open(&disk, small()).unwrap();
    assert_eq!(recovered.next, 501);
    check_content(&journal, 0);
}

/// Has another thread append while each group is being written, so that the next group is never empty.
struct Endless {
    go: mpsc::Sender<()>,
    appended: mpsc::Receiver<()>,
}

impl Seal for Endless {
    fn seal(&mut self, first: u64, leaves: &[[u8; 32]]) -> [u8; 32] {
        // Once the other thread has seen enough, it has ended.
        if self.go.send(()).is_ok() {
            let _ = self.appended.recv();
        }
        seal_of(first, leaves)
    }

    fn committed(&mut self, _through: u64) {}
}

#[test]
fn relaxed_appends_that_never_pause_are_synced_all_the_same() {
    let disk = SimulatedDisk::new();
    let options = Options {
        segment_bytes: 16 << 20,
        window: Duration::from_millis(5),
        ..sealed(windowed())
    };
    let (journal, _) = open(&disk, options).unwrap();
    let (go, asked) = mpsc::channel();
    let (tell, appended) = mpsc::channel();
    journal.set_seal(Box::new(Endless { go, appended }));
    journal.append_with(&[b"first"], RELAXED).unwrap();
    while journal.durable() == 0 {
        asked.recv().unwrap();
        let ticket = journal.append_with(&[b"more"], RELAXED).unwrap();
        tell.send(()).unwrap();
        assert!(ticket.sequence < 100_000, "never synced");
    }
}

#[test]
fn a_task_is_woken_by_the_write_before_the_sync() {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, windowed()).unwrap();
    let durable = commit(&journal, 1, 0);
    disk.close_gate();
    let (done, awaited) = mpsc::channel();
    let opener = thread::spawn({
        let disk = disk.clone();
        move || {
            // So that a task that is not woken fails the test instead of hanging it.
            let told: Result<(), _> = awaited.recv_timeout(Duration::from_secs(20));
            disk.open_gate();
            told
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let waiters = journal.waiters();
        let hub = tokio::spawn(waiters.run());
        let ticket = append_with(&journal, 2, 0, RELAXED);
        waiters.written(ticket).await.unwrap();
        assert_eq!(journal.durable(), durable);
        done.send(()).unwrap();
        waiters.committed(ticket).await.unwrap();
        assert!(journal.durable() >= ticket.sequence);
        hub.abort();
    });
    opener.join().unwrap().unwrap();
}

#[test]
fn without_a_window_relaxed_is_durable() {
    for options in [small(), sealed(small())] {
        let disk = SimulatedDisk::new();
        let (journal, _) = open(&disk, options).unwrap();
        for count in [1, 3, 2] {
            let ticket = append_with(&journal, count, 0, RELAXED);
            journal.wait_blocking(ticket).unwrap();
        }
        let stats = journal.stats();
        assert_eq!((stats.writes, stats.syncs), (3, 3));
    }
}

#[test]
fn closing_syncs_what_was_only_written() {
    let disk = SimulatedDisk::new();
    let mut power = PowerLoss::after(&disk);
    disk.record();
    let (journal, _) = open(&disk, windowed()).unwrap();
    let ticket = write(&journal, 2);
    drop(journal);
    disk.recorded()
        .iter()
        .for_each(|operation| power.step(operation));
    let (journal, recovered) = open(&power.lose(|| false), windowed()).unwrap();
    assert_eq!(recovered.next, ticket.sequence + 1);
    check_content(&journal, 0);
}

#[test]
fn segments_roll_within_the_window() {
    for options in both() {
        let options = Options {
            segment_bytes: 2048,
            ..options
        };
        let disk = SimulatedDisk::new();
        let (journal, _) = open(&disk, options.clone()).unwrap();
        let mut last = Ticket::at(0);
        while journal.stats().segments < 5 {
            last = write(&journal, 2);
        }
        let (killed, recovered) = open(&disk.fork(), options).unwrap();
        assert_eq!(recovered.next, last.sequence + 1);
        check_content(&killed, 0);
    }
}

#[test]
fn a_failed_sync_tells_those_who_still_wait() {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, windowed()).unwrap();
    commit(&journal, 1, 0);
    disk.close_gate();
    let written = write(&journal, 1);
    let ordinary = append(&journal, 1, 0);
    disk.wait_for_sync_at_gate();
    disk.fail_syncs_after(0);
    disk.open_gate();
    assert_eq!(journal.wait_blocking(ordinary), Err(AppendError::Closed));
    assert_eq!(journal.wait_blocking(written), Err(AppendError::Closed));
    // Nobody is told any more that it is written: it may be lost.
    assert_eq!(
        journal.wait_written_blocking(written),
        Err(AppendError::Closed)
    );
}

#[test]
fn tasks_are_woken_for_what_they_wait_for() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), windowed()).unwrap();
    thread::scope(|scope| {
        for runtime in 0..2u64 {
            let journal = journal.clone();
            scope.spawn(move || {
                let runtime_of_tasks = tokio::runtime::Builder::new_current_thread()
                    .build()
                    .unwrap();
                runtime_of_tasks.block_on(async {
                    let waiters = journal.waiters();
                    let hub = tokio::spawn(waiters.run());
                    let tasks: Vec<_> = (0..32u64)
                        .map(|task| {
                            let (journal, waiters) = (journal.clone(), waiters.clone());
                            tokio::spawn(async move {
                                for round in 0..20u64 {
                                    let how = AppendOptions {
                                        relaxed: (task + round) % 3 != 0,
                                        ..AppendOptions::default()
                                    };
                                    let bytes =
                                        [runtime, task, round].map(u64::to_be_bytes).concat();
                                    let ticket = journal.append_with(&[&bytes], how).unwrap();
                                    if how.relaxed {
                                        waiters.written(ticket).await.unwrap();
                                    } else {
                                        waiters.committed(ticket).await.unwrap();
                                        assert!(journal.durable() >= ticket.sequence);
                                    }
                                }
                            })
                        })
                        .collect();
                    for task in tasks {
                        task.await.unwrap();
                    }
                    assert_eq!(waiters.pending(), 0);
                    hub.abort();
                });
            });
        }
    });
    let last = Ticket::at(journal.next() - 1);
    journal.wait_blocking(last).unwrap();
    assert_eq!(journal.verify().unwrap().frames, 2 * 32 * 20);
}
