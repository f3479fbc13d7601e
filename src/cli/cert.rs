//! `fieldkeep cert`: identities, and the server's certificate.

mod listener;
mod live;

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use fieldkeep_client::Client;
use fieldkeep_crypto::names::Name;
use fieldkeep_keystore::error::KeystoreError;
use fieldkeep_proto::v1;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use self::listener::find_data_listener;
use super::connection::{ConnectionArgs, export_lines};
use super::failure::{Exit, Failure, file_failure};
use super::grant::{NewGrant, grant_once, role_names};
use super::init::{reachable, unix_now};
use super::output::{Format, print_json, print_line, rfc3339};
use crate::access::ca::{CaError, OPERATOR_TTL_S};
use crate::access::principal::Identity;
use crate::access::role::Role;
use crate::config::Config;
use crate::init::offline::{self, OfflineError};

/// Make identities: a private key and a certificate that says who.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  fieldkeep cert issue app --tenant acme --grant data --out identities"
)]
pub(crate) struct CertArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a key pair and have its certificate signed
    ///
    /// Writes NAME.key (readable by its owner alone), NAME.pem and ca.pem. The private key is made here and never leaves
    /// this machine. A certificate says only who; what the identity may do is what it is granted.
    #[command(after_help = "\
Examples:
  fieldkeep cert issue app --tenant acme --grant data --out identities
  fieldkeep cert issue admin --out identities --config fk/fieldkeep.toml --force")]
    Issue(IssueArgs),
    /// Renew the server's own certificate, while the service is stopped
    ///
    /// Makes a new private key and has the CA in the data directory sign its certificate. The files that the configuration
    /// names are replaced. The new certificate has the names of the old one.
    #[command(after_help = "\
Examples:
  fieldkeep cert server --config fk/fieldkeep.toml
  fieldkeep cert server --config fk/fieldkeep.toml --name keys.example.com")]
    Server(ServerArgs),
    /// Make join tokens, with which new workloads get their first certificates
    #[command(after_help = "Example:\n  fieldkeep cert join-token create app --tenant acme")]
    JoinToken(live::JoinTokenArgs),
    /// Renew the caller's own certificate
    ///
    /// Makes a new private key, has its certificate signed for the same identity and as long as the present one, and replaces
    /// both files. A certificate that has expired cannot be renewed. The SDK renews by itself.
    #[command(after_help = "Example:\n  fieldkeep cert renew")]
    Renew,
    /// Take certificates back, on open connections too
    #[command(after_help = "\
Examples:
  fieldkeep cert revoke 8f3ac04b11d24f5e9c0d7a6b5e4f3a21 --tenant acme
  fieldkeep cert revoke --identity app --tenant acme")]
    Revoke(live::RevokeArgs),
    /// List what was revoked
    #[command(after_help = "Example:\n  fieldkeep cert list --tenant acme")]
    List(live::ListArgs),
}

#[derive(Debug, Args)]
struct ServerArgs {
    /// The configuration of the service, which must be stopped
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// A further DNS name or IP address of the server; may be given several times
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// The certificate's life: a number and s, m, h or d; at most 365d
    #[arg(long, default_value = "365d", value_parser = parse_ttl)]
    ttl: Duration,
}

#[derive(Debug, Args)]
struct IssueArgs {
    /// The identity's name
    name: String,
    /// Its tenant
    #[arg(long, default_value = "default")]
    tenant: String,
    /// The directory to write to; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Grant it this role too, for its own tenant: `data`, `encrypter`, `key-admin` and so on
    #[arg(long, value_name = "ROLE", value_parser = role_names())]
    grant: Option<String>,
    /// A key that the role is for: a name, or the beginning of one and `*` [default: all]; may be given several times
    #[arg(long = "key", value_name = "KEY", requires = "grant")]
    keys: Vec<String>,
    /// A field that the role is for: a name, or the beginning of one and `*` [default: all]; may be given several times
    #[arg(long = "field", value_name = "FIELD", requires = "grant")]
    fields: Vec<String>,
    /// Grant the role for all tenants, and for the service as a whole
    #[arg(long, requires = "grant")]
    all_tenants: bool,
    /// The certificate's life: a number and s, m, h or d; at most 24h, with --config 30d [default: that]
    #[arg(long, value_parser = parse_ttl)]
    ttl: Option<Duration>,
    /// Sign without the service, which must be stopped: with the data directory of this configuration. So an admin
    /// whose certificate has expired gets back in
    #[arg(long, value_name = "FILE", conflicts_with = "grant")]
    config: Option<PathBuf>,
    /// Replace the files if they exist; with --config, those of the same identity alone
    #[arg(long)]
    force: bool,
}

