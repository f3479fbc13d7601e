//! Reading the passphrase from where the configuration says it is.

use std::{
    env, fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use zeroize::{Zeroize as _, Zeroizing};

use super::{ConfigError, PassphraseSource};

/// The longest passphrase, bytes.
const MAX_PASSPHRASE_BYTES: usize = 4096;

/// Reads the passphrase. Of a file, the line break at its end is no part of it.
pub(super) fn read(source: &PassphraseSource) -> Result<Zeroizing<String>, ConfigError> {
    match source {
        PassphraseSource::Environment(variable) => from_environment(variable),
        PassphraseSource::File(path) => from_file(path),
    }
}

fn from_environment(variable: &str) -> Result<Zeroizing<String>, ConfigError> {
    let refuse = |problem| ConfigError::PassphraseVariable {
        variable: variable.to_owned(),
        problem,
    };
    let value = match env::var(variable) {
        Ok(value) => Zeroizing::new(value),
        Err(env::VarError::NotPresent) => return Err(refuse("is not set")),
        Err(env::VarError::NotUnicode(_)) => return Err(refuse("is not UTF-8")),
    };
    if value.is_empty() {
        return Err(refuse("is empty"));
    }
    if value.len() > MAX_PASSPHRASE_BYTES {
        return Err(refuse("is longer than 4,096 bytes"));
    }
    Ok(value)
}

fn from_file(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let refuse = |problem: String| ConfigError::PassphraseFile {
        path: path.into(),
        problem,
    };
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            refuse("does not exist: write the passphrase to it, mode 0600".to_owned())
        }
        _ => refuse(format!("cannot be read: {error}")),
    };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(refuse("is not a file".to_owned()));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(refuse(format!(
            "can be read by others (mode {mode:04o}): run `chmod 600 {path}`"
        )));
    }
    let owner = metadata.uid();
    let own = rustix::process::geteuid();
    if owner != own.as_raw() && owner != 0 {
        return Err(refuse(format!(
            "belongs to user {owner}, not to the user of this process: run `chown`"
        )));
    }
    if metadata.len() > (MAX_PASSPHRASE_BYTES + 2) as u64 {
        return Err(refuse("is longer than 4,096 bytes".to_owned()));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    let mut text = String::from_utf8(bytes)
        .map(Zeroizing::new)
        .map_err(|error| {
            error.into_bytes().zeroize();
            refuse("is not UTF-8 text".to_owned())
        })?;
    while text.ends_with(['\n', '\r']) {
        text.pop();
    }
    if text.is_empty() {
        return Err(refuse("is empty: write the passphrase to it".to_owned()));
    }
    Ok(text)
}
