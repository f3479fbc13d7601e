//! Streams from the gate to the service and back, with a caller who sends and reads part by part.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fieldkeep_proto::v1::field_service_server::FieldServiceServer;
use fieldkeep_proto::v1::{
    AuditRecord, BatchEncryptRequest, Decision, EncryptItem, EncryptStreamResponse,
};
use futures_util::poll;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic_types::StatusExt;

use super::*;
use crate::grpc::gate::Gate;
use crate::grpc::handlers::Handlers;
use crate::grpc::reply::ReplyBody;
use crate::grpc::routes::{Listener, MAX_MESSAGE_BYTES};
use crate::service::call::Peer;
use crate::service::tests::{Fixture, peer};

const RPC: &str = "fieldkeep.v1.FieldService/EncryptStream";

/// A body of a request in parts.
struct Upload {
    parts: UnboundedReceiver<Bytes>,
    /// Whether it ends as it should, and not because its caller went away.
    whole: Arc<AtomicBool>,
    taken: Arc<AtomicUsize>,
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.parts.poll_recv(context).map(|part| {
            let part = part?;
            self.taken.fetch_add(1, Ordering::SeqCst);
            Some(Ok(Frame::data(part)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_closed() && self.parts.is_empty() && self.whole.load(Ordering::SeqCst)
    }
}

/// One stream as its caller has it.
struct Talk {
    parts: Option<UnboundedSender<Bytes>>,
    whole: Arc<AtomicBool>,
    taken: Arc<AtomicUsize>,
    response: Response<ReplyBody>,
    read: BytesMut,
    trailers: Option<http::HeaderMap>,
}

impl Talk {
    async fn open(f: &Fixture) -> Self {
        Self::open_on(f, peer("acme/app"), &[]).await
    }

    async fn open_with(f: &Fixture, identity: &str, headers: &[(&str, &str)]) -> Self {
        Self::open_on(f, peer(identity), headers).await
    }

    /// Opens one on the connection of `peer`.
    async fn open_on(f: &Fixture, peer: Arc<Peer>, headers: &[(&str, &str)]) -> Self {
        let (parts, receiver) = unbounded_channel();
        let (whole, taken) = (Arc::default(), Arc::default());
        let upload = Upload {
            parts: receiver,
            whole: Arc::clone(&whole),
            taken: Arc::clone(&taken),
        };
        let mut request =
            Request::post(format!("/{RPC}")).header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let service = FieldServiceServer::new(Handlers::new(f.service.clone()));
        let gate = Gate::new(f.service.clone(), Listener::Data, &f.metrics, None, service);
        let request = request.body(Body::new(upload)).unwrap();
        let Ok(response) = gate.answer(&peer, request).await;
        Self {
            parts: Some(parts),
            whole,
            taken,
            response,
            read: BytesMut::new(),
            trailers: None,
        }
    }

    fn send_part(&self, part: impl Into<Bytes>) {
        self.parts.as_ref().unwrap().send(part.into()).unwrap();
    }

    fn send(&self, message: &BatchEncryptRequest) {
        self.send_part(framed(&message.encode_to_vec()));
    }

    fn finish(&mut self) {
        self.whole.store(true, Ordering::SeqCst);
        self.parts = None;
    }

    /// The next reply; `None` at the end.
    async fn next(&mut self) -> Option<EncryptStreamResponse> {
        loop {
            if let Some(mut header) = self.read.get(..5) {
                assert_eq!(header.get_u8(), 0);
                let length = header.get_u32() as usize;
                if self.read.len() >= 5 + length {
                    self.read.advance(5);
                    let message = self.read.split_to(length);
                    return Some(EncryptStreamResponse::decode(message).unwrap());
                }
            }
            match self.response.body_mut().frame().await?.unwrap().into_data() {
                Ok(data) => self.read.put(data),
                Err(trailers) => self.trailers = trailers.into_trailers().ok(),
            }
        }
    }

    async fn reply(&mut self) -> EncryptStreamResponse {
        self.next().await.expect("a reply")
    }

    /// How it ends, after its last reply.
    async fn end(&mut self) -> Status {
        if let Some(refused) = Status::from_header_map(self.response.headers()) {
            return refused;
        }
        assert_eq!(self.next().await, None);
        Status::from_header_map(self.trailers.as_ref().expect("trailers")).expect("a status")
    }
}

fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}

fn batch(items: usize, bytes: usize) -> BatchEncryptRequest {
    let item = EncryptItem {
        plaintext: Bytes::from(vec![7; bytes]),
        ..Default::default()
    };
    BatchEncryptRequest {
        key: "pii".into(),
        field: "email".into(),
        items: vec![item; items],
        ..Default::default()
    }
}

fn reason_of(reply: &EncryptStreamResponse) -> &str {
    reply.error.as_ref().map_or("ok", |error| &error.reason)
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map_or_else(|| format!("{status:?}"), |info| info.reason)
}

/// The records of streams.
fn records(f: &Fixture) -> Vec<AuditRecord> {
    let mut records = f.records();
    records.retain(|record| record.rpc == RPC);
    records
}

/// Lets everything go on that can, while what was written becomes durable.
async fn settle(f: &Fixture) {
    for _ in 0..3 {
        let mut talk = Talk::open_with(f, "other/app", &[]).await;
        talk.send(&batch(1, 1));
        talk.finish();
        talk.reply().await;
        talk.end().await;
    }
}

fn counted(f: &Fixture, code: &str) -> u64 {
    let metrics = f.metrics.render().unwrap();
    let line = format!("fieldkeep_calls_total{{code=\"{code}\",rpc=\"{RPC}\"}} ");
    let count = metrics.lines().find_map(|text| text.strip_prefix(&line));
    count.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn each_message_is_a_call_and_answered_in_order() {
    let f = Fixture::make().await;
    let mut talk = Talk::open(&f).await;
    for items in 1..=20 {
        talk.send(&batch(items, 10));
    }
    talk.finish();
    let mut ids = Vec::new();
    for items in 1..=20 {
        let reply = talk.reply().await;
        assert_eq!((reason_of(&reply), reply.results.len()), ("ok", items));
        ids.push(reply.request_id);
    }
    assert_eq!(talk.end().await.code(), Code::Ok);
    let records = records(&f);
    assert_eq!(records.len(), 20, "one a message and none besides");
    for id in &ids {
        let own: Vec<_> = records.iter().filter(|r| r.request_id == *id).collect();
        assert_eq!(own.len(), 1);
        assert_eq!(own[0].decision(), Decision::Allowed);
    }
    assert_eq!(counted(&f, "OK"), 20);
}

#[tokio::test]
async fn messages_may_come_in_any_parts() {
    let f = Fixture::make().await;
    let two = [framed(&batch(2, 10).encode_to_vec()), framed(&[])].concat();
    for size in [1, 4, 5, 6, 7, two.len() - 1, two.len()] {
        let mut talk = Talk::open(&f).await;
        for part in two.chunks(size) {
            talk.send_part(part.to_vec());
            talk.send_part(Bytes::new());
        }
        talk.finish();
        assert_eq!(talk.reply().await.results.len(), 2, "{size}");
        assert_eq!(talk.reply().await.results.len(), 0, "{size}");
        assert_eq!(talk.end().await.code(), Code::Ok, "{size}");
    }
}

#[tokio::test]
async fn a_message_that_fails_is_answered_in_its_place() {
    let f = Fixture::make().await;
    let mut talk = Talk::open(&f).await;
    let bad_field = BatchEncryptRequest {
        field: "Not A Field".into(),
        ..batch(1, 1)
    };
    let no_key = BatchEncryptRequest {
        key: "none".into(),
        ..batch(1, 1)
    };
    talk.send(&batch(1, 1));
    talk.send(&batch(10_001, 1));
    talk.send(&bad_field);
    talk.send_part(framed(&[0xFF; 9]));
    talk.send(&batch(1, 65_537));
    talk.send(&no_key);
    talk.send(&batch(200, 60_000));
    talk.send(&batch(1, 1));
    talk.finish();
    for expected in [
        "ok",
        "BATCH_TOO_LARGE",
        "INVALID_REQUEST",
        "INVALID_REQUEST",
    ] {
        assert_eq!(reason_of(&talk.reply().await), expected);
    }
    for expected in ["FIELD_TOO_LARGE", "KEY_NOT_FOUND"] {
        let reply = talk.reply().await;
        assert_eq!(reason_of(&reply), "ok", "an item failed, not the message");
        assert_eq!(reply.results[0].error.as_ref().unwrap().reason, expected);
    }
    assert_eq!(reason_of(&talk.reply().await), "REQUEST_TOO_LARGE");
    let last = talk.reply().await;
    assert!(last.results[0].error.is_none());
    assert_eq!(talk.end().await.code(), Code::Ok);
    let invalid = records(&f).iter().filter(|r| r.rule == "invalid").count();
    assert_eq!((records(&f).len(), invalid), (8, 4));
    assert_eq!(counted(&f, "INVALID_ARGUMENT"), 4);
}

#[tokio::test]
async fn a_broken_frame_ends_the_stream_on_record() {
    let f = Fixture::make().await;
    let compressed = vec![1, 0, 0, 0, 0];
    let mut endless = vec![0];
    endless.put_u32(MAX_MESSAGE_BYTES as u32 + 1);
    let half = vec![0, 0, 0, 0, 9, 1, 2];
    for (broken, expected) in [
        (compressed, "INVALID_REQUEST"),
        (endless, "REQUEST_TOO_LARGE"),
        (half, "INVALID_REQUEST"),
    ] {
        let before = records(&f).len();
        let mut talk = Talk::open(&f).await;
        talk.send(&batch(1, 1));
        talk.send_part(broken);
        talk.finish();
        assert_eq!(reason_of(&talk.reply().await), "ok", "what was whole");
        let end = talk.end().await;
        assert_eq!(reason(&end), expected);
        let id = end.metadata().get(status::REQUEST_ID_METADATA).unwrap();
        let records = records(&f);
        let own = records
            .iter()
            .find(|r| *id == *data_encoding::HEXLOWER.encode(&r.request_id));
        assert_eq!(
            (own.unwrap().rule.as_str(), records.len()),
            ("invalid", before + 2)
        );
    }
}

#[tokio::test]
async fn a_right_that_is_revoked_is_missed_by_the_next_message() {
    let f = Fixture::make().await;
    let mut talk = Talk::open(&f).await;
    talk.send(&batch(1, 1));
    assert_eq!(reason_of(&talk.reply().await), "ok");
    f.revoke_app().await;
    // A long one is refused before it is read.
    for message in [batch(1, 1), batch(100, 60_000), batch(1, 1)] {
        talk.send(&message);
        assert_eq!(reason_of(&talk.reply().await), "PERMISSION_DENIED");
        let record = f.last_record();
        assert_eq!(
            (record.decision(), record.rule.as_str()),
            (Decision::Refused, "no-grant")
        );
    }
    talk.finish();
    assert_eq!(talk.end().await.code(), Code::Ok);
}

/// A stream with two answers that are made and not taken.
async fn with_two_untaken(f: &Fixture, connection: Arc<Peer>) -> Talk {
    let before = records(f).len();
    let talk = Talk::open_on(f, connection, &[]).await;
    talk.send(&batch(1, 1));
    talk.send(&batch(1, 1));
    while records(f).len() < before + 2 {
        tokio::task::yield_now().await;
    }
    settle(f).await;
    talk
}

#[tokio::test]
async fn an_answer_that_waits_to_be_taken_does_not_outlive_its_right() {
    let f = Fixture::make().await;
    let mut talk = with_two_untaken(&f, peer("acme/app")).await;
    f.revoke_app().await;
    for _ in 0..2 {
        let reply = talk.reply().await;
        assert_eq!(
            (reason_of(&reply), reply.results.len()),
            ("PERMISSION_DENIED", 0)
        );
        // The next one may be on record already.
        let mut of_reply = records(&f);
        of_reply.retain(|record| record.request_id == reply.request_id);
        let record = of_reply.pop().unwrap();
        assert_eq!(
            (record.decision(), record.rule.as_str()),
            (Decision::Refused, "no-grant")
        );
    }
    talk.finish();
    assert_eq!(talk.end().await.code(), Code::Ok);
}

#[tokio::test]
async fn an_answer_that_waits_to_be_taken_does_not_outlive_its_key() {
    let f = Fixture::make().await;
    let mut talk = with_two_untaken(&f, peer("acme/app")).await;
    let mut other = Talk::open_with(&f, "other/app", &[]).await;
    other.send(&batch(1, 1));
    settle(&f).await;
    f.disable_pii().await;
    for _ in 0..2 {
        let reply = talk.reply().await;
        assert_eq!((reason_of(&reply), reply.results.len()), ("CONFLICT", 0));
    }
    assert_eq!(reason_of(&other.reply().await), "ok", "another tenant's");
}

#[tokio::test]
async fn answers_that_nobody_takes_are_dropped_though_nobody_asks_for_them() {
    let f = Fixture::make_impatient(Duration::from_millis(500)).await;
    let connection = peer("acme/app");
    let mut talk = with_two_untaken(&f, Arc::clone(&connection)).await;
    // Their room is free only when they are gone.
    drop(connection.reply_room(usize::MAX).await.unwrap());
    let end = talk.end().await;
    assert_eq!(end.code(), Code::DeadlineExceeded);
    assert!(end.message().contains("not taken"), "{end:?}");
}

#[tokio::test]
async fn a_certificate_that_expires_is_missed_by_the_next_message() {
    let f = Fixture::make().await;
    let mut talk = Talk::open(&f).await;
    talk.send(&batch(1, 1));
    assert_eq!(reason_of(&talk.reply().await), "ok");
    f.advance(2_000);
    talk.send(&batch(1, 1));
    assert_eq!(reason_of(&talk.reply().await), "UNAUTHENTICATED");
    assert_eq!(f.last_record().rule, "certificate-expired");
}

#[tokio::test]
async fn a_stream_that_is_refused_at_its_start_is_on_record_once() {
    let f = Fixture::make().await;
    for (identity, rule) in [("acme/boss", "no-grant"), ("acme/nobody", "no-grant")] {
        let before = records(&f).len();
        let mut talk = Talk::open_with(&f, identity, &[]).await;
        assert_eq!(reason(&talk.end().await), "PERMISSION_DENIED");
        assert_eq!(
            (f.last_record().rule.as_str(), records(&f).len()),
            (rule, before + 1)
        );
    }
    assert_eq!(counted(&f, "PERMISSION_DENIED"), 2);
    // The transport itself refuses this one.
    let mut talk = Talk::open_with(&f, "acme/app", &[("grpc-encoding", "gzip")]).await;
    assert_eq!(reason(&talk.end().await), "INVALID_REQUEST");
    assert_eq!(
        (f.last_record().rule.as_str(), records(&f).len()),
        ("invalid", 3)
    );
}

#[tokio::test]
async fn a_stream_without_a_message_is_on_record_once() {
    let f = Fixture::make().await;
    let mut talk = Talk::open(&f).await;
    talk.finish();
    assert_eq!(talk.end().await.code(), Code::Ok);
    let record = f.last_record();
    assert_eq!(
        (record.rule.as_str(), record.decision(), record.code),
        ("no-message", Decision::Allowed, 0)
    );
    assert_eq!((records(&f).len(), counted(&f, "OK")), (1, 1));

    // Its caller goes away, whether or not the reader ran before.
    drop(Talk::open(&f).await);
    let mut talk = Talk::open(&f).await;
    assert!(poll!(Box::pin(talk.next())).is_pending());
    tokio::task::yield_now().await;
    drop(talk);
    settle(&f).await;
    let incomplete = records(&f);
    let incomplete = incomplete.iter().filter(|r| r.rule == "incomplete");
    assert_eq!((incomplete.count(), counted(&f, "CANCELLED")), (2, 2));
}

#[tokio::test]
async fn what_was_under_way_when_the_caller_left_is_on_record() {
    let f = Fixture::make().await;
    let all = f.service.core().hold_places();
    let mut talk = Talk::open(&f).await;
    talk.send(&batch(1, 1));
    assert_eq!(reason_of(&talk.reply().await), "ok");
    talk.send(&batch(3, 60_000));
    talk.send(&batch(3, 60_000));
    talk.send_part(vec![0, 0, 0, 0, 9, 1, 2]);
    assert!(poll!(Box::pin(talk.next())).is_pending());
    settle(&f).await;
    assert_eq!(talk.taken.load(Ordering::SeqCst), 4);
    drop(talk);
    settle(&f).await;
    drop(all);
    let records = records(&f);
    let cancelled: Vec<_> = records
        .iter()
        .filter(|record| record.code == i32::from(Code::Cancelled))
        .collect();
    assert_eq!(cancelled.len(), 3, "two at work, one half sent");
    assert!(cancelled.iter().all(|record| record.rule == "incomplete"));
    assert_eq!(counted(&f, "CANCELLED"), 3);
    // Nothing is held any more.
    drop(f.service.room(64 << 20).await.unwrap());
    drop(f.service.core().hold_places());
}

#[tokio::test]
async fn nobody_reads_for_a_caller_who_takes_no_replies() {
    let f = Fixture::make().await;
    let talk = Talk::open(&f).await;
    for _ in 0..100 {
        talk.send(&batch(1, 1));
    }
    for _ in 0..10 {
        settle(&f).await;
    }
    let own = |record: &&AuditRecord| record.principal.contains("acme");
    assert_eq!(records(&f).iter().filter(own).count(), WAITING);
    assert_eq!(talk.taken.load(Ordering::SeqCst), WAITING);
}

#[tokio::test]
async fn long_replies_that_are_not_taken_hold_back_the_connection_and_no_other() {
    let f = Fixture::make().await;
    let connection = peer("acme/app");
    let all = connection.reply_room(usize::MAX).await.unwrap();
    let mut held = Talk::open_on(&f, Arc::clone(&connection), &[]).await;
    let mut other = Talk::open(&f).await;
    // The length of each comes first, then what must not be read without room for the reply.
    let message = framed(&batch(100, 60_000).encode_to_vec());
    for talk in [&held, &other] {
        talk.send_part(message.slice(..5));
        talk.send_part(message.slice(5..));
    }
    assert_eq!(other.reply().await.results.len(), 100);
    let mut waiting = Box::pin(held.next());
    for _ in 0..5 {
        assert!(poll!(&mut waiting).is_pending());
        settle(&f).await;
    }
    drop(all);
    assert_eq!(waiting.await.unwrap().results.len(), 100);
}

#[tokio::test]
async fn the_room_of_a_reply_is_free_when_the_next_is_asked_for() {
    let f = Fixture::make().await;
    let mut talk = Talk::open(&f).await;
    // Far more than there is room for at once.
    for _ in 0..12 {
        talk.send(&batch(130, 60_000));
        assert_eq!(talk.reply().await.results.len(), 130);
    }
    for _ in 0..12 {
        talk.send(&batch(130, 60_000));
    }
    talk.finish();
    for _ in 0..12 {
        assert_eq!(talk.reply().await.results.len(), 130);
    }
    assert_eq!(talk.end().await.code(), Code::Ok);
}

#[tokio::test]
async fn a_long_message_holds_up_no_small_call() {
    let f = Fixture::make().await;
    let all = f.service.core().hold_places();
    let mut long = Talk::open(&f).await;
    long.send(&batch(100, 60_000));
    let mut waiting = Box::pin(long.next());
    for _ in 0..10 {
        assert!(poll!(&mut waiting).is_pending());
        settle(&f).await;
    }
    drop(all);
    assert_eq!(waiting.await.unwrap().results.len(), 100);
}

#[tokio::test]
async fn at_shutdown_what_runs_ends_and_idle_streams_end() {
    let f = Fixture::make().await;
    let (mut idle, mut busy, mut half, mut unused) = (
        Talk::open(&f).await,
        Talk::open(&f).await,
        Talk::open(&f).await,
        Talk::open(&f).await,
    );
    idle.send(&batch(1, 1));
    idle.reply().await;
    half.send_part(vec![0, 0, 0]);
    settle(&f).await;
    let before = f.last_record_index();
    busy.send(&batch(600, 1));
    while f.last_record_index() == before {
        tokio::task::yield_now().await;
    }
    let before = records(&f).len();
    f.service.core().start_draining();
    assert_eq!(busy.reply().await.results.len(), 600);
    for talk in [&mut idle, &mut busy, &mut half, &mut unused] {
        assert_eq!(reason(&talk.end().await), "SHUTTING_DOWN");
    }
    // The half message and the stream that had none.
    let records = records(&f);
    assert_eq!(records.len(), before + 2);
    for record in &records[before..] {
        assert_eq!(record.rule, "not-serving");
    }
    let mut late = Talk::open(&f).await;
    assert_eq!(reason(&late.end().await), "SHUTTING_DOWN");
}

#[tokio::test]
async fn an_idle_stream_ends_by_itself() {
    let f = Fixture::make_impatient(Duration::from_millis(1)).await;
    let mut talk = Talk::open(&f).await;
    let end = talk.end().await;
    assert_eq!(end.code(), Code::DeadlineExceeded);
    assert!(end.message().contains("no message"), "{end:?}");
    let record = f.last_record();
    assert_eq!((record.rule.as_str(), records(&f).len()), ("deadline", 1));
}

#[tokio::test]
async fn a_stream_ends_when_its_caller_stops_waiting() {
    let f = Fixture::make().await;
    for (timeout, message) in [("0n", vec![]), ("50m", vec![0, 0, 0, 0, 9, 1])] {
        let mut talk = Talk::open_with(&f, "acme/app", &[("grpc-timeout", timeout)]).await;
        talk.send_part(message);
        let end = talk.end().await;
        assert_eq!(end.code(), Code::DeadlineExceeded);
        assert!(end.message().contains("caller"), "{end:?}");
        assert_eq!(f.last_record().rule, "deadline");
    }
    // A message that is at work by then is answered first.
    let all = f.service.core().hold_places();
    let mut talk = Talk::open_with(&f, "acme/app", &[("grpc-timeout", "50m")]).await;
    talk.send(&batch(600, 1));
    let reply = talk.reply().await;
    assert_eq!(reply.error.unwrap().code, i32::from(Code::DeadlineExceeded));
    let record = f.last_record();
    assert_eq!(
        (record.rule.as_str(), record.request_id),
        ("deadline", reply.request_id)
    );
    assert_eq!(talk.end().await.code(), Code::DeadlineExceeded);
    drop(all);
    // More than the clock can count is no limit.
    let mut talk = Talk::open_with(&f, "acme/app", &[("grpc-timeout", "99999999H")]).await;
    talk.send(&batch(1, 1));
    assert_eq!(reason_of(&talk.reply().await), "ok");
}

#[tokio::test]
async fn a_message_beyond_the_callers_share_is_refused_and_the_stream_goes_on() {
    let f = Fixture::make_narrow(2).await;
    let mut talk = Talk::open(&f).await;
    let flood: Vec<_> = (0..2).map(|_| f.place("acme/app").unwrap()).collect();
    talk.send(&batch(1, 5));
    let refused = talk.next().await.unwrap();
    assert_eq!(refused.error.unwrap().reason, "OVERLOADED");
    drop(flood);
    talk.send(&batch(1, 5));
    let answered = talk.next().await.unwrap();
    assert_eq!((answered.error, answered.results.len()), (None, 1));
    talk.finish();
    assert!(talk.next().await.is_none());
    assert_eq!(f.under_way(), 0);
}
