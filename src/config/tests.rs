use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use tempfile::TempDir;

use super::*;

const MINIMAL: &str = "\
data_dir = \"data\"
[root]
provider = \"key-file\"
path = \"root.key\"
[tls]
ca = \"ca.pem\"
cert = \"server.pem\"
key = \"server.key\"
";

fn write(text: &str) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("fieldkeep.toml");
    fs::write(&path, text).unwrap();
    (dir, path)
}

fn load(text: &str) -> Result<Config, ConfigError> {
    let (_dir, path) = write(text);
    Config::load(&path)
}

/// The message of the refusal, which names the file.
fn refused(text: &str) -> String {
    let message = load(text).unwrap_err().to_string();
    assert!(message.contains("fieldkeep.toml"), "{message}");
    message
}

#[test]
fn the_documented_example_is_a_configuration_and_shows_the_defaults() {
    let example = include_str!("../../docs/fieldkeep.toml");
    let config = load(example).unwrap();
    assert_eq!(config.listen.data.to_string(), "127.0.0.1:7420");
    // The commented lines are settings too, with the default values that they show.
    let all: String = example
        .lines()
        .map(|line| {
            let setting = line.strip_prefix("# ").filter(|rest| {
                let name = rest.split(" = ").next().unwrap_or_default();
                rest.contains(" = ")
                    && name
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                    && ![
                        "provider",
                        "passphrase_file",
                        "passphrase_env",
                        "mirror_dir",
                        "archive_dir",
                        "archive_after_days",
                        "checkpoint_file",
                        "checkpoint_command",
                        "otlp_endpoint",
                        "headers_env",
                        "service_instance",
                    ]
                    .contains(&name)
            });
            format!("{}\n", setting.unwrap_or(line))
        })
        .collect();
    assert!(all.contains("\ndrain_timeout_ms"), "{all}");
    let (_dir, path) = write(&all);
    let spelt_out = Config::load(&path).unwrap();
    let base = path.parent().unwrap();
    let expected = Config {
        data_dir: base.join("data"),
        root: RootConfig::KeyFile {
            path: base.join("root.key"),
        },
        tls: Tls {
            ca: base.join("tls/ca.pem"),
            cert: base.join("tls/server.pem"),
            key: base.join("tls/server.key"),
            ..config.tls.clone()
        },
        ..config
    };
    assert_eq!(spelt_out, expected);
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let config = load(MINIMAL).unwrap();
    assert_eq!(config.listen.admin.to_string(), "127.0.0.1:7421");
    assert_eq!(config.listen.metrics.to_string(), "127.0.0.1:7422");
    assert_eq!(config.tls.trust_domain, "fieldkeep");
    assert_eq!(config.store, StoreConfig::default());
    assert_eq!(config.audit, AuditConfig::default());
    assert_eq!(config.limits, LimitsConfig::default());
    assert_eq!(config.rotation, RotationConfig::default());
    assert_eq!(config.cache, CacheOptions::default());
    assert_eq!(
        config.log,
        LogConfig {
            format: LogFormat::Text,
            level: LogLevel::Info
        }
    );
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let (dir, path) = write(&MINIMAL.replace("\"ca.pem\"", "\"/etc/ca.pem\""));
    let config = Config::load(&path).unwrap();
    assert_eq!(config.data_dir, dir.path().join("data"));
    assert_eq!(config.tls.key, dir.path().join("server.key"));
    assert_eq!(config.tls.ca, Path::new("/etc/ca.pem"));
    assert_eq!(
        config.root,
        RootConfig::KeyFile {
            path: dir.path().join("root.key")
        }
    );
}

#[test]
fn missing_file_says_how_to_make_one() {
    let dir = TempDir::new().unwrap();
    let error = Config::load(&dir.path().join("none.toml")).unwrap_err();
    assert!(matches!(error, ConfigError::Missing { .. }));
    assert!(
        error.to_string().contains("none.toml") && error.to_string().contains("fieldkeep init"),
        "{error}"
    );
}

#[test]
fn a_directory_or_other_bytes_are_no_configuration() {
    let dir = TempDir::new().unwrap();
    let error = Config::load(dir.path()).unwrap_err();
    assert!(
        matches!(error, ConfigError::NotConfiguration { .. }),
        "{error}"
    );
    let path = dir.path().join("fieldkeep.toml");
    fs::write(&path, [0xFF, 0xFE]).unwrap();
    assert!(
        Config::load(&path)
            .unwrap_err()
            .to_string()
            .contains("UTF-8")
    );
    fs::write(&path, vec![b'#'; 70_000]).unwrap();
    assert!(
        Config::load(&path)
            .unwrap_err()
            .to_string()
            .contains("64 KiB")
    );
}

#[test]
fn unknown_settings_are_refused_with_their_line() {
    let message = refused(&format!("{MINIMAL}[log]\nlevle = \"info\"\n"));
    assert!(
        message.contains("line 10") && message.contains("levle") && message.contains("level"),
        "{message}"
    );
    let message = refused(&format!("{MINIMAL}[tracing]\n"));
    assert!(message.contains("tracing"), "{message}");
    assert!(refused(&format!("typo = 1\n{MINIMAL}")).contains("line 1"));
}

