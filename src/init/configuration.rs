//! The configuration file that `init` writes.

use std::path::Path;

use super::InitError;
use crate::config::{Listen, PassphraseSource, RootConfig};

/// The text of `fieldkeep.toml` in a directory that `init` laid out. Paths in `root` stand as they are.
pub(super) fn compose(
    root: &RootConfig,
    listen: &Listen,
    trust_domain: &str,
) -> Result<String, InitError> {
    let root = match root {
        RootConfig::KeyFile { path } => {
            let path = quoted_path(path)?;
            format!(
                "provider = \"key-file\"\n\
                 # Without this file nothing can be decrypted. Keep a copy, apart from backups of the data.\n\
                 path = {path}"
            )
        }
        RootConfig::Passphrase {
            source: PassphraseSource::File(path),
        } => {
            let path = quoted_path(path)?;
            format!("provider = \"passphrase\"\npassphrase_file = {path}")
        }
        RootConfig::Passphrase {
            source: PassphraseSource::Environment(variable),
        } => {
            let variable = quoted(variable);
            format!("provider = \"passphrase\"\npassphrase_env = {variable}")
        }
    };
    let (data, admin, metrics) = (listen.data, listen.admin, listen.metrics);
    let trust_domain = quoted(trust_domain);
    Ok(format!(
        "\
# Written by `fieldkeep init`. Relative paths are relative to this file; all settings are in docs/operations.md.

data_dir = \"data\"

[root]
{root}

[listen]
data = \"{data}\"
admin = \"{admin}\"
metrics = \"{metrics}\"

[tls]
ca = \"tls/ca.pem\"
cert = \"tls/server.pem\"
key = \"tls/server.key\"
trust_domain = {trust_domain}

[log]
format = \"text\"
level = \"info\"
"
    ))
}

fn quoted_path(path: &Path) -> Result<String, InitError> {
    let text = path.to_str().ok_or_else(|| InitError::PathNotUtf8 {
        path: path.to_owned(),
    })?;
    Ok(quoted(text))
}

/// `text` as a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