const MAX_TTL_S: u64 = 365 * 86_400;

pub(super) fn parse_ttl(text: &str) -> Result<Duration, &'static str> {
    const SHAPE: &str = "write it as a number and s, m, h or d, for example 12h";
    let unit = text.chars().last().ok_or(SHAPE)?;
    let unit_s = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(SHAPE),
    };
    let number: u64 = text
        .strip_suffix(unit)
        .and_then(|number| number.parse().ok())
        .ok_or(SHAPE)?;
    match number.checked_mul(unit_s) {
        Some(seconds @ 1..=MAX_TTL_S) => Ok(Duration::from_secs(seconds)),
        _ => Err("it must be more than nothing and at most 365d"),
    }
}

/// Runs the verb.
pub(crate) async fn run(
    args: CertArgs,
    connection: &ConnectionArgs,
    format: Format,
) -> Result<(), Failure> {
    let args = match args.verb {
        Verb::Issue(args) => args,
        Verb::Server(args) => return renew_server(&args, format).await,
        Verb::JoinToken(args) => {
            return live::join_token(args, &connection.client()?, format).await;
        }
        Verb::Renew => return live::renew(connection, format).await,
        Verb::Revoke(args) => return live::revoke(args, &connection.client()?, format).await,
        Verb::List(args) => return live::list(args, &connection.client()?, format).await,
    };
    let identity = Identity::new(parse_name(&args.tenant)?, parse_name(&args.name)?);
    if args.name == "ca" {
        return Err(
            Failure::new(Exit::Usage, "an identity cannot be named `ca`")
                .help("`ca.pem` is the CA's certificate"),
        );
    }
    check_place(&args)?;
    let report = match &args.config {
        Some(config) => issue_offline(config, &args, &identity).await?,
        None => issue_online(&args, &identity, connection).await?,
    };
    report.print(format)
}

/// A name of the command line.
pub(crate) fn parse_name(text: &str) -> Result<Name, Failure> {
    let refused = |error| {
        Failure::new(Exit::Usage, format_args!("`{text}` cannot be a name")).caused_by(&error)
    };
    Name::parse(text).map_err(refused)
}

/// Nothing that is there is replaced unasked.
fn check_place(args: &IssueArgs) -> Result<(), Failure> {
    if args.force {
        return Ok(());
    }
    let files = ["key", "pem"].map(|end| args.out.join(format!("{}.{end}", args.name)));
    match files.iter().find(|file| file.exists()) {
        Some(there) => Err(already_there(there)),
        None => Ok(()),
    }
}

