//! Records of the system: conditional changes, tombstones, pages.

use fieldkeep_keystore::error::KeystoreError;

use crate::fixture::*;

#[tokio::test]
async fn generations_go_on_over_a_deletion() {
    let (store, keystore) = init().await;
    let key = "sys/role/acme/app";
    assert_eq!(keystore.system_record(key).await.unwrap(), None);
    let mut expected = None;
    for generation in [1, 3, 5] {
        keystore
            .change_system_record(key, expected, Some(b"data"), operation(), NOW)
            .await
            .unwrap();
        let record = keystore.system_record(key).await.unwrap().unwrap();
        assert_eq!(
            (&*record.payload, record.generation),
            (&b"data"[..], generation)
        );
        let deleted = keystore
            .change_system_record(key, Some(generation), None, operation(), NOW)
            .await
            .unwrap();
        assert_eq!(deleted.changes[0].generation, generation + 1);
        assert_eq!(keystore.system_record(key).await.unwrap(), None);
        expected = None;
    }
    let again = open(store).await;
    assert_eq!(again.system_record(key).await.unwrap(), None);
}

#[tokio::test]
async fn a_change_wants_the_generation_that_it_was_computed_from() {
    let (_, keystore) = init().await;
    let key = "sys/ca";
    let change = |expected, payload: &'static [u8]| {
        let keystore = keystore.clone();
        async move {
            keystore
                .change_system_record(key, expected, Some(payload), operation(), NOW)
                .await
        }
    };
    let refused = |outcome: Result<_, KeystoreError>| {
        let error = outcome.unwrap_err();
        assert!(matches!(error, KeystoreError::Conflict { .. }), "{error}");
    };
    refused(change(Some(1), b"too early").await);
    change(None, b"one").await.unwrap();
    refused(change(None, b"twice").await);
    refused(change(Some(2), b"ahead").await);
    change(Some(1), b"two").await.unwrap();
    refused(change(Some(1), b"behind").await);
    let record = keystore.system_record(key).await.unwrap().unwrap();
    assert_eq!((&*record.payload, record.generation), (&b"two"[..], 2));
}

#[tokio::test]
async fn a_repeated_change_is_no_conflict() {
    let (_, keystore) = init().await;
    let (make, remove) = (operation(), operation());
    for round in 0..2 {
        let made = keystore
            .change_system_record("sys/a", None, Some(b"x"), make, NOW)
            .await
            .unwrap();
        assert_eq!((made.repeated, made.changes.len()), (round == 1, 1 - round));
    }
    for round in 0..2 {
        let removed = keystore
            .change_system_record("sys/a", Some(1), None, remove, NOW)
            .await
            .unwrap();
        assert_eq!(
            (removed.repeated, removed.changes.len()),
            (round == 1, 1 - round)
        );
    }
    assert_eq!(keystore.system_record("sys/a").await.unwrap(), None);
}

#[tokio::test]
async fn pages_skip_what_was_deleted() {
    let (_, keystore) = init().await;
    for n in 0..30 {
        let key = format!("sys/role/{n:02}");
        keystore
            .change_system_record(&key, None, Some(key.as_bytes()), operation(), NOW)
            .await
            .unwrap();
        if n % 3 != 0 {
            keystore
                .change_system_record(&key, Some(1), None, operation(), NOW)
                .await
                .unwrap();
        }
    }
    keystore
        .change_system_record("sys/rolex", None, Some(b"x"), operation(), NOW)
        .await
        .unwrap();
    let mut all = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = keystore
            .system_records("sys/role/", after.as_deref(), 4)
            .await
            .unwrap();
        for (key, record) in &page {
            assert_eq!(&*record.payload, key.as_bytes());
        }
        let end = page.len() < 4;
        after = page.last().map(|(key, _)| key.clone());
        all.extend(page.into_iter().map(|(key, _)| key));
        if end {
            break;
        }
    }
    let expected: Vec<String> = (0..30)
        .step_by(3)
        .map(|n| format!("sys/role/{n:02}"))
        .collect();
    assert_eq!(all, expected);
    assert_eq!(
        keystore
            .system_records("sys/", None, 100)
            .await
            .unwrap()
            .len(),
        11
    );
}

#[tokio::test]
async fn names_and_sizes_are_bounded() {
    let (_, keystore) = init().await;
    for key in [
        "",
        "sys/",
        "role/a",
        "sys/A",
        "sys/a b",
        "t/default",
        "sys/\u{e9}",
    ] {
        let error = keystore.system_record(key).await.unwrap_err();
        assert!(matches!(error, KeystoreError::InvalidSystemKey(_)), "{key}");
        let error = keystore
            .change_system_record(key, None, Some(b"x"), operation(), NOW)
            .await
            .unwrap_err();
        assert!(matches!(error, KeystoreError::InvalidSystemKey(_)), "{key}");
    }
    let longest = vec![1; 4055];
    keystore
        .change_system_record("sys/a", None, Some(&longest), operation(), NOW)
        .await
        .unwrap();
    let record = keystore.system_record("sys/a").await.unwrap().unwrap();
    assert_eq!(record.payload, longest);
    let error = keystore
        .change_system_record("sys/b", None, Some(&[1; 4056]), operation(), NOW)
        .await
        .unwrap_err();
    assert!(
        matches!(error, KeystoreError::TooLarge { limit: 4055, .. }),
        "{error}"
    );
}
