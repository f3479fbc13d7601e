//! Streams of fields.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use bytes::Bytes;
use fieldkeep_client::{
    BatchDecrypt, BatchEncrypt, BatchReEncrypt, DecryptItem, EncryptItem, Error, ErrorKind,
    ReEncryptItem, Results, reason,
};
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::Code;

use crate::fake::{Fake, Step, status};

fn defaults() -> BatchEncrypt {
    BatchEncrypt {
        key: "pii".into(),
        field: "f".into(),
        ..BatchEncrypt::default()
    }
}

fn numbered(from: usize, count: usize) -> impl Iterator<Item = EncryptItem> + Send + 'static {
    (from..from + count).map(|at| EncryptItem::new(at.to_string()))
}

/// The next result's ciphertext.
async fn sealed(results: &mut Results<fieldkeep_client::Encrypted>) -> Bytes {
    results.next().await.unwrap().unwrap().unwrap().ciphertext
}

#[tokio::test]
async fn values_go_round_in_order_and_in_large_messages() {
    let fake = Fake::start().await;
    let client = fake.client();
    let ciphertexts: Vec<Bytes> = client
        .encrypt_stream(defaults(), stream::iter(numbered(0, 10_500)))
        .map_ok(|result| result.unwrap().ciphertext)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(fake.calls().len(), 11);
    assert_eq!(fake.accepted(), 1);

    let batch = BatchReEncrypt {
        field: "f".into(),
        ..BatchReEncrypt::default()
    };
    let items = ciphertexts.into_iter().map(ReEncryptItem::new);
    let renewed = client.reencrypt_stream(batch, stream::iter(items));
    let batch = BatchDecrypt {
        field: "f".into(),
        ..BatchDecrypt::default()
    };
    // One stream feeds the other.
    let items = renewed.map(|result| DecryptItem::new(result.unwrap().unwrap().ciphertext));
    let mut opened = client.decrypt_stream(batch, items);
    for at in 0..10_500 {
        let value = opened.next().await.unwrap().unwrap().unwrap();
        assert_eq!(value.plaintext, at.to_string());
    }
    assert!(opened.next().await.is_none());
    assert!(opened.next().await.is_none());
}

#[tokio::test]
async fn a_stream_without_items_ends() {
    let fake = Fake::start().await;
    let mut results = fake
        .client()
        .encrypt_stream(defaults(), stream::iter(numbered(0, 0)));
    assert!(results.next().await.is_none());
    assert_eq!(fake.calls().len(), 0);
}

#[tokio::test]
async fn items_of_the_batch_itself_come_first() {
    let fake = Fake::start().await;
    let mut batch = defaults();
    batch.items = numbered(0, 2).collect();
    let results = fake
        .client()
        .encrypt_stream(batch, stream::iter(numbered(2, 1)));
    let ends: Vec<u8> = results
        .map(|result| *result.unwrap().unwrap().ciphertext.last().unwrap())
        .collect()
        .await;
    assert_eq!(ends, b"012");
}

#[tokio::test]
async fn an_item_is_sent_and_answered_though_no_other_follows() {
    let fake = Fake::start().await;
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut results = fake
        .client()
        .encrypt_stream(defaults(), UnboundedReceiverStream::new(receiver));
    for round in 1..=3 {
        sender.send(EncryptItem::new("x")).unwrap();
        sealed(&mut results).await;
        assert_eq!(fake.calls().len(), round);
    }
    drop(sender);
    assert!(results.next().await.is_none());
}

#[tokio::test]
async fn many_items_that_are_ready_share_a_message_whatever_the_runtimes_budget() {
    let fake = Fake::start().await;
    let (sender, receiver) = mpsc::channel(1000);
    for item in numbered(0, 1000) {
        sender.try_send(item).unwrap();
    }
    drop(sender);
    let results = fake
        .client()
        .encrypt_stream(defaults(), ReceiverStream::new(receiver));
    assert_eq!(results.count().await, 1000);
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test]
async fn failures_of_items_and_messages_are_in_their_places() {
    let fake = Fake::start().await;
    let refused = status(Code::PermissionDenied, "PERMISSION_DENIED", "no");
    fake.script([Step::Answer, Step::Fail(refused)]);
    let items = numbered(0, 3000).enumerate().map(|(at, mut item)| {
        if at == 500 {
            item.key = "missing".into();
        }
        item
    });
    let mut results = fake
        .client()
        .encrypt_stream(defaults(), stream::iter(items));
    for at in 0..3000 {
        let result = results.next().await.unwrap().unwrap();
        match at {
            500 => assert_eq!(result.unwrap_err().reason, reason::KEY_NOT_FOUND),
            1000..2000 => assert_eq!(result.unwrap_err().kind(), ErrorKind::Refused),
            _ => assert!(result.is_ok(), "{at}"),
        }
    }
    assert!(results.next().await.is_none());
}

