//! The client's settings, from the environment or the application.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    thread::available_parallelism,
    time::Duration,
};

mod error;

use http::Uri;

pub use self::error::ConfigError;

use crate::{
    Client, Error,
    bearer::Bearer,
    call::Settings,
    connect::Address,
    identity::{Credentials, Part, Source},
    pool::Pool,
};

const DEFAULT_PORT: u16 = 7420;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_BATCH_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_PARALLEL_BATCHES: usize = 4;
/// The most connections when nothing is said; the client's cores if they are fewer.
const DEFAULT_CONNECTIONS: usize = 4;
/// More do not help anybody.
const MAX_CONNECTIONS: usize = 64;
const DEFAULT_IDENTITY_CHECK: Duration = Duration::from_secs(5);

/// The settings of a [`Client`], from [`Client::builder`].
#[derive(Clone, Default)]
pub struct ClientBuilder {
    address: Option<String>,
    ca: Option<Source>,
    identity: Option<(Source, Source)>,
    bearer: Option<(Part, Source)>,
    timeout: Option<Duration>,
    batch_timeout: Option<Duration>,
    parallel_batches: Option<usize>,
    connections: Option<usize>,
    identity_check: Option<Duration>,
    without_renewal: bool,
}

impl fmt::Debug for ClientBuilder {
    // The identity may hold a private key, a token or an API key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("address", &self.address)
            .field("timeout", &self.timeout)
            .field("batch_timeout", &self.batch_timeout)
            .field("parallel_batches", &self.parallel_batches)
            .field("connections", &self.connections)
            .field("identity_check", &self.identity_check)
            .field("without_renewal", &self.without_renewal)
            .finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// The settings of the environment, as [`Client::from_env`] reads them, to be changed further.
    ///
    /// # Errors
    /// [`ConfigError::MissingVariable`], [`ConfigError::VariableNotText`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// match fieldkeep_client::ClientBuilder::from_env() {
    ///     Ok(builder) => println!("{:?}", builder.connections(2).build()),
    ///     Err(error) => eprintln!("set FIELDKEEP_ADDR and its like: {error}"),
    /// }
    /// # }
    /// ```
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_variables(env::var_os)
    }

    fn from_variables(
        variable: impl Fn(&'static str) -> Option<std::ffi::OsString>,
    ) -> Result<Self, ConfigError> {
        let required = |name, what| {
            variable(name)
                .filter(|value| !value.is_empty())
                .ok_or(ConfigError::MissingVariable { name, what })
        };
        let address = required(
            "FIELDKEEP_ADDR",
            "the address of the service, for example `https://127.0.0.1:7420`",
        )?
        .into_string()
        .map_err(|_| ConfigError::VariableNotText {
            name: "FIELDKEEP_ADDR",
        })?;
        let ca = required("FIELDKEEP_CA", "the path of the service's `ca.pem`")?;
        let mut builder = Self::default().address(address).ca_file(PathBuf::from(ca));
        builder.bearer = bearer_of(&variable)?;
        let is_set = |name| variable(name).is_some_and(|value| !value.is_empty());
        if builder.bearer.is_some() && !is_set("FIELDKEEP_CERT") && !is_set("FIELDKEEP_KEY") {
            return Ok(builder);
        }
        let certificate = required(
            "FIELDKEEP_CERT",
            "the path of this client's certificate, a PEM file, instead of which FIELDKEEP_TOKEN_FILE or FIELDKEEP_API_KEY may be set",
        )?;
        let key = required(
            "FIELDKEEP_KEY",
            "the path of the certificate's private key, a PEM file",
        )?;
        Ok(builder.identity_files(PathBuf::from(certificate), PathBuf::from(key)))
    }

    /// The service: `https://host:port` or `host:port`; the port is 7420 if there is none. The service's certificate
    /// has to be for this host.
    ///
    /// ```
    /// let builder = fieldkeep_client::Client::builder().address("https://keys.example.org:7420");
    /// ```
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// A PEM file with the certificate of the CA that signed the service's.
    ///
    /// ```
    /// let builder = fieldkeep_client::Client::builder().ca_file("ca.pem");
    /// ```
    #[must_use]
    pub fn ca_file(mut self, path: impl AsRef<Path>) -> Self {
        self.ca = Some(Source::File(path.as_ref().into()));
        self
    }

    /// The certificate of the CA that signed the service's, PEM.
    ///
    /// ```
    /// let builder = fieldkeep_client::Client::builder().ca_pem("-----BEGIN CERTIFICATE-----...");
    /// ```
    #[must_use]
    pub fn ca_pem(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.ca = Some(Source::memory(pem.as_ref()));
        self
    }

    /// PEM files with the client's certificate (and, if there are any, the ones between it and the CA) and its key.
    ///
    /// These files and the CA's are read again while the client is in use ([`identity_check`](Self::identity_check)).
    /// When they have changed, new connections take the place of the present ones; calls under way end where they are. Files
    /// that do not fit together, as a certificate that is there before its key, are left for the next look
    /// ([`Client::identity_problem`]).
    ///
    /// ```
    /// let builder = fieldkeep_client::Client::builder().identity_files("app.pem", "app.key");
    /// ```
    #[must_use]
    pub fn identity_files(mut self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.identity = Some((
            Source::File(certificate.as_ref().into()),
            Source::File(key.as_ref().into()),
        ));
        self
    }

    /// As [`identity_files`](Self::identity_files), from memory.
    ///
    /// ```
    /// let (certificate, key) = ("-----BEGIN CERTIFICATE-----...", "-----BEGIN PRIVATE KEY-----...");
    /// let builder = fieldkeep_client::Client::builder().identity_pem(certificate, key);
    /// ```
    #[must_use]
    pub fn identity_pem(mut self, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        self.identity = Some((
            Source::memory(certificate.as_ref()),
            Source::memory(key.as_ref()),
        ));
        self
    }

    /// A token of an identity provider, shown with each call. It says who the client is; a certificate, if the client has one too,
    /// then secures the connection and says nothing more. The last of [`token`](Self::token), [`token_file`](Self::token_file),
    /// [`api_key`](Self::api_key) and [`api_key_file`](Self::api_key_file) counts.
    ///
    /// ```
    /// let builder = fieldkeep_client::Client::builder().token("eyJhbGciOiJFUzI1NiIs…");
    /// ```
    #[must_use]
    pub fn token(mut self, token: impl AsRef<[u8]>) -> Self {
        self.bearer = Some((Part::Token, Source::memory(token.as_ref())));
        self
    }

    /// As [`token`](Self::token), from a file that may be replaced, as Kubernetes replaces the projected token of a service account.
    ///
    /// It is read again at most once a second while calls are made, and at once when the service refuses what it held: then the call
    /// is tried again with the new one. What cannot be used is left for the next look ([`Client::identity_problem`]).
    ///
    /// ```
    /// let builder = fieldkeep_client::Client::builder().token_file("/var/run/secrets/fieldkeep/token");
    /// ```
    #[must_use]
    pub fn token_file(mut self, path: impl AsRef<Path>) -> Self {
        self.bearer = Some((Part::Token, Source::File(path.as_ref().into())));
        self
    }

    /// An API key, shown with each call, as [`token`](Self::token).
    ///
    /// ```
    /// let builder = fieldkeep_client::Client::builder().api_key("fk_…");
    /// ```
    #[must_use]
    pub fn api_key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.bearer = Some((Part::ApiKey, Source::memory(key.as_ref())));
        self
    }

    /// As [`api_key`](Self::api_key), from a file that may be replaced, as [`token_file`](Self::token_file).
    ///
    /// ```
    /// let builder = fieldkeep_client::Client::builder().api_key_file("app.api-key");
    /// ```
    #[must_use]
    pub fn api_key_file(mut self, path: impl AsRef<Path>) -> Self {
        self.bearer = Some((Part::ApiKey, Source::File(path.as_ref().into())));
        self
    }

    /// The time that a call has, with all its tries: 10 seconds if nothing is said, a day at most.
    ///
    /// ```
    /// use std::time::Duration;
    /// let builder = fieldkeep_client::Client::builder().timeout(Duration::from_secs(2));
    /// ```
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The time that each call of a batch has, with all its tries: 60 seconds if nothing is said, a day at most.
    ///
    /// ```
    /// use std::time::Duration;
    /// let builder = fieldkeep_client::Client::builder().batch_timeout(Duration::from_secs(120));
    /// ```
    #[must_use]
    pub fn batch_timeout(mut self, timeout: Duration) -> Self {
        self.batch_timeout = Some(timeout);
        self
    }

    /// How many calls of one batch are under way at the same time, if it has to be split: 4 if nothing is said, at least 1.
    ///
    /// ```
    /// let builder = fieldkeep_client::Client::builder().parallel_batches(8);
    /// ```
    #[must_use]
    pub fn parallel_batches(mut self, calls: usize) -> Self {
        self.parallel_batches = Some(calls);
        self
    }

    /// The most connections, from 1 to 64; if nothing is said, as many as this machine has cores, at most 4.
    ///
    /// A call takes the connection with the fewest calls under way, and the first of those: so whoever makes one call at a
    /// time has one connection. A service spreads its connections over its cores.
    ///
    /// ```
    /// let builder = fieldkeep_client::Client::builder().connections(1);
    /// ```
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = Some(connections);
        self
    }

    /// How often the identity's files are looked at while calls are made, at most: every 5 seconds if nothing is said. They
    /// are also looked at when the service refuses the client's certificate.
    ///
    /// ```
    /// use std::time::Duration;
    /// let builder = fieldkeep_client::Client::builder().identity_check(Duration::from_secs(60));
    /// ```
    #[must_use]
    pub fn identity_check(mut self, interval: Duration) -> Self {
        self.identity_check = Some(interval);
        self
    }

    /// Whether the client renews its certificate before it ends, by itself: it does if nothing is said.
    ///
    /// At about two thirds of the certificate's life the client makes a new key and has the service sign it. Files that it was
    /// given are replaced, unless it may not write them. [`Client::renewal_problem`] says what is in the way.
    ///
    /// ```
    /// let builder = fieldkeep_client::Client::builder().renew(false);
    /// ```
    #[must_use]
    pub fn renew(mut self, renew: bool) -> Self {
        self.without_renewal = !renew;
        self
    }

    /// Reads the files and makes the client, which connects when the first call is made.
    ///
    /// # Errors
    /// [`Error::Config`] says which setting or file is missing or wrong. A Tokio runtime has to be there.
    ///
    /// ```
    /// use fieldkeep_client::{Client, ErrorKind};
    ///
    /// let error = Client::builder().address("https://127.0.0.1:7420").build().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Config);
    /// assert_eq!(error.to_string(), "the client has no CA certificate; call `ca_file`");
    /// ```
    pub fn build(self) -> Result<Client, Error> {
        let settings = self.settings();
        let missing = |what, call| ConfigError::Missing { what, call };
        let address = self.address.ok_or(missing("address", "address"))?;
        let ca = self.ca.ok_or(missing("CA certificate", "ca_file"))?;
        if self.identity.is_none() && self.bearer.is_none() {
            return Err(missing("identity", "identity_files").into());
        }
        let address = parse_address(&address)?;
        let open = |(what, source)| Bearer::open(what, source);
        let bearer = self.bearer.map(open).transpose()?;
        let has_certificate = self.identity.is_some();
        let credentials = Credentials {
            ca,
            identity: self.identity,
        };
        let connections = self.connections.unwrap_or_else(|| {
            available_parallelism().map_or(1, |cores| cores.get().min(DEFAULT_CONNECTIONS))
        });
        let interval = self.identity_check.unwrap_or(DEFAULT_IDENTITY_CHECK);
        let pool = Pool::open(
            address,
            credentials,
            connections.clamp(1, MAX_CONNECTIONS),
            interval,
        )?;
        let client = Client::new(settings, pool, bearer);
        if has_certificate && !self.without_renewal {
            client.start_renewal();
        }
        Ok(client)
    }

    /// What the client does by itself.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            timeout: self.timeout.unwrap_or(DEFAULT_TIMEOUT),
            batch_timeout: self.batch_timeout.unwrap_or(DEFAULT_BATCH_TIMEOUT),
            parallel: self
                .parallel_batches
                .unwrap_or(DEFAULT_PARALLEL_BATCHES)
                .max(1),
        }
    }
}

