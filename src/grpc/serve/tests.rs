//! Requests as they come off a connection, through the gate and the router to the service and back.

use bytes::{BufMut, Bytes, BytesMut};
use fieldkeep_proto::v1::{
    BatchDecryptRequest, BatchDecryptResponse, BatchEncryptRequest, DecryptItem, DecryptRequest,
    DecryptResponse, EncryptItem, EncryptRequest, EncryptResponse, GetKeyRequest,
};
use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::receipt::Receipt;
use http_body_util::{BodyExt, Full};
use prost::Message;
use tonic::Code;
use tonic_health::ServingStatus;
use tonic_types::StatusExt;

mod canaries;
mod credentials;
mod matrix;
mod tokens;

use super::*;
use crate::grpc::gate::Answer;
use crate::grpc::reply::ReplyBody;
use crate::grpc::status::{RECEIPT_METADATA, REQUEST_ID_METADATA};
use crate::service::tests::{Fixture, peer};

const ENCRYPT: &str = "/fieldkeep.v1.FieldService/Encrypt";
const DECRYPT: &str = "/fieldkeep.v1.FieldService/Decrypt";
const GET_KEY: &str = "/fieldkeep.v1.KeyService/GetKey";

/// The message's own frame of gRPC: not compressed, its length, its bytes.
fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}

/// Sends one request of `identity`.
async fn send(
    f: &Fixture,
    listener: Listener,
    identity: &str,
    path: &str,
    body: Bytes,
) -> Response<ReplyBody> {
    let reporter = HealthReporter::new();
    reporter
        .set_service_status("fieldkeep.v1.KeyService", ServingStatus::NotServing)
        .await;
    let router = Router::new(Handlers::new(f.service.clone()), listener, reporter);
    let gate = Gate::new(f.service.clone(), listener, &f.metrics, None, router);
    let request = Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::new(body)));
    let Ok(response) = gate.answer(&peer(identity), request.unwrap()).await;
    response
}

async fn call(
    f: &Fixture,
    listener: Listener,
    identity: &str,
    path: &str,
    message: &impl Message,
) -> Response<ReplyBody> {
    send(f, listener, identity, path, frame(&message.encode_to_vec())).await
}

async fn message<M: Message + Default>(response: Response<ReplyBody>) -> M {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    M::decode(&body[5..]).unwrap()
}

fn status(response: &Response<ReplyBody>) -> Status {
    Status::from_header_map(response.headers()).expect("a refusal")
}

fn reason(response: &Response<ReplyBody>) -> String {
    status(response)
        .get_error_details()
        .error_info()
        .unwrap()
        .reason
        .clone()
}

