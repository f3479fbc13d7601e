//! Calls by a credential of their own, through the gate.

use std::sync::Arc;

use fieldkeep_proto::v1::{
    CreateApiKeyRequest, CreateApiKeyResponse, Decision, RevokeApiKeyRequest, RotateApiKeyRequest,
    RotateApiKeyResponse,
};

use super::*;
use crate::service::call::Peer;

const CREATE: &str = "/fieldkeep.v1.ApiKeyService/CreateApiKey";
const ROTATE: &str = "/fieldkeep.v1.ApiKeyService/RotateApiKey";
const REVOKE: &str = "/fieldkeep.v1.ApiKeyService/RevokeApiKey";

/// A connection without a certificate.
pub(super) fn nobody(address: &str) -> Arc<Peer> {
    Arc::new(Peer::new(None, address.parse().unwrap()))
}

pub(super) async fn with_headers(
    f: &Fixture,
    peer: &Arc<Peer>,
    values: &[&str],
    path: &str,
    message: &impl Message,
) -> Response<ReplyBody> {
    let headers: Vec<_> = values
        .iter()
        .map(|value| ("authorization", *value))
        .collect();
    with_any_headers(f, peer, &headers, path, message).await
}

async fn with_any_headers(
    f: &Fixture,
    peer: &Arc<Peer>,
    headers: &[(&str, &str)],
    path: &str,
    message: &impl Message,
) -> Response<ReplyBody> {
    let router = Router::new(
        Handlers::new(f.service.clone()),
        Listener::Admin,
        HealthReporter::new(),
    );
    let gate = Gate::new(f.service.clone(), Listener::Admin, &f.metrics, None, router);
    let mut request = Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Body::new(Full::new(frame(&message.encode_to_vec())));
    let Ok(response) = gate.answer(peer, request.body(body).unwrap()).await;
    response
}

pub(super) async fn made(f: &Fixture, identity: &str, networks: &[&str]) -> CreateApiKeyResponse {
    let request = CreateApiKeyRequest {
        identity: identity.to_owned(),
        ttl_seconds: 600,
        networks: networks.iter().map(|text| (*text).to_owned()).collect(),
    };
    message(call(f, Listener::Admin, "acme/boss", CREATE, &request).await).await
}

async fn encrypts(f: &Fixture, peer: &Arc<Peer>, secret: &str) -> String {
    let response = with_headers(f, peer, &[&format!("Bearer {secret}")], ENCRYPT, &encrypt()).await;
    match Status::from_header_map(response.headers()) {
        None => String::from("ok"),
        Some(_) => reason(&response),
    }
}

#[tokio::test]
async fn an_api_key_says_who_the_caller_is_and_nothing_else_of_the_connection_does() {
    let f = Fixture::make().await;
    let key = made(&f, "app", &[]).await;
    let id = key.api_key.unwrap().id;
    // The fixture's boss may not encrypt; the call is the app's.
    for connection in [nobody("127.0.0.1:9"), peer("acme/boss")] {
        assert_eq!(encrypts(&f, &connection, &key.secret).await, "ok");
        let record = f.last_record();
        assert_eq!(record.principal, "tenants/acme/identities/app");
        assert_eq!(
            (record.authentication.as_str(), record.credential.as_str()),
            ("api-key", id.as_str())
        );
    }
    // And not the other way round: an API key of somebody without a right does not borrow the connection's.
    let other = made(&f, "nobody", &[]).await;
    let refused = encrypts(&f, &peer("acme/app"), &other.secret).await;
    assert_eq!(refused, "PERMISSION_DENIED");
    assert_eq!(f.last_record().principal, "tenants/acme/identities/nobody");
}

#[tokio::test]
async fn what_is_no_credential_is_refused_on_record_and_the_certificate_does_not_help() {
    let f = Fixture::make().await;
    let key = made(&f, "app", &[]).await.secret;
    let mut changed = key.clone();
    let other = if key.ends_with('x') { "y" } else { "x" };
    changed.replace_range(key.len() - 1.., other);
    let bearer = |text: &str| format!("Bearer {text}");
    for (values, rule) in [
        (vec![bearer(&changed)], "api-key-malformed"),
        (vec![bearer(&key[..60])], "api-key-malformed"),
        (vec![bearer("")], "not-bearer"),
        (vec![key.clone()], "not-bearer"),
        (vec![format!("Basic {key}")], "not-bearer"),
        (vec![bearer(&key), bearer(&key)], "not-bearer"),
        (vec![bearer("x.y.z")], "token-malformed"),
    ] {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let connection = peer("acme/app");
        let response = with_headers(&f, &connection, &values, ENCRYPT, &encrypt()).await;
        assert_eq!(reason(&response), "UNAUTHENTICATED");
        let record = f.last_record();
        assert_eq!(
            (
                record.decision(),
                record.rule.as_str(),
                record.principal.as_str()
            ),
            (Decision::Refused, rule, "")
        );
        assert!(!status(&response).message().contains(&key[20..40]));
        assert!(!format!("{record:?}").contains(&key[20..40]));
    }
}

