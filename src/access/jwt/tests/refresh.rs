//! When keys are fetched, how often at most, and what is known of tokens that were verified.

use serde_json::json;

use super::{
    super::source::{COOL_DOWN, KEEP, REFRESH},
    *,
};

/// A token that is good for two days.
fn lasting(world: &World, sub: &str) -> String {
    world.token(|claims| {
        claims["sub"] = json!(sub);
        claims["exp"] = json!(NOW + 2 * 86_400);
    })
}

fn week() -> IssuerRecord {
    IssuerRecord {
        max_age_seconds: Some(7 * 86_400),
        ..record()
    }
}

async fn flood(world: &World, tokens: usize, now: u64) {
    let calls = (0..tokens).map(|number| {
        let header = json!({"alg": "ES256", "kid": format!("unknown-{number}")});
        let (jwt, token) = (
            Arc::clone(&world.jwt),
            world.signer.token(&header, &claims()),
        );
        tokio::spawn(async move { jwt.verify(&token, now).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(
            call.await.unwrap(),
            Err(TokenError::UnknownKey { issuer: login() })
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_of_unknown_key_ids_makes_one_fetch() {
    let world = World::new();
    flood(&world, 500, NOW).await;
    assert_eq!(world.provider.fetches(), 1);
    // The clocks of the calls need not agree to the second.
    for now in NOW - 5..NOW + COOL_DOWN {
        flood(&world, 3, now).await;
    }
    assert_eq!(world.provider.fetches(), 1);
    flood(&world, 100, NOW + COOL_DOWN).await;
    assert_eq!(world.provider.fetches(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_while_the_provider_is_slow_makes_one_fetch() {
    let provider = Provider::new(Duration::from_millis(200));
    let signer = Signer::p256();
    provider.publish_keys(&[signer.jwk("k1")]);
    let jwt = Arc::new(Jwt::new(provider.clone()).unwrap());
    jwt.set_issuers([issuer(record())]).unwrap();
    let world = World {
        jwt,
        provider,
        signer,
    };
    flood(&world, 300, NOW).await;
    assert_eq!(world.provider.fetches(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_while_the_provider_is_down_makes_one_fetch() {
    let world = World::new();
    world.provider.vanish();
    for now in NOW..NOW + COOL_DOWN {
        let refused = world.jwt.verify(&world.token(|_| {}), now).await;
        assert_eq!(refused, Err(TokenError::NoKeys { issuer: login() }));
    }
    assert_eq!(world.provider.fetches(), 1);
}

#[tokio::test]
async fn callers_that_go_away_do_not_keep_the_keys_from_coming() {
    let provider = Provider::new(Duration::from_millis(50));
    let signer = Signer::p256();
    provider.publish_keys(&[signer.jwk("k1")]);
    let jwt = Arc::new(Jwt::new(provider.clone()).unwrap());
    jwt.set_issuers([issuer(record())]).unwrap();
    let world = World {
        jwt,
        provider,
        signer,
    };
    let token = world.token(|_| {});
    let gone = tokio::time::timeout(Duration::from_millis(5), world.verify(&token)).await;
    assert!(gone.is_err());
    // It would find no keys in the cool-down, had the fetch ended with the caller who began it.
    assert!(world.verify(&token).await.is_ok());
    assert_eq!(world.provider.fetches(), 1);
}

#[tokio::test]
async fn new_key_is_fetched_when_a_token_names_it() {
    let world = World::with(Signer::p256(), week());
    assert!(world.verify(&lasting(&world, "billing")).await.is_ok());
    let next = Signer::p256();
    world
        .provider
        .publish_keys(&[world.signer.jwk("k1"), next.jwk("k2")]);
    let token = next.token(&json!({"alg": "ES256", "kid": "k2"}), &claims());
    assert!(world.jwt.verify(&token, NOW + COOL_DOWN - 1).await.is_err());
    assert!(world.jwt.verify(&token, NOW + COOL_DOWN).await.is_ok());
    assert_eq!(world.provider.fetches(), 2);
}

#[tokio::test]
async fn withdrawn_key_ends_with_the_next_fetch_also_for_tokens_known_before() {
    let world = World::with(Signer::p256(), week());
    assert!(world.verify(&lasting(&world, "first")).await.is_ok());
    // Known since half the time only, so that it is not simply old when the keys are fetched anew.
    let token = lasting(&world, "billing");
    assert!(world.jwt.verify(&token, NOW + REFRESH / 2).await.is_ok());
    let next = Signer::p256();
    world.provider.publish_keys(&[next.jwk("k2")]);
    assert!(world.jwt.verify(&token, NOW + REFRESH - 1).await.is_ok());
    assert!(world.jwt.verify(&token, NOW + REFRESH).await.is_err());
    assert!(world.jwt.verify(&token, NOW + REFRESH + 1).await.is_err());
    // The same id with other key material is another key.
    world.provider.publish_keys(&[next.jwk("k1")]);
    let refused = world.jwt.verify(&token, NOW + 2 * REFRESH).await;
    assert_eq!(refused, Err(TokenError::Signature { issuer: login() }));
}

#[tokio::test]
async fn provider_that_is_down_changes_nothing_for_a_day() {
    let world = World::with(Signer::p256(), week());
    assert!(world.verify(&lasting(&world, "first")).await.is_ok());
    world.provider.vanish();
    for now in [NOW + REFRESH, NOW + 3 * REFRESH, NOW + KEEP - 1] {
        assert!(
            world
                .jwt
                .verify(&lasting(&world, "other"), now)
                .await
                .is_ok()
        );
    }
    assert_eq!(world.provider.fetches(), 4, "one attempt each");
    let refused = world
        .jwt
        .verify(&lasting(&world, "first"), NOW + KEEP)
        .await;
    assert_eq!(refused, Err(TokenError::NoKeys { issuer: login() }));
    world.provider.publish_keys(&[world.signer.jwk("k1")]);
    assert!(
        world
            .jwt
            .verify(&lasting(&world, "first"), NOW + KEEP + COOL_DOWN)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn clock_that_is_set_back_does_not_hold_a_fetch_up() {
    let world = World::with(Signer::p256(), week());
    assert!(
        world
            .jwt
            .verify(&lasting(&world, "billing"), NOW + 86_400)
            .await
            .is_ok()
    );
    let next = Signer::p256();
    world.provider.publish_keys(&[next.jwk("k2")]);
    let token = next.token(&json!({"alg": "ES256", "kid": "k2"}), &claims());
    assert!(world.verify(&token).await.is_ok());
}

#[tokio::test]
async fn known_token_is_not_verified_again_and_ends_on_time() {
    let world = World::new();
    let token = world.token(|_| {});
    let first = world.verify(&token).await.unwrap();
    let second = world.verify(&token).await.unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    let last = u64::try_from(first.not_after).unwrap();
    assert_eq!(last, NOW + 329);
    assert!(world.jwt.verify(&token, last).await.is_ok());
    let refused = world.jwt.verify(&token, last + 1).await;
    assert_eq!(
        refused,
        Err(TokenError::Expired {
            issuer: login(),
            ago: 0
        })
    );
}

#[tokio::test]
async fn issuer_that_changes_or_goes_takes_its_known_tokens_along() {
    let world = World::new();
    let token = world.token(|_| {});
    let first = world.verify(&token).await.unwrap();
    world.jwt.set_issuers([issuer(record())]).unwrap();
    assert!(
        Arc::ptr_eq(&first, &world.verify(&token).await.unwrap()),
        "the same record"
    );
    assert_eq!(world.provider.fetches(), 1);

    let changed = IssuerRecord {
        tenant: "globex".into(),
        ..record()
    };
    world.jwt.set_issuers([issuer(changed)]).unwrap();
    assert_eq!(
        world.verify(&token).await.unwrap().tenant.as_str(),
        "globex"
    );
    let changed = IssuerRecord {
        audiences: vec!["other".into()],
        ..record()
    };
    world.jwt.set_issuers([issuer(changed)]).unwrap();
    assert_eq!(
        world.verify(&token).await,
        Err(TokenError::Audience { issuer: login() })
    );
    world.jwt.set_issuers([]).unwrap();
    assert_eq!(
        world.verify(&token).await,
        Err(TokenError::UnknownIssuer { iss: ISSUER.into() })
    );
    assert_eq!(world.jwt.cache.len(), 0);
}

#[tokio::test]
async fn refused_tokens_are_not_remembered_and_known_ones_are_bounded() {
    let world = World::with(
        Signer::ed25519(),
        IssuerRecord {
            algorithms: vec!["EdDSA".into()],
            ..record()
        },
    );
    for number in 0..200 {
        assert!(
            world
                .claim(|claims| claims["exp"] = json!(number))
                .await
                .is_err()
        );
    }
    assert_eq!(world.jwt.cache.len(), 0);
    // Each weighs several KiB, so that 8 MiB have no room for all.
    let groups: Vec<String> = (0..110)
        .map(|number| format!("group-{number:03}-{}", "g".repeat(30)))
        .collect();
    let record = IssuerRecord {
        algorithms: vec!["EdDSA".into()],
        groups_claim: "groups".into(),
        ..record()
    };
    world.jwt.set_issuers([issuer(record)]).unwrap();
    for number in 0..1500 {
        let token = world.token(|claims| {
            claims["jti"] = json!(number.to_string());
            claims["groups"] = json!(groups);
        });
        assert!(world.verify(&token).await.is_ok());
    }
    let known = world.jwt.cache.len();
    assert!((100..1000).contains(&known), "{known}");
}

#[tokio::test]
async fn discovery_document_of_another_issuer() {
    for document in [
        json!({"issuer": "https://login.example.com/", "jwks_uri": KEYS}),
        json!({"issuer": "https://evil.example.com", "jwks_uri": KEYS}),
        json!({"jwks_uri": KEYS}),
        json!({"issuer": [ISSUER], "jwks_uri": KEYS}),
        json!({"issuer": ISSUER}),
        json!({"issuer": ISSUER, "jwks_uri": 1}),
        json!({"issuer": ISSUER, "jwks_uri": "http://login.example.com/keys"}),
        json!({"issuer": ISSUER, "jwks_uri": "http://127.0.0.1/keys"}),
        json!({"issuer": ISSUER, "jwks_uri": "file:///keys"}),
        json!([ISSUER]),
    ] {
        let world = World::with(
            Signer::p256(),
            IssuerRecord {
                jwks_url: String::new(),
                ..record()
            },
        );
        world.provider.publish(DISCOVERY, &document);
        let refused = world.claim(|_| {}).await;
        assert_eq!(
            refused,
            Err(TokenError::NoKeys { issuer: login() }),
            "{document}"
        );
        assert_eq!(world.provider.fetches(), 1);
    }
    let world = World::with(
        Signer::p256(),
        IssuerRecord {
            jwks_url: String::new(),
            ..record()
        },
    );
    assert!(world.claim(|_| {}).await.is_ok());
    assert_eq!(world.provider.fetches(), 2);
}
