//! Where the service is and who the caller is: from options or the environment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use fieldkeep_client::Client;

use super::failure::{Exit, Failure, file_failure};

/// How to reach the service.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// Address of the service
    #[arg(
        long,
        global = true,
        env = "FIELDKEEP_ADDR",
        hide_env_values = true,
        value_name = "URL",
        default_value = "https://127.0.0.1:7421"
    )]
    addr: String,
    /// CA certificate of the service, PEM
    #[arg(
        long,
        global = true,
        env = "FIELDKEEP_CA",
        hide_env_values = true,
        value_name = "FILE"
    )]
    ca: Option<PathBuf>,
    /// Certificate of the caller, PEM
    #[arg(
        long,
        global = true,
        env = "FIELDKEEP_CERT",
        hide_env_values = true,
        value_name = "FILE"
    )]
    cert: Option<PathBuf>,
    /// Private key of the caller, PEM
    #[arg(
        long,
        global = true,
        env = "FIELDKEEP_KEY",
        hide_env_values = true,
        value_name = "FILE"
    )]
    key_file: Option<PathBuf>,
}

impl ConnectionArgs {
    /// A client of the service. Connects with the first call.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let ca = read_pem(self.ca.as_deref(), "--ca", "FIELDKEEP_CA")?;
        let cert = read_pem(self.cert.as_deref(), "--cert", "FIELDKEEP_CERT")?;
        let key = read_pem(self.key_file.as_deref(), "--key-file", "FIELDKEEP_KEY")?;
        let builder = Client::builder()
            .address(&self.addr)
            .ca_pem(&ca)
            .identity_pem(&cert, &key);
        builder
            .timeout(Duration::from_secs(30))
            .build()
            .map_err(Failure::from)
    }

    /// The address as it was given.
    pub(crate) fn address(&self) -> &str {
        &self.addr
    }
}

fn read_pem(path: Option<&Path>, option: &str, variable: &str) -> Result<Vec<u8>, Failure> {
    let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else {
        return Err(Failure::new(Exit::Usage, format_args!("`{variable}` is not set, and {option} is not given")).help(
            "set FIELDKEEP_CA, FIELDKEEP_CERT and FIELDKEEP_KEY; `fieldkeep init` and `fieldkeep cert issue` print the lines",
        ));
    };
    std::fs::read(path).map_err(|error| {
        file_failure("read", path, &error).while_doing(format_args!(
            "{option} ({variable}) does not name a readable file"
        ))
    })
}
