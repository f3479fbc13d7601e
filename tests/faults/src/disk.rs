//! What a disk holds after the power goes.
//!
//! The model is the strict one of POSIX: the bytes of a file survive if an `fsync` or `fdatasync` of that file came after they were
//! written; a name survives if an `fsync` of its directory came after it was made, renamed or removed. `sync_file_range` promises nothing.
//! Of what was not synced, nothing survives, or (with a generator) any subset of the writes: a disk may have written more than it was asked to.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{random::Random, trace::Event};

/// A file's bytes as they are after a power loss: what was synced, and what was written since.
#[derive(Clone, Default)]
struct Image {
    synced: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, new) => {
                let start = usize::try_from(*offset).unwrap_or(usize::MAX);
                if bytes.len() < start + new.len() {
                    bytes.resize(start + new.len(), 0);
                }
                bytes[start..start + new.len()].copy_from_slice(new);
            }
            Self::Truncate(length) => {
                bytes.resize(usize::try_from(*length).unwrap_or(usize::MAX), 0)
            }
        }
    }
}

/// Files and names, as the process sees them and as they survive.
#[derive(Default)]
pub(crate) struct Disk {
    files: Vec<Image>,
    /// Names as the process sees them, and as they survive: (file, is a directory).
    names: BTreeMap<PathBuf, (usize, bool)>,
    synced_names: BTreeMap<PathBuf, (usize, bool)>,
}

impl Disk {
    /// A disk without names, for a number of files.
    pub(crate) fn of(files: usize) -> Self {
        Self {
            files: vec![Image::default(); files],
            ..Self::default()
        }
    }

    /// Does what the process did.
    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Create {
                path,
                file,
                directory,
            } => {
                self.names.insert(path.clone(), (*file, *directory));
            }
            Event::Write {
                file,
                offset,
                bytes,
            } => self.files[*file]
                .pending
                .push(Change::Write(*offset, bytes.clone())),
            Event::Truncate { file, length } => {
                self.files[*file].pending.push(Change::Truncate(*length))
            }
            Event::Sync { file } => self.sync(*file),
            Event::Rename { from, to } => {
                let moved: Vec<_> = self
                    .names
                    .iter()
                    .filter(|(p, _)| p.starts_with(from))
                    .map(|(p, f)| (p.clone(), *f))
                    .collect();
                for (path, file) in moved {
                    self.names.remove(&path);
                    let below = path.strip_prefix(from).unwrap_or(Path::new(""));
                    self.names.insert(
                        if below.as_os_str().is_empty() {
                            to.clone()
                        } else {
                            to.join(below)
                        },
                        file,
                    );
                }
            }
            Event::Unlink { path } => {
                self.names.remove(path);
            }
            Event::Line(_) => {}
        }
    }

    fn sync(&mut self, file: usize) {
        let image = &mut self.files[file];
        for change in image.pending.drain(..) {
            change.apply(&mut image.synced);
        }
        let Some(directory) = self
            .names
            .iter()
            .find(|(_, (f, d))| *f == file && *d)
            .map(|(path, _)| path.clone())
        else {
            return;
        };
        self.synced_names
            .retain(|path, _| path.parent() != Some(&directory));
        let entries: Vec<_> = self
            .names
            .iter()
            .filter(|(p, _)| p.parent() == Some(&directory))
            .map(|(p, f)| (p.clone(), *f))
            .collect();
        self.synced_names.extend(entries);
        self.synced_names.insert(directory, (file, true));
    }

    /// Writes what survives to `target`.
    pub(crate) fn write_to(&self, target: &Path, luck: &mut Option<&mut Random>) -> io::Result<()> {
        let root = self.names.keys().next().cloned().unwrap_or_default();
        // Names that were never synced survive or not as luck has it, each with its file.
        let mut names = self.synced_names.clone();
        if let Some(random) = luck {
            for (path, entry) in &self.names {
                if !names.contains_key(path) && random.below(2) == 0 {
                    names.insert(path.clone(), *entry);
                }
            }
        }
        fs::create_dir_all(target)?;
        for (path, (file, directory)) in &names {
            let Ok(below) = path.strip_prefix(&root) else {
                continue;
            };
            let reachable = path
                .ancestors()
                .skip(1)
                .take_while(|p| p.starts_with(&root))
                .all(|p| p == root || names.contains_key(p));
            if below.as_os_str().is_empty() || !reachable {
                continue;
            }
            let place = target.join(below);
            if *directory {
                fs::create_dir_all(place)?;
                continue;
            }
            let image = &self.files[*file];
            let mut bytes = image.synced.clone();
            if let Some(random) = luck {
                for change in image.pending.iter().filter(|_| random.below(2) == 0) {
                    change.apply(&mut bytes);
                }
            }
            fs::write(place, bytes)?;
        }
        Ok(())
    }
}
