//! Fault runs: kills at random moments, kills during open, power losses, full disks, and damage to the audit trail. Every run prints its seed
//! and can be repeated from it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test driver: a failure here is a finding"
)]

mod audit_kill;
mod calls;
mod disk;
mod full_disk;
mod kill;
mod power;
mod random;
mod recorded;
mod rotation;
mod tamper;
mod trace;

use std::{
    env,
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::runtime::{Builder, Runtime};

use full_disk::Ended;
use tamper::Length;

const HELP: &str = "\
Usage: cargo xtask faults <run> [--rounds N] [--seed S]

  kill         kill -9 under a load of creates and rotations, restart, compare with what was acknowledged (500 rounds);
               each restart is itself killed at a random moment first, as often as not
  rotation     kill -9 while keys rotate by themselves (500 rounds): counters, versions, audit records, decryption
  power-loss   drop everything that was not fsynced, at random points of a recorded run (500 points);
               bare sled with `flush` loses data in the same run, the keystore does not
  tamper       damage copies of an audit trail in one place each (100,000 rounds): flipped bits, records deleted, swapped and
               inserted, files cut off, checkpoints, forged ends; each is found and located
               --records N of the trail (1,000,000), --whole N rounds in which the whole trail is verified (100)
  audit-kill   kill -9 under calls of every kind (500 rounds): each that got a reply is in the trail exactly once,
               and the store is as the trail says
  full-disk    fill the trail's disk to the last byte under load (20 rounds); mounts a tmpfs, so it needs root
  ci           the short form of all (30, 15 and 60 rounds; 3,000 of tamper over 70,000 records; 8 of audit-kill, 1 of full-disk)
  all          the long form of all
";

/// All runs.
const RUNS: [&str; 6] = [
    "kill",
    "rotation",
    "power-loss",
    "tamper",
    "audit-kill",
    "full-disk",
];

/// How many rounds each has, and how large the trail of `tamper` is.
struct Lengths {
    kill: u64,
    rotation: u64,
    power_loss: u64,
    tamper: Length,
    audit_kill: u64,
    full_disk: u64,
}

const LONG: Lengths = Lengths {
    kill: 500,
    rotation: 500,
    power_loss: 500,
    tamper: Length {
        records: 1_000_000,
        cases: 100_000,
        whole: 100,
    },
    audit_kill: 500,
    full_disk: 20,
};

const SHORT: Lengths = Lengths {
    kill: 30,
    rotation: 15,
    power_loss: 60,
    tamper: Length {
        records: 70_000,
        cases: 3_000,
        whole: 20,
    },
    audit_kill: 8,
    full_disk: 1,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let wants_help = |word: &String| matches!(word.as_str(), "help" | "--help" | "-h");
    let run = match arguments.first() {
        Some(run) if !arguments.iter().any(wants_help) => run.as_str(),
        _ => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
    };
    if let ("power-child", Some(kind), Some(directory)) = (run, arguments.get(1), arguments.get(2))
    {
        power::child(kind, &PathBuf::from(directory));
        return ExitCode::SUCCESS;
    }
    let (runs, lengths) = match run {
        "ci" => (RUNS.to_vec(), SHORT),
        "all" => (RUNS.to_vec(), LONG),
        run if RUNS.contains(&run) => (vec![run], LONG),
        _ => {
            eprintln!("no such run: {run}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let number = |flag: &str| -> Option<u64> {
        let at = arguments.iter().position(|a| a == flag)?;
        Some(arguments.get(at + 1)?.parse().expect("a number"))
    };
    let seed = number("--seed").unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |t| t.as_micros() as u64)
    });
    println!("seed {seed}");
    let rounds = |length: u64| number("--rounds").unwrap_or(length);
    let mut well = true;
    for each in &runs {
        match *each {
            "kill" => kill::run(rounds(lengths.kill), seed),
            "rotation" => rotation::run(rounds(lengths.rotation), seed),
            "power-loss" => power::run(rounds(lengths.power_loss), seed),
            "tamper" => {
                let length = Length {
                    records: number("--records").unwrap_or(lengths.tamper.records),
                    cases: rounds(lengths.tamper.cases),
                    whole: number("--whole").unwrap_or(lengths.tamper.whole),
                };
                well &= tamper::run(length, seed);
            }
            "audit-kill" => well &= audit_kill::run(rounds(lengths.audit_kill), seed),
            _ => match full_disk::run(rounds(lengths.full_disk), seed) {
                Ended::Well => {}
                Ended::Badly => well = false,
                // Whoever asks for it alone wants it to be done.
                Ended::Skipped => well &= runs.len() > 1,
            },
        }
    }
    match well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The runtime of a run.
fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}
