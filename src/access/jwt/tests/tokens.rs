//! Texts, headers and signatures of tokens that must be refused, and the same tokens without what is wrong with them, which are taken.

use data_encoding::BASE64URL_NOPAD;
use ring::hmac;
use serde_json::{Value, json};

use super::*;

fn set(claims: &mut Value, name: &str, value: Value) {
    claims[name] = value;
}

#[tokio::test]
async fn good_token_of_every_algorithm() {
    for (signer, algorithms) in [
        (Signer::p256 as fn() -> Signer, vec!["ES256"]),
        (Signer::p384, vec!["ES384"]),
        (Signer::ed25519, vec!["EdDSA"]),
        (
            Signer::rsa,
            vec!["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
        ),
    ] {
        for algorithm in algorithms {
            let algorithms = vec![algorithm.into()];
            let world = World::with(
                signer(),
                IssuerRecord {
                    algorithms,
                    ..record()
                },
            );
            let header = json!({"alg": algorithm, "kid": "k1"});
            let verified = world.verify(&world.signer.token(&header, &claims())).await;
            assert_eq!(verified.unwrap().name.as_str(), "billing", "{algorithm}");
        }
    }
}

#[tokio::test]
async fn alg_none() {
    let world = World::new();
    let part = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    for alg in ["none", "None", "NONE", ""] {
        let unsigned = format!(
            "{}.{}.",
            part(json!({"alg": alg, "kid": "k1"})),
            part(claims())
        );
        assert_eq!(
            world.verify(&unsigned).await,
            Err(TokenError::Malformed),
            "{alg}"
        );
        let signed = world
            .signer
            .token(&json!({"alg": alg, "kid": "k1"}), &claims());
        assert_eq!(
            world.verify(&signed).await,
            Err(TokenError::Malformed),
            "{alg}"
        );
    }
}

#[tokio::test]
async fn signature_left_out_or_of_zeros() {
    let world = World::new();
    let token = world.token(|_| {});
    let (message, _) = token.rsplit_once('.').unwrap();
    let zeros = BASE64URL_NOPAD.encode(&[0; 64]);
    for signature in ["", "AA", &zeros] {
        let refused = world.verify(&format!("{message}.{signature}")).await;
        assert_eq!(refused, Err(TokenError::Signature { issuer: login() }));
    }
}

#[tokio::test]
async fn hmac_with_the_public_key_as_its_secret() {
    for signer in [Signer::rsa(), Signer::p256(), Signer::ed25519()] {
        let algorithms = vec![signer.algorithm().into()];
        let world = World::with(
            signer,
            IssuerRecord {
                algorithms,
                ..record()
            },
        );
        let jwk = world.signer.jwk("k1");
        let public = |member: &str| {
            BASE64URL_NOPAD
                .decode(jwk[member].as_str().unwrap_or_default().as_bytes())
                .unwrap()
        };
        for secret in [public("n"), public("x"), jwk.to_string().into_bytes()] {
            for (alg, algorithm) in [
                ("HS256", hmac::HMAC_SHA256),
                ("HS384", hmac::HMAC_SHA384),
                ("HS512", hmac::HMAC_SHA512),
            ] {
                let part = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
                let message = format!(
                    "{}.{}",
                    part(json!({"alg": alg, "kid": "k1"})),
                    part(claims())
                );
                let tag = hmac::sign(&hmac::Key::new(algorithm, &secret), message.as_bytes());
                let token = format!("{message}.{}", BASE64URL_NOPAD.encode(tag.as_ref()));
                let refused = TokenError::Algorithm {
                    issuer: login(),
                    algorithm: alg.into(),
                };
                assert_eq!(world.verify(&token).await, Err(refused));
            }
        }
    }
}

#[tokio::test]
async fn algorithm_that_is_not_pinned() {
    let world = World::with(
        Signer::rsa(),
        IssuerRecord {
            algorithms: vec!["PS256".into()],
            ..record()
        },
    );
    let token = world
        .signer
        .token(&json!({"alg": "RS256", "kid": "k1"}), &claims());
    let refused = TokenError::Algorithm {
        issuer: login(),
        algorithm: "RS256".into(),
    };
    assert_eq!(world.verify(&token).await, Err(refused));
    let token = world
        .signer
        .token(&json!({"alg": "PS256", "kid": "k1"}), &claims());
    assert!(world.verify(&token).await.is_ok());
}

#[tokio::test]
async fn pinned_algorithm_with_a_key_of_another_type() {
    let algorithms = ["ES256", "ES384", "EdDSA", "RS256"]
        .map(String::from)
        .to_vec();
    for signer in [
        Signer::p256(),
        Signer::p384(),
        Signer::ed25519(),
        Signer::rsa(),
    ] {
        let world = World::with(
            signer,
            IssuerRecord {
                algorithms: algorithms.clone(),
                ..record()
            },
        );
        for alg in &algorithms {
            let token = world
                .signer
                .token(&json!({"alg": alg, "kid": "k1"}), &claims());
            let misfit = matches!(
                world.verify(&token).await,
                Err(TokenError::KeyMisfit { .. })
            );
            assert_eq!(misfit, alg != world.signer.algorithm(), "{alg}");
        }
    }
}

#[tokio::test]
async fn signed_by_a_stranger() {
    let world = World::new();
    let token = Signer::p256().token(&world.header(), &claims());
    assert_eq!(
        world.verify(&token).await,
        Err(TokenError::Signature { issuer: login() })
    );
}

#[tokio::test]
async fn claims_of_another_token_under_its_signature() {
    let world = World::new();
    let (mine, other) = (
        world.token(|_| {}),
        world.token(|claims| set(claims, "sub", json!("admin"))),
    );
    let (mine, other): (Vec<&str>, Vec<&str>) =
        (mine.split('.').collect(), other.split('.').collect());
    let mixed = format!("{}.{}.{}", mine[0], other[1], mine[2]);
    assert_eq!(
        world.verify(&mixed).await,
        Err(TokenError::Signature { issuer: login() })
    );
}

#[tokio::test]
async fn crit_header() {
    let world = World::new();
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("crit", json!(["b64"])),
    ] {
        let mut header = world.header();
        header["b64"] = json!(true);
        assert!(
            world
                .verify(&world.signer.token(&header, &claims()))
                .await
                .is_ok()
        );
        header[name] = value;
        assert_eq!(
            world.verify(&world.signer.token(&header, &claims())).await,
            Err(TokenError::Critical)
        );
    }
    let mut header = world.header();
    header["b64"] = json!(false);
    assert!(
        world
            .verify(&world.signer.token(&header, &claims()))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn header_that_brings_or_points_to_its_own_key() {
    let world = World::new();
    let own = Signer::p256();
    for (name, value) in [
        ("jwk", own.jwk("k1")),
        ("jku", json!("https://evil.example.com/keys")),
        ("x5u", json!("https://evil.example.com/chain")),
        ("x5c", json!(["AA=="])),
    ] {
        world.provider.publish(
            "https://evil.example.com/keys",
            &json!({"keys": [own.jwk("k1")]}),
        );
        let mut header = world.header();
        header[name] = value;
        let before = world.provider.fetches().max(1);
        let refused = world.verify(&own.token(&header, &claims())).await;
        assert_eq!(
            refused,
            Err(TokenError::Signature { issuer: login() }),
            "{name}"
        );
        assert_eq!(world.provider.fetches(), before, "{name} was followed");
        // With the issuer's own signature it is a header that means nothing.
        assert!(
            world
                .verify(&world.signer.token(&header, &claims()))
                .await
                .is_ok(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn key_id_is_missing_and_there_are_two_keys() {
    let world = World::new();
    let header = json!({"alg": "ES256"});
    assert!(
        world
            .verify(&world.signer.token(&header, &claims()))
            .await
            .is_ok()
    );
    let two = World::new();
    two.provider
        .publish_keys(&[two.signer.jwk("k1"), Signer::p256().jwk("k2")]);
    let refused = two.verify(&two.signer.token(&header, &claims())).await;
    assert_eq!(refused, Err(TokenError::KidRequired { issuer: login() }));
    assert!(
        two.verify(
            &two.signer
                .token(&json!({"alg": "ES256", "kid": "k2"}), &claims())
        )
        .await
        .is_err()
    );
    assert!(two.verify(&two.token(|_| {})).await.is_ok());
}

#[tokio::test]
async fn type_of_another_kind_of_token() {
    let world = World::new();
    for (typ, taken) in [
        ("JWT", true),
        ("jwt", true),
        ("at+jwt", true),
        ("application/at+jwt", true),
        ("application/jwt", true),
        ("logout+jwt", false),
        ("secevent+jwt", false),
        ("dpop+jwt", false),
        ("JWE", false),
        ("", false),
        ("application/application/jwt", false),
    ] {
        let header = json!({"alg": "ES256", "kid": "k1", "typ": typ});
        let outcome = world.verify(&world.signer.token(&header, &claims())).await;
        assert_eq!(outcome.err(), (!taken).then_some(TokenError::Type), "{typ}");
    }
    let only = World::with(
        Signer::p256(),
        IssuerRecord {
            token_types: vec!["at+jwt".into()],
            ..record()
        },
    );
    assert_eq!(only.claim(|_| {}).await, Err(TokenError::Type));
}

#[tokio::test]
async fn giant_token() {
    let world = World::new();
    let token = world.token(|claims| set(claims, "pad", json!("a".repeat(5000))));
    assert!(token.len() < 8192 && world.verify(&token).await.is_ok());
    let token = world.token(|claims| set(claims, "pad", json!("a".repeat(8000))));
    assert_eq!(world.verify(&token).await, Err(TokenError::TooLong));
    assert_eq!(
        world.verify(&".".repeat(100_000_000)).await,
        Err(TokenError::TooLong)
    );
}

#[tokio::test]
async fn truncated_or_with_other_than_three_parts() {
    let world = World::new();
    let token = world.token(|_| {});
    for length in 0..token.len() {
        assert!(world.verify(&token[..length]).await.is_err(), "{length}");
    }
    let parts: Vec<&str> = token.split('.').collect();
    for wrong in [
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{}", parts[2]),
        format!("{}..{}", parts[0], parts[2]),
        format!(".{}.{}", parts[1], parts[2]),
        parts[..2].join("."),
        token.replace('.', " "),
        format!(" {token}"),
        format!("{token}\n"),
        format!("Bearer {token}"),
    ] {
        assert!(world.verify(&wrong).await.is_err(), "{wrong}");
    }
    assert!(world.verify(&token).await.is_ok());
}

#[tokio::test]
async fn base64_that_is_not_canonical() {
    let world = World::new();
    let token = world.token(|_| {});
    assert!(world.verify(&token).await.is_ok());
    // 64 bytes leave four bits of the last character unused. Set, they would make a second text of the same token.
    let last = token.chars().next_back().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = alphabet.find(last).unwrap();
    let next = alphabet.as_bytes()[place + 1] as char;
    let stem = &token[..token.len() - 1];
    for wrong in [
        format!("{stem}{next}"),
        format!("{token}="),
        format!("{token}=="),
        format!("{stem}+"),
        format!("{stem}/"),
    ] {
        assert!(world.verify(&wrong).await.is_err(), "{wrong}");
    }
    let (first, rest) = token.split_once('.').unwrap();
    assert_eq!(
        world.verify(&format!("{first}=.{rest}")).await,
        Err(TokenError::Malformed)
    );
}

#[tokio::test]
async fn payload_is_no_object() {
    let world = World::new();
    let header = world.header().to_string();
    for payload in [
        "",
        "[]",
        "null",
        "\"billing\"",
        "1",
        "{",
        "{} {}",
        "\u{feff}{}",
        &format!("{}{}", "[".repeat(2000), "]".repeat(2000)),
    ] {
        let refused = world
            .verify(&world.signer.token_of_text(&header, payload))
            .await;
        assert!(
            matches!(
                refused,
                Err(TokenError::Malformed | TokenError::UnknownIssuer { .. })
            ),
            "{payload}"
        );
    }
}
