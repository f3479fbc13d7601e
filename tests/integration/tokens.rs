//! Callers with tokens of a real OpenID provider: the real binary, an issuer added by the command line, connections with and
//! without a client certificate.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fieldkeep_client::{BatchEncrypt, Client, ClientBuilder, EncryptItem, Error};
use futures_util::{StreamExt as _, stream};

use crate::{
    fixture::{Fixture, reason},
    oidc::{OpenBao, provider},
};

/// A running service, and a provider whose user `ada` is in the group `readers`, which may use the fields of `default`.
struct World {
    f: Fixture,
    bao: OpenBao,
    /// The provider's token of `ada`, for itself.
    ada: String,
    /// The name of `ada` here.
    entity: String,
}

impl World {
    fn start() -> Option<World> {
        let bao = provider()?;
        let (ada, entity) = bao.user();
        bao.make_key("ES256");
        for (role, audience, ttl) in [("other", "other", "10m"), ("brief", "fieldkeep", "2s")] {
            let path = format!("identity/oidc/role/{role}");
            let (audience, ttl) = (format!("client_id={audience}"), format!("ttl={ttl}"));
            bao.run("root", &["write", &path, "key=fk", &audience, &ttl]);
        }
        let f = Fixture::start();
        let grant = ["grant", "create", "readers", "--group", "--role", "data"];
        f.server.run(&f.admin_identity, &grant);
        Some(World {
            f,
            bao,
            ada,
            entity,
        })
    }

    fn url(&self) -> String {
        format!("{}/v1/identity/oidc", self.bao.address)
    }

    fn token(&self, role: &str) -> String {
        let path = format!("identity/oidc/token/{role}");
        self.bao.run(&self.ada, &["read", "-field=token", &path])
    }

    /// A file with a token.
    fn file(&self, name: &str, token: &str) -> PathBuf {
        let path = self.f.home.path().join(name);
        fs::write(&path, format!("{token}\n")).unwrap();
        path
    }

    fn add_issuer(&self, more: &[&str]) -> Output {
        let (url, root) = (self.url(), self.bao.ca());
        let arguments = [
            &["issuer", "add", "openbao", "--url", &url][..],
            &["--audience", "fieldkeep", "--tenant", "default"],
            &["--algorithm", "ES256", "--groups-claim", "groups"],
            &["--root", root.to_str().unwrap()],
            more,
        ];
        self.admin(&arguments.concat())
    }

    fn admin(&self, arguments: &[&str]) -> Output {
        let mut command = self.f.server.command(&self.f.admin_identity, arguments);
        command.output().unwrap()
    }

    /// `fieldkeep` without a certificate.
    fn with_token(&self, token: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new(fieldkeep_harness::binary());
        command
            .arg("--token-file")
            .arg(token)
            .args(arguments)
            .env("FIELDKEEP_ADDR", self.f.server.admin.to_string())
            .env("FIELDKEEP_CA", self.f.home.ca())
            .env_remove("FIELDKEEP_CERT")
            .env_remove("FIELDKEEP_KEY");
        command.output().unwrap()
    }

