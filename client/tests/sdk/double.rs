//! The in-memory double: what it answers, and its fixed keys.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use bytes::Bytes;
use fieldkeep_client::{
    BatchDecrypt, BatchEncrypt, BatchReEncrypt, Client, DecryptItem, EncryptItem, Error, ErrorKind,
    Fieldkeep, ReEncryptItem, reason,
};
use fieldkeep_proto::v1;
use futures_util::{StreamExt as _, stream};
use tonic::Code;

async fn double() -> Client {
    Fieldkeep::in_memory()
        .key("pii")
        .key("other")
        .client()
        .await
        .unwrap()
}

#[tokio::test]
async fn fields_go_round_and_are_bound_to_field_and_context() {
    let client = double().await;
    let email = client.field("pii", "customer.email").context("id", "42");
    let text = email.encrypt_str("ada@example.org").await.unwrap();
    assert_eq!(email.decrypt_str(&text).await.unwrap(), "ada@example.org");
    let bytes = email.encrypt(b"x").await.unwrap();
    assert_eq!(
        (bytes.len(), bytes[0], bytes[1]),
        (87, 0xfe, 1),
        "format v1"
    );
    let again = email.encrypt(b"x").await.unwrap();
    assert_ne!(bytes, again, "nonces are random");
    for other in [
        client.field("pii", "customer.email").context("id", "43"),
        client.field("pii", "customer.email"),
        client.field("pii", "customer.phone").context("id", "42"),
    ] {
        let error = other.decrypt(&bytes).await.unwrap_err();
        assert!(error.is_decryption_failed());
        assert_eq!(error.to_string(), "decryption failed");
    }
    let stranger = double().await;
    let error = stranger
        .field("pii", "customer.email")
        .context("id", "42")
        .decrypt(&bytes)
        .await;
    assert!(error.unwrap_err().is_decryption_failed());
}

#[tokio::test]
async fn keys_rotate_and_are_disabled() {
    let client = double().await;
    let field = client.field("pii", "f");
    let old = field.encrypt(b"x").await.unwrap();
    let current = field.reencrypt(&old).await.unwrap();
    assert!(!current.changed);
    assert_eq!(
        client.keys().rotate("pii").await.unwrap().primary_version,
        2
    );
    assert_eq!(field.decrypt(&old).await.unwrap(), b"x");
    let renewed = field.reencrypt(&old).await.unwrap();
    assert!(renewed.changed && renewed.version == 2);
    let moved = client.field("other", "f").reencrypt(&old).await.unwrap();
    assert!(moved.changed && moved.version == 1);

    let kind = |error: Error| (error.kind(), error.reason().unwrap().to_owned());
    client.keys().disable_version("pii", 1).await.unwrap();
    let error = field.decrypt(&old).await.unwrap_err();
    assert_eq!(kind(error).1, reason::VERSION_DISABLED);
    assert_eq!(field.decrypt(&renewed.ciphertext).await.unwrap(), b"x");
    client.keys().enable_version("pii", 1).await.unwrap();
    client.keys().disable("pii").await.unwrap();
    for error in [
        field.encrypt(b"x").await.unwrap_err(),
        field.decrypt(&old).await.unwrap_err(),
    ] {
        assert_eq!(kind(error).1, reason::KEY_DISABLED);
    }
    client.keys().enable("pii").await.unwrap();
    field.decrypt(&old).await.unwrap();

    let shown = client.keys().show("pii").await.unwrap();
    assert_eq!(shown.name, "tenants/default/keys/pii");
    assert_eq!(shown.versions.len(), 2);
    let error = client.keys().disable_version("pii", 2).await.unwrap_err();
    assert_eq!(kind(error).1, reason::PRIMARY_VERSION);
    let error = client.keys().create("pii").await.unwrap_err();
    assert_eq!(kind(error).0, ErrorKind::AlreadyExists);
    let error = client.keys().show("missing").await.unwrap_err();
    assert_eq!(kind(error).1, reason::KEY_NOT_FOUND);
    let missing = client.field("missing", "f");
    let error = missing.encrypt(b"x").await.unwrap_err();
    assert_eq!(error.to_string(), "there is no key `missing`");
}

