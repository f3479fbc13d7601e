//! Counts of use: leased, never less than the truth, exact after a clean stop.

use std::{path::Path, sync::Arc};

use fieldkeep_keystore::{
    error::{KeyError, KeystoreError},
    info::{CacheOptions, Change},
    keystore::Keystore,
    rotation::policy::RotationParts,
    store::{
        Store,
        sled::{SledOptions, SledStore},
    },
};

use crate::{
    fixture::*,
    rotation::{policy, set},
};

/// Version, messages and bytes, newest first.
pub(crate) async fn usage(keystore: &Keystore, key: &str) -> Vec<(u32, u64, u64)> {
    let usage = keystore.usage(&name("default"), &name(key)).await.unwrap();
    usage
        .into_iter()
        .map(|one| (one.number, one.used.messages, one.used.bytes))
        .collect()
}

async fn count(keystore: &Keystore, messages: u64, bytes: u64) {
    let key = keystore.key("default", "pii").await.unwrap();
    key.count(messages, bytes).await.unwrap();
}

#[tokio::test]
async fn counts_are_exact_while_the_keystore_is_open_and_after_a_flush() {
    let (store, keystore) = with_key().await;
    assert_eq!(usage(&keystore, "pii").await, []);
    count(&keystore, 1, 29).await;
    count(&keystore, 3000, 5 << 20).await;
    assert_eq!(usage(&keystore, "pii").await, [(1, 3001, (5 << 20) + 29)]);
    rotate(&keystore, "default", "pii").await;
    count(&keystore, 1, 0).await;
    let exact = [(2, 1, 0), (1, 3001, (5 << 20) + 29)];
    assert_eq!(usage(&keystore, "pii").await, exact);
    let crashed = usage(&open(store.clone()).await, "pii").await;
    assert!(crashed[0].1 > 1 && crashed[0].1 <= 1024 + 1, "a block more");
    keystore.flush_usage().await.unwrap();
    assert_eq!(usage(&open(store.clone()).await, "pii").await, exact);
    // What comes after a flush is counted all the same.
    count(&keystore, 1, 1).await;
    assert!(usage(&open(store).await, "pii").await[0].1 >= 2);
}

#[tokio::test]
async fn a_snapshot_counts_for_its_own_version() {
    let (_, keystore) = with_key().await;
    let old = keystore.key("default", "pii").await.unwrap();
    rotate(&keystore, "default", "pii").await;
    old.count(5, 50).await.unwrap();
    count(&keystore, 7, 70).await;
    assert_eq!(usage(&keystore, "pii").await, [(2, 7, 70), (1, 5, 50)]);
}

#[tokio::test]
async fn a_busy_key_commits_seldom() {
    let (store, keystore) = with_key().await;
    let before = store.revision().await.unwrap();
    let key = keystore.key("default", "pii").await.unwrap();
    for _ in 0..400_000 {
        key.count(1, 100).await.unwrap();
    }
    let commits = store.revision().await.unwrap() - before;
    assert!((4..=20).contains(&commits), "{commits} commits");
    assert_eq!(usage(&keystore, "pii").await, [(1, 400_000, 40_000_000)]);
}

#[tokio::test]
async fn all_who_wait_share_one_commit() {
    let (store, _) = with_key().await;
    let held = HeldStore::new(store.clone());
    let keystore = open(held.clone()).await;
    let key = keystore.key("default", "pii").await.unwrap();
    let before = store.revision().await.unwrap();
    held.hold("u/");
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let key = Arc::clone(&key);
            tokio::spawn(async move { key.count(1000, 100_000).await })
        })
        .collect();
    held.until_waiting(1).await;
    // All that are spawned have come as far as the lease by now: one runtime, one thread.
    tokio::task::yield_now().await;
    held.release();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(store.revision().await.unwrap() - before, 1);
    assert_eq!(usage(&keystore, "pii").await, [(1, 100_000, 10_000_000)]);
}

#[tokio::test]
async fn what_cannot_be_counted_is_refused() {
    let (store, keystore) = with_key().await;
    let key = keystore.key("default", "pii").await.unwrap();
    let error = key.count(1 << 41, 1).await.unwrap_err();
    assert!(matches!(error, KeyError::Uncounted(_)), "{error}");
    key.count(1000, 10).await.unwrap();
    store.close().await.unwrap();
    let error = key.count(5000, 1).await.unwrap_err();
    assert!(matches!(error, KeyError::Uncounted(_)), "{error}");
    keystore.flush_usage().await.unwrap_err();
    let error = key.count(1, 1).await.unwrap_err();
    assert!(
        matches!(error, KeyError::Uncounted(_) | KeyError::Unavailable(_)),
        "{error}"
    );
}

