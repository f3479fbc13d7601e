//! Connecting, and what can be wrong with the other side.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{sync::Arc, time::Duration};

use fieldkeep_client::{ConnectError, Error, ErrorKind};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{
    fake::{Fake, Step},
    identities::Authority,
};

#[tokio::test]
async fn a_field_goes_round_in_text_and_in_bytes() {
    let fake = Fake::start().await;
    let client = fake.client();
    let email = client
        .field("pii", "customer.email")
        .context("id", "42")
        .context("table", "c");

    let text = email.encrypt_str("ada@example.org").await.unwrap();
    assert!(text.starts_with("fk1:"), "{text}");
    assert_eq!(email.decrypt_str(&text).await.unwrap(), "ada@example.org");

    let bytes = email.encrypt(b"\x00\xff").await.unwrap();
    assert_eq!(email.decrypt(&bytes).await.unwrap(), b"\x00\xff");
    let reordered = client
        .field("pii", "customer.email")
        .context("table", "c")
        .context("id", "42");
    assert_eq!(reordered.decrypt(&bytes).await.unwrap(), b"\x00\xff");

    let same = email.reencrypt(&bytes).await.unwrap();
    assert_eq!(
        (&same.ciphertext[..], same.version, same.changed),
        (&bytes[..], 2, false)
    );
    let moved = client
        .field("other", "customer.email")
        .context("id", "42")
        .context("table", "c")
        .reencrypt_str(&text)
        .await
        .unwrap();
    assert_eq!((moved.text, moved.changed), (text, true));
    assert!(fake.calls()[0].user_agent.starts_with("fieldkeep-client/"));
}

#[tokio::test]
async fn it_connects_with_the_first_call_and_clones_share_the_connection() {
    let fake = Fake::start().await;
    let client = fake.builder().connections(1).build().unwrap();
    assert_eq!(fake.accepted(), 0);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let client = client.clone();
        tasks.spawn(async move { client.field("pii", "f").encrypt(b"x").await });
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome.unwrap().unwrap();
    }
    assert_eq!(fake.accepted(), 1);
    assert_eq!(fake.calls().len(), 32);
}

#[tokio::test]
async fn it_connects_again_after_the_connection_broke() {
    let fake = Fake::start().await;
    let client = fake.client();
    for round in 1..=5 {
        client.field("pii", "f").encrypt(b"x").await.unwrap();
        assert_eq!(fake.accepted(), round);
        fake.break_connections();
    }
}

