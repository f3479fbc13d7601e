//! What a process wrote and synced, read from an `strace` log.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use crate::{disk::Disk, random::Random};

/// The system calls that [`Trace::parse`] understands, as `strace -e trace=` takes them.
pub(crate) const CALLS: &str = "openat,open,creat,close,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,ftruncate,\
rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,lseek,fallocate,copy_file_range,sync_file_range,sendfile";

/// One step that matters to the disk, or an acknowledgement.
#[derive(Debug)]
pub(crate) enum Event {
    /// A name now stands for a file (new if it did not exist).
    Create {
        path: PathBuf,
        file: usize,
        directory: bool,
    },
    Write {
        file: usize,
        offset: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        file: usize,
        length: u64,
    },
    Sync {
        file: usize,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    /// The process wrote this line to standard output.
    Line(String),
}

/// A parsed log.
pub(crate) struct Trace {
    events: Vec<Event>,
    files: usize,
}

#[derive(Clone, Copy)]
struct Open {
    file: usize,
    position: u64,
    append: bool,
}

struct Parser<'a> {
    root: &'a Path,
    events: Vec<Event>,
    names: HashMap<PathBuf, usize>,
    lengths: HashMap<usize, u64>,
    open: HashMap<i64, Open>,
    files: usize,
}

impl Trace {
    /// Reads a log made with `strace -f -xx -s <large> -e trace=CALLS`. Only paths below `root` are kept.
    pub(crate) fn parse(log: &str, root: &Path) -> Result<Self, String> {
        let mut parser = Parser {
            root,
            events: Vec::new(),
            names: HashMap::new(),
            lengths: HashMap::new(),
            open: HashMap::new(),
            files: 0,
        };
        // The root was there before, and may be opened like a file to be synced.
        parser.create(root.to_owned(), true);
        let mut unfinished: HashMap<&str, String> = HashMap::new();
        for line in log.lines() {
            let (pid, rest) = line
                .trim_start()
                .split_once(' ')
                .ok_or("a line without a process id")?;
            let rest = rest.trim_start();
            if let Some(start) = rest.strip_suffix("<unfinished ...>") {
                unfinished.insert(pid, start.trim_end().to_owned());
            } else if rest.starts_with("<... ") {
                let end = rest
                    .split_once("resumed>")
                    .ok_or("a resumed call without its mark")?
                    .1;
                let start = unfinished
                    .remove(pid)
                    .ok_or("a call resumed that did not begin")?;
                parser.call(&format!("{start}{end}"))?;
            } else if rest.contains('(') {
                parser.call(rest)?;
            }
        }
        Ok(Self {
            events: parser.events,
            files: parser.files,
        })
    }

    /// The number of steps; a crash point is a number from 0 to this.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// The lines that the process had printed before step `point`.
    pub(crate) fn lines(&self, point: usize) -> impl Iterator<Item = &str> {
        self.events
            .iter()
            .take(point)
            .filter_map(|event| match event {
                Event::Line(line) => Some(line.as_str()),
                _ => None,
            })
    }

    /// Writes to `target` what the disk holds when the power goes before step `point`.
    pub(crate) fn restore(
        &self,
        point: usize,
        target: &Path,
        mut luck: Option<&mut Random>,
    ) -> io::Result<()> {
        let mut disk = Disk::of(self.files);
        for event in self.events.iter().take(point) {
            disk.apply(event);
        }
        disk.write_to(target, &mut luck)
    }
}

