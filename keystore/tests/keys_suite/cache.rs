//! The cache is bounded, loads once, and its snapshots stay what they are.

use std::sync::{Arc, atomic::Ordering};

use fieldkeep_crypto::names::Field;
use fieldkeep_keystore::{info::CacheOptions, keystore::Keystore};

use crate::fixture::*;

async fn open_with(
    store: Arc<dyn fieldkeep_keystore::store::Store>,
    max_keys: usize,
    max_bytes: u64,
) -> Keystore {
    let options = CacheOptions {
        max_keys,
        max_bytes,
        ..CacheOptions::default()
    };
    Keystore::open(store, &ROOT, options).await.unwrap()
}

#[tokio::test]
async fn ten_thousand_keys_through_a_cache_of_a_hundred() {
    let (store, keystore) = init().await;
    let names: Vec<String> = (0..10_000).map(|n| format!("key-{n}")).collect();
    for key in &names {
        create(&keystore, "default", key).await;
    }
    let keystore = open_with(store, 100, 1 << 30).await;
    for key in &names {
        assert_eq!(
            keystore.key("default", key).await.unwrap().name().as_str(),
            key
        );
        assert!(keystore.cache_stats().keys <= 100);
    }
    let stats = keystore.cache_stats();
    assert!(stats.keys > 50, "{stats:?}");
    assert_eq!((stats.misses, stats.hits), (10_000, 0));
    assert_eq!(stats.evictions + stats.keys, 10_000);
}

#[tokio::test]
async fn the_bound_in_bytes_holds_while_keys_grow() {
    const MAX_BYTES: u64 = 512 << 10;
    let (store, keystore) = init().await;
    let names: Vec<String> = (0..1000).map(|n| format!("key-{n}")).collect();
    for key in &names {
        create(&keystore, "default", key).await;
    }
    let keystore = open_with(store, 1_000_000, MAX_BYTES).await;
    for round in 0..4 {
        for key in &names {
            let key = keystore.key("default", key).await.unwrap();
            for field in 0..=round {
                let field = format!("field-{field}");
                let _ = key.primary().field_key(Field::parse(&field).unwrap());
            }
            // The hit that follows counts what has been derived.
            keystore.key_by_handle(key.handle()).await.unwrap();
            let stats = keystore.cache_stats();
            assert!(stats.bytes <= MAX_BYTES, "{stats:?}");
        }
    }
    let stats = keystore.cache_stats();
    assert!(stats.bytes > MAX_BYTES / 2, "{stats:?}");
    assert!(stats.keys > 50 && stats.keys < 1000, "{stats:?}");
}

#[tokio::test]
async fn a_key_with_one_field_takes_between_one_and_two_kib() {
    let (_, keystore) = with_key().await;
    let key = keystore.key("default", "pii").await.unwrap();
    encrypt(key.primary(), b"x");
    keystore.key("default", "pii").await.unwrap();
    let stats = keystore.cache_stats();
    assert_eq!(stats.keys, 1);
    assert!((1024..2048).contains(&stats.bytes), "{stats:?}");
}

#[tokio::test]
async fn a_hundred_concurrent_misses_are_one_load() {
    let (store, _) = with_key().await;
    let held = HeldStore::new(store);
    let keystore = open(held.clone()).await;
    held.hold("k/");
    held.gets.store(0, Ordering::SeqCst);
    let ask = |by_name: bool| {
        let keystore = keystore.clone();
        tokio::spawn(async move {
            if by_name {
                keystore.key("default", "pii").await.unwrap()
            } else {
                let missing = keystore.key("default", "pii").await.unwrap();
                keystore.key_by_handle(missing.handle()).await.unwrap()
            }
        })
    };
    let tasks: Vec<_> = (0..100).map(|n| ask(n % 2 == 0)).collect();
    held.until_waiting(1).await;
    held.release();
    let mut keys = Vec::new();
    for task in tasks {
        keys.push(task.await.unwrap());
    }
    assert!(keys.iter().all(|key| Arc::ptr_eq(key, &keys[0])));
    // The name's record for the handle; then the first version and the key's record.
    assert_eq!(held.gets.load(Ordering::SeqCst), 3);
    keystore.key("default", "pii").await.unwrap();
    keystore.key_by_handle(keys[0].handle()).await.unwrap();
    assert_eq!(held.gets.load(Ordering::SeqCst), 3, "hits read nothing");
}

