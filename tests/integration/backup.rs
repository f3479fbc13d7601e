//! Back-up and restore, with the commands of docs/operations.md as they stand there.

use std::{fs, path::Path, process::Command};

use crate::fixture::{Fixture, reason};

/// The lines of the manual's shell blocks.
fn commands() -> Vec<String> {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let manual = fs::read_to_string(manual).unwrap();
    manual
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```"))
        .flat_map(|(block, _)| block.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// Runs the one command of the manual that begins like this, on `home` in place of the installed directory.
fn run(beginning: &str, home: &Path) {
    let mut found = commands();
    found.retain(|line| line.starts_with(beginning));
    let [command] = &found[..] else {
        panic!("not one command begins with `{beginning}`: {found:?}");
    };
    let command = command.replace("/var/lib/fieldkeep", home.to_str().unwrap());
    let work = home.parent().unwrap();
    let status = Command::new("sh")
        .arg("-ec")
        .arg(&command)
        .current_dir(work)
        .status();
    assert!(status.unwrap().success(), "{command}");
}

const BACK_UP: &str = "tar -C /var/lib/fieldkeep -czf";
const RESTORE: [&str; 2] = [
    "mv /var/lib/fieldkeep/data",
    "tar -C /var/lib/fieldkeep -xzpf",
];

#[tokio::test]
async fn a_backup_brings_back_everything_that_was_acknowledged_before_it() {
    let f = Fixture::start();
    let before = f
        .app()
        .field("pii", "f")
        .context("id", "1")
        .encrypt(b"kept")
        .await
        .unwrap();
    let Fixture {
        home,
        server,
        admin_identity,
        app_identity,
        ..
    } = f;
    server.stop();
    run(BACK_UP, &home.path());
    let server = home.serve();
    server.run(&admin_identity, &["key", "rotate", "pii"]);
    let field = server.data_client(&app_identity);
    let later = field.field("pii", "f").encrypt(b"later").await.unwrap();
    server.stop();
    // The disk is lost, and the index is not needed.
    for command in RESTORE {
        run(command, &home.path());
    }
    fs::remove_dir_all(home.path().join("data/sled")).unwrap();
    let server = home.serve();
    let client = server.data_client(&app_identity);
    let field = client.field("pii", "f");
    assert_eq!(
        field
            .clone()
            .context("id", "1")
            .decrypt(&before)
            .await
            .unwrap(),
        b"kept"
    );
    assert_eq!(reason(field.decrypt(&later).await), "DECRYPTION_FAILED");
    let status = server.run(&admin_identity, &["status"]);
    assert!(status.contains("sled"), "{status}");
    server.stop();
}

#[tokio::test]
async fn a_backup_starts_elsewhere_with_the_root_key_alone() {
    let f = Fixture::start();
    let sealed = f.app().field("pii", "f").encrypt(b"moved").await.unwrap();
    let Fixture {
        home,
        server,
        app_identity,
        ..
    } = f;
    server.stop();
    run(BACK_UP, &home.path());
    let old = home.path();
    let kept = old.parent().unwrap().join("kept");
    fs::rename(&old, &kept).unwrap();
    fs::create_dir(&old).unwrap();
    run(RESTORE[1], &old);
    let refused = home.try_serve().err().unwrap();
    assert!(refused.contains("root.key"), "{refused}");
    fs::copy(kept.join("root.key"), old.join("root.key")).unwrap();
    fs::rename(kept.join("identities"), old.join("identities")).unwrap();
    let server = home.serve();
    let opened = server
        .data_client(&app_identity)
        .field("pii", "f")
        .decrypt(&sealed)
        .await;
    assert_eq!(opened.unwrap(), b"moved");
    server.stop();
}

#[test]
fn the_servers_certificate_is_renewed_as_the_manual_says() {
    let home = fieldkeep_harness::Home::make();
    let admin = home.admin();
    let mut renewal = commands();
    renewal.retain(|line| line.starts_with("fieldkeep cert server "));
    let arguments: Vec<&str> = renewal[0].split(' ').skip(1).collect();
    let renew = || {
        let output = Command::new(fieldkeep_harness::binary())
            .args(&arguments)
            .current_dir(home.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let old = fs::read(home.path().join("tls/server.pem")).unwrap();
    let server = home.serve();
    let (code, said) = renew();
    assert_eq!(code, Some(7), "{said}");
    assert!(said.contains("stop it first"), "{said}");
    server.stop();
    assert_eq!(renew().0, Some(0));
    assert_ne!(fs::read(home.path().join("tls/server.pem")).unwrap(), old);
    let server = home.serve();
    server.run(&admin, &["status"]);
    server.stop();
}
