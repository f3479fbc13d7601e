//! Directories and configurations that are missing, damaged, tampered with, in use or full.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use fieldkeep_harness::{Home, Server, binary};
use rustix::process::Signal;

use crate::fixture::{APP, Fixture, revoke_all};

/// Starts the service and expects that it refuses, and says why in these words.
fn refuses(home: &Home, words: &[&str]) {
    match home.try_serve() {
        Ok(_) => panic!("it started; expected a refusal with {words:?}"),
        Err(said) => {
            for word in words {
                assert!(said.contains(word), "`{word}` is not in: {said}");
            }
            assert!(!said.contains("panicked"), "{said}");
        }
    }
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "`{from}` is not in {text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn a_configuration_that_is_wrong_is_named() {
    let home = Home::make();
    let original = fs::read_to_string(home.config()).unwrap();
    for (change, words) in [
        (
            original.replacen("data_dir", "data_dri", 1),
            vec!["data_dri", "fieldkeep.toml"],
        ),
        (format!("surprise = 1\n{original}"), vec!["surprise"]),
        (format!("{original}\n[extra]\nx = 1\n"), vec!["extra"]),
        ("not toml at all [".to_owned(), vec!["fieldkeep.toml"]),
        (String::new(), vec!["fieldkeep.toml"]),
    ] {
        fs::write(home.config(), change).unwrap();
        refuses(&home, &words);
    }
    fs::remove_file(home.config()).unwrap();
    refuses(&home, &["fieldkeep.toml"]);
}

#[test]
fn a_root_key_that_others_can_read_is_refused() {
    let home = Home::make();
    let key = home.path().join("root.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    refuses(&home, &["chmod 600", "root.key"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    home.serve().stop();
    fs::write(&key, format!("{}\n", "0".repeat(64))).unwrap();
    refuses(&home, &["key file is not the one"]);
    fs::remove_file(&key).unwrap();
    refuses(&home, &["root.key"]);
}

#[test]
fn a_wrong_passphrase_is_told_from_damage() {
    let folder = tempfile::TempDir::new().unwrap();
    let passphrase = folder.path().join("passphrase");
    fs::write(&passphrase, "correct horse battery staple\n").unwrap();
    fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o600)).unwrap();
    let home = Home::make_with(&[
        "--root",
        "passphrase",
        "--passphrase-file",
        passphrase.to_str().unwrap(),
    ]);
    home.serve().stop();
    fs::write(&passphrase, "incorrect horse battery staple\n").unwrap();
    refuses(&home, &["passphrase"]);
    fs::write(&passphrase, "correct horse battery staple\n").unwrap();
    home.serve().stop();
}

#[test]
fn init_never_touches_a_directory_that_holds_something() {
    let home = Home::make();
    let before = fs::read(home.path().join("root.key")).unwrap();
    let output = Command::new(binary())
        .arg("init")
        .arg("--dir")
        .arg(home.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("empty") || said.contains("exists"), "{said}");
    assert_eq!(fs::read(home.path().join("root.key")).unwrap(), before);
}

#[test]
fn a_second_process_on_the_same_directory_is_refused() {
    let home = Home::make();
    let first = home.serve();
    refuses(&home, &["in use"]);
    first.stop();
    home.serve().stop();
}

#[test]
fn a_taken_port_is_named() {
    let home = Home::make();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    edit(&home.config(), "127.0.0.1:0", &address);
    refuses(&home, &[&address]);
}

#[test]
fn missing_parts_of_the_data_directory_are_named() {
    for part in ["FORMAT", "journal", "audit"] {
        let home = Home::make();
        home.serve().stop();
        let path = find(&home.path().join("data"), part).expect(part);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        refuses(&home, &[part]);
    }
    let home = Home::make();
    fs::remove_dir_all(home.path().join("data")).unwrap();
    refuses(&home, &["data"]);
}

#[tokio::test]
async fn the_index_is_rebuilt_when_it_is_gone_or_damaged() {
    let f = Fixture::start();
    let sealed = f.app().field("pii", "f").encrypt(b"x").await.unwrap();
    let Fixture {
        home,
        server,
        app_identity,
        ..
    } = f;
    server.stop();
    for damage in ["gone", "garbage"] {
        let index = find(&home.path().join("data"), "sled").expect("the index");
        if damage == "gone" {
            fs::remove_dir_all(&index).unwrap();
        } else {
            fs::write(index.join("db"), vec![0xa5; 200_000]).unwrap();
        }
        let server = home.serve();
        let opened = server
            .data_client(&app_identity)
            .field("pii", "f")
            .decrypt(&sealed)
            .await;
        assert_eq!(opened.unwrap(), b"x", "{damage}");
        server.stop();
    }
}

