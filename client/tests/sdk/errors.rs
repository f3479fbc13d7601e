//! What a caller learns of a failure.

use fieldkeep_client::{Error, ErrorKind, reason};
use tonic::{Code, Status};

use crate::fake::{Fake, Step, status};

#[tokio::test]
async fn the_reason_code_and_message_of_the_service_arrive() {
    let cases = [
        (
            Code::Unauthenticated,
            reason::UNAUTHENTICATED,
            ErrorKind::Refused,
        ),
        (
            Code::PermissionDenied,
            reason::PERMISSION_DENIED,
            ErrorKind::Refused,
        ),
        (Code::NotFound, reason::KEY_NOT_FOUND, ErrorKind::NotFound),
        (
            Code::AlreadyExists,
            reason::ALREADY_EXISTS,
            ErrorKind::AlreadyExists,
        ),
        (
            Code::InvalidArgument,
            reason::INVALID_REQUEST,
            ErrorKind::InvalidArgument,
        ),
        (
            Code::InvalidArgument,
            reason::DECRYPTION_FAILED,
            ErrorKind::DecryptionFailed,
        ),
        (
            Code::FailedPrecondition,
            reason::KEY_DISABLED,
            ErrorKind::FailedPrecondition,
        ),
        (Code::Aborted, reason::CONFLICT, ErrorKind::Conflict),
        (
            Code::ResourceExhausted,
            reason::NO_SPACE,
            ErrorKind::ResourceExhausted,
        ),
        (Code::Internal, reason::INTERNAL, ErrorKind::Internal),
    ];
    let fake = Fake::start().await;
    let client = fake.client();
    for (code, reason, kind) in cases {
        let mut failure = status(code, reason, "what to do");
        failure
            .metadata_mut()
            .insert("fieldkeep-request-id", "00ff".parse().unwrap());
        fake.script([Step::Fail(failure)]);
        let error = client.keys().show("pii").await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(error.code(), Some(code));
        assert_eq!(error.reason(), Some(reason));
        assert_eq!(error.message(), "what to do");
        let Error::Server(server) = error else {
            panic!("{error:?}");
        };
        assert_eq!(server.request_id(), Some("00ff"));
    }
}

#[tokio::test]
async fn a_status_without_details_has_no_reason_and_still_a_message() {
    let fake = Fake::start().await;
    fake.script([Step::Fail(Status::new(Code::Unimplemented, ""))]);
    let error = fake.client().status().await.unwrap_err();
    assert_eq!(error.reason(), None);
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(!error.message().is_empty());
}

#[tokio::test]
async fn another_field_or_context_is_the_one_opaque_error() {
    let fake = Fake::start().await;
    let client = fake.client();
    let bytes = client
        .field("pii", "customer.email")
        .context("id", "42")
        .encrypt(b"x")
        .await
        .unwrap();
    for call in [
        client.field("pii", "customer.email").context("id", "43"),
        client.field("pii", "customer.phone").context("id", "42"),
        client.field("pii", "customer.email"),
    ] {
        let error = call.decrypt(&bytes).await.unwrap_err();
        assert!(error.is_decryption_failed(), "{error:?}");
        assert_eq!(error.to_string(), "decryption failed");
    }
}

#[tokio::test]
async fn what_cannot_be_right_is_refused_before_anything_is_sent() {
    let fake = Fake::start().await;
    let client = fake.client();
    let field = client.field("pii", "f");

    let error = field.encrypt(&vec![0; 65_537]).await.unwrap_err();
    assert_eq!(error.reason(), Some(reason::FIELD_TOO_LARGE));
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let error = field
        .decrypt(&vec![0; 8 * 1024 * 1024 + 1])
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Some(reason::REQUEST_TOO_LARGE));
    for text in [
        "", "fk1:", "fk2:AAAA", "fk1:AA==", "fk1:A", "fk1:AB", "plain",
    ] {
        let error = field.decrypt_str(text).await.unwrap_err();
        assert_eq!(error.reason(), Some(reason::INVALID_REQUEST), "{text}");
        let error = field.reencrypt_str(text).await.unwrap_err();
        assert_eq!(error.reason(), Some(reason::INVALID_REQUEST), "{text}");
    }
    assert_eq!(fake.calls().len(), 0);
    assert_eq!(fake.accepted(), 0);

    field.encrypt(&vec![0; 65_536]).await.unwrap();
}

#[tokio::test]
async fn bytes_that_are_not_text_are_not_shown() {
    let fake = Fake::start().await;
    let client = fake.client();
    let field = client.field("pii", "f");
    let bytes = field.encrypt(b"\xffsecret").await.unwrap();
    let text = field.reencrypt(&bytes).await.unwrap();
    let text = fieldkeep_crypto::ciphertext::encode_text(&text.ciphertext);
    let error = field.decrypt_str(&text).await.unwrap_err();
    assert!(matches!(error, Error::NotText));
    assert!(!format!("{error:?} {error}").contains("secret"));
}

#[tokio::test]
async fn debug_shows_no_value() {
    let fake = Fake::start().await;
    let client = fake.client();
    let identity = fake.authority.client();
    let builder = fake.authority.builder_as("localhost", &identity);
    let item = fieldkeep_client::EncryptItem::new("the-secret").context("id", "the-secret");
    let batch = fieldkeep_client::BatchEncrypt {
        items: vec![item],
        ..Default::default()
    };
    let call = client.field("pii", "f").context("id", "the-secret");
    let shown = format!("{builder:?} {batch:?} {call:?} {client:?}");
    assert!(!shown.contains("the-secret"), "{shown}");
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
}

#[tokio::test]
async fn what_main_prints_says_what_to_do() {
    let error = fieldkeep_client::Client::builder().build().unwrap_err();
    assert_eq!(
        format!("{error:?}"),
        "the client has no address; call `address` (Config)"
    );
    let fake = Fake::start().await;
    fake.script([Step::Fail(status(
        Code::NotFound,
        "KEY_NOT_FOUND",
        "there is no key `pii`",
    ))]);
    let error = fake.client().keys().show("pii").await.unwrap_err();
    assert_eq!(
        format!("{error:?}"),
        "there is no key `pii` (NotFound, KEY_NOT_FOUND)"
    );
}
