//! Fuzzing with libFuzzer on the stable compiler: the coverage passes are ordinary code-generation options, so neither
//! a nightly toolchain nor a cargo subcommand is needed. Without sanitizers: the workspace forbids unsafe code.

use std::fs;

use crate::{
    step::{Failed, cargo, program_with, step},
    tools::Tools,
};

const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions=on -Coverflow-checks=on";

/// Runs every target of `fuzz/` for `seconds`, each from its own corpus. Fails on the first crash.
pub(crate) fn smoke(seconds: u32) -> Result<(), Failed> {
    let missing = Tools::install(&[("c++", "g++", "libFuzzer is C++")]);
    if let Some(tool) = missing.first() {
        return Err(Failed::new(tool));
    }
    let triple = "x86_64-unknown-linux-gnu";
    step("fuzz: build", || {
        cargo(&[
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--target",
            triple,
        ])
        .directory("fuzz")
        .environment("RUSTFLAGS", COVERAGE)
        .run()
    })?;
    for target in targets()? {
        step(&format!("fuzz: {target}, {seconds} s"), || {
            let corpus = format!("corpus/{target}");
            fs::create_dir_all(format!("fuzz/{corpus}"))
                .and_then(|()| fs::create_dir_all("fuzz/artifacts"))
                .map_err(|error| Failed::new(format!("fuzz/{corpus}: {error}")))?;
            let program = fs::canonicalize(format!("fuzz/target/{triple}/release/{target}"))
                .map_err(|error| Failed::new(format!("fuzz target `{target}`: {error}")))?;
            program_with(&program.to_string_lossy(), &[&corpus])
                .argument(&format!("-max_total_time={seconds}"))
                .argument("-artifact_prefix=artifacts/")
                .directory("fuzz")
                .run_quietly()
        })?;
    }
    Ok(())
}

/// The targets are the files of `fuzz/fuzz_targets`.
fn targets() -> Result<Vec<String>, Failed> {
    let entries = fs::read_dir("fuzz/fuzz_targets")
        .map_err(|error| Failed::new(format!("fuzz/fuzz_targets: {error}")))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(String::from))
        .collect();
    names.sort();
    Ok(names)
}
