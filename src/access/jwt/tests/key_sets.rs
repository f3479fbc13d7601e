//! Key sets that are hostile, oversized, or merely have what is not for us.

use serde_json::{Value, json};

use super::{
    super::keys::{KeySet, KeySetError, NoKey},
    *,
};
use crate::access::jwt::Algorithm;

fn parse(keys: &[Value]) -> Result<KeySet, KeySetError> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
}

fn with(mut jwk: Value, member: &str, value: Value) -> Value {
    jwk[member] = value;
    jwk
}

#[test]
fn not_a_key_set() {
    for text in [
        "",
        "[]",
        "null",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":[1]}"#,
        r#"{"keys":[],"keys":[]}"#,
        "<html>",
        "{\"keys\":[",
    ] {
        assert_eq!(
            KeySet::parse(text.as_bytes()).err(),
            Some(KeySetError::Malformed),
            "{text}"
        );
    }
    assert_eq!(parse(&[]).err(), Some(KeySetError::Empty));
}

#[test]
fn oversized() {
    let many: Vec<Value> = (0..65)
        .map(|number| json!({"kty": "x", "kid": number.to_string()}))
        .collect();
    assert_eq!(parse(&many).err(), Some(KeySetError::TooManyKeys));
    let long = json!({"keys": [], "pad": "a".repeat(70_000)}).to_string();
    assert_eq!(
        KeySet::parse(long.as_bytes()).err(),
        Some(KeySetError::TooLarge)
    );
    let deep = format!("{{\"keys\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    assert_eq!(
        KeySet::parse(deep.as_bytes()).err(),
        Some(KeySetError::Malformed)
    );
}

#[test]
fn symmetric_or_private_key_refuses_the_whole_set() {
    let good = Signer::p256().jwk("good");
    for secret in [
        json!({"kty": "oct", "k": "AAAA", "kid": "s", "alg": "HS256"}),
        with(Signer::p256().jwk("s"), "d", json!("AAAA")),
        with(Signer::rsa().jwk("s"), "p", json!("AAAA")),
        with(Signer::ed25519().jwk("s"), "d", json!(null)),
        json!({"kty": "AKP", "priv": "AAAA"}),
        json!({"kty": "new", "k": "AAAA"}),
    ] {
        assert_eq!(
            parse(&[good.clone(), secret.clone()]).err(),
            Some(KeySetError::Secret),
            "{secret}"
        );
    }
}

#[test]
fn keys_that_are_not_for_us_are_left_out() {
    let p256 = || Signer::p256().jwk("k");
    let without = |member: &str| {
        let mut jwk = p256();
        jwk.as_object_mut().unwrap().remove(member);
        jwk
    };
    for other in [
        json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA", "kid": "k"}),
        json!({"kid": "k"}),
        json!({"kty": 1}),
        without("crv"),
        without("y"),
        with(p256(), "crv", json!("P-521")),
        with(p256(), "crv", json!("secp256k1")),
        with(p256(), "crv", json!("P-384")),
        with(p256(), "kty", json!("ec")),
        with(p256(), "x", json!("AAAA")),
        with(p256(), "x", json!("????")),
        with(p256(), "use", json!("enc")),
        with(p256(), "use", json!(1)),
        with(p256(), "key_ops", json!(["sign"])),
        with(p256(), "key_ops", json!("verify")),
        with(p256(), "alg", json!("ES384")),
        with(p256(), "alg", json!("HS256")),
        with(p256(), "alg", json!("none")),
        with(p256(), "alg", json!(null)),
        with(p256(), "kid", json!(1)),
        with(p256(), "kid", json!("k".repeat(257))),
        with(Signer::ed25519().jwk("k"), "crv", json!("X25519")),
        with(Signer::ed25519().jwk("k"), "crv", json!("Ed448")),
        with(Signer::rsa().jwk("k"), "alg", json!("RSA-OAEP")),
    ] {
        assert_eq!(
            parse(std::slice::from_ref(&other)).err(),
            Some(KeySetError::Empty),
            "{other}"
        );
        let set = parse(&[other, Signer::p256().jwk("good")]).unwrap();
        assert!(set.find(Some("good"), Algorithm::Es256).is_ok());
    }
    for usable in [
        with(p256(), "use", json!("sig")),
        with(p256(), "key_ops", json!(["verify"])),
        with(p256(), "alg", json!("ES256")),
    ] {
        assert!(parse(&[usable]).is_ok());
    }
}

