//! Fault runs: kills at random moments, kills during open, and power losses. Every run prints its seed and can be repeated from it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test driver: a failure here is a finding"
)]

mod disk;
mod kill;
mod power;
mod random;
mod rotation;
mod trace;

use std::{
    env,
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

const HELP: &str = "\
Usage: cargo xtask faults <run> [--rounds N] [--seed S]

  kill         kill -9 under a load of creates and rotations, restart, compare with what was acknowledged (500 rounds);
               each restart is itself killed at a random moment first, as often as not
  rotation     kill -9 while keys rotate by themselves (500 rounds): counters, versions, audit records, decryption
  power-loss   drop everything that was not fsynced, at random points of a recorded run (500 points);
               bare sled with `flush` loses data in the same run, the keystore does not
  ci           the short form of all (30 and 15 rounds, 60 points)
  all          the long form of all
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let run = arguments.first().map(String::as_str).unwrap_or_default();
    if let ("power-child", Some(kind), Some(directory)) = (run, arguments.get(1), arguments.get(2))
    {
        power::child(kind, &PathBuf::from(directory));
        return ExitCode::SUCCESS;
    }
    let number = |flag: &str| -> Option<u64> {
        let at = arguments.iter().position(|a| a == flag)?;
        Some(arguments.get(at + 1)?.parse().expect("a number"))
    };
    let seed = number("--seed").unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |t| t.as_micros() as u64)
    });
    let rounds = number("--rounds");
    println!("seed {seed}");
    match run {
        "kill" => kill::run(rounds.unwrap_or(500), seed),
        "rotation" => rotation::run(rounds.unwrap_or(500), seed),
        "power-loss" => power::run(rounds.unwrap_or(500), seed),
        "ci" => {
            kill::run(rounds.unwrap_or(30), seed);
            rotation::run(rounds.unwrap_or(15), seed);
            power::run(rounds.unwrap_or(60), seed);
        }
        "all" => {
            kill::run(rounds.unwrap_or(500), seed);
            rotation::run(rounds.unwrap_or(500), seed);
            power::run(rounds.unwrap_or(500), seed);
        }
        _ => {
            print!("{HELP}");
            return ExitCode::from(u8::from(!matches!(run, "" | "help" | "--help" | "-h")) * 2);
        }
    }
    ExitCode::SUCCESS
}
