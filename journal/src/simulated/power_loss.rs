//! What is left on a simulated disk when power is lost.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Content, Operation, SimulatedDisk, overwrite};

/// What a device writes whole or not at all, in bytes.
const SECTOR_BYTES: u64 = 512;

/// Follows recorded operations and knows at each what a power loss would leave.
#[derive(Clone, Default)]
pub struct PowerLoss {
    durable: Content,
    /// Writes that were not synced, by file, in order.
    writes: BTreeMap<usize, Vec<(u64, Vec<u8>)>>,
    /// Changes of names that were not synced, in order.
    changes: Vec<Operation>,
}

impl PowerLoss {
    /// Starts from a disk whose files are all durable.
    pub fn after(disk: &SimulatedDisk) -> Self {
        PowerLoss {
            durable: disk.state().content.clone(),
            ..PowerLoss::default()
        }
    }

    /// Follows one operation.
    pub fn step(&mut self, operation: &Operation) {
        match operation {
            Operation::Create(..) | Operation::Rename(..) | Operation::Remove(_) => {
                self.changes.push(operation.clone())
            }
            Operation::Write(file, offset, bytes) => self
                .writes
                .entry(*file)
                .or_default()
                .push((*offset, bytes.clone())),
            Operation::Sync(file) => {
                for (offset, bytes) in self.writes.remove(file).unwrap_or_default() {
                    overwrite(self.durable.files.entry(*file).or_default(), offset, &bytes);
                }
            }
            Operation::SyncDir(dir) => {
                let changes = std::mem::take(&mut self.changes);
                for change in changes {
                    if change.dir() == Some(dir) {
                        self.durable.apply(&change)
                    } else {
                        self.changes.push(change)
                    }
                }
            }
            Operation::Note(_) => {}
        }
    }

    /// The disk after power is lost here. `keep` is asked for each 512-byte sector of each write that was not
    /// synced, and for each change of a name, whether it had reached the disk all the same; the first change
    /// that had not is the last that is asked for, since file systems keep their order.
    pub fn lose(&self, mut keep: impl FnMut() -> bool) -> SimulatedDisk {
        let mut content = self.durable.clone();
        for change in self.changes.iter().take_while(|_| keep()) {
            content.apply(change);
        }
        for (file, writes) in &self.writes {
            let target = content.files.entry(*file).or_default();
            for (offset, bytes) in writes {
                let mut at = 0;
                while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
                    let position = offset + at as u64;
                    let length = rest
                        .len()
                        .min((SECTOR_BYTES - position % SECTOR_BYTES) as usize);
                    if keep() {
                        overwrite(target, position, rest.get(..length).unwrap_or_default());
                    }
                    at += length;
                }
            }
        }
        SimulatedDisk::from_content(content)
    }
}

impl Operation {
    fn dir(&self) -> Option<&Path> {
        match self {
            Operation::Create(path, _) | Operation::Rename(path, _) | Operation::Remove(path) => {
                path.parent()
            }
            _ => None,
        }
    }
}

impl Content {
    fn apply(&mut self, change: &Operation) {
        match change {
            Operation::Create(path, file) => {
                self.names.insert(path.clone(), *file);
                self.files.entry(*file).or_default();
            }
            Operation::Rename(from, to) => {
                // A name that is not there was never durable; neither is the new one then.
                let _ = self.rename(from, to);
            }
            Operation::Remove(path) => {
                self.names.remove(path);
            }
            _ => {}
        }
    }
}
