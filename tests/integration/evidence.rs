//! The trail as an auditor has it: files, a public key, and what the command line makes of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fieldkeep_harness::binary;
use fieldkeep_proto::v1;
use serde_json::Value;

use crate::fixture::Fixture;

/// What an auditor gets: the verifier key, in a file.
pub(crate) fn key_file(f: &Fixture) -> PathBuf {
    let key = admin(f, &["audit", "checkpoint", "--verifier-key"]);
    let path = f.home.path().join("audit.vkey");
    fs::write(&path, key).unwrap();
    path
}

pub(crate) fn admin(f: &Fixture, arguments: &[&str]) -> String {
    f.server.run(&f.admin_identity, arguments)
}

/// Runs the command line without a service.
pub(crate) fn offline(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().unwrap()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test]
async fn a_trail_is_searched_shown_exported_and_summed_up() {
    let f = Fixture::start();
    let app = f.app();
    for field in ["customer.email", "customer.phone"] {
        let sealed = app.field("pii", field).encrypt(b"x").await.unwrap();
        app.field("pii", field).decrypt(&sealed).await.unwrap();
    }
    f.other()
        .field("pii", "customer.email")
        .decrypt(b"none")
        .await
        .unwrap_err();
    let list = |filter: &[&str]| -> Vec<Value> {
        let arguments: Vec<&str> = ["audit", "list", "--format", "json"]
            .iter()
            .chain(filter)
            .copied()
            .collect();
        serde_json::from_str(&admin(&f, &arguments)).unwrap()
    };
    let found = list(&[
        "--field",
        "customer.email",
        "--action",
        "decrypt",
        "--tenant",
        "default",
    ]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["principal"], "tenants/default/identities/app");
    assert_eq!(
        list(&["--field", "customer.*", "--action", "encrypt"]).len(),
        2
    );
    assert_eq!(list(&["--principal", "other/app-other"]).len(), 1);
    assert!(list(&["--principal", "other/app-other", "--until", "1h"]).is_empty());
    let all = list(&["--since", "1h"]).len();
    assert!(all > 5);

    let index = found[0]["index"].to_string();
    let shown = admin(&f, &["audit", "show", &index]);
    assert!(shown.contains("customer.email"), "{shown}");
    let tailed = admin(&f, &["audit", "tail", "--from", "0", "--no-follow"]);
    assert!(tailed.lines().count() > all, "{tailed}");
    let lines = admin(&f, &["audit", "export", "--action", "decrypt"]);
    assert_eq!(lines.lines().count(), 3);
    let events = admin(
        &f,
        &["audit", "export", "--as", "ocsf", "--action", "decrypt"],
    );
    let event: Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
    assert_eq!(event["class_uid"], 6003);
    let report = admin(&f, &["audit", "report", "--since", "1h"]);
    assert!(report.contains("customer.email"), "{report}");
    let page = admin(&f, &["audit", "report", "--since", "1h", "--as", "html"]);
    assert!(page.contains("<svg"));
}