#[tokio::test]
async fn it_recovers_when_the_service_comes_back() {
    let fake = Fake::start().await;
    let client = fake.client();
    fake.hang_up(true);
    let error = client.field("pii", "f").encrypt(b"x").await.unwrap_err();
    assert!(
        matches!(
            &error,
            Error::Connect {
                source: ConnectError::Closed(_) | ConnectError::Tcp(_),
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(fake.accepted(), 3, "tried three times");
    fake.hang_up(false);
    client.field("pii", "f").encrypt(b"x").await.unwrap();
}

#[tokio::test]
async fn nobody_listens() {
    let authority = Authority::make();
    let client = authority.builder("127.0.0.1:1").build().unwrap();
    let error = client.status().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(
        error
            .to_string()
            .starts_with("cannot connect to `127.0.0.1:1`: Connection refused"),
        "{error}"
    );
}

#[tokio::test]
async fn service_of_another_ca_is_refused_at_once() {
    let fake = Fake::start().await;
    let stranger = Authority::make();
    let client = stranger.builder(&fake.address.to_string()).build().unwrap();
    let error = client.status().await.unwrap_err();
    assert!(
        matches!(
            &error,
            Error::Connect {
                source: ConnectError::UnknownCa,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(fake.accepted(), 1, "not tried again");
}

#[tokio::test]
async fn certificate_for_another_host_is_refused() {
    let authority = Authority::make();
    let tls = authority.server_config("keys.example.org", &[b"h2"]);
    let fake = Fake::start_with(authority, tls).await;
    let error = fake.client().status().await.unwrap_err();
    assert!(
        matches!(&error, Error::Connect { source: ConnectError::WrongName { host }, .. } if &**host == "127.0.0.1"),
        "{error:?}"
    );
    assert_eq!(fake.calls().len(), 0);
}

#[tokio::test]
async fn expired_certificate_of_the_service_is_told_as_such() {
    let authority = Authority::make();
    let tls = authority.expired_server_config("127.0.0.1");
    let fake = Fake::start_with(authority, tls).await;
    let error = fake.client().status().await.unwrap_err();
    assert!(
        matches!(
            &error,
            Error::Connect {
                source: ConnectError::Expired,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn service_without_http2_is_refused() {
    let authority = Authority::make();
    let tls = authority.server_config("127.0.0.1", &[]);
    let fake = Fake::start_with(authority, tls).await;
    let error = fake.client().status().await.unwrap_err();
    assert!(
        matches!(
            &error,
            Error::Connect {
                source: ConnectError::NotHttp2,
                ..
            }
        ),
        "{error:?}"
    );
}

// The refusal comes after the client's handshake has ended, and races with its first request: hence the rounds.
#[tokio::test]
async fn client_certificate_of_another_ca_is_told_as_such() {
    let fake = Fake::start().await;
    let stranger = Authority::make().client();
    for round in 1..=20 {
        let client = fake
            .authority
            .builder_as(&fake.address.to_string(), &stranger)
            .build()
            .unwrap();
        let error = client.status().await.unwrap_err();
        assert!(
            matches!(error, Error::CertificateRefused { .. }),
            "{error:?}"
        );
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert_eq!(fake.accepted(), round, "not tried again");
    }
}

#[tokio::test]
async fn expired_client_certificate_is_told_as_such() {
    let fake = Fake::start().await;
    let expired = fake.authority.expired_client();
    let client = fake
        .authority
        .builder_as(&fake.address.to_string(), &expired)
        .build()
        .unwrap();
    let error = client.status().await.unwrap_err();
    assert!(
        matches!(&error, Error::CertificateRefused { alert, .. } if alert.contains("Expired")),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("fieldkeep cert issue"),
        "{error}"
    );
}

/// A listener that answers the first bytes of every connection with `answer`.
async fn answer_with(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut hello = [0u8; 4096];
            let _ = tcp.read(&mut hello).await;
            let _ = tcp.write_all(answer).await;
            // Read on, so that closing with unread bytes does not reset the connection under the answer.
            let _ = tcp.shutdown().await;
            while matches!(tcp.read(&mut hello).await, Ok(1..)) {}
        }
    });
    address
}

#[tokio::test]
async fn service_without_tls_or_with_an_old_version_is_told_as_such() {
    let http: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\r\n";
    // Record of type alert, TLS 1.2, 2 bytes: fatal, protocol_version.
    let old_version: &[u8] = &[21, 3, 3, 0, 2, 2, 70];
    for answer in [http, old_version] {
        let address = answer_with(answer).await;
        let client = Authority::make().builder(&address).build().unwrap();
        let error = client.status().await.unwrap_err();
        assert!(
            matches!(
                &error,
                Error::Connect {
                    source: ConnectError::NotTls,
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn service_that_never_answers_the_handshake_ends_by_the_deadline() {
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap().to_string();
    let timeout = Duration::from_millis(100);
    let client = Authority::make()
        .builder(&address)
        .timeout(timeout)
        .build()
        .unwrap();
    let error = client.status().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(error.to_string(), "no reply within 100 ms");
}

#[tokio::test]
async fn a_broken_connection_does_not_hide_behind_an_older_refusal() {
    let fake = Fake::start().await;
    let client = fake.client();
    fake.script([Step::Break]);
    let error = client
        .issue_certificate(&b"csr"[..], "app", Duration::ZERO)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::ConnectionLost { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}
