//! What is tried again, how often, and what is not.

use std::time::Duration;

use fieldkeep_client::{BatchEncrypt, EncryptItem, Error, ErrorKind};
use tonic::{Code, Status};

use crate::fake::{Fake, Step, retry_status, status};

fn unavailable(reason: &str) -> Step {
    Step::Fail(status(Code::Unavailable, reason, "not now"))
}

#[tokio::test]
async fn an_unavailable_service_is_tried_again() {
    for reason in ["STORE_UNAVAILABLE", "AUDIT_UNAVAILABLE", "SHUTTING_DOWN"] {
        let fake = Fake::start().await;
        fake.script([unavailable(reason), unavailable(reason)]);
        fake.client().field("pii", "f").encrypt(b"x").await.unwrap();
        assert_eq!(fake.calls().len(), 3, "{reason}");
    }
}

#[tokio::test]
async fn retry_info_is_enough_to_try_again() {
    let fake = Fake::start().await;
    fake.script([Step::Fail(retry_status("", Duration::from_millis(1)))]);
    fake.client()
        .field("pii", "f")
        .decrypt(&[1])
        .await
        .unwrap_err();
    assert_eq!(fake.calls().len(), 2);
}

#[tokio::test]
async fn three_tries_are_the_most_and_the_last_error_is_told() {
    let fake = Fake::start().await;
    fake.script([
        unavailable("SHUTTING_DOWN"),
        unavailable("SHUTTING_DOWN"),
        unavailable("AUDIT_UNAVAILABLE"),
    ]);
    let error = fake
        .client()
        .field("pii", "f")
        .encrypt(b"x")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.reason(), Some("AUDIT_UNAVAILABLE"));
    assert_eq!(fake.calls().len(), 3);
}

#[tokio::test]
async fn other_failures_are_not_tried_again() {
    let failures = [
        Status::unavailable("from a proxy"),
        status(Code::PermissionDenied, "PERMISSION_DENIED", "no"),
        status(
            Code::InvalidArgument,
            "DECRYPTION_FAILED",
            "decryption failed",
        ),
        status(Code::Internal, "INTERNAL", "a fault"),
        status(Code::ResourceExhausted, "NO_SPACE", "full"),
        status(Code::Aborted, "CONFLICT", "another change came first"),
        status(Code::DeadlineExceeded, "", "too slow"),
        // A reason alone, with another code, promises nothing.
        status(Code::Internal, "STORE_UNAVAILABLE", "odd"),
    ];
    for failure in failures {
        let fake = Fake::start().await;
        let code = failure.code();
        fake.script([Step::Fail(failure)]);
        let error = fake.client().keys().create("pii").await.unwrap_err();
        assert_eq!(error.code(), Some(code));
        assert_eq!(fake.calls().len(), 1, "{error:?}");
    }
}

#[tokio::test]
async fn a_change_keeps_its_request_id_over_its_tries() {
    let fake = Fake::start().await;
    let client = fake.client();
    fake.script([unavailable("STORE_UNAVAILABLE"), Step::Break]);
    client.keys().create("pii").await.unwrap();
    client.keys().create("pii").await.unwrap();
    let ids: Vec<String> = fake
        .calls()
        .into_iter()
        .map(|call| call.request_id)
        .collect();
    assert_eq!(ids.len(), 4);
    assert_eq!((&ids[0], &ids[0]), (&ids[1], &ids[2]));
    assert_ne!(ids[0], ids[3], "another change has another id");
    assert_eq!(ids[0].len(), 36);
}

#[tokio::test]
async fn every_change_has_a_request_id() {
    let fake = Fake::start().await;
    let client = fake.client();
    let keys = client.keys();
    keys.create("k").await.unwrap();
    keys.rotate("k").await.unwrap();
    keys.enable("k").await.unwrap();
    keys.disable("k").await.unwrap();
    let named = keys.enable_version("k", 2).await.unwrap();
    assert_eq!(named.name, "k/versions/2");
    keys.disable_version("tenants/t/keys/k", 3).await.unwrap();
    client.tenants().create("t").await.unwrap();
    let wanted = fieldkeep_proto::v1::CreateGrantRequest {
        principal: "app".into(),
        role: "data".into(),
        ..Default::default()
    };
    let grant = client.grants().create(wanted).await.unwrap();
    assert_eq!(grant.role, "data");
    client.grants().revoke(&grant.name).await.unwrap();
    let calls = fake.calls();
    assert_eq!(calls.len(), 9);
    for call in &calls {
        assert_eq!(call.request_id.len(), 36, "{call:?}");
    }
    let distinct: std::collections::HashSet<_> =
        calls.iter().map(|call| &call.request_id).collect();
    assert_eq!(distinct.len(), 9);
}

