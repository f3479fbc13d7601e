//! The verbs of the command line against a running service.

use std::{fs, io::Write as _, process::Stdio};

use fieldkeep_harness::Identity;

use crate::fixture::Fixture;

/// Runs a verb; exit code, standard output, standard error.
fn run(
    f: &Fixture,
    identity: &Identity,
    arguments: &[&str],
    input: &[u8],
) -> (i32, Vec<u8>, String) {
    let mut child = f
        .server
        .command(identity, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    (
        output.status.code().unwrap(),
        output.stdout,
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn a_value_goes_through_encrypt_reencrypt_and_decrypt() {
    let f = Fixture::start();
    let value = "grüße\n with \"quotes\"\0".as_bytes();
    let field = ["--field", "customer.email", "--context", "id=42"];
    let verb = |name: &'static str, more: &[&'static str]| [&[name][..], &field, more].concat();
    let (code, sealed, said) = run(
        &f,
        &f.app_identity,
        &verb("encrypt", &["--key", "pii"]),
        value,
    );
    assert_eq!(code, 0, "{said}");
    assert!(sealed.starts_with(b"fk1:"));
    let (code, opened, said) = run(&f, &f.app_identity, &verb("decrypt", &[]), &sealed);
    assert_eq!((code, opened.as_slice()), (0, value), "{said}");

    f.server.run(&f.admin_identity, &["key", "rotate", "pii"]);
    let (code, moved, said) = run(&f, &f.app_identity, &verb("reencrypt", &[]), &sealed);
    assert_eq!(code, 0, "{said}");
    assert_ne!(moved, sealed);
    let (code, opened, _) = run(&f, &f.app_identity, &verb("decrypt", &[]), &moved);
    assert_eq!((code, opened.as_slice()), (0, value));
}

#[test]
fn exit_codes_say_what_kind_of_failure() {
    let f = Fixture::start();
    let (_, sealed, _) = run(
        &f,
        &f.app_identity,
        &["encrypt", "--key", "pii", "--field", "f"],
        b"x",
    );
    let cases: [(&Identity, &[&str], &[u8], i32); 8] = [
        (&f.admin_identity, &["decrypt", "--field", "f"], &sealed, 3),
        (&f.app_identity, &["key", "create", "x"], b"", 3),
        (&f.app_identity, &["decrypt", "--field", "g"], &sealed, 5),
        (
            &f.app_identity,
            &["decrypt", "--field", "f"],
            b"nonsense",
            5,
        ),
        (&f.admin_identity, &["key", "show", "none"], b"", 4),
        (&f.admin_identity, &["key", "create", "pii"], b"", 7),
        (&f.admin_identity, &["key", "create", "Not A Name"], b"", 5),
        (&f.admin_identity, &["key", "no-such-verb"], b"", 2),
    ];
    for (identity, arguments, input, expected) in cases {
        let (code, output, said) = run(&f, identity, arguments, input);
        assert_eq!(code, expected, "{arguments:?}: {said}");
        assert!(
            output.is_empty() && said.contains("error"),
            "{arguments:?}: {said}"
        );
        assert!(!said.contains("panicked"), "{said}");
    }
    let mut unreachable = f.server.command(&f.admin_identity, ["status"]);
    let output = unreachable
        .env("FIELDKEEP_ADDR", "127.0.0.1:1")
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(6),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn what_changes_a_key_says_its_next_rotation() {
    let f = Fixture::start();
    let key = |arguments: &[&str]| -> serde_json::Value {
        let arguments = [&["--format", "json", "key"], arguments].concat();
        serde_json::from_str(&f.server.run(&f.admin_identity, &arguments)).unwrap()
    };
    for arguments in [
        &["set-rotation", "pii", "--rotate-every", "90d"][..],
        &["rotate", "pii"],
        &["create", "pii-2", "--rotate-every", "90d"],
    ] {
        let said = key(arguments);
        let next = &said["next_rotation"];
        assert_eq!(next["cause"], "period", "{arguments:?}: {said}");
        let shown = key(&["show", said["name"].as_str().unwrap()]);
        assert_eq!(*next, shown["next_rotation"], "{arguments:?}");
    }
    let said = key(&["set-rotation", "pii", "--never"]);
    assert!(said["next_rotation"].is_null(), "{said}");
}

#[test]
fn free_space_is_bytes_for_programs_and_has_a_unit_for_people() {
    let f = Fixture::start();
    let shown = f.server.run(&f.admin_identity, &["status"]);
    let line = shown
        .lines()
        .find(|line| line.starts_with("free space "))
        .unwrap();
    assert!(line.ends_with('B') && line.contains(' '), "{line}");
    let arguments = ["status", "--format", "json"];
    let said: serde_json::Value =
        serde_json::from_str(&f.server.run(&f.admin_identity, &arguments)).unwrap();
    assert!(said["free_bytes"].is_u64(), "{said}");
    assert!(said["free_space"].is_null(), "{said}");
}

#[test]
fn lists_are_json_when_asked() {
    let f = Fixture::start();
    for arguments in [
        &["key", "list"][..],
        &["key", "show", "pii"],
        &["tenant", "list"],
        &["grant", "list"],
        &["audit", "list"],
        &["status"],
    ] {
        let text = f.server.run(
            &f.admin_identity,
            &[&["--format", "json"], arguments].concat(),
        );
        let value: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {text}"));
        assert!(value.is_array() || value.is_object());
        let table = f.server.run(&f.admin_identity, arguments);
        assert!(
            !table.is_empty() && !table.contains('\u{1b}'),
            "no colours in a pipe: {table}"
        );
    }
}

#[test]
fn a_csv_file_comes_back_byte_for_byte() {
    let f = Fixture::start();
    let folder = f.home.path();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let mut csv = "id,name,email,notes\r\n".to_owned();
    for number in 0..3_000 {
        let notes = match number % 5 {
            0 => String::new(),
            1 => "\"said \"\"call back\"\",\r\nthen hung up\"".to_owned(),
            2 => "fk1:not-a-ciphertext".to_owned(),
            3 => "  Ελληνικά 🔒 ".to_owned(),
            _ => "NULL".to_owned(),
        };
        csv.push_str(&format!(
            "{number},N{number},person{number}@example.com,{notes}\r\n"
        ));
    }
    fs::write(path("in.csv"), &csv).unwrap();
    let data = |verb: &str, input: &str, output: &str, key: &str| {
        let (email, notes) = (
            format!("email={key}:customer.email"),
            format!("notes={key}:customer.notes"),
        );
        let arguments = [
            "data",
            verb,
            "--input",
            &path(input),
            "--output",
            &path(output),
            "--column",
            &email,
            "--column",
            &notes,
            "--context",
            "id",
        ];
        run(&f, &f.app_identity, &arguments, b"")
    };
    assert_eq!(data("encrypt", "in.csv", "sealed.csv", "pii").0, 0);
    let sealed = fs::read_to_string(path("sealed.csv")).unwrap();
    assert!(
        !sealed.contains("@example.com")
            && !sealed.contains("call back")
            && sealed.contains(",N7,")
    );

    // Again: what is encrypted stays as it is.
    assert_eq!(data("encrypt", "sealed.csv", "twice.csv", "pii").0, 0);
    assert!(fs::read_to_string(path("twice.csv")).unwrap() == sealed);

    assert_eq!(data("decrypt", "sealed.csv", "opened.csv", "pii").0, 0);
    assert!(fs::read_to_string(path("opened.csv")).unwrap() == csv);

    // Rows swapped: nothing is written, and the row is named.
    let swapped = sealed.replacen("\r\n7,", "\r\n7000,", 1);
    fs::write(path("swapped.csv"), swapped).unwrap();
    let (code, _, said) = data("decrypt", "swapped.csv", "never.csv", "pii");
    assert_eq!(code, 5, "{said}");
    assert!(
        said.contains("email") && !folder.join("never.csv").exists(),
        "{said}"
    );
    // An existing output is not overwritten.
    assert_ne!(data("decrypt", "sealed.csv", "opened.csv", "pii").0, 0);
}

#[test]
fn an_expired_admin_gets_back_in_with_the_service_stopped() {
    let f = Fixture::start();
    let Fixture { home, server, .. } = f;
    let config = home.config();
    let out = home.path().join("again");
    let arguments = [
        "cert",
        "issue",
        "admin",
        "--tenant",
        "default",
        "--out",
        out.to_str().unwrap(),
        "--config",
        config.to_str().unwrap(),
    ];
    let refused = server.command(&home.admin(), arguments).output().unwrap();
    assert!(!refused.status.success(), "the service is running");
    server.stop();
    let made = std::process::Command::new(fieldkeep_harness::binary())
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    // Each is told the address of its listener: the ports are those of the file.
    let text = fs::read_to_string(&config).unwrap();
    let fixed = text.replacen("127.0.0.1:0", "127.0.0.1:17420", 1);
    let fixed = fixed.replacen("127.0.0.1:0", "127.0.0.1:17421", 1);
    fs::write(&config, fixed).unwrap();
    for (name, port) in [("admin", 17_421), ("app", 17_420)] {
        let mut command = std::process::Command::new(fieldkeep_harness::binary());
        let arguments = arguments.map(|word| if word == "admin" { name } else { word });
        let made = command.args(arguments).arg("--force").output().unwrap();
        let said = String::from_utf8(made.stdout).unwrap();
        let line = format!("export FIELDKEEP_ADDR=https://127.0.0.1:{port}\n");
        assert!(said.contains(&line), "{name}: {said}");
    }
    fs::write(&config, text).unwrap();
    let server = home.serve();
    let again = Identity {
        certificate: out.join("admin.pem"),
        key: out.join("admin.key"),
    };
    server.run(&again, &["key", "list"]);
}

#[test]
fn what_cuts_something_off_wants_a_yes_and_a_dry_run_changes_nothing() {
    let f = Fixture::start();
    let admin = |arguments: &[&str]| run(&f, &f.admin_identity, arguments, b"y\n");
    let encrypts = || {
        let arguments = ["encrypt", "--key", "pii", "--field", "f"];
        run(&f, &f.app_identity, &arguments, b"x").0
    };
    let listed = f
        .server
        .run(&f.admin_identity, &["--format", "json", "grant", "list"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let of_app = |grant: &&serde_json::Value| grant["principal"] == crate::fixture::APP;
    let grant = listed.as_array().unwrap().iter().find(of_app).unwrap()["name"].clone();
    let grant = grant.as_str().unwrap();
    for (arguments, refused) in [
        (&["key", "disable", "pii"][..], 7),
        (&["grant", "revoke", grant], 3),
    ] {
        let (code, _, said) = admin(arguments);
        assert!(code == 2 && said.contains("give --yes"), "{said}");
        let (code, said, _) = admin(&[arguments, &["--dry-run"]].concat());
        let said = String::from_utf8(said).unwrap();
        assert!(code == 0 && said.contains("Nothing was changed"), "{said}");
        assert_eq!(encrypts(), 0);
        let (code, _, said) = admin(&[arguments, &["--yes"]].concat());
        assert_eq!(code, 0, "{said}");
        assert_eq!(encrypts(), refused);
        f.server.run(&f.admin_identity, &["key", "enable", "pii"]);
    }
}
