//! The `fieldkeep` binary: the service and its command line.

use std::process::ExitCode;

use fieldkeep::version::AUDITED;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A build with all features, for example. It must not be taken for the service.
    if !AUDITED {
        eprintln!(
            "error: `fieldkeep` was built with the feature `bench-without-audit`, with which calls leave no records in the audit trail\n  \
             help: build it without that feature, which is for the program `fieldkeep-without-audit` and a benchmark alone"
        );
        return ExitCode::FAILURE;
    }
    fieldkeep::cli::main()
}