#[tokio::test]
async fn a_changed_record_of_use_is_refused_and_none_is_in_the_trail() {
    let (store, keystore) = with_key().await;
    count(&keystore, 1, 1).await;
    let records = dump(&*store).await;
    let (record, value) = records
        .iter()
        .find(|(key, _)| key.starts_with(b"u/"))
        .unwrap();
    let change = Change {
        store_key: record.clone(),
        generation: 1,
        digest: None,
    };
    let error = keystore.check_change(&change).await.unwrap_err();
    assert!(matches!(error, KeystoreError::Damaged(_)), "{error}");

    let mut changed = value.to_vec();
    changed[8] ^= 1;
    put(&*store, record, &changed).await;
    let keystore = open(store).await;
    let key = keystore.key("default", "pii").await.unwrap();
    let error = key.count(1, 1).await.unwrap_err();
    assert!(matches!(error, KeyError::Damaged(_)), "{error}");
}

#[tokio::test]
async fn whoever_reaches_a_limit_is_noticed_at_once_and_once() {
    let (store, keystore) = with_key().await;
    let limits = |max_messages, max_bytes| {
        policy(RotationParts {
            max_messages,
            max_bytes,
            ..RotationParts::default()
        })
    };
    let pii = vec![(name("default"), name("pii"))];
    set(&keystore, "pii", limits(10, 5000)).await;
    count(&keystore, 9, 10).await;
    assert_eq!(keystore.take_limits_reached(), []);
    count(&keystore, 1, 10).await;
    // It was leased up to the limit; a task of its own finds out.
    let mut reached = Vec::new();
    for _ in 0..100 {
        tokio::task::yield_now().await;
        reached.extend(keystore.take_limits_reached());
    }
    assert_eq!(reached, pii);
    for _ in 0..100 {
        count(&keystore, 100, 100).await;
    }
    assert_eq!(keystore.take_limits_reached(), [], "once");
    rotate(&keystore, "default", "pii").await;
    count(&keystore, 1, 6000).await;
    assert_eq!(keystore.take_limits_reached(), pii, "in one step, by bytes");
    // A limit that is set later, or found at start, is noticed with the next lease.
    set(&keystore, "pii", limits(1, 0)).await;
    let keystore = open(store).await;
    count(&keystore, 1, 1).await;
    assert_eq!(keystore.take_limits_reached(), pii);
}

#[tokio::test]
async fn keys_that_leave_the_cache_give_back_what_is_left() {
    const KEYS: usize = 200;
    let (store, keystore) = init().await;
    let names: Vec<String> = (0..KEYS).map(|n| format!("key-{n}")).collect();
    for key in &names {
        create(&keystore, "default", key).await;
    }
    let options = CacheOptions {
        max_keys: 16,
        ..CacheOptions::default()
    };
    let keystore = Keystore::open(store.clone(), &ROOT, options).await.unwrap();
    for _ in 0..3 {
        for key in &names {
            let key = keystore.key("default", key).await.unwrap();
            key.count(1, 10).await.unwrap();
            tokio::task::yield_now().await;
        }
    }
    assert!(keystore.cache_stats().evictions > 300);
    for key in &names {
        assert_eq!(usage(&keystore, key).await, [(1, 3, 30)]);
    }
    let crashed = open(store.clone()).await;
    let mut leased = 0;
    for key in &names {
        let (_, messages, _) = usage(&crashed, key).await[0];
        assert!(messages >= 3);
        leased += usize::from(messages > 3);
    }
    assert!(leased <= 64, "{leased} keys still hold a block");
    keystore.flush_usage().await.unwrap();
    for key in &names {
        assert_eq!(usage(&crashed, key).await, [(1, 3, 30)]);
    }
}

fn open_sled(dir: &Path) -> Arc<SledStore> {
    let options = SledOptions {
        segment_bytes: 4 << 20,
        ..SledOptions::default()
    };
    Arc::new(SledStore::open(dir, options).unwrap().0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_counts_at_most_a_block_too_much_and_a_clean_stop_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_sled(dir.path());
    let keystore = Keystore::init(store.clone(), &ROOT, NOW).await.unwrap();
    create(&keystore, "default", "pii").await;
    count(&keystore, 100, 1000).await;
    keystore.flush_usage().await.unwrap();
    drop(keystore);
    store.close().await.unwrap();
    drop(store);

    let (mut truth, mut most) = (100, 100);
    for round in 1..=4 {
        let store = open_sled(dir.path());
        let keystore = open(store.clone()).await;
        let (_, messages, _) = usage(&keystore, "pii").await[0];
        assert!(
            (truth..=most).contains(&messages),
            "round {round}: {messages}"
        );
        count(&keystore, 100, 1000).await;
        truth += 100;
        most += 100 + 1024;
        // Neither flushed nor closed.
    }
    let store = open_sled(dir.path());
    let keystore = open(store.clone()).await;
    let before = usage(&keystore, "pii").await;
    count(&keystore, 1, 1).await;
    keystore.flush_usage().await.unwrap();
    drop(keystore);
    store.close().await.unwrap();
    drop(store);
    let store = open_sled(dir.path());
    let after = usage(&open(store.clone()).await, "pii").await;
    assert_eq!(after[0].1, before[0].1 + 1);
    store.close().await.unwrap();
}
