//! Claims that must be refused in a token whose signature is good.

use serde_json::{Value, json};

use super::*;

fn set(claims: &mut Value, name: &str, value: Value) {
    claims[name] = value;
}

fn remove(claims: &mut Value, name: &str) {
    claims.as_object_mut().unwrap().remove(name);
}

#[tokio::test]
async fn wrong_audience() {
    let world = World::new();
    for audience in [
        json!("other"),
        json!("Fieldkeep"),
        json!("fieldkeep "),
        json!(""),
        json!([]),
        json!(["other"]),
    ] {
        let refused = world.claim(|claims| set(claims, "aud", audience)).await;
        assert_eq!(refused, Err(TokenError::Audience { issuer: login() }));
    }
    for audience in [
        json!(null),
        json!(1),
        json!({"fieldkeep": 1}),
        json!(["fieldkeep", 1]),
        json!([["fieldkeep"]]),
    ] {
        let refused = world.claim(|claims| set(claims, "aud", audience)).await;
        assert!(
            matches!(refused, Err(TokenError::Claim { .. })),
            "{refused:?}"
        );
    }
    let refused = world.claim(|claims| remove(claims, "aud")).await;
    assert!(
        matches!(refused, Err(TokenError::Claim { .. })),
        "{refused:?}"
    );
    assert!(
        world
            .claim(|claims| set(claims, "aud", json!(["other", "fieldkeep"])))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn times_that_are_missing_or_no_whole_numbers() {
    let world = World::new();
    let future = NOW + 300;
    for claim in ["exp", "iat", "nbf"] {
        for value in [
            json!(future.to_string()),
            json!("tomorrow"),
            json!(NOW as f64 + 0.5),
            json!(-1),
            json!(null),
            json!([NOW]),
            json!(true),
        ] {
            let refused = world
                .claim(|claims| set(claims, claim, value.clone()))
                .await;
            assert!(
                matches!(refused, Err(TokenError::Claim { .. })),
                "{claim} {value}: {refused:?}"
            );
        }
    }
    for claim in ["exp", "iat"] {
        let refused = world.claim(|claims| remove(claims, claim)).await;
        assert!(
            matches!(refused, Err(TokenError::Claim { .. })),
            "{claim}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn expired() {
    let world = World::new();
    // The leeway is 30 s: the last good second is the one before `exp` and the leeway.
    for (exp, taken) in [
        (NOW + 1, true),
        (NOW, true),
        (NOW - 29, true),
        (NOW - 30, false),
        (NOW - 3600, false),
        (0, false),
    ] {
        let outcome = world.claim(|claims| set(claims, "exp", json!(exp))).await;
        match outcome {
            Ok(verified) => assert!(taken && verified.not_after == (exp + 29) as i64),
            Err(TokenError::Expired { ago, .. }) => assert!(!taken && ago == NOW - exp - 30),
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn end_in_the_far_future() {
    let world = World::new();
    for exp in [NOW + 10 * 365 * 86_400, u64::MAX] {
        let verified = world
            .claim(|claims| set(claims, "exp", json!(exp)))
            .await
            .unwrap();
        assert_eq!(
            verified.not_after,
            (NOW - 60 + 86_400 + 29) as i64,
            "a day after its issue, and the leeway"
        );
    }
}

#[tokio::test]
async fn issued_too_long_ago() {
    let world = World::with(
        Signer::p256(),
        IssuerRecord {
            max_age_seconds: Some(600),
            ..record()
        },
    );
    let issued = |ago: u64| move |claims: &mut Value| set(claims, "iat", json!(NOW - ago));
    assert!(world.claim(issued(629)).await.is_ok());
    assert_eq!(
        world.claim(issued(630)).await,
        Err(TokenError::TooOld { issuer: login() })
    );
}

#[tokio::test]
async fn begins_in_the_future() {
    let world = World::new();
    for claim in ["nbf", "iat"] {
        for begins in [NOW + 31, NOW + 86_400, u64::MAX] {
            let refused = world
                .claim(|claims| set(claims, claim, json!(begins)))
                .await;
            assert_eq!(
                refused,
                Err(TokenError::NotYetValid { issuer: login() }),
                "{claim}"
            );
        }
        assert!(
            world
                .claim(|claims| set(claims, claim, json!(NOW + 30)))
                .await
                .is_ok()
        );
    }
}

#[tokio::test]
async fn wrong_issuer() {
    let world = World::new();
    for iss in [
        "https://login.example.com/",
        "https://LOGIN.example.com",
        "http://login.example.com",
        "https://login.example.com:443",
        "https://evil.example.com",
        "",
    ] {
        let refused = world.claim(|claims| set(claims, "iss", json!(iss))).await;
        assert_eq!(refused, Err(TokenError::UnknownIssuer { iss: iss.into() }));
    }
    for iss in [
        json!([ISSUER]),
        json!(null),
        json!(1),
        json!({"url": ISSUER}),
    ] {
        let refused = world.claim(|claims| set(claims, "iss", iss)).await;
        assert_eq!(
            refused,
            Err(TokenError::UnknownIssuer { iss: String::new() })
        );
    }
    assert_eq!(world.provider.fetches(), 0);
}

#[tokio::test]
async fn issuer_that_would_forge_a_line_of_the_log() {
    let world = World::new();
    let iss = format!("x\n2026-01-01 ERROR \u{1b}[31m{}", "y".repeat(4000));
    let refused = world
        .claim(|claims| set(claims, "iss", json!(iss)))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        !refused.contains(char::is_control) && refused.len() < 300,
        "{refused}"
    );
}

#[tokio::test]
async fn name_that_stands_twice() {
    let world = World::new();
    let header = world.header().to_string();
    let twice = |text: &str, more: &str| format!("{},{more}}}", text.strip_suffix('}').unwrap());
    for more in [
        r#""sub":"admin""#,
        r#""\u0073ub":"admin""#,
        r#""aud":"fieldkeep""#,
        r#""exp":1"#,
        r#""x":{"y":1,"y":2}"#,
    ] {
        let token = world
            .signer
            .token_of_text(&header, &twice(&claims().to_string(), more));
        assert_eq!(
            world.verify(&token).await,
            Err(TokenError::Malformed),
            "{more}"
        );
    }
    for more in [r#""alg":"ES256""#, r#""kid":"k1""#, r#""typ":"JWT""#] {
        let token = world
            .signer
            .token_of_text(&twice(&header, more), &claims().to_string());
        assert_eq!(
            world.verify(&token).await,
            Err(TokenError::Malformed),
            "{more}"
        );
    }
}

#[tokio::test]
async fn caller_learns_nothing_of_why() {
    let world = World::new();
    let refusals = [
        world
            .claim(|claims| set(claims, "exp", json!(1)))
            .await
            .unwrap_err(),
        world
            .claim(|claims| set(claims, "aud", json!("x")))
            .await
            .unwrap_err(),
        world
            .claim(|claims| set(claims, "iss", json!("x")))
            .await
            .unwrap_err(),
        world.verify("x").await.unwrap_err(),
    ];
    for refusal in &refusals {
        assert_eq!(refusal.caller_message(), refusals[0].caller_message());
        assert!(!refusal.is_transient() && refusal.caller_message().contains("get a new one"));
    }
    world.provider.vanish();
    let world = World {
        jwt: Arc::new(Jwt::new(world.provider.clone()).unwrap()),
        ..world
    };
    world.jwt.set_issuers([issuer(record())]).unwrap();
    let refusal = world.claim(|_| {}).await.unwrap_err();
    assert!(refusal.is_transient() && refusal.caller_message().contains("try again"));
}
