//! Files and directories: there, readable, private, and of one owner.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access};

use super::super::output::shell_word;
use super::Findings;
use crate::config::{Config, PassphraseSource, RootConfig};

/// The files of a service.
pub(super) fn service(findings: &mut Findings, config: &Config) {
    let owner = fs::metadata(&config.data_dir).ok().map(|found| found.uid());
    directory(findings, "data directory", &config.data_dir, owner);
    let others = [
        ("store mirror", config.store.mirror_dir.as_ref()),
        ("audit mirror", config.audit.mirror_dir.as_ref()),
        (
            "audit archive",
            config.audit.archive.as_ref().map(|archive| &archive.dir),
        ),
    ];
    for (check, other) in others {
        if let Some(other) = other {
            directory(findings, check, other, owner);
        }
    }
    if owner.is_some() && !config.data_dir.join("FORMAT").exists() {
        let detail = format!("`{}` holds no store", config.data_dir.display());
        findings.fail(
            "data directory",
            detail,
            "name the right one as `data_dir`, or restore a backup",
        );
    }
    match &config.root {
        RootConfig::KeyFile { path } => private_file(findings, "root key", path, owner),
        RootConfig::Passphrase { source } => match (config.root.provider(), source) {
            (Err(error), _) => {
                findings.fail("passphrase", error, "the service needs it at each start")
            }
            (Ok(_), PassphraseSource::File(path)) => findings.ok("passphrase", path.display()),
            (Ok(_), PassphraseSource::Environment(name)) => {
                findings.ok("passphrase", format_args!("`{name}` is set"))
            }
        },
    }
    private_file(findings, "server key", &config.tls.key, owner);
}

fn directory(findings: &mut Findings, check: &'static str, path: &Path, owner: Option<u32>) {
    let Some(found) = look(findings, check, path) else {
        return;
    };
    if !found.is_dir() {
        let detail = format!("`{}` is not a directory", path.display());
        findings.fail(check, detail, "name a directory in the configuration");
    } else if access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let detail = format!("this user may not write to `{}`", path.display());
        findings.fail(check, detail, "run as the user who owns it");
    } else if found.mode() & 0o077 != 0 {
        let detail = format!(
            "others may look into `{}` (mode {:o})",
            path.display(),
            found.mode() & 0o777
        );
        findings.warn(check, detail, format_args!("chmod 700 {}", word(path)));
    } else {
        of_owner(findings, check, path, &found, owner);
    }
}

/// A file that its owner alone may read.
pub(super) fn private_file(
    findings: &mut Findings,
    check: &'static str,
    path: &Path,
    owner: Option<u32>,
) {
    let Some(found) = look(findings, check, path) else {
        return;
    };
    if found.mode() & 0o077 != 0 {
        let detail = format!(
            "others may read `{}` (mode {:o})",
            path.display(),
            found.mode() & 0o777
        );
        findings.fail(check, detail, format_args!("chmod 600 {}", word(path)));
    } else if let Err(error) = File::open(path) {
        let detail = format!("cannot read `{}`: {error}", path.display());
        findings.fail(check, detail, "run as the user who owns it");
    } else {
        of_owner(findings, check, path, &found, owner);
    }
}

fn of_owner(
    findings: &mut Findings,
    check: &'static str,
    path: &Path,
    found: &Metadata,
    owner: Option<u32>,
) {
    match owner {
        Some(owner) if owner != found.uid() => {
            let detail = format!(
                "`{}` is user {}'s, the data directory user {owner}'s",
                path.display(),
                found.uid()
            );
            findings.warn(check, detail, format_args!("chown {owner} {}", word(path)));
        }
        _ => findings.ok(check, path.display()),
    }
}

fn look(findings: &mut Findings, check: &'static str, path: &Path) -> Option<Metadata> {
    let found = fs::metadata(path);
    found
        .map_err(|error| {
            let detail = format!("`{}`: {error}", path.display());
            findings.fail(
                check,
                detail,
                "correct the path, restore the file from a backup, or run as its owner",
            );
        })
        .ok()
}

fn word(path: &Path) -> String {
    shell_word(&path.display().to_string())
}
