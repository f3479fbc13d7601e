//! How certificates come, are renewed, and go: with the real binary, over real connections.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fieldkeep_client::{Client, Kept, ServiceCa, join};
use fieldkeep_harness::{Home, Identity, Server};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use rustix::process::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::fixture::{Fixture, reason};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// A new join token, and the fingerprint that was printed with it.
fn token(f: &Fixture, name: &str, more: &[&str]) -> (String, String) {
    let arguments = [
        &["cert", "join-token", "create", name, "--format", "json"],
        more,
    ];
    let made = json(&f.server.run(&f.admin_identity, &arguments.concat()));
    let text = |member: &str| made[member].as_str().unwrap().to_owned();
    (text("token"), text("ca_fingerprint"))
}

/// A token with the same id, another secret, and the checksum that fits.
fn guessed(token: &str) -> String {
    let (id, _) = token.rsplit_once('_').unwrap();
    let body = format!("{id}_{}", "ab".repeat(20));
    let sum = ring::digest::digest(&ring::digest::SHA256, body.as_bytes());
    let sum = data_encoding::HEXLOWER.encode(&sum.as_ref()[..4]);
    format!("{body}{sum}")
}

fn serial(identity: &Identity) -> String {
    let pem = fs::read(&identity.certificate).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
    let (_, certificate) = X509Certificate::from_der(&pem.contents).unwrap();
    let hex = certificate.raw_serial_as_string().replace(':', "");
    hex.trim_start_matches("00").to_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn encrypts(client: &Client) -> Result<(), fieldkeep_client::Error> {
    client.field("pii", "f").encrypt(b"x").await.map(drop)
}

/// Without tries beyond the first: a client on one connection of its own.
fn plain(server: &Server, home: &Home, identity: &Identity) -> Client {
    Client::builder()
        .address(server.data.to_string())
        .ca_pem(fs::read(home.ca()).unwrap())
        .identity_pem(
            fs::read(&identity.certificate).unwrap(),
            fs::read(&identity.key).unwrap(),
        )
        .connections(1)
        .renew(false)
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_workload_joins_with_a_token_and_the_fingerprint_alone() {
    let f = Fixture::start();
    f.server.run(
        &f.admin_identity,
        &["grant", "create", "worker", "--role", "data"],
    );
    let (token, pin) = token(&f, "worker", &[]);
    let out = f.home.path().join("worker");
    let join_with = |pin: &str| {
        let mut command = std::process::Command::new(fieldkeep_harness::binary());
        command
            .args([
                "join",
                "--ca-pin",
                pin,
                "--addr",
                &f.server.data.to_string(),
            ])
            .arg("--out")
            .arg(&out)
            .env("FIELDKEEP_JOIN_TOKEN", &token)
            .env_remove("FIELDKEEP_CA");
        command.output().unwrap()
    };
    // Another service is told by its fingerprint, before the token leaves.
    let wrong = join_with(&format!("sha256:{}", "0".repeat(64)));
    assert_eq!(wrong.status.code(), Some(6), "{}", stderr(&wrong));
    assert!(
        stderr(&wrong).contains("not signed by the CA"),
        "{}",
        stderr(&wrong)
    );

    let joined = join_with(&pin);
    assert!(joined.status.success(), "{}", stderr(&joined));
    let identity = Identity {
        certificate: out.join("worker.pem"),
        key: out.join("worker.key"),
    };
    let mode = fs::metadata(&identity.key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        fs::read(out.join("ca.pem")).unwrap(),
        fs::read(f.home.ca()).unwrap()
    );
    encrypts(&f.server.data_client(&identity)).await.unwrap();

    // It was good once.
    fs::remove_file(&identity.key).unwrap();
    let again = join_with(&pin);
    assert_eq!(again.status.code(), Some(3), "{}", stderr(&again));
    assert!(
        stderr(&again).contains("cert join-token create"),
        "{}",
        stderr(&again)
    );
    let trail = f.server.run(
        &f.admin_identity,
        &["audit", "list", "--limit", "20", "--format", "json"],
    );
    assert!(trail.contains("token=used"), "{trail}");
    assert!(!trail.contains(&token[21..60]), "no secret in the trail");
    assert!(!f.server.stop().contains(&token[21..60]), "nor in the log");
}

#[tokio::test]
async fn tokens_that_do_not_count_are_refused_alike_and_attempts_are_bounded() {
    let f = Fixture::start();
    let address = f.server.data.to_string();
    let ca = fs::read(f.home.ca()).unwrap();
    let (brief, _) = token(&f, "worker", &["--ttl", "1s"]);
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let expired = join(&address, ServiceCa::Pem(&ca), &brief)
        .await
        .err()
        .unwrap();
    assert_eq!(expired.reason(), Some("UNAUTHENTICATED"), "{expired:?}");
    // One character changed is found by the checksum.
    let mut mistyped = brief.clone();
    mistyped.replace_range(30..31, if &brief[30..31] == "0" { "1" } else { "0" });
    let refused = join(&address, ServiceCa::Pem(&ca), &mistyped)
        .await
        .err()
        .unwrap();
    assert!(refused.to_string().contains("mistyped"), "{refused}");
    // Whoever shows what has ended guesses nothing, and is not held up. Another secret is a guess.
    let reasons_of = async |token: &str| {
        let mut reasons = Vec::new();
        for _ in 0..8 {
            let refused = join(&address, ServiceCa::Pem(&ca), token).await.err();
            reasons.push(refused.unwrap().reason().unwrap_or_default().to_owned());
        }
        reasons.dedup();
        reasons
    };
    assert_eq!(reasons_of(&brief).await, ["UNAUTHENTICATED"]);
    let guess = guessed(&brief);
    assert_eq!(
        reasons_of(&guess).await,
        ["UNAUTHENTICATED", "TOO_MANY_ATTEMPTS"]
    );
    // Who has a certificate is not held up.
    encrypts(&f.app()).await.unwrap();
}

#[tokio::test]
async fn eight_at_once_with_one_token_get_one_certificate() {
    let f = Fixture::start();
    let (token, _) = token(&f, "worker", &[]);
    let (address, ca) = (f.server.data.to_string(), fs::read(f.home.ca()).unwrap());
    let tries = (0..8).map(|_| {
        let (address, ca, token) = (address.clone(), ca.clone(), token.clone());
        tokio::spawn(async move { join(&address, ServiceCa::Pem(&ca), &token).await.is_ok() })
    });
    let mut joined = 0;
    for one in tries.collect::<Vec<_>>() {
        joined += usize::from(one.await.unwrap());
    }
    assert_eq!(joined, 1);
}

#[tokio::test]
async fn lives_are_a_day_at_most_and_an_operators_stays_what_it_was() {
    let f = Fixture::start();
    let out = f.home.path().join("long");
    let mut command = f.server.command(
        &f.admin_identity,
        ["cert", "issue", "long", "--ttl", "25h", "--out"],
    );
    let refused = command.arg(&out).output().unwrap();
    assert_eq!(refused.status.code(), Some(5), "{}", stderr(&refused));
    let told = stderr(&refused);
    assert!(told.contains("1 to 86400 seconds, not 90000"), "{told}");
    let life = |identity: &Identity| {
        let pem = fs::read(&identity.certificate).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
        let (_, certificate) = X509Certificate::from_der(&pem.contents).unwrap();
        let validity = certificate.validity();
        validity.not_after.timestamp() - validity.not_before.timestamp() - 300
    };
    assert_eq!(life(&f.app_identity), 86_400);
    assert_eq!(life(&f.admin_identity), 30 * 86_400);
    for identity in [&f.app_identity, &f.admin_identity] {
        let (serial_before, life_before) = (serial(identity), life(identity));
        let key_before = fs::read(&identity.key).unwrap();
        f.server.run(identity, &["cert", "renew"]);
        assert_ne!(serial(identity), serial_before);
        assert_ne!(fs::read(&identity.key).unwrap(), key_before);
        assert!((life(identity) - life_before).abs() <= 1);
        let mode = fs::metadata(&identity.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    encrypts(&f.app()).await.unwrap();
}

/// An identity whose certificate lives for `ttl`.
fn brief(f: &Fixture, name: &str, ttl: &str) -> Identity {
    let out = f.home.path().join("identities");
    let out = out.to_str().unwrap();
    let arguments = [
        "cert", "issue", name, "--tenant", "default", "--grant", "data", "--ttl", ttl, "--out", out,
    ];
    f.server.run(&f.admin_identity, &arguments);
    f.home.identity(name)
}

#[tokio::test]
async fn the_sdk_renews_before_the_end_and_writes_its_files() {
    let f = Fixture::start();
    let identity = brief(&f, "brief", "8s");
    let first = serial(&identity);
    let client = f.server.data_client(&identity);
    let started = Instant::now();
    // Three lives long, no call fails.
    while started.elapsed() < Duration::from_secs(24) {
        encrypts(&client).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(
        client.renewal_problem().is_none(),
        "{:?}",
        client.renewal_problem()
    );
    assert_ne!(serial(&identity), first);
    // The files are good for the next start.
    encrypts(&f.server.data_client(&identity)).await.unwrap();
}

#[tokio::test]
async fn an_identity_in_memory_is_renewed_there() {
    let f = Fixture::start();
    let identity = brief(&f, "brief", "15s");
    let client = Client::builder()
        .address(f.server.data.to_string())
        .ca_pem(fs::read(f.home.ca()).unwrap())
        .identity_pem(
            fs::read(&identity.certificate).unwrap(),
            fs::read(&identity.key).unwrap(),
        )
        .build()
        .unwrap();
    assert_eq!(
        client.renew_identity().await.unwrap().kept,
        Kept::Memory(None)
    );
    tokio::time::sleep(Duration::from_secs(20)).await;
    encrypts(&client).await.unwrap();
}

/// Whether the connections on which `callers` made calls see their end within two seconds: a raw TLS connection, on which
/// nothing is sent.
async fn ends_within(
    mut stream: tokio_rustls::client::TlsStream<TcpStream>,
    time: Duration,
) -> bool {
    let mut buffer = [0; 1_024];
    let read_on = async { while let Ok(1..) = stream.read(&mut buffer).await {} };
    tokio::time::timeout(time, read_on).await.is_ok()
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_on_an_open_connection_and_the_connection_closes() {
    let f = Fixture::start();
    let client = plain(&f.server, &f.home, &f.app_identity);
    encrypts(&client).await.unwrap();
    let idle = raw(&f, &f.app_identity).await;
    let other = f.other();
    encrypts(&other).await.unwrap();
    let admin = f.admin();
    let serial_number = serial(&f.app_identity);
    let certificates = admin.certificates();
    let revoked = certificates
        .revoke_serial(&serial_number, "")
        .await
        .unwrap();
    assert!(revoked.connections_ended >= 2);
    let acknowledged = Instant::now();
    let refused = encrypts(&client).await.unwrap_err();
    assert!(
        refused.reason() == Some("UNAUTHENTICATED")
            || matches!(refused, fieldkeep_client::Error::CertificateRefused { .. }),
        "{refused:?}"
    );
    assert!(ends_within(idle, Duration::from_secs(1)).await);
    assert!(acknowledged.elapsed() < Duration::from_secs(1));
    // No new connection either; the others go on.
    assert!(
        encrypts(&plain(&f.server, &f.home, &f.app_identity))
            .await
            .is_err()
    );
    encrypts(&other).await.unwrap();
    let listed = f.server.run(&f.admin_identity, &["cert", "list"]);
    assert!(listed.contains(&serial(&f.app_identity)), "{listed}");
    // It is not forgotten.
    let f = f.restart();
    assert!(
        encrypts(&plain(&f.server, &f.home, &f.app_identity))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn after_the_acknowledgement_of_a_revocation_none_of_the_racing_calls_succeeds() {
    let f = Fixture::start();
    let acknowledged = Arc::new(AtomicBool::new(false));
    let late = Arc::new(AtomicU64::new(0));
    let begun_after = Arc::new(AtomicU64::new(0));
    let callers = (0..16).map(|_| {
        let client = plain(&f.server, &f.home, &f.app_identity);
        let (acknowledged, late) = (Arc::clone(&acknowledged), Arc::clone(&late));
        let begun_after = Arc::clone(&begun_after);
        tokio::spawn(async move {
            while begun_after.load(Ordering::Relaxed) < 10_000 {
                let after = acknowledged.load(Ordering::SeqCst);
                let outcome = encrypts(&client).await;
                if after {
                    begun_after.fetch_add(1, Ordering::Relaxed);
                    late.fetch_add(u64::from(outcome.is_ok()), Ordering::Relaxed);
                }
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let admin = f.admin();
    admin.certificates().revoke_identity("app").await.unwrap();
    acknowledged.store(true, Ordering::SeqCst);
    for caller in callers {
        let abort = caller.abort_handle();
        if tokio::time::timeout(Duration::from_secs(60), caller)
            .await
            .is_err()
        {
            abort.abort();
        }
    }
    assert!(begun_after.load(Ordering::Relaxed) > 100);
    assert_eq!(late.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_revoked_identity_comes_back_with_a_new_certificate_also_within_the_second() {
    let f = Fixture::start();
    let old = plain(&f.server, &f.home, &f.app_identity);
    encrypts(&old).await.unwrap();
    let arguments = ["cert", "revoke", "--identity", "app", "--yes"];
    let said = f.server.run(&f.admin_identity, &arguments);
    assert!(said.contains("revoked"), "{said}");
    let folder = f.home.path().join("again");
    let again = f
        .server
        .issue(&f.admin_identity, "default", "app", "data", &folder);
    encrypts(&f.server.data_client(&again)).await.unwrap();
    assert!(
        encrypts(&plain(&f.server, &f.home, &f.app_identity))
            .await
            .is_err()
    );
    // A revoked one cannot renew itself.
    let renewed = plain(&f.server, &f.home, &f.app_identity)
        .renew_identity()
        .await;
    assert!(renewed.is_err());
}

async fn raw(f: &Fixture, identity: &Identity) -> tokio_rustls::client::TlsStream<TcpStream> {
    crate::transport::tls_stream(f.server.data, &f.home, Some(identity))
        .await
        .unwrap()
}

/// Another CA, its file, and its clients.
struct Corp {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
    folder: PathBuf,
}

impl Corp {
    fn make(folder: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = folder.join("corp.pem");
        fs::write(&file, issuer.pem()).unwrap();
        Self {
            issuer,
            file,
            folder: folder.to_owned(),
        }
    }

    fn client(&self, file: &str, uri: &str) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let identity = Identity {
            certificate: self.folder.join(format!("{file}.pem")),
            key: self.folder.join(format!("{file}.key")),
        };
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(&identity.certificate, certificate.pem()).unwrap();
        fs::write(&identity.key, key.serialize_pem()).unwrap();
        identity
    }
}

#[tokio::test]
async fn another_ca_names_its_own_identities_within_its_bounds_until_it_is_removed() {
    let f = Fixture::start();
    let corp = Corp::make(&f.home.path());
    let app = corp.client("corp-app", "spiffe://corp.example/tenant/default/app");
    assert!(
        encrypts(&plain(&f.server, &f.home, &app)).await.is_err(),
        "not added yet"
    );
    let file = corp.file.to_str().unwrap();
    let add = [
        "ca",
        "add",
        "corp",
        file,
        "--tenant",
        "default",
        "--trust-domain",
        "corp.example",
        "--ceiling",
        "data",
    ];
    f.server.run(&f.admin_identity, &add);
    let client = plain(&f.server, &f.home, &app);
    encrypts(&client).await.unwrap();

    // What it may not vouch for names nobody.
    for (file, uri) in [
        ("forged-domain", "spiffe://fieldkeep/tenant/default/app"),
        ("forged-admin", "spiffe://fieldkeep/tenant/default/admin"),
        (
            "forged-tenant",
            "spiffe://corp.example/tenant/other/app-other",
        ),
    ] {
        let forged = plain(&f.server, &f.home, &corp.client(file, uri));
        assert_eq!(reason(encrypts(&forged).await), "UNAUTHENTICATED", "{uri}");
    }
    // Its ceiling holds, whatever the identity was granted: `admin` is one here.
    let admin = corp.client("corp-admin", "spiffe://corp.example/tenant/default/admin");
    let admin = f.server.admin_client(&admin);
    assert_eq!(reason(admin.status().await), "PERMISSION_DENIED");
    // Nor does it renew what another CA signs.
    assert_eq!(reason(client.renew_identity().await), "INVALID_REQUEST");

    let idle = raw(&f, &app).await;
    let removed = f.admin().certificates().remove_ca("corp").await.unwrap();
    assert!(removed >= 2);
    assert!(encrypts(&client).await.is_err());
    assert!(ends_within(idle, Duration::from_secs(1)).await);
    assert!(encrypts(&plain(&f.server, &f.home, &app)).await.is_err());
    encrypts(&f.app()).await.unwrap();
    let listed = f.server.run(&f.admin_identity, &["ca", "list"]);
    assert!(listed.contains("no CAs"), "{listed}");
}

#[tokio::test]
async fn a_new_server_certificate_is_served_without_a_restart_and_a_torn_one_never() {
    let f = Fixture::start();
    let tls = f.home.path().join("tls");
    let (certificate, key) = (tls.join("server.pem"), tls.join("server.key"));
    let read = || (fs::read(&certificate).unwrap(), fs::read(&key).unwrap());
    let first = read();
    // A second pair is made while the service is stopped, and put aside.
    f.server.stop();
    let made = std::process::Command::new(fieldkeep_harness::binary())
        .args(["cert", "server", "--config"])
        .arg(f.home.config())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", stderr(&made));
    let old = read();
    fs::write(&certificate, &first.0).unwrap();
    fs::write(&key, &first.1).unwrap();
    let f = Fixture {
        server: f.home.serve(),
        ..f
    };
    let served = async || {
        let stream = raw(&f, &f.app_identity).await;
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let at_first = served().await;
    fs::write(&key, &old.1).unwrap();
    fs::write(&certificate, &old.0).unwrap();
    f.server.signal(Signal::HUP);
    let mut before = served().await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while before == at_first && Instant::now() < deadline {
        before = served().await;
    }
    assert_ne!(before, at_first, "the new one is served");
    // A key of another certificate, and half of a file: the old pair goes on.
    let torn = KeyPair::generate().unwrap().serialize_pem();
    fs::write(&key, torn).unwrap();
    fs::write(&certificate, &old.0[..old.0.len() / 2]).unwrap();
    f.server.signal(Signal::HUP);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(served().await, before);
    encrypts(&f.app()).await.unwrap();
    fs::write(&key, &old.1).unwrap();
    fs::write(&certificate, &old.0).unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(served().await, before);
    let log = f.server.stop();
    assert!(log.contains("are not served"), "{log}");
    assert!(log.contains("was taken over"), "{log}");
}

#[test]
fn a_certificate_that_is_signed_without_the_service_replaces_files_only_when_forced() {
    let home = Home::make();
    let out = tempfile::tempdir().unwrap();
    let issue = |name: &str, more: &[&str]| {
        let mut command = std::process::Command::new(fieldkeep_harness::binary());
        command.args(["cert", "issue", name, "--config"]);
        command.arg(home.config()).arg("--out").arg(out.path());
        command.args(more).output().unwrap()
    };
    let key = || fs::read(out.path().join("boss.key")).unwrap();
    let made = issue("boss", &[]);
    assert!(made.status.success(), "{}", stderr(&made));
    let first = key();
    let refused = issue("boss", &[]);
    assert!(!refused.status.success());
    assert!(stderr(&refused).contains("--force"), "{}", stderr(&refused));
    assert_eq!(key(), first);
    let forced = issue("boss", &["--force"]);
    assert!(forced.status.success(), "{}", stderr(&forced));
    assert_ne!(key(), first);
}

#[tokio::test]
async fn connections_have_an_age() {
    let home = Home::make();
    let config = fs::read_to_string(home.config()).unwrap();
    let config = config.replace("[limits]\n", "");
    fs::write(
        home.config(),
        format!("{config}\n[limits]\nconnection_age_s = 2\n"),
    )
    .unwrap();
    let server = home.serve();
    server.run(&home.admin(), &["key", "create", "pii"]);
    let folder = home.path().join("identities");
    let app = server.issue(&home.admin(), "default", "app", "data", &folder);
    let client = server.data_client(&app);
    let before = accepted(&server).await;
    let started = Instant::now();
    // Calls go on over the change of connections.
    while started.elapsed() < Duration::from_secs(5) {
        encrypts(&client).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let connections = accepted(&server).await - before;
    assert!(
        (2..10).contains(&connections),
        "{connections} in five seconds"
    );
}

/// Connections that the service has accepted so far.
async fn accepted(server: &Server) -> u64 {
    let mut stream = TcpStream::connect(server.metrics).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let name = "fieldkeep_connections_accepted_total ";
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().parse().unwrap()
}