#[tokio::test]
async fn a_record_is_proven_offline_and_by_another_program() {
    let f = Fixture::start();
    let key = key_file(&f);
    f.app().field("pii", "f").encrypt(b"x").await.unwrap();
    let proof = f.home.path().join("record.tlog-proof");
    admin(&f, &["audit", "prove", "3", "--out", text(&proof)]);
    let check = |proof: &Path| {
        offline(&[
            "audit",
            "verify",
            "--proof",
            text(proof),
            "--key",
            text(&key),
        ])
    };
    let checked = check(&proof);
    assert!(checked.status.success(), "{}", said(&checked));
    assert!(
        said(&checked).contains("record 3 is in the log"),
        "{}",
        said(&checked)
    );

    // The other program gets the record as bytes.
    let proven = f.admin().audit().prove(3, None).await.unwrap();
    let extra = proven
        .proof
        .lines()
        .nth(1)
        .unwrap()
        .strip_prefix("extra ")
        .unwrap();
    let record = f.home.path().join("record");
    fs::write(
        &record,
        data_encoding::BASE64.decode(extra.as_bytes()).unwrap(),
    )
    .unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/independent/verify_tlog.py");
    let by_script = |proof: &Path, record: &Path| {
        let key = fs::read_to_string(&key).unwrap();
        Command::new("python3")
            .arg(&script)
            .args([key.trim(), text(proof), text(record)])
            .output()
    };
    if let Ok(checked) = by_script(&proof, &record) {
        assert!(checked.status.success(), "{}", said(&checked));
        let mut other = fs::read(&record).unwrap();
        other[3] ^= 1;
        let path = f.home.path().join("other");
        fs::write(&path, other).unwrap();
        assert!(!by_script(&proof, &path).unwrap().status.success());
    } else {
        println!("skipped: the independent check, since there is no python3");
    }

    // A proof with another record in it proves nothing.
    let forged = fs::read_to_string(&proof)
        .unwrap()
        .replacen("extra C", "extra D", 1);
    let path = f.home.path().join("forged");
    fs::write(&path, forged).unwrap();
    assert!(!check(&path).status.success());
}

#[tokio::test]
async fn a_log_that_grew_is_told_from_another_one() {
    let f = Fixture::start();
    let earlier = f.home.path().join("earlier");
    fs::write(&earlier, admin(&f, &["audit", "checkpoint"])).unwrap();
    f.app().field("pii", "f").encrypt(b"x").await.unwrap();
    let f = f.restart();
    let grew = admin(&f, &["audit", "checkpoint", "--since", text(&earlier)]);
    assert!(grew.contains("the log grew from"), "{grew}");
    let other = Fixture::start();
    let refused = other
        .server
        .command(
            &other.admin_identity,
            ["audit", "checkpoint", "--since", text(&earlier)],
        )
        .output()
        .unwrap();
    assert!(!refused.status.success());
    assert!(
        said(&refused).contains("not one of this log"),
        "{}",
        said(&refused)
    );
}

#[tokio::test]
async fn a_trail_is_verified_live_and_a_cut_one_is_refused_and_can_be_accepted_on_record() {
    let f = Fixture::start();
    let key = key_file(&f);
    let data = f.home.path().join("data");
    let verify =
        |dir: &Path| offline(&["audit", "verify", "--dir", text(dir), "--key", text(&key)]);
    let live = verify(&data);
    assert!(live.status.success(), "{}", said(&live));
    let f = f.restart();
    let Fixture {
        home,
        server,
        app_identity,
        ..
    } = f;
    server.stop();
    // The trail of now, without the calls that come.
    let old = home.path().join("old");
    assert!(
        Command::new("cp")
            .arg("-a")
            .arg(data.join("audit"))
            .arg(&old)
            .status()
            .unwrap()
            .success()
    );
    let server = home.serve();
    for _ in 0..3 {
        server
            .data_client(&app_identity)
            .field("pii", "f")
            .encrypt(b"x")
            .await
            .unwrap();
    }
    server.stop();
    let whole = verify(&data);
    assert!(whole.status.success(), "{}", said(&whole));
    let checkpoint = fs::read(data.join("audit/checkpoint")).unwrap();
    fs::remove_dir_all(data.join("audit")).unwrap();
    fs::rename(&old, data.join("audit")).unwrap();
    fs::write(data.join("audit/checkpoint"), checkpoint).unwrap();

    let cut = verify(&data);
    assert!(!cut.status.success());
    assert!(said(&cut).contains("were cut off"), "{}", said(&cut));
    let refused = home.try_serve().err().unwrap();
    assert!(refused.contains("its end was cut off"), "{refused}");
    assert!(refused.contains("--accept-audit-loss"), "{refused}");

    let server = home.serve_with(&["--accept-audit-loss"]);
    let admin = server.admin_client(&home.admin());
    let filter = v1::AuditFilter {
        rpc: String::from("fieldkeep serve --accept-audit-loss"),
        ..v1::AuditFilter::default()
    };
    let accepted = admin.audit().find(filter).collect().await.unwrap();
    assert_eq!(accepted.len(), 1);
    let detail = &accepted[0].record.as_ref().unwrap().detail;
    assert!(detail.contains("cut off"), "{detail}");
    server.stop();
    // From then on it is a trail like any other.
    home.serve().stop();
    let again = verify(&data);
    assert!(again.status.success(), "{}", said(&again));
}

