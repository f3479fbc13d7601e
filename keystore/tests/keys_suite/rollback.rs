//! What the audit trail knows finds records that were rolled back or planted.

use fieldkeep_keystore::{error::KeystoreError, info::Change, store::Store};

use crate::fixture::*;

async fn rolled_back(keystore: &fieldkeep_keystore::keystore::Keystore, change: &Change) {
    let error = keystore.check_change(change).await.unwrap_err();
    assert!(
        matches!(error, KeystoreError::RolledBack { .. }),
        "{change:?}: {error}"
    );
}

#[tokio::test]
async fn every_kind_of_change_checks_and_is_missed_when_rolled_back() {
    let (store, keystore) = with_key().await;
    let (tenant, key) = (name("default"), name("pii"));
    let mut history = vec![(dump(&*store).await, Vec::new())];
    for step in 0..7 {
        let changes = match step {
            0 | 3 => {
                keystore
                    .rotate_key(&tenant, &key, operation(), NOW)
                    .await
                    .unwrap()
                    .changes
            }
            1 => {
                keystore
                    .set_version_enabled(&tenant, &key, 1, false, operation(), NOW)
                    .await
                    .unwrap()
                    .changes
            }
            2 => {
                keystore
                    .create_tenant(&name("acme"), operation(), NOW)
                    .await
                    .unwrap()
                    .changes
            }
            4 => {
                keystore
                    .change_system_record("sys/role/a/b", None, Some(b"data"), operation(), NOW)
                    .await
                    .unwrap()
                    .changes
            }
            5 => {
                keystore
                    .change_system_record("sys/role/a/b", Some(1), None, operation(), NOW)
                    .await
                    .unwrap()
                    .changes
            }
            _ => {
                keystore
                    .create_key(&name("acme"), &key, SUITE.into(), operation(), NOW)
                    .await
                    .unwrap()
                    .changes
            }
        };
        assert!(!changes.is_empty());
        history.push((dump(&*store).await, changes));
    }
    for (_, changes) in &history {
        for change in changes {
            keystore.check_change(change).await.unwrap();
        }
    }
    for at in 1..history.len() {
        let before = open(restore(&history[at - 1].0).await).await;
        for change in &history[at].1 {
            rolled_back(&before, change).await;
        }
    }
    let deleted = &history[6].1[0];
    assert_eq!((deleted.generation, deleted.digest), (2, None));
}

#[tokio::test]
async fn a_single_record_put_back_is_found() {
    let (store, keystore) = with_key().await;
    let (tenant, key) = (name("default"), name("pii"));
    let old = dump(&*store).await;
    let disabled = keystore
        .set_key_enabled(&tenant, &key, false, operation(), NOW)
        .await
        .unwrap();
    let change = &disabled.changes[0];
    assert_eq!(change.store_key, "k/default/pii");
    assert_eq!(change.generation, 2);
    put(&*store, b"k/default/pii", &old[b"k/default/pii".as_slice()]).await;
    rolled_back(&open(store).await, change).await;
}

#[tokio::test]
async fn another_record_of_the_same_generation_is_found() {
    let (store, keystore) = with_key().await;
    let (tenant, key) = (name("default"), name("pii"));
    let fork = restore(&dump(&*store).await).await;
    let known = keystore
        .rotate_key(&tenant, &key, operation(), NOW)
        .await
        .unwrap();
    open(fork.clone())
        .await
        .rotate_key(&tenant, &key, operation(), NOW + 1)
        .await
        .unwrap();
    let fork = open(fork).await;
    for change in &known.changes {
        rolled_back(&fork, change).await;
    }
}

#[tokio::test]
async fn a_missing_record_is_found_and_a_newer_one_is_fine() {
    let (store, keystore) = with_key().await;
    let (tenant, key) = (name("default"), name("pii"));
    let first = keystore
        .rotate_key(&tenant, &key, operation(), NOW)
        .await
        .unwrap();
    rotate(&keystore, "default", "pii").await;
    for change in &first.changes {
        keystore.check_change(change).await.unwrap();
    }
    remove(&*store, b"k/default/pii").await;
    let change = first
        .changes
        .iter()
        .find(|change| change.store_key == "k/default/pii")
        .unwrap();
    let error = keystore.check_change(change).await.unwrap_err();
    assert!(
        matches!(
            error,
            KeystoreError::RolledBack {
                expected: 2,
                found: None,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_deletion_undone_is_found() {
    let (store, keystore) = init().await;
    let key = "sys/role/a/b";
    keystore
        .change_system_record(key, None, Some(b"data"), operation(), NOW)
        .await
        .unwrap();
    let old = dump(&*store).await;
    let deleted = keystore
        .change_system_record(key, Some(1), None, operation(), NOW)
        .await
        .unwrap();
    put(&*store, key.as_bytes(), &old[key.as_bytes()]).await;
    rolled_back(&keystore, &deleted.changes[0]).await;
    remove(&*store, key.as_bytes()).await;
    rolled_back(&keystore, &deleted.changes[0]).await;
}

#[tokio::test]
async fn a_rotation_over_a_rolled_back_record_never_reuses_a_version() {
    let (store, keystore) = with_key().await;
    let old = dump(&*store).await;
    rotate(&keystore, "default", "pii").await;
    let version = dump(&*store).await;
    put(&*store, b"k/default/pii", &old[b"k/default/pii".as_slice()]).await;
    let keystore = open(store.clone()).await;
    let error = keystore
        .rotate_key(&name("default"), &name("pii"), operation(), NOW)
        .await
        .unwrap_err();
    assert!(matches!(error, KeystoreError::Damaged(_)), "{error}");
    assert!(error.to_string().contains("rolled back"), "{error}");
    let now = store.scan(b"v/", None, 10).await.unwrap();
    for (key, record) in now {
        assert_eq!(version[&key], record.value);
    }
}
