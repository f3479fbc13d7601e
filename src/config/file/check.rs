//! The checks that turn the sections of the file into a [`crate::config::Config`].

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use fieldkeep_keystore::info::CacheOptions;
use http::HeaderName;
use toml::Spanned;

use super::{
    AuditSection, CacheSection, LimitsSection, ListenSection, Provider, RootSection,
    RotationSection, TelemetrySection, TlsSection,
};
use crate::audit::archive::ArchiveConfig;
use crate::audit::sinks::CheckpointSinks;
use crate::config::{
    AuditConfig, ConfigError, DEFAULT_TRUST_DOMAIN, LimitsConfig, Listen, PassphraseSource,
    RootConfig, RotationConfig, Tls,
    telemetry::{CollectorAddress, OtlpConfig},
};

/// The file that is being read, for paths and messages.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    pub(super) fn line_at(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    fn refuse<T>(
        &self,
        setting: &'static str,
        at: &Spanned<T>,
        problem: impl Into<String>,
    ) -> ConfigError {
        ConfigError::Setting {
            path: self.path.into(),
            line: self.line_at(at.span().start),
            setting,
            problem: problem.into(),
        }
    }

    pub(super) fn path(
        &self,
        setting: &'static str,
        value: &Spanned<PathBuf>,
    ) -> Result<PathBuf, ConfigError> {
        if value.get_ref().as_os_str().is_empty() {
            return Err(self.refuse(setting, value, "the path is empty"));
        }
        let base = self.path.parent().unwrap_or(Path::new(""));
        Ok(base.join(value.get_ref()))
    }

    fn required<'v, T>(
        &self,
        root: &Spanned<RootSection>,
        setting: &'static str,
        value: Option<&'v Spanned<T>>,
        problem: &'static str,
    ) -> Result<&'v Spanned<T>, ConfigError> {
        value.ok_or_else(|| self.refuse(setting, root, problem))
    }

    fn unwanted<T>(
        &self,
        setting: &'static str,
        value: Option<&Spanned<T>>,
        problem: &'static str,
    ) -> Result<(), ConfigError> {
        value.map_or(Ok(()), |value| Err(self.refuse(setting, value, problem)))
    }

    pub(super) fn root(&self, root: &Spanned<RootSection>) -> Result<RootConfig, ConfigError> {
        let section = root.get_ref();
        let (path, file) = (section.path.as_ref(), section.passphrase_file.as_ref());
        let variable = section.passphrase_env.as_ref();
        match section.provider {
            Provider::KeyFile => {
                let problem =
                    "belongs to provider `passphrase`; remove it, or change `root.provider`";
                self.unwanted("root.passphrase_file", file, problem)?;
                self.unwanted("root.passphrase_env", variable, problem)?;
                let path = self.required(
                    root,
                    "root.path",
                    path,
                    "missing; name the file that holds the root key",
                )?;
                Ok(RootConfig::KeyFile {
                    path: self.path("root.path", path)?,
                })
            }
            Provider::Passphrase => {
                let problem =
                    "belongs to provider `key-file`; remove it, or change `root.provider`";
                self.unwanted("root.path", path, problem)?;
                let source = match (file, variable) {
                    (Some(file), None) => {
                        PassphraseSource::File(self.path("root.passphrase_file", file)?)
                    }
                    (None, variable) => {
                        let problem =
                            "missing; set it or `passphrase_file` to say where the passphrase is";
                        let variable =
                            self.required(root, "root.passphrase_env", variable, problem)?;
                        self.variable(variable)?
                    }
                    (Some(_), Some(variable)) => {
                        let problem = "both it and `passphrase_file` are set; keep one";
                        return Err(self.refuse("root.passphrase_env", variable, problem));
                    }
                };
                Ok(RootConfig::Passphrase { source })
            }
        }
    }

    fn variable(&self, name: &Spanned<String>) -> Result<PassphraseSource, ConfigError> {
        let text = name.get_ref();
        if !is_variable(text) {
            return Err(self.refuse("root.passphrase_env", name, NO_VARIABLE));
        }
        Ok(PassphraseSource::Environment(text.clone()))
    }

    pub(super) fn listen(&self, section: &ListenSection) -> Result<Listen, ConfigError> {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let value = |setting: &Option<Spanned<SocketAddr>>, port| {
            setting
                .as_ref()
                .map_or(local(port), |address| *address.get_ref())
        };
        let listen = Listen {
            data: value(&section.data, 7420),
            admin: value(&section.admin, 7421),
            metrics: value(&section.metrics, 7422),
        };
        let clash = |a: SocketAddr, b: SocketAddr| a.port() != 0 && a == b;
        let pairs = [
            (
                "listen.admin",
                section.admin.as_ref(),
                clash(listen.admin, listen.data),
            ),
            (
                "listen.data",
                section.data.as_ref(),
                clash(listen.admin, listen.data),
            ),
            (
                "listen.metrics",
                section.metrics.as_ref(),
                clash(listen.metrics, listen.data) || clash(listen.metrics, listen.admin),
            ),
            (
                "listen.data",
                section.data.as_ref(),
                clash(listen.metrics, listen.data),
            ),
            (
                "listen.admin",
                section.admin.as_ref(),
                clash(listen.metrics, listen.admin),
            ),
        ];
        for (setting, written, clashes) in pairs {
            if let (true, Some(written)) = (clashes, written) {
                let problem = "another listener has the same address; give each its own";
                return Err(self.refuse(setting, written, problem));
            }
        }
        Ok(listen)
    }

    pub(super) fn tls(&self, section: &TlsSection) -> Result<Tls, ConfigError> {
        let trust_domain = match &section.trust_domain {
            None => DEFAULT_TRUST_DOMAIN.to_owned(),
            Some(written) if is_trust_domain(written.get_ref()) => written.get_ref().clone(),
            Some(written) => {
                let problem =
                    "not a trust domain: 1 to 255 of the letters `a-z`, digits, `.`, `-` and `_`";
                return Err(self.refuse("tls.trust_domain", written, problem));
            }
        };
        Ok(Tls {
            ca: self.path("tls.ca", &section.ca)?,
            cert: self.path("tls.cert", &section.cert)?,
            key: self.path("tls.key", &section.key)?,
            trust_domain,
        })
    }

    /// A mirror or archive inside the data directory would be lost with it.
    pub(super) fn outside(
        &self,
        setting: &'static str,
        value: Option<&Spanned<PathBuf>>,
        data_dir: &Path,
    ) -> Result<Option<PathBuf>, ConfigError> {
        let Some(written) = value else {
            return Ok(None);
        };
        let path = self.path(setting, written)?;
        if path.starts_with(data_dir) || data_dir.starts_with(&path) {
            let problem =
                "it and `data_dir` contain each other; choose a directory on another disk";
            return Err(self.refuse(setting, written, problem));
        }
        Ok(Some(path))
    }

    pub(super) fn audit(
        &self,
        section: &AuditSection,
        data_dir: &Path,
    ) -> Result<AuditConfig, ConfigError> {
        let default = AuditConfig::default();
        Ok(AuditConfig {
            mirror_dir: self.outside("audit.mirror_dir", section.mirror_dir.as_ref(), data_dir)?,
            segment_bytes: self.number(
                "audit.segment_bytes",
                section.segment_bytes.as_ref(),
                // The parts of the largest batch's record, about 4.5 MiB, go into one segment.
                8 * 1024 * 1024..=1024 * 1024 * 1024,
                default.segment_bytes,
            )?,
            window: Duration::from_millis(self.number(
                "audit.window_ms",
                section.window_ms.as_ref(),
                // More would be lost with the power than the promise allows.
                0..=100,
                0,
            )?),
            reserve_bytes: self.number(
                "audit.reserve_bytes",
                section.reserve_bytes.as_ref(),
                0..=4 * 1024 * 1024,
                default.reserve_bytes,
            )?,
            disk_warning_percent: u8::try_from(self.number(
                "audit.disk_warning_percent",
                section.disk_warning_percent.as_ref(),
                1..=99,
                default.disk_warning_percent.into(),
            )?)
            .unwrap_or(default.disk_warning_percent),
            sinks: CheckpointSinks {
                file: section
                    .checkpoint_file
                    .as_ref()
                    .map(|written| self.path("audit.checkpoint_file", written))
                    .transpose()?,
                command: section.checkpoint_command.clone(),
            },
            archive: self.archive(section, data_dir)?,
            min_checkpoints: Vec::new(),
            accept_loss: false,
        })
    }

    /// Without a number of days nothing leaves, and what left before is still read.
    fn archive(
        &self,
        section: &AuditSection,
        data_dir: &Path,
    ) -> Result<Option<ArchiveConfig>, ConfigError> {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let days = section.archive_after_days.as_ref();
        let dir = self.outside("audit.archive_dir", section.archive_dir.as_ref(), data_dir)?;
        match (dir, days) {
            (None, None) => Ok(None),
            (None, Some(written)) => Err(self.refuse(
                "audit.archive_after_days",
                written,
                "there is no `audit.archive_dir` for records to go to; set it, or leave this out",
            )),
            (Some(dir), _) => {
                let number = self.number("audit.archive_after_days", days, 1..=36_500, 1)?;
                let after = days.and_then(|_| DAY.checked_mul(u32::try_from(number).ok()?));
                Ok(Some(ArchiveConfig { dir, after }))
            }
        }
    }

    pub(super) fn cache(&self, section: &CacheSection) -> Result<CacheOptions, ConfigError> {
        let default = CacheOptions::default();
        let keys = self.number(
            "cache.keys",
            section.keys.as_ref(),
            1..=10_000_000,
            size(default.max_keys),
        )?;
        let bytes = 1024 * 1024..=64 * 1024 * 1024 * 1024;
        let max_bytes = self.number(
            "cache.bytes",
            section.bytes.as_ref(),
            bytes,
            default.max_bytes,
        )?;
        let tenants = self.number(
            "cache.tenants",
            section.tenants.as_ref(),
            1..=1_000_000,
            size(default.max_tenants),
        )?;
        Ok(CacheOptions {
            max_keys: count(keys),
            max_bytes,
            max_tenants: count(tenants),
        })
    }

    pub(super) fn limits(&self, section: &LimitsSection) -> Result<LimitsConfig, ConfigError> {
        let default = LimitsConfig::default();
        let connections = self.number(
            "limits.connections",
            section.connections.as_ref(),
            1..=1_000_000,
            size(default.connections),
        )?;
        let of_source = self.number(
            "limits.connections_per_source",
            section.connections_per_source.as_ref(),
            1..=1_000_000,
            size(default.connections_per_source),
        )?;
        let handshakes = self.number(
            "limits.handshakes",
            section.handshakes.as_ref(),
            1..=100_000,
            size(default.handshakes),
        )?;
        let handshake_timeout_ms = self.number(
            "limits.handshake_timeout_ms",
            section.handshake_timeout_ms.as_ref(),
            100..=120_000,
            10_000,
        )?;
        let drain_timeout_ms = self.number(
            "limits.drain_timeout_ms",
            section.drain_timeout_ms.as_ref(),
            0..=600_000,
            10_000,
        )?;
        let connection_age_s = self.number(
            "limits.connection_age_s",
            section.connection_age_s.as_ref(),
            1..=86_400,
            default.connection_age.as_secs(),
        )?;
        let calls = self.number(
            "limits.calls",
            section.calls.as_ref(),
            1..=1_000_000,
            u64::from(default.calls),
        )?;
        Ok(LimitsConfig {
            connections: count(connections),
            connections_per_source: count(of_source),
            handshakes: count(handshakes),
            handshake_timeout: Duration::from_millis(handshake_timeout_ms),
            drain_timeout: Duration::from_millis(drain_timeout_ms),
            connection_age: Duration::from_secs(connection_age_s),
            calls: u32::try_from(calls).unwrap_or(u32::MAX),
        })
    }

    pub(super) fn rotation(
        &self,
        section: &RotationSection,
    ) -> Result<RotationConfig, ConfigError> {
        let per_second = self.number(
            "rotation.per_second",
            section.per_second.as_ref(),
            1..=10_000,
            size(RotationConfig::default().per_second),
        )?;
        Ok(RotationConfig {
            per_second: count(per_second),
        })
    }

    pub(super) fn otlp(
        &self,
        section: &TelemetrySection,
    ) -> Result<Option<OtlpConfig>, ConfigError> {
        let sample_per_million = match &section.sample_ratio {
            None => 1_000_000,
            Some(ratio) if (0.0..=1.0).contains(ratio.get_ref()) => per_million(*ratio.get_ref()),
            Some(ratio) => {
                let problem = "out of range; choose 0.0 (none) to 1.0 (all)";
                return Err(self.refuse("telemetry.sample_ratio", ratio, problem));
            }
        };
        let metrics_interval_ms = self.number(
            "telemetry.metrics_interval_ms",
            section.metrics_interval_ms.as_ref(),
            100..=3_600_000,
            15_000,
        )?;
        let headers = self.headers(section)?;
        let Some(endpoint) = &section.otlp_endpoint else {
            return Ok(None);
        };
        let name = |setting: &Option<String>, default: fn() -> String| {
            setting.clone().unwrap_or_else(default)
        };
        Ok(Some(OtlpConfig {
            endpoint: CollectorAddress::parse(endpoint.get_ref())
                .map_err(|problem| self.refuse("telemetry.otlp_endpoint", endpoint, problem))?,
            headers,
            traces: section.traces.unwrap_or(true),
            sample_per_million,
            metrics: section.metrics.unwrap_or(true),
            metrics_interval: Duration::from_millis(metrics_interval_ms),
            service_name: name(&section.service_name, || String::from("fieldkeep")),
            service_instance: name(&section.service_instance, host_name),
        }))
    }

    fn headers(
        &self,
        section: &TelemetrySection,
    ) -> Result<Vec<(HeaderName, String)>, ConfigError> {
        let setting = "telemetry.headers_env";
        let Some(written) = &section.headers_env else {
            return Ok(Vec::new());
        };
        let header = |(name, variable): (&String, &String)| {
            if !is_variable(variable) {
                return Err(self.refuse(setting, written, NO_VARIABLE));
            }
            let name = HeaderName::try_from(name.as_str()).map_err(|_| {
                let problem = format!("`{name}` is not the name of a header");
                self.refuse(setting, written, problem)
            })?;
            Ok((name, variable.clone()))
        };
        written.get_ref().iter().map(header).collect()
    }

    fn number(
        &self,
        setting: &'static str,
        value: Option<&Spanned<u64>>,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, ConfigError> {
        match value {
            None => Ok(default),
            Some(written) if range.contains(written.get_ref()) => Ok(*written.get_ref()),
            Some(written) => {
                let (least, most) = (range.start(), range.end());
                Err(self.refuse(
                    setting,
                    written,
                    format!(
                        "{} is out of range; choose {least} to {most}",
                        written.get_ref()
                    ),
                ))
            }
        }
    }
}

const NO_VARIABLE: &str = "not the name of an environment variable (letters, digits and `_`)";

fn is_variable(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=255).contains(&text.len()) && text.bytes().all(plain)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the ratio is from 0 to 1"
)]
fn per_million(ratio: f64) -> u32 {
    (ratio * 1_000_000.0).round() as u32
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Whether `text` can be the trust domain of a SPIFFE identity (SPIFFE-ID, section 2.1).
pub(crate) fn is_trust_domain(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    (1..=255).contains(&text.len()) && text.bytes().all(allowed)
}

fn size(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn count(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
