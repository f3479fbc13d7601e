//! Where the service is and who the caller is: from options, the environment or a profile, in this order.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use fieldkeep_client::Client;
use zeroize::Zeroizing;

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
    /// Token of an identity provider, instead of a certificate and its key
    #[arg(
        long,
        global = true,
        env = "FIELDKEEP_TOKEN_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    token_file: Option<OsString>,
    /// API key, instead of a certificate and its key; FIELDKEEP_API_KEY may hold the key itself
    #[arg(
        long,
        global = true,
        env = "FIELDKEEP_API_KEY_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    api_key_file: Option<OsString>,
    /// What FIELDKEEP_API_KEY holds. No option does: other users see the arguments of a process.
    #[arg(skip)]
    api_key: Option<Secret>,
    /// Whether a certificate or its key was given by an option, and no token and no API key was.
    #[arg(skip)]
    certificate_by_option: bool,
}

/// A secret of the environment.
#[derive(Clone)]
struct Secret(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<hidden>")
    }
}

/// What is shown with each call instead of a certificate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bearer<'a> {
    /// The token in this file.
    TokenFile(&'a Path),
    /// The API key in this file.
    ApiKeyFile(&'a Path),
    /// The API key of the environment.
    ApiKey(&'a [u8]),
}

impl ConnectionArgs {
    /// Notes by what the caller was named: an option comes before the variables of another kind.
    pub(crate) fn note_sources(&mut self, matches: &ArgMatches) {
        let by_option = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
        let by_bearer = by_option("token_file") || by_option("api_key_file");
        self.certificate_by_option = !by_bearer && (by_option("cert") || by_option("key_file"));
    }

    /// A client of the service. Connects with the first call.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let ca = read_pem(self.ca.as_ref(), "--ca", "FIELDKEEP_CA")?;
        let builder = Client::builder().address(self.address()).ca_pem(&ca);
        let builder = match self.bearer() {
            Some(Bearer::TokenFile(path)) => builder.token_file(path),
            Some(Bearer::ApiKeyFile(path)) => builder.api_key_file(path),
            Some(Bearer::ApiKey(key)) => builder.api_key(key),
            None => {
                let cert = read_pem(self.cert.as_ref(), "--cert", "FIELDKEEP_CERT")?;
                let key = read_pem(self.key_file.as_ref(), "--key-file", "FIELDKEEP_KEY")?;
                builder.identity_pem(&cert, &key)
            }
        };
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
        read_pem(self.cert.as_ref(), "--cert", "FIELDKEEP_CERT")?;
        read_pem(self.key_file.as_ref(), "--key-file", "FIELDKEEP_KEY")?;
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
        let given = |path: Option<OsString>| path.filter(|path| !path.is_empty());
        let of_bearer = |path| given(path).filter(|_| !self.certificate_by_option);
        let path = |path: Option<OsString>, of_profile: Option<PathBuf>| {
            given(path).or(of_profile.map(PathBuf::into_os_string))
        };
        let (cert, key_file) = (given(self.cert), given(self.key_file));
        let (token_file, api_key_file) = (of_bearer(self.token_file), of_bearer(self.api_key_file));
        let api_key = of_bearer(std::env::var_os("FIELDKEEP_API_KEY"))
            .map(|key| Secret(Zeroizing::new(key.into_encoded_bytes())));
        let bearers = [
            token_file.is_some(),
            api_key_file.is_some(),
            api_key.is_some(),
        ];
        if bearers.into_iter().filter(|is_given| *is_given).count() > 1 {
            return Err(Failure::new(
                Exit::Usage,
                "more than one token or API key is given",
            )
            .help("give one of --token-file (FIELDKEEP_TOKEN_FILE), --api-key-file (FIELDKEEP_API_KEY_FILE) and FIELDKEEP_API_KEY"));
        }
        // Whoever says who calls is not overruled by what the profile has of another kind.
        let says_who = bearers.contains(&true) || cert.is_some() || key_file.is_some();
        let of_profile =
            |path: Option<PathBuf>| path.filter(|_| !says_who).map(PathBuf::into_os_string);
        let connection = ConnectionArgs {
            profile: name,
            addr: self
                .addr
                .filter(|address| !address.is_empty())
                .or(profile.address),
            ca: path(self.ca, profile.ca),
            cert: path(cert, profile.cert),
            key_file: path(key_file, profile.key),
            token_file: token_file.or(of_profile(profile.token_file)),
            api_key_file: api_key_file.or(of_profile(profile.api_key_file)),
            api_key,
            certificate_by_option: self.certificate_by_option,
        };
        Ok((connection, format.or(profile.format).unwrap_or_default()))
    }

    /// The token or API key, which says who calls if there is one; otherwise a certificate does.
    pub(crate) fn bearer(&self) -> Option<Bearer<'_>> {
        let token = self.token_file.as_deref();
        let key_file = self.api_key_file.as_deref();
        let key = self.api_key.as_ref();
        token
            .map(|path| Bearer::TokenFile(Path::new(path)))
            .or(key_file.map(|path| Bearer::ApiKeyFile(Path::new(path))))
            .or(key.map(|key| Bearer::ApiKey(&key.0)))
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
        let (ca, cert, key) = self.files();
        ca.or(cert).or(key).is_some() || self.bearer().is_some()
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
            "set FIELDKEEP_CA, FIELDKEEP_CERT and FIELDKEEP_KEY; `fieldkeep dev`, `fieldkeep init` and `fieldkeep cert issue` print the lines. A token (--token-file) or an API key (--api-key-file) takes the place of the last two",
        ));
    };
    std::fs::read(path).map_err(|error| {
        file_failure("read", path, &error).while_doing(format_args!(
            "{option} ({variable}) does not name a readable file"
        ))
    })
}
