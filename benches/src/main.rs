//! The system benchmark: the service against a bare tonic echo with the same TLS, and against a bare RPC that runs suite 01 and nothing else.
//!
//! Figures are ratios within one run: rounds of the servers are interleaved, and the medians of their ratios are printed with their spread.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark driver: a failure here ends the run"
)]

mod allocations;
mod baseline;
mod callers;
mod csv;
mod flood;
mod issuer;
mod keys;
mod load;
mod mixed;
mod openbao;
mod overhead;
mod process;
mod report;
mod rotation;
mod rows;
mod servers;
mod system;
mod trail;

use std::{env, path::PathBuf, process::ExitCode, time::Duration};

const HELP: &str = "\
Usage: cargo xtask bench [system|overhead|callers|flood|mixed|allocations|keys|trail|rotation|openbao|csv] [options]

  system   the calls of the data path against a bare echo and a cipher-only server (default)
             --rows LIST   which ones, separated by commas (all): encrypt, one, decrypt, reencrypt, reencrypt-current,
                           batch-encrypt, batch-decrypt, batch-reencrypt, batch-reencrypt-current,
                           encrypt-stream, decrypt-stream, reencrypt-stream
             --rounds N    interleaved rounds (7)
             --seconds S   length of one measurement (10)
             --cores N     1: servers pinned to core 0, load generator to core 1; 2: everything on all cores (2)
  overhead what the audit trail costs: calls with it, with the bounded window, and without it, by a program that is built for that alone
             --rows LIST   of encrypt, decrypt, batch-encrypt, batch-decrypt (all)
             --rounds N, --seconds S
  callers  unary Encrypt by callers with a certificate, an API key and a token against the bare echo
             --rounds N, --seconds S
  flood    latency of one caller alone and beside 10,000 others who send at once
             --rounds N (5), --seconds S
  mixed    latency of unary Encrypt with and without batches of 10,000 fields beside it
             --rounds N, --seconds S
  allocations   heap allocations and instructions a call; needs valgrind
             --rows LIST, --calls N (1,000; a hundredth for batches)
             --profiles DIR   keeps the profiles there, for callgrind_annotate
  keys     time to ready and resident memory with many keys
             --count N     keys to make (1,000,000)
  trail    a long audit trail: bytes a record, verification, search, start
             --records N   (10,000,000)
  rotation many keys due at the same moment, and how jitter spreads a schedule
             --count N     keys (10,000)
             --seconds S   length of one measurement (10)
             --plot FILE   writes the spread as SVG
  openbao  beside OpenBao's transit engine (benches/peers/openbao.sh installs it)
             --server FILE   OpenBao's binary
             --rounds N, --seconds S   (3, 5)
  csv      a large file through `data encrypt`: rows a second, memory of both sides
             --bytes N     size of the file (2,000,000,000)
             --extension E of the output: csv, csv.gz or csv.zst (csv)
             --parallel N  batches under way at a time (4)
  --out FILE   also writes the table to a file
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments
        .iter()
        .any(|word| matches!(word.as_str(), "help" | "--help" | "-h"))
    {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let command = arguments
        .first()
        .map(String::as_str)
        .filter(|word| !word.starts_with("--"))
        .unwrap_or("system");
    if let ("baseline", Some(home)) = (command, arguments.get(1)) {
        baseline::serve(&PathBuf::from(home));
        return ExitCode::SUCCESS;
    }
    let option = |flag: &str| -> Option<&String> {
        arguments.get(arguments.iter().position(|a| a == flag)? + 1)
    };
    let number = |flag: &str, default: u64| {
        option(flag).map_or(default, |text| text.parse().expect("a number"))
    };
    let rows = || rows::named(option("--rows").map(String::as_str));
    let rounds = number("--rounds", 7) as usize;
    let length = Duration::from_secs(number("--seconds", 10));
    let table = match command {
        "system" => system::run(&system::Plan {
            rows: rows(),
            rounds,
            length,
            one_core: number("--cores", 2) == 1,
        }),
        "overhead" => overhead::run(&rows(), rounds, length),
        "callers" => callers::run(rounds, length),
        "flood" => flood::run(number("--rounds", 5) as usize, length),
        "mixed" => mixed::run(rounds, length),
        "allocations" => allocations::run(
            &rows(),
            number("--calls", 1_000),
            option("--profiles").map(String::as_str),
        ),
        "keys" => keys::run(number("--count", 1_000_000)),
        "trail" => trail::run(number("--records", 10_000_000)),
        "rotation" => rotation::run(
            number("--count", 10_000) as usize,
            length,
            option("--plot").map(String::as_str),
        ),
        "openbao" => openbao::run(
            &PathBuf::from(option("--server").expect("--server FILE")),
            number("--rounds", 3) as usize,
            Duration::from_secs(number("--seconds", 5)),
        ),
        "csv" => csv::run(
            number("--bytes", 2_000_000_000),
            option("--extension").map_or("csv", String::as_str),
            number("--parallel", 4),
        ),
        other => {
            eprintln!("no such command: {other}\n\n{HELP}");
            return ExitCode::FAILURE;
        }
    };
    let text = format!("{}\n{table}", report::head());
    println!("{text}");
    if let Some(path) = option("--out") {
        std::fs::write(path, text).expect("the file can be written");
    }
    ExitCode::SUCCESS
}
