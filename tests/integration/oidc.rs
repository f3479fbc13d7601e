//! Tokens of a real OpenID provider: an OpenBao server over TLS, its identity tokens, and the ID token of its authorization
//! code flow. Nothing of the provider is known but its URL and its root certificate.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use fieldkeep::access::jwt::{HttpsFetch, Issuer, IssuerRecord, Jwt, TokenError};
use fieldkeep_crypto::names::Name;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const REDIRECT: &str = "http://127.0.0.1:9/callback";

/// The server that `cargo xtask test` installs.
fn binary() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = env::var_os("FIELDKEEP_TEST_OPENBAO").map(PathBuf::from);
    found
        .filter(|path| root.join(path).is_file())
        .map(|path| root.join(path))
}

/// A server, or word that there is none to run.
pub(crate) fn provider() -> Option<OpenBao> {
    let binary = binary();
    if binary.is_none() {
        eprintln!(
            "skipped: no OpenBao; `cargo xtask test` installs it, or FIELDKEEP_TEST_OPENBAO names its binary"
        );
    }
    binary.map(OpenBao::start)
}

/// A server on a free port, which ends with the test.
pub(crate) struct OpenBao {
    binary: PathBuf,
    folder: TempDir,
    pub(crate) address: String,
    child: Child,
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl OpenBao {
    fn start(binary: PathBuf) -> OpenBao {
        let folder = TempDir::new().unwrap();
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let child = Command::new(&binary)
            .args([
                "server",
                "-dev-tls",
                "-dev-root-token-id=root",
                "-dev-no-store-token",
            ])
            .arg(format!("-dev-listen-address={free}"))
            .arg(format!("-dev-tls-cert-dir={}", folder.path().display()))
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = OpenBao {
            binary,
            folder,
            address: format!("https://{free}"),
            child,
        };
        let started = Instant::now();
        while !server
            .command("root", &["status"])
            .status()
            .unwrap()
            .success()
        {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "OpenBao does not start"
            );
            thread::sleep(Duration::from_millis(100));
        }
        server
    }

    pub(crate) fn ca(&self) -> PathBuf {
        let entries = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let is_ca = |path: &PathBuf| path.to_string_lossy().ends_with("ca.pem");
        entries
            .into_iter()
            .find(is_ca)
            .unwrap_or_else(|| self.folder.path().join("none"))
    }