#[tokio::test]
async fn guesses_wait_and_a_connection_that_showed_the_right_one_does_not() {
    let f = Fixture::make().await;
    let key = made(&f, "app", &[]).await.secret;
    let (mine, others) = (nobody("192.0.2.7:1"), nobody("192.0.2.7:2"));
    assert_eq!(encrypts(&f, &mine, &key).await, "ok");
    let guess = guessed(&key);
    for _ in 0..6 {
        assert_eq!(encrypts(&f, &others, &guess).await, "UNAUTHENTICATED");
        assert_eq!(f.last_record().rule, "api-key-wrong-secret");
        assert!(f.last_record().detail.contains(&key[3..19]));
    }
    let response = with_headers(
        &f,
        &others,
        &[&format!("Bearer {guess}")],
        ENCRYPT,
        &encrypt(),
    )
    .await;
    assert_eq!(reason(&response), "TOO_MANY_ATTEMPTS");
    assert_eq!(f.last_record().rule, "lockout-claim");
    let details = status(&response).get_error_details();
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    // The right one waits there too, and not where it was shown before.
    assert_eq!(encrypts(&f, &others, &key).await, "TOO_MANY_ATTEMPTS");
    assert_eq!(encrypts(&f, &mine, &key).await, "ok");
    assert_eq!(encrypts(&f, &nobody("192.0.2.8:1"), &key).await, "ok");
}

/// An API key with the same id, another secret, and the checksum that fits.
fn guessed(key: &str) -> String {
    const DIGITS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let body = format!("{}_{}", &key[..19], "a".repeat(43));
    let mut crc = u32::MAX;
    for byte in body.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let mut rest = !crc;
    let mut sum = Vec::new();
    for _ in 0..6 {
        sum.insert(0, DIGITS[(rest % 62) as usize]);
        rest /= 62;
    }
    body + std::str::from_utf8(&sum).unwrap()
}

#[tokio::test]
async fn an_api_key_ends_by_time_network_rotation_and_revocation() {
    let f = Fixture::make().await;
    let connection = nobody("192.0.2.7:1");
    let bound = made(&f, "app", &["192.0.2.0/24"]).await.secret;
    assert_eq!(encrypts(&f, &connection, &bound).await, "ok");
    let elsewhere = nobody("198.51.100.1:1");
    assert_eq!(encrypts(&f, &elsewhere, &bound).await, "UNAUTHENTICATED");
    assert_eq!(f.last_record().rule, "api-key-network");

    let key = made(&f, "app", &[]).await;
    let id = key.api_key.clone().unwrap().id;
    let rotate = RotateApiKeyRequest {
        id: id.clone(),
        ttl_seconds: 600,
        overlap_seconds: 60,
    };
    let response = call(&f, Listener::Admin, "acme/boss", ROTATE, &rotate).await;
    let next: RotateApiKeyResponse = message(response).await;
    assert_ne!(next.secret, key.secret);
    for secret in [&key.secret, &next.secret] {
        assert_eq!(encrypts(&f, &connection, secret).await, "ok");
    }
    f.advance(61);
    assert_eq!(
        encrypts(&f, &connection, &key.secret).await,
        "UNAUTHENTICATED"
    );
    assert_eq!(f.last_record().rule, "api-key-rotated");
    assert_eq!(encrypts(&f, &connection, &next.secret).await, "ok");

    // Who administers another tenant does not learn that it exists.
    let revoke = RevokeApiKeyRequest {
        id,
        ..Default::default()
    };
    let response = call(&f, Listener::Admin, "acme/app", REVOKE, &revoke).await;
    assert_eq!(reason(&response), "PERMISSION_DENIED");
    let response = call(&f, Listener::Admin, "acme/boss", REVOKE, &revoke).await;
    assert!(Status::from_header_map(response.headers()).is_none());
    assert_eq!(
        encrypts(&f, &connection, &next.secret).await,
        "UNAUTHENTICATED"
    );
    assert_eq!(f.last_record().rule, "api-key-unknown");
    let response = call(&f, Listener::Admin, "acme/boss", REVOKE, &revoke).await;
    assert_eq!(reason(&response), "SETTING_NOT_FOUND");

    f.advance(600);
    assert_eq!(encrypts(&f, &connection, &bound).await, "UNAUTHENTICATED");
    assert_eq!(f.last_record().rule, "api-key-expired");
}

#[tokio::test]
async fn what_a_gateway_says_of_the_caller_is_never_believed() {
    let f = Fixture::make().await;
    let key = made(&f, "app", &["192.0.2.0/24"]).await.secret;
    let app = "tenants/acme/identities/app";
    let uri = "URI=spiffe://fieldkeep/tenant/acme/app";
    let bearer = format!("Bearer {key}");
    let forged = [
        ("x-forwarded-client-cert", uri),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-real-ip", "192.0.2.7"),
        ("forwarded", "for=192.0.2.7;proto=https"),
        ("x-ssl-client-s-dn", "CN=app"),
        ("x-remote-user", app),
        ("grpc-authority", app),
    ];
    let connection = nobody("198.51.100.1:1");
    let response = with_any_headers(&f, &connection, &forged, ENCRYPT, &encrypt()).await;
    assert_eq!(reason(&response), "UNAUTHENTICATED");
    let record = f.last_record();
    assert_eq!(
        (record.principal.as_str(), record.address.as_str()),
        ("", "198.51.100.1:1")
    );
    let mut headers = forged.to_vec();
    headers.push(("authorization", &bearer));
    let response = with_any_headers(&f, &connection, &headers, ENCRYPT, &encrypt()).await;
    assert_eq!(reason(&response), "UNAUTHENTICATED");
    assert_eq!(f.last_record().rule, "api-key-network");
}
