//! A disk in memory for tests: it runs full, fails and writes short on demand, and loses power at any
//! operation. Other crates' tests get it with the feature `simulated-disk`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile};

mod power_loss;

pub use power_loss::PowerLoss;

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    gate: Condvar,
}

#[derive(Default)]
struct State {
    content: Content,
    locks: BTreeSet<PathBuf>,
    recording: Option<Vec<Operation>>,
    capacity_bytes: Option<u64>,
    longest_write_bytes: Option<usize>,
    writes_until_error: Option<u64>,
    syncs_until_error: Option<u64>,
    gate_closed: bool,
    waiting_at_gate: u64,
}

/// Names and files.
#[derive(Clone, Default)]
struct Content {
    names: BTreeMap<PathBuf, usize>,
    files: BTreeMap<usize, Vec<u8>>,
}

/// One recorded operation. Files are numbered in the order of their creation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Operation {
    /// An empty file got a name.
    Create(PathBuf, usize),
    /// Bytes were written at an offset.
    Write(usize, u64, Vec<u8>),
    /// A file was synced.
    Sync(usize),
    /// A name was moved.
    Rename(PathBuf, PathBuf),
    /// A name was removed.
    Remove(PathBuf),
    /// The names of a directory were synced.
    SyncDir(PathBuf),
    /// The test noted something, such as an acknowledgement.
    Note(u64),
}

impl SimulatedDisk {
    /// An empty disk without limits or faults.
    pub fn new() -> Self {
        SimulatedDisk::default()
    }

    fn from_content(content: Content) -> Self {
        let disk = SimulatedDisk::new();
        disk.state().content = content;
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy with the same files and no locks, limits or faults.
    pub fn fork(&self) -> SimulatedDisk {
        SimulatedDisk::from_content(self.state().content.clone())
    }

    /// The paths of all files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().content.names.keys().cloned().collect()
    }

    /// A file's bytes; empty if there is none.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        let file = state
            .content
            .names
            .get(path)
            .and_then(|file| state.content.files.get(file));
        file.cloned().unwrap_or_default()
    }

    /// Changes a file's bytes behind the journal's back, making the file if there is none.
    pub fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let file = state.content.name(path);
        change(state.content.files.entry(file).or_default());
    }

    /// From now on the files together may have so many bytes; a write beyond is ENOSPC.
    pub fn set_capacity_bytes(&self, capacity_bytes: Option<u64>) {
        self.state().capacity_bytes = capacity_bytes;
    }

    /// The bytes of all files together.
    pub fn used_bytes(&self) -> u64 {
        self.state().content.used_bytes()
    }

    /// No write takes more bytes than this at once.
    pub fn set_longest_write_bytes(&self, longest: usize) {
        self.state().longest_write_bytes = Some(longest);
    }

    /// Ends all faults and limits.
    pub fn heal(&self) {
        let mut state = self.state();
        state.capacity_bytes = None;
        state.longest_write_bytes = None;
        state.writes_until_error = None;
        state.syncs_until_error = None;
    }

    /// After so many more writes, the next ones fail with EIO.
    pub fn fail_writes_after(&self, count: u64) {
        self.state().writes_until_error = Some(count);
    }

    /// After so many more syncs of files, the next ones fail with EIO.
    pub fn fail_syncs_after(&self, count: u64) {
        self.state().syncs_until_error = Some(count);
    }

    /// Syncs of segments under their names wait until [`SimulatedDisk::open_gate`].
    pub fn close_gate(&self) {
        self.state().gate_closed = true;
    }

    /// Lets the syncs go on.
    pub fn open_gate(&self) {
        self.state().gate_closed = false;
        self.inner.gate.notify_all();
    }

    /// Blocks until a sync waits at the gate.
    pub fn wait_for_sync_at_gate(&self) {
        let mut state = self.state();
        while state.waiting_at_gate == 0 {
            state = self
                .inner
                .gate
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Starts to record operations.
    pub fn record(&self) {
        self.state().recording = Some(Vec::new());
    }

    /// Puts a note between the recorded operations.
    pub fn note(&self, note: u64) {
        self.state().push(Operation::Note(note));
    }

    /// What was recorded so far.
    pub fn recorded(&self) -> Vec<Operation> {
        self.state().recording.clone().unwrap_or_default()
    }
}

impl State {
    fn push(&mut self, operation: Operation) {
        if let Some(recording) = &mut self.recording {
            recording.push(operation);
        }
    }
}

impl Content {
    fn name(&mut self, path: &Path) -> usize {
        let new = self.files.keys().next_back().map_or(0, |file| file + 1);
        let file = *self.names.entry(path.to_owned()).or_insert(new);
        self.files.entry(file).or_default();
        file
    }

    fn used_bytes(&self) -> u64 {
        let named: BTreeSet<&usize> = self.names.values().collect();
        self.files
            .iter()
            .filter(|(file, _)| named.contains(file))
            .map(|(_, bytes)| bytes.len() as u64)
            .sum()
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.names.insert(to.to_owned(), file);
        Ok(())
    }
}

fn overwrite(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = offset as usize;
    let end = start + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    if let Some(place) = file.get_mut(start..end) {
        place.copy_from_slice(bytes);
    }
}

struct Lock {
    disk: SimulatedDisk,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.path);
    }
}

