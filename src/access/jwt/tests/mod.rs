//! Attacks on the verifier, each with the name of what it tries, against an issuer whose keys the tests have.

mod claims;
mod issuers;
mod key_sets;
mod mapping;
mod network;
mod refresh;
mod text;
mod tokens;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use fieldkeep_crypto::names::Name;
use ring::{
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
        RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
    },
};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};

use super::{Endpoint, Fetch, FetchError, Issuer, IssuerRecord, Jwt, TokenError};
use crate::access::principal::Principal;

/// The time of the tests, Unix seconds.
const NOW: u64 = 1_900_000_000;
const ISSUER: &str = "https://login.example.com";
const DISCOVERY: &str = "https://login.example.com/.well-known/openid-configuration";
const KEYS: &str = "https://login.example.com/keys";
const AUDIENCE: &str = "fieldkeep";

/// A private key of a provider.
pub(crate) enum Signer {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl Signer {
    pub(crate) fn p256() -> Signer {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Signer::P256(EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap())
    }

    fn p384() -> Signer {
        let algorithm = &ECDSA_P384_SHA384_FIXED_SIGNING;
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Signer::P384(EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap())
    }

    fn ed25519() -> Signer {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Signer::Ed25519(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
    }

    /// ring makes no RSA keys, so this one is always the same.
    fn rsa() -> Signer {
        Signer::Rsa(RsaKeyPair::from_pkcs8(include_bytes!("rsa_2048.pk8")).unwrap())
    }

    /// The algorithm that a token of this key names, unless a test wants another.
    fn algorithm(&self) -> &'static str {
        match self {
            Signer::P256(_) => "ES256",
            Signer::P384(_) => "ES384",
            Signer::Ed25519(_) => "EdDSA",
            Signer::Rsa(_) => "RS256",
        }
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Signer::P256(pair) | Signer::P384(pair) => {
                pair.sign(&random, message).unwrap().as_ref().to_vec()
            }
            Signer::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Signer::Rsa(pair) => {
                let padding: &dyn ring::signature::RsaEncoding = match algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, message, &mut signature)
                    .unwrap();
                signature
            }
        }
    }

    /// The public key as a JWK.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        match self {
            Signer::P256(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": text(&point[1..33]), "y": text(&point[33..])})
            }
            Signer::P384(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-384", "kid": kid, "x": text(&point[1..49]), "y": text(&point[49..])})
            }
            Signer::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": text(pair.public_key().as_ref())})
            }
            Signer::Rsa(pair) => {
                let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                let (n, e) = (public.n, public.e);
                json!({"kty": "RSA", "kid": kid, "use": "sig", "n": text(&n), "e": text(&e)})
            }
        }
    }

    /// A token with this header and these claims.
    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        self.token_of_text(&header.to_string(), &claims.to_string())
    }

    /// A token whose parts are these texts.
    fn token_of_text(&self, header: &str, claims: &str) -> String {
        let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        let message = format!("{}.{}", part(header), part(claims));
        let named = serde_json::from_str::<Value>(header).unwrap_or_default();
        let algorithm = named["alg"].as_str().unwrap_or_default();
        let signature = self.sign(algorithm, message.as_bytes());
        format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
    }
}

/// An identity provider without a network.
struct Provider {
    documents: Mutex<HashMap<String, Bytes>>,
    fetches: AtomicU64,
    delay: Duration,
}

#[async_trait]
impl Fetch for Provider {
    async fn fetch(
        &self,
        url: &Endpoint,
        _root: Option<&CertificateDer<'static>>,
        limit: usize,
    ) -> Result<Bytes, FetchError> {
        self.fetches.fetch_add(1, SeqCst);
        tokio::time::sleep(self.delay).await;
        let documents = self
            .documents
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let document = documents
            .get(url.as_str())
            .cloned()
            .ok_or(FetchError::Timeout)?;
        if document.len() > limit {
            Err(FetchError::TooLarge(limit))
        } else {
            Ok(document)
        }
    }
}

impl Provider {
    fn new(delay: Duration) -> Arc<Provider> {
        let provider = Provider {
            documents: Mutex::default(),
            fetches: AtomicU64::new(0),
            delay,
        };
        provider.publish(DISCOVERY, &json!({"issuer": ISSUER, "jwks_uri": KEYS}));
        Arc::new(provider)
    }

    fn publish(&self, url: &str, document: &Value) {
        self.publish_text(url, &document.to_string());
    }

    fn publish_text(&self, url: &str, document: &str) {
        let mut documents = self.documents.lock().unwrap();
        documents.insert(url.to_owned(), Bytes::from(document.to_owned()));
    }

    fn publish_keys(&self, keys: &[Value]) {
        self.publish(KEYS, &json!({ "keys": keys }));
    }

    fn vanish(&self) {
        self.documents.lock().unwrap().clear();
    }

    fn fetches(&self) -> u64 {
        self.fetches.load(SeqCst)
    }
}

/// An issuer whose record the tests change.
fn record() -> IssuerRecord {
    IssuerRecord {
        url: ISSUER.into(),
        jwks_url: KEYS.into(),
        audiences: vec![AUDIENCE.into()],
        algorithms: vec!["ES256".into()],
        tenant: "acme".into(),
        tenants: vec!["acme".into(), "globex".into()],
        ceiling: "decrypter".into(),
        ..IssuerRecord::default()
    }
}

fn issuer(record: IssuerRecord) -> Issuer {
    Issuer::new(Name::parse("login").unwrap(), record).unwrap()
}

/// A verifier, the issuer's provider, and its one key with the id `k1`.
struct World {
    jwt: Arc<Jwt>,
    provider: Arc<Provider>,
    signer: Signer,
}

impl World {
    fn new() -> World {
        World::with(Signer::p256(), record())
    }

    fn with(signer: Signer, record: IssuerRecord) -> World {
        let provider = Provider::new(Duration::ZERO);
        provider.publish_keys(&[signer.jwk("k1")]);
        let jwt = Arc::new(Jwt::new(provider.clone()).unwrap());
        jwt.set_issuers([issuer(record)]).unwrap();
        World {
            jwt,
            provider,
            signer,
        }
    }

    fn header(&self) -> Value {
        json!({"alg": self.signer.algorithm(), "typ": "JWT", "kid": "k1"})
    }

    /// What `change` makes of good claims.
    fn token(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = claims();
        change(&mut claims);
        self.signer.token(&self.header(), &claims)
    }

    async fn verify(&self, token: &str) -> Result<Arc<Principal>, TokenError> {
        self.jwt.verify(token, NOW).await
    }

    /// Verifies what `change` makes of good claims.
    async fn claim(&self, change: impl FnOnce(&mut Value)) -> Result<Arc<Principal>, TokenError> {
        self.verify(&self.token(change)).await
    }
}

fn claims() -> Value {
    json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "billing",
        "iat": NOW - 60,
        "exp": NOW + 300,
        "jti": "token-1",
    })
}

fn login() -> Name {
    Name::parse("login").unwrap()
}
