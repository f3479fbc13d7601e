//! The same over the store that keeps things: what was acknowledged is there after a reopen.

use std::{path::Path, sync::Arc};

use fieldkeep_keystore::store::{
    Store,
    sled::{SledOptions, SledStore},
};

use crate::{fixture::*, hierarchy, tampering};

fn open_store(dir: &Path) -> Arc<SledStore> {
    let options = SledOptions {
        segment_bytes: 4 << 20,
        ..SledOptions::default()
    };
    Arc::new(SledStore::open(dir, options).unwrap().0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn round_trip_and_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    hierarchy::round_trip(store.clone()).await;
    store.close().await.unwrap();
    let before = dump_closed(store, dir.path()).await;
    assert_eq!(before.len(), 4 + 2 + 2 + 8);
}

async fn dump_closed(store: Arc<SledStore>, dir: &Path) -> Records {
    drop(store);
    let store = open_store(dir);
    let keystore = open(store.clone()).await;
    for tenant in ["default", "acme"] {
        let key = keystore.key(tenant, "pii").await.unwrap();
        assert_eq!(key.primary().number(), 4);
        key.version(1).await.unwrap();
    }
    let records = dump(&*store).await;
    store.close().await.unwrap();
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_rotations_are_all_there_after_a_reopen() {
    const TASKS: u32 = 16;
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let keystore = fieldkeep_keystore::keystore::Keystore::init(store.clone(), &ROOT, NOW)
        .await
        .unwrap();
    create(&keystore, "default", "pii").await;
    let first = keystore.key("default", "pii").await.unwrap();
    let ciphertext = encrypt(first.primary(), b"kept");
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let keystore = keystore.clone();
            tokio::spawn(async move { rotate(&keystore, "default", "pii").await })
        })
        .collect();
    let mut made = Vec::new();
    for task in tasks {
        made.push(task.await.unwrap());
    }
    made.sort_unstable();
    assert_eq!(made, (2..=TASKS + 1).collect::<Vec<_>>());
    drop((keystore, first));
    store.close().await.unwrap();
    drop(store);

    let store = open_store(dir.path());
    let keystore = open(store.clone()).await;
    let key = keystore.key("default", "pii").await.unwrap();
    assert_eq!(key.primary().number(), TASKS + 1);
    assert_eq!(decrypt(&keystore, &ciphertext).await.unwrap(), b"kept");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_operations_and_changes_survive_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let keystore = fieldkeep_keystore::keystore::Keystore::init(store.clone(), &ROOT, NOW)
        .await
        .unwrap();
    create(&keystore, "default", "pii").await;
    let (tenant, key) = (name("default"), name("pii"));
    let operation = operation();
    let first = keystore
        .rotate_key(&tenant, &key, operation, NOW)
        .await
        .unwrap();
    drop(keystore);
    store.close().await.unwrap();
    drop(store);

    let store = open_store(dir.path());
    let keystore = open(store.clone()).await;
    let again = keystore
        .rotate_key(&tenant, &key, operation, NOW)
        .await
        .unwrap();
    assert!(again.repeated && again.revision == first.revision);
    assert_eq!(again.value, first.value);
    for change in &first.changes {
        keystore.check_change(change).await.unwrap();
    }
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_record_is_refused() {
    let subject = tampering::subject().await;
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    for (key, value) in &subject.records {
        put(&*store, key, value).await;
    }
    tampering::use_all(store.clone(), &subject).await.unwrap();
    for (key, value) in &subject.records {
        let mut changed = value.to_vec();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        put(&*store, key, &changed).await;
        tampering::use_all(store.clone(), &subject)
            .await
            .unwrap_err();
        put(&*store, key, value).await;
    }
    tampering::use_all(store.clone(), &subject).await.unwrap();
    store.close().await.unwrap();
}