impl Parser<'_> {
    fn call(&mut self, line: &str) -> Result<(), String> {
        let (name, rest) = line.split_once('(').ok_or("a call without arguments")?;
        // strace pads short calls: `fsync(5)      = 0`. Strings are in hex, so ` = ` stands nowhere else.
        let Some((arguments, result)) = rest.rsplit_once(" = ") else {
            return Ok(()); // killed in the middle of a call
        };
        let arguments = arguments.trim_end();
        let arguments = arguments.strip_suffix(')').unwrap_or(arguments);
        let result: i64 = match result.split_whitespace().next().and_then(parse_number) {
            Some(result) if result >= 0 => result,
            _ => return Ok(()),
        };
        let arguments = split(arguments);
        let number = |i: usize| arguments.get(i).and_then(|a| parse_number(a)).unwrap_or(-1);
        let path = |i: usize| {
            arguments
                .get(i)
                .and_then(|a| quoted(a))
                .map(|b| PathBuf::from(String::from_utf8_lossy(&b).into_owned()))
        };
        match name.trim() {
            "openat" => self.opened(path(1), arguments.get(2).map_or("", |s| s), result),
            "open" => self.opened(path(0), arguments.get(1).map_or("", |s| s), result),
            "creat" => self.opened(path(0), "O_CREAT|O_TRUNC", result),
            "close" => {
                self.open.remove(&number(0));
            }
            "write" => self.written(number(0), None, arguments.get(1), result),
            "pwrite64" => self.written(number(0), Some(number(3)), arguments.get(1), result),
            "fsync" | "fdatasync" => {
                if let Some(open) = self.open.get(&number(0)) {
                    self.events.push(Event::Sync { file: open.file });
                }
            }
            "ftruncate" => {
                if let Some(open) = self.open.get(&number(0)) {
                    let length = number(1).unsigned_abs();
                    self.lengths.insert(open.file, length);
                    self.events.push(Event::Truncate {
                        file: open.file,
                        length,
                    });
                }
            }
            "lseek" => {
                if let Some(open) = self.open.get_mut(&number(0)) {
                    open.position = result.unsigned_abs();
                }
            }
            "mkdir" => self.made_directory(path(0)),
            "mkdirat" => self.made_directory(path(1)),
            "unlink" => self.unlinked(path(0)),
            "unlinkat" => self.unlinked(path(1)),
            "rename" => self.renamed(path(0), path(1)),
            "renameat" | "renameat2" => self.renamed(path(1), path(3)),
            "sync_file_range" => {}
            other => {
                if self.open.contains_key(&number(0)) {
                    return Err(format!("`{other}` on a traced file is not modelled"));
                }
            }
        }
        Ok(())
    }

    fn inside(&self, path: Option<PathBuf>) -> Option<PathBuf> {
        path.filter(|path| path.starts_with(self.root))
    }

    fn opened(&mut self, path: Option<PathBuf>, flags: &str, descriptor: i64) {
        self.open.remove(&descriptor);
        let Some(path) = self.inside(path) else {
            return;
        };
        let file = match self.names.get(&path) {
            Some(file) => *file,
            None => self.create(path, flags.contains("O_DIRECTORY")),
        };
        if flags.contains("O_TRUNC") {
            self.lengths.insert(file, 0);
            self.events.push(Event::Truncate { file, length: 0 });
        }
        self.open.insert(
            descriptor,
            Open {
                file,
                position: 0,
                append: flags.contains("O_APPEND"),
            },
        );
    }

    fn create(&mut self, path: PathBuf, directory: bool) -> usize {
        let file = self.files;
        self.files += 1;
        self.names.insert(path.clone(), file);
        self.events.push(Event::Create {
            path,
            file,
            directory,
        });
        file
    }

    fn written(&mut self, descriptor: i64, offset: Option<i64>, data: Option<&String>, count: i64) {
        let mut bytes = data.and_then(|d| quoted(d)).unwrap_or_default();
        bytes.truncate(usize::try_from(count).unwrap_or(0));
        if descriptor == 1 {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            self.events
                .extend(text.lines().map(|line| Event::Line(line.to_owned())));
            return;
        }
        let Some(open) = self.open.get_mut(&descriptor) else {
            return;
        };
        let length = self.lengths.entry(open.file).or_default();
        let at = match offset {
            Some(offset) => offset.unsigned_abs(),
            None if open.append => *length,
            None => open.position,
        };
        let end = at + bytes.len() as u64;
        if offset.is_none() {
            open.position = end;
        }
        *length = (*length).max(end);
        self.events.push(Event::Write {
            file: open.file,
            offset: at,
            bytes,
        });
    }

    fn made_directory(&mut self, path: Option<PathBuf>) {
        if let Some(path) = self.inside(path) {
            self.create(path, true);
        }
    }

    fn unlinked(&mut self, path: Option<PathBuf>) {
        if let Some(path) = self.inside(path) {
            self.names.remove(&path);
            self.events.push(Event::Unlink { path });
        }
    }

    fn renamed(&mut self, from: Option<PathBuf>, to: Option<PathBuf>) {
        let (Some(from), Some(to)) = (self.inside(from), self.inside(to)) else {
            return;
        };
        let moved: Vec<_> = self
            .names
            .iter()
            .filter(|(path, _)| path.starts_with(&from))
            .map(|(p, f)| (p.clone(), *f))
            .collect();
        for (path, file) in moved {
            self.names.remove(&path);
            let below = path.strip_prefix(&from).unwrap_or(Path::new(""));
            let new = if below.as_os_str().is_empty() {
                to.clone()
            } else {
                to.join(below)
            };
            self.names.insert(new, file);
        }
        self.events.push(Event::Rename { from, to });
    }
}

