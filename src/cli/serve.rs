//! `fieldkeep serve`: runs the service until it is told to stop.

use std::path::PathBuf;

use clap::Args;
use sd_notify::NotifyState;

use super::failure::{Exit, Failure};
use super::output::print_line;
use super::signals::{on_hangup, stop_signal};
use crate::config::Config;
use crate::server::Server;
use crate::{hardening, telemetry};

/// Run the service.
///
/// Logs go to standard error. When every listener is ready, one line on standard output says where:
/// `ready data=ADDRESS admin=ADDRESS metrics=ADDRESS`. SIGTERM or Ctrl-C ends it after the running calls.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  fieldkeep serve --config fk/fieldkeep.toml\n  fieldkeep serve --config fk/fieldkeep.toml --min-checkpoint /mnt/other/checkpoints"
)]
pub(crate) struct ServeArgs {
    /// The configuration that `fieldkeep init` made
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Start although the audit trail has lost records that were signed or seen: see "A trail that has lost records" in
    /// docs/operations.md. The loss goes on record
    #[arg(long)]
    accept_audit_loss: bool,
    /// Refuse to start unless the audit trail contains the checkpoint in this file, which was kept where nobody who can write the data
    /// directory can change it. Of several in the file, as `[audit] checkpoint_file` appends them, the newest counts. May be given more
    /// than once
    #[arg(long, value_name = "FILE")]
    min_checkpoint: Vec<PathBuf>,
}

/// Runs the verb.
pub(crate) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::new(Exit::Failed, error);
    let mut config =
        Config::load(&args.config).map_err(|error| failed(&error).caused_by(&error))?;
    config.audit.accept_loss = args.accept_audit_loss;
    config
        .audit
        .min_checkpoints
        .clone_from(&args.min_checkpoint);
    let hardened = hardening::harden();
    telemetry::init_logging(&config.log);
    hardened.log();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| {
        Failure::new(Exit::Failed, "cannot start the runtime").caused_by(&error)
    })?;
    runtime.block_on(async move {
        // From here on a signal ends the service in order, also while it starts.
        let stop = stop_signal()?;
        let running = Server::start(config).map_err(|error| failed(&error).caused_by(&error))?;
        let (data, admin, metrics) = (running.data, running.admin, running.metrics);
        print_line(format_args!(
            "ready data={data} admin={admin} metrics={metrics}"
        ))?;
        tell_systemd(&NotifyState::Ready);
        tokio::select! {
            () = stop => {}
            () = on_hangup(|| running.reload()) => {}
        }
        tell_systemd(&NotifyState::Stopping);
        running
            .shutdown()
            .map_err(|error| failed(&error).caused_by(&error))
    })
}

/// Tells systemd, if it started this process and asked for it (`Type=notify`).
fn tell_systemd(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, "systemd was not told about the state of the service");
    }
}
