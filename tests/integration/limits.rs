//! Limits, each told with its name. Sent past the SDK, which would refuse most of them itself.

use fieldkeep_proto::v1::{
    self, ContextPair, EncryptItem, EncryptRequest, field_service_client::FieldServiceClient,
    key_service_client::KeyServiceClient,
};
use tonic::{Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{fixture::Fixture, transport::channel};

async fn field_service(f: &Fixture) -> FieldServiceClient<Channel> {
    let channel = channel(f.server.data, &f.home, Some(&f.app_identity))
        .await
        .unwrap();
    FieldServiceClient::new(channel)
        .max_encoding_message_size(64 << 20)
        .max_decoding_message_size(64 << 20)
}

fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .map_or_else(|| format!("{status:?}"), |info| info.reason)
}

fn pair(name: &str, value: &str) -> ContextPair {
    ContextPair {
        name: name.into(),
        value: value.into(),
    }
}

fn request() -> EncryptRequest {
    EncryptRequest {
        key: "pii".into(),
        field: "f".into(),
        context: vec![],
        plaintext: b"x"[..].into(),
    }
}

#[tokio::test]
async fn each_limit_of_a_field_is_named() {
    let f = Fixture::start();
    let mut client = field_service(&f).await;
    let cases: Vec<(&str, EncryptRequest, &str)> = vec![
        (
            "plaintext over 64 KiB",
            EncryptRequest {
                plaintext: vec![0; 65_537].into(),
                ..request()
            },
            "FIELD_TOO_LARGE",
        ),
        (
            "empty key",
            EncryptRequest {
                key: String::new(),
                ..request()
            },
            "INVALID_REQUEST",
        ),
        (
            "empty field",
            EncryptRequest {
                field: String::new(),
                ..request()
            },
            "INVALID_REQUEST",
        ),
        (
            "long field",
            EncryptRequest {
                field: "x".repeat(64),
                ..request()
            },
            "INVALID_REQUEST",
        ),
        (
            "field in capitals",
            EncryptRequest {
                field: "Customer".into(),
                ..request()
            },
            "INVALID_REQUEST",
        ),
        (
            "17 pairs",
            EncryptRequest {
                context: (0..17).map(|n| pair(&format!("n{n}"), "")).collect(),
                ..request()
            },
            "INVALID_REQUEST",
        ),
        (
            "duplicate pair",
            EncryptRequest {
                context: vec![pair("a", "1"), pair("a", "1")],
                ..request()
            },
            "INVALID_REQUEST",
        ),
        (
            "bad pair name",
            EncryptRequest {
                context: vec![pair("A", "1")],
                ..request()
            },
            "INVALID_REQUEST",
        ),
        (
            "context over 4 KiB",
            EncryptRequest {
                context: vec![pair("a", &"v".repeat(4096))],
                ..request()
            },
            "INVALID_REQUEST",
        ),
        (
            "resource name",
            EncryptRequest {
                key: "tenants/default/keys/pii/versions/1".into(),
                ..request()
            },
            "INVALID_REQUEST",
        ),
    ];
    for (name, request, expected) in cases {
        let status = client.encrypt(request).await.expect_err(name);
        assert_eq!(reason(&status), expected, "{name}");
        assert!(!status.message().is_empty());
    }
    client
        .encrypt(request())
        .await
        .expect("the connection lives on");
}

#[tokio::test]
async fn oversized_batches_are_refused_before_work_starts() {
    let f = Fixture::start();
    let mut client = field_service(&f).await;
    let batch = |items: Vec<EncryptItem>| v1::BatchEncryptRequest {
        key: "pii".into(),
        field: "f".into(),
        context: vec![],
        items,
    };
    let item = |length: usize| EncryptItem {
        plaintext: vec![1; length].into(),
        ..EncryptItem::default()
    };

    let status = client
        .batch_encrypt(batch(vec![item(1); 10_001]))
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "BATCH_TOO_LARGE");
    let status = client
        .batch_encrypt(batch(vec![item(60_000); 150]))
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "REQUEST_TOO_LARGE");
    let status = client
        .batch_encrypt(batch(vec![item(65_536); 300]))
        .await
        .unwrap_err();
    assert_eq!(
        reason(&status),
        "REQUEST_TOO_LARGE",
        "over 16 MiB on the wire"
    );
    let reply = client
        .batch_encrypt(batch(vec![item(100); 10_000]))
        .await
        .unwrap()
        .into_inner();
    assert!(reply.results.len() == 10_000 && reply.results.iter().all(|r| r.error.is_none()));
    let empty = client
        .batch_encrypt(batch(vec![]))
        .await
        .map(|r| r.into_inner().results.len());
    assert!(matches!(empty, Ok(0)) || empty.is_err_and(|s| reason(&s) == "INVALID_REQUEST"));
}

#[tokio::test]
async fn admin_requests_are_checked() {
    let f = Fixture::start();
    let channel = channel(f.server.admin, &f.home, Some(&f.admin_identity))
        .await
        .unwrap();
    let mut keys = KeyServiceClient::new(channel);
    let create = |name: &str, request_id: &str| v1::CreateKeyRequest {
        name: name.into(),
        request_id: request_id.into(),
        ..v1::CreateKeyRequest::default()
    };
    let id = "6f1e0d5c-8a47-4f57-9d0e-1c2b3a495867";
    let first = keys
        .create_key(create("once", id))
        .await
        .unwrap()
        .into_inner();
    let again = keys
        .create_key(create("once", id))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first, again, "a repeated request id gets the first outcome");
    assert_eq!(
        reason(&keys.create_key(create("twice", id)).await.unwrap_err()),
        "REQUEST_ID_REUSED"
    );
    assert_eq!(
        reason(&keys.create_key(create("once", "")).await.unwrap_err()),
        "ALREADY_EXISTS"
    );
    assert_eq!(
        reason(
            &keys
                .create_key(create("x", "not a uuid"))
                .await
                .unwrap_err()
        ),
        "INVALID_REQUEST"
    );
    let unknown_suite = v1::CreateKeyRequest {
        suite: 77,
        ..create("x", "")
    };
    assert_eq!(
        reason(&keys.create_key(unknown_suite).await.unwrap_err()),
        "INVALID_REQUEST"
    );
    let page = v1::ListKeysRequest {
        page_token: "%%%".into(),
        ..v1::ListKeysRequest::default()
    };
    assert_eq!(
        reason(&keys.list_keys(page).await.unwrap_err()),
        "INVALID_REQUEST"
    );

    let rotate = v1::RotateKeyRequest {
        name: "once".into(),
        request_id: "0d2f4a6c-1b3d-4e5f-8a9b-0c1d2e3f4a5b".into(),
    };
    assert_eq!(
        keys.rotate_key(rotate.clone())
            .await
            .unwrap()
            .into_inner()
            .primary_version,
        2
    );
    assert_eq!(
        keys.rotate_key(rotate)
            .await
            .unwrap()
            .into_inner()
            .primary_version,
        2,
        "a retry is no second rotation"
    );
}