async fn issue_online(
    args: &IssueArgs,
    identity: &Identity,
    connection: &ConnectionArgs,
) -> Result<Report, Failure> {
    let key = args.out.join(format!("{}.key", args.name));
    let certificate = args.out.join(format!("{}.pem", args.name));
    let ca = args.out.join("ca.pem");
    let client = connection.client()?;
    fs::create_dir_all(&args.out)
        .map_err(|error| file_failure("make the directory", &args.out, &error))?;
    let (key_pem, csr_der) = make_key_and_csr()?;
    let signed = issue(
        &client,
        identity.resource(),
        csr_der,
        args.ttl.unwrap_or_default(),
    )
    .await?;
    write_file(&key, &key_pem, 0o600, args.force)?;
    write_file(&certificate, &signed.certificate_pem, 0o644, args.force)?;
    if fs::read(&ca).ok().as_deref() != Some(signed.ca_pem.as_bytes()) {
        write_file(&ca, &signed.ca_pem, 0o644, args.force)?;
    }
    if let Some(role) = &args.grant {
        let new = NewGrant {
            role: role.clone(),
            keys: args.keys.clone(),
            fields: args.fields.clone(),
            all_tenants: args.all_tenants,
        };
        let what = format!("the certificate is issued, but `{identity}` was not granted `{role}`");
        grant_once(&client, identity.resource(), &new)
            .await
            .map_err(|failure| failure.while_doing(what))?;
    }
    let ends = signed.expire_time.map(|time| time.seconds);
    let (identity, role) = (identity.clone(), args.grant.clone());
    let address = connection.address();
    // A role that touches no value manages, which the data listener does not serve.
    let manages = role
        .as_deref()
        .and_then(Role::parse)
        .is_some_and(|role| !role.is_data());
    let (address, listener) = if manages {
        (address.to_owned(), Listener::Right)
    } else {
        match find_data_listener(address, &ca, &certificate, &key).await {
            Some(data) => (data, Listener::Right),
            None => (address.to_owned(), Listener::Admin),
        }
    };
    Ok(Report {
        identity,
        role,
        key,
        certificate,
        ca,
        ends,
        address,
        listener,
        role_known: args.grant.is_some(),
    })
}

async fn issue_offline(
    config: &Path,
    args: &IssueArgs,
    identity: &Identity,
) -> Result<Report, Failure> {
    let config = Config::load(config)
        .map_err(|error| Failure::new(Exit::Failed, &error).caused_by(&error))?;
    fs::create_dir_all(&args.out)
        .map_err(|error| file_failure("make the directory", &args.out, &error))?;
    let ttl_s = args.ttl.map_or(OPERATOR_TTL_S, |ttl| ttl.as_secs());
    let issued = offline::issue_offline(&config, identity, ttl_s, &args.out, unix_now()).await;
    let issued = issued.map_err(|error| offline_failure(&error))?;
    let values_alone = !issued.roles.is_empty() && issued.roles.iter().all(|role| role.is_data());
    let address = if values_alone {
        config.listen.data
    } else {
        config.listen.admin
    };
    Ok(Report {
        identity: identity.clone(),
        role: issued.roles.first().map(ToString::to_string),
        key: issued.key,
        certificate: issued.certificate,
        ca: config.tls.ca,
        ends: Some(issued.not_after),
        address: format!("https://{}", reachable(address)),
        listener: Listener::Right,
        role_known: true,
    })
}

async fn renew_server(args: &ServerArgs, format: Format) -> Result<(), Failure> {
    let config = Config::load(&args.config)
        .map_err(|error| Failure::new(Exit::Failed, &error).caused_by(&error))?;
    let ttl_s = args.ttl.as_secs();
    let ends = offline::renew_server_offline(&config, &args.names, ttl_s, unix_now())
        .await
        .map_err(|error| offline_failure(&error))?;
    let (key, certificate, ends) = (&config.tls.key, &config.tls.cert, rfc3339(ends));
    if format == Format::Json {
        let object = json!({
            "key_file": key.display().to_string(),
            "certificate_file": certificate.display().to_string(),
            "expire_time": ends,
        });
        return print_json(&object);
    }
    let ends = ends.as_str().unwrap_or("-");
    print_line(format_args!(
        "{} is new, until {ends}. Start the service.",
        certificate.display()
    ))
}

fn offline_failure(error: &OfflineError) -> Failure {
    let exit = match error {
        OfflineError::ServerRunning(_) | OfflineError::Occupied { .. } => Exit::Conflict,
        OfflineError::Keystore(KeystoreError::TenantNotFound(_)) => Exit::NotFound,
        OfflineError::Ca(CaError::ServerName { .. }) => Exit::Invalid,
        _ => Exit::Failed,
    };
    Failure::new(exit, error).caused_by(error)
}

/// A new private key, PEM, and a request for its certificate, DER.
pub(crate) fn make_key_and_csr() -> Result<(Zeroizing<String>, Vec<u8>), Failure> {
    let failed = |error: rcgen::Error| {
        Failure::new(Exit::Failed, "cannot make a key pair").caused_by(&error)
    };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let request = CertificateParams::default()
        .serialize_request(&key)
        .map_err(failed)?;
    Ok((Zeroizing::new(key.serialize_pem()), request.der().to_vec()))
}

