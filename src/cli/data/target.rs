//! The output: a file that is whole or not there, or standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use super::super::failure::{Exit, Failure, file_failure};
use super::input::{Compression, compression_of};

type Buffer = BufWriter<Box<dyn Write + Send>>;

/// Where rows go. A file takes its name when it is complete and on the disk; dropped before, it is gone, unless an
/// interrupted run is to go on from it.
pub(crate) struct Target {
    /// None once it is finished.
    encoder: Option<Encoder>,
    file: Option<Unnamed>,
}

/// A file without its name yet.
struct Unnamed {
    file: File,
    temporary: Option<TempPath>,
    path: PathBuf,
    replace: bool,
    /// What an interrupted run left, to be removed at the end; set if this run is to leave something too.
    previous: Option<PathBuf>,
}

enum Encoder {
    Plain(Buffer),
    Gzip(flate2::write::GzEncoder<Buffer>),
    Zstd(zstd::Encoder<'static, Buffer>),
}

impl Encoder {
    fn new(compression: Compression, sink: Box<dyn Write + Send>) -> io::Result<Encoder> {
        let buffer = BufWriter::with_capacity(256 * 1024, sink);
        Ok(match compression {
            Compression::Plain => Encoder::Plain(buffer),
            Compression::Gzip => Encoder::Gzip(flate2::write::GzEncoder::new(
                buffer,
                flate2::Compression::default(),
            )),
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(buffer, zstd::DEFAULT_COMPRESSION_LEVEL)?;
                encoder.include_checksum(true)?;
                Encoder::Zstd(encoder)
            }
        })
    }

    fn finish(self) -> io::Result<()> {
        let mut buffer = match self {
            Encoder::Plain(buffer) => buffer,
            Encoder::Gzip(encoder) => encoder.finish()?,
            Encoder::Zstd(encoder) => encoder.finish()?,
        };
        buffer.flush()
    }
}

impl Target {
    /// Begins to write beside `path`, compressed as its extension says. `replace`: an existing file may be replaced.
    pub(crate) fn create(path: &Path, replace: bool) -> Result<Target, Failure> {
        check_name(path, replace)?;
        let (file, temporary) = tempfile::Builder::new()
            .prefix(&format!(".{}.", file_name(path)))
            .suffix(".part")
            .tempfile_in(directory(path))
            .map_err(|error| file_failure("write", path, &error))?
            .into_parts();
        Target::to_file(file, temporary, path, replace, None)
    }

    /// As [`create`](Self::create), but what is written stays when the command is interrupted. `identity` names input and
    /// choices: a later run with the same one goes on. Gives what an interrupted run has left too.
    pub(super) fn resume(
        path: &Path,
        replace: bool,
        identity: &str,
    ) -> Result<(Target, Option<File>), Failure> {
        check_name(path, replace)?;
        let failed = |error: io::Error| file_failure("write", path, &error);
        let beside =
            |suffix: &str| path.with_file_name(format!(".{}.{identity}.{suffix}", file_name(path)));
        let (part, previous) = (beside("part"), beside("previous"));
        // Two interrupted runs may have left something: the one that came further counts.
        if let Ok(left) = File::open(&part) {
            if left.try_lock().is_err() {
                return Err(Failure::new(
                    Exit::Conflict,
                    format_args!("another command is writing `{}`", path.display()),
                )
                .help("wait for its end"));
            }
            let length = |path: &Path| path.metadata().map_or(0, |metadata| metadata.size());
            if length(&part) > length(&previous) {
                std::fs::rename(&part, &previous).map_err(failed)?;
            } else {
                std::fs::remove_file(&part).map_err(failed)?;
            }
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)
            .map_err(failed)?;
        file.lock().map_err(failed)?;
        let left = File::open(&previous).ok();
        let temporary = TempPath::try_from_path(part).map_err(failed)?;
        let target = Target::to_file(file, temporary, path, replace, Some(previous))?;
        Ok((target, left))
    }

    fn to_file(
        file: File,
        temporary: TempPath,
        path: &Path,
        replace: bool,
        previous: Option<PathBuf>,
    ) -> Result<Target, Failure> {
        let failed = |error: io::Error| file_failure("write", path, &error);
        let sink = Box::new(file.try_clone().map_err(failed)?);
        Ok(Target {
            encoder: Some(Encoder::new(compression_of(path).0, sink).map_err(failed)?),
            file: Some(Unnamed {
                file,
                temporary: Some(temporary),
                path: path.into(),
                replace,
                previous,
            }),
        })
    }

    /// Standard output, not compressed.
    pub(super) fn standard_output() -> Target {
        Target {
            encoder: Some(Encoder::Plain(BufWriter::new(Box::new(io::stdout())))),
            file: None,
        }
    }

    /// Nowhere: for a dry run.
    pub(super) fn nowhere() -> Target {
        Target {
            encoder: Some(Encoder::Plain(BufWriter::new(Box::new(io::sink())))),
            file: None,
        }
    }

    /// Brings a file to the disk and gives it its name.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let finished = self.encoder.take().map_or(Ok(()), Encoder::finish);
        let Some(mut unnamed) = self.file.take() else {
            return finished.map_err(|error| write_failure(&error));
        };
        let outcome = finished
            .map_err(|error| file_failure("write", &unnamed.path, &error))
            .and_then(|()| unnamed.take_name());
        if outcome.is_err() {
            self.file = Some(unnamed);
        }
        outcome
    }
}

