//! `fieldkeep init`: everything that a service needs, in one directory.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::connection::export_lines;
use super::failure::{Exit, Failure};
use super::output::{Format, print_json, print_line, rfc3339, shell_word};
use crate::config::PassphraseSource;
use crate::init::{InitError, InitOptions, InitReport, RootChoice};

/// Make a data directory, a master key, a CA, a server certificate and a first admin.
///
/// The root key, from a key file or a passphrase, protects everything else: without it nothing can be decrypted.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fieldkeep init --dir fk
  fieldkeep init --dir fk --root passphrase --passphrase-file /run/secrets/fieldkeep --name keys.example.com")]
pub(crate) struct InitArgs {
    /// The directory to make; it must be empty or not there
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// What protects the master key: a new key file in the directory, or a passphrase
    #[arg(long, value_enum, default_value_t = Root::KeyFile, hide_possible_values = true, value_name = "key-file|passphrase")]
    root: Root,
    /// A file that holds the passphrase
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_env")]
    passphrase_file: Option<PathBuf>,
    /// An environment variable that holds the passphrase
    #[arg(long, value_name = "VARIABLE")]
    passphrase_env: Option<String>,
    /// Where applications connect
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7420")]
    data_addr: SocketAddr,
    /// Where administrators connect
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7421")]
    admin_addr: SocketAddr,
    /// Where metrics are read
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7422")]
    metrics_addr: SocketAddr,
    /// A DNS name or IP address of the server, for its certificate; may be given several times. localhost always is one
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// The trust domain of identities: spiffe://DOMAIN/tenant/TENANT/NAME
    #[arg(long, value_name = "DOMAIN", default_value = "fieldkeep")]
    trust_domain: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Root {
    KeyFile,
    Passphrase,
}

/// Runs the verb.
pub(crate) async fn run(args: InitArgs, format: Format) -> Result<(), Failure> {
    let root = root_choice(&args)?;
    let mut options = InitOptions::new(args.dir, unix_now());
    options.root = root;
    options.listen.data = args.data_addr;
    options.listen.admin = args.admin_addr;
    options.listen.metrics = args.metrics_addr;
    options.names = args.names;
    options.trust_domain = args.trust_domain;
    let report = crate::init::init(options).await;
    print_report(&report.map_err(|error| init_failure(&error))?, format)
}

/// What is said when a directory could not be made.
pub(crate) fn init_failure(error: &InitError) -> Failure {
    let exit = match error {
        InitError::NotEmpty { .. } | InitError::NotADirectory { .. } => Exit::Conflict,
        InitError::TrustDomain(_) | InitError::PathNotUtf8 { .. } => Exit::Usage,
        _ => Exit::Failed,
    };
    Failure::new(exit, error).caused_by(error)
}

fn root_choice(args: &InitArgs) -> Result<RootChoice, Failure> {
    match (args.root, &args.passphrase_file, &args.passphrase_env) {
        (Root::KeyFile, None, None) => Ok(RootChoice::KeyFile),
        (Root::Passphrase, Some(path), None) => Ok(RootChoice::Passphrase(PassphraseSource::File(path.clone()))),
        (Root::Passphrase, None, Some(variable)) => {
            Ok(RootChoice::Passphrase(PassphraseSource::Environment(variable.clone())))
        }
        (Root::Passphrase, _, _) => Err(Failure::new(Exit::Usage, "there is no passphrase")
            .help("give --passphrase-file FILE or --passphrase-env VARIABLE; it is needed at every start, too")),
        (Root::KeyFile, _, _) => Err(Failure::new(Exit::Usage, "a passphrase is given, but --root is key-file")
            .help("add --root passphrase")),
    }
}

/// The present time, Unix seconds.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// An address that a client on this machine can use. A port that is chosen at the start is `PORT`.
pub(crate) fn reachable(listen: SocketAddr) -> String {
    let host = match listen.ip() {
        ip if ip.is_unspecified() => String::from("localhost"),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    match listen.port() {
        0 => format!("{host}:PORT"),
        port => format!("{host}:{port}"),
    }
}

fn print_report(report: &InitReport, format: Format) -> Result<(), Failure> {
    let text = |path: &Path| path.display().to_string();
    if format == Format::Json {
        return print_json(&json!({
            "config": text(&report.config),
            "data_dir": text(&report.data_dir),
            "root_key": report.root_key.as_deref().map(text),
            "ca": text(&report.ca),
            "admin": report.admin.resource().as_ref(),
            "admin_certificate": text(&report.admin_certificate),
            "admin_key": text(&report.admin_key),
            "admin_expire_time": rfc3339(report.admin_not_after),
            "server_expire_time": rfc3339(report.server_not_after),
        }));
    }
    let mut rows = vec![
        vec![text(&report.config), String::from("the configuration")],
        vec![
            text(&report.data_dir),
            String::from("keys, wrapped, and the audit trail"),
        ],
    ];
    if let Some(root_key) = &report.root_key {
        rows.push(vec![
            text(root_key),
            String::from("the root key: keep a copy, apart from backups of the data; without it nothing can be decrypted"),
        ]);
    }
    rows.push(vec![
        text(&report.ca),
        String::from("the CA certificate that clients trust"),
    ]);
    rows.push(vec![
        text(&report.admin_certificate),
        format!(
            "the first admin, until {}",
            rfc3339(report.admin_not_after).as_str().unwrap_or("-")
        ),
    ]);
    print_line(super::output::table(None, rows))?;
    let address = format!("https://{}", reachable(report.listen.admin));
    let lines = export_lines(
        &address,
        &report.ca,
        &report.admin_certificate,
        &report.admin_key,
    );
    print_line(format_args!(
        "
Run the service:
  fieldkeep serve --config {config}

Then, in another terminal, as the admin:
  {lines}
  fieldkeep key create pii
  fieldkeep cert issue app --tenant default --grant data --key pii --out identities",
        config = shell_word(&text(&report.config)),
        lines = lines.trim_end().replace('\n', "\n  "),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_addresses_become_ones_to_connect_to() {
        let address = |text: &str| reachable(text.parse().unwrap());
        assert_eq!(address("0.0.0.0:7421"), "localhost:7421");
        assert_eq!(address("[::1]:7421"), "[::1]:7421");
        assert_eq!(address("10.0.0.1:0"), "10.0.0.1:PORT");
    }
}
