//! Secrets are given to the command line wherever it takes one, and everything that the service and the commands wrote is
//! searched: the data directory, the log, the metrics, what failing commands say.

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio};

use fieldkeep_harness::{Home, Identity, Server, binary, canary::Canaries};

use crate::otlp::scrape;

/// Runs a command with `input`; what it said, and on standard output.
fn run(
    server: &Server,
    identity: &Identity,
    arguments: &[&str],
    variables: &[(&str, &str)],
    input: &str,
) -> (Vec<u8>, String) {
    let mut child = server
        .command(identity, arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that fails at once may not read it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    (output.stderr, String::from_utf8(output.stdout).unwrap())
}

/// A directory whose root key is a passphrase.
fn home(passphrase: &str, outside: &Path) -> Home {
    let file = outside.join("passphrase");
    fs::write(&file, passphrase).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let file = file.to_str().unwrap();
    Home::make_with(&["--root", "passphrase", "--passphrase-file", file])
}

#[test]
fn no_secret_of_a_command_is_written_anywhere() {
    let outside = tempfile::tempdir().unwrap();
    let mut canaries = Canaries::default();
    let home = home(&canaries.text("passphrase"), outside.path());
    let server = home.serve();
    let admin = home.admin();
    // What the trail has of each item is more than without it.
    let create = ["key", "create", "pii", "--audit-items", "hashes"];
    server.run(&admin, &create);
    let app = server.issue(
        &admin,
        "default",
        "app",
        "data",
        &home.path().join("identities"),
    );
    let mut said = Vec::new();
    let mut call = |identity: &Identity, arguments: &[&str], variables: &[(&str, &str)], input| {
        let (errors, output) = run(&server, identity, arguments, variables, input);
        said.extend(errors);
        output
    };

    let (plain, argued) = (canaries.text("plaintext"), canaries.text("argument"));
    let id = format!("id={}", canaries.text("context value"));
    let wrong = format!("id={}", canaries.text("another context value"));
    let field = ["--field", "email", "--context", &id];
    let other = ["--field", "email", "--context", &wrong];
    let with = |name: &'static str, field: &[&str], rest: &[&str]| -> Vec<String> {
        let parts = [&[name][..], field, rest].concat();
        parts.into_iter().map(str::to_owned).collect()
    };
    fn refs(arguments: &[String]) -> Vec<&str> {
        arguments.iter().map(String::as_str).collect()
    }
    let encrypt = with("encrypt", &field, &["--key", "pii"]);
    let sealed = call(&app, &refs(&encrypt), &[], &plain);
    assert!(sealed.starts_with("fk1:"));
    let argument = with("encrypt", &field, &["--key", "pii", &argued]);
    assert!(call(&app, &refs(&argument), &[], "").starts_with("fk1:"));
    // Refused: another context, another caller, another key, no ciphertext.
    for (identity, arguments, input) in [
        (&app, with("decrypt", &other, &[]), &sealed),
        (&app, with("reencrypt", &other, &[]), &sealed),
        (&admin, with("decrypt", &field, &[]), &sealed),
        (&admin, encrypt.clone(), &plain),
        (&app, with("encrypt", &field, &["--key", "absent"]), &plain),
        (&app, with("decrypt", &field, &[]), &plain),
    ] {
        assert_eq!(
            call(identity, &refs(&arguments), &[], input),
            "",
            "{arguments:?}"
        );
    }

    let search = [
        "audit", "list", "--key", "pii", "--field", "email", "--item",
    ];
    let found = call(&admin, &[&search[..], &[id.as_str()]].concat(), &[], "");
    assert!(found.contains("encrypt"), "{found}");
    let tried = call(&admin, &[&search[..], &[wrong.as_str()]].concat(), &[], "");
    assert!(tried.contains("decryption-failed"), "{tried}");

    let key = call(&admin, &["api-key", "create", "app"], &[], "");
    let key = key.trim();
    canaries.plant("API key", &key.as_bytes()[20..60]);
    let mistyped = format!("{}x", &key[..key.len() - 1]);
    for key in [key, &mistyped] {
        let variables = [
            ("FIELDKEEP_API_KEY", key),
            ("FIELDKEEP_CERT", ""),
            ("FIELDKEEP_KEY", ""),
        ];
        call(&app, &refs(&encrypt), &variables, &plain);
    }
    let create = ["cert", "join-token", "create", "worker", "--format", "json"];
    let made: serde_json::Value = serde_json::from_str(&call(&admin, &create, &[], "")).unwrap();
    let token = made["token"].as_str().unwrap();
    canaries.plant("join token", &token.as_bytes()[21..61]);
    let ca = home.ca();
    for out in ["first", "second"] {
        let output = std::process::Command::new(binary())
            .args(["join", "--addr", &server.data.to_string(), "--ca"])
            .arg(&ca)
            .arg("--out")
            .arg(outside.path().join(out))
            .env("FIELDKEEP_JOIN_TOKEN", token)
            .output()
            .unwrap();
        assert_eq!(output.status.success(), out == "first");
        said.extend(output.stderr);
    }

    let page = scrape(server.metrics);
    let log = server.stop();
    let found = [
        canaries.found_below(&home.path()),
        canaries.found_in(log.as_bytes()),
        canaries.found_in(page.as_bytes()),
        canaries.found_in(&said),
    ];
    assert!(found.concat().is_empty(), "{found:#?}");
}
