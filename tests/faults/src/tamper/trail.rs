//! The trail that is damaged, as the service's own code writes it.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use fieldkeep::{
    audit::{
        AuditLog,
        checkpoint::{CHECKPOINT_FILE, Signed},
    },
    config::AuditConfig,
};
use fieldkeep_harness::records::usual;
use fieldkeep_journal::parse_header;
use fieldkeep_keystore::{keystore::Keystore, root::key_file::KeyFile, store::memory::MemoryStore};
use fieldkeep_tlog::{key::VerifierKey, tile::SEGMENT_RECORDS};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::random::Random;

const NOW: u64 = 1_760_000_000;
/// Small, so that a damaged segment is verified quickly.
const SEGMENT_BYTES: u64 = 1 << 20;
/// The most records of a commit.
const LARGEST_COMMIT: u64 = 192;
/// At the least so many records are behind the checkpoint of the tail.
const TAIL: u64 = 400;

/// One file of the journal.
#[derive(Clone, Debug)]
pub(crate) struct SegmentFile {
    pub(crate) id: u64,
    /// The indexes of its records.
    pub(crate) records: Range<u64>,
}

/// A closed trail, and what its auditor and its service know.
pub(crate) struct Trail {
    directory: TempDir,
    pub(crate) keystore: Keystore,
    pub(crate) key: VerifierKey,
    /// Checkpoints as they were kept elsewhere, oldest first. The last is over the whole log.
    pub(crate) kept: Vec<Signed>,
    /// The newest one before the last records came, as it is found after a crash.
    pub(crate) behind: Signed,
    /// The files of the journal, oldest first.
    pub(crate) files: Vec<SegmentFile>,
    pub(crate) records: u64,
}

impl Trail {
    /// Writes a trail of `records` records, in commits of one to many.
    pub(crate) fn make(runtime: &Runtime, records: u64, random: &mut Random) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let root = KeyFile::create(directory.path().join("root.key")).expect("a key file");
        let store = Arc::new(MemoryStore::new());
        let keystore = runtime
            .block_on(Keystore::init(store, &root, NOW))
            .expect("an empty store");
        let dir = directory.path().join("audit");
        let open = || runtime.block_on(open(&dir, &keystore)).expect("it opens");
        let log = open();
        let mut kept = Vec::new();
        let mut behind = None;
        let mut number = log.len();
        while number < records {
            let group = (1 + random.below(LARGEST_COMMIT)).min(records - number);
            for _ in 1..group {
                log.append(&usual(number)).expect("appended");
                number += 1;
            }
            log.append_blocking(&usual(number)).expect("appended");
            number += 1;
            if number / 50_000 != (number - group) / 50_000 {
                kept.push(log.checkpoint());
            }
            if number + TAIL >= records && behind.is_none() {
                behind = Some(log.checkpoint());
            }
        }
        let key = log.verifier_key().clone();
        drop(log);
        // A start makes the tiles that are missing, and signs the whole log.
        let log = open();
        kept.push(log.checkpoint());
        drop(log);
        Self {
            files: files(&dir, records),
            behind: behind.expect("taken on the way"),
            directory,
            keystore,
            key,
            kept,
            records,
        }
    }

    /// The directory of the trail.
    pub(crate) fn dir(&self) -> PathBuf {
        self.directory.path().join("audit")
    }

    /// The checkpoint over the whole log.
    pub(crate) fn newest(&self) -> &Signed {
        self.kept.last().expect("the last is over the whole log")
    }

    pub(crate) fn last_file(&self) -> &SegmentFile {
        self.files.last().expect("there is one")
    }

    /// The bytes of a segment.
    pub(crate) fn read(&self, file: &SegmentFile) -> Vec<u8> {
        fs::read(self.dir().join(name(file.id))).expect("it can be read")
    }

    /// Whether the hash of a record is in a tile, so that it can be named if it is another one.
    pub(crate) fn has_tile(&self, index: u64) -> bool {
        index < self.records / SEGMENT_RECORDS * SEGMENT_RECORDS
    }
}

/// Opens a trail as the service does.
pub(crate) async fn open(
    dir: &Path,
    keystore: &Keystore,
) -> Result<AuditLog, fieldkeep::audit::AuditError> {
    let config = AuditConfig {
        segment_bytes: SEGMENT_BYTES,
        reserve_bytes: 0,
        ..AuditConfig::default()
    };
    AuditLog::open(dir, &config, keystore, NOW).await
}

/// The name of a segment's file.
pub(crate) fn name(id: u64) -> String {
    format!("{id:016x}.seg")
}

/// A checkpoint file with these in its two slots.
pub(crate) fn slots(first: &Signed, second: &Signed) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1_024);
    for signed in [first, second] {
        bytes.extend_from_slice(signed.note.as_bytes());
        let slots = bytes.len().div_ceil(512);
        bytes.resize(slots * 512, b'\n');
    }
    bytes
}

fn files(dir: &Path, records: u64) -> Vec<SegmentFile> {
    let entries = fs::read_dir(dir).expect("the directory can be read");
    let mut firsts: Vec<(u64, u64)> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "seg"))
        .map(|path| {
            let header = parse_header(&fs::read(path).expect("a segment")).expect("a header");
            (header.id, header.first - 1)
        })
        .collect();
    firsts.sort_unstable();
    let ends = firsts.iter().skip(1).map(|(_, first)| *first);
    let ends: Vec<u64> = ends.chain([records]).collect();
    firsts
        .iter()
        .zip(ends)
        .map(|((id, first), end)| SegmentFile {
            id: *id,
            records: *first..end,
        })
        .collect()
}

/// A directory that looks like the trail's, in which files can be changed: the others are links.
pub(crate) struct Scratch {
    directory: TempDir,
    base: PathBuf,
    /// Its two slots have different checkpoints, as those of a running service do.
    checkpoint: Vec<u8>,
}

impl Scratch {
    /// In memory where the system has a file system for that.
    pub(crate) fn make(trail: &Trail) -> Self {
        let directory = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new());
        let scratch = Self {
            directory: directory.expect("a temporary directory"),
            base: trail.dir(),
            checkpoint: slots(trail.newest(), &trail.behind),
        };
        for within in ["", "tree"] {
            let folder = scratch.base.join(within);
            fs::create_dir_all(scratch.dir().join(within)).expect("a folder");
            for entry in fs::read_dir(folder).expect("it can be read") {
                let path = entry.expect("an entry").path();
                if path.is_file() && !path.ends_with("lock") {
                    scratch.restore(path.strip_prefix(&scratch.base).expect("within"));
                }
            }
        }
        scratch
    }

    pub(crate) fn dir(&self) -> &Path {
        self.directory.path()
    }

    /// Puts other bytes in the place of a file, or removes it.
    pub(crate) fn put(&self, name: &Path, bytes: Option<&[u8]>) {
        let path = self.dir().join(name);
        let _ = fs::remove_file(&path);
        if let Some(bytes) = bytes {
            fs::write(path, bytes).expect("it can be written");
        }
    }

    /// Undoes that. What the service itself writes into is a copy.
    pub(crate) fn restore(&self, name: &Path) {
        let (path, base) = (self.dir().join(name), self.base.join(name));
        let _ = fs::remove_file(&path);
        if name == Path::new(CHECKPOINT_FILE) {
            fs::write(path, &self.checkpoint).expect("it can be written");
        } else if name.extension().is_some() {
            std::os::unix::fs::symlink(base, path).expect("a link");
        } else {
            fs::copy(base, path).expect("a copy");
        }
    }
}
