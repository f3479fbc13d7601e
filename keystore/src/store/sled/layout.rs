//! The data directory: what lies where, its FORMAT file and its lock.
//!
//! ```text
//! FORMAT      which format this is, and whether making it was finished
//! lock        held with flock by the one process that uses the directory; holds its process id
//! journal/    the recovery journal, which is the truth
//! snapshots/  the two newest snapshots of all records, where the journal's older part is gone
//! sled/       the index, which can always be rebuilt; sled.damaged-N is the last one that had to be
//! rebuild     present when the next open must rebuild the index; says why
//! clean       present from the end of a close until the next open; has the sequence of the journal's last frame
//! ```
//!
//! A mirror has FORMAT, journal/ and snapshots/ of its own. FORMAT is written there once the two hold the same, so a data
//! directory that was lost wholly or in part is brought back from its mirror by an open that names both.
//!
//! Upgrade rule: a program opens exactly the formats that it knows. A newer one is refused, and nothing is touched;
//! an older one is read by the code of its time and written anew under the new number, FORMAT last.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use super::StoreOpenError;

/// The format that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// The paths of a data directory.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    dir: PathBuf,
}

/// Whether making the directory was finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing has been acknowledged from it yet.
    Creating,
    /// A store that holds data.
    Ready,
}

impl Layout {
    pub(super) fn new(dir: &Path) -> Self {
        Layout {
            dir: dir.to_path_buf(),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn format(&self) -> PathBuf {
        self.dir.join("FORMAT")
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    pub(super) fn sled(&self) -> PathBuf {
        self.dir.join("sled")
    }

    pub(super) fn snapshots(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    /// The bytes that are free on the disk of the directory; `None` if the system does not say.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        free_bytes(&self.dir)
    }

    pub(super) fn rebuild_marker(&self) -> PathBuf {
        self.dir.join("rebuild")
    }

    /// Takes the directory for this process, for as long as the file is open.
    pub(super) fn lock(&self) -> Result<File, StoreOpenError> {
        let path = self.dir.join("lock");
        let failed = |source| StoreOpenError::io("open the lock", &path, source);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // The number is a courtesy; the lock itself is what counts.
                let _ = file.take(20).read_to_string(&mut owner);
                let owner = owner.trim();
                let owner = if owner.is_empty() { "unknown" } else { owner }.to_owned();
                return Err(StoreOpenError::InUse { lock: path, owner });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(file)
    }

    /// Reads FORMAT; `None` if there is no such file.
    pub(super) fn read_format(&self) -> Result<Option<Stage>, StoreOpenError> {
        let path = self.format();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(StoreOpenError::FormatDamaged { path });
            }
            Err(source) => return Err(StoreOpenError::io("read", &path, source)),
        };
        parse_format(&text, &path).map(Some)
    }

    /// Writes FORMAT, durably and at once.
    pub(super) fn write_format(&self, stage: Stage) -> Result<(), StoreOpenError> {
        let stage = match stage {
            Stage::Creating => "creating",
            Stage::Ready => "ready",
        };
        let text =
            format!("fieldkeep store\nformat = {FORMAT_VERSION}\nkind = sled\nstage = {stage}\n");
        let path = self.format();
        write_durably(&path, text.as_bytes())
            .map_err(|source| StoreOpenError::io("write", &path, source))
    }

    /// Makes the next open rebuild the index.
    pub(super) fn mark_for_rebuild(&self, why: &str) -> io::Result<()> {
        write_durably(&self.rebuild_marker(), why.as_bytes())
    }

    /// Why the index must be rebuilt, if a marker says so.
    pub(super) fn rebuild_reason(&self) -> Result<Option<String>, StoreOpenError> {
        let path = self.rebuild_marker();
        match fs::read(&path) {
            Ok(why) => Ok(Some(String::from_utf8_lossy(&why).trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreOpenError::io("read", &path, source)),
        }
    }

    fn clean_marker(&self) -> PathBuf {
        self.dir.join("clean")
    }

    /// Says that the store was closed with everything durable; the last step of a close. `sequence` is that of the
    /// journal's last frame.
    pub(super) fn mark_clean(&self, sequence: u64) -> io::Result<()> {
        write_durably(&self.clean_marker(), format!("{sequence}\n").as_bytes())
    }

    /// Reads what [`Layout::mark_clean`] wrote, and removes it durably, so that it holds for this open alone.
    pub(super) fn take_clean(&self) -> Result<Option<u64>, StoreOpenError> {
        let path = self.clean_marker();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreOpenError::io("read", &path, source)),
        };
        fs::remove_file(&path)
            .and_then(|()| sync_dir(&self.dir))
            .map_err(|source| StoreOpenError::io("remove", &path, source))?;
        // Whatever else it says is no proof.
        let text = String::from_utf8_lossy(&text);
        Ok(text.trim().parse().ok())
    }