/// Splits arguments at commas outside quotes, braces and brackets.
fn split(arguments: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut in_quotes, mut depth) = (false, 0_i32);
    for c in arguments.chars() {
        match c {
            '"' => in_quotes = !in_quotes,
            '{' | '[' if !in_quotes => depth += 1,
            '}' | ']' if !in_quotes => depth -= 1,
            ',' if !in_quotes && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
        .into_iter()
        .map(|part| part.trim().to_owned())
        .collect()
}

/// The bytes of `"\x01\x02"`; with `-xx` every byte is in hex.
fn quoted(argument: &str) -> Option<Vec<u8>> {
    let inside = argument.strip_prefix('"')?.strip_suffix('"')?;
    inside
        .split("\\x")
        .skip(1)
        .map(|hex| u8::from_str_radix(hex.get(..2)?, 16).ok())
        .collect()
}

fn parse_number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn hex(text: &str) -> String {
        let bytes: String = text.bytes().map(|b| format!("\\x{b:02x}")).collect();
        format!("\"{bytes}\"")
    }

    fn survivors(log: &str, point: Option<usize>) -> Vec<(String, String)> {
        let trace = Trace::parse(log, Path::new("/d")).unwrap();
        let target = tempfile::TempDir::new().unwrap();
        trace
            .restore(point.unwrap_or(trace.len()), target.path(), None)
            .unwrap();
        let mut found: Vec<_> = fs::read_dir(target.path())
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.is_file())
            .map(|p| {
                (
                    p.file_name().unwrap().to_string_lossy().into_owned(),
                    fs::read_to_string(&p).unwrap(),
                )
            })
            .collect();
        found.sort();
        found
    }

    #[test]
    fn only_what_was_synced_survives() {
        let log = format!(
            "1 openat(AT_FDCWD, {a}, O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 5\n1 write(5, {one}, 3) = 3\n\
             1 fdatasync(5)                     = 0\n1 openat(AT_FDCWD, {d}, O_RDONLY|O_DIRECTORY) = 6\n1 fsync(6) = 0\n1 pwrite64(5, {two}, 3, 3) = 3\n\
             1 sync_file_range(5, 0, 6, SYNC_FILE_RANGE_WRITE) = 0\n",
            d = hex("/d"),
            a = hex("/d/a"),
            one = hex("one"),
            two = hex("two"),
        );
        assert_eq!(survivors(&log, None), [("a".into(), "one".into())]);
        assert_eq!(survivors(&log, Some(4)), []);
    }

    #[test]
    fn interrupted_calls_and_lines_are_joined() {
        let log = format!(
            "1 write(1, {ack}, 6 <unfinished ...>\n2 close(9) = 0\n1 <... write resumed>) = 6\n",
            ack = hex("ack 7\n"),
        );
        let trace = Trace::parse(&log, Path::new("/d")).unwrap();
        assert_eq!(trace.lines(trace.len()).collect::<Vec<_>>(), ["ack 7"]);
    }

    #[test]
    fn a_rename_survives_with_its_directory() {
        let log = format!(
            "1 openat(AT_FDCWD, {d}, O_RDONLY|O_DIRECTORY) = 6\n1 openat(AT_FDCWD, {t}, O_WRONLY|O_CREAT, 0600) = 5\n\
             1 write(5, {x}, 1) = 1\n1 fsync(5) = 0\n1 rename({t}, {a}) = 0\n1 fsync(6) = 0\n",
            d = hex("/d"),
            t = hex("/d/t"),
            a = hex("/d/a"),
            x = hex("x"),
        );
        assert_eq!(survivors(&log, None), [("a".into(), "x".into())]);
        let trace = Trace::parse(&log, Path::new("/d")).unwrap();
        assert_eq!(survivors(&log, Some(trace.len() - 1)), []);
    }
}
