//! `fieldkeep dev`: a complete local service in one command.

use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use fieldkeep_client::{Client, reason};
use tempfile::TempDir;

use super::cert::{issue, make_key_and_csr, parse_name, write_file};
use super::connection::export_lines;
use super::failure::{Exit, Failure, file_failure};
use super::grant::{NewGrant, grant_once};
use super::init::{init_failure, unix_now};
use super::local::{Local, failed, temporary_directory};
use super::output::{print_line, shell_word};
use super::signals::stop_signal;
use crate::access::principal::Identity;
use crate::config::Config;
use crate::init::offline::{self, OfflineError};
use crate::init::{InitOptions, init};
use crate::{hardening, telemetry};

/// Marks a directory as one of `dev`: without it, it is not touched.
const MARK: &str = "DEVELOPMENT";
const MARK_TEXT: &str =
    "Made by `fieldkeep dev`. Its keys and identities are for development: never for real data.\n";
/// The key that is there from the start.
const KEY: &str = "pii";
/// How long the first admin's identity lasts. It and the others, which last a day, are made anew at each start.
const TTL: Duration = Duration::from_secs(30 * 86_400);

/// Run a complete service for development, until Ctrl-C
///
/// Makes everything that a service needs, with a key `pii` and an identity for each kind of caller, runs it on this machine
/// alone, and prints the lines to paste for an application and for an admin. Logs go to standard error. For development: the
/// root key lies beside the data.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fieldkeep dev                                   leaves nothing behind
  fieldkeep dev --dir fk-dev                      keeps keys and data for the next time
  fieldkeep dev --port 0 --env-file .env          on free ports; an application reads .env")]
pub(crate) struct DevArgs {
    /// The directory to use: empty, absent, or of an earlier `fieldkeep dev` [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Listen on this port for data, and on the next two for admin and metrics; 0 takes free ones [default: 7420]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(0..=65_533))]
    port: Option<u16>,
    /// Write the application's lines to this file, too, when the service is ready
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
}

/// Runs the verb.
pub(crate) fn run(args: &DevArgs) -> Result<(), Failure> {
    // As `serve` does; what the system does not allow does not matter here.
    hardening::harden();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| {
        Failure::new(Exit::Failed, "cannot start the runtime").caused_by(&error)
    })?;
    let outcome = runtime.block_on(serve(args));
    // A service that is still starting has to be taken down.
    runtime.shutdown_timeout(Duration::from_secs(15));
    outcome
}

async fn serve(args: &DevArgs) -> Result<(), Failure> {
    let mut stop = pin!(stop_signal()?);
    let world = tokio::select! {
        world = World::start(args) => world?,
        () = &mut stop => return Err(Failure::new(Exit::Interrupted, "interrupted")),
    };
    world.print()?;
    stop.await;
    world.end(args).await
}

/// The service with its identities.
struct World {
    service: Local,
    dir: PathBuf,
    /// Whether the directory is removed at the end.
    temporary: bool,
    /// The lines of an application, and those of an admin.
    app: String,
    admin: String,
}

impl World {
    async fn start(args: &DevArgs) -> Result<World, Failure> {
        let (dir, temporary) = match &args.dir {
            Some(dir) => (dir.clone(), None),
            None => {
                let temporary = temporary_directory("fieldkeep-dev-")?;
                (temporary.path().join("fk"), Some(temporary))
            }
        };
        let config = prepare(&dir).await?;
        World::start_in(&dir, config, temporary, args).await
    }

