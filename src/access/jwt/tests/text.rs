//! Any text as a token or a key set: an answer, never a panic.

use proptest::prelude::*;
use serde_json::json;

use super::{super::keys::KeySet, *};

fn verify(world: &World, token: &str) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(world.verify(token)).is_ok()
}

#[test]
fn good_token_is_taken_by_what_follows() {
    let world = World::new();
    assert!(verify(&world, &world.token(|_| {})));
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!(AUDIENCE)),
        Just(json!(ISSUER)),
        Just(json!(NOW)),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map("[a-z]{1,3}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text(text in any::<String>(), parts in "[A-Za-z0-9_=.-]{0,200}") {
        let world = World::new();
        prop_assert!(!verify(&world, &text));
        prop_assert!(!verify(&world, &parts));
    }

    #[test]
    fn any_json_with_a_good_signature(
        header in proptest::sample::select(vec!["typ", "kid", "crit", "b64", "jwk", "zip", "cty"]),
        claim in proptest::sample::select(vec!["iss", "aud", "sub", "exp", "iat", "nbf", "jti", "scope", "amr", "acr"]),
        value in json(),
    ) {
        let world = World::new();
        // `sub` and what only adds may be any text of the grammar; all else is either good as it was or refused.
        verify(&world, &world.token(|claims| claims[claim] = value.clone()));
        let mut head = world.header();
        head[header] = value.clone();
        verify(&world, &world.signer.token(&head, &claims()));
        prop_assert!(!verify(&world, &world.signer.token(&value, &claims())));
        prop_assert!(!verify(&world, &world.signer.token(&world.header(), &value)));
    }

    #[test]
    fn token_with_one_byte_changed(place in any::<proptest::sample::Index>(), byte in 32u8..127) {
        let world = World::new();
        let token = world.token(|_| {});
        let mut changed = token.clone().into_bytes();
        let place = place.index(changed.len());
        changed[place] = byte;
        let changed = String::from_utf8(changed).unwrap();
        prop_assert_eq!(verify(&world, &changed), changed == token);
    }

    #[test]
    fn any_key_set(text in any::<String>(), key in json(), member in "(kty|crv|x|y|n|e|kid|use|alg|key_ops)", value in json()) {
        let _ = KeySet::parse(text.as_bytes());
        let _ = KeySet::parse(json!({"keys": [key]}).to_string().as_bytes());
        let mut jwk = Signer::p256().jwk("k");
        jwk[&member] = value;
        let _ = KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes());
    }
}
