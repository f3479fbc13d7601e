//! Where the service is and who the caller is: from options, the environment or a profile, in this order.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use fieldkeep_client::Client;

use super::failure::{Exit, Failure, file_failure};
use super::output::{Format, shell_word};
use super::profile;

/// The admin listener of a service that runs with default settings.
const DEFAULT_ADDRESS: &str = "https://127.0.0.1:7421";

/// How to reach the service. An empty variable is as good as none.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// Profile for what is not given otherwise
    #[arg(
        long,
        global = true,
        env = "FIELDKEEP_PROFILE",
        hide_env_values = true,
        value_name = "NAME"
    )]
    profile: Option<String>,
    /// Address of the service [default: https://127.0.0.1:7421]
    #[arg(
        long,
        global = true,
        env = "FIELDKEEP_ADDR",
        hide_env_values = true,
        value_name = "URL"
    )]
    addr: Option<String>,
    /// CA certificate of the service, PEM
    #[arg(
        long,
        global = true,
        env = "FIELDKEEP_CA",
        hide_env_values = true,
        value_name = "FILE"
    )]
    ca: Option<OsString>,
    /// Certificate of the caller, PEM
    #[arg(
        long,
        global = true,
        env = "FIELDKEEP_CERT",
        hide_env_values = true,
        value_name = "FILE"
    )]
    cert: Option<OsString>,
    /// Private key of the caller, PEM
    #[arg(
        long,
        global = true,
        env = "FIELDKEEP_KEY",
        hide_env_values = true,
        value_name = "FILE"
    )]
    key_file: Option<OsString>,
}

impl ConnectionArgs {
    /// A client of the service. Connects with the first call.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let ca = read_pem(self.ca.as_ref(), "--ca", "FIELDKEEP_CA")?;
        let cert = read_pem(self.cert.as_ref(), "--cert", "FIELDKEEP_CERT")?;
        let key = read_pem(self.key_file.as_ref(), "--key-file", "FIELDKEEP_KEY")?;
        let builder = Client::builder()
            .address(self.address())
            .ca_pem(&ca)
            .identity_pem(&cert, &key);
        builder
            // One that is short-lived leaves that to `cert renew` and to the SDK.
            .renew(false)
            .timeout(Duration::from_secs(30))
            .build()
            .map_err(Failure::from)
    }

    /// A client that reads the identity from its files and can replace them.
    pub(crate) fn client_of_files(&self) -> Result<Client, Failure> {
        // For the messages about what is missing.
        self.client()?;
        let file = |path: &Option<OsString>| PathBuf::from(path.clone().unwrap_or_default());
        Client::builder()
            .address(self.address())
            .ca_file(file(&self.ca))
            .identity_files(file(&self.cert), file(&self.key_file))
            .renew(false)
            .timeout(Duration::from_secs(30))
            .build()
            .map_err(Failure::from)
    }

    /// Fills what was not given from the profile, and the format of results with it.
    pub(crate) fn with_profile(
        self,
        format: Option<Format>,
    ) -> Result<(ConnectionArgs, Format), Failure> {
        let name = self.profile.filter(|name| !name.is_empty());
        let profile = profile::load(name.as_deref())?;
        let path = |given: Option<OsString>, of_profile: Option<PathBuf>| {
            given
                .filter(|path| !path.is_empty())
                .or(of_profile.map(PathBuf::into_os_string))
        };
        let connection = ConnectionArgs {
            profile: name,
            addr: self
                .addr
                .filter(|address| !address.is_empty())
                .or(profile.address),
            ca: path(self.ca, profile.ca),
            cert: path(self.cert, profile.cert),
            key_file: path(self.key_file, profile.key),
        };
        Ok((connection, format.or(profile.format).unwrap_or_default()))
    }

    /// CA, certificate and key, as they were given.
    pub(crate) fn files(&self) -> (Option<&Path>, Option<&Path>, Option<&Path>) {
        (
            self.ca.as_deref().map(Path::new),
            self.cert.as_deref().map(Path::new),
            self.key_file.as_deref().map(Path::new),
        )
    }

    /// Whether anything was given of who the caller is.
    pub(crate) fn names_identity(&self) -> bool {
        self.ca.is_some() || self.cert.is_some() || self.key_file.is_some()
    }

    /// The address as it was given.
    pub(crate) fn address(&self) -> &str {
        self.addr.as_deref().unwrap_or(DEFAULT_ADDRESS)
    }
}

/// The lines that make the shell, the SDK and this command act as an identity: an `export` each, with absolute paths.
pub(crate) fn export_lines(address: &str, ca: &Path, certificate: &Path, key: &Path) -> String {
    let absolute = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let line = |variable: &str, value: &str| {
        format!("export FIELDKEEP_{variable}={}\n", shell_word(value))
    };
    let paths = [("CA", ca), ("CERT", certificate), ("KEY", key)];
    let paths = paths.map(|(variable, path)| line(variable, &absolute(path).display().to_string()));
    line("ADDR", address) + &paths.concat()
}

fn read_pem(path: Option<&OsString>, option: &str, variable: &str) -> Result<Vec<u8>, Failure> {
    let Some(path) = path.filter(|path| !path.is_empty()).map(Path::new) else {
        return Err(Failure::new(Exit::Usage, format_args!("`{variable}` is not set, and {option} is not given")).help(
            "set FIELDKEEP_CA, FIELDKEEP_CERT and FIELDKEEP_KEY; `fieldkeep dev`, `fieldkeep init` and `fieldkeep cert issue` print the lines",
        ));
    };
    std::fs::read(path).map_err(|error| {
        file_failure("read", path, &error).while_doing(format_args!(
            "{option} ({variable}) does not name a readable file"
        ))
    })
}
