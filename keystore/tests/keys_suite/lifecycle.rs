//! Changes of keys: what they refuse, their retries, and many at once.

use std::collections::BTreeSet;

use fieldkeep_keystore::{
    error::{KeyError, KeystoreError},
    info::{AuditItems, KeySettings},
    keystore::Keystore,
    store::Operation,
};

use crate::fixture::*;

#[tokio::test]
async fn create_describe_and_list() {
    let (_, keystore) = init().await;
    for key in ["b", "a", "c"] {
        create(&keystore, "default", key).await;
    }
    let made = keystore
        .create_key(
            &name("default"),
            &name("d"),
            SUITE.into(),
            operation(),
            NOW + 9,
        )
        .await
        .unwrap();
    assert_eq!((made.value.primary, made.value.enabled), (1, true));
    assert_eq!((made.value.created, made.value.rotated), (NOW + 9, NOW + 9));
    assert_eq!(made.changes.len(), 2);
    let error = keystore
        .create_key(&name("default"), &name("d"), SUITE.into(), operation(), NOW)
        .await
        .unwrap_err();
    assert!(matches!(error, KeystoreError::KeyExists { .. }), "{error}");
    let error = keystore
        .create_key(&name("none"), &name("d"), SUITE.into(), operation(), NOW)
        .await
        .unwrap_err();
    assert!(matches!(error, KeystoreError::TenantNotFound(_)), "{error}");

    let page = keystore.list_keys(&name("default"), None, 3).await.unwrap();
    let names: Vec<_> = page.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let page = keystore
        .list_keys(&name("default"), Some("c"), 3)
        .await
        .unwrap();
    assert_eq!(page, [made.value]);

    let described = keystore
        .describe_key(&name("default"), &name("d"), NOW)
        .await
        .unwrap();
    assert_eq!(described.versions.len(), 1);
    let error = keystore
        .describe_key(&name("default"), &name("e"), NOW)
        .await
        .unwrap_err();
    assert!(
        matches!(error, KeystoreError::KeyNotFound { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn keys_of_tenants_whose_names_begin_alike_are_not_mixed() {
    let (_, keystore) = init().await;
    for tenant in ["a", "a-b", "a.b", "ab"] {
        keystore
            .create_tenant(&name(tenant), operation(), NOW)
            .await
            .unwrap();
        create(&keystore, tenant, "k").await;
    }
    let keys = keystore.list_keys(&name("a"), None, 100).await.unwrap();
    assert_eq!(keys.len(), 1);
}

#[tokio::test]
async fn describe_gives_the_newest_thousand_versions() {
    let (_, keystore) = with_key().await;
    let (tenant, key) = (name("default"), name("pii"));
    for expected in 2..=1005 {
        assert_eq!(rotate(&keystore, "default", "pii").await, expected);
    }
    keystore
        .set_version_enabled(&tenant, &key, 1004, false, operation(), NOW)
        .await
        .unwrap();
    let described = keystore.describe_key(&tenant, &key, NOW).await.unwrap();
    let numbers: Vec<u32> = described.versions.iter().map(|one| one.number).collect();
    assert_eq!(numbers, (6..=1005).rev().collect::<Vec<_>>());
    let primaries = described.versions.iter().filter(|one| one.primary).count();
    assert_eq!(primaries, 1);
    assert!(described.versions[0].primary && described.versions[0].enabled);
    assert!(!described.versions[1].enabled);
}

#[tokio::test]
async fn refusals_of_version_changes() {
    let (_, keystore) = with_key().await;
    rotate(&keystore, "default", "pii").await;
    let change = |version, enabled| {
        let keystore = keystore.clone();
        async move {
            let (tenant, key) = (name("default"), name("pii"));
            keystore
                .set_version_enabled(&tenant, &key, version, enabled, operation(), NOW)
                .await
        }
    };
    let error = change(2, false).await.unwrap_err();
    assert!(
        matches!(error, KeystoreError::PrimaryVersion { version: 2 }),
        "{error}"
    );
    for version in [0, 3, u32::MAX] {
        let error = change(version, true).await.unwrap_err();
        assert!(
            matches!(error, KeystoreError::NoSuchVersion { newest: 2, .. }),
            "{error}"
        );
    }
    change(1, false).await.unwrap();
    change(1, false).await.unwrap();
    change(2, true).await.unwrap();
}

#[tokio::test]
async fn a_disabled_key_or_version_refuses_and_comes_back() {
    let (_, keystore) = with_key().await;
    let (tenant, key) = (name("default"), name("pii"));
    let current = keystore.key("default", "pii").await.unwrap();
    let old = encrypt(current.primary(), b"old");
    rotate(&keystore, "default", "pii").await;
    let current = keystore.key("default", "pii").await.unwrap();
    let new = encrypt(current.primary(), b"new");

    keystore
        .set_version_enabled(&tenant, &key, 1, false, operation(), NOW)
        .await
        .unwrap();
    let error = decrypt(&keystore, &old).await.unwrap_err();
    assert!(matches!(error, KeyError::VersionDisabled), "{error}");
    assert_eq!(decrypt(&keystore, &new).await.unwrap(), b"new");

    let changed = keystore
        .set_key_enabled(&tenant, &key, false, operation(), NOW)
        .await
        .unwrap();
    assert!(!changed.value.enabled);
    let disabled = keystore.key("default", "pii").await.unwrap();
    assert!(!disabled.enabled());
    assert!(matches!(disabled.active(), Err(KeyError::KeyDisabled)));
    let error = decrypt(&keystore, &new).await.unwrap_err();
    assert!(matches!(error, KeyError::KeyDisabled), "{error}");

    keystore
        .set_key_enabled(&tenant, &key, true, operation(), NOW)
        .await
        .unwrap();
    keystore
        .set_version_enabled(&tenant, &key, 1, true, operation(), NOW)
        .await
        .unwrap();
    assert_eq!(decrypt(&keystore, &old).await.unwrap(), b"old");
    assert_eq!(decrypt(&keystore, &new).await.unwrap(), b"new");
}

#[tokio::test]
async fn a_repeated_operation_changes_nothing_and_gets_its_first_revision() {
    let (store, keystore) = init().await;
    let (tenant, key) = (name("acme"), name("pii"));
    let operations: [Operation; 5] = std::array::from_fn(|_| operation());
    let mut first = Vec::new();
    for round in 0..2 {
        let made_tenant = keystore
            .create_tenant(&tenant, operations[0], NOW)
            .await
            .unwrap();
        let made_key = keystore
            .create_key(&tenant, &key, SUITE.into(), operations[1], NOW)
            .await
            .unwrap();
        let rotated = keystore
            .rotate_key(&tenant, &key, operations[2], NOW)
            .await
            .unwrap();
        let version = keystore
            .set_version_enabled(&tenant, &key, 1, false, operations[3], NOW)
            .await
            .unwrap();
        let disabled = keystore
            .set_key_enabled(&tenant, &key, false, operations[4], NOW)
            .await
            .unwrap();
        let outcomes = [
            (
                made_tenant.revision,
                made_tenant.repeated,
                made_tenant.changes,
            ),
            (made_key.revision, made_key.repeated, made_key.changes),
            (rotated.revision, rotated.repeated, rotated.changes),
            (version.revision, version.repeated, version.changes),
            (disabled.revision, disabled.repeated, disabled.changes),
        ];
        for (at, (revision, repeated, changes)) in outcomes.into_iter().enumerate() {
            assert_eq!(repeated, round == 1);
            assert_eq!(changes.is_empty(), repeated);
            if round == 0 {
                first.push((revision, dump(&*store).await.len()));
            } else {
                assert_eq!(revision, first[at].0);
            }
        }
        assert_eq!(rotated.value.primary, 2);
        assert_eq!(made_key.value.handle, rotated.value.handle);
    }
    assert_eq!(dump(&*store).await.len(), first[4].1);
}

#[tokio::test]
async fn a_repeated_operation_is_found_although_its_change_would_be_refused_now() {
    let (store, keystore) = with_key().await;
    let (tenant, key) = (name("default"), name("pii"));
    // Enough ranges that one more is refused.
    for _ in 0..514 {
        rotate(&keystore, "default", "pii").await;
    }
    // It has the key as it is now, like a process whose change was committed and not yet published.
    let stale = open(store.clone()).await;
    stale.key("default", "pii").await.unwrap();
    let mut first = None;
    for version in (1..=511).step_by(2) {
        let operation = operation();
        keystore
            .set_version_enabled(&tenant, &key, version, false, operation, NOW)
            .await
            .unwrap();
        first.get_or_insert(operation);
    }
    let largest = dump(&*store).await.values().map(|value| value.len()).max();
    assert!(largest < Some(4096), "{largest:?}");
    let first = first.unwrap();
    let set = |version, enabled, operation| {
        let (keystore, tenant, key) = (keystore.clone(), tenant.clone(), key.clone());
        async move {
            keystore
                .set_version_enabled(&tenant, &key, version, enabled, operation, NOW)
                .await
        }
    };
    let error = set(513, false, operation()).await.unwrap_err();
    assert!(
        matches!(error, KeystoreError::TooManyDisabledRanges { limit: 256 }),
        "{error}"
    );
    // The first change is undone and its range taken by another.
    set(1, true, operation()).await.unwrap();
    set(513, false, operation()).await.unwrap();
    let error = set(1, false, operation()).await.unwrap_err();
    assert!(
        matches!(error, KeystoreError::TooManyDisabledRanges { .. }),
        "{error}"
    );
    assert!(set(1, false, first).await.unwrap().repeated);
    let repeated = stale.set_version_enabled(&tenant, &key, 1, false, first, NOW);
    assert!(repeated.await.unwrap().repeated);
    let held = stale.key("default", "pii").await.unwrap();
    assert!(
        matches!(held.version(513).await, Err(KeyError::VersionDisabled)),
        "the answer was given from what is stored, and so is everything after it"
    );
}

#[tokio::test]
async fn an_operation_id_is_good_for_one_change() {
    let (_, keystore) = with_key().await;
    let (tenant, key) = (name("default"), name("pii"));
    let first = operation();
    keystore
        .rotate_key(&tenant, &key, first, NOW)
        .await
        .unwrap();
    let other = Operation {
        fingerprint: [2; 32],
        ..first
    };
    let error = keystore
        .rotate_key(&tenant, &key, other, NOW)
        .await
        .unwrap_err();
    assert!(matches!(error, KeystoreError::OperationReused), "{error}");
    let error = keystore
        .create_key(&tenant, &name("other"), SUITE.into(), other, NOW)
        .await
        .unwrap_err();
    assert!(matches!(error, KeystoreError::OperationReused), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_rotations_each_make_one_version() {
    const TASKS: u32 = 24;
    let (_, keystore) = with_key().await;
    keystore.key("default", "pii").await.unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let keystore = keystore.clone();
            tokio::spawn(async move {
                let (tenant, key) = (name("default"), name("pii"));
                let rotated = keystore
                    .rotate_key(&tenant, &key, operation(), NOW)
                    .await
                    .unwrap();
                assert!(!rotated.repeated);
                rotated.value.primary
            })
        })
        .collect();
    let mut made = BTreeSet::new();
    for task in tasks {
        made.insert(task.await.unwrap());
    }
    assert_eq!(made, (2..=TASKS + 1).collect());
    let cached = keystore.key("default", "pii").await.unwrap();
    assert_eq!(cached.primary().number(), TASKS + 1);
    let described = keystore
        .describe_key(&name("default"), &name("pii"), NOW)
        .await
        .unwrap();
    assert_eq!(described.versions.len(), TASKS as usize + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_concurrent_creations_one_wins() {
    let (_, keystore) = init().await;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let keystore = keystore.clone();
            tokio::spawn(async move {
                keystore
                    .create_key(
                        &name("default"),
                        &name("pii"),
                        SUITE.into(),
                        operation(),
                        NOW,
                    )
                    .await
            })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => made += 1,
            Err(error) => assert!(matches!(error, KeystoreError::KeyExists { .. }), "{error}"),
        }
    }
    assert_eq!(made, 1);
}

#[tokio::test]
async fn what_the_trail_has_of_items_is_kept_told_and_seen_at_once() {
    let (store, keystore) = with_key().await;
    let (tenant, key) = (name("default"), name("pii"));
    let used = |keystore: Keystore| async move {
        let key = keystore.key("default", "pii").await.unwrap();
        key.audit_items()
    };
    assert_eq!(used(keystore.clone()).await, AuditItems::Counts);
    let set = keystore.set_audit_items(&tenant, &key, AuditItems::Hashes, operation(), NOW);
    let changed = set.await.unwrap();
    assert_eq!(changed.value.audit_items, AuditItems::Hashes);
    assert_eq!(changed.changes.len(), 1);
    assert_eq!(used(keystore.clone()).await, AuditItems::Hashes);
    rotate(&keystore, "default", "pii").await;
    assert_eq!(used(keystore).await, AuditItems::Hashes);

    let reopened = open(store).await;
    assert_eq!(used(reopened.clone()).await, AuditItems::Hashes);
    let settings = KeySettings {
        audit_items: AuditItems::Hashes,
        ..SUITE.into()
    };
    let made = reopened
        .create_key(&tenant, &name("patients"), settings, operation(), NOW)
        .await
        .unwrap();
    assert_eq!(made.value.audit_items, AuditItems::Hashes);
    let listed = reopened.list_keys(&tenant, None, 10).await.unwrap();
    assert!(
        listed
            .iter()
            .all(|key| key.audit_items == AuditItems::Hashes)
    );
}
