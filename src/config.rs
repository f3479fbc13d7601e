//! The configuration file: TOML, read once at start.
//!
//! Unknown settings are refused, secrets are references (a file, an environment variable) and never values, and
//! relative paths are relative to the file. An error names the file, the line, the setting, and what to do.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use self::telemetry::OtlpConfig;
use crate::audit::archive::ArchiveConfig;
use crate::audit::sinks::CheckpointSinks;
use fieldkeep_keystore::{
    info::CacheOptions,
    root::{RootProvider, key_file::KeyFile, passphrase::Passphrase},
};

mod file;
mod passphrase;
pub mod telemetry;
#[cfg(test)]
mod tests;

pub(crate) use file::check::is_trust_domain;

/// The largest configuration file that is read, bytes.
pub const MAX_FILE_BYTES: u64 = 64 * 1024;
/// The trust domain of identities when the file names none.
pub const DEFAULT_TRUST_DOMAIN: &str = "fieldkeep";

/// The configuration of a server, checked; every path is absolute or relative to the working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The directory of the store and of the audit trail.
    pub data_dir: PathBuf,
    /// What protects the master key.
    pub root: RootConfig,
    /// Where the server listens.
    pub listen: Listen,
    /// The server's certificate and the CA of its clients.
    pub tls: Tls,
    /// The store.
    pub store: StoreConfig,
    /// The audit trail.
    pub audit: AuditConfig,
    /// The log.
    pub log: LogConfig,
    /// The key cache.
    pub cache: CacheOptions,
    /// Bounds on what clients may use up.
    pub limits: LimitsConfig,
    /// Rotation on a schedule.
    pub rotation: RotationConfig,
    /// The collector that traces and metrics are sent to, if there is one.
    pub otlp: Option<OtlpConfig>,
}

/// What protects the master key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootConfig {
    /// A file with the root key, mode 0600.
    KeyFile {
        /// The file.
        path: PathBuf,
    },
    /// A passphrase, stretched with Argon2id.
    Passphrase {
        /// Where the passphrase is read from.
        source: PassphraseSource,
    },
}

/// Where a passphrase is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassphraseSource {
    /// The first line of a file, mode 0600 or 0400.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
}

/// The addresses of the three listeners. Port 0 takes a free port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The data plane.
    pub data: SocketAddr,
    /// The control plane.
    pub admin: SocketAddr,
    /// Prometheus metrics, plain HTTP.
    pub metrics: SocketAddr,
}

/// The server's certificate and the CA of its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The CA certificate that clients trust, PEM. The same certificate is in the store.
    pub ca: PathBuf,
    /// The server's certificate, PEM.
    pub cert: PathBuf,
    /// The server's private key, PEM.
    pub key: PathBuf,
    /// The trust domain of identities: `spiffe://<trust domain>/tenant/<tenant>/<name>`.
    pub trust_domain: String,
}

/// The store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreConfig {
    /// A second directory for the recovery journal, best on another disk: an acknowledgement then means both.
    pub mirror_dir: Option<PathBuf>,
}

/// The audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// A second directory for the trail, best on another disk: an acknowledgement then means both.
    pub mirror_dir: Option<PathBuf>,
    /// The size of a segment of the trail, bytes.
    pub segment_bytes: u64,
    /// How long after the reply to an Encrypt its record may be synced; zero: before the reply, as for all other calls.
    pub window: Duration,
    /// Bytes of the last segment that are kept for calls on the admin listener when the disk is full.
    pub reserve_bytes: u64,
    /// How full the disk of a directory may be before the log and the metrics warn of it, percent.
    pub disk_warning_percent: u8,
    /// Where checkpoints are sent.
    pub sinks: CheckpointSinks,
    /// Where old records go.
    pub archive: Option<ArchiveConfig>,
    /// Files with checkpoints that were kept elsewhere, which the trail has to contain; not a setting of the file, but of one start.
    pub min_checkpoints: Vec<PathBuf>,
    /// Whether to start with a trail that has lost records; not a setting of the file, but of one start.
    pub accept_loss: bool,
}

impl Default for AuditConfig {
    fn default() -> AuditConfig {
        AuditConfig {
            mirror_dir: None,
            segment_bytes: 16 * 1024 * 1024,
            window: Duration::ZERO,
            reserve_bytes: 256 * 1024,
            disk_warning_percent: 80,
            sinks: CheckpointSinks::default(),
            archive: None,
            min_checkpoints: Vec::new(),
            accept_loss: false,
        }
    }
}

