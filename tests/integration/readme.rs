//! The commands of README.md, as they stand there.

use std::{collections::HashMap, fs, path::Path, process::Command};

use fieldkeep_harness::{Home, binary};

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

#[test]
fn the_commands_of_the_first_encrypt_work() {
    let readme = readme();
    let blocks = shell_blocks(&readme);
    assert_eq!(blocks[0], ["cargo run --release -- demo"]);
    assert_eq!(blocks[1], ["cargo xtask test"]);
    assert_eq!(
        blocks[2],
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
    fs::write(
        work.join("customers.csv"),
        "id,email,ssn\n1,ada@example.com,078-05-1120\n2,,\n",
    )
    .unwrap();

    let path = format!(
        "{}:{}",
        binary().parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let script = format!(
        "set -eu\n{}\n{}\n",
        blocks[3].join("\n"),
        blocks[4].join("\n")
    );
    let environment: HashMap<&str, String> =
        [("PATH", path), ("FIELDKEEP_ADDR", server.admin.to_string())].into();
    let output = Command::new("sh")
        .arg("-c")
        .arg(script)
        .current_dir(&work)
        .envs(environment)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
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
