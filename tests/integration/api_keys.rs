//! API keys, with the real binary over connections without a certificate.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;
use fieldkeep_proto::v1::{EncryptRequest, field_service_client::FieldServiceClient};
use serde_json::Value;
use tonic::{Code, Request, transport::Channel};

use crate::fixture::Fixture;

/// A channel without a certificate of its own.
async fn channel(f: &Fixture) -> Channel {
    crate::transport::channel(f.server.data, &f.home, None)
        .await
        .unwrap()
}

async fn encrypt(channel: &Channel, secret: &str) -> Code {
    let mut request = Request::new(EncryptRequest {
        key: "pii".into(),
        field: "f".into(),
        plaintext: Bytes::from_static(b"x"),
        ..Default::default()
    });
    let value = format!("Bearer {secret}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    let outcome = FieldServiceClient::new(channel.clone())
        .encrypt(request)
        .await;
    outcome.map_or_else(|status| status.code(), |_| Code::Ok)
}

fn run(f: &Fixture, arguments: &[&str]) -> String {
    f.server.run(&f.admin_identity, arguments)
}

#[tokio::test]
async fn an_api_key_is_made_used_rotated_listed_and_revoked() {
    let f = Fixture::start();
    let secret = run(&f, &["api-key", "create", "app", "--ttl", "1h"]);
    let secret = secret.trim();
    assert_eq!((secret.len(), &secret[..3]), (69, "fk_"), "alone in a pipe");
    let id = &secret[3..19];
    let channel = channel(&f).await;
    assert_eq!(encrypt(&channel, secret).await, Code::Ok);
    assert_eq!(encrypt(&channel, "").await, Code::Unauthenticated);

    let rotated = run(&f, &["api-key", "rotate", id, "--format", "json"]);
    let rotated: Value = serde_json::from_str(&rotated).unwrap();
    let next = rotated["api_key"].as_str().unwrap();
    assert!(rotated["previous_expire_time"].is_string());
    for both in [secret, next] {
        assert_eq!(encrypt(&channel, both).await, Code::Ok);
    }
    let listed = run(&f, &["api-key", "list", "--format", "json"]);
    assert!(listed.contains(id) && listed.contains("identities/app"));
    assert!(!listed.contains(&secret[20..40]) && !listed.contains(&next[20..40]));
    assert!(!listed.contains("\"last_use_time\": null"), "{listed}");

    // It outlives a restart, and its end does too.
    let f = f.restart();
    let channel = self::channel(&f).await;
    assert_eq!(encrypt(&channel, next).await, Code::Ok);
    run(&f, &["api-key", "revoke", id, "--yes"]);
    assert_eq!(encrypt(&channel, next).await, Code::Unauthenticated);
    let f = f.restart();
    let channel = self::channel(&f).await;
    assert_eq!(encrypt(&channel, next).await, Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_the_acknowledgement_of_a_revocation_none_of_the_racing_calls_succeeds() {
    let f = Arc::new(Fixture::start());
    let secret: Arc<str> = run(&f, &["api-key", "create", "app"]).trim().into();
    let acknowledged = Arc::new(AtomicBool::new(false));
    let (before, after) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut callers = Vec::new();
    for _ in 0..16 {
        let channel = channel(&f).await;
        let (secret, acknowledged) = (Arc::clone(&secret), Arc::clone(&acknowledged));
        let (before, after) = (Arc::clone(&before), Arc::clone(&after));
        callers.push(tokio::spawn(async move {
            let mut late = 0;
            while late < 625 {
                let began_after = acknowledged.load(Ordering::SeqCst);
                let is_ok = encrypt(&channel, &secret).await == Code::Ok;
                if began_after {
                    late += 1;
                    after.fetch_add(u64::from(is_ok), Ordering::SeqCst);
                } else {
                    before.fetch_add(u64::from(is_ok), Ordering::SeqCst);
                }
            }
        }));
    }
    while before.load(Ordering::SeqCst) < 200 {
        tokio::task::yield_now().await;
    }
    f.admin().api_keys().revoke(&secret[3..19]).await.unwrap();
    acknowledged.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(after.load(Ordering::SeqCst), 0, "of 10,000");
}
