//! The client's settings, from the environment or the application.

use std::{
    env, fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::Uri;
use rustls::{ClientConfig, RootCertStore, client::Resumption, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _};
use zeroize::Zeroizing;

use crate::{
    Client, Error,
    connect::{Address, ConnectionState, open_channel},
};

const DEFAULT_PORT: u16 = 7420;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_BATCH_TIMEOUT: Duration = Duration::from_secs(60);
/// No certificate or key comes near this length; the bound keeps a wrong path from filling the memory.
const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// What is wrong with a client's settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// An environment variable is missing or empty.
    #[error("the environment variable `{name}` is not set; it is {what}")]
    MissingVariable {
        /// The variable.
        name: &'static str,
        /// What belongs into it.
        what: &'static str,
    },
    /// An environment variable is not UTF-8.
    #[error("the environment variable `{name}` is not UTF-8 text")]
    VariableNotText {
        /// The variable.
        name: &'static str,
    },
    /// A setting is missing.
    #[error("the client has no {what}; call `{call}`")]
    Missing {
        /// What is missing.
        what: &'static str,
        /// How to give it.
        call: &'static str,
    },
    /// The address cannot be understood.
    #[error(
        "`{address}` is not the address of a service; write `https://host:port` or `host:port`"
    )]
    BadAddress {
        /// The address.
        address: Box<str>,
    },
    /// A file cannot be read.
    #[error("cannot read the {what} file `{}`: {source}", path.display())]
    Unreadable {
        /// What the file is for.
        what: Part,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or text does not hold what it should.
    #[error("the {what} {origin} {problem}")]
    BadPem {
        /// What it is for.
        what: Part,
        /// The file, or that it was given in memory.
        origin: Origin,
        /// What is wrong with it.
        problem: PemProblem,
    },
    /// The private key is not that of the certificate.
    #[error("the private key {key} does not belong to the certificate {certificate}")]
    KeyMismatch {
        /// Where the key is from.
        key: Origin,
        /// Where the certificate is from.
        certificate: Origin,
    },
    /// TLS cannot use what it was given.
    #[error("the identity cannot be used for TLS 1.3: {0}")]
    Tls(#[source] rustls::Error),
    /// The client was built outside a Tokio runtime.
    #[error("the client has to be built inside a Tokio runtime, which runs its connection")]
    NoRuntime,
}

/// A part of the client's credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The CA certificate.
    Ca,
    /// The client's certificate.
    Certificate,
    /// The client's private key.
    Key,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ca => "CA certificate",
            Self::Certificate => "client certificate",
            Self::Key => "private key",
        })
    }
}

/// Where a part of the credentials is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// Memory.
    Memory,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file `{}`", path.display()),
            Self::Memory => f.write_str("given in memory"),
        }
    }
}

/// What is wrong with a PEM text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemProblem {
    /// There is no PEM section at all.
    #[error("is not PEM: no `-----BEGIN …-----` line is in it")]
    NotPem,
    /// There are PEM sections, but none of the right kind.
    #[error("has no `{expected}` section")]
    NoSection {
        /// The label that is expected.
        expected: &'static str,
    },
    /// A PEM section is cut off or not base64.
    #[error("is damaged PEM")]
    Damaged,
    /// The content is not a certificate.
    #[error("holds a certificate that cannot be read")]
    BadCertificate,
    /// The content is not a private key of a kind that can be used.
    #[error(
        "holds a private key that cannot be read; ECDSA P-256, P-384, Ed25519 and RSA keys are"
    )]
    BadKey,
    /// It is far longer than any such file.
    #[error("is longer than 1 MiB")]
    TooLong,
}

/// The settings of a [`Client`], from [`Client::builder`].
#[derive(Clone, Default)]
pub struct ClientBuilder {
    address: Option<String>,
    ca: Option<Source>,
    identity: Option<(Source, Source)>,
    timeout: Option<Duration>,
    batch_timeout: Option<Duration>,
}

#[derive(Clone)]
enum Source {
    File(PathBuf),
    Memory(Zeroizing<Vec<u8>>),
}

