//! Callers with tokens, through the gate: an issuer that is set over the API, and its keys fetched over HTTP from this host.

use std::time::Instant;

use fieldkeep_proto::v1::{
    CheckTokenRequest, CheckTokenResponse, GetIssuerRequest, Issuer, ListIssuersRequest,
    ListIssuersResponse, RemoveIssuerRequest, SetIssuerRequest,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::access::grant::{Scope, Wanted, Who};
use crate::access::group::Group;
use crate::access::jwt::tests::Signer;
use crate::access::role::Role;
use crate::access::trust::{Connections, Ended, Standing};
use crate::service::tests::{NOW, name, wanted};

const SET: &str = "/fieldkeep.v1.IssuerService/SetIssuer";
const GET: &str = "/fieldkeep.v1.IssuerService/GetIssuer";
const LIST: &str = "/fieldkeep.v1.IssuerService/ListIssuers";
const REMOVE: &str = "/fieldkeep.v1.IssuerService/RemoveIssuer";
const CHECK: &str = "/fieldkeep.v1.IssuerService/CheckToken";

/// A provider with one key.
struct Provider {
    signer: Signer,
    url: String,
}

impl Provider {
    /// One that answers every request with its keys.
    async fn serve() -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let signer = Signer::p256();
        let keys = json!({ "keys": [signer.jwk("k1")] }).to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 2_048];
                let _ = stream.read(&mut request).await;
                let length = keys.len();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{keys}");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Provider { signer, url }
    }

    /// One that takes connections and never answers.
    async fn silent() -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok(accepted) = listener.accept().await {
                held.push(accepted);
            }
        });
        let signer = Signer::p256();
        Provider { signer, url }
    }

    /// One that does not listen.
    async fn away() -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Provider {
            signer: Signer::p256(),
            url,
        }
    }

    fn issuer(&self) -> Issuer {
        Issuer {
            name: "login".into(),
            url: self.url.clone(),
            jwks_url: format!("{}/keys", self.url),
            audiences: vec!["fieldkeep".into()],
            algorithms: vec!["ES256".into()],
            tenant: "tenants/acme".into(),
            groups_claim: "groups".into(),
            tenants: vec!["tenants/acme".into()],
            ceiling: "data".into(),
            ..Default::default()
        }
    }

    /// The token of `sub`, with what `change` makes of its claims.
    fn token_with(&self, sub: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = json!({
            "iss": self.url,
            "aud": "fieldkeep",
            "sub": sub,
            "iat": NOW - 60,
            "exp": NOW + 300,
        });
        change(&mut claims);
        let header = json!({"alg": "ES256", "kid": "k1"});
        self.signer.token(&header, &claims)
    }

    fn token(&self, sub: &str) -> String {
        self.token_with(sub, |_| {})
    }
}

async fn set(f: &Fixture, identity: &str, issuer: Issuer) -> Response<ReplyBody> {
    let request = SetIssuerRequest {
        issuer: Some(issuer),
        ..Default::default()
    };
    call(f, Listener::Admin, identity, SET, &request).await
}

async fn remove(f: &Fixture, identity: &str) -> Response<ReplyBody> {
    let request = RemoveIssuerRequest {
        name: "login".into(),
        ..Default::default()
    };
    call(f, Listener::Admin, identity, REMOVE, &request).await
}

/// A fixture with an issuer, and its provider.
async fn world() -> (Fixture, Provider) {
    let (f, provider) = (Fixture::make().await, Provider::serve().await);
    assert!(is_ok(&set(&f, "acme/boss", provider.issuer()).await));
    (f, provider)
}

fn is_ok(response: &Response<ReplyBody>) -> bool {
    Status::from_header_map(response.headers()).is_none()
}

/// The peer of a connection without a client certificate.
fn nobody() -> Arc<Peer> {
    standing(Arc::default())
}

fn standing(standing: Arc<Standing>) -> Arc<Peer> {
    let address = "192.0.2.7:9".parse().unwrap();
    Arc::new(Peer::of_connection(None, false, standing, address))
}

/// Encrypts on a connection of `peer`, with these `authorization` headers.
async fn encrypt_with(f: &Fixture, peer: &Arc<Peer>, shown: &[String]) -> Response<ReplyBody> {
    let router = Router::new(
        Handlers::new(f.service.clone()),
        Listener::Data,
        HealthReporter::new(),
    );
    let gate = Gate::new(f.service.clone(), Listener::Data, &f.metrics, None, router);
    let mut request = Request::post(ENCRYPT).header("content-type", "application/grpc");
    for value in shown {
        request = request.header("authorization", value);
    }
    let body = Body::new(Full::new(frame(&encrypt().encode_to_vec())));
    let Ok(response) = gate.answer(peer, request.body(body).unwrap()).await;
    response
}