impl Disk for SimulatedDisk {
    fn make_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let taken = self.state().locks.insert(path.to_owned());
        Ok(taken.then(|| {
            Box::new(Lock {
                disk: self.clone(),
                path: path.to_owned(),
            }) as Box<dyn Send + Sync>
        }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let inside = state
            .content
            .names
            .keys()
            .filter(|path| path.parent() == Some(dir));
        Ok(inside
            .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
            .collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = *self
            .state()
            .content
            .names
            .get(path)
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimulatedFile {
            disk: self.clone(),
            file,
        }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.content.names.remove(path);
        let file = state.content.name(path);
        state.push(Operation::Create(path.to_owned(), file));
        Ok(Arc::new(SimulatedFile {
            disk: self.clone(),
            file,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.content.rename(from, to)?;
        state.push(Operation::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state
            .content
            .names
            .remove(path)
            .ok_or(io::ErrorKind::NotFound)?;
        state.push(Operation::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.state().push(Operation::SyncDir(dir.to_owned()));
        Ok(())
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    file: usize,
}

impl DiskFile for SimulatedFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self
            .disk
            .state()
            .content
            .files
            .get(&self.file)
            .map_or(0, Vec::len) as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        let bytes = state
            .content
            .files
            .get(&self.file)
            .and_then(|bytes| bytes.get(offset as usize..))
            .unwrap_or_default();
        let length = bytes.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..length), bytes.get(..length)) {
            to.copy_from_slice(from);
        }
        Ok(length)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        if let Some(left) = &mut state.writes_until_error {
            *left = left
                .checked_sub(1)
                .ok_or(io::Error::from_raw_os_error(EIO))?;
        }
        let longest = state.longest_write_bytes.unwrap_or(usize::MAX);
        let bytes = bytes.get(..longest.min(bytes.len())).unwrap_or_default();
        let length = state.content.files.get(&self.file).map_or(0, Vec::len) as u64;
        let growth = (offset + bytes.len() as u64).saturating_sub(length);
        if growth > 0
            && state
                .capacity_bytes
                .is_some_and(|capacity| state.content.used_bytes() + growth > capacity)
        {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        overwrite(
            state.content.files.entry(self.file).or_default(),
            offset,
            bytes,
        );
        state.push(Operation::Write(self.file, offset, bytes.to_vec()));
        Ok(bytes.len())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let gated = state.content.names.iter().any(|(path, file)| {
            *file == self.file && path.extension().is_some_and(|end| end == "seg")
        });
        state.waiting_at_gate += 1;
        while gated && state.gate_closed {
            self.disk.inner.gate.notify_all();
            state = self
                .disk
                .inner
                .gate
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting_at_gate -= 1;
        if let Some(left) = &mut state.syncs_until_error {
            *left = left
                .checked_sub(1)
                .ok_or(io::Error::from_raw_os_error(EIO))?;
        }
        state.push(Operation::Sync(self.file));
        Ok(())
    }
}