#[test]
fn rsa_key_of_a_size_that_is_not_taken() {
    let rsa = |n: Vec<u8>, e: &[u8]| {
        let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        parse(&[json!({"kty": "RSA", "kid": "k", "n": text(&n), "e": text(e)})]).is_ok()
    };
    let modulus = |bytes: usize, first: u8| {
        let mut n = vec![0xff; bytes];
        n[0] = first;
        n
    };
    let e = [1, 0, 1];
    assert!(rsa(modulus(256, 0x80), &e) && rsa(modulus(1024, 0xff), &e));
    assert!(!rsa(modulus(256, 0x7f), &e), "2047 bits");
    assert!(!rsa(modulus(128, 0xff), &e), "1024 bits");
    assert!(!rsa(modulus(1025, 1), &e), "8193 bits");
    assert!(!rsa(modulus(257, 0), &e), "a leading zero");
    assert!(!rsa(Vec::new(), &e));
    let even = [vec![0xff; 255], vec![0xfe]].concat();
    assert!(!rsa(even, &e));
    for exponent in [
        &[][..],
        &[1],
        &[3],
        &[1, 0, 0],
        &[0, 1, 0, 1],
        &[2, 0, 0, 0, 1],
        &[0xff; 9],
    ] {
        assert!(!rsa(modulus(256, 0xff), exponent), "{exponent:?}");
    }
}

#[test]
fn two_keys_with_one_id() {
    let (first, second) = (Signer::p256(), Signer::p256());
    assert_eq!(
        parse(&[first.jwk("k"), second.jwk("k")]).err(),
        Some(KeySetError::Ambiguous)
    );
    // Of different types they cannot be taken for each other (RFC 7517, section 4.5).
    let set = parse(&[first.jwk("k"), Signer::rsa().jwk("k")]).unwrap();
    assert!(
        set.find(Some("k"), Algorithm::Es256).is_ok()
            && set.find(Some("k"), Algorithm::Ps256).is_ok()
    );
    assert_eq!(
        set.find(Some("k"), Algorithm::EdDsa).unwrap_err(),
        NoKey::Misfit
    );
    assert_eq!(
        set.find(Some("K"), Algorithm::Es256).unwrap_err(),
        NoKey::Unknown
    );
    assert_eq!(
        set.find(None, Algorithm::Es256).unwrap_err(),
        NoKey::KidRequired
    );
}

#[test]
fn key_is_found_again_only_as_it_was() {
    let signer = Signer::rsa();
    let set = parse(&[signer.jwk("k")]).unwrap();
    let key = set.find(Some("k"), Algorithm::Rs256).unwrap();
    assert!(
        parse(&[Signer::p256().jwk("a"), signer.jwk("k")])
            .unwrap()
            .holds(&key)
    );
    for other in [
        signer.jwk("other"),
        with(signer.jwk("k"), "alg", json!("PS256")),
        Signer::p256().jwk("k"),
    ] {
        assert!(!parse(&[other]).unwrap().holds(&key));
    }
}

#[tokio::test]
async fn hostile_set_does_not_replace_the_good_one() {
    let world = World::new();
    let token = world.token(|_| {});
    assert!(world.verify(&token).await.is_ok());
    let mut now = NOW;
    for hostile in [
        json!({"keys": [{"kty": "oct", "k": "AAAA"}]}).to_string(),
        json!({"keys": vec![json!({}); 65]}).to_string(),
        "a".repeat(100_000),
        String::new(),
    ] {
        world.provider.publish_text(KEYS, &hostile);
        now += 601;
        let fetches = world.provider.fetches();
        let later = world.token(|claims| claims["exp"] = json!(NOW + 10_000));
        assert!(world.jwt.verify(&later, now).await.is_ok());
        assert_eq!(world.provider.fetches(), fetches + 1);
    }
}