fn encrypt() -> EncryptRequest {
    EncryptRequest {
        key: "pii".into(),
        field: "email".into(),
        plaintext: Bytes::from_static(b"a@b.c"),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_field_goes_in_and_comes_back() {
    let f = Fixture::make().await;
    let response = call(&f, Listener::Data, "acme/app", ENCRYPT, &encrypt()).await;
    let id = response.headers()[REQUEST_ID_METADATA]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        id,
        data_encoding::HEXLOWER.encode(&f.last_record().request_id)
    );
    assert_eq!(f.last_record().rpc, "fieldkeep.v1.FieldService/Encrypt");
    let sealed: EncryptResponse = message(response).await;
    let request = DecryptRequest {
        ciphertext: sealed.ciphertext,
        field: "email".into(),
        context: Vec::new(),
    };
    let opened: DecryptResponse =
        message(call(&f, Listener::Admin, "acme/app", DECRYPT, &request).await).await;
    assert_eq!(opened.plaintext, "a@b.c");
    let metrics = f.metrics.render().unwrap();
    assert!(metrics.contains(
        "fieldkeep_calls_total{code=\"OK\",rpc=\"fieldkeep.v1.FieldService/Encrypt\"} 1"
    ));
}

#[tokio::test]
async fn a_refusal_has_its_reason_and_its_id() {
    let f = Fixture::make().await;
    let response = call(&f, Listener::Data, "acme/boss", ENCRYPT, &encrypt()).await;
    assert_eq!(
        (status(&response).code(), reason(&response).as_str()),
        (Code::PermissionDenied, "PERMISSION_DENIED")
    );
    assert!(response.headers().contains_key(REQUEST_ID_METADATA));
    let metrics = f.metrics.render().unwrap();
    assert!(
        metrics
            .contains("{code=\"PERMISSION_DENIED\",rpc=\"fieldkeep.v1.FieldService/Encrypt\"} 1")
    );
}

#[tokio::test]
async fn what_is_no_message_is_refused_on_record() {
    let f = Fixture::make().await;
    for body in [
        frame(&[0xFF; 9]),
        frame(b"")[..3].to_vec().into(),
        Bytes::new(),
    ] {
        let before = f.last_record_index();
        let response = send(&f, Listener::Data, "acme/app", ENCRYPT, body).await;
        assert_eq!(reason(&response), "INVALID_REQUEST");
        assert_eq!(f.last_record_index(), before + 1);
        assert_eq!(f.last_record().rule, "invalid");
    }
}

#[tokio::test]
async fn what_is_too_long_is_refused_on_record() {
    let f = Fixture::make().await;
    let long = GetKeyRequest {
        name: "k".repeat(ADMIN_BYTES),
    };
    let response = call(&f, Listener::Admin, "acme/boss", GET_KEY, &long).await;
    assert_eq!(
        (reason(&response).as_str(), f.last_record().rule.as_str()),
        ("REQUEST_TOO_LARGE", "invalid")
    );

    let plaintext = Bytes::from(vec![0; 1 << 20]);
    for (bytes, expected) in [(65_537, "FIELD_TOO_LARGE"), (1 << 20, "REQUEST_TOO_LARGE")] {
        let field = EncryptRequest {
            plaintext: plaintext.slice(..bytes),
            ..encrypt()
        };
        let response = call(&f, Listener::Data, "acme/app", ENCRYPT, &field).await;
        assert_eq!(reason(&response), expected);
    }

    let item = EncryptItem {
        plaintext: plaintext.slice(..60_000),
        ..Default::default()
    };
    let batch = |count| BatchEncryptRequest {
        items: vec![item.clone(); count],
        ..Default::default()
    };
    for (count, expected) in [(140, "REQUEST_TOO_LARGE"), (280, "REQUEST_TOO_LARGE")] {
        let path = "/fieldkeep.v1.FieldService/BatchEncrypt";
        let response = call(&f, Listener::Data, "acme/app", path, &batch(count)).await;
        assert_eq!(reason(&response), expected, "{count}");
        assert_eq!(f.last_record().rule, "invalid");
    }
}

#[tokio::test]
async fn a_long_reply_has_its_place_until_it_is_taken() {
    let f = Fixture::make().await;
    let connection = peer("acme/app");
    let item = EncryptItem {
        plaintext: Bytes::from(vec![7; 60_000]),
        ..Default::default()
    };
    let batch = BatchEncryptRequest {
        key: "pii".into(),
        field: "email".into(),
        items: vec![item; 2],
        ..Default::default()
    };
    let router = Router::new(
        Handlers::new(f.service.clone()),
        Listener::Data,
        HealthReporter::new(),
    );
    let gate = Gate::new(f.service.clone(), Listener::Data, &f.metrics, None, router);
    let request = Request::post("/fieldkeep.v1.FieldService/BatchEncrypt")
        .header("content-type", "application/grpc")
        .body(Body::new(Full::new(frame(&batch.encode_to_vec()))));
    let Ok(response) = gate.answer(&connection, request.unwrap()).await;
    let mut all = Box::pin(connection.reply_room(usize::MAX));
    assert!(futures_util::poll!(&mut all).is_pending(), "not taken yet");
    let body = response.into_body().collect().await.unwrap();
    assert!(
        futures_util::poll!(&mut all).is_pending(),
        "still in memory"
    );
    drop(body);
    drop(all.await.unwrap());
}

#[tokio::test]
async fn the_data_listener_knows_no_administration() {
    let f = Fixture::make().await;
    let key = GetKeyRequest { name: "pii".into() };
    let before = f.last_record_index();
    let response = call(&f, Listener::Data, "acme/boss", GET_KEY, &key).await;
    assert_eq!(status(&response).code(), Code::Unimplemented);
    assert_eq!(f.last_record_index(), before);
    assert!(
        f.metrics
            .render()
            .unwrap()
            .contains("{code=\"UNIMPLEMENTED\",rpc=\"unrouted\"} 1")
    );
    let response = call(&f, Listener::Admin, "acme/boss", GET_KEY, &key).await;
    assert!(Status::from_header_map(response.headers()).is_none());
}

#[tokio::test]
async fn health_is_on_both_listeners_and_knows_each_service() {
    let f = Fixture::make().await;
    let path = "/grpc.health.v1.Health/Check";
    for listener in [Listener::Data, Listener::Admin] {
        for (service, expected) in [("", 1), ("fieldkeep.v1.KeyService", 2)] {
            let request = tonic_health::pb::HealthCheckRequest {
                service: service.into(),
            };
            let response = call(&f, listener, "acme/app", path, &request).await;
            let health: tonic_health::pb::HealthCheckResponse = message(response).await;
            assert_eq!(health.status, expected, "{service}");
        }
    }
}

#[test]
fn health_names_are_the_services_of_the_contract() {
    let routed: std::collections::BTreeSet<&str> = crate::grpc::routes::ROUTES
        .iter()
        .filter_map(|route| route.rpc().split_once('/'))
        .map(|(service, _)| service)
        .collect();
    assert_eq!(routed, SERVICE_NAMES.iter().copied().collect());
}

/// Sends a request of `identity` with `path` and headers to the data listener.
fn begin(f: &Fixture, identity: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Answer {
    let mut request = Request::post(path).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let handlers = Handlers::new(f.service.clone());
    let router = Router::new(handlers, Listener::Data, HealthReporter::new());
    let gate = Gate::new(f.service.clone(), Listener::Data, &f.metrics, None, router);
    gate.answer(&peer(identity), request.body(body).unwrap())
}

/// A body that begins with `start` and never ends.
fn endless(start: &[u8]) -> Body {
    let start = Bytes::copy_from_slice(start);
    let first = tokio_stream::once(Ok::<_, Status>(hyper::body::Frame::data(start)));
    let rest = tokio_stream::pending();
    Body::new(http_body_util::StreamBody::new(
        tokio_stream::StreamExt::chain(first, rest),
    ))
}

#[tokio::test]
async fn a_flood_is_shed_from_whoever_makes_it_and_operators_get_through() {
    let f = Fixture::make_narrow(4).await;
    let flood: Vec<_> = (0..4).map(|_| f.place("other/app").unwrap()).collect();
    let response = call(&f, Listener::Data, "other/app", ENCRYPT, &encrypt()).await;
    let status = status(&response);
    assert_eq!(
        (status.code(), reason(&response).as_str()),
        (Code::Unavailable, "OVERLOADED")
    );
    let retry = status.get_error_details().retry_info().unwrap().retry_delay;
    assert_eq!(retry, Some(Duration::from_millis(100)));
    let record = f.last_record();
    assert_eq!(
        (record.rule.as_str(), record.decision()),
        ("overload", fieldkeep_proto::v1::Decision::Refused)
    );
    // Who has nothing under way is let in, and administration is not asked.
    let response = call(&f, Listener::Data, "acme/app", ENCRYPT, &encrypt()).await;
    let _: EncryptResponse = message(response).await;
    let path = "/fieldkeep.v1.SystemService/GetStatus";
    let asked = fieldkeep_proto::v1::GetStatusRequest {};
    let response = call(&f, Listener::Admin, "acme/boss", path, &asked).await;
    assert!(!response.headers().contains_key("grpc-status"));
    let path = "/grpc.health.v1.Health/Check";
    let asked = tonic_health::pb::HealthCheckRequest::default();
    let response = call(&f, Listener::Data, "other/app", path, &asked).await;
    assert!(!response.headers().contains_key("grpc-status"));
    assert_eq!(f.under_way(), 4);
    drop(flood);
    let response = call(&f, Listener::Data, "other/app", ENCRYPT, &encrypt()).await;
    let _: EncryptResponse = message(response).await;
    assert_eq!(f.under_way(), 0);
}

#[tokio::test]
async fn a_call_ends_when_its_caller_stops_waiting() {
    let f = Fixture::make().await;
    let before = f.last_record_index();
    let deadline = [("grpc-timeout", "0n")];
    let late = begin(&f, "acme/app", ENCRYPT, &deadline, endless(&[0]));
    let response = late.await.unwrap();
    assert_eq!(status(&response).code(), Code::DeadlineExceeded);
    let id = response.headers()[REQUEST_ID_METADATA].to_str().unwrap();
    // The record is durable before the reply, and the only one.
    let record = f.last_record();
    assert_eq!(f.last_record_index(), before + 1);
    assert_eq!(id, data_encoding::HEXLOWER.encode(&record.request_id));
    assert_eq!(
        (record.rule.as_str(), record.code),
        ("deadline", i32::from(Code::DeadlineExceeded))
    );
    let metrics = f.metrics.render().unwrap();
    assert!(
        metrics
            .contains("{code=\"DEADLINE_EXCEEDED\",rpc=\"fieldkeep.v1.FieldService/Encrypt\"} 1")
    );
}

#[tokio::test]
async fn a_call_that_is_dropped_while_its_message_arrives_is_on_record() {
    let f = Fixture::make().await;
    {
        let mut handled = begin(&f, "acme/app", ENCRYPT, &[], endless(&[0]));
        assert!(futures_util::poll!(&mut handled).is_pending());
    }
    // The next call's record comes after it, so that both are durable.
    let response = call(&f, Listener::Data, "acme/app", ENCRYPT, &encrypt()).await;
    assert!(Status::from_header_map(response.headers()).is_none());
    let records = f.records();
    let dropped = &records[records.len() - 2];
    assert_eq!(
        (dropped.rule.as_str(), dropped.code),
        ("incomplete", i32::from(Code::Cancelled))
    );
}

#[tokio::test]
async fn a_long_message_of_a_caller_without_the_right_is_not_read() {
    let f = Fixture::make().await;
    let path = "/fieldkeep.v1.FieldService/BatchEncrypt";
    for (identity, rule) in [("acme/boss", "no-grant"), ("acme/nobody", "no-grant")] {
        let announced = endless(&[0, 0, 0x10, 0, 0]);
        let response = begin(&f, identity, path, &[], announced).await.unwrap();
        assert_eq!(reason(&response), "PERMISSION_DENIED");
        let record = f.last_record();
        assert_eq!(
            (
                record.rule.as_str(),
                record.principal.contains(&identity[5..])
            ),
            (rule, true)
        );
    }
    // Nor is one that is longer than its RPC allows.
    let announced = endless(&[0, 0, 2, 0, 1]);
    let long = begin(&f, "acme/app", ENCRYPT, &[], announced);
    let response = long.await.unwrap();
    assert_eq!(reason(&response), "REQUEST_TOO_LARGE");
}

#[tokio::test]
async fn long_messages_share_their_room_and_short_ones_need_none() {
    let f = Fixture::make().await;
    let all = f.service.room(64 << 20).await.unwrap();
    let long = EncryptRequest {
        plaintext: Bytes::from(vec![0; 60_000]),
        ..encrypt()
    };
    let body = || Body::new(Full::new(frame(&long.encode_to_vec())));
    let mut waiting = begin(&f, "acme/app", ENCRYPT, &[], body());
    for _ in 0..10 {
        assert!(futures_util::poll!(&mut waiting).is_pending());
        let response = call(&f, Listener::Data, "acme/app", ENCRYPT, &encrypt()).await;
        assert!(Status::from_header_map(response.headers()).is_none());
    }
    drop(all);
    let response = waiting.await.unwrap();
    assert!(Status::from_header_map(response.headers()).is_none());
    // Its room is free again.
    drop(f.service.room(64 << 20).await.unwrap());
}

#[tokio::test]
async fn items_are_counted_before_they_are_made() {
    let f = Fixture::make().await;
    let path = "/fieldkeep.v1.FieldService/BatchEncrypt";
    let empty_items = [0x22, 0].repeat(100_000);
    let empty_items = frame(&empty_items);
    let response = send(&f, Listener::Data, "acme/app", path, empty_items).await;
    assert_eq!(reason(&response), "BATCH_TOO_LARGE");
    assert_eq!(f.last_record().rule, "invalid");
}

#[tokio::test]
async fn a_batch_is_not_parsed_elsewhere_for_whoever_may_not_send_it() {
    let f = Fixture::make().await;
    let _all = f.service.core().hold_places();
    let path = "/fieldkeep.v1.FieldService/BatchEncrypt";
    let many_items = || Body::new(Full::new(frame(&[0x22, 0].repeat(1_000))));
    let mut refused = begin(&f, "acme/boss", path, &[], many_items());
    // Each call's record is durable after those that were written before it.
    for _ in 0..1_000 {
        if let Poll::Ready(response) = futures_util::poll!(&mut refused) {
            assert_eq!(reason(&response.unwrap()), "PERMISSION_DENIED");
            return;
        }
        call(&f, Listener::Data, "acme/app", ENCRYPT, &encrypt()).await;
    }
    panic!("the batch waits for a place");
}

#[tokio::test]
async fn a_large_reply_waits_for_nothing_after_the_last_look_at_rights_and_keys() {
    let f = Fixture::make().await;
    let long = EncryptRequest {
        plaintext: Bytes::from(vec![7; 60_000]),
        ..encrypt()
    };
    let sealed: EncryptResponse =
        message(call(&f, Listener::Data, "acme/app", ENCRYPT, &long).await).await;
    let item = DecryptItem {
        ciphertext: sealed.ciphertext,
        field: long.field,
        context: long.context,
    };
    let batch = BatchDecryptRequest {
        items: vec![item.clone(), item],
        ..Default::default()
    };
    let path = "/fieldkeep.v1.FieldService/BatchDecrypt";
    let body = Body::new(Full::new(frame(&batch.encode_to_vec())));
    let mut opening = begin(&f, "acme/app", path, &[], body);
    // Its parsing has a place, and then its opening; after that it gets none.
    assert!(futures_util::poll!(&mut opening).is_pending());
    drop(f.service.core().places_when_free().await);
    assert!(futures_util::poll!(&mut opening).is_pending());
    let _all = f.service.core().places_when_free().await;
    for _ in 0..1_000 {
        if let Poll::Ready(response) = futures_util::poll!(&mut opening) {
            let reply: BatchDecryptResponse = message(response.unwrap()).await;
            assert_eq!(reply.results.len(), 2);
            return;
        }
        call(&f, Listener::Data, "acme/app", ENCRYPT, &encrypt()).await;
    }
    panic!("the reply waits for a place");
}

/// Serves one connection of `acme/app`, and gives its other end and what stops it.
fn connect(f: &Fixture) -> (tokio::io::DuplexStream, CancellationToken) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let handlers = Handlers::new(f.service.clone());
    let router = Router::new(handlers, Listener::Data, HealthReporter::new());
    let gate = Gate::new(f.service.clone(), Listener::Data, &f.metrics, None, router);
    let stop = CancellationToken::new();
    tokio::spawn(serve_connection(
        far,
        peer("acme/app"),
        gate,
        Duration::from_secs(3_600),
        stop.clone(),
    ));
    (near, stop)
}

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn client(near: tokio::io::DuplexStream) -> Sender {
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

fn over_http2(path: &str, message: &impl Message) -> Request<Full<Bytes>> {
    Request::post(format!("https://localhost{path}"))
        .header("content-type", "application/grpc")
        .body(Full::new(frame(&message.encode_to_vec())))
        .unwrap()
}

/// The same, with a receipt.
fn with_receipt(path: &str, message: &impl Message) -> Request<Full<Bytes>> {
    let mut request = over_http2(path, message);
    let asked = http::HeaderValue::from_static("1");
    request.headers_mut().insert(RECEIPT_METADATA, asked);
    request
}

#[tokio::test]
async fn a_reply_has_the_headers_of_grpc_and_no_others() {
    let f = Fixture::make().await;
    let (near, _stop) = connect(&f);
    let mut sender = client(near).await;
    let reply = sender.send_request(over_http2(ENCRYPT, &encrypt())).await;
    let headers = reply.unwrap().into_parts().0.headers;
    assert!(!headers.contains_key(RECEIPT_METADATA), "unasked");
    for _ in 0..3 {
        let reply = sender.send_request(with_receipt(ENCRYPT, &encrypt())).await;
        let (head, body) = reply.unwrap().into_parts();
        let mut names: Vec<&str> = head.headers.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["content-type", RECEIPT_METADATA, REQUEST_ID_METADATA]
        );
        let receipt = head.headers[RECEIPT_METADATA].to_str().unwrap();
        let receipt: Receipt = receipt.parse().unwrap();
        let record = f.last_record().encode_to_vec();
        assert_eq!(
            (receipt.leaf, receipt.durable),
            (Hash::of_leaf(&record), true)
        );
        let id = &head.headers[REQUEST_ID_METADATA];
        assert_eq!(
            id.as_bytes(),
            data_encoding::HEXLOWER
                .encode(&f.last_record().request_id)
                .as_bytes()
        );
        let body = body.collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    }
}

#[tokio::test]
async fn one_id_of_a_connection_goes_into_the_table_of_header_compression() {
    let f = Fixture::make().await;
    let handlers = Handlers::new(f.service.clone());
    let router = Router::new(handlers, Listener::Data, HealthReporter::new());
    let gate = Gate::new(f.service.clone(), Listener::Data, &f.metrics, None, router);
    let peer = peer("acme/app");
    for kept_out in [false, true, true] {
        let Ok(reply) = gate.answer(&peer, with_receipt(ENCRYPT, &encrypt())).await;
        assert_eq!(
            reply.headers()[REQUEST_ID_METADATA].is_sensitive(),
            kept_out
        );
        assert_eq!(reply.headers()[RECEIPT_METADATA].is_sensitive(), kept_out);
    }
}

#[tokio::test]
async fn calls_that_run_end_after_the_stop_and_no_new_ones_begin() {
    let f = Fixture::make().await;
    let (near, stop) = connect(&f);
    let mut sender = client(near).await;
    let all = f.service.room(64 << 20).await.unwrap();
    let long = EncryptRequest {
        plaintext: Bytes::from(vec![0; 60_000]),
        ..encrypt()
    };
    let running = tokio::spawn(sender.send_request(over_http2(ENCRYPT, &long)));
    // It waits for room; a call after it is answered.
    let reply = sender.send_request(over_http2(ENCRYPT, &encrypt())).await;
    assert!(reply.is_ok());
    stop.cancel();
    // Those that were on their way when the client heard of it are served.
    let mut served = 0;
    while sender
        .send_request(over_http2(ENCRYPT, &encrypt()))
        .await
        .is_ok()
    {
        served += 1;
        assert!(served < 1_000);
    }
    assert!(!running.is_finished());
    drop(all);
    let reply = running.await.unwrap().unwrap();
    assert!(reply.headers().contains_key(REQUEST_ID_METADATA));
}

#[tokio::test]
async fn a_header_list_that_is_too_long_is_refused() {
    let f = Fixture::make().await;
    let (near, _stop) = connect(&f);
    let mut sender = client(near).await;
    let before = f.last_record_index();
    let mut request = over_http2(ENCRYPT, &encrypt());
    for n in 0..20 {
        let name = http::HeaderName::try_from(format!("x-{n}")).unwrap();
        let value = http::HeaderValue::try_from("v".repeat(1000)).unwrap();
        request.headers_mut().insert(name, value);
    }
    match sender.send_request(request).await {
        Ok(reply) => assert_eq!(reply.status(), 431),
        Err(error) => assert!(error.is_user() || !error.is_closed(), "{error}"),
    }
    assert_eq!(f.last_record_index(), before);
}

/// A frame of HTTP/2.
fn http2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Sends the preface and `frames`, and reads the frames of the answer until `kind`, of which it gives the payload.
async fn answer_to(f: &Fixture, frames: &[u8], kind: u8) -> Vec<u8> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut near, _stop) = connect(f);
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(http2_frame(4, 0, 0, &[]));
    sent.extend(frames);
    near.write_all(&sent).await.unwrap();
    loop {
        let mut head = [0; 9];
        near.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        near.read_exact(&mut payload).await.unwrap();
        if (head[3], head[4] & 1) == (kind, 0) {
            return payload;
        }
    }
}

