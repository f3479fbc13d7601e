//! The output file: whole or not there.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::super::failure::{Exit, Failure, file_failure};

/// A file that takes its name when it is complete and on the disk. Dropped before, it is gone.
pub(crate) struct Target {
    writer: BufWriter<NamedTempFile>,
    path: PathBuf,
    replace: bool,
}

impl Target {
    /// Begins to write beside `path`. `replace`: an existing file may be replaced.
    pub(crate) fn create(path: &Path, replace: bool) -> Result<Target, Failure> {
        if path.is_dir() {
            return Err(Failure::new(
                Exit::Usage,
                format_args!("`{}` is a directory", path.display()),
            )
            .help("--output names the file to write"));
        }
        if !replace && path.symlink_metadata().is_ok() {
            return Err(already_there(path));
        }
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let file = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".part")
            .tempfile_in(directory(path))
            .map_err(|error| file_failure("write", path, &error))?;
        Ok(Target {
            writer: BufWriter::with_capacity(256 * 1024, file),
            path: path.into(),
            replace,
        })
    }

    /// Brings the file to the disk and gives it its name.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let path = self.path;
        let failed = |error: &io::Error| file_failure("write", &path, error);
        let file = self
            .writer
            .into_inner()
            .map_err(|error| failed(error.error()))?;
        file.as_file().sync_all().map_err(|error| failed(&error))?;
        if self.replace {
            file.persist(&path).map_err(|error| failed(&error.error))?;
        } else {
            file.persist_noclobber(&path)
                .map_err(|error| match error.error.kind() {
                    io::ErrorKind::AlreadyExists => already_there(&path),
                    _ => failed(&error.error),
                })?;
        }
        File::open(directory(&path))
            .and_then(|directory| directory.sync_all())
            .map_err(|error| failed(&error))
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn already_there(path: &Path) -> Failure {
    Failure::new(
        Exit::Conflict,
        format_args!("`{}` exists already", path.display()),
    )
    .help("choose another --output, or replace it with --force")
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Refuses an output that is the input under whatever name.
pub(crate) fn refuse_same_file(input: &Path, output: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt;
    let id = |path: &Path| path.metadata().ok().map(|file| (file.dev(), file.ino()));
    if id(input).is_some() && id(input) == id(output) {
        return Err(
            Failure::new(Exit::Usage, "--output is the same file as --input")
                .help("write to another file; the input stays as it is until you remove it"),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_target_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut target = Target::create(&directory.path().join("out.csv"), false).unwrap();
        target.write_all(b"half").unwrap();
        drop(target);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_existing_file_is_replaced_only_when_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.csv");
        std::fs::write(&path, "old").unwrap();
        assert_eq!(
            Target::create(&path, false).err().unwrap().exit(),
            Exit::Conflict
        );
        let mut target = Target::create(&path, true).unwrap();
        target.write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        target.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_file_that_appears_meanwhile_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.csv");
        let target = Target::create(&path, false).unwrap();
        std::fs::write(&path, "theirs").unwrap();
        assert_eq!(target.finish().unwrap_err().exit(), Exit::Conflict);
        assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_input_under_another_name_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (input, link) = (
            directory.path().join("in.csv"),
            directory.path().join("link.csv"),
        );
        std::fs::write(&input, "x").unwrap();
        std::os::unix::fs::symlink(&input, &link).unwrap();
        assert!(refuse_same_file(&input, &link).is_err());
        assert!(refuse_same_file(&input, &directory.path().join("new.csv")).is_ok());
    }
}
