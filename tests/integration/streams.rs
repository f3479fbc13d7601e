//! Streams through the generated client, past the SDK.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fieldkeep_proto::v1::field_service_client::FieldServiceClient;
use fieldkeep_proto::v1::{
    AuditRecord, BatchDecryptRequest, BatchEncryptRequest, BatchReEncryptRequest, DecryptItem,
    EncryptItem, EncryptStreamResponse, ReEncryptItem,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use tonic_types::StatusExt as _;

use crate::{
    fixture::{APP, Fixture, revoke_all},
    transport::channel,
};

async fn field_service(f: &Fixture) -> FieldServiceClient<Channel> {
    let channel = channel(f.server.data, &f.home, Some(&f.app_identity))
        .await
        .unwrap();
    FieldServiceClient::new(channel)
        .max_encoding_message_size(64 << 20)
        .max_decoding_message_size(64 << 20)
}

fn batch(items: usize, bytes: usize) -> BatchEncryptRequest {
    let item = EncryptItem {
        plaintext: vec![7; bytes].into(),
        ..Default::default()
    };
    BatchEncryptRequest {
        key: "pii".into(),
        field: "f".into(),
        items: vec![item; items],
        ..Default::default()
    }
}

/// An EncryptStream whose messages are sent one by one.
async fn open(
    client: &mut FieldServiceClient<Channel>,
) -> (
    UnboundedSender<BatchEncryptRequest>,
    Streaming<EncryptStreamResponse>,
) {
    let (messages, receiver) = unbounded_channel();
    let replies = client
        .encrypt_stream(UnboundedReceiverStream::new(receiver))
        .await
        .unwrap();
    (messages, replies.into_inner())
}

/// The records of the RPC, oldest first.
async fn records(f: &Fixture, rpc: &str) -> Vec<AuditRecord> {
    let entries = f.admin().audit().list().collect().await.unwrap();
    let rpc = format!("fieldkeep.v1.FieldService/{rpc}");
    let records = entries.into_iter().rev().filter_map(|e| e.record);
    records.filter(|record| record.rpc == rpc).collect()
}

fn reason(reply: &EncryptStreamResponse) -> &str {
    reply.error.as_ref().map_or("ok", |error| &error.reason)
}

#[tokio::test]
async fn fields_go_through_all_three_streams() {
    let f = Fixture::start();
    let mut client = field_service(&f).await;
    let messages: Vec<_> = (0..50).map(|n| batch(n % 7, 20 + n)).collect();
    let replies = client.encrypt_stream(tokio_stream::iter(messages)).await;
    let sealed: Vec<_> = replies.unwrap().into_inner().collect().await;
    let sealed: Vec<_> = sealed.into_iter().map(Result::unwrap).collect();
    assert_eq!(sealed.len(), 50);
    f.admin().keys().rotate("pii").await.unwrap();

    let messages: Vec<_> = sealed
        .iter()
        .map(|reply| BatchReEncryptRequest {
            field: "f".into(),
            items: reply
                .results
                .iter()
                .map(|result| ReEncryptItem {
                    ciphertext: result.ciphertext.clone(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        })
        .collect();
    let replies = client.re_encrypt_stream(tokio_stream::iter(messages)).await;
    let moved: Vec<_> = replies.unwrap().into_inner().collect().await;
    let moved: Vec<_> = moved.into_iter().map(Result::unwrap).collect();

    let messages: Vec<_> = moved
        .iter()
        .map(|reply| {
            assert!(reply.results.iter().all(|r| r.changed && r.version == 2));
            BatchDecryptRequest {
                field: "f".into(),
                items: reply
                    .results
                    .iter()
                    .map(|result| DecryptItem {
                        ciphertext: result.ciphertext.clone(),
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            }
        })
        .collect();
    let replies = client.decrypt_stream(tokio_stream::iter(messages)).await;
    let opened: Vec<_> = replies.unwrap().into_inner().collect().await;
    for (n, reply) in opened.into_iter().enumerate() {
        let plaintexts: Vec<_> = reply
            .unwrap()
            .results
            .into_iter()
            .map(|r| r.plaintext)
            .collect();
        assert_eq!(plaintexts, vec![vec![7; 20 + n]; n % 7], "in order");
    }

    for rpc in ["EncryptStream", "ReEncryptStream", "DecryptStream"] {
        assert_eq!(records(&f, rpc).await.len(), 50, "{rpc}");
    }
    let ids: BTreeSet<_> = sealed
        .iter()
        .map(|reply| reply.request_id.clone())
        .collect();
    let recorded: BTreeSet<_> = records(&f, "EncryptStream")
        .await
        .into_iter()
        .map(|record| record.request_id)
        .collect();
    assert_eq!(ids, recorded);
}

#[tokio::test]
async fn failures_are_answered_in_their_place_and_rights_are_looked_at_each_time() {
    let f = Fixture::start();
    let mut client = field_service(&f).await;
    let (messages, mut replies) = open(&mut client).await;
    let bad = BatchEncryptRequest {
        field: "Not A Field".into(),
        ..batch(1, 1)
    };
    // The last one is longer than a message may be, and not longer than one on the wire.
    for message in [batch(1, 1), batch(10_001, 1), bad, batch(200, 60_000)] {
        messages.send(message).unwrap();
    }
    messages.send(batch(1, 1)).unwrap();
    for expected in [
        "ok",
        "BATCH_TOO_LARGE",
        "INVALID_REQUEST",
        "REQUEST_TOO_LARGE",
        "ok",
    ] {
        let reply = replies.message().await.unwrap().unwrap();
        assert_eq!(reason(&reply), expected);
    }
    f.admin().keys().disable("pii").await.unwrap();
    messages.send(batch(1, 1)).unwrap();
    let reply = replies.message().await.unwrap().unwrap();
    assert_eq!(reason(&reply), "ok");
    assert_eq!(
        reply.results[0].error.as_ref().unwrap().reason,
        "KEY_DISABLED"
    );
    revoke_all(&f.admin(), APP).await;
    messages.send(batch(1, 1)).unwrap();
    let reply = replies.message().await.unwrap().unwrap();
    assert_eq!(reason(&reply), "PERMISSION_DENIED");
    drop(messages);
    assert_eq!(replies.message().await.unwrap(), None, "a clean end");

    let refused = client.encrypt_stream(tokio_stream::pending()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(records(&f, "EncryptStream").await.len(), 8);
}

#[tokio::test]
async fn what_is_longer_than_the_wire_allows_ends_the_stream() {
    let f = Fixture::start();
    let mut client = field_service(&f).await;
    let (messages, mut replies) = open(&mut client).await;
    messages.send(batch(1, 1)).unwrap();
    messages.send(batch(300, 60_000)).unwrap();
    messages.send(batch(1, 1)).unwrap();
    assert_eq!(reason(&replies.message().await.unwrap().unwrap()), "ok");
    let end = replies.message().await.unwrap_err();
    assert_eq!(
        end.get_details_error_info().unwrap().reason,
        "REQUEST_TOO_LARGE"
    );
    assert_eq!(records(&f, "EncryptStream").await.len(), 2);
}

/// Resident memory of a process, KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let digits = line.unwrap().split_whitespace().nth(1);
    digits.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_caller_who_does_not_read_is_held_back() {
    let f = Fixture::start();
    let mut client = field_service(&f).await;
    let before = resident_kib(f.server.pid());
    // 300 MB in all, of which the transports at both ends hold a few.
    let (offered, sent) = (600, Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&sent);
    let message = batch(1_000, 400);
    let messages = tokio_stream::iter(0..offered).map(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        message.clone()
    });
    let mut replies = client.encrypt_stream(messages).await.unwrap().into_inner();
    while records(&f, "EncryptStream").await.len() < 8 {}
    for _ in 0..20 {
        f.app().field("pii", "f").encrypt(b"x").await.unwrap();
        let answered = records(&f, "EncryptStream").await.len();
        assert!(answered < 40, "{answered} answered");
        let sent = sent.load(Ordering::SeqCst);
        assert!(sent < 60, "{sent} sent");
        let grown = resident_kib(f.server.pid()).saturating_sub(before);
        assert!(grown < 150 * 1024, "{grown} KiB more");
    }
    // It goes on where it stopped.
    for _ in 0..offered {
        let reply = replies.message().await.unwrap().unwrap();
        assert_eq!(reply.results.len(), 1_000);
    }
    assert_eq!(replies.message().await.unwrap(), None);
    let grown = resident_kib(f.server.pid()).saturating_sub(before);
    assert!(grown < 150 * 1024, "{grown} KiB more");
    assert_eq!(records(&f, "EncryptStream").await.len(), offered);
}

#[tokio::test]
async fn a_caller_who_vanishes_leaves_his_records_and_nothing_else() {
    let f = Arc::new(Fixture::start());
    let caller = Arc::clone(&f);
    let vanish = move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut client = field_service(&caller).await;
            let (messages, mut replies) = open(&mut client).await;
            messages.send(batch(1, 1)).unwrap();
            assert_eq!(reason(&replies.message().await.unwrap().unwrap()), "ok");
            for _ in 0..20 {
                messages.send(batch(2_000, 1_000)).unwrap();
            }
            let _without_a_message = open(&mut client).await;
        });
        // Its connections are gone with it.
        runtime.shutdown_background();
    };
    tokio::task::spawn_blocking(vanish).await.unwrap();
    let is_incomplete = |record: &AuditRecord| record.rule == "incomplete";
    while !records(&f, "EncryptStream").await.iter().any(is_incomplete) {}

    let mut client = field_service(&f).await;
    let messages = vec![batch(2_000, 1_000); 20];
    let replies = client.encrypt_stream(tokio_stream::iter(messages)).await;
    let mut replies = replies.unwrap().into_inner();
    while let Some(reply) = replies.message().await.unwrap() {
        assert_eq!(reply.results.len(), 2_000);
    }
    let f = Arc::into_inner(f).unwrap();
    // The client has to go on meanwhile, since the two end their connection together.
    let log = tokio::task::spawn_blocking(move || f.server.stop());
    let log = log.await.unwrap();
    assert!(!log.contains("cut off"), "{log}");
}

#[tokio::test]
async fn an_idle_stream_does_not_hold_the_shutdown() {
    let f = Fixture::start();
    let mut client = field_service(&f).await;
    let (_messages, mut replies) = open(&mut client).await;
    let (messages, mut used) = open(&mut client).await;
    messages.send(batch(1, 1)).unwrap();
    assert_eq!(reason(&used.message().await.unwrap().unwrap()), "ok");
    let stopped = tokio::task::spawn_blocking(move || f.server.stop());
    for replies in [&mut replies, &mut used] {
        let end = replies.message().await.unwrap_err();
        assert_eq!(end.code(), Code::Unavailable);
        assert_eq!(
            end.get_details_error_info().unwrap().reason,
            "SHUTTING_DOWN"
        );
    }
    let log = stopped.await.unwrap();
    assert!(!log.contains("cut off"), "{log}");
}
