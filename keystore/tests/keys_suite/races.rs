//! Loads and changes at the same time: what was acknowledged is what every later call sees.

use std::sync::Arc;

use fieldkeep_crypto::ciphertext::Handle;
use fieldkeep_keystore::{error::KeyError, keystore::Keystore};

use crate::fixture::*;

/// A keystore whose store is held at a prefix, with a load of the key under way that has read what is there now.
async fn loading(
    prefix: &str,
) -> (
    Arc<HeldStore>,
    Keystore,
    Handle,
    tokio::task::JoinHandle<u32>,
) {
    let (store, keystore) = with_key().await;
    let handle = keystore.key("default", "pii").await.unwrap().handle();
    let held = HeldStore::new(store);
    let keystore = open(held.clone()).await;
    held.hold(prefix);
    let load = {
        let keystore = keystore.clone();
        tokio::spawn(async move {
            let key = keystore.key_by_handle(handle).await.unwrap();
            key.primary().number()
        })
    };
    held.until_waiting(1).await;
    // The load has read and waits; later reads are not held.
    held.hold("nothing");
    (held, keystore, handle, load)
}

#[tokio::test]
async fn a_load_that_read_before_a_rotation_does_not_stay() {
    let (held, keystore, handle, load) = loading("k/").await;
    assert_eq!(rotate(&keystore, "default", "pii").await, 2);
    held.release();
    let seen = load.await.unwrap();
    assert_eq!(seen, 1, "the load had read the record before the rotation");
    // The rotation was acknowledged, so everything from here on sees it.
    let key = keystore.key_by_handle(handle).await.unwrap();
    assert_eq!(key.primary().number(), 2);
    let key = keystore.key("default", "pii").await.unwrap();
    assert_eq!(key.primary().number(), 2);
}

#[tokio::test]
async fn a_load_that_read_before_a_disable_does_not_stay() {
    let (held, keystore, handle, load) = loading("k/").await;
    keystore
        .set_key_enabled(&name("default"), &name("pii"), false, operation(), NOW)
        .await
        .unwrap();
    held.release();
    load.await.unwrap();
    let key = keystore.key_by_handle(handle).await.unwrap();
    assert!(matches!(key.active(), Err(KeyError::KeyDisabled)));
}

#[tokio::test]
async fn those_who_ask_after_the_acknowledgement_do_not_wait_for_the_stale_load() {
    let (held, keystore, handle, load) = loading("k/").await;
    assert_eq!(rotate(&keystore, "default", "pii").await, 2);
    let ask = {
        let keystore = keystore.clone();
        tokio::spawn(async move {
            let key = keystore.key_by_handle(handle).await.unwrap();
            key.primary().number()
        })
    };
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(ask.is_finished(), "it waits for the stale load");
    assert_eq!(ask.await.unwrap(), 2);
    held.release();
    load.await.unwrap();
    let key = keystore.key_by_handle(handle).await.unwrap();
    assert_eq!(key.primary().number(), 2, "the stale load changed nothing");
}

#[tokio::test]
async fn a_change_whose_caller_goes_away_is_still_published() {
    let (store, _) = with_key().await;
    let held = HeldStore::new(store);
    let keystore = open(held.clone()).await;
    let handle = keystore.key("default", "pii").await.unwrap().handle();
    let mut committed = held.committed.subscribe();
    committed.mark_unchanged();
    let taken = held.commit_permits.forget_permits(usize::MAX >> 4);
    assert!(taken > 0);
    let caller = {
        let keystore = keystore.clone();
        tokio::spawn(async move { rotate(&keystore, "default", "pii").await })
    };
    committed.changed().await.unwrap();
    // Committed, and not answered yet: the caller is dropped here.
    caller.abort();
    caller.await.unwrap_err();
    held.commit_permits.add_permits(taken);
    // The change goes on without its caller, on this same thread.
    let mut number = 0;
    for _ in 0..1000 {
        number = keystore
            .key_by_handle(handle)
            .await
            .unwrap()
            .primary()
            .number();
        if number == 2 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(number, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_goes_back_to_an_older_version_under_load_and_eviction() {
    let (store, _) = with_key().await;
    let options = fieldkeep_keystore::info::CacheOptions {
        // So small that the key comes and goes.
        max_keys: 2,
        ..Default::default()
    };
    let keystore = Keystore::open(store, &ROOT, options).await.unwrap();
    for n in 0..8 {
        create(&keystore, "default", &format!("other-{n}")).await;
    }
    let acknowledged = Arc::new(std::sync::atomic::AtomicU32::new(1));
    let readers: Vec<_> = (0..6)
        .map(|reader| {
            let (keystore, acknowledged) = (keystore.clone(), acknowledged.clone());
            tokio::spawn(async move {
                use std::sync::atomic::Ordering::SeqCst;
                while acknowledged.load(SeqCst) < 300 {
                    let least = acknowledged.load(SeqCst);
                    let key = keystore.key("default", "pii").await.unwrap();
                    assert!(key.primary().number() >= least, "older than acknowledged");
                    let ciphertext = encrypt(key.primary(), b"x");
                    assert_eq!(decrypt(&keystore, &ciphertext).await.unwrap(), b"x");
                    let other = format!("other-{}", reader % 8);
                    keystore.key("default", &other).await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for expected in 2..=300 {
        assert_eq!(rotate(&keystore, "default", "pii").await, expected);
        acknowledged.store(expected, std::sync::atomic::Ordering::SeqCst);
    }
    for reader in readers {
        reader.await.unwrap();
    }
}