/// Has a certificate signed by the service. `identity` is `tenants/{tenant}/identities/{name}`.
pub(crate) async fn issue(
    client: &Client,
    identity: &str,
    csr_der: Vec<u8>,
    ttl: Duration,
) -> Result<v1::IssueCertificateResponse, Failure> {
    let doing = format!("cannot issue a certificate for `{identity}`");
    client
        .issue_certificate(csr_der, identity, ttl)
        .await
        .map_err(|error| Failure::from(error).while_doing(doing))
}

fn already_there(path: &Path) -> Failure {
    Failure::new(
        Exit::Conflict,
        format_args!("`{}` exists already", path.display()),
    )
    .help("choose another --out, or replace it with --force")
}

/// Writes a file that is whole or not there.
pub(crate) fn write_file(path: &Path, text: &str, mode: u32, replace: bool) -> Result<(), Failure> {
    let failed = |error: &io::Error| file_failure("write", path, error);
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory)
        .map_err(|error| failed(&error))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.as_file().sync_all())
        .map_err(|error| failed(&error))?;
    if replace {
        return file
            .persist(path)
            .map(drop)
            .map_err(|error| failed(&error.error));
    }
    file.persist_noclobber(path)
        .map(drop)
        .map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => already_there(path),
            _ => failed(&error.error),
        })
}

/// What was issued.
struct Report {
    identity: Identity,
    role: Option<String>,
    /// Whether no role here means that it itself is granted none.
    role_known: bool,
    key: PathBuf,
    certificate: PathBuf,
    ca: PathBuf,
    /// Unix seconds.
    ends: Option<i64>,
    address: String,
    listener: Listener,
}

/// Whether the address is the one for the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listener {
    Right,
    /// It is the admin listener's, and the identity is an application: the data listener was not found.
    Admin,
}

impl Report {
    fn print(&self, format: Format) -> Result<(), Failure> {
        let text = |path: &Path| path.display().to_string();
        let ends = self.ends.map_or(Value::Null, rfc3339);
        if format == Format::Json {
            let object = json!({
                "identity": self.identity.resource().as_ref(),
                "role": self.role,
                "key_file": text(&self.key),
                "certificate_file": text(&self.certificate),
                "ca_file": text(&self.ca),
                "expire_time": ends,
                "address": self.address,
            });
            return print_json(&object);
        }
        let role = self
            .role
            .as_ref()
            .map(|role| format!(", role {role}"))
            .unwrap_or_default();
        let ends = ends.as_str().unwrap_or("-");
        print_line(format_args!(
            "# {}{role}, until {ends}. To act as it:",
            self.identity.resource()
        ))?;
        let lines = export_lines(&self.address, &self.ca, &self.certificate, &self.key);
        print_line(lines.trim_end())?;
        if self.listener == Listener::Admin {
            print_line(
                "# That is the admin listener. Give an application the data listener's address: `data` under [listen] in the \
                 service's configuration",
            )?;
        }
        if self.role.is_some() {
            return Ok(());
        }
        let (name, tenant) = (self.identity.name(), self.identity.tenant());
        let unless = if self.role_known {
            ""
        } else {
            " unless something is granted to it already,"
        };
        print_line(format_args!(
            "#{unless} it may do nothing until: fieldkeep grant create {name} --tenant {tenant} --role data"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_read_with_their_unit() {
        assert_eq!(parse_ttl("90d"), Ok(Duration::from_secs(7_776_000)));
        assert_eq!(parse_ttl("365d"), Ok(Duration::from_secs(31_536_000)));
        assert_eq!(parse_ttl("1s"), Ok(Duration::from_secs(1)));
        for wrong in [
            "",
            "90",
            "d",
            "-1d",
            "0s",
            "366d",
            "99999999999999999999d",
            "1é",
        ] {
            assert!(parse_ttl(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn private_keys_are_for_their_owner_alone_and_not_replaced_unasked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.key");
        write_file(&path, "one", 0o600, false).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(write_file(&path, "two", 0o600, false).is_err());
        write_file(&path, "two", 0o600, true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
    }
}