    /// Removes every index that was moved aside. Returns the highest number of one.
    pub(super) fn remove_asides(&self) -> io::Result<u64> {
        let mut newest = 0;
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name
                .to_str()
                .and_then(|name| name.strip_prefix("sled.damaged-"))
                .and_then(|n| n.parse::<u64>().ok());
            if let Some(number) = number {
                newest = newest.max(number);
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(newest)
    }

    /// Moves the index aside to `sled.damaged-N`, and removes what was there before.
    pub(super) fn move_index_aside(&self) -> io::Result<()> {
        let newest = self.remove_asides()?;
        match fs::rename(
            self.sled(),
            self.dir.join(format!("sled.damaged-{}", newest + 1)),
        ) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        sync_dir(&self.dir)
    }
}

fn parse_format(text: &str, path: &Path) -> Result<Stage, StoreOpenError> {
    let damaged = || StoreOpenError::FormatDamaged {
        path: path.to_path_buf(),
    };
    let mut lines = text.lines();
    if lines.next() != Some("fieldkeep store") {
        return Err(damaged());
    }
    let format = lines
        .next()
        .and_then(|line| line.strip_prefix("format = "))
        .ok_or_else(damaged)?;
    if format.parse::<u32>().ok() != Some(FORMAT_VERSION) {
        return Err(StoreOpenError::FormatUnknown {
            path: path.to_path_buf(),
            found: format.to_owned(),
        });
    }
    let kind = lines
        .next()
        .and_then(|line| line.strip_prefix("kind = "))
        .ok_or_else(damaged)?;
    if kind != "sled" {
        return Err(StoreOpenError::KindUnknown {
            path: path.to_path_buf(),
            found: kind.to_owned(),
        });
    }
    let stage = match lines.next() {
        Some("stage = creating") => Stage::Creating,
        Some("stage = ready") => Stage::Ready,
        _ => return Err(damaged()),
    };
    if lines.next().is_some() {
        Err(damaged())
    } else {
        Ok(stage)
    }
}

/// Writes a whole file so that after a crash it is there wholly, or as it was before.
fn write_durably(path: &Path, contents: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// The bytes that are free on the disk of a directory; `None` if the system does not say.
pub(super) fn free_bytes(dir: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(dir).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a directory and those above it that are missing, and makes their names durable: a directory's name survives a
/// power loss only when the directory above it has been synced. That is done although the directory exists, since a process
/// that made it may have ended before it did so.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    let existed = dir.exists();
    let parents = parents_to_sync(dir);
    fs::create_dir_all(dir)?;
    for parent in parents {
        match sync_dir(&parent) {
            // Somebody else made the directory in one that we may not even read.
            Err(error) if existed && error.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// The directories above a directory and above each that is missing on the way to it.
fn parents_to_sync(dir: &Path) -> Vec<PathBuf> {
    let missing = dir
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
        .count();
    dir.ancestors()
        .take(missing.max(1))
        .filter_map(Path::parent)
        .map(|parent| match parent.as_os_str().is_empty() {
            true => PathBuf::from("."),
            false => parent.to_path_buf(),
        })
        .collect()
}

/// Removes a directory and everything in it, if it is there.
pub(super) fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a directory has files whose names end so; an absent one has none.
pub(super) fn has_files(dir: &Path, ending: &str) -> io::Result<bool> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    for entry in entries {
        if entry?.file_name().to_string_lossy().ends_with(ending) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a directory is absent or has nothing in it.
pub(super) fn is_empty_dir(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_directory_is_made_durable_whether_it_is_new_or_not() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (root.path().join("a"), root.path().join("a/b"));
        assert_eq!(parents_to_sync(&b), [a.clone(), root.path().to_path_buf()]);
        make_dir(&b).unwrap();
        assert_eq!(parents_to_sync(&b), [a]);
        make_dir(&b).unwrap();
        assert_eq!(parents_to_sync(Path::new("missing")), [Path::new(".")]);
        assert_eq!(parents_to_sync(Path::new("src")), [Path::new(".")]);
        assert!(parents_to_sync(Path::new("/")).is_empty());
    }

    #[test]
    fn only_exactly_our_format_is_read() {
        let path = Path::new("FORMAT");
        let good = "fieldkeep store\nformat = 1\nkind = sled\nstage = ready\n";
        assert_eq!(parse_format(good, path).unwrap(), Stage::Ready);
        let newer = good.replace("= 1", "= 2");
        assert!(
            matches!(parse_format(&newer, path), Err(StoreOpenError::FormatUnknown { found, .. }) if found == "2")
        );
        let other = good.replace("sled", "etcd");
        assert!(
            matches!(parse_format(&other, path), Err(StoreOpenError::KindUnknown { found, .. }) if found == "etcd")
        );
        for damaged in [
            "",
            "fieldkeep",
            &good[..30],
            &format!("{good}more\n"),
            &good.replace("ready", "read"),
        ] {
            assert!(
                matches!(
                    parse_format(damaged, path),
                    Err(StoreOpenError::FormatDamaged { .. })
                ),
                "{damaged:?}"
            );
        }
    }
}