impl fmt::Debug for ClientBuilder {
    // The identity may hold a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("address", &self.address)
            .field("timeout", &self.timeout)
            .field("batch_timeout", &self.batch_timeout)
            .finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// The settings of the environment, as [`Client::from_env`] reads them, to be changed further.
    ///
    /// # Errors
    /// [`ConfigError::MissingVariable`], [`ConfigError::VariableNotText`].
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
        let certificate = required(
            "FIELDKEEP_CERT",
            "the path of this client's certificate, a PEM file",
        )?;
        let key = required(
            "FIELDKEEP_KEY",
            "the path of the certificate's private key, a PEM file",
        )?;
        Ok(Self::default()
            .address(address)
            .ca_file(PathBuf::from(ca))
            .identity_files(PathBuf::from(certificate), PathBuf::from(key)))
    }

    /// The service: `https://host:port` or `host:port`; the port is 7420 if there is none. The service's certificate
    /// has to be for this host.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// A PEM file with the certificate of the CA that signed the service's.
    #[must_use]
    pub fn ca_file(mut self, path: impl AsRef<Path>) -> Self {
        self.ca = Some(Source::File(path.as_ref().into()));
        self
    }

    /// The certificate of the CA that signed the service's, PEM.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.ca = Some(Source::memory(pem.as_ref()));
        self
    }

    /// PEM files with the client's certificate (and, if there are any, the ones between it and the CA) and its key.
    #[must_use]
    pub fn identity_files(mut self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.identity = Some((
            Source::File(certificate.as_ref().into()),
            Source::File(key.as_ref().into()),
        ));
        self
    }

    /// As [`identity_files`](Self::identity_files), from memory.
    #[must_use]
    pub fn identity_pem(mut self, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        self.identity = Some((
            Source::memory(certificate.as_ref()),
            Source::memory(key.as_ref()),
        ));
        self
    }

    /// The time that a call has, with all its tries: 10 seconds if nothing is said.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The time that a batch has, with all its tries: 60 seconds if nothing is said.
    #[must_use]
    pub fn batch_timeout(mut self, timeout: Duration) -> Self {
        self.batch_timeout = Some(timeout);
        self
    }

    /// Reads the files and makes the client, which connects when the first call is made.
    ///
    /// # Errors
    /// [`Error::Config`] says which setting or file is missing or wrong. A Tokio runtime has to be there.
    pub fn build(self) -> Result<Client, Error> {
        let missing = |what, call| ConfigError::Missing { what, call };
        let address = self.address.ok_or(missing("address", "address"))?;
        let ca = self.ca.ok_or(missing("CA certificate", "ca_file"))?;
        let (certificate, key) = self.identity.ok_or(missing("identity", "identity_files"))?;
        let address = parse_address(&address)?;
        let tls = tls_config(&ca, &certificate, &key)?;
        let state = Arc::new(ConnectionState::default());
        let channel = open_channel(&address, Arc::new(tls), &state)?;
        Ok(Client::new(
            channel,
            address.authority.into(),
            self.timeout.unwrap_or(DEFAULT_TIMEOUT),
            self.batch_timeout.unwrap_or(DEFAULT_BATCH_TIMEOUT),
            state,
        ))
    }
}

impl Source {
    fn memory(pem: &[u8]) -> Self {
        Self::Memory(Zeroizing::new(pem.to_vec()))
    }

    fn origin(&self) -> Origin {
        match self {
            Self::File(path) => Origin::File(path.clone()),
            Self::Memory(_) => Origin::Memory,
        }
    }

    fn read(&self, what: Part) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
        let path = match self {
            Self::Memory(pem) => return Ok(pem.clone()),
            Self::File(path) => path,
        };
        let unreadable = |source| ConfigError::Unreadable {
            what,
            path: path.clone(),
            source,
        };
        // Its length is known beforehand, so that no copy of a key is left behind by a growing buffer.
        if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_PEM_BYTES {
            return Err(self.bad(what, PemProblem::TooLong));
        }
        std::fs::read(path).map(Zeroizing::new).map_err(unreadable)
    }

    fn bad(&self, what: Part, problem: PemProblem) -> ConfigError {
        ConfigError::BadPem {
            what,
            origin: self.origin(),
            problem,
        }
    }

    fn certificates(&self, what: Part) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let text = self.read(what)?;
        let certificates = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| self.bad(what, pem_problem(&error, &text, "CERTIFICATE")))?;
        if certificates.is_empty() {
            return Err(self.bad(
                what,
                pem_problem(&pem::Error::NoItemsFound, &text, "CERTIFICATE"),
            ));
        }
        Ok(certificates)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, ConfigError> {
        let text = self.read(Part::Key)?;
        PrivateKeyDer::from_pem_slice(&text)
            .map_err(|error| self.bad(Part::Key, pem_problem(&error, &text, "PRIVATE KEY")))
    }
}

fn pem_problem(error: &pem::Error, text: &[u8], expected: &'static str) -> PemProblem {
    let has_section = text.windows(11).any(|window| window == b"-----BEGIN ");
    match error {
        pem::Error::NoItemsFound if has_section => PemProblem::NoSection { expected },
        pem::Error::NoItemsFound => PemProblem::NotPem,
        _ => PemProblem::Damaged,
    }
}

/// TLS 1.3 only, ring's algorithms, one CA, a client certificate, no resumption.
fn tls_config(
    ca: &Source,
    certificate: &Source,
    key: &Source,
) -> Result<ClientConfig, ConfigError> {
    let mut roots = RootCertStore::empty();
    for root in ca.certificates(Part::Ca)? {
        roots
            .add(root)
            .map_err(|_| ca.bad(Part::Ca, PemProblem::BadCertificate))?;
    }
    let chain = certificate.certificates(Part::Certificate)?;
    let private_key = key.private_key()?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(ConfigError::Tls)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, private_key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => ConfigError::KeyMismatch {
                key: key.origin(),
                certificate: certificate.origin(),
            },
            rustls::Error::InvalidCertificate(_) => {
                certificate.bad(Part::Certificate, PemProblem::BadCertificate)
            }
            rustls::Error::General(_) => key.bad(Part::Key, PemProblem::BadKey),
            other => ConfigError::Tls(other),
        })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn parse_address(text: &str) -> Result<Address, ConfigError> {
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
    if expected != authority || port == 0 {
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
