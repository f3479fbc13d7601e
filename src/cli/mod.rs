//! The command line: one module a group of verbs.

mod access;
mod api_key;
mod args;
mod audit;
mod ca;
mod cert;
mod completions;
mod confirm;
mod connection;
mod data;
mod demo;
mod dev;
mod doctor;
mod failure;
mod field;
mod grant;
mod group;
mod init;
mod issuer;
mod join;
mod key;
mod limit;
mod local;
mod mask;
mod output;
mod pages;
mod profile;
mod progress;
mod serve;
mod signals;
mod status;
mod tenant;

use std::process::ExitCode;
use std::time::Duration;

use args::{Cli, Command, Connected, Global};
use connection::ConnectionArgs;
use failure::{Exit, Failure};
use output::Format;

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
    // A service has runtimes of its own, and a signal is its proper end.
    match &cli.command {
        Command::Serve(args) => return serve::run(args),
        Command::Dev(args) => return dev::run(args),
        _ => {}
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
    let Global { connection, format } = cli.global;
    let local_format = format.unwrap_or_default();
    match cli.command {
        Command::Demo(args) => demo::run(args).await,
        Command::Init(args) => init::run(args, local_format).await,
        Command::Serve(_) | Command::Dev(_) => Ok(()),
        Command::Profile(args) => profile::run(&args, local_format),
        Command::Completions(args) => completions::run(&args),
        Command::Connected(verb) => {
            let (connection, format) = connection.with_profile(format)?;
            run_connected(verb, &connection, format).await
        }
    }
}

async fn run_connected(
    verb: Connected,
    connection: &ConnectionArgs,
    format: Format,
) -> Result<(), Failure> {
    match verb {
        Connected::Cert(args) => cert::run(args, connection, format).await,
        Connected::Join(args) => join::run(args, connection, format).await,
        Connected::Ca(args) => ca::run(args, &connection.client()?, format).await,
        Connected::Issuer(args) => issuer::run(args, &connection.client()?, format).await,
        Connected::Status(_) => {
            status::run(&connection.client()?, connection.address(), format).await
        }
        Connected::Doctor(args) => doctor::run(&args, connection, format).await,
        Connected::Grant(args) => grant::run(args, &connection.client()?, format).await,
        Connected::ApiKey(args) => api_key::run(args, &connection.client()?, format).await,
        Connected::Group(args) => group::run(args, &connection.client()?, format).await,
        Connected::Limit(args) => limit::run(args, &connection.client()?, format).await,
        Connected::Usage(args) => limit::usage(&args, &connection.client()?, format).await,
        Connected::Access(args) => access::run(args, &connection.client()?, format).await,
        Connected::Mask(args) => mask::run(args, &connection.client()?, format).await,
        Connected::Tenant(args) => tenant::run(args, &connection.client()?, format).await,
        Connected::Key(args) => key::run(args, &connection.client()?, format).await,
        Connected::Encrypt(args) => field::encrypt(args, &connection.client()?, format).await,
        Connected::Decrypt(args) => field::decrypt(args, &connection.client()?, format).await,
        Connected::Reencrypt(args) => field::reencrypt(args, &connection.client()?, format).await,
        Connected::Data(args) => data::run(args, connection, format).await,
        Connected::Audit(args) => audit::run(args, connection, format).await,
    }
}
