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

mod baseline;
mod keys;
mod load;
mod openbao;
mod process;
mod report;
mod system;

use std::{env, path::PathBuf, process::ExitCode, time::Duration};

const HELP: &str = "\
Usage: cargo xtask bench [system|keys|openbao] [options]

  system   unary Encrypt and BatchEncrypt x 1,000 against the bare echo and the cipher-only server (default)
             --rounds N    interleaved rounds (7)
             --seconds S   length of one measurement (10)
  keys     time to ready and resident memory with many keys
             --count N     keys to make (1,000,000)
  openbao  beside OpenBao's transit engine (benches/peers/openbao.sh installs it)
             --server FILE   OpenBao's binary
             --rounds N, --seconds S   as above
  --out FILE   also writes the table to a file
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let command = arguments.first().map_or("system", String::as_str);
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
    let table = match command {
        "keys" => keys::run(number("--count", 1_000_000)),
        "openbao" => openbao::run(
            &PathBuf::from(option("--server").expect("--server FILE")),
            number("--rounds", 3) as usize,
            Duration::from_secs(number("--seconds", 5)),
        ),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => system::run(
            number("--rounds", 7) as usize,
            Duration::from_secs(number("--seconds", 10)),
        ),
    };
    let text = format!("{}\n{table}", report::head());
    println!("{text}");
    if let Some(path) = option("--out") {
        std::fs::write(path, text).expect("the file can be written");
    }
    ExitCode::SUCCESS
}
