//! Many fields in one call.

use fieldkeep_client::{
    BatchDecrypt, BatchEncrypt, BatchReEncrypt, DecryptItem, EncryptItem, Error, ErrorKind,
    ReEncryptItem, reason,
};

use crate::fake::Fake;

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
    assert_eq!(opened[0].as_deref(), Ok(&b"a"[..]));
    assert_eq!(
        opened[1].as_ref().unwrap_err().kind(),
        ErrorKind::DecryptionFailed
    );
    assert_eq!(opened[2].as_deref(), Ok(&b"c"[..]));

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

#[tokio::test]
async fn the_largest_batches_pass() {
    let fake = Fake::start().await;
    let client = fake.client();
    let many = BatchEncrypt {
        items: vec![EncryptItem::new("x"); 10_000],
        ..BatchEncrypt::default()
    };
    assert_eq!(client.encrypt_batch(many).await.unwrap().len(), 10_000);
    // 127 values of 64 KiB and their framing are just below 8 MiB.
    let long = BatchEncrypt {
        items: vec![EncryptItem::new(vec![7; 65_536]); 127],
        ..BatchEncrypt::default()
    };
    assert_eq!(client.encrypt_batch(long).await.unwrap().len(), 127);
}

#[tokio::test]
async fn batches_beyond_the_limits_are_refused_before_anything_is_sent() {
    let fake = Fake::start().await;
    let client = fake.client();
    let refused = |error: Error| (error.kind(), error.reason().unwrap().to_owned());
    let too_many = (
        ErrorKind::InvalidArgument,
        reason::BATCH_TOO_LARGE.to_owned(),
    );
    let too_long = (
        ErrorKind::InvalidArgument,
        reason::REQUEST_TOO_LARGE.to_owned(),
    );
    let encrypt = |item: EncryptItem, count| BatchEncrypt {
        items: vec![item; count],
        ..BatchEncrypt::default()
    };
    let decrypt = |item: DecryptItem, count| BatchDecrypt {
        items: vec![item; count],
        ..BatchDecrypt::default()
    };
    let renew = |item: ReEncryptItem, count| BatchReEncrypt {
        items: vec![item; count],
        ..BatchReEncrypt::default()
    };
    let long = vec![0u8; 65_536];
    for (count, item_bytes, expected) in [(10_001, 1, &too_many), (128, 65_536, &too_long)] {
        let value = long[..item_bytes].to_vec();
        let error = client.encrypt_batch(encrypt(EncryptItem::new(value.clone()), count));
        assert_eq!(&refused(error.await.unwrap_err()), expected);
        let error = client.decrypt_batch(decrypt(DecryptItem::new(value.clone()), count));
        assert_eq!(&refused(error.await.unwrap_err()), expected);
        let error = client.reencrypt_batch(renew(ReEncryptItem::new(value), count));
        assert_eq!(&refused(error.await.unwrap_err()), expected);
    }
    assert_eq!(fake.calls().len(), 0);
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