impl Unnamed {
    fn take_name(&mut self) -> Result<(), Failure> {
        let failed = |error: &io::Error| file_failure("write", &self.path, error);
        self.file.sync_all().map_err(|error| failed(&error))?;
        let Some(temporary) = self.temporary.take() else {
            return Ok(());
        };
        let named = if self.replace {
            temporary.persist(&self.path)
        } else {
            temporary.persist_noclobber(&self.path)
        };
        if let Err(error) = named {
            self.temporary = Some(error.path);
            return Err(match error.error.kind() {
                io::ErrorKind::AlreadyExists => already_there(&self.path),
                _ => failed(&error.error),
            });
        }
        if let Some(previous) = &self.previous {
            // There may be none; one that stays is only in the way.
            let _ = std::fs::remove_file(previous);
        }
        File::open(directory(&self.path))
            .and_then(|directory| directory.sync_all())
            .map_err(|error| failed(&error))
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.encoder {
            Some(Encoder::Plain(buffer)) => buffer.write(bytes),
            Some(Encoder::Gzip(encoder)) => encoder.write(bytes),
            Some(Encoder::Zstd(encoder)) => encoder.write(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.encoder {
            Some(Encoder::Plain(buffer)) => buffer.flush(),
            Some(Encoder::Gzip(encoder)) => encoder.flush(),
            Some(Encoder::Zstd(encoder)) => encoder.flush(),
            None => Ok(()),
        }
    }
}

impl Drop for Target {
    /// What was written of a file that a later run can go on from stays; anything else goes.
    fn drop(&mut self) {
        let Some(mut unnamed) = self.file.take() else {
            return;
        };
        let _ = self.flush();
        let is_empty = unnamed.file.metadata().is_ok_and(|file| file.len() == 0);
        if unnamed.previous.is_none() || is_empty {
            return;
        }
        if let Some(temporary) = unnamed.temporary.take() {
            let name = temporary.display().to_string();
            if temporary.keep().is_ok() {
                eprintln!(
                    "note: what is done so far is in `{name}`; the same command goes on from there"
                );
            }
        }
    }
}

/// A failure to write that may only mean that nobody reads any more.
pub(super) fn write_failure(error: &io::Error) -> Failure {
    let exit = match error.kind() {
        io::ErrorKind::BrokenPipe => Exit::PipeClosed,
        _ => Exit::Failed,
    };
    Failure::new(exit, "cannot write the output").caused_by(error)
}

fn check_name(path: &Path, replace: bool) -> Result<(), Failure> {
    if path.is_dir() {
        return Err(Failure::new(
            Exit::Usage,
            format_args!("`{}` is a directory", path.display()),
        )
        .help("--output names the file to write"));
    }
    let parent = directory(path);
    if !parent.exists() {
        return Err(Failure::new(
            Exit::Failed,
            format_args!("there is no directory `{}` to write to", parent.display()),
        )
        .help("make it first, or choose another --output"));
    }
    if !replace && path.symlink_metadata().is_ok() {
        return Err(already_there(path));
    }
    Ok(())
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
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

    #[test]
    fn what_an_interrupted_run_left_is_there_for_the_next_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.csv");
        let names = || {
            let mut names: Vec<String> = std::fs::read_dir(directory.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let resume = |identity: &str| Target::resume(&path, false, identity);
        let text = |file: Option<File>| file.map(|file| io::read_to_string(file).unwrap());

        let (mut target, left) = resume("a").unwrap();
        assert!(left.is_none());
        target.write_all(b"first, longer").unwrap();
        let error = resume("a").err().unwrap();
        assert_eq!(error.exit(), Exit::Conflict, "while the first is at work");
        drop(target);
        assert_eq!(names(), [".out.csv.a.part"]);

        // The next run is interrupted before it came as far.
        let (mut target, left) = resume("a").unwrap();
        assert_eq!(text(left).as_deref(), Some("first, longer"));
        target.write_all(b"second").unwrap();
        drop(target);
        let (_, left) = resume("a").unwrap();
        assert_eq!(text(left).as_deref(), Some("first, longer"));
        assert_eq!(
            names(),
            [".out.csv.a.previous"],
            "nothing written, nothing left"
        );

        let (other, left) = resume("b").unwrap();
        assert!(left.is_none(), "another input");
        drop(other);
        let (mut target, _) = resume("a").unwrap();
        target.write_all(b"whole").unwrap();
        target.finish().unwrap();
        assert_eq!(names(), ["out.csv"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn an_extension_compresses_and_a_cut_file_gives_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let text = (0..200_000).map(|n| format!("{n}\n")).collect::<String>();
        for name in ["out.csv.gz", "out.csv.zst"] {
            let path = directory.path().join(name);
            let mut target = Target::create(&path, false).unwrap();
            target.write_all(text.as_bytes()).unwrap();
            target.finish().unwrap();
            let whole = std::fs::read(&path).unwrap();
            assert!(whole.len() < text.len());
            let read = |bytes: &[u8]| {
                let input = Box::new(io::Cursor::new(bytes.to_vec()));
                let mut content = Vec::new();
                let mut reader = super::super::input::decompress(input).unwrap();
                let outcome = io::Read::read_to_end(&mut reader, &mut content);
                (content, outcome.is_ok())
            };
            assert!(read(&whole) == (text.clone().into_bytes(), true), "{name}");
            let (half, complete) = read(&whole[..whole.len() / 2]);
            assert!(
                !complete && half.len() > text.len() / 5 && text.as_bytes().starts_with(&half),
                "{name}"
            );
        }
    }
}
