//! Requests as they come off a connection, through the gate and the router to the service and back.

use bytes::{BufMut, Bytes, BytesMut};
use fieldkeep_proto::v1::{
    BatchDecryptRequest, BatchDecryptResponse, BatchEncryptRequest, DecryptItem, DecryptRequest,
    DecryptResponse, EncryptItem, EncryptRequest, EncryptResponse, GetKeyRequest, GetStatusRequest,
};
use http_body_util::{BodyExt, Full};
use prost::Message;
use tonic::Code;
use tonic_health::ServingStatus;
use tonic_types::StatusExt;
use tower::{Layer, ServiceExt};

use super::*;
use crate::grpc::status::REQUEST_ID_METADATA;
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

/// Sends one request of `identity`; without one it has no peer at all.
async fn send(
    f: &Fixture,
    listener: Listener,
    identity: Option<&str>,
    path: &str,
    body: Bytes,
) -> Response<Body> {
    let reporter = HealthReporter::new();
    reporter
        .set_service_status("fieldkeep.v1.KeyService", ServingStatus::NotServing)
        .await;
    let router = Router::new(Handlers::new(f.service.clone()), listener, reporter);
    let gate = GateLayer::new(f.service.clone(), listener, &f.metrics, None).layer(router);
    let mut request = Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(identity) = identity {
        request = request.extension(peer(identity));
    }
    gate.oneshot(request.body(Body::new(Full::new(body))).unwrap())
        .await
        .unwrap()
}

async fn call(
    f: &Fixture,
    listener: Listener,
    identity: &str,
    path: &str,
    message: &impl Message,
) -> Response<Body> {
    send(
        f,
        listener,
        Some(identity),
        path,
        frame(&message.encode_to_vec()),
    )
    .await
}

async fn message<M: Message + Default>(response: Response<Body>) -> M {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    M::decode(&body[5..]).unwrap()
}

fn status(response: &Response<Body>) -> Status {
    Status::from_header_map(response.headers()).expect("a refusal")
}

fn reason(response: &Response<Body>) -> String {
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
        let response = send(&f, Listener::Data, Some("acme/app"), ENCRYPT, body).await;
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
async fn a_request_without_a_peer_reaches_nothing() {
    let f = Fixture::make().await;
    let body = frame(&GetStatusRequest {}.encode_to_vec());
    let response = send(
        &f,
        Listener::Admin,
        None,
        "/fieldkeep.v1.SystemService/GetStatus",
        body,
    )
    .await;
    assert_eq!(status(&response).code(), Code::Internal);
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
    assert_eq!(routed, SERVICE_NAMES.into_iter().collect());
}

/// A request of `acme/app` with `path` and headers.
fn request(identity: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut request = Request::post(path).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.extension(peer(identity)).body(body).unwrap()
}

fn gate(
    f: &Fixture,
) -> impl TowerService<Request<Body>, Response = Response<Body>, Error = Infallible> {
    let handlers = Handlers::new(f.service.clone());
    let router = Router::new(handlers, Listener::Data, HealthReporter::new());
    GateLayer::new(f.service.clone(), Listener::Data, &f.metrics, None).layer(router)
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
async fn a_call_ends_when_its_caller_stops_waiting() {
    let f = Fixture::make().await;
    let before = f.last_record_index();
    let late = request(
        "acme/app",
        ENCRYPT,
        &[("grpc-timeout", "0n")],
        endless(&[0]),
    );
    let response = gate(&f).oneshot(late).await.unwrap();
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
        let begun = request("acme/app", ENCRYPT, &[], endless(&[0]));
        let mut handled = Box::pin(gate(&f).oneshot(begun));
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
async fn a_long_message_of_a_caller_without_the_role_is_not_read() {
    let f = Fixture::make().await;
    let path = "/fieldkeep.v1.FieldService/BatchEncrypt";
    for (identity, rule) in [("acme/boss", "wrong-role"), ("acme/nobody", "no-role")] {
        let announced = endless(&[0, 0, 0x10, 0, 0]);
        let response = gate(&f)
            .oneshot(request(identity, path, &[], announced))
            .await
            .unwrap();
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
    let long = request("acme/app", ENCRYPT, &[], announced);
    let response = gate(&f).oneshot(long).await.unwrap();
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
    let mut waiting = Box::pin(gate(&f).oneshot(request("acme/app", ENCRYPT, &[], body())));
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
    let response = send(&f, Listener::Data, Some("acme/app"), path, empty_items).await;
    assert_eq!(reason(&response), "BATCH_TOO_LARGE");
    assert_eq!(f.last_record().rule, "invalid");
}

#[tokio::test]
async fn a_batch_is_not_parsed_elsewhere_for_whoever_may_not_send_it() {
    let f = Fixture::make().await;
    let _all = f.service.core().hold_places();
    let path = "/fieldkeep.v1.FieldService/BatchEncrypt";
    let many_items = || Body::new(Full::new(frame(&[0x22, 0].repeat(1_000))));
    let mut refused = Box::pin(gate(&f).oneshot(request("acme/boss", path, &[], many_items())));
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
    let mut opening = Box::pin(gate(&f).oneshot(request("acme/app", path, &[], body)));
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
