//! Files and directories that are private and on the disk when they are said to be.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::InitError;

const DIR_MODE: u32 = 0o700;
const PRIVATE_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;

/// Why a file or directory could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`: {source}{}", path.display(), remedy(source))]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    pub(super) fn new(action: &'static str, path: &Path, source: io::Error) -> FileError {
        FileError {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space there and try again"
        }
        io::ErrorKind::PermissionDenied => {
            "; run as a user who may write there, or choose another directory"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; choose a directory on a file system that can be written"
        }
        _ => "",
    }
}

/// Makes `dir` if it is absent, and refuses it if anything is in it. Whether it was made.
pub(super) fn claim_dir(dir: &Path) -> Result<bool, InitError> {
    match fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => {
            refuse_contents(dir)?;
            fs::set_permissions(dir, Permissions::from_mode(DIR_MODE))
                .map_err(|error| FileError::new("make private", dir, error))?;
            Ok(false)
        }
        Ok(_) => Err(InitError::NotADirectory {
            dir: dir.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut builder = DirBuilder::new();
            let made = builder.mode(DIR_MODE).recursive(true).create(dir);
            made.map_err(|error| FileError::new("make the directory", dir, error))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(InitError::NotADirectory {
                dir: dir.to_owned(),
            })
        }
        Err(error) => Err(FileError::new("look at", dir, error).into()),
    }
}

fn refuse_contents(dir: &Path) -> Result<(), InitError> {
    let unreadable = |error| FileError::new("read the directory", dir, error);
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        // A fresh file system that is mounted there has this one.
        if entry.map_err(unreadable)?.file_name() == "lost+found" {
            continue;
        }
        let hint = if dir.join("fieldkeep.toml").exists() {
            "it has been initialised already; start it with `fieldkeep serve`, or choose another directory"
        } else if dir.join("data").exists() {
            "an earlier `fieldkeep init` seems not to have finished; if nothing in it is needed remove it, then run `fieldkeep init` again"
        } else {
            "choose a new or an empty directory"
        };
        return Err(InitError::NotEmpty {
            dir: dir.to_owned(),
            hint,
        });
    }
    Ok(())
}

/// Removes what `init` made in `dir`, and `dir` itself if it made that.
pub(super) fn empty_dir(dir: &Path, made_dir: bool) -> io::Result<()> {
    let absent_is_fine = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    for file in ["fieldkeep.toml", "root.key"] {
        absent_is_fine(fs::remove_file(dir.join(file)))?;
    }
    for part in ["data", "tls", "identities"] {
        absent_is_fine(fs::remove_dir_all(dir.join(part)))?;
    }
    if made_dir {
        fs::remove_dir(dir)?;
    }
    Ok(())
}

/// Makes a directory, mode 0700.
pub(super) fn make_dir(path: &Path) -> Result<(), FileError> {
    let made = DirBuilder::new().mode(DIR_MODE).create(path);
    made.map_err(|error| FileError::new("make the directory", path, error))
}

/// Writes a new file that only its owner can read.
pub(super) fn write_private(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    write_new(path, contents, PRIVATE_MODE).map_err(|error| FileError::new("write", path, error))
}

/// Writes a new file that everyone can read.
pub(super) fn write_public(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    write_new(path, contents, PUBLIC_MODE).map_err(|error| FileError::new("write", path, error))
}

fn write_new(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    // The mode at creation is less the umask; a private file is private from its first moment.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Replaces a file as a whole: readers see the old one or the new one. `private` says who can read it.
pub(super) fn replace(path: &Path, contents: &[u8], private: bool) -> Result<(), FileError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    // Left by a run that was interrupted.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(FileError::new("remove", &new, error));
        }
        _ => {}
    }
    let write = if private { write_private } else { write_public };
    write(&new, contents)?;
    fs::rename(&new, path).map_err(|error| FileError::new("replace", path, error))?;
    sync_dir(parent(path))
}

/// Puts a directory's entries on the disk.
pub(super) fn sync_dir(path: &Path) -> Result<(), FileError> {
    let synced = File::open(path).and_then(|dir| dir.sync_all());
    synced.map_err(|error| FileError::new("sync", path, error))
}

/// The directory that `path` is in.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
