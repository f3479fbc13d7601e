//! An identity provider of a run: one ES256 key, its document on this host, and tokens signed with it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use data_encoding::BASE64URL_NOPAD;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};

const AUDIENCE: &str = "fieldkeep";

/// The provider. Its document is served until the process ends.
pub(crate) struct Issuer {
    key: EcdsaKeyPair,
    address: SocketAddr,
}

impl Issuer {
    pub(crate) fn start() -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("random numbers");
        let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).expect("a key");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        // An uncompressed point (SEC 1, section 2.3.3): 4, then both coordinates.
        let point = key.public_key().as_ref();
        let keys = json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "1",
            "x": BASE64URL_NOPAD.encode(&point[1..33]),
            "y": BASE64URL_NOPAD.encode(&point[33..]),
        }] });
        thread::spawn(move || serve(&listener, &keys.to_string()));
        Self { key, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The arguments that add it.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let url = self.url();
        let arguments = [
            "issuer",
            "add",
            "bench",
            "--url",
            &url,
            "--jwks-url",
            &format!("{url}/keys"),
            "--audience",
            AUDIENCE,
            "--tenant",
            "default",
            "--groups-claim",
            "groups",
            "--algorithm",
            "ES256",
            "--ceiling",
            "data",
        ];
        arguments.map(str::to_owned).to_vec()
    }

    /// An hour's token of `name`, in the group `callers`. It has about as many bytes as those of real providers.
    pub(crate) fn token(&self, name: &str) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let claims = json!({
            "iss": self.url(), "aud": AUDIENCE, "sub": name, "groups": ["callers"],
            "iat": now, "exp": now + 3_600, "jti": format!("{name}-{now}"),
            "scope": "openid profile email", "azp": "bench", "sid": "8f3ac04b-11d2-4f5e-9c0d-7a6b5e4f3a21",
        });
        let part = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": "1" });
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = BASE64URL_NOPAD.encode(signature.expect("random numbers").as_ref());
        format!("{signed}.{signature}")
    }
}

/// Answers every request with the keys.
fn serve(listener: &TcpListener, keys: &str) {
    for stream in listener.incoming().flatten() {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let mut lines = BufReader::new(&stream).lines();
        while lines
            .next()
            .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
        {}
        let _ = write!(
            &stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{keys}",
            keys.len()
        );
    }
}
