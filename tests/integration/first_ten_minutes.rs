//! The commands of docs/first-ten-minutes.md, as they stand there, and what it says they print.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{fs, io::Write as _};

use fieldkeep_harness::binary;

use crate::dev::Dev;

/// A command of the page and the lines that follow it.
struct Step<'a> {
    command: &'a str,
    printed: Vec<&'a str>,
}

impl Step<'_> {
    fn fails(&self) -> bool {
        self.printed.iter().any(|line| line.starts_with("error: "))
    }

    /// The lines that are the same on every machine and at any time: those without a digit or a path of the user's.
    fn stable(&self) -> impl Iterator<Item = String> {
        let lines = self.printed.iter().filter(|line| {
            !line.contains(|c: char| c.is_ascii_digit()) && !line.contains("~/") && **line != "..."
        });
        lines.map(|line| squeezed(line))
    }
}

/// With one space where there are several: columns are as wide as what is in them.
fn squeezed(text: &str) -> String {
    text.split(' ')
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/first-ten-minutes.md");
    fs::read_to_string(path).unwrap()
}

fn steps(page: &str) -> Vec<Step<'_>> {
    let mut steps: Vec<Step> = Vec::new();
    let blocks = page.split("```console\n").skip(1);
    for line in blocks.flat_map(|rest| rest.split_once("```").unwrap().0.lines()) {
        match line.strip_prefix("$ ") {
            Some(command) => steps.push(Step {
                command,
                printed: Vec::new(),
            }),
            None => steps.last_mut().unwrap().printed.push(line),
        }
    }
    steps
}

/// Runs the steps in one shell, and compares exit codes and stable lines with the page.
fn walk(work: &Path, steps: &[Step<'_>]) {
    let mut shell = Command::new("sh")
        .current_dir(work)
        .env("HOME", work)
        .env(
            "PATH",
            format!(
                "{}:{}",
                binary().parent().unwrap().display(),
                std::env::var("PATH").unwrap()
            ),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let script: String = steps
        .iter()
        .map(|step| {
            // A group, not a subshell: what it exports stays. Its input is not the script.
            format!(
                "{{ {}\n}} </dev/null 2>&1\nprintf '\\n[step ended with %s]\\n' $?\n",
                step.command
            )
        })
        .collect();
    shell
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    let output = shell.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let mut rest = said.as_str();
    for step in steps {
        let (printed, after) = rest.split_once("\n[step ended with ").unwrap();
        let (code, after) = after.split_once("]\n").unwrap();
        rest = after;
        assert_eq!(
            code != "0",
            step.fails(),
            "$ {}\n{printed}\n[{code}]",
            step.command
        );
        let lines: Vec<String> = printed.lines().map(squeezed).collect();
        for expected in step.stable() {
            assert!(
                lines.contains(&expected),
                "the page shows `{expected}`, but it is:\n$ {}\n{printed}",
                step.command
            );
        }
    }
}

/// `fieldkeep serve`, killed at the end.
struct Serve(Child);

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the service and gives the address of its admin listener.
fn serve(work: &Path, command: &str) -> (Serve, String) {
    let mut child = Command::new(binary())
        .args(command.split(' ').skip(1))
        .current_dir(work)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let output = child.stdout.take().unwrap();
    let serve = Serve(child);
    BufReader::new(output).read_line(&mut line).unwrap();
    let (_, admin) = line.split_once("admin=").unwrap();
    (serve, admin.split(' ').next().unwrap().to_owned())
}

#[test]
fn each_command_does_what_the_page_says() {
    let page = page();
    let steps = steps(&page);
    let work = tempfile::tempdir().unwrap();
    let at = |command: &str| {
        steps
            .iter()
            .position(|step| step.command == command)
            .unwrap()
    };
    let (dev_at, serve_at) = (
        at("fieldkeep dev --dir fk"),
        at("fieldkeep serve --config own/fieldkeep.toml"),
    );

    walk(work.path(), &steps[..dev_at]);
    // The same two services, but on free ports.
    let dev = Dev::start(work.path(), &["--dir", "fk", "--port", "0"]);
    walk(work.path(), &steps[dev_at + 1..serve_at]);
    dev.stop();

    let file = work.path().join("own/fieldkeep.toml");
    let mut config = fs::read_to_string(&file).unwrap();
    for port in ["7420", "7421", "7422"] {
        assert!(config.contains(&format!(":{port}\"")), "{config}");
        config = config.replace(&format!(":{port}\""), ":0\"");
    }
    fs::write(&file, config).unwrap();
    let (_serve, admin) = serve(work.path(), steps[serve_at].command);
    let own = page.replace("127.0.0.1:7421", &admin);
    walk(work.path(), &self::steps(&own)[serve_at + 1..]);
}

#[test]
fn the_program_of_the_page_is_the_example() {
    let page = page();
    let (_, rest) = page.split_once("```rust\n").unwrap();
    let (shown, _) = rest.split_once("```").unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/first_encrypt.rs");
    let file = fs::read_to_string(example).unwrap();
    assert!(
        file.contains(shown),
        "docs/first-ten-minutes.md shows another program than:\n{file}"
    );
}