#[test]
fn wrong_types_and_missing_settings_are_refused() {
    let message = refused(&format!("{MINIMAL}[limits]\nconnections = \"many\"\n"));
    assert!(
        message.contains("line 10") && message.contains("string"),
        "{message}"
    );
    let message = refused(&format!("{MINIMAL}[log]\nlevel = \"loud\"\n"));
    assert!(
        message.contains("loud") && message.contains("debug"),
        "{message}"
    );
    let message = refused(&MINIMAL.replace("cert = \"server.pem\"\n", ""));
    assert!(message.contains("cert"), "{message}");
    assert!(refused(&MINIMAL.replace("key-file", "hsm")).contains("hsm"));
    assert!(refused("data_dir = ").contains("line 1"));
    assert!(refused(&format!("{MINIMAL}[listen]\ndata = \"localhost\"\n")).contains("line 10"));
}

#[test]
fn out_of_range_values_are_refused_with_the_range() {
    for (section, setting, value, range) in [
        ("audit", "segment_bytes", "8388607", "8388608 to 1073741824"),
        (
            "audit",
            "segment_bytes",
            "1073741825",
            "8388608 to 1073741824",
        ),
        ("audit", "disk_warning_percent", "0", "1 to 99"),
        ("audit", "disk_warning_percent", "100", "1 to 99"),
        ("cache", "keys", "0", "1 to 10000000"),
        ("cache", "bytes", "1", "1048576 to 68719476736"),
        ("cache", "tenants", "0", "1 to 1000000"),
        ("limits", "connections", "0", "1 to 1000000"),
        ("limits", "connections_per_source", "0", "1 to 1000000"),
        ("limits", "handshakes", "100001", "1 to 100000"),
        ("limits", "handshake_timeout_ms", "99", "100 to 120000"),
        ("limits", "drain_timeout_ms", "600001", "0 to 600000"),
        ("limits", "connection_age_s", "0", "1 to 86400"),
        ("limits", "calls", "0", "1 to 1000000"),
        ("rotation", "per_second", "0", "1 to 10000"),
    ] {
        let message = refused(&format!("{MINIMAL}[{section}]\n{setting} = {value}\n"));
        for part in ["line 10", &format!("`{section}.{setting}`"), value, range] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
    let negative = refused(&format!("{MINIMAL}[limits]\nconnections = -1\n"));
    assert!(negative.contains("line 10"), "{negative}");
}

#[test]
fn settings_of_the_other_provider_are_refused() {
    let message = refused(&MINIMAL.replace(
        "path = \"root.key\"",
        "path = \"k\"\npassphrase_env = \"P\"",
    ));
    assert!(
        message.contains("root.passphrase_env") && message.contains("provider"),
        "{message}"
    );
    let message = refused(&MINIMAL.replace("\"key-file\"", "\"passphrase\""));
    assert!(message.contains("root.path"), "{message}");
    let message = refused(&MINIMAL.replace("path = \"root.key\"\n", ""));
    assert!(message.contains("`root.path`: missing"), "{message}");
    let passphrase = MINIMAL
        .replace("\"key-file\"", "\"passphrase\"")
        .replace("path = \"root.key\"\n", "");
    assert!(refused(&passphrase).contains("root.passphrase_env"));
    let both = passphrase.replace(
        "[tls]",
        "passphrase_env = \"P\"\npassphrase_file = \"p\"\n[tls]",
    );
    assert!(refused(&both).contains("keep one"));
    let odd = passphrase.replace("[tls]", "passphrase_env = \"A=B\"\n[tls]");
    assert!(refused(&odd).contains("environment variable"));
}

#[test]
fn listeners_that_clash_are_refused() {
    let message = refused(&format!("{MINIMAL}[listen]\nadmin = \"127.0.0.1:7420\"\n"));
    assert!(message.contains("`listen.admin`"), "{message}");
    let message = refused(&format!("{MINIMAL}[listen]\ndata = \"127.0.0.1:7422\"\n"));
    assert!(message.contains("`listen.data`"), "{message}");
    let free = "data = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\n";
    assert!(load(&format!("{MINIMAL}[listen]\n{free}")).is_ok());
}

#[test]
fn a_mirror_within_the_data_directory_is_refused() {
    for section in ["store", "audit"] {
        for mirror in ["data/mirror", "data", "."] {
            let message = refused(&format!(
                "{MINIMAL}[{section}]\nmirror_dir = \"{mirror}\"\n"
            ));
            assert!(
                message.contains(&format!("`{section}.mirror_dir`")),
                "{message}"
            );
        }
        let config = load(&format!(
            "{MINIMAL}[{section}]\nmirror_dir = \"/elsewhere\"\n"
        ));
        assert!(config.is_ok());
    }
}

#[test]
fn trust_domains_outside_the_grammar_are_refused() {
    for name in ["", "Fieldkeep", "a/b", "a b", "ü", "a%20"] {
        let text = MINIMAL.replace("[tls]", &format!("[tls]\ntrust_domain = \"{name}\""));
        assert!(refused(&text).contains("`tls.trust_domain`"), "{name}");
    }
}

fn passphrase_file(contents: &[u8], mode: u32) -> (TempDir, RootConfig) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("passphrase");
    fs::write(&path, contents).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    let source = PassphraseSource::File(path);
    (dir, RootConfig::Passphrase { source })
}

