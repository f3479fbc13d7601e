//! Where the service is and who the caller is: from options or the environment.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use fieldkeep_client::Client;

use super::failure::{Exit, Failure, file_failure};

/// The admin listener of a service that runs with default settings.
const DEFAULT_ADDRESS: &str = "https://127.0.0.1:7421";

/// How to reach the service. An empty variable is as good as none.
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
        default_value = DEFAULT_ADDRESS
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
            .timeout(Duration::from_secs(30))
            .build()
            .map_err(Failure::from)
    }

    /// The address as it was given.
    pub(crate) fn address(&self) -> &str {
        if self.addr.is_empty() {
            DEFAULT_ADDRESS
        } else {
            &self.addr
        }
    }
}

fn read_pem(path: Option<&OsString>, option: &str, variable: &str) -> Result<Vec<u8>, Failure> {
    let Some(path) = path.filter(|path| !path.is_empty()).map(Path::new) else {
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
