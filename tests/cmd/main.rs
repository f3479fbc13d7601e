//! The command line as data: every `*.toml` here holds cases (arguments, and what must come of them), every
//! `help/*.txt` is the help of one verb. No service runs; what needs one is in `tests/integration`.
//!
//! After a wanted change of help, `FIELDKEEP_UPDATE_HELP=1 cargo test --test cmd` writes the files anew: read the difference.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helper functions of tests"
)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    case: Vec<Case>,
}

/// One run. `[DIR]` stands for a directory of the case's own, in arguments, in the environment and in what is printed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Files to make first: name and content.
    #[serde(default)]
    files: BTreeMap<String, String>,
    exit: i32,
    /// All of standard output; nothing if left out and `stdout_has` is too.
    stdout: Option<String>,
    /// Parts of standard output.
    #[serde(default)]
    stdout_has: Vec<String>,
    /// All of standard error; nothing if left out and `stderr_has` is too.
    stderr: Option<String>,
    /// Parts of standard error.
    #[serde(default)]
    stderr_has: Vec<String>,
    /// The files that are in the directory afterwards.
    leaves: Option<Vec<String>>,
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cmd")
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = directory
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

fn fieldkeep() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fieldkeep"));
    command.env_clear().stdin(Stdio::null());
    command
}

fn run(case: &Case) -> Result<(), String> {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().to_str().unwrap();
    for (name, content) in &case.files {
        let path = temporary.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let place = |text: &String| text.replace("[DIR]", directory);
    let mut command = fieldkeep();
    command
        .args(case.args.iter().map(place))
        .envs(case.env.iter().map(|(name, value)| (name, place(value))));
    let output = command.current_dir(&temporary).output().unwrap();
    let printed = |bytes: &[u8]| {
        String::from_utf8(bytes.to_vec())
            .unwrap()
            .replace(directory, "[DIR]")
    };
    let (stdout, stderr) = (printed(&output.stdout), printed(&output.stderr));
    let context = format!(
        "exit {:?}\nstdout:\n{stdout}\nstderr:\n{stderr}",
        output.status.code()
    );
    if output.status.code() != Some(case.exit) {
        return Err(format!("exit code is not {}\n{context}", case.exit));
    }
    for (what, text, exact, parts) in [
        ("stdout", &stdout, &case.stdout, &case.stdout_has),
        ("stderr", &stderr, &case.stderr, &case.stderr_has),
    ] {
        if let Some(part) = parts.iter().find(|part| !text.contains(part.as_str())) {
            return Err(format!("{what} has no {part:?}\n{context}"));
        }
        let expected = exact.as_deref().or(parts.is_empty().then_some(""));
        if expected.is_some_and(|expected| expected != text) {
            return Err(format!("{what} is not what was expected\n{context}"));
        }
        if text.contains('\u{1b}') {
            return Err(format!("{what} has terminal codes\n{context}"));
        }
    }
    let mut left: Vec<String> = temporary
        .path()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    match &case.leaves {
        Some(expected) if *expected != left => Err(format!("it leaves {left:?}\n{context}")),
        _ => Ok(()),
    }
}

#[test]
fn cases_end_as_they_say() {
    let mut failed = Vec::new();
    let mut count = 0;
    for file in files(&here(), "toml") {
        let cases: Cases = toml::from_str(&std::fs::read_to_string(&file).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for case in &cases.case {
            count += 1;
            if let Err(what) = run(case) {
                failed.push(format!(
                    "{}: {}: {what}",
                    file.file_name().unwrap().display(),
                    case.name
                ));
            }
        }
    }
    assert!(count > 20, "only {count} cases were found");
    assert!(
        failed.is_empty(),
        "{} of {count} failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

/// Every verb; the file of `key list` is `help/key-list.txt`, that of the command itself `help/fieldkeep.txt`.
const VERBS: &[&str] = &[
    "",
    "demo",
    "dev",
    "doctor",
    "init",
    "serve",
    "status",
    "cert",
    "cert issue",
    "cert server",
    "cert join-token",
    "cert join-token create",
    "cert renew",
    "cert revoke",
    "cert list",
    "join",
    "ca",
    "ca add",
    "ca list",
    "ca remove",
    "issuer",
    "issuer add",
    "issuer check",
    "issuer list",
    "issuer remove",
    "issuer show",
    "grant",
    "grant create",
    "grant list",
    "grant revoke",
    "grant show",
    "api-key",
    "api-key create",
    "api-key list",
    "api-key revoke",
    "api-key rotate",
    "limit",
    "limit list",
    "limit remove",
    "limit set",
    "usage",
    "usage show",
    "group",
    "group add",
    "group list",
    "group remove",
    "group show",
    "access",
    "access explain",
    "access test",
    "access who",
    "mask",
    "mask set",
    "mask list",
    "mask remove",
    "tenant",
    "tenant create",
    "tenant list",
    "key",
    "key create",
    "key list",
    "key show",
    "key rotate",
    "key set-rotation",
    "key usage",
    "key enable",
    "key disable",
    "encrypt",
    "decrypt",
    "reencrypt",
    "data",
    "data encrypt",
    "data decrypt",
    "data reencrypt",
    "data scan",
    "audit",
    "audit list",
    "audit tail",
    "audit show",
    "audit verify",
    "audit prove",
    "audit checkpoint",
    "audit export",
    "audit report",
    "audit verify-report",
    "profile",
    "profile list",
    "profile show",
    "completions",
    "help",
    "help key",
    "help key create",
];

#[test]
fn help_is_as_it_was() {
    let update = std::env::var_os("FIELDKEEP_UPDATE_HELP").is_some();
    let mut seen = Vec::new();
    for &verb in VERBS {
        let mut command = fieldkeep();
        command.args(verb.split_whitespace());
        let output = if verb.starts_with("help") {
            command.output()
        } else {
            command.arg("--help").output()
        };
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        if verb.starts_with("help") {
            assert!(text.contains("Usage: fieldkeep"), "{verb}: {text}");
            continue;
        }
        assert!(
            text.contains("\nExample") && text.contains("  fieldkeep "),
            "the help of `{verb}` has no example:\n{text}"
        );
        let name = if verb.is_empty() {
            String::from("fieldkeep")
        } else {
            verb.replace(' ', "-")
        };
        let file = here().join("help").join(format!("{name}.txt"));
        if update {
            std::fs::write(&file, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            text == expected,
            "the help of `{verb}` is not that of {}:\n{text}",
            file.display()
        );
        seen.push(file);
    }
    seen.sort();
    assert_eq!(
        seen,
        files(&here().join("help"), "txt"),
        "help/ has files of verbs that are no more"
    );
}

#[test]
fn completions_of_bash_are_a_bash_script() {
    let script = fieldkeep().args(["completions", "bash"]).output().unwrap();
    let mut bash = Command::new("bash")
        .arg("-n")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    bash.stdin
        .take()
        .unwrap()
        .write_all(&script.stdout)
        .unwrap();
    let parsed = bash.wait_with_output().unwrap();
    assert!(
        parsed.status.success() && parsed.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&parsed.stderr)
    );
    let text = String::from_utf8(script.stdout).unwrap();
    assert!(text.contains("set-rotation"), "{text}");
}