#[tokio::test]
async fn each_call_has_a_receipt_that_its_record_is_proven_by() {
    use fieldkeep_client::{BatchEncrypt, EncryptItem, Receipts};

    let f = Fixture::start();
    let key = key_file(&f);
    let receipts = Receipts::up_to(10);
    let app = f.app().with_receipts(&receipts);
    let sealed = app.field("pii", "f").encrypt(b"x").await.unwrap();
    app.field("pii", "f").decrypt(&sealed).await.unwrap();
    let batch = BatchEncrypt {
        key: "pii".into(),
        field: "f".into(),
        items: vec![EncryptItem::new(&b"x"[..]); 3],
        ..BatchEncrypt::default()
    };
    app.encrypt_batch(batch.clone()).await.unwrap();
    let items = futures_util::stream::iter(batch.items.clone());
    let template = BatchEncrypt {
        items: Vec::new(),
        ..batch
    };
    let mut results = app.encrypt_stream(template, items);
    while let Some(result) = results.next().await {
        result.unwrap().unwrap();
    }
    let taken = receipts.take();
    assert_eq!(taken.len(), 4);
    assert!(taken.windows(2).all(|pair| pair[0].index < pair[1].index));
    // A refused call has none.
    app.field("none", "f").encrypt(b"x").await.unwrap_err();
    assert!(receipts.take().is_empty());
    let proof = f.home.path().join("proof");
    for receipt in &taken {
        assert!(receipt.durable);
        let text_form = receipt.to_string();
        admin(&f, &["audit", "prove", &text_form, "--out", text(&proof)]);
        let check = |receipt: &str| {
            offline(&[
                "audit",
                "verify",
                "--proof",
                text(&proof),
                "--key",
                text(&key),
                "--receipt",
                receipt,
            ])
        };
        let checked = check(&text_form);
        assert!(checked.status.success(), "{}", said(&checked));
        let other = taken.iter().find(|other| *other != receipt).unwrap();
        assert!(!check(&other.to_string()).status.success());
    }
}

#[tokio::test]
async fn in_the_bounded_window_an_encrypt_alone_may_be_synced_after_its_reply() {
    use fieldkeep_client::Receipts;

    let home = fieldkeep_harness::Home::make();
    let config = fs::read_to_string(home.config()).unwrap();
    fs::write(
        home.config(),
        format!("{config}\n[audit]\nwindow_ms = 100\n"),
    )
    .unwrap();
    let server = home.serve();
    let admin = home.admin();
    server.run(&admin, &["key", "create", "pii"]);
    let folder = home.path().join("identities");
    let identity = server.issue(&admin, "default", "app", "data", &folder);
    let receipts = Receipts::up_to(100);
    let app = server.data_client(&identity).with_receipts(&receipts);
    let mut sealed = Vec::new();
    for _ in 0..20 {
        sealed.push(app.field("pii", "f").encrypt(b"x").await.unwrap());
    }
    let encrypted = receipts.take();
    assert!(
        encrypted.iter().any(|receipt| !receipt.durable),
        "of twenty in a row one at least is not synced yet when its reply leaves"
    );
    app.field("pii", "f").decrypt(&sealed[0]).await.unwrap();
    assert!(receipts.take()[0].durable);
    // What was only written outlives the process.
    server.kill();
    let server = home.serve();
    for receipt in encrypted {
        let proven = server
            .admin_client(&admin)
            .audit()
            .prove(receipt.index, Some(*receipt.leaf.as_bytes()))
            .await;
        assert!(proven.is_ok(), "{proven:?}");
    }
}