#[tokio::test]
async fn a_hundred_concurrent_misses_of_an_old_version_are_one_load() {
    let (store, keystore) = with_key().await;
    let current = keystore.key("default", "pii").await.unwrap();
    let old = encrypt(current.primary(), b"old");
    rotate(&keystore, "default", "pii").await;
    let held = HeldStore::new(store);
    let keystore = open(held.clone()).await;
    keystore.key("default", "pii").await.unwrap();
    held.gets.store(0, Ordering::SeqCst);
    held.hold("v/");
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (keystore, old) = (keystore.clone(), old.clone());
            tokio::spawn(async move { decrypt(&keystore, &old).await.unwrap() })
        })
        .collect();
    held.until_waiting(1).await;
    held.release();
    for task in tasks {
        assert_eq!(task.await.unwrap(), b"old");
    }
    assert_eq!(held.gets.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_miss_is_not_remembered_and_a_failed_load_is_tried_again() {
    let (store, keystore) = with_key().await;
    let handle = keystore.key("default", "pii").await.unwrap().handle();
    let version = format!("v/{handle}/00000001");
    let records = dump(&*store).await;
    remove(&*store, version.as_bytes()).await;
    let keystore = open(store.clone()).await;
    keystore.key_by_handle(handle).await.unwrap_err();
    keystore.key("default", "pii").await.unwrap_err();
    put(&*store, version.as_bytes(), &records[version.as_bytes()]).await;
    keystore.key_by_handle(handle).await.unwrap();
    keystore.key("default", "pii").await.unwrap();
}

#[tokio::test]
async fn a_snapshot_serves_all_through_a_thousand_rotations() {
    let (_, keystore) = with_key().await;
    let held = keystore.key("default", "pii").await.unwrap();
    let rotations = {
        let keystore = keystore.clone();
        tokio::spawn(async move {
            for expected in 2..=1001 {
                assert_eq!(rotate(&keystore, "default", "pii").await, expected);
            }
        })
    };
    let mut ciphertexts = Vec::new();
    while !rotations.is_finished() {
        ciphertexts.push(encrypt(held.active().unwrap(), b"steady"));
        tokio::task::yield_now().await;
    }
    rotations.await.unwrap();
    assert!(ciphertexts.len() > 10);
    assert_eq!(held.primary().number(), 1);
    assert_eq!(
        decrypt_with(&held, &ciphertexts[0]).await.unwrap(),
        b"steady"
    );
    let newest = keystore.key("default", "pii").await.unwrap();
    assert_eq!(newest.primary().number(), 1001);
    for ciphertext in ciphertexts.iter().step_by(50) {
        assert_eq!(decrypt(&keystore, ciphertext).await.unwrap(), b"steady");
    }
}

#[tokio::test]
async fn a_rotation_of_a_cached_key_makes_nobody_read() {
    let (store, _) = with_key().await;
    let held = HeldStore::new(store);
    let keystore = open(held.clone()).await;
    let key = keystore.key("default", "pii").await.unwrap();
    let old = encrypt(key.primary(), b"old");
    rotate(&keystore, "default", "pii").await;
    held.gets.store(0, Ordering::SeqCst);
    let key = keystore.key("default", "pii").await.unwrap();
    let new = encrypt(key.primary(), b"new");
    assert_eq!(decrypt(&keystore, &old).await.unwrap(), b"old");
    assert_eq!(decrypt(&keystore, &new).await.unwrap(), b"new");
    assert_eq!(held.gets.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn many_old_versions_stay_within_their_bound() {
    let (store, keystore) = with_key().await;
    let mut ciphertexts = Vec::new();
    for number in 1..=200_u32 {
        let key = keystore.key("default", "pii").await.unwrap();
        ciphertexts.push((number, encrypt(key.primary(), &number.to_be_bytes())));
        rotate(&keystore, "default", "pii").await;
    }
    for keystore in [keystore, open(store).await] {
        for (number, ciphertext) in &ciphertexts {
            assert_eq!(
                decrypt(&keystore, ciphertext).await.unwrap(),
                number.to_be_bytes()
            );
        }
        keystore.key("default", "pii").await.unwrap();
        let stats = keystore.cache_stats();
        // 64 older versions and the primary, each with at most one field key.
        assert!(stats.bytes < 90 << 10, "{stats:?}");
    }
}