async fn encrypt_as(f: &Fixture, peer: &Arc<Peer>, token: &str) -> Response<ReplyBody> {
    encrypt_with(f, peer, &[format!("Bearer {token}")]).await
}

/// Asserts that a call was refused as the caller's credential is, and gives the rule of its record.
fn unauthenticated(f: &Fixture, response: &Response<ReplyBody>) -> String {
    assert_eq!(status(response).code(), Code::Unauthenticated);
    let record = f.last_record();
    assert_eq!(record.code, i32::from(Code::Unauthenticated));
    assert_eq!(
        (record.principal.as_str(), record.authentication.as_str()),
        ("", "jwt")
    );
    record.rule
}

#[tokio::test]
async fn a_token_alone_says_who_calls_with_and_without_a_certificate() {
    let (f, provider) = world().await;
    // `boss` has no right to any value, `stranger` has none at all.
    for connection in [nobody(), peer("acme/boss"), peer("other/app")] {
        let response = encrypt_as(&f, &connection, &provider.token("app")).await;
        assert!(is_ok(&response), "{:?}", status(&response));
        let record = f.last_record();
        assert_eq!(record.principal, "tenants/acme/identities/app");
        assert_eq!(record.authentication, "jwt");
        assert!(
            record.credential.starts_with("login/sha256:"),
            "{}",
            record.credential
        );
    }
    // A connection lends its rights to nobody.
    let response = encrypt_as(&f, &peer("acme/app"), &provider.token("stranger")).await;
    assert_eq!(reason(&response), "PERMISSION_DENIED");
    assert_eq!(
        f.last_record().principal,
        "tenants/acme/identities/stranger"
    );
}

#[tokio::test]
async fn groups_of_a_token_have_what_is_granted_to_them() {
    let (f, provider) = world().await;
    let group = Group::new(name("acme"), name("writers"));
    let writers = Wanted::all_of(
        Role::Encrypter,
        Scope::Tenant(name("acme")),
        Who::Group(group),
    );
    f.grant(writers).await;
    let member = |groups: Value| provider.token_with("ada", |claims| claims["groups"] = groups);
    let response = encrypt_as(&f, &nobody(), &member(json!(["writers", "Other Group"]))).await;
    assert!(is_ok(&response));
    for others in [json!(["readers"]), json!([])] {
        let response = encrypt_as(&f, &nobody(), &member(others)).await;
        assert_eq!(reason(&response), "PERMISSION_DENIED");
    }
}

