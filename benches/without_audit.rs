//! `fieldkeep-without-audit`: the service as it were if calls on the values of fields left no records. `cargo xtask bench overhead`
//! compares the service with it. It is no part of a release and good for nothing else.

use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    eprintln!(
        "warning: this program is for a benchmark alone: calls on the values of fields leave no records in the audit trail"
    );
    fieldkeep::cli::main()
}