#[tokio::test]
async fn checkpoints_go_to_the_file_and_the_command() {
    let home = fieldkeep_harness::Home::make();
    let (file, by_command) = (home.path().join("sent"), home.path().join("told"));
    let config = fs::read_to_string(home.config()).unwrap();
    let sinks = format!(
        "{config}\n[audit]\ncheckpoint_file = \"{}\"\ncheckpoint_command = [\"sh\", \"-c\", \"cat > {}; env >> {}\"]\n",
        text(&file),
        text(&by_command),
        text(&by_command),
    );
    fs::write(home.config(), sinks).unwrap();
    let server = home.serve();
    let admin = home.admin();
    server.run(&admin, &["key", "create", "pii"]);
    let key = server.run(&admin, &["audit", "checkpoint", "--verifier-key"]);
    server.stop();
    // The end sends the last one, which is over all that was recorded.
    let keys = [key.trim().parse().unwrap()];
    let newest = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let origin = |line: &&str| line.starts_with("fieldkeep/audit/");
        let start = lines.iter().rposition(origin).unwrap();
        let note = format!("{}\n", lines[start..start + 5].join("\n"));
        fieldkeep_tlog::checkpoint::Checkpoint::open(&note, &keys)
            .unwrap()
            .head()
            .size
    };
    let kept = fs::read(home.path().join("data/audit/checkpoint")).unwrap();
    let last = kept.chunks(512).map(newest).max().unwrap();
    assert_eq!(newest(&fs::read(&file).unwrap()), last);
    let told = fs::read(&by_command).unwrap();
    assert_eq!(newest(&told), last);
    // The service's environment is not the command's.
    assert!(!String::from_utf8_lossy(&told).contains("HOME="));
}

#[tokio::test]
async fn a_followed_tail_gives_what_comes_and_ends_with_the_right_and_the_service() {
    let f = Fixture::start();
    let folder = f.home.path().join("identities");
    let issue = [
        "cert",
        "issue",
        "watcher",
        "--grant",
        "auditor",
        "--all-tenants",
        "--out",
        text(&folder),
    ];
    admin(&f, &issue);
    let auditor = f.home.identity("watcher");
    let follow = v1::TailRecordsRequest {
        filter: Some(v1::AuditFilter {
            action: String::from("encrypt"),
            ..v1::AuditFilter::default()
        }),
        follow: true,
        ..v1::TailRecordsRequest::default()
    };
    let watcher = f.server.admin_client(&auditor);
    let mut tail = watcher.audit().tail(follow.clone()).await.unwrap();
    f.app().field("pii", "f").encrypt(b"x").await.unwrap();
    let step = tail.next_step().await.unwrap().unwrap();
    assert_eq!(step.entries.len(), 1);
    assert_eq!(step.next_index, step.entries[0].index + 1);
    // From a revocation on, nothing more comes.
    let grants = f.admin().grants().list("", "").collect().await.unwrap();
    let of_watcher = grants
        .iter()
        .find(|grant| grant.principal.ends_with("/watcher"))
        .unwrap();
    f.admin().grants().revoke(&of_watcher.name).await.unwrap();
    f.app().field("pii", "f").encrypt(b"y").await.unwrap();
    let refused = loop {
        match tail.next_step().await {
            Ok(Some(step)) => assert!(step.entries.is_empty(), "{step:?}"),
            Ok(None) => panic!("it ended without a refusal"),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.reason(), Some("PERMISSION_DENIED"), "{refused:?}");
    // The end of the service is the end of a tail.
    let last = f.admin();
    let mut tail = last.audit().tail(follow).await.unwrap();
    let stopping = tokio::task::spawn_blocking(move || f.server.stop());
    while let Ok(Some(step)) = tail.next_step().await {
        assert!(step.entries.is_empty());
    }
    let log = stopping.await.unwrap();
    assert!(!log.contains("ERROR"), "{log}");
}