#[tokio::test]
async fn lists_have_pages_and_tenants_are_walls() {
    let client = double().await;
    client.tenants().create("acme").await.unwrap();
    for name in ["a", "b", "c"] {
        let name = format!("tenants/acme/keys/{name}");
        client.keys().create(&name).await.unwrap();
    }
    let keys = client.keys().list("acme").page_size(2);
    let names: Vec<String> = keys
        .collect()
        .await
        .unwrap()
        .into_iter()
        .map(|key| key.name)
        .collect();
    assert_eq!(
        names,
        [
            "tenants/acme/keys/a",
            "tenants/acme/keys/b",
            "tenants/acme/keys/c"
        ]
    );
    client.field("pii", "f").encrypt(b"four").await.unwrap();
    let usage = client.keys().usage("pii").await.unwrap();
    assert!(usage.versions[0].messages >= 1 && usage.versions[0].bytes >= 4);
    assert_eq!(client.tenants().list().collect().await.unwrap().len(), 2);
    let foreign = client.field("tenants/acme/keys/a", "f");
    let error = foreign.encrypt(b"x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(client.status().await.unwrap().store, "memory");
}

#[tokio::test]
async fn rotation_policies_are_kept_checked_and_shown() {
    let client = double().await;
    let days = |days: i64| {
        Some(prost_types::Duration {
            seconds: days * 86_400,
            nanos: 0,
        })
    };
    let quarterly = v1::KeyRotation {
        period: days(90),
        jitter: days(0),
        ..Default::default()
    };
    let keys = client.keys();
    let made = keys.create_with("cards", Some(quarterly.clone())).await;
    assert_eq!(made.unwrap().rotation.unwrap(), quarterly);
    let shown = keys.show("cards").await.unwrap();
    let next = shown.next_rotation.unwrap();
    assert_eq!(next.cause(), v1::RotationCause::Period);
    let begun = shown.rotate_time.unwrap().seconds;
    assert_eq!(next.time.unwrap().seconds, begun + 90 * 86_400);
    let shown = keys.set_rotation("cards", None).await.unwrap();
    assert_eq!((shown.rotation, shown.next_rotation), (None, None));

    let never = v1::KeyRotation {
        cron: "0 0 31 2 *".into(),
        ..Default::default()
    };
    let error = keys.set_rotation("cards", Some(never)).await.unwrap_err();
    assert_eq!(error.reason(), Some(reason::INVALID_REQUEST), "{error}");
}

#[tokio::test]
async fn what_the_trail_has_of_items_is_kept_and_shown() {
    let client = double().await;
    let keys = client.keys();
    let items = |key: v1::Key| key.audit_items();
    assert_eq!(
        items(keys.show("pii").await.unwrap()),
        v1::AuditItems::Counts
    );
    let set = keys.set_audit_items("pii", v1::AuditItems::Hashes).await;
    assert_eq!(items(set.unwrap()), v1::AuditItems::Hashes);
    assert_eq!(
        items(keys.show("pii").await.unwrap()),
        v1::AuditItems::Hashes
    );
    let unknown = v1::CreateKeyRequest {
        name: "new".into(),
        audit_items: 7,
        ..v1::CreateKeyRequest::default()
    };
    let error = keys.create_from(unknown).await.unwrap_err();
    assert_eq!(error.reason(), Some(reason::INVALID_REQUEST), "{error}");
}

#[tokio::test]
async fn what_is_not_valid_is_told_as_the_service_tells_it() {
    let client = double().await;
    for call in [
        client.field("Pii", "f"),
        client.field("pii", "F"),
        client.field("pii", ""),
        client.field("pii", "f").context("A", "x"),
        client.field("pii", "f").context("a", "x").context("a", "y"),
    ] {
        let error = call.encrypt(b"x").await.unwrap_err();
        assert_eq!(error.reason(), Some(reason::INVALID_REQUEST), "{error}");
    }
    let error = client.grants().list("", "").collect().await.unwrap_err();
    assert_eq!(error.code(), Some(Code::Unimplemented));
    assert!(
        error.to_string().contains("test it against a service"),
        "{error}"
    );
}

#[tokio::test]
async fn batches_and_streams_work_as_with_a_service() {
    let client = double().await;
    let mut items: Vec<EncryptItem> = (0..25_000)
        .map(|at: u32| EncryptItem::new(at.to_be_bytes().to_vec()))
        .collect();
    items[12_345].key = "missing".into();
    let batch = BatchEncrypt {
        key: "pii".into(),
        field: "f".into(),
        context: vec![("table".into(), "c".into())],
        items,
    };
    let sealed = client.encrypt_batch(batch).await.unwrap();
    let error = sealed[12_345].as_ref().unwrap_err();
    assert_eq!(error.reason, reason::KEY_NOT_FOUND);
    let sealed: Vec<Bytes> = sealed
        .into_iter()
        .flatten()
        .map(|sealed| sealed.ciphertext)
        .collect();
    assert_eq!(sealed.len(), 24_999);

    client.keys().rotate("pii").await.unwrap();
    let batch = BatchReEncrypt {
        field: "f".into(),
        context: vec![("table".into(), "c".into())],
        ..BatchReEncrypt::default()
    };
    let items = stream::iter(sealed).map(ReEncryptItem::new);
    let renewed = client.reencrypt_stream(batch, items).map(|result| {
        let renewed = result.unwrap().unwrap();
        assert!(renewed.changed && renewed.version == 2);
        DecryptItem::new(renewed.ciphertext)
    });
    let batch = BatchDecrypt {
        field: "f".into(),
        context: vec![("table".into(), "c".into())],
        ..BatchDecrypt::default()
    };
    let mut opened = client.decrypt_stream(batch, renewed);
    for at in (0..25_000u32).filter(|at| *at != 12_345) {
        let value = opened.next().await.unwrap().unwrap().unwrap();
        assert_eq!(value.plaintext, at.to_be_bytes().to_vec());
    }
    assert!(opened.next().await.is_none());
}

#[tokio::test]
async fn fixed_keys_are_the_same_in_each_run_and_differ_by_everything_else() {
    let seeded = |seed: &str| {
        Fieldkeep::in_memory()
            .fixed_keys(seed)
            .key("pii")
            .key("other")
            .client()
    };
    let first = seeded("a").await.unwrap();
    let text = first.field("pii", "f").encrypt_str("x").await.unwrap();
    first.keys().rotate("pii").await.unwrap();
    let newer = first.field("pii", "f").encrypt_str("y").await.unwrap();

    let second = seeded("a").await.unwrap();
    let field = second.field("pii", "f");
    assert_eq!(field.decrypt_str(&text).await.unwrap(), "x");
    field.decrypt_str(&newer).await.unwrap_err();
    second.keys().rotate("pii").await.unwrap();
    assert_eq!(field.decrypt_str(&newer).await.unwrap(), "y");
    assert_ne!(field.encrypt_str("y").await.unwrap(), newer);

    let handle = |client: Client, key: &'static str| async move {
        client.keys().show(key).await.unwrap().handle
    };
    assert_ne!(
        handle(second.clone(), "pii").await,
        handle(second, "other").await
    );
    let other_seed = seeded("b").await.unwrap();
    let error = other_seed.field("pii", "f").decrypt_str(&text).await;
    assert!(error.unwrap_err().is_decryption_failed());
}

/// Kept from an earlier run: whoever breaks this breaks the kept ciphertexts of everybody's tests.
#[tokio::test]
async fn a_kept_ciphertext_of_fixed_keys_decrypts() {
    let client = Fieldkeep::in_memory()
        .fixed_keys("kept")
        .key("pii")
        .client()
        .await
        .unwrap();
    let field = client.field("pii", "customer.email").context("id", "42");
    let kept = "fk1:_gGwWAEBGACQUAAAAAHX7csgkgEOJNoTDoAIX2QuStksVgArNAzvjVfuTsmGojCNx0odADIrsePbjYBK1g_K3D0Cmu7i8pVku8JK7o7Q8f3oz466N_Auz1yOtIj58BaS4FPrU48";
    assert_eq!(field.decrypt_str(kept).await.unwrap(), "ada@example.org");
}
