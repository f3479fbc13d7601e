//! Many fields in one call.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;

use bytes::Bytes;
use fieldkeep_client::{
    BatchDecrypt, BatchEncrypt, BatchReEncrypt, DecryptItem, EncryptItem, Error, ErrorKind,
    ReEncryptItem, reason,
};
use tokio::sync::Notify;
use tonic::Code;

use crate::fake::{Fake, Step, status};

#[tokio::test]
async fn items_succeed_and_fail_by_themselves_in_order() {
    let fake = Fake::start().await;
    let client = fake.client();
    let mut lost = EncryptItem::new("b");
    lost.key = "missing".into();
    let batch = BatchEncrypt {
        key: "pii".into(),
        field: "customer.email".into(),
        context: vec![("table".into(), "c".into())],
        items: vec![
            EncryptItem::new("a"),
            lost,
            EncryptItem::new("c").context("id", "3"),
        ],
    };
    let sealed = client.encrypt_batch(batch).await.unwrap();
    assert_eq!(sealed.len(), 3);
    assert_eq!(sealed[0].as_ref().unwrap().version, 7);
    let error = sealed[1].as_ref().unwrap_err();
    assert_eq!(
        (error.kind(), error.reason.as_str()),
        (ErrorKind::NotFound, reason::KEY_NOT_FOUND)
    );
    assert_eq!(error.to_string(), "there is no key `missing`");

    let first = sealed[0].as_ref().unwrap().ciphertext.clone();
    let third = sealed[2].as_ref().unwrap().ciphertext.clone();
    let batch = BatchDecrypt {
        field: "customer.email".into(),
        context: vec![("table".into(), "c".into())],
        items: vec![
            DecryptItem::new(first.clone()),
            DecryptItem::new(third.clone()),
            DecryptItem::new(third.clone()).context("id", "3"),
        ],
    };
    let opened = client.decrypt_batch(batch).await.unwrap();
    assert_eq!(opened[0].as_ref().unwrap().plaintext, "a");
    assert_eq!(
        opened[1].as_ref().unwrap_err().kind(),
        ErrorKind::DecryptionFailed
    );
    assert_eq!(opened[2].as_ref().unwrap().plaintext, "c");

    let mut moved = ReEncryptItem::new(third.clone()).context("id", "3");
    moved.destination_key = "other".into();
    let batch = BatchReEncrypt {
        field: "customer.email".into(),
        context: vec![("table".into(), "c".into())],
        items: vec![
            ReEncryptItem::new(first.clone()),
            moved,
            ReEncryptItem::new(third),
        ],
        ..BatchReEncrypt::default()
    };
    let renewed = client.reencrypt_batch(batch).await.unwrap();
    assert_eq!(renewed[0].as_ref().unwrap().ciphertext, first);
    assert!(!renewed[0].as_ref().unwrap().changed);
    assert!(renewed[1].as_ref().unwrap().changed);
    assert_eq!(
        renewed[2].as_ref().unwrap_err().kind(),
        ErrorKind::DecryptionFailed
    );
}

/// Batches of `count` values of so many bytes, made, opened and renewed: the results, and how many calls each took.
async fn all_kinds(fake: &Fake, count: usize, bytes: usize) -> Vec<usize> {
    let client = fake.builder().connections(1).build().unwrap();
    let numbered = |at: usize| {
        let mut value = vec![0; bytes];
        value[..8].copy_from_slice(&at.to_be_bytes());
        Bytes::from(value)
    };
    let mut calls = Vec::new();
    let mut taken = fake.calls().len();
    let mut took = || {
        calls.push(fake.calls().len() - taken);
        taken = fake.calls().len();
    };
    let batch = BatchEncrypt {
        field: "f".into(),
        items: (0..count)
            .map(|at| EncryptItem::new(numbered(at)))
            .collect(),
        ..BatchEncrypt::default()
    };
    let sealed = client.encrypt_batch(batch).await.unwrap();
    took();
    let sealed: Vec<Bytes> = sealed
        .into_iter()
        .map(|result| result.unwrap().ciphertext)
        .collect();
    let batch = BatchDecrypt {
        field: "f".into(),
        items: sealed.iter().cloned().map(DecryptItem::new).collect(),
        ..BatchDecrypt::default()
    };
    let opened = client.decrypt_batch(batch).await.unwrap();
    took();
    assert_eq!(opened.len(), count);
    for (at, value) in opened.into_iter().enumerate() {
        assert!(value.unwrap().plaintext == numbered(at), "{at}");
    }
    let batch = BatchReEncrypt {
        field: "f".into(),
        items: sealed.iter().cloned().map(ReEncryptItem::new).collect(),
        ..BatchReEncrypt::default()
    };
    let renewed = client.reencrypt_batch(batch).await.unwrap();
    took();
    for (one, other) in renewed.into_iter().zip(sealed) {
        assert_eq!(one.unwrap().ciphertext, other);
    }
    calls
}