#[tokio::test]
async fn a_data_call_is_sent_again_when_the_connection_breaks() {
    let fake = Fake::start().await;
    fake.script([Step::Break]);
    fake.client().field("pii", "f").encrypt(b"x").await.unwrap();
    assert_eq!(fake.calls().len(), 2);
    assert_eq!(fake.accepted(), 2);
}

#[tokio::test]
async fn a_certificate_is_never_issued_twice() {
    for step in [Step::Break, unavailable("SHUTTING_DOWN")] {
        let fake = Fake::start().await;
        fake.script([step]);
        let error = fake
            .client()
            .issue_certificate(&b"csr"[..], "app", Duration::ZERO)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(fake.calls().len(), 1);
    }
}

#[tokio::test]
async fn no_reply_ends_by_the_deadline_and_is_not_tried_again() {
    let fake = Fake::start().await;
    fake.script([Step::Hang]);
    let client = fake
        .builder()
        .timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let error = client.keys().rotate("pii").await.unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    let calls = fake.calls();
    assert_eq!(calls.len(), 1);
    assert!(calls[0].timeout <= Duration::from_secs(2), "{calls:?}");
}

#[tokio::test]
async fn the_deadline_covers_all_tries_and_tells_the_failure_before() {
    let fake = Fake::start().await;
    fake.script([unavailable("STORE_UNAVAILABLE"), Step::Hang]);
    let client = fake
        .builder()
        .timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let error = client.field("pii", "f").encrypt(b"x").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no reply within 2000 ms (the try before: not now)"
    );
    let calls = fake.calls();
    assert!(calls[1].timeout < calls[0].timeout, "{calls:?}");
}

#[tokio::test]
async fn a_wait_beyond_the_deadline_is_not_begun() {
    let fake = Fake::start().await;
    fake.script([Step::Fail(retry_status(
        "STORE_UNAVAILABLE",
        Duration::from_secs(3600),
    ))]);
    let error = fake
        .client()
        .field("pii", "f")
        .encrypt(b"x")
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Some("STORE_UNAVAILABLE"));
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test]
async fn the_service_is_told_the_deadline() {
    let fake = Fake::start().await;
    let client = fake.client();
    client.status().await.unwrap();
    let batch = BatchEncrypt {
        items: vec![EncryptItem::new("x")],
        ..BatchEncrypt::default()
    };
    client.encrypt_batch(batch).await.unwrap();
    let own = Duration::from_secs(3000);
    client
        .field("pii", "f")
        .timeout(own)
        .encrypt(b"x")
        .await
        .unwrap();
    let calls = fake.calls();
    let told: Vec<(&str, Duration)> = calls.iter().map(|call| (call.rpc, call.timeout)).collect();
    for ((rpc, timeout), (expected_rpc, most)) in told.into_iter().zip([
        ("GetStatus", Duration::from_secs(10)),
        ("BatchEncrypt", Duration::from_secs(60)),
        ("Encrypt", own),
    ]) {
        assert_eq!(rpc, expected_rpc);
        assert!(timeout <= most && timeout > most / 2, "{rpc}: {timeout:?}");
    }
}

#[tokio::test]
async fn endless_times_are_cut_and_no_panic() {
    let fake = Fake::start().await;
    let client = fake.builder().timeout(Duration::MAX).build().unwrap();
    client
        .issue_certificate(&b"csr"[..], "app", Duration::MAX)
        .await
        .unwrap();
    assert!(fake.calls()[0].timeout <= Duration::from_secs(24 * 3600));
}
