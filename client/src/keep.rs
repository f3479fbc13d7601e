//! Replaces the two files of an identity, so that no crash leaves a pair that does not fit.
//!
//! Two files cannot be replaced in one step. The new certificate is written whole beside the old one, as `NAME.new`; then the
//! key is replaced, then the certificate. If that is cut short between the two, the key fits the certificate in `NAME.new`,
//! which whoever reads the pair next finds and puts in its place.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Replaces the pair. One process at a time does so.
///
/// # Errors
/// A file could not be written, or another process is at it.
pub(crate) fn replace_pair(certificate: (&Path, &[u8]), key: (&Path, &[u8])) -> io::Result<()> {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(PRIVATE)
        .open(beside(key.0, ".lock"))?;
    lock.try_lock()?;
    let new_key = beside(key.0, ".new");
    let new_certificate = unfinished(certificate.0);
    write(&new_key, key.1, PRIVATE)?;
    write(&new_certificate, certificate.1, PUBLIC)?;
    sync_folder(&new_certificate)?;
    fs::rename(&new_key, key.0)?;
    sync_folder(key.0)?;
    fs::rename(&new_certificate, certificate.0)?;
    sync_folder(certificate.0)
}

/// Where a certificate waits for its key to be replaced.
pub(crate) fn unfinished(certificate: &Path) -> PathBuf {
    beside(certificate, ".new")
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or(OsStr::new("")).to_owned();
    name.push(ending);
    path.with_file_name(name)
}

fn write(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    // Left by a process that was interrupted.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_replaced_and_the_key_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("a.pem"), folder.path().join("a.key"));
        fs::write(&certificate, "old").unwrap();
        fs::write(&key, "old").unwrap();
        replace_pair((&certificate, b"new"), (&key, b"secret")).unwrap();
        assert_eq!(fs::read(&certificate).unwrap(), b"new");
        assert_eq!(fs::read(&key).unwrap(), b"secret");
        assert_eq!(
            fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(!unfinished(&certificate).exists());
    }

    #[test]
    fn two_at_once_do_not_mix_their_pairs() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("a.pem"), folder.path().join("a.key"));
        let lock = File::create(beside(&key, ".lock")).unwrap();
        lock.try_lock().unwrap();
        let error = replace_pair((&certificate, b"new"), (&key, b"secret")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(!certificate.exists() && !key.exists());
    }
}
