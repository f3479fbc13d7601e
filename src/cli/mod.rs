//! The command line: one module a group of verbs.

mod args;
mod audit;
mod cert;
mod connection;
mod data;
mod demo;
mod failure;
mod field;
mod init;
mod key;
mod output;
mod pages;
mod progress;
mod role;
mod serve;
mod signals;
mod status;
mod tenant;

use std::process::ExitCode;
use std::time::Duration;

use args::{Cli, Command};
use failure::{Exit, Failure};

/// Runs the command that the process was started with, and gives its exit code.
pub fn main() -> ExitCode {
    match run(args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.exit() as u8)
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    if let Command::Serve(args) = &cli.command {
        // The service has runtimes of its own.
        return serve::run(args);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| {
        Failure::new(Exit::Failed, "cannot start the runtime").caused_by(&error)
    })?;
    // A demo that is interrupted while its service starts has to take it down; elsewhere a thread may still wait for
    // input that never comes.
    let patience = Duration::from_millis(if matches!(cli.command, Command::Demo(_)) {
        15_000
    } else {
        100
    });
    let outcome = runtime.block_on(signals::unless_stopped(run_verb(cli)));
    runtime.shutdown_timeout(patience);
    outcome
}

async fn run_verb(cli: Cli) -> Result<(), Failure> {
    let (connection, format) = (cli.global.connection, cli.global.format);
    match cli.command {
        Command::Demo(args) => demo::run(args).await,
        Command::Init(args) => init::run(args, format).await,
        Command::Serve(_) => Ok(()),
        Command::Cert(args) => cert::run(args, &connection, format).await,
        Command::Status(_) => {
            status::run(&connection.client()?, connection.address(), format).await
        }
        Command::Role(args) => role::run(args, &connection.client()?, format).await,
        Command::Tenant(args) => tenant::run(args, &connection.client()?, format).await,
        Command::Key(args) => key::run(args, &connection.client()?, format).await,
        Command::Encrypt(args) => field::encrypt(args, &connection.client()?, format).await,
        Command::Decrypt(args) => field::decrypt(args, &connection.client()?, format).await,
        Command::Reencrypt(args) => field::reencrypt(args, &connection.client()?, format).await,
        Command::Data(args) => data::run(args, &connection, format).await,
        Command::Audit(args) => audit::run(args, &connection.client()?, format).await,
    }
}
