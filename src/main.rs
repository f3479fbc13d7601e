//! The `fieldkeep` binary: the service and its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    fieldkeep::cli::main()
}