#[tokio::test]
async fn an_item_that_no_message_can_hold_fails_in_its_place() {
    let fake = Fake::start().await;
    let long = || EncryptItem::new(vec![0; 8 * 1024 * 1024]);
    // Longer than a message usually is, but not too long.
    let large = EncryptItem::new(vec![0; 2 * 1024 * 1024]);
    let mut items = vec![EncryptItem::new("a"), long(), large];
    items.extend((0..20).map(|_| long()));
    let (sender, receiver) = mpsc::unbounded_channel();
    for item in items {
        sender.send(item).unwrap();
    }
    let mut results = fake
        .client()
        .encrypt_stream(defaults(), UnboundedReceiverStream::new(receiver));
    sealed(&mut results).await;
    let error = results.next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.reason, reason::REQUEST_TOO_LARGE);
    sealed(&mut results).await;
    for _ in 0..20 {
        results.next().await.unwrap().unwrap().unwrap_err();
    }
    sender.send(EncryptItem::new("b")).unwrap();
    drop(sender);
    sealed(&mut results).await;
    assert!(results.next().await.is_none());
    assert_eq!(fake.calls().len(), 3);
}

/// An endless stream of items, and how many were taken from it.
fn endless() -> (
    Arc<AtomicUsize>,
    impl futures_util::Stream<Item = EncryptItem> + Send,
) {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let items = stream::repeat_with(move || {
        count.fetch_add(1, Ordering::SeqCst);
        EncryptItem::new("x")
    });
    (taken, items)
}

#[tokio::test]
async fn whoever_takes_no_results_is_not_asked_for_items() {
    let fake = Fake::start().await;
    let client = fake.builder().parallel_batches(3).build().unwrap();
    let (taken, items) = endless();
    let mut results = client.encrypt_stream(defaults(), items);
    assert_eq!(taken.load(Ordering::SeqCst), 0, "nobody asked");
    sealed(&mut results).await;
    fake.arrived(4).await;
    // The one answer that was read made room for a fourth message. However often the test yields, there is no fifth.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fake.calls().len(), 4);
    assert!(taken.load(Ordering::SeqCst) <= 4 * 1000 + 1);
    for _ in 0..1000 {
        sealed(&mut results).await;
    }
    fake.arrived(5).await;
}

#[tokio::test]
async fn dropping_the_results_cancels_the_call_and_lets_go_of_the_items() {
    let fake = Fake::start().await;
    let client = fake.client();
    fake.script([Step::Answer, Step::Hang]);
    let dropped = Arc::new(Notify::new());
    let guard = Guard(Arc::clone(&dropped));
    let items = stream::iter(numbered(0, 1)).chain(stream::poll_fn(move |_| {
        let _held = &guard;
        Poll::Pending
    }));
    let mut results = client.encrypt_stream(defaults(), items);
    sealed(&mut results).await;
    assert!(results.next().now_or_never().is_none());
    drop(results);
    dropped.notified().await;
    // The connection serves on.
    fake.script([]);
    client.field("pii", "f").encrypt(b"x").await.unwrap();
    assert_eq!(fake.accepted(), 1);
}

struct Guard(Arc<Notify>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn a_broken_stream_says_how_much_was_answered_and_ends() {
    for step in [
        Step::Break,
        Step::Fail(status(Code::Unavailable, "SHUTTING_DOWN", "try again")),
    ] {
        let fake = Fake::start().await;
        let client = fake.client();
        fake.script([Step::Answer, Step::Answer, step]);
        let mut results = client.encrypt_stream(defaults(), stream::iter(numbered(0, 5000)));
        let mut came = 0;
        let error = loop {
            match results.next().await.unwrap() {
                Ok(result) => {
                    result.unwrap();
                    came += 1;
                }
                Err(error) => break error,
            }
        };
        let Error::Stream { answered, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(*answered, came);
        assert!(came == 0 || came == 1000 || came == 2000, "{came}");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("the stream broke after {came} results: ")),
            "{text}"
        );
        assert!(results.next().await.is_none());
        assert_eq!(fake.calls().len(), 3, "it is not begun again");
        client.field("pii", "f").encrypt(b"x").await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_to_nobody_fails_at_once() {
    let authority = crate::identities::Authority::make();
    let client = authority.builder("127.0.0.1:1").build().unwrap();
    let mut results = client.encrypt_stream(defaults(), stream::iter(numbered(0, 1)));
    let error = results.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(results.next().await.is_none());
}

#[tokio::test]
async fn an_answer_with_fewer_results_breaks_the_stream() {
    let fake = Fake::start().await;
    let mut batch = defaults();
    batch.field = "short.reply".into();
    let mut results = fake
        .client()
        .encrypt_stream(batch, stream::iter(numbered(0, 2)));
    let error = results.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(results.next().await.is_none());
}
