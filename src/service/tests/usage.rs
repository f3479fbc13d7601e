//! What is sealed is counted first.

use super::*;
use crate::service::batch::{BatchEncrypt, DecryptItem, EncryptItem};
use crate::service::reencrypt::{BatchReEncrypt, ReEncrypt};

fn batch(items: Vec<Result<EncryptItem, Failure>>) -> BatchEncrypt {
    BatchEncrypt {
        targets: vec![
            (key("pii"), field("email")),
            (key("pii"), field("phone")),
            (key("none"), field("email")),
        ],
        shared: context("42"),
        items,
    }
}

fn item(target: usize, plaintext: &'static [u8]) -> Result<EncryptItem, Failure> {
    Ok(EncryptItem {
        target,
        context: None,
        plaintext: Bytes::from_static(plaintext),
    })
}

fn resealed(ciphertexts: &[&Bytes]) -> BatchReEncrypt {
    let item = |ciphertext: &&Bytes| {
        let item = DecryptItem {
            field: 0,
            context: None,
            ciphertext: (*ciphertext).clone(),
        };
        Ok((item, None))
    };
    BatchReEncrypt {
        fields: vec![field("email")],
        destinations: Vec::new(),
        shared: context("42"),
        items: ciphertexts.iter().map(item).collect(),
    }
}

/// Version, messages and bytes of acme's key `pii`.
async fn usage(f: &Fixture) -> Vec<(u32, u64, u64)> {
    let usage = f.keystore.usage(&name("acme"), &name("pii")).await.unwrap();
    usage
        .iter()
        .map(|version| (version.number, version.used.messages, version.used.bytes))
        .collect()
}

async fn rotate(f: &Fixture) {
    f.keystore
        .rotate_key(&name("acme"), &name("pii"), operation(), NOW)
        .await
        .unwrap();
}

#[tokio::test]
async fn all_that_is_sealed_is_counted_and_no_more() {
    let f = Fixture::make().await;
    let first = f.encrypt("acme/app", b"abc").await.unwrap().ciphertext;
    assert_eq!(usage(&f).await, [(1, 1, 3)]);
    let items = vec![
        item(0, b"12"),
        item(1, b"3456"),
        item(2, b"no such key"),
        Err(Failure::invalid("context", "not valid")),
        item(0, b""),
    ];
    let results = f.perform("acme/app", batch(items)).await.unwrap();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    assert_eq!(usage(&f).await, [(1, 4, 9)]);
    // Current already: it is not sealed again.
    f.perform("acme/app", resealed(&[&first])).await.unwrap();
    assert_eq!(usage(&f).await, [(1, 4, 9)]);
    rotate(&f).await;
    f.perform("acme/app", resealed(&[&first, &first]))
        .await
        .unwrap();
    assert_eq!(usage(&f).await, [(2, 2, 6), (1, 4, 9)]);
}

#[tokio::test]
async fn what_cannot_be_counted_is_not_sealed() {
    let f = Fixture::make().await;
    let sealed = f.encrypt("acme/app", b"x").await.unwrap().ciphertext;
    // The new version is in memory, but has no lease yet.
    rotate(&f).await;
    f.keystore.key("acme", "pii").await.unwrap();
    f.keystore.store().close().await.unwrap();

    let refused = f.encrypt("acme/app", b"x").await.unwrap_err();
    let unavailable = (tonic::Code::Unavailable, "STORE_UNAVAILABLE");
    assert_eq!(refused.verdict(), unavailable);
    let again = ReEncrypt {
        field: field("email"),
        context: context("42"),
        ciphertext: sealed.clone(),
        destination: None,
    };
    let refused = f.perform("acme/app", again).await.unwrap_err();
    assert_eq!(refused.verdict(), unavailable);
    let items = vec![item(0, b"x"), item(1, b"x")];
    for result in f.perform("acme/app", batch(items)).await.unwrap() {
        assert_eq!(result.unwrap_err().verdict(), unavailable);
    }
    for result in f.perform("acme/app", resealed(&[&sealed])).await.unwrap() {
        assert_eq!(result.unwrap_err().verdict(), unavailable);
    }
    // Nothing is counted to decrypt.
    let opened = f.perform("acme/app", decrypt(&sealed)).await;
    assert_eq!(opened, Ok(whole(b"x")));
}