/// The token or API key that the environment names, if it names one.
fn bearer_of(
    variable: &impl Fn(&'static str) -> Option<std::ffi::OsString>,
) -> Result<Option<(Part, Source)>, ConfigError> {
    const NAMES: [(&str, Part, bool); 3] = [
        ("FIELDKEEP_TOKEN_FILE", Part::Token, true),
        ("FIELDKEEP_API_KEY", Part::ApiKey, false),
        ("FIELDKEEP_API_KEY_FILE", Part::ApiKey, true),
    ];
    let mut found: Option<(&'static str, Part, Source)> = None;
    for (name, what, is_file) in NAMES {
        let Some(value) = variable(name).filter(|value| !value.is_empty()) else {
            continue;
        };
        if let Some((one, ..)) = found {
            return Err(ConfigError::TwoCredentials { one, other: name });
        }
        let source = if is_file {
            Source::File(PathBuf::from(value))
        } else {
            let text = value
                .into_string()
                .map_err(|_| ConfigError::VariableNotText { name })?;
            Source::memory(text.as_bytes())
        };
        found = Some((name, what, source));
    }
    Ok(found.map(|(_, what, source)| (what, source)))
}

pub(crate) fn parse_address(text: &str) -> Result<Address, ConfigError> {
    let bad = || ConfigError::BadAddress {
        address: text.into(),
    };
    let authority = text.strip_prefix("https://").unwrap_or(text);
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let uri: Uri = format!("https://{authority}").parse().map_err(|_| bad())?;
    let parsed = uri.authority().ok_or_else(bad)?;
    // Anything beside a host and a port (a path, a query, a user) would be ignored in silence.
    let port = parsed.port_u16().unwrap_or(DEFAULT_PORT);
    let expected = match parsed.port() {
        Some(_) => format!("{}:{port}", parsed.host()),
        None => parsed.host().to_owned(),
    };
    if expected != authority || port == 0 || parsed.host().is_empty() {
        return Err(bad());
    }
    let host = parsed.host();
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    Ok(Address {
        host: bare.to_owned(),
        port,
        authority: format!("{host}:{port}"),
    })
}

#[cfg(test)]
mod tests;