    fn command(&self, token: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .env("HOME", self.folder.path())
            .env("BAO_ADDR", &self.address)
            .env("BAO_CACERT", self.ca())
            .env("BAO_TOKEN", token)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    pub(crate) fn run(&self, token: &str, arguments: &[&str]) -> String {
        let mut command = self.command(token, arguments);
        let output = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A user `ada` in the group `readers`, and her token for OpenBao itself.
    pub(crate) fn user(&self) -> (String, String) {
        let policy = self.folder.path().join("policy.hcl");
        fs::write(
            &policy,
            r#"path "identity/oidc/*" { capabilities = ["read", "create", "update"] }"#,
        )
        .unwrap();
        self.run(
            "root",
            &["policy", "write", "oidc", policy.to_str().unwrap()],
        );
        self.run("root", &["auth", "enable", "userpass"]);
        self.run(
            "root",
            &[
                "write",
                "auth/userpass/users/ada",
                "password=pw",
                "token_policies=oidc",
            ],
        );
        let token = self.run(
            "root",
            &[
                "write",
                "-field=token",
                "auth/userpass/login/ada",
                "password=pw",
            ],
        );
        let itself: Value =
            serde_json::from_str(&self.run(&token, &["token", "lookup", "-format=json"])).unwrap();
        let entity = itself["data"]["entity_id"].as_str().unwrap().to_owned();
        let members = format!("member_entity_ids={entity}");
        self.run(
            "root",
            &["write", "identity/group", "name=readers", &members],
        );
        (token, entity)
    }

    pub(crate) fn make_key(&self, algorithm: &str) {
        let algorithm = format!("algorithm={algorithm}");
        self.run(
            "root",
            &[
                "write",
                "identity/oidc/key/fk",
                &algorithm,
                "allowed_client_ids=*",
            ],
        );
        let template = r#"template={"groups": {{identity.entity.groups.names}}, "org": "acme"}"#;
        self.run(
            "root",
            &[
                "write",
                "identity/oidc/role/fk",
                "key=fk",
                "client_id=fieldkeep",
                "ttl=10m",
                template,
            ],
        );
    }

    fn identity_token(&self, token: &str) -> String {
        self.run(token, &["read", "-field=token", "identity/oidc/token/fk"])
    }

    /// The ID token of the authorization code flow, and the client that it is for.
    async fn id_token(&self, token: &str, entity: &str) -> (String, String) {
        let entities = format!("entity_ids={entity}");
        self.run(
            "root",
            &["write", "identity/oidc/assignment/ada", &entities],
        );
        let redirect = format!("redirect_uri={REDIRECT}");
        let redirects = format!("redirect_uris={REDIRECT}");
        let client = [
            "write",
            "identity/oidc/client/web",
            &redirects,
            "assignments=ada",
            "key=fk",
        ];
        self.run("root", &client);
        let of_client = |field: &str| {
            self.run(
                "root",
                &[
                    "read",
                    &format!("-field={field}"),
                    "identity/oidc/client/web",
                ],
            )
        };
        let (id, secret) = (of_client("client_id"), of_client("client_secret"));
        let id_pair = format!("client_id={id}");
        let secret_pair = format!("client_secret={secret}");
        let provider = "identity/oidc/provider/default";
        let authorize = format!("{provider}/authorize");
        let code = [
            "write",
            "-field=code",
            &authorize,
            "scope=openid",
            "response_type=code",
            &id_pair,
            &redirect,
            "state=x",
            "nonce=y",
        ];
        let code = format!("code={}", self.run(token, &code));
        // The answer is the plain one of OAuth, in which the command line finds no fields of its own.
        let form = [
            "grant_type=authorization_code",
            &code,
            &redirect,
            &id_pair,
            &secret_pair,
        ]
        .join("&");
        let exchange = self.post(&format!("/v1/{provider}/token"), form).await;
        (
            exchange["id_token"]
                .as_str()
                .unwrap_or_else(|| panic!("{exchange}"))
                .to_owned(),
            id,
        )
    }

    /// Posts a form, and reads the JSON of the answer.
    async fn post(&self, path: &str, form: String) -> Value {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.ca()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let authority = self.address.strip_prefix("https://").unwrap();
        let stream = TcpStream::connect(authority).await.unwrap();
        let name = "127.0.0.1".try_into().unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap();
        let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let served = tokio::spawn(connection);
        let request = Request::post(path)
            .header("host", authority)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form)))
            .unwrap();
        let answer = requests.send_request(request).await.unwrap();
        let answer = answer.into_body().collect().await.unwrap().to_bytes();
        served.abort();
        serde_json::from_slice(&answer).unwrap()
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn issuer(server: &OpenBao, path: &str, audience: &str, algorithm: &str) -> Issuer {
    let record = IssuerRecord {
        url: format!("{}{path}", server.address),
        root_certificate: CertificateDer::from_pem_file(server.ca()).unwrap().to_vec(),
        audiences: vec![audience.into()],
        algorithms: vec![algorithm.into()],
        tenant: "acme".into(),
        tenants: vec!["acme".into()],
        groups_claim: "groups".into(),
        ceiling: "decrypter".into(),
        ..IssuerRecord::default()
    };
    Issuer::new(Name::parse("openbao").unwrap(), record).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_openbao_with_every_algorithm_and_after_a_rotation() {
    let Some(server) = provider() else { return };
    let (token, entity) = server.user();
    for algorithm in ["ES256", "ES384", "EdDSA", "RS256", "RS512"] {
        // The algorithm of a key is fixed, so each has its own.
        let _ = server
            .command("root", &["delete", "identity/oidc/role/fk"])
            .status()
            .unwrap();
        let _ = server
            .command("root", &["delete", "identity/oidc/key/fk"])
            .status()
            .unwrap();
        server.make_key(algorithm);
        let bearer = server.identity_token(&token);
        let jwt = Jwt::new(Arc::new(HttpsFetch::new().unwrap())).unwrap();
        jwt.set_issuers([issuer(&server, "/v1/identity/oidc", "fieldkeep", algorithm)])
            .unwrap();
        let verified = jwt.verify(&bearer, now()).await.unwrap();
        assert_eq!(
            (verified.tenant.as_str(), verified.name.as_str()),
            ("acme", entity.as_str()),
            "{algorithm}"
        );
        assert_eq!(
            verified.groups.as_ref(),
            [Arc::from("tenants/acme/groups/readers")]
        );

        let other = Jwt::new(Arc::new(HttpsFetch::new().unwrap())).unwrap();
        other
            .set_issuers([issuer(&server, "/v1/identity/oidc", "other", algorithm)])
            .unwrap();
        assert!(matches!(
            other.verify(&bearer, now()).await,
            Err(TokenError::Audience { .. })
        ));
        assert!(matches!(
            jwt.verify(&bearer, now() + 700).await,
            Err(TokenError::Expired { .. })
        ));
        // Another signature of the same length.
        let (message, signature) = bearer.rsplit_once('.').unwrap();
        let first = if signature.starts_with('A') { 'B' } else { 'A' };
        let forged = format!("{message}.{first}{}", &signature[1..]);
        assert!(matches!(
            jwt.verify(&forged, now()).await,
            Err(TokenError::Signature { .. })
        ));

        // A new key at once, of which a token names the id: fetched after the cool-down.
        server.run(
            "root",
            &[
                "write",
                "-f",
                "identity/oidc/key/fk/rotate",
                "verification_ttl=0",
            ],
        );
        let next = server.identity_token(&token);
        assert!(matches!(
            jwt.verify(&next, now()).await,
            Ok(_) | Err(TokenError::UnknownKey { .. })
        ));
        assert!(jwt.verify(&next, now() + 31).await.is_ok(), "{algorithm}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn id_token_of_the_authorization_code_flow() {
    let Some(server) = provider() else { return };
    let (token, entity) = server.user();
    server.make_key("ES256");
    let (bearer, client) = server.id_token(&token, &entity).await;
    let jwt = Jwt::new(Arc::new(HttpsFetch::new().unwrap())).unwrap();
    jwt.set_issuers([issuer(
        &server,
        "/v1/identity/oidc/provider/default",
        &client,
        "ES256",
    )])
    .unwrap();
    let verified = jwt.verify(&bearer, now()).await.unwrap();
    assert_eq!(verified.name.as_str(), entity);
    // The same key signs for both issuers of this server; each token is for its own.
    let identity = server.identity_token(&token);
    assert!(matches!(
        jwt.verify(&identity, now()).await,
        Err(TokenError::UnknownIssuer { .. })
    ));
}