#[test]
fn a_damaged_journal_is_reported_and_nothing_is_repaired_silently() {
    for journal in ["journal", "audit"] {
        let home = Home::make();
        let server = home.serve();
        for number in 0..20 {
            server.run(&home.admin(), &["key", "create", &format!("k{number}")]);
        }
        server.stop();
        let folder = find(&home.path().join("data"), journal).expect(journal);
        let segment = newest_segment(&folder);
        let mut bytes = fs::read(&segment).unwrap();
        let end = bytes.iter().rposition(|b| *b != 0).unwrap();
        bytes[end / 2] ^= 1;
        fs::write(&segment, bytes).unwrap();
        refuses(&home, &["damage"]);
    }
}

#[tokio::test]
async fn a_store_rolled_back_behind_the_trail_is_found() {
    let f = Fixture::start().restart();
    let Fixture {
        home,
        server,
        admin_identity,
        ..
    } = f;
    server.stop();
    let data = home.path().join("data");
    let copy = home.path().join("copy");
    copy_all(&data, &copy);
    let server = home.serve();
    revoke_all(&server.admin_client(&admin_identity), APP).await;
    server.stop();
    // Everything but the audit trail goes back to when `app` still had its rights.
    for entry in fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() == "audit" {
            continue;
        }
        let old = copy.join(path.file_name().unwrap());
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
            copy_all(&old, &path);
        } else {
            fs::copy(&old, &path).unwrap();
        }
    }
    refuses(&home, &["grant", "audit"]);
}

fn copy_all(from: &Path, to: &Path) {
    assert!(
        Command::new("cp")
            .arg("-a")
            .arg(from)
            .arg(to)
            .status()
            .unwrap()
            .success()
    );
}

fn newest_segment(folder: &Path) -> std::path::PathBuf {
    let mut segments: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "seg"))
        .collect();
    segments.sort();
    // The newest that has been written to: the one after it may only be prepared.
    segments
        .into_iter()
        .rev()
        .find(|p| fs::read(p).unwrap()[4096..].iter().any(|b| *b != 0))
        .expect("a written segment")
}

fn find(folder: &Path, name: &str) -> Option<std::path::PathBuf> {
    fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find_map(|path| {
            if path.file_name()? == name {
                Some(path)
            } else if path.is_dir() {
                find(&path, name)
            } else {
                None
            }
        })
}

#[test]
fn a_full_disk_loses_nothing() {
    let mount = tempfile::TempDir::new().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=192m", "tmpfs"])
        .arg(mount.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: mounting a tmpfs needs root");
        return;
    }
    let result = std::panic::catch_unwind(|| fill(mount.path()));
    Command::new("umount")
        .arg("-l")
        .arg(mount.path())
        .status()
        .unwrap();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn fill(mount: &Path) {
    let home = Home::make_in(mount);
    let server = home.serve();
    let admin = home.admin();
    let filler = mount.join("filler");
    server.run(&admin, &["key", "create", "before"]);
    // Everything that is left, to the last byte.
    let _ = Command::new("dd")
        .args([
            "if=/dev/zero",
            "bs=64k",
            &format!("of={}", filler.display()),
        ])
        .output();
    let mut acknowledged = Vec::new();
    let mut refusals = 0;
    // Until both journals have used up what they had prepared.
    for number in 0..200_000 {
        match create_many(&server, &home, number) {
            Ok(names) => acknowledged.extend(names),
            Err(said) => {
                assert!(said.contains("space") || said.contains("audit"), "{said}");
                refusals += 1;
                break;
            }
        }
    }
    assert!(refusals > 0, "the disk was full");
    fs::remove_file(&filler).unwrap();
    server.signal(Signal::TERM);
    server.wait();
    let server = home.serve();
    let listed = server.run(&admin, &["--format", "json", "key", "list"]);
    for name in &acknowledged {
        assert!(
            listed.contains(&format!("\"tenants/default/keys/{name}\"")),
            "{name} was acknowledged"
        );
    }
    server.run(&admin, &["key", "create", "after"]);
    server.stop();
}

/// Creates keys one after the other on one connection; those acknowledged, or what the first refusal said.
fn create_many(server: &Server, home: &Home, from: u32) -> Result<Vec<String>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = server.admin_client(&home.admin());
        let mut names = Vec::new();
        for number in 0..2_000 {
            let name = format!("full-{from}-{number}");
            match client.keys().create(&name).await {
                Ok(_) => names.push(name),
                Err(error) if names.is_empty() => {
                    return Err(format!("{} {error:?}", error.message()));
                }
                Err(_) => break,
            }
        }
        Ok(names)
    })
}