#[tokio::test]
async fn batches_beyond_a_limit_are_split_and_keep_their_order() {
    let fake = Fake::start().await;
    assert_eq!(all_kinds(&fake, 10_000, 8).await, [1, 1, 1]);
    assert_eq!(all_kinds(&fake, 10_001, 8).await, [2, 2, 2]);
    assert_eq!(all_kinds(&fake, 35_000, 8).await, [4, 4, 4]);
    // 127 values of 64 KiB and their framing are just below 8 MiB.
    assert_eq!(all_kinds(&fake, 127, 65_530).await, [1, 1, 1]);
    assert_eq!(all_kinds(&fake, 128, 65_530).await, [2, 2, 2]);
    assert_eq!(all_kinds(&fake, 0, 8).await, [0, 0, 0]);
}

#[tokio::test]
async fn the_limits_of_a_call_are_kept_to_the_byte() {
    let fake = Fake::start().await;
    let client = fake.client();
    // Tag, length of 3 bytes, and the item's own tag and length of 3 bytes: 8 bytes beside the value.
    let batch = |bytes: usize| BatchEncrypt {
        items: vec![EncryptItem::new("a"), EncryptItem::new(vec![7; bytes])],
        ..BatchEncrypt::default()
    };
    let room = 8 * 1024 * 1024 - 5 - 10;
    for (bytes, calls) in [(room, 1), (room + 1, 2)] {
        let before = fake.calls().len();
        client.encrypt_batch(batch(bytes)).await.unwrap();
        assert_eq!(fake.calls().len() - before, calls, "{bytes}");
    }
    for call in fake.calls() {
        assert!(call.bytes <= 8 * 1024 * 1024, "{call:?}");
    }
    assert!(
        fake.calls()
            .iter()
            .any(|call| call.bytes == 8 * 1024 * 1024)
    );
}

#[tokio::test]
async fn an_item_that_no_call_can_hold_fails_by_itself() {
    let fake = Fake::start().await;
    let client = fake.client();
    let long = EncryptItem::new(vec![0; 8 * 1024 * 1024]);
    let batch = BatchEncrypt {
        items: vec![EncryptItem::new("a"), long.clone(), EncryptItem::new("b")],
        ..BatchEncrypt::default()
    };
    let results = client.encrypt_batch(batch).await.unwrap();
    assert!(results[0].is_ok() && results[2].is_ok());
    let error = results[1].as_ref().unwrap_err();
    assert_eq!(error.reason, reason::REQUEST_TOO_LARGE);
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(fake.calls().len(), 2);

    let alone = BatchEncrypt {
        items: vec![long],
        ..BatchEncrypt::default()
    };
    let error = client.encrypt_batch(alone).await.unwrap_err();
    assert_eq!(error.reason(), Some(reason::REQUEST_TOO_LARGE));
    assert_eq!(fake.calls().len(), 2);
}

#[tokio::test]
async fn a_call_that_fails_takes_no_result_of_another_and_ends_the_batch() {
    let fake = Fake::start().await;
    let client = fake.builder().parallel_batches(1).build().unwrap();
    let batch = || BatchEncrypt {
        items: vec![EncryptItem::new("x"); 45_000],
        ..BatchEncrypt::default()
    };
    let refusal = || {
        status(
            Code::PermissionDenied,
            "PERMISSION_DENIED",
            "revoked meanwhile",
        )
    };
    fake.script([Step::Answer, Step::Answer, Step::Fail(refusal())]);
    let results = client.encrypt_batch(batch()).await.unwrap();
    assert_eq!(results.len(), 45_000);
    assert!(results[..20_000].iter().all(Result::is_ok));
    for result in &results[20_000..] {
        let error = result.as_ref().unwrap_err();
        assert_eq!(
            (error.kind(), error.reason.as_str(), error.message.as_str()),
            (
                ErrorKind::Refused,
                reason::PERMISSION_DENIED,
                "revoked meanwhile"
            )
        );
    }
    assert_eq!(fake.calls().len(), 3, "the last two were not begun");

    fake.script([Step::Fail(refusal())]);
    let error = client.encrypt_batch(batch()).await.unwrap_err();
    assert_eq!(error.reason(), Some(reason::PERMISSION_DENIED));
    assert_eq!(fake.calls().len(), 4);
}

#[tokio::test]
async fn so_many_calls_are_under_way_as_are_allowed() {
    let fake = Fake::start().await;
    let client = fake.builder().parallel_batches(3).build().unwrap();
    let go_on = Arc::new(Notify::new());
    fake.script((0..3).map(|_| Step::Wait(Arc::clone(&go_on))));
    let batch = BatchEncrypt {
        items: vec![EncryptItem::new("x"); 50_000],
        ..BatchEncrypt::default()
    };
    let release = async {
        fake.arrived(3).await;
        assert_eq!(fake.calls().len(), 3);
        go_on.notify_waiters();
    };
    let (results, ()) = tokio::join!(client.encrypt_batch(batch), release);
    assert_eq!(results.unwrap().len(), 50_000);
    assert_eq!(fake.calls().len(), 5);
}

#[tokio::test]
async fn a_reply_with_fewer_results_is_refused_as_a_whole() {
    let fake = Fake::start().await;
    let batch = BatchEncrypt {
        field: "short.reply".into(),
        items: vec![EncryptItem::new("a"), EncryptItem::new("b")],
        ..BatchEncrypt::default()
    };
    let error = fake.client().encrypt_batch(batch).await.unwrap_err();
    assert!(matches!(error, Error::Reply { .. }), "{error:?}");
}
