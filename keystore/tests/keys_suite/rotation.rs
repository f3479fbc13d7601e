//! Rotation policies, planned rotations and retirements.

use std::sync::Arc;

use fieldkeep_keystore::{
    error::{KeyError, KeystoreError},
    info::{KeyCursor, KeySettings},
    keystore::Keystore,
    rotation::{
        plan::{Cause, Next, Replaced},
        policy::{RotationParts, RotationPolicy},
    },
};

use crate::fixture::*;

pub(crate) fn policy(parts: RotationParts) -> Option<RotationPolicy> {
    RotationPolicy::from_parts(parts).unwrap()
}

fn every(period: u64) -> Option<RotationPolicy> {
    policy(RotationParts {
        period: Some(period),
        jitter: Some(0),
        ..RotationParts::default()
    })
}

pub(crate) async fn set(keystore: &Keystore, key: &str, policy: Option<RotationPolicy>) {
    keystore
        .set_rotation(&name("default"), &name(key), policy, operation(), NOW)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_policy_is_kept_told_and_taken_away() {
    let (store, keystore) = with_key().await;
    let (tenant, key) = (name("default"), name("pii"));
    let describe = |keystore: Keystore| async move {
        keystore
            .describe_key(&name("default"), &name("pii"), NOW)
            .await
            .unwrap()
    };
    let before = describe(keystore.clone()).await;
    assert_eq!((before.rotation.as_ref(), before.next), (None, None));
    let old = dump(&*store).await;

    let changed = keystore
        .set_rotation(&tenant, &key, every(60), operation(), NOW)
        .await
        .unwrap();
    keystore.check_change(&changed.changes[0]).await.unwrap();
    let reopened = open(store.clone()).await;
    let info = describe(reopened.clone()).await;
    assert_eq!(info.rotation.as_deref(), every(60).as_ref());
    let next = Next {
        at: Some(NOW + 60),
        cause: Cause::Period,
    };
    assert_eq!(info.next, Some(next));
    let listed = reopened.list_keys(&tenant, None, 9).await.unwrap();
    assert_eq!(listed[0].rotation, info.rotation);

    set(&keystore, "pii", None).await;
    assert_eq!(describe(keystore).await, before);
    let record = &b"k/default/pii"[..];
    let payload = |value: &[u8]| value[8..value.len() - 32].to_vec();
    let new = dump(&*store).await;
    assert_eq!(payload(&old[record]), payload(&new[record]), "the old form");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_planned_rotation_happens_once() {
    let (store, keystore) = with_key().await;
    let (tenant, key) = (name("default"), name("pii"));
    let handle = keystore.key("default", "pii").await.unwrap().handle();
    let planned = keystore.rotation_operation(handle, 1);
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (keystore, tenant, key) = (keystore.clone(), tenant.clone(), key.clone());
            let rotate = async move {
                keystore
                    .rotate_key_from(&tenant, &key, 1, planned, NOW)
                    .await
            };
            tokio::spawn(rotate)
        })
        .collect();
    let mut repeated = 0;
    for task in tasks {
        let changed = task.await.unwrap().unwrap();
        assert_eq!(changed.value.primary, 2);
        repeated += u32::from(changed.repeated);
    }
    assert_eq!(repeated, 15);
    // After a crash, too.
    let keystore = open(store).await;
    let again = keystore
        .rotate_key_from(
            &tenant,
            &key,
            1,
            keystore.rotation_operation(handle, 1),
            NOW,
        )
        .await
        .unwrap();
    assert!(again.repeated && again.value.primary == 2);
    // Another plan for a version that is not primary any more comes to nothing.
    let error = keystore
        .rotate_key_from(&tenant, &key, 1, operation(), NOW)
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        KeystoreError::PrimaryMoved {
            expected: 1,
            primary: 2
        }
    ));
    let key = keystore.key("default", "pii").await.unwrap();
    assert_eq!(key.primary().number(), 2);
    for other in [
        keystore.rotation_operation(handle, 2),
        keystore.retirement_operation(handle, 1),
    ] {
        assert_ne!(other.id, planned.id);
    }
}

