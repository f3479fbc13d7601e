//! Every store keeps every rule of the conformance suite.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use fieldkeep_keystore::store::{
    conformance,
    memory::MemoryStore,
    sled::{SledOptions, SledStore},
};

macro_rules! rules {
    ($($rule:ident),* $(,)?) => {
        mod memory {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    conformance::$rule(Arc::new(MemoryStore::new())).await;
                }
            )*
        }

        mod sled {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    let dir = tempfile::tempdir().unwrap();
                    let options = SledOptions { segment_bytes: 4 << 20, ..SledOptions::default() };
                    let (store, _) = SledStore::open(dir.path(), options).unwrap();
                    conformance::$rule(Arc::new(store)).await;
                }
            )*
        }
    };
}

rules!(
    an_empty_store_has_nothing,
    puts_are_read_back_with_their_revision,
    deletes_remove_and_absent_deletes_change_nothing,
    expectations_hold_or_nothing_happens,
    a_transaction_is_all_or_nothing,
    scans_are_ordered_paged_and_bounded_by_their_prefix,
    a_repeated_operation_gets_its_first_outcome,
    what_became_of_an_operation_can_be_asked,
    operation_ids_are_kept_a_day_and_not_for_ever,
    a_clock_that_was_ahead_forgets_no_operation_ids,
    changes_that_nobody_repeats_are_not_remembered,
    concurrent_increments_lose_nothing,
    concurrent_repeats_happen_once,
    limits_are_enforced,
    a_watch_sees_every_change_in_order,
    a_watch_can_start_in_the_past_and_in_the_future,
    a_watch_that_starts_too_early_is_told,
    a_slow_watcher_is_dropped_between_commits,
    watchers_are_bounded_and_leave,
    a_closed_store_refuses,
);

/// What a store of another crate would call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_suite_runs_as_one() {
    conformance::run(|| async { Arc::new(MemoryStore::new()) as conformance::Subject }).await;
}
