//! Many callers at once: threads that block, and tasks on current-thread runtimes with one hub each.

use std::thread;

use super::{append, check_content, commit, open, small};
use crate::simulated::SimulatedDisk;
use crate::{AppendError, FatalHook, Journal, Options};

fn roomy() -> Options {
    Options {
        segment_bytes: 1 << 16,
        max_payload_bytes: 1024,
        ..Options::default()
    }
}

fn on_a_runtime<T>(run: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(run)
}

#[test]
fn threads_that_block_each_find_their_frame() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), roomy()).unwrap();
    thread::scope(|scope| {
        for worker in 0..16u64 {
            let journal = journal.clone();
            scope.spawn(move || {
                for round in 0..50u64 {
                    let bytes = [worker.to_be_bytes(), round.to_be_bytes()].concat();
                    let ticket = journal.append(&bytes).unwrap();
                    journal.wait_blocking(ticket).unwrap();
                    assert!(journal.durable() >= ticket.sequence);
                    assert_eq!(journal.read_one(ticket.sequence).unwrap().unwrap(), bytes);
                }
            });
        }
    });
    assert_eq!(journal.durable(), 800);
    assert_eq!(journal.verify().unwrap().frames, 800);
    assert!(journal.stats().largest_group > 1);
}

#[test]
fn tasks_of_several_runtimes_are_each_woken_by_their_hub() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), roomy()).unwrap();
    thread::scope(|scope| {
        for runtime in 0..2u64 {
            let journal = journal.clone();
            scope.spawn(move || {
                on_a_runtime(async {
                    let waiters = journal.waiters();
                    let hub = tokio::spawn(waiters.run());
                    let tasks: Vec<_> = (0..64u64)
                        .map(|task| {
                            let (journal, waiters) = (journal.clone(), waiters.clone());
                            tokio::spawn(async move {
                                for round in 0..20u64 {
                                    let bytes =
                                        [runtime, task, round].map(u64::to_be_bytes).concat();
                                    let ticket = journal.append(&bytes).unwrap();
                                    waiters.committed(ticket).await.unwrap();
                                    assert!(journal.durable() >= ticket.sequence);
                                    assert_eq!(
                                        journal.read_one(ticket.sequence).unwrap().unwrap(),
                                        bytes
                                    );
                                }
                            })
                        })
                        .collect();
                    for task in tasks {
                        task.await.unwrap();
                    }
                    hub.abort();
                });
            });
        }
    });
    assert_eq!(journal.durable(), 2 * 64 * 20);
}

#[test]
fn the_hub_ends_and_its_waiters_are_told_when_the_journal_closes() {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, small()).unwrap();
    on_a_runtime(async {
        let waiters = journal.waiters();
        let hub = tokio::spawn(waiters.run());
        let ticket = append(&journal, 3, 0);
        // The journal is dropped on another thread, which writes what is pending.
        let closer = thread::spawn(move || drop(journal));
        waiters.committed(ticket).await.unwrap();
        hub.await.unwrap();
        closer.join().unwrap();
        let never = crate::Ticket::at(ticket.sequence + 1);
        assert_eq!(waiters.committed(never).await, Err(AppendError::Closed));
    });
}

#[test]
fn waiters_are_told_when_the_disk_fails() {
    let disk = SimulatedDisk::new();
    let options = Options {
        on_fatal: FatalHook::new(|_| {}),
        ..roomy()
    };
    let (journal, _) = open(&disk, options).unwrap();
    on_a_runtime(async {
        let waiters = journal.waiters();
        let hub = tokio::spawn(waiters.run());
        commit(&journal, 1, 0);
        disk.close_gate();
        let ticket = append(&journal, 1, 0);
        disk.wait_for_sync_at_gate();
        disk.fail_syncs_after(0);
        let waiting = tokio::spawn({
            let waiters = waiters.clone();
            async move { waiters.committed(ticket).await }
        });
        tokio::task::yield_now().await;
        disk.open_gate();
        assert_eq!(waiting.await.unwrap(), Err(AppendError::Closed));
        hub.await.unwrap();
    });
}

#[test]
fn a_waiter_that_is_dropped_leaves_nothing_behind() {
    let disk = SimulatedDisk::new();
    let (journal, _) = open(&disk, small()).unwrap();
    on_a_runtime(async {
        let waiters = journal.waiters();
        disk.close_gate();
        let ticket = append(&journal, 1, 0);
        let waiting = tokio::spawn({
            let waiters = waiters.clone();
            async move { waiters.committed(ticket).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(waiters.pending(), 1);
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert_eq!(waiters.pending(), 0);
        disk.open_gate();
    });
    commit(&journal, 1, 0);
    check_content(&journal, 0);
}
