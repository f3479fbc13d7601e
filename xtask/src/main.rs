//! `cargo xtask test|ci|bench|faults|fuzz|api`: installs what a step needs beyond a Rust toolchain and a C compiler, and runs it.

mod fuzz;
mod step;
mod tools;

use std::{env, path::PathBuf, process::ExitCode};

use step::{Failed, Run, cargo, step};
use tools::Tools;

const HELP: &str = "\
Usage: cargo xtask <command> [arguments]

  test [--strict]      run every test; installs Debian packages and OpenBao, which tests need, or says what it skips and why
                       (--strict: a skipped test is a failure)
  ci                   fmt, clippy, test --strict, docs, cargo-deny, fuzz smoke, short fault runs
  bench [arguments]    the system benchmark, release build (`cargo xtask bench -- --help`); `bench openbao` installs OpenBao
  faults [arguments]   kill and power-loss runs (`cargo xtask faults -- --help`)
  api                  write docs/api.md anew from the .proto files; a test fails when it is not current
  fuzz [seconds]       every fuzz target for that long (default 20)
";

fn main() -> ExitCode {
    // `cargo run` says where this crate is; every step runs from the workspace's root.
    let root =
        env::var_os("CARGO_MANIFEST_DIR").map(|directory| PathBuf::from(directory).join(".."));
    if let Some(Err(error)) = root.map(env::set_current_dir) {
        eprintln!("the workspace's root: {error}");
        return ExitCode::FAILURE;
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let command = arguments.first().map(String::as_str);
    // These two pass on what they are given.
    let passes_on = matches!(command, Some("bench" | "faults"));
    if !passes_on && rest.iter().any(|a| a == "--help" || a == "-h") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let result = match command {
        Some("test") => test(rest.iter().any(|a| a == "--strict")),
        Some("ci") => ci(),
        Some("bench") => bench(rest),
        Some("faults") => system_binary("fieldkeep-faults", rest),
        Some("api") => api(),
        Some("fuzz") => fuzz::smoke(rest.first().and_then(|s| s.parse().ok()).unwrap_or(20)),
        Some("help" | "--help" | "-h") | None => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some(other) => {
            eprintln!("unknown command `{other}`\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("\nxtask: {failed}");
            ExitCode::FAILURE
        }
    }
}

/// Every test of the workspace. Tests find their tools through `PATH`; a missing tool skips its test, which this says.
fn test(strict: bool) -> Result<(), Failed> {
    let mut skipped = Tools::install(&[
        ("strace", "strace", "the power-loss test"),
        (
            "systemd-analyze",
            "systemd",
            "the tests of the systemd unit",
        ),
        (
            "python3",
            "python3-venv",
            "the tests against a real OpenID provider",
        ),
    ]);
    if !tools::can_mount() {
        skipped.push(
            "the full-disk tests, since mounting a tmpfs is not allowed here; run as root".into(),
        );
    }
    let mut tests = cargo(&["test", "--workspace", "--locked", "--quiet"]);
    match tools::openbao() {
        Ok(server) => tests = tests.environment("FIELDKEEP_TEST_OPENBAO", &server),
        Err(failed) => skipped.push(format!(
            "the tests against a real OpenID provider, since OpenBao cannot be installed; they need `python3` with venv and PyPI ({failed})"
        )),
    }
    step("tests", || tests.run())?;
    for tool in &skipped {
        println!("skipped: {tool}");
    }
    if strict && !skipped.is_empty() {
        return Err(Failed::new("--strict: something was skipped"));
    }
    Ok(())
}

/// The system benchmark. OpenBao, for the run beside it, is installed unless `--server` names one.
fn bench(arguments: &[String]) -> Result<(), Failed> {
    let has = |word: &str| arguments.iter().any(|a| a == word);
    if has("overhead") {
        without_audit("build", &["--release", "--package", "fieldkeep-bench"]).run()?;
    }
    let mut arguments = arguments.to_vec();
    if has("openbao") && !has("--server") {
        arguments.extend([String::from("--server"), tools::openbao()?]);
    }
    system_binary("fieldkeep-bench", &arguments)
}

/// A command of cargo for the program that leaves no records of calls on fields. It has a name of its own, so that it never takes the
/// place of the service.
fn without_audit(command: &str, more: &[&str]) -> Run {
    cargo(&[
        command,
        "--locked",
        "--quiet",
        "--package",
        "fieldkeep",
        "--features",
        "fieldkeep/bench-without-audit",
        "--bin",
        "fieldkeep-without-audit",
    ])
    .arguments(more)
}

/// The reference is written by the test that checks it.
fn api() -> Result<(), Failed> {
    cargo(&[
        "test",
        "--locked",
        "--quiet",
        "--package",
        "fieldkeep",
        "--test",
        "integration",
        "--",
        "api::",
    ])
    .environment("FIELDKEEP_UPDATE_API", "1")
    .run()
}

fn ci() -> Result<(), Failed> {
    step("fmt", || {
        cargo(&["fmt", "--all", "--check"]).run()?;
        cargo(&["fmt", "--check"]).directory("fuzz").run()
    })?;
    step("clippy", || {
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ])
        .run()?;
        without_audit("clippy", &["--", "-D", "warnings"]).run()
    })?;
    test(true)?;
    step("docs", || {
        cargo(&[
            "doc",
            "--workspace",
            "--no-deps",
            "--locked",
            "--quiet",
            "--features",
            "fieldkeep-client/otel,fieldkeep-client/testing",
        ])
        .environment("RUSTDOCFLAGS", "-D warnings")
        .run()
    })?;
    step("deny", || {
        Tools::cargo_install("cargo-deny", "0.20.2")?;
        cargo(&[
            "deny",
            "--all-features",
            "check",
            "bans",
            "licenses",
            "sources",
        ])
        .run()
    })?;
    fuzz::smoke(20)?;
    step("faults", || {
        system_binary("fieldkeep-faults", &["ci".into()])
    })
}

/// Builds the service and one of its drivers for release, and runs the driver, which finds the service beside itself.
fn system_binary(package: &str, arguments: &[String]) -> Result<(), Failed> {
    let mut build = cargo(&[
        "build",
        "--release",
        "--locked",
        "--quiet",
        "--package",
        "fieldkeep",
        "--package",
        package,
    ]);
    let mut command = cargo(&[
        "run",
        "--release",
        "--locked",
        "--quiet",
        "--package",
        package,
    ]);
    if arguments.iter().any(|a| a == "allocations") {
        // Valgrind counts the calls of the system's allocator.
        build = build.argument("--no-default-features");
    } else {
        // As it was built for the service, since the driver alone would have the library built once more.
        command = command.arguments(&["--features", "fieldkeep/default"]);
    }
    build.run()?;
    command = command.argument("--");
    for argument in arguments.iter().filter(|a| *a != "--") {
        command = command.argument(argument);
    }
    command.run()
}