#[tokio::test]
async fn what_is_no_token_of_an_issuer_is_refused_on_record_whoever_has_the_connection() {
    let (f, provider) = world().await;
    let good = provider.token("app");
    let bearer = |token: &str| format!("Bearer {token}");
    let unsigned = {
        let (message, _) = good.rsplit_once('.').unwrap();
        let (_, claims) = message.split_once('.').unwrap();
        let header = data_encoding::BASE64URL_NOPAD.encode(br#"{"alg":"none"}"#);
        format!("{header}.{claims}.")
    };
    let forged = Provider {
        signer: Signer::p256(),
        url: provider.url.clone(),
    };
    let foreign = Provider {
        signer: Signer::p256(),
        url: "https://elsewhere.example".into(),
    };
    let changed = |claim: &str, value: Value| {
        bearer(&provider.token_with("app", |claims| claims[claim] = value))
    };
    for (shown, rule) in [
        (vec![bearer(&good), bearer(&good)], "not-bearer"),
        (vec![format!("Basic {good}")], "not-bearer"),
        (vec![good.clone()], "not-bearer"),
        (vec![String::from("Bearer ")], "not-bearer"),
        (vec![bearer("garbage")], "token-malformed"),
        (vec![bearer(&format!(" {good}"))], "token-malformed"),
        (vec![bearer(&unsigned)], "token-malformed"),
        (vec![bearer(&"a".repeat(8 * 1024 + 1))], "token-too-long"),
        (vec![bearer(&forged.token("app"))], "token-signature"),
        (vec![bearer(&foreign.token("app"))], "token-issuer"),
        (vec![changed("aud", json!("other"))], "token-audience"),
        (vec![changed("exp", json!(NOW - 31))], "token-expired"),
        (vec![changed("sub", json!("No Name"))], "token-name"),
    ] {
        // A certificate that may encrypt helps a bad token as little as none does.
        for connection in [nobody(), peer("acme/app")] {
            let response = encrypt_with(&f, &connection, &shown).await;
            assert_eq!(unauthenticated(&f, &response), rule);
            let told = status(&response).message().to_owned();
            assert!(
                !told.contains(&good) && !told.contains("elsewhere"),
                "{told}"
            );
        }
    }
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_are_no_fault_of_the_caller() {
    let (f, provider) = (Fixture::make().await, Provider::away().await);
    assert!(is_ok(&set(&f, "acme/boss", provider.issuer()).await));
    let connection = nobody();
    // More often than failures would be let pass.
    for _ in 0..60 {
        let response = encrypt_as(&f, &connection, &provider.token("app")).await;
        assert_eq!(status(&response).code(), Code::Unavailable);
        assert_eq!(reason(&response), "KEYS_UNAVAILABLE");
        let details = status(&response).get_error_details();
        assert!(details.retry_info().unwrap().retry_delay.is_some());
        assert_eq!(f.last_record().rule, "token-keys-unavailable");
    }
}

#[tokio::test]
async fn a_call_does_not_wait_for_keys_beyond_its_time_and_is_on_record_if_it_is_dropped() {
    let f = Fixture::make().await;
    let provider = Provider::silent().await;
    assert!(is_ok(&set(&f, "acme/boss", provider.issuer()).await));
    let token = provider.token("app");
    let router = Router::new(
        Handlers::new(f.service.clone()),
        Listener::Data,
        HealthReporter::new(),
    );
    let gate = Gate::new(f.service.clone(), Listener::Data, &f.metrics, None, router);
    let begin = |timeout: &str| {
        let request = Request::post(ENCRYPT)
            .header("content-type", "application/grpc")
            .header("grpc-timeout", timeout)
            .header("authorization", format!("Bearer {token}"))
            .body(Body::new(Full::new(frame(&encrypt().encode_to_vec()))));
        gate.answer(&nobody(), request.unwrap())
    };
    let Ok(response) = begin("20m").await;
    assert_eq!(reason(&response), "KEYS_UNAVAILABLE");
    assert_eq!(f.last_record().rule, "token-keys-unavailable");
    {
        let mut dropped = begin("10S");
        assert!(futures_util::poll!(&mut dropped).is_pending());
    }
    // The next call's record comes after it, so that both are durable.
    call(&f, Listener::Data, "acme/app", ENCRYPT, &encrypt()).await;
    let records = f.records();
    assert_eq!(records[records.len() - 2].rule, "incomplete");
}

#[tokio::test]
async fn many_failures_of_one_source_hold_up_the_source_and_not_whoever_was_verified() {
    let (f, provider) = world().await;
    let (known, good) = (nobody(), provider.token("app"));
    assert!(is_ok(&encrypt_as(&f, &known, &good).await));
    let guessing = nobody();
    let mut refused = String::new();
    for _ in 0..100 {
        let response = encrypt_as(&f, &guessing, "garbage").await;
        refused = reason(&response);
        if refused == "TOO_MANY_ATTEMPTS" {
            break;
        }
    }
    assert_eq!(refused, "TOO_MANY_ATTEMPTS");
    let response = encrypt_as(&f, &nobody(), &good).await;
    assert_eq!(reason(&response), "TOO_MANY_ATTEMPTS");
    let details = status(&response).get_error_details();
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    assert_eq!(f.last_record().rule, "lockout-source");
    // The connection on which the same token was verified goes on, and so do others with certificates.
    assert!(is_ok(&encrypt_as(&f, &known, &good).await));
    assert!(is_ok(&encrypt_with(&f, &peer("acme/app"), &[]).await));
    f.advance(61);
    assert!(is_ok(&encrypt_as(&f, &nobody(), &good).await));
}

#[tokio::test]
async fn a_good_token_on_the_connection_of_a_revoked_certificate_is_refused() {
    let (f, provider) = world().await;
    let all = Arc::new(Connections::default());
    let place = all.enter(None, u64::MAX, u64::MAX);
    let connection = standing(Arc::clone(place.standing()));
    let good = provider.token("app");
    assert!(is_ok(&encrypt_as(&f, &connection, &good).await));
    place.end(Ended::Revoked);
    let response = encrypt_as(&f, &connection, &good).await;
    assert_eq!(status(&response).code(), Code::Unauthenticated);
    assert_eq!(f.last_record().rule, "certificate-revoked");
}

#[tokio::test]
async fn an_issuer_that_was_changed_or_removed_vouches_for_nobody_any_more() {
    let (f, provider) = world().await;
    let (connection, good) = (nobody(), provider.token("app"));
    assert!(is_ok(&encrypt_as(&f, &connection, &good).await));
    let other = Issuer {
        audiences: vec!["other".into()],
        ..provider.issuer()
    };
    assert!(is_ok(&set(&f, "acme/boss", other).await));
    let response = encrypt_as(&f, &connection, &good).await;
    assert_eq!(unauthenticated(&f, &response), "token-audience");
    assert!(is_ok(&set(&f, "acme/boss", provider.issuer()).await));
    assert!(is_ok(&encrypt_as(&f, &connection, &good).await));
    assert!(is_ok(&remove(&f, "acme/boss").await));
    let response = encrypt_as(&f, &connection, &good).await;
    assert_eq!(unauthenticated(&f, &response), "token-issuer");
    assert_eq!(reason(&remove(&f, "acme/boss").await), "SETTING_NOT_FOUND");
}

#[tokio::test]
async fn the_ceiling_of_the_issuer_bounds_what_is_granted() {
    let (f, provider) = world().await;
    let encrypters = Issuer {
        ceiling: "decrypter".into(),
        ..provider.issuer()
    };
    assert!(is_ok(&set(&f, "acme/boss", encrypters).await));
    let response = encrypt_as(&f, &nobody(), &provider.token("app")).await;
    assert_eq!(reason(&response), "PERMISSION_DENIED");
    assert_eq!(f.last_record().rule, "ceiling");
}

#[tokio::test]
async fn who_sets_an_issuer_needs_the_right_for_all_that_it_vouches_for() {
    let f = Fixture::make().await;
    f.grant(wanted(Role::AccessAdmin, "acme/own", &["*"], &["*"]))
        .await;
    let own = Issuer {
        name: "login".into(),
        url: "https://login.example".into(),
        jwks_url: String::new(),
        ..Provider::away().await.issuer()
    };
    let denied = async |issuer: Issuer| {
        let response = set(&f, "acme/own", issuer).await;
        assert_eq!(reason(&response), "PERMISSION_DENIED");
    };
    denied(Issuer {
        tenants: vec!["tenants/acme".into(), "tenants/other".into()],
        ..own.clone()
    })
    .await;
    // Grants that open other tenants would count for its callers.
    denied(Issuer {
        cross_tenant: true,
        ..own.clone()
    })
    .await;
    // What listens on the service's host is not a tenant's.
    denied(Issuer {
        url: "http://127.0.0.1:1".into(),
        ..own.clone()
    })
    .await;
    // A tenant that is not there.
    let nowhere = Issuer {
        tenant: "tenants/nowhere".into(),
        tenants: vec!["tenants/nowhere".into()],
        ..own.clone()
    };
    assert_eq!(
        reason(&set(&f, "acme/boss", nowhere).await),
        "TENANT_NOT_FOUND"
    );
    assert!(is_ok(&set(&f, "acme/own", own.clone()).await));
    // Nor is one that vouches for another tenant too taken over, removed or seen in full.
    let both = Issuer {
        tenants: vec!["tenants/acme".into(), "tenants/other".into()],
        ..own.clone()
    };
    assert!(is_ok(&set(&f, "acme/boss", both).await));
    denied(own.clone()).await;
    assert_eq!(reason(&remove(&f, "acme/own").await), "PERMISSION_DENIED");
    let get = GetIssuerRequest {
        name: "login".into(),
    };
    let seen: Issuer = message(call(&f, Listener::Admin, "acme/own", GET, &get).await).await;
    assert_eq!(seen.tenants, ["tenants/acme"]);
    assert_eq!(seen.set_by, "tenants/acme/identities/boss");
    // One of another tenant is not seen at all.
    let others = Issuer {
        tenant: "tenants/other".into(),
        tenants: vec!["tenants/other".into()],
        ..own
    };
    assert!(is_ok(&set(&f, "acme/boss", others).await));
    let hidden = call(&f, Listener::Admin, "acme/own", GET, &get).await;
    assert_eq!(reason(&hidden), "SETTING_NOT_FOUND");
    let list = ListIssuersRequest {};
    let listed = call(&f, Listener::Admin, "acme/own", LIST, &list).await;
    assert_eq!(message::<ListIssuersResponse>(listed).await.issuers, []);
}

#[tokio::test]
async fn a_request_id_repeated_sets_an_issuer_once() {
    let f = Fixture::make().await;
    let provider = Provider::away().await;
    let request = SetIssuerRequest {
        issuer: Some(provider.issuer()),
        request_id: "f81d4fae-7dec-11d0-a765-00a0c91e6bf6".into(),
    };
    let first: Issuer = message(call(&f, Listener::Admin, "acme/boss", SET, &request).await).await;
    f.advance(5);
    let again: Issuer = message(call(&f, Listener::Admin, "acme/boss", SET, &request).await).await;
    assert_eq!(first, again);
    // Another issuer with the same URL would leave it open whose a token is.
    let other = Issuer {
        name: "other".into(),
        ..provider.issuer()
    };
    let response = set(&f, "acme/boss", other).await;
    assert_eq!(reason(&response), "INVALID_REQUEST");
}

async fn check(f: &Fixture, identity: &str, token: &str) -> Response<ReplyBody> {
    let request = CheckTokenRequest {
        issuer: "login".into(),
        token: token.into(),
    };
    call(f, Listener::Admin, identity, CHECK, &request).await
}

#[tokio::test]
async fn an_operator_learns_whom_a_token_names_and_why_it_is_refused() {
    let (f, provider) = world().await;
    let token = provider.token_with("ada", |claims| claims["groups"] = json!(["writers"]));
    let answer: CheckTokenResponse = message(check(&f, "acme/boss", &token).await).await;
    assert!(answer.accepted);
    assert_eq!(answer.identity, "tenants/acme/identities/ada");
    assert_eq!(answer.groups, ["tenants/acme/groups/writers"]);
    assert_eq!(answer.expire_time.unwrap().seconds, NOW as i64 + 329);
    for (token, rule, why) in [
        (
            provider.token_with("ada", |claims| claims["aud"] = json!("x")),
            "token-audience",
            "none of the audiences",
        ),
        (
            provider.token_with("ada", |claims| claims["iss"] = json!("https://x")),
            "token-issuer",
            "`https://x`, and `login` is",
        ),
        (String::from("garbage"), "token-malformed", "no signed JWT"),
    ] {
        let answer: CheckTokenResponse = message(check(&f, "acme/boss", &token).await).await;
        assert_eq!((answer.accepted, answer.rule.as_str()), (false, rule));
        assert!(answer.message.contains(why), "{}", answer.message);
        let record = f.last_record();
        assert_eq!(record.detail, format!("issuer=login refused={rule}"));
    }
    // Of no token, whether there are keys.
    let answer: CheckTokenResponse = message(check(&f, "acme/boss", "").await).await;
    assert_eq!(
        (answer.accepted, answer.keys, answer.rule.as_str()),
        (false, 1, "")
    );
    // It takes the right to set the issuer, which is on this host.
    f.grant(wanted(Role::AccessAdmin, "acme/own", &["*"], &["*"]))
        .await;
    let response = check(&f, "acme/own", &token).await;
    assert_eq!(reason(&response), "PERMISSION_DENIED");
}

#[tokio::test]
async fn why_keys_cannot_be_fetched_is_for_whoever_has_the_right_for_all_tenants() {
    let f = Fixture::make().await;
    f.grant(wanted(Role::AccessAdmin, "acme/own", &["*"], &["*"]))
        .await;
    let issuer = Issuer {
        // Nobody listens there.
        url: "https://127.0.0.1:1".into(),
        jwks_url: "https://127.0.0.1:1/keys".into(),
        ..Provider::away().await.issuer()
    };
    assert!(is_ok(&set(&f, "acme/own", issuer).await));
    let began = Instant::now();
    for (identity, is_told) in [("acme/boss", true), ("acme/own", false)] {
        let answer: CheckTokenResponse = message(check(&f, identity, "").await).await;
        assert_eq!(answer.keys, 0);
        assert_eq!(answer.fetch_problem.contains("cannot connect"), is_told);
        assert_eq!(answer.fetch_problem.is_empty(), !is_told);
    }
    assert!(began.elapsed() < Duration::from_secs(20));
}
