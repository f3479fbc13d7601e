//! Replaces the two files of an identity, so that no crash leaves a pair that does not fit.
//!
//! Two files cannot be replaced in one step. The new certificate is written whole beside the old one, as `NAME.new`; then the
//! key is replaced, then the certificate. If that is cut short between the two, the key fits the certificate in `NAME.new`,
//! which whoever reads or replaces the pair next finds and puts in its place. A lock, `KEY.lock`, is held by whoever renames, so
//! that nobody takes away what another is about to rename.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustls::{crypto::ring, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _};

const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Replaces the pair. One process at a time does so.
///
/// # Errors
/// A file could not be written, or another process is at it.
pub(crate) fn replace_pair(certificate: (&Path, &[u8]), key: (&Path, &[u8])) -> io::Result<()> {
    let _lock = lock(key.0)?;
    // What was left may be the only certificate that fits the key, and is overwritten below.
    finish(certificate.0, key.0)?;
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

/// Finishes a replacement that was cut short between the key and the certificate. Otherwise it does nothing.
///
/// # Errors
/// A file could not be renamed, or another process is replacing the pair.
pub(crate) fn finish_pair(certificate: &Path, key: &Path) -> io::Result<()> {
    let _lock = lock(key)?;
    finish(certificate, key)
}

/// Where a certificate waits for its key to be replaced.
pub(crate) fn unfinished(certificate: &Path) -> PathBuf {
    beside(certificate, ".new")
}

/// Whoever has the file that this returns may rename. It is not waited for: nobody is to hang because another process does.
fn lock(key: &Path) -> io::Result<File> {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(PRIVATE)
        .open(beside(key, ".lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            "another process is replacing the certificate and its key",
        )),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Puts the certificate that waits in its place, if it fits the key and the present one does not. The lock is held.
fn finish(certificate: &Path, key: &Path) -> io::Result<()> {
    let new = unfinished(certificate);
    if !new.exists() || fits(certificate, key) || !fits(&new, key) {
        return Ok(());
    }
    fs::rename(&new, certificate)?;
    sync_folder(certificate)
}

/// Whether both files can be read and are a pair.
fn fits(certificate: &Path, key: &Path) -> bool {
    let chain: Result<Vec<_>, pem::Error> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let (Ok(chain), Ok(key)) = (chain, PrivateKeyDer::from_pem_file(key)) else {
        return false;
    };
    CertifiedKey::from_der(chain, key, &ring::default_provider()).is_ok()
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

    struct Pair {
        certificate: String,
        key: String,
    }

    fn pair() -> Pair {
        let made = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        Pair {
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        }
    }

    /// Files of a replacement of `old` by `new` that was cut short, before or after the key was replaced.
    fn cut_short(folder: &Path, old: &Pair, new: &Pair, key_replaced: bool) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join("a.pem"), folder.join("a.key"));
        fs::write(&certificate, &old.certificate).unwrap();
        fs::write(unfinished(&certificate), &new.certificate).unwrap();
        fs::write(&key, if key_replaced { &new.key } else { &old.key }).unwrap();
        if !key_replaced {
            fs::write(beside(&key, ".new"), &new.key).unwrap();
        }
        (certificate, key)
    }

    #[test]
    fn cut_before_the_key_the_old_pair_stays_and_the_rest_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new, next) = (pair(), pair(), pair());
        let (certificate, key) = cut_short(folder.path(), &old, &new, false);
        finish_pair(&certificate, &key).unwrap();
        assert_eq!(fs::read_to_string(&certificate).unwrap(), old.certificate);
        assert!(fits(&certificate, &key));
        let (text, key_text) = (next.certificate.as_bytes(), next.key.as_bytes());
        replace_pair((&certificate, text), (&key, key_text)).unwrap();
        assert_eq!(fs::read_to_string(&certificate).unwrap(), next.certificate);
        assert_eq!(fs::read_to_string(&key).unwrap(), next.key);
        assert!(!unfinished(&certificate).exists() && !beside(&key, ".new").exists());
    }

    #[test]
    fn cut_after_the_key_it_is_finished_unless_another_process_is_at_it() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (pair(), pair());
        let (certificate, key) = cut_short(folder.path(), &old, &new, true);
        let other = lock(&key).unwrap();
        let error = finish_pair(&certificate, &key).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(unfinished(&certificate).exists());
        drop(other);
        finish_pair(&certificate, &key).unwrap();
        assert_eq!(fs::read_to_string(&certificate).unwrap(), new.certificate);
        assert!(!unfinished(&certificate).exists());
    }

    #[test]
    fn the_only_certificate_that_fits_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new, next) = (pair(), pair(), pair());
        let (certificate, key) = cut_short(folder.path(), &old, &new, true);
        // The next replacement is cut short too: its key cannot be written here.
        fs::create_dir(beside(&key, ".new")).unwrap();
        let (text, key_text) = (next.certificate.as_bytes(), next.key.as_bytes());
        replace_pair((&certificate, text), (&key, key_text)).unwrap_err();
        assert_eq!(fs::read_to_string(&certificate).unwrap(), new.certificate);
        assert!(fits(&certificate, &key));
    }
}