    /// A client of the data listener, without a certificate.
    fn builder(&self) -> ClientBuilder {
        Client::builder()
            .address(self.f.server.data.to_string())
            .ca_file(self.f.home.ca())
            .connections(1)
    }
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

async fn round_trip(client: &Client) -> Result<(), Error> {
    let field = || client.field("pii", "email");
    let sealed = field().encrypt(b"ada@example.org").await?;
    assert_eq!(field().decrypt(&sealed).await?, b"ada@example.org"[..]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_an_issuer_that_the_command_line_added() {
    let Some(world) = World::start() else { return };
    let good = world.token("fk");
    let file = world.file("token.jwt", &good);
    // Before there is an issuer.
    let client = world.builder().token(&good).build().unwrap();
    assert_eq!(reason(round_trip(&client).await), "UNAUTHENTICATED");

    let added = world.add_issuer(&[]);
    assert!(added.status.success(), "{}", text(&added));
    assert!(!text(&added).contains("warning"), "{}", text(&added));
    let again = world.add_issuer(&[]);
    assert_eq!(again.status.code(), Some(7), "{}", text(&again));
    assert!(text(&again).contains("--replace"), "{}", text(&again));

    let path = file.to_str().unwrap();
    let checked = world.admin(&["issuer", "check", "openbao", path]);
    let named = format!("tenants/default/identities/{}", world.entity);
    assert!(checked.status.success(), "{}", text(&checked));
    assert!(text(&checked).contains(&named), "{}", text(&checked));
    assert!(text(&checked).contains("tenants/default/groups/readers"));

    // Without a certificate, and on the connection of somebody of another tenant.
    round_trip(&client).await.unwrap();
    let other = &world.f.other_identity;
    let on_other = world
        .builder()
        .identity_files(&other.certificate, &other.key)
        .token_file(&file);
    round_trip(&on_other.build().unwrap()).await.unwrap();
    let items = stream::iter([EncryptItem::new("ada"), EncryptItem::new("bob")]);
    let batch = BatchEncrypt {
        key: "pii".into(),
        field: "email".into(),
        ..BatchEncrypt::default()
    };
    let results = client.encrypt_stream(batch, items);
    let results: Vec<_> = results.collect().await;
    assert_eq!(results.len(), 2);
    assert!(results.into_iter().all(|result| result.unwrap().is_ok()));
    let sealed = world.with_token(&file, &["encrypt", "--key", "pii", "--field", "email", "x"]);
    assert!(sealed.status.success(), "{}", text(&sealed));
    // The groups give what is granted to them, and no more.
    let refused = world.with_token(&file, &["key", "list"]);
    assert_eq!(refused.status.code(), Some(3), "{}", text(&refused));
    let doctor = world.with_token(&file, &["doctor"]);
    assert!(
        text(&doctor).contains("ok    connection"),
        "{}",
        text(&doctor)
    );
    assert!(
        text(&doctor).contains("ok    own token"),
        "{}",
        text(&doctor)
    );

    // For another service.
    let wrong = world.token("other");
    let client = world.builder().token(&wrong).build().unwrap();
    assert_eq!(reason(round_trip(&client).await), "UNAUTHENTICATED");
    let wrong_file = world.file("wrong.jwt", &wrong);
    let arguments = ["issuer", "check", "openbao", wrong_file.to_str().unwrap()];
    let checked = world.admin(&arguments);
    assert_eq!(checked.status.code(), Some(3), "{}", text(&checked));
    assert!(
        text(&checked).contains("none of the audiences"),
        "{}",
        text(&checked)
    );

    let trail = world.admin(&["audit", "list", "--limit", "100", "--format", "json"]);
    let trail = text(&trail);
    assert!(
        trail.contains("token-audience") && trail.contains(&named),
        "{trail}"
    );
    let log = world.f.server.stop();
    for token in [&good, &wrong] {
        let signature = token.rsplit_once('.').unwrap().1;
        assert!(!trail.contains(signature) && !log.contains(signature));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_ended_is_refused_until_its_file_has_a_new_one() {
    let Some(world) = World::start() else { return };
    let settings = format!(
        "url = \"{}\"\nroot_certificate = \"{}\"\naudiences = [\"fieldkeep\"]\nalgorithms = [\"ES256\"]\n\
         tenant = \"default\"\ngroups_claim = \"groups\"\nleeway_seconds = 0\n",
        world.url(),
        world.bao.ca().display()
    );
    let path = world.file("issuer.toml", &settings);
    let added = world.admin(&["issuer", "add", "openbao", "--file", path.to_str().unwrap()]);
    assert!(added.status.success(), "{}", text(&added));
    // Brief tokens list no groups, so the user himself is granted something.
    let grant = ["grant", "create", &world.entity, "--role", "data"];
    world.f.server.run(&world.f.admin_identity, &grant);

    let file = world.file("token", &world.token("brief"));
    let client = world.builder().token_file(&file).build().unwrap();
    round_trip(&client).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(reason(round_trip(&client).await), "UNAUTHENTICATED");
    // A new one is found when the old one is refused, within the same call.
    world.file("token", &world.token("fk"));
    round_trip(&client).await.unwrap();
    // One in memory stays what it was.
    let brief = world.token("brief");
    let fixed = world.builder().token(&brief).build().unwrap();
    round_trip(&fixed).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(reason(round_trip(&fixed).await), "UNAUTHENTICATED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_acknowledgement_of_a_removal_none_of_the_racing_calls_succeeds() {
    let Some(world) = World::start() else { return };
    let added = world.add_issuer(&[]);
    assert!(added.status.success(), "{}", text(&added));
    let good = world.token("fk");
    let acknowledged = Arc::new(AtomicBool::new(false));
    let [before, after, late] = [(); 3].map(|()| Arc::new(AtomicU64::new(0)));
    let callers = (0..16).map(|_| {
        let client = world.builder().token(&good).build().unwrap();
        let acknowledged = Arc::clone(&acknowledged);
        let (before, after, late) = (Arc::clone(&before), Arc::clone(&after), Arc::clone(&late));
        tokio::spawn(async move {
            while after.load(Ordering::Relaxed) < 10_000 {
                let began_after = acknowledged.load(Ordering::SeqCst);
                let sealed = client.field("pii", "email").encrypt(b"x").await;
                let succeeded = u64::from(sealed.is_ok());
                if began_after {
                    after.fetch_add(1, Ordering::Relaxed);
                    late.fetch_add(succeeded, Ordering::Relaxed);
                } else {
                    before.fetch_add(succeeded, Ordering::Relaxed);
                }
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let removed = world.admin(&["issuer", "remove", "openbao", "--yes"]);
    assert!(removed.status.success(), "{}", text(&removed));
    acknowledged.store(true, Ordering::SeqCst);
    for caller in callers {
        let ended = tokio::time::timeout(Duration::from_secs(60), caller).await;
        ended.expect("the callers end").unwrap();
    }
    assert!(before.load(Ordering::Relaxed) > 100, "they did call before");
    assert_eq!(late.load(Ordering::Relaxed), 0);
    // Nor does it come back with a restart.
    let client = world.builder().token(&good);
    let World { f, bao, .. } = world;
    let f = f.restart();
    let client = client.address(f.server.data.to_string()).build().unwrap();
    assert_eq!(reason(round_trip(&client).await), "UNAUTHENTICATED");
    drop(bao);
}