    async fn start_in(
        dir: &Path,
        mut config: Config,
        temporary: Option<TempDir>,
        args: &DevArgs,
    ) -> Result<World, Failure> {
        if let Some(port) = args.port {
            let next = |step| if port == 0 { 0 } else { port + step };
            config.listen.data.set_port(port);
            config.listen.admin.set_port(next(1));
            config.listen.metrics.set_port(next(2));
        }
        telemetry::init_logging(&config.log);
        let dir = dir
            .canonicalize()
            .map_err(|error| file_failure("find", dir, &error))?;
        let is_temporary = temporary.is_some();
        let ca = dir.join("tls/ca.pem");
        let service = Local::start(config, temporary).await?;
        let identities = dir.join("identities");
        let first = Client::builder()
            .address(&service.admin_address)
            .ca_file(&ca)
            .identity_files(identities.join("admin.pem"), identities.join("admin.key"))
            .build()?;
        match first.keys().create(KEY).await {
            Err(error) if error.reason() != Some(reason::ALREADY_EXISTS) => {
                return Err(error.into());
            }
            _ => {}
        }
        let lines = async |name: &str, grant, address: &str| {
            let (certificate, key) = identity(&first, &identities, name, grant).await?;
            Ok::<_, Failure>(export_lines(address, &ca, &certificate, &key))
        };
        let app = lines("dev-app", NewGrant::role("data"), &service.data_address).await?;
        let admin = lines(
            "dev-admin",
            NewGrant::role("admin").of_all_tenants(),
            &service.admin_address,
        )
        .await?;
        write_file(&dir.join("app.env"), &app, 0o600, true)?;
        write_file(&dir.join("admin.env"), &admin, 0o600, true)?;
        if let Some(path) = &args.env_file {
            write_file(path, &app, 0o600, true)?;
        }
        Ok(World {
            service,
            dir,
            temporary: is_temporary,
            app,
            admin,
        })
    }

    fn print(&self) -> Result<(), Failure> {
        let file = |name| shell_word(&self.dir.join(name).display().to_string());
        let stay = if self.temporary {
            "is removed at the end"
        } else {
            "stays for the next time"
        };
        print_line(format_args!(
            "\
# Fieldkeep for development, never for real data. Everything is in {dir} and {stay}.

# As an application, in another terminal (the same as: . {app_file})
{app}
# As the admin, in a third (the same as: . {admin_file})
{admin}
# Then, as the application:
#   echo -n ada@example.com | fieldkeep encrypt --key {KEY} --field customer.email --context id=42
# Ctrl-C here stops it.",
            dir = self.dir.display(),
            app_file = file("app.env"),
            admin_file = file("admin.env"),
            app = self.app,
            admin = self.admin,
        ))
    }

    async fn end(self, args: &DevArgs) -> Result<(), Failure> {
        self.service.stop().await?;
        match &args.env_file {
            // It names files that are gone.
            Some(path) if self.temporary => {
                fs::remove_file(path).map_err(|error| file_failure("remove", path, &error))
            }
            _ => Ok(()),
        }
    }
}

/// A directory that a service can run on, whose first admin has a certificate that lasts.
async fn prepare(dir: &Path) -> Result<Config, Failure> {
    let file = dir.join("fieldkeep.toml");
    let (mark, is_old) = (dir.join(MARK), file.exists());
    if is_old && !mark.exists() {
        return Err(Failure::new(
            Exit::Conflict,
            format_args!("`{}` was not made by `fieldkeep dev`", dir.display()),
        )
        .help("its keys may matter, so it stays as it is: choose another --dir"));
    }
    if !is_old {
        init(InitOptions::new(dir, unix_now()))
            .await
            .map_err(|error| init_failure(&error))?;
        write_file(&mark, MARK_TEXT, 0o644, false)?;
    }
    let config = Config::load(&file).map_err(|error| failed(&error))?;
    if is_old {
        let admin = Identity::new(parse_name("default")?, parse_name("admin")?);
        let out = dir.join("identities");
        let issued = offline::issue_offline(&config, &admin, TTL.as_secs(), &out, unix_now());
        issued.await.map_err(|error| match &error {
            OfflineError::ServerRunning(_) => Failure::new(
                Exit::Conflict,
                format_args!("another process runs a service on `{}`", dir.display()),
            )
            .help("use that one, stop it, or choose another --dir"),
            _ => failed(&error),
        })?;
    }
    Ok(config)
}

/// An identity with a grant; its certificate and key are written anew.
async fn identity(
    admin: &Client,
    folder: &Path,
    name: &str,
    new: NewGrant,
) -> Result<(PathBuf, PathBuf), Failure> {
    let resource = format!("tenants/default/identities/{name}");
    let (key_pem, csr_der) = make_key_and_csr()?;
    let signed = issue(admin, &resource, csr_der, Duration::ZERO).await?;
    grant_once(admin, &resource, &new).await?;
    let (certificate, key) = (
        folder.join(format!("{name}.pem")),
        folder.join(format!("{name}.key")),
    );
    write_file(&key, &key_pem, 0o600, true)?;
    write_file(&certificate, &signed.certificate_pem, 0o644, true)?;
    Ok((certificate, key))
}
