//! The commands of README.md, as they stand there.

use std::{fs, path::Path, process::Command};

use fieldkeep_harness::{Home, binary};

use crate::dev::Dev;

/// The fenced blocks of README.md that are shell commands, in order.
fn shell_blocks(readme: &str) -> Vec<Vec<&str>> {
    readme
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```"))
        .map(|(block, _)| block.lines().collect())
        .collect()
}

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// Runs commands in `work`, and gives what they print.
fn run(work: &Path, commands: &[&str], address: Option<String>) -> String {
    let path = format!(
        "{}:{}",
        binary().parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let output = Command::new("sh")
        .args(["-euc", &commands.join("\n")])
        .current_dir(work)
        .env("PATH", path)
        .envs(address.map(|address| ("FIELDKEEP_ADDR", address)))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaint}");
    said
}

#[test]
fn the_commands_of_the_first_encrypt_work() {
    let readme = readme();
    let blocks = shell_blocks(&readme);
    assert_eq!(blocks[0], ["cargo run --release -- demo"]);
    assert_eq!(blocks[1], ["cargo xtask test"]);
    assert_eq!(blocks[2], ["fieldkeep dev --dir fk-dev"]);

    // The same service, but on free ports.
    let temporary = tempfile::tempdir().unwrap();
    let work = temporary.path();
    let dev = Dev::start(work, &["--dir", "fk-dev", "--port", "0"]);
    fs::write(
        work.join("customers.csv"),
        "id,email,ssn\n1,ada@example.com,078-05-1120\n2,,\n",
    )
    .unwrap();
    let said = run(work, &[&blocks[3][..], &blocks[4]].concat(), None);
    assert!(said.contains("ada@example.com"), "{said}");
    assert!(
        !fs::read_to_string(work.join("sealed.csv"))
            .unwrap()
            .contains("ada@example.com")
    );
    assert_eq!(
        fs::read(work.join("opened.csv")).unwrap(),
        fs::read(work.join("customers.csv")).unwrap()
    );
    dev.stop();
}

#[test]
fn the_commands_of_a_service_of_your_own_work() {
    let readme = readme();
    let blocks = shell_blocks(&readme);
    assert_eq!(
        blocks[5],
        [
            "fieldkeep init --dir fk",
            "fieldkeep serve --config fk/fieldkeep.toml"
        ]
    );

    // The same directory and server, but on free ports.
    let home = Home::make();
    let server = home.serve();
    let work = home.path().parent().unwrap().to_owned();
    fs::rename(home.path(), work.join("fk")).unwrap();
    std::os::unix::fs::symlink(work.join("fk"), home.path()).unwrap();
    let said = run(&work, &blocks[6], Some(server.admin.to_string()));
    assert!(said.contains("fk1:"), "{said}");
}

#[test]
fn the_sdk_example_is_the_file() {
    let readme = readme();
    let (_, rest) = readme.split_once("```rust\n").unwrap();
    let (shown, _) = rest.split_once("```").unwrap();
    let file =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/first_encrypt.rs"))
            .unwrap();
    assert!(
        file.contains(shown),
        "README.md shows another example than examples/first_encrypt.rs:\n{file}"
    );
}

#[test]
fn the_sdk_example_runs() {
    let f = crate::fixture::Fixture::start();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "--quiet", "--locked", "--example", "first_encrypt"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("FIELDKEEP_ADDR", f.server.data.to_string())
        .env("FIELDKEEP_CA", f.home.ca())
        .env("FIELDKEEP_CERT", &f.app_identity.certificate)
        .env("FIELDKEEP_KEY", &f.app_identity.key)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.stdout.starts_with(b"fk1:"));
}
/// Every test that a document names as proof exists.
#[test]
fn the_tests_that_documents_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    let mut folders: Vec<_> = [
        "src", "tests", "client", "crypto", "journal", "keystore", "tlog", "audit",
    ]
    .iter()
    .map(|name| root.join(name))
    .collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                sources.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let table = fs::read_to_string(root.join("docs/owasp.md")).unwrap();
    let proofs = table.lines().filter(|line| line.starts_with("| **API"));
    let mut named = 0;
    for proof in proofs.filter_map(|line| line.rsplit('|').nth(1)) {
        for test in proof.split('`').skip(1).step_by(2) {
            named += 1;
            assert!(sources.contains(&format!("fn {test}(")), "no test `{test}`");
        }
    }
    assert!(named > 30, "{named}");
}