/// The log, on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// The form of a line.
    pub format: LogFormat,
    /// The least severe level of Fieldkeep's own events. Events of its dependencies are shown from `warn`.
    pub level: LogLevel,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How severe an event must be to be logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Errors alone.
    Error,
    /// And warnings.
    Warn,
    /// And what an operator wants to know.
    #[default]
    Info,
    /// And what a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

/// Bounds on what clients may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// The most open connections on the data and admin listeners together.
    pub connections: usize,
    /// The most of them from one address, or from one /64 of IPv6; on the admin listener an eighth of that.
    pub connections_per_source: usize,
    /// The most TLS handshakes under way at once.
    pub handshakes: usize,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long calls under way may take to end at shutdown.
    pub drain_timeout: Duration,
    /// How old a connection may get before it is told to go; a tenth more or less, so that not all go at once.
    pub connection_age: Duration,
    /// How many calls of `FieldService` may be under way at once before some are shed.
    pub calls: u32,
}

impl Default for LimitsConfig {
    fn default() -> LimitsConfig {
        LimitsConfig {
            connections: 10_000,
            connections_per_source: 2_500,
            handshakes: 256,
            handshake_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
            connection_age: Duration::from_secs(3600),
            calls: 4096,
        }
    }
}

/// Rotation on a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationConfig {
    /// The most keys that rotate or retire versions by themselves in a second.
    pub per_second: usize,
}

impl Default for RotationConfig {
    fn default() -> RotationConfig {
        RotationConfig { per_second: 50 }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no such file.
    #[error("there is no configuration file `{}`: make one with `fieldkeep init --dir DIR`, or name another with `--config`", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file is no configuration: too large, or not UTF-8.
    #[error("`{}` is no configuration file: {problem}", path.display())]
    NotConfiguration {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// The file is not TOML, or has a setting that is unknown, missing, or of the wrong type.
    #[error("`{}`, line {line}: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A setting has a value that it cannot have.
    #[error("`{}`, line {line}: setting `{setting}`: {problem}", path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The setting's full name, for example `audit.segment_bytes`.
        setting: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The passphrase's environment variable is unset, empty, or not UTF-8.
    #[error(
        "the environment variable `{variable}` of setting `root.passphrase_env` {problem}: set it to the passphrase"
    )]
    PassphraseVariable {
        /// The variable.
        variable: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The value of a header for the collector cannot be had.
    #[error(
        "the environment variable `{variable}` of setting `telemetry.headers_env` {problem}: set it to the value of the header `{header}`"
    )]
    HeaderVariable {
        /// The variable.
        variable: String,
        /// The header.
        header: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The passphrase's file cannot be used.
    #[error("the passphrase file `{}` of setting `root.passphrase_file` {problem}", path.display())]
    PassphraseFile {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
}

impl Config {
    /// Reads and checks a configuration file. Relative paths in it are taken as relative to its directory.
    ///
    /// # Errors
    /// See [`ConfigError`]; each message names the file and, where there is one, the line and the setting.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = read_text(path)?;
        file::parse(path, &text)
    }
}

impl RootConfig {
    /// The provider of the root key. A passphrase is read here, a key file only when it is used.
    ///
    /// # Errors
    /// The passphrase's file or environment variable cannot be used.
    pub fn provider(&self) -> Result<Box<dyn RootProvider>, ConfigError> {
        match self {
            RootConfig::KeyFile { path } => Ok(Box::new(KeyFile::new(path.clone()))),
            RootConfig::Passphrase { source } => {
                Ok(Box::new(Passphrase::new(passphrase::read(source)?)))
            }
        }
    }
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let read_error = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing { path: path.into() },
        _ => ConfigError::Read {
            path: path.into(),
            source,
        },
    };
    let refuse = |problem| ConfigError::NotConfiguration {
        path: path.into(),
        problem,
    };
    let metadata = fs::metadata(path).map_err(read_error)?;
    if !metadata.is_file() {
        return Err(refuse(
            "it is not a file; give the path of `fieldkeep.toml` itself",
        ));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(refuse("it is larger than 64 KiB"));
    }
    let bytes = fs::read(path).map_err(read_error)?;
    String::from_utf8(bytes).map_err(|_| refuse("it is not UTF-8 text"))
}
