//! Where archive files are: the smallest interface that a directory and an object store have in common.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::ArchiveError;

/// What follows the segment's 16 hexadecimal digits in the name of its file.
const SUFFIX: &str = ".records.zst";

/// A place for archive files, one a record segment.
pub trait ArchiveStore: Send + Sync {
    /// Stores the file of a record segment, with what `write` writes, which is called once. The file is there wholly and durably, or not at all; one that
    /// was there before is replaced.
    ///
    /// # Errors
    /// It could not be stored, or `write` failed.
    fn put(
        &self,
        segment: u64,
        write: &mut dyn FnMut(&mut dyn Write) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError>;

    /// The file of a record segment, to be read from its beginning.
    ///
    /// # Errors
    /// [`ArchiveError::Missing`], or it could not be opened.
    fn get(&self, segment: u64) -> Result<Box<dyn Read + Send>, ArchiveError>;

    /// The record segments that are there, in ascending order.
    ///
    /// # Errors
    /// They could not be listed.
    fn list(&self) -> Result<Vec<u64>, ArchiveError>;
}

/// An archive in a directory, a mounted share for example. Its files are readable by their owner alone.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The archive in the directory at `path`, which exists: a share that is not mounted is not replaced by a new directory.
    #[must_use]
    pub fn new(path: PathBuf) -> Directory {
        Directory { path }
    }

    /// The path of a segment's file.
    #[must_use]
    pub fn file(&self, segment: u64) -> PathBuf {
        self.path.join(format!("{segment:016x}{SUFFIX}"))
    }
}

impl ArchiveStore for Directory {
    fn put(
        &self,
        segment: u64,
        write: &mut dyn FnMut(&mut dyn Write) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let path = self.file(segment);
        // What a crash left under this name is overwritten by the next attempt.
        let unfinished = path.with_extension("zst.tmp");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)
            .map_err(|source| failed(&unfinished, "made", source))?;
        let mut out = BufWriter::with_capacity(1 << 16, file);
        let written = write(&mut out).and_then(|()| {
            finish(out).map_err(|source| failed(&unfinished, "written", source))?;
            fs::rename(&unfinished, &path).map_err(|source| failed(&path, "named", source))
        });
        if written.is_err() {
            // Best effort: what cannot be removed now is overwritten later.
            let _ = fs::remove_file(&unfinished);
        }
        written?;
        File::open(&self.path)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| failed(&self.path, "synced", source))
    }

    fn get(&self, segment: u64) -> Result<Box<dyn Read + Send>, ArchiveError> {
        let path = self.file(segment);
        match File::open(&path) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ArchiveError::Missing { segment })
            }
            Err(error) => Err(failed(&path, "opened", error)),
        }
    }

    fn list(&self) -> Result<Vec<u64>, ArchiveError> {
        let unlisted = |source| failed(&self.path, "listed", source);
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(unlisted)? {
            let name = entry.map_err(unlisted)?.file_name();
            segments.extend(name.to_str().and_then(segment_of_name));
        }
        segments.sort_unstable();
        Ok(segments)
    }
}

/// Makes all that was written durable, and forgets it, so that reading it back reads the disk and not memory.
fn finish(out: BufWriter<File>) -> io::Result<()> {
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    // Advice that a file system may well ignore.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    Ok(())
}

fn failed(path: &Path, action: &'static str, source: io::Error) -> ArchiveError {
    ArchiveError::Io {
        path: path.display().to_string(),
        action,
        source,
    }
}

/// The segment of a file's name. `None` if it is no name that [`Directory::file`] makes.
fn segment_of_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let segment = u64::from_str_radix(digits, 16).ok()?;
    (format!("{segment:016x}") == digits).then_some(segment)
}