#[tokio::test]
async fn a_client_is_told_what_it_may_have() {
    let f = Fixture::make().await;
    let settings = answer_to(&f, &[], 4).await;
    let told: std::collections::BTreeMap<u16, u32> = settings
        .chunks(6)
        .map(|setting| {
            let (name, value) = setting.split_at(2);
            (
                u16::from_be_bytes(name.try_into().unwrap()),
                u32::from_be_bytes(value.try_into().unwrap()),
            )
        })
        .collect();
    let expected = [
        (3, MAX_STREAMS),
        (4, STREAM_WINDOW_BYTES),
        (5, MAX_FRAME_BYTES),
        (6, MAX_HEADERS_BYTES),
    ];
    for (name, value) in expected {
        assert_eq!(told.get(&name), Some(&value), "{name}");
    }
}

#[tokio::test]
async fn who_resets_streams_as_fast_as_it_opens_them_loses_the_connection() {
    let f = Fixture::make().await;
    // POST, https and `/` in the static table of header compression.
    let request = [0x83, 0x87, 0x84];
    let mut frames = Vec::new();
    for n in 0..=MAX_RESET_BEFORE_ACCEPTED as u32 {
        frames.extend(http2_frame(1, 4, 2 * n + 1, &request));
        frames.extend(http2_frame(3, 0, 2 * n + 1, &8_u32.to_be_bytes()));
    }
    let goaway = answer_to(&f, &frames, 7).await;
    // ENHANCE_YOUR_CALM
    assert_eq!(goaway[4..8], 11_u32.to_be_bytes());
}
