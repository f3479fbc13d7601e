//! What the SDK does beyond single calls, against the real service.

use fieldkeep_client::{
    BatchDecrypt, BatchEncrypt, BatchReEncrypt, DecryptItem, EncryptItem, Error, ErrorKind,
    ReEncryptItem, reason,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::fixture::{APP, Fixture, revoke_all};

fn defaults() -> BatchEncrypt {
    BatchEncrypt {
        key: "pii".into(),
        field: "f".into(),
        ..BatchEncrypt::default()
    }
}

fn numbered(count: u32) -> impl Iterator<Item = EncryptItem> + Send + 'static {
    (0..count).map(|at| EncryptItem::new(at.to_be_bytes().to_vec()))
}

#[tokio::test]
async fn streams_of_the_sdk_feed_each_other() {
    let f = Fixture::start();
    let app = f.app();
    let sealed = app.encrypt_stream(defaults(), stream::iter(numbered(7_500)));
    let sealed: Vec<_> = sealed.map_ok(Result::unwrap).try_collect().await.unwrap();
    f.admin().keys().rotate("pii").await.unwrap();
    let batch = BatchReEncrypt {
        field: "f".into(),
        ..BatchReEncrypt::default()
    };
    let items = sealed
        .into_iter()
        .map(|item| ReEncryptItem::new(item.ciphertext));
    let renewed = app
        .reencrypt_stream(batch, stream::iter(items))
        .map(|result| {
            let renewed = result.unwrap().unwrap();
            assert!(renewed.changed && renewed.version == 2);
            DecryptItem::new(renewed.ciphertext)
        });
    let batch = BatchDecrypt {
        field: "f".into(),
        ..BatchDecrypt::default()
    };
    let mut opened = app.decrypt_stream(batch, renewed);
    for at in 0..7_500u32 {
        let value = opened.next().await.unwrap().unwrap().unwrap();
        assert_eq!(value.plaintext, at.to_be_bytes().to_vec());
    }
    assert!(opened.next().await.is_none());
}

#[tokio::test]
async fn a_right_that_ends_is_told_in_its_place_and_a_stopped_service_ends_the_stream() {
    let f = Fixture::start();
    let app = f.app();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let items = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
    let mut results = app.encrypt_stream(defaults(), items);
    sender.send(EncryptItem::new("x")).unwrap();
    results.next().await.unwrap().unwrap().unwrap();
    revoke_all(&f.admin(), APP).await;
    sender.send(EncryptItem::new("x")).unwrap();
    let error = results.next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.reason, reason::PERMISSION_DENIED);
    let Fixture { server, home, .. } = f;
    server.stop();
    let error = results.next().await.unwrap().unwrap_err();
    assert!(
        matches!(error, Error::Stream { answered: 2, .. }),
        "{error:?}"
    );
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(results.next().await.is_none());
    drop(home);
}

#[tokio::test]
async fn a_batch_that_is_split_meets_no_limit_of_the_service() {
    let f = Fixture::start();
    let app = f.app();
    // More items than a call may have, and more bytes.
    let many = BatchEncrypt {
        items: numbered(20_001).collect(),
        ..defaults()
    };
    let large = BatchEncrypt {
        items: vec![EncryptItem::new(vec![7; 65_536]); 300],
        ..defaults()
    };
    for batch in [many, large] {
        let items = batch.items.clone();
        let sealed = app.encrypt_batch(batch).await.unwrap();
        let batch = BatchDecrypt {
            field: "f".into(),
            items: sealed
                .into_iter()
                .map(|item| DecryptItem::new(item.unwrap().ciphertext))
                .collect(),
            ..BatchDecrypt::default()
        };
        let opened = app.decrypt_batch(batch).await.unwrap();
        assert_eq!(opened.len(), items.len());
        for (value, item) in opened.into_iter().zip(items) {
            assert!(value.unwrap().plaintext == item.plaintext);
        }
    }
}
