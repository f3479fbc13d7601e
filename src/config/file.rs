//! The form of the file.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::Spanned;

use self::check::Source;
use super::{Config, ConfigError, LogConfig, LogFormat, LogLevel, StoreConfig};

pub(super) mod check;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    data_dir: Spanned<PathBuf>,
    root: Spanned<RootSection>,
    #[serde(default)]
    listen: ListenSection,
    tls: TlsSection,
    #[serde(default)]
    store: StoreSection,
    #[serde(default)]
    audit: AuditSection,
    #[serde(default)]
    log: LogSection,
    #[serde(default)]
    cache: CacheSection,
    #[serde(default)]
    limits: LimitsSection,
    #[serde(default)]
    rotation: RotationSection,
    #[serde(default)]
    telemetry: TelemetrySection,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RootSection {
    provider: Provider,
    path: Option<Spanned<PathBuf>>,
    passphrase_file: Option<Spanned<PathBuf>>,
    passphrase_env: Option<Spanned<String>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Provider {
    KeyFile,
    Passphrase,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenSection {
    data: Option<Spanned<SocketAddr>>,
    admin: Option<Spanned<SocketAddr>>,
    metrics: Option<Spanned<SocketAddr>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsSection {
    ca: Spanned<PathBuf>,
    cert: Spanned<PathBuf>,
    key: Spanned<PathBuf>,
    trust_domain: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreSection {
    mirror_dir: Option<Spanned<PathBuf>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditSection {
    mirror_dir: Option<Spanned<PathBuf>>,
    segment_bytes: Option<Spanned<u64>>,
    window_ms: Option<Spanned<u64>>,
    reserve_bytes: Option<Spanned<u64>>,
    archive_dir: Option<Spanned<PathBuf>>,
    archive_after_days: Option<Spanned<u64>>,
    disk_warning_percent: Option<Spanned<u64>>,
    checkpoint_file: Option<Spanned<PathBuf>>,
    #[serde(default)]
    checkpoint_command: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogSection {
    format: Option<LogFormat>,
    level: Option<LogLevel>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CacheSection {
    keys: Option<Spanned<u64>>,
    bytes: Option<Spanned<u64>>,
    tenants: Option<Spanned<u64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsSection {
    connections: Option<Spanned<u64>>,
    connections_per_source: Option<Spanned<u64>>,
    handshakes: Option<Spanned<u64>>,
    handshake_timeout_ms: Option<Spanned<u64>>,
    drain_timeout_ms: Option<Spanned<u64>>,
    connection_age_s: Option<Spanned<u64>>,
    calls: Option<Spanned<u64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RotationSection {
    per_second: Option<Spanned<u64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TelemetrySection {
    otlp_endpoint: Option<Spanned<String>>,
    traces: Option<bool>,
    sample_ratio: Option<Spanned<f64>>,
    metrics: Option<bool>,
    metrics_interval_ms: Option<Spanned<u64>>,
    headers_env: Option<Spanned<BTreeMap<String, String>>>,
    service_name: Option<String>,
    service_instance: Option<String>,
}

/// Parses the text of the file at `path`.
pub(super) fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let source = Source { path, text };
    let file: ConfigFile = toml::from_str(text).map_err(|error| ConfigError::Syntax {
        path: path.into(),
        line: source.line_at(error.span().map_or(0, |span| span.start)),
        problem: error.message().to_owned(),
    })?;
    let data_dir = source.path("data_dir", &file.data_dir)?;
    Ok(Config {
        root: source.root(&file.root)?,
        listen: source.listen(&file.listen)?,
        tls: source.tls(&file.tls)?,
        store: StoreConfig {
            mirror_dir: source.outside(
                "store.mirror_dir",
                file.store.mirror_dir.as_ref(),
                &data_dir,
            )?,
        },
        audit: source.audit(&file.audit, &data_dir)?,
        log: LogConfig {
            format: file.log.format.unwrap_or_default(),
            level: file.log.level.unwrap_or_default(),
        },
        cache: source.cache(&file.cache)?,
        limits: source.limits(&file.limits)?,
        rotation: source.rotation(&file.rotation)?,
        otlp: source.otlp(&file.telemetry)?,
        data_dir,
    })
}