#[tokio::test]
async fn retired_versions_do_not_decrypt_and_enabled_ones_stay() {
    let (_, keystore) = with_key().await;
    let (tenant, key) = (name("default"), name("pii"));
    let mut sealed = Vec::new();
    for _ in 0..4 {
        let current = keystore.key("default", "pii").await.unwrap();
        sealed.push(encrypt(current.primary(), b"x"));
        rotate(&keystore, "default", "pii").await;
    }
    let retire = async |through| {
        keystore
            .retire_versions(&tenant, &key, through, operation(), NOW)
            .await
    };
    let opens = async |version: usize| decrypt(&keystore, &sealed[version - 1]).await;
    retire(2).await.unwrap();
    for version in [1, 2] {
        let outcome = opens(version).await;
        assert!(matches!(outcome, Err(KeyError::VersionDisabled)));
    }
    opens(3).await.unwrap();
    keystore
        .set_version_enabled(&tenant, &key, 1, true, operation(), NOW)
        .await
        .unwrap();
    retire(2).await.unwrap();
    opens(1).await.unwrap();
    // Also the primary version is named: it stays.
    retire(5).await.unwrap();
    opens(1).await.unwrap();
    for version in [2, 3, 4] {
        let outcome = opens(version).await;
        assert!(matches!(outcome, Err(KeyError::VersionDisabled)));
    }
    let current = keystore.key("default", "pii").await.unwrap();
    assert_eq!(current.active().unwrap().number(), 5);
    for unknown in [0, 6] {
        let error = retire(unknown).await.unwrap_err();
        assert!(matches!(error, KeystoreError::NoSuchVersion { .. }));
    }
}

#[tokio::test]
async fn candidates_are_all_keys_with_a_policy_of_all_tenants() {
    let (store, keystore) = init().await;
    for tenant in ["acme", "acme-b"] {
        keystore
            .create_tenant(&name(tenant), operation(), NOW)
            .await
            .unwrap();
    }
    let mut expected = Vec::new();
    for tenant in ["acme", "acme-b", "default"] {
        for number in 0..7 {
            let key = format!("key-{number}");
            let policy = (number % 2 == 0).then(|| every(60)).flatten();
            if policy.is_some() {
                expected.push((name(tenant), name(&key)));
            }
            let settings = KeySettings {
                rotation: policy.map(Arc::new),
                ..SUITE.into()
            };
            keystore
                .create_key(&name(tenant), &name(&key), settings, operation(), NOW)
                .await
                .unwrap();
        }
    }
    let record = b"k/acme/key-4";
    let mut damaged = dump(&*store).await[&record[..]].to_vec();
    damaged[9] ^= 1;
    put(&*store, record, &damaged).await;
    expected.retain(|(tenant, key)| (tenant.as_str(), key.as_str()) != ("acme", "key-4"));
    for limit in [1, 4, 7, 21, 22] {
        let (mut found, mut reported) = (Vec::new(), Vec::new());
        let mut cursor: Option<KeyCursor> = None;
        for _ in 0..=22 {
            let page = keystore.candidates(cursor.as_ref(), limit).await.unwrap();
            assert!(page.candidates.len() + page.damaged.len() <= limit);
            found.extend(
                page.candidates
                    .into_iter()
                    .map(|one| (one.tenant, one.name)),
            );
            reported.extend(page.damaged.into_iter().map(|one| one.store_key));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(cursor, None);
        found.sort();
        assert_eq!(found, expected, "{limit} at once");
        assert_eq!(reported, ["k/acme/key-4"]);
    }
}

#[tokio::test]
async fn a_candidate_says_what_the_planner_needs() {
    let (_, keystore) = with_key().await;
    let (tenant, key) = (name("default"), name("pii"));
    assert_eq!(keystore.candidate(&tenant, &key).await.unwrap(), None);
    let parts = RotationParts {
        max_bytes: 100,
        retire_after: Some(5),
        ..RotationParts::default()
    };
    set(&keystore, "pii", policy(parts)).await;
    for at in 1..=3 {
        keystore
            .rotate_key(&tenant, &key, operation(), NOW + 10 * at)
            .await
            .unwrap();
    }
    let current = keystore.key("default", "pii").await.unwrap();
    current.count(2, 30).await.unwrap();
    let candidate = async || {
        let candidate = keystore.candidate(&tenant, &key).await;
        candidate.unwrap().unwrap()
    };
    let first = candidate().await;
    assert_eq!((first.primary, first.rotated), (4, NOW + 30));
    assert_eq!((first.used.messages, first.used.bytes), (2, 30));
    let replaced = |version, since| Some(Replaced { version, since });
    assert_eq!(first.oldest, replaced(1, NOW + 10));
    for (through, next) in [
        (1, replaced(2, NOW + 20)),
        (2, replaced(3, NOW + 30)),
        (3, None),
    ] {
        keystore
            .retire_versions(&tenant, &key, through, operation(), NOW)
            .await
            .unwrap();
        assert_eq!(candidate().await.oldest, next);
    }
}
