//! Faults on request.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::time::Duration;

use fieldkeep_client::{
    BatchDecrypt, BatchEncrypt, Client, DecryptItem, EncryptItem, Error, ErrorKind, Faults,
    Fieldkeep,
};
use futures_util::{StreamExt as _, stream};

use crate::fake::Fake;

async fn double() -> Client {
    Fieldkeep::in_memory().key("pii").client().await.unwrap()
}

/// The kinds of the next outcomes; `None`: it succeeded.
async fn outcomes(client: &Client, calls: usize) -> Vec<Option<ErrorKind>> {
    let mut kinds = Vec::new();
    for _ in 0..calls {
        let outcome = client.field("pii", "f").encrypt(b"x").await;
        kinds.push(outcome.err().map(|error| error.kind()));
    }
    kinds
}

#[tokio::test]
async fn every_kind_can_be_had_once_and_is_not_tried_away() {
    let kinds = [
        ErrorKind::Connect,
        ErrorKind::Refused,
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::InvalidArgument,
        ErrorKind::DecryptionFailed,
        ErrorKind::FailedPrecondition,
        ErrorKind::Conflict,
        ErrorKind::ResourceExhausted,
        ErrorKind::Unavailable,
        ErrorKind::DeadlineExceeded,
        ErrorKind::Internal,
    ];
    let faults = kinds
        .iter()
        .fold(Faults::new(), |faults, kind| faults.fail_next(*kind));
    let client = double().await.with_faults(faults);
    let mut expected: Vec<_> = kinds.map(Some).to_vec();
    expected.push(None);
    assert_eq!(outcomes(&client, kinds.len() + 1).await, expected);
}

#[tokio::test]
async fn every_nth_call_fails_and_clones_count_together() {
    let client = double()
        .await
        .with_faults(Faults::new().fail_every(3, ErrorKind::Unavailable));
    let (failed, fine) = (Some(ErrorKind::Unavailable), None);
    assert_eq!(outcomes(&client, 4).await, [fine, fine, failed, fine]);
    assert_eq!(outcomes(&client.clone(), 3).await, [fine, failed, fine]);
}

#[tokio::test]
async fn some_calls_fail_and_the_same_ones_for_the_same_seed() {
    let base = double().await;
    let run = |seed| {
        let faults = Faults::new().seed(seed).fail_some(30, ErrorKind::Conflict);
        let client = base.with_faults(faults);
        async move { outcomes(&client, 300).await }
    };
    let first = run(1).await;
    assert_eq!(first, run(1).await);
    assert_ne!(first, run(2).await);
    let failed = first.iter().flatten().count();
    assert!((50..130).contains(&failed), "{failed}");
}

#[tokio::test]
async fn damaged_values_fail_alone_in_batches_and_streams() {
    let sound = double().await;
    let batch = BatchEncrypt {
        key: "pii".into(),
        field: "good".into(),
        items: (0..4)
            .map(|at| {
                let mut item = EncryptItem::new("x");
                if at % 2 == 1 {
                    item.field = "bad".into();
                }
                item
            })
            .collect(),
        ..BatchEncrypt::default()
    };
    let items: Vec<DecryptItem> = sound
        .encrypt_batch(batch)
        .await
        .unwrap()
        .into_iter()
        .enumerate()
        .map(|(at, sealed)| {
            let mut item = DecryptItem::new(sealed.unwrap().ciphertext);
            if at % 2 == 1 {
                item.field = "bad".into();
            }
            item
        })
        .collect();
    let client = sound.with_faults(Faults::new().decrypt_fails_for("bad"));
    let batch = BatchDecrypt {
        field: "good".into(),
        ..BatchDecrypt::default()
    };
    let opened = client
        .decrypt_batch(BatchDecrypt {
            items: items.clone(),
            ..batch.clone()
        })
        .await
        .unwrap();
    let streamed: Vec<_> = client
        .decrypt_stream(batch, stream::iter(items))
        .map(Result::unwrap)
        .collect()
        .await;
    for results in [opened, streamed] {
        for (at, result) in results.into_iter().enumerate() {
            let kind = result.err().map(|error| error.kind());
            let expected = (at % 2 == 1).then_some(ErrorKind::DecryptionFailed);
            assert_eq!(kind, expected, "{at}");
        }
    }
}

#[tokio::test]
async fn a_fault_breaks_a_stream_at_its_message() {
    let faults = Faults::new().fail_every(2, ErrorKind::Unavailable);
    let client = double().await.with_faults(faults);
    let batch = BatchEncrypt {
        key: "pii".into(),
        field: "f".into(),
        ..BatchEncrypt::default()
    };
    let items = stream::iter((0..3000).map(|_| EncryptItem::new("x")));
    let results: Vec<_> = client.encrypt_stream(batch, items).collect().await;
    assert_eq!(results.len(), 1001);
    let Err(Error::Stream { answered, source }) = &results[1000] else {
        panic!("{:?}", results[1000]);
    };
    assert_eq!((*answered, source.kind()), (1000, ErrorKind::Unavailable));
}

#[tokio::test]
async fn a_delay_counts_for_the_deadline() {
    let client = double().await;
    let delay = Duration::from_millis(20);
    let slow = client.with_faults(Faults::new().delay(delay));
    let begun = std::time::Instant::now();
    slow.field("pii", "f").encrypt(b"x").await.unwrap();
    assert!(begun.elapsed() >= delay);
    let slow = client.with_faults(Faults::new().delay(Duration::from_secs(3600)));
    let short = slow.field("pii", "f").timeout(Duration::from_millis(10));
    let error = short.encrypt(b"x").await.unwrap_err();
    assert_eq!(error.to_string(), "no reply within 10 ms");
}

#[tokio::test]
async fn a_client_of_a_service_has_faults_too() {
    let fake = Fake::start().await;
    let faults = Faults::new()
        .fail_next(ErrorKind::Unavailable)
        .lose_next_reply();
    let client = fake.client().with_faults(faults);
    let field = client.field("pii", "f");
    field.encrypt(b"x").await.unwrap_err();
    assert_eq!(fake.calls().len(), 0, "it was not made");
    let error = field.encrypt(b"x").await.unwrap_err();
    assert!(matches!(error, Error::ConnectionLost { .. }), "{error:?}");
    assert_eq!(fake.calls().len(), 1, "it was carried out");
    field.encrypt(b"x").await.unwrap();
}