#[test]
fn a_passphrase_file_is_read_without_its_line_break() {
    let (_dir, root) = passphrase_file("corréct horse \r\n".as_bytes(), 0o600);
    let RootConfig::Passphrase { source } = &root else {
        unreachable!()
    };
    assert_eq!(passphrase::read(source).unwrap().as_str(), "corréct horse ");
    assert_eq!(root.provider().unwrap().name(), "passphrase");
}

#[test]
fn passphrase_files_that_cannot_be_right_are_refused() {
    for (contents, mode, part) in [
        (&b"secret"[..], 0o644, "chmod 600"),
        (b"secret", 0o620, "chmod 600"),
        (b"\n\n", 0o600, "is empty"),
        (b"\xFF", 0o600, "UTF-8"),
        (&[b'x'; 5000], 0o600, "4,096"),
    ] {
        let (_dir, root) = passphrase_file(contents, mode);
        let message = root.provider().err().unwrap().to_string();
        assert!(
            message.contains(part) && message.contains("root.passphrase_file"),
            "{message}"
        );
        assert!(!message.contains("secret"), "{message}");
    }
    let source = PassphraseSource::File(PathBuf::from("/nonexistent/passphrase"));
    let message = RootConfig::Passphrase { source }
        .provider()
        .err()
        .unwrap()
        .to_string();
    assert!(message.contains("does not exist"), "{message}");
}

#[test]
fn an_unset_passphrase_variable_is_refused_by_name() {
    let source = PassphraseSource::Environment("FIELDKEEP_TEST_NEVER_SET".to_owned());
    let message = RootConfig::Passphrase { source }
        .provider()
        .err()
        .unwrap()
        .to_string();
    assert!(
        message.contains("FIELDKEEP_TEST_NEVER_SET") && message.contains("not set"),
        "{message}"
    );
}

fn otlp(telemetry: &str) -> Result<Config, ConfigError> {
    load(&format!("{MINIMAL}[telemetry]\n{telemetry}"))
}

#[test]
fn telemetry_is_off_without_a_collector() {
    assert_eq!(load(MINIMAL).unwrap().otlp, None);
    assert_eq!(otlp("traces = true").unwrap().otlp, None);
    let on = otlp("otlp_endpoint = \"http://127.0.0.1:4318/\"").unwrap();
    let on = on.otlp.unwrap();
    assert_eq!(on.endpoint.authority, "127.0.0.1:4318");
    assert_eq!(on.endpoint.path, "");
    assert!(on.traces && on.metrics);
    assert_eq!(on.sample_per_million, 1_000_000);
    assert!(!on.service_instance.is_empty());
    let path = otlp("otlp_endpoint = \"http://collector/otlp/\"\nsample_ratio = 0.25").unwrap();
    let path = path.otlp.unwrap();
    assert_eq!(path.endpoint.authority, "collector:4318");
    assert_eq!(path.endpoint.path, "/otlp");
    assert_eq!(path.sample_per_million, 250_000);
}

#[test]
fn telemetry_that_cannot_be_is_refused() {
    for (setting, word) in [
        ("otlp_endpoint = \"https://collector:4318\"", "http://"),
        ("otlp_endpoint = \"127.0.0.1:4318\"", "http://"),
        ("otlp_endpoint = \"http://u:p@host\"", "headers_env"),
        ("otlp_endpoint = \"http://host/?q=1\"", "query"),
        ("otlp_endpoint = \"\"", "URL"),
        ("sample_ratio = 1.5", "1.0"),
        ("sample_ratio = nan", "1.0"),
        ("metrics_interval_ms = 1", "100"),
        (
            "headers_env = { authorization = \"Bearer secret\" }",
            "environment variable",
        ),
        ("headers_env = { \"a b\" = \"X\" }", "name of a header"),
        ("colour = 1", "colour"),
    ] {
        let message = otlp(setting).unwrap_err().to_string();
        assert!(message.contains(word), "{setting}: {message}");
        assert!(!message.contains("secret"), "{message}");
    }
}

#[test]
fn a_header_is_read_from_the_environment() {
    let text = "otlp_endpoint = \"http://h\"\nheaders_env = { x-home = \"PATH\" }";
    let config = otlp(text).unwrap().otlp.unwrap();
    let headers = config.headers().unwrap();
    assert_eq!(headers["x-home"], std::env::var("PATH").unwrap().as_str());
    assert!(headers["x-home"].is_sensitive());
    let unset = otlp(&text.replace("PATH", "FIELDKEEP_NOT_SET_ANYWHERE")).unwrap();
    let message = unset.otlp.unwrap().headers().unwrap_err().to_string();
    assert!(message.contains("FIELDKEEP_NOT_SET_ANYWHERE"), "{message}");
}
