//! The verification of a trail: every record is read, the tree is built again, and its root compared with what was signed.
//!
//! It needs the files and the public key of the log, nothing else. The records behind the newest checkpoint are vouched for by the seals of
//! their commits, which only who has the service's keys can check.

mod ahead;
pub mod segment;

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;

use fieldkeep_audit::archive::{self, ArchiveError, ArchiveStore, Directory};
use fieldkeep_audit::view::RecordView;
use fieldkeep_crypto::keys::AuditSealKey;
use fieldkeep_journal::{DamageCause, Offline, OfflineError, Position};
use fieldkeep_tlog::checkpoint::{Checkpoint, CheckpointError};
use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::key::VerifierKey;
use fieldkeep_tlog::log_id::LogId;
use fieldkeep_tlog::tile::{LEVEL_BITS, SEGMENT_LEVEL, SEGMENT_RECORDS, WIDTH};
use fieldkeep_tlog::tree::{Tree, TreeHead};

use self::ahead::{Frame, Kind, read_ahead};
use super::checkpoint::{CHECKPOINT_FILE, Signed, newest};
use super::recover::TREE_DIR;
use super::tree::{LEAF_TILES, Tiles};

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where its frame is in the journal.
    Journal(Position),
    /// The record segment in the archive.
    Archive(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Journal(Position { segment, offset }) => {
                write!(f, "in segment {segment:016x} at byte {offset}")
            }
            Place::Archive(segment) => write!(f, "in the archived segment {segment:016x}"),
        }
    }
}

/// What to verify.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The directory of the trail, or a copy of it.
    pub dir: &'a Path,
    /// The public key of the log.
    pub key: &'a VerifierKey,
    /// Signed checkpoints that the log must contain, besides the newest one in its directory.
    pub checkpoints: &'a [String],
    /// The directory of the archive, to verify the records in it as well.
    pub archive: Option<&'a Path>,
    /// The key of the seals, to check what came after the newest checkpoint.
    pub seal: Option<&'a AuditSealKey>,
}

/// What was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The log.
    pub log: LogId,
    /// The index of the first record that was read; those before were archived, and are covered by their hashes.
    pub first: u64,
    /// The records that were read.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The newest checkpoint that the log contains.
    pub checkpoint: TreeHead,
    /// Records behind the checkpoint, which its signature does not cover.
    pub behind_checkpoint: u64,
    /// Whether the seals of those were checked.
    pub sealed: bool,
    /// Segments whose files of tiles are not those of their records; they are no evidence, and can be made again.
    pub wrong_tiles: u64,
    /// Whether the log ends within a commit that was never acknowledged, or is being written.
    pub torn: bool,
}

/// Why the trail is not what the service wrote, or cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A frame of the journal is damaged, or missing.
    #[error("record {index} is damaged or missing: {source}")]
    Damaged {
        /// The index of the first record that cannot be read.
        index: u64,
        /// Where, and how.
        source: OfflineError,
    },
    /// A frame is no audit record.
    #[error("record {index}, {place}, is no audit record")]
    NoRecord {
        /// The record's index.
        index: u64,
        /// Where it is.
        place: Place,
    },
    /// A record is another one than was signed.
    #[error("record {index}, {place}, is not the one that was signed")]
    Changed {
        /// The record's index.
        index: u64,
        /// Where it is.
        place: Place,
    },
    /// A record is another one than was signed; the hashes that would say which one are missing or changed too.
    #[error("one of the records {from} to {} is not the one that was signed", to - 1)]
    ChangedWithin {
        /// The first record that may be it.
        from: u64,
        /// The record behind the last one that may be it.
        to: u64,
    },
    /// As `ChangedWithin`, where some records are known by their hashes in `tree/` alone, which may be what was changed.
    #[error(
        "one of the records {from} to {}, or one of the hashes in `tree` that stand for others, is not the one that was signed: verify the whole log, or the archive of what was pruned", to - 1
    )]
    ChangedOrHashes {
        /// The first record that may be it.
        from: u64,
        /// The record behind the last one that may be it.
        to: u64,
    },
    /// A record is not the one whose hash is in `tree/`, and further on the log is so damaged that no signature decides
    /// which of the two is right.
    #[error(
        "record {index}, {place}, is not the one whose hash is kept in `tree`, and further on {then}"
    )]
    Differs {
        /// The record's index.
        index: u64,
        /// Where it is.
        place: Place,
        /// What is wrong further on.
        then: Box<VerifyError>,
    },
    /// The log is shorter than a checkpoint says.
    #[error(
        "the log has {found} records, but a checkpoint was signed over {signed}: the records from {found} on were cut off"
    )]
    Truncated {
        /// Records in the log.
        found: u64,
        /// The size of the checkpoint.
        signed: u64,
    },
    /// A commit does not bear its seal.
    #[error(
        "the commit of the records {from} to {last} does not bear the service's seal: it was changed or forged"
    )]
    Forged {
        /// The first record of the commit.
        from: u64,
        /// Its last record.
        last: u64,
    },
    /// There is no checkpoint.
    #[error(
        "the directory has no checkpoint that is signed with this key; give one with --checkpoint, or check that the key is that of this log"
    )]
    NoCheckpoint,
    /// A checkpoint that was given is not one of this log.
    #[error("a checkpoint that was given cannot be believed: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The key is that of another log.
    #[error("the key is that of `{key}`, but the directory holds the log `{log}`")]
    OtherLog {
        /// The name of the key.
        key: String,
        /// The origin of the log.
        log: String,
    },
    /// The hashes of records that were pruned, or that are not to be read, are missing.
    #[error(
        "the records before {first} were archived or are not to be read, and the file of tiles of segment {segment} is missing: verify the whole log, with --archive if it has one, or put the file back"
    )]
    Pruned {
        /// The first record that is there.
        first: u64,
        /// The segment without hashes.
        segment: u64,
    },
    /// The directory cannot be read.
    #[error("cannot read the directory of the trail: {0}")]
    Io(#[from] io::Error),
    /// An archived segment is missing or damaged.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(OfflineError),
}

/// Verifies a trail. `progress` is told now and then how many records and bytes were read. Blocks.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(
    wanted: &Wanted<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Verified, VerifyError> {
    let signed = signed_heads(wanted)?;
    let mut frames = Offline::open(wanted.dir).map_err(journal_error)?;
    let mut walk = Walk::begin(wanted, signed, &frames)?;
    let begun = walk.come_to_first(wanted.archive, progress);
    let read = begun.and_then(|()| walk.read(&mut frames, u64::MAX, progress));
    let ended = read.and_then(|_| walk.ended());
    let verified = ended.map_err(|error| walk.with_suspect(error))?;
    progress(walk.records, walk.bytes);
    Ok(verified)
}

/// What the log must contain, the smallest first; at least one.
fn signed_heads(wanted: &Wanted<'_>) -> Result<Vec<TreeHead>, VerifyError> {
    fs::read_dir(wanted.dir)?;
    // Before the records, so that in a live directory they have all that it says.
    let own = match fs::read(wanted.dir.join(CHECKPOINT_FILE)) {
        Ok(bytes) => newest(&bytes, wanted.key),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let mut signed: Vec<TreeHead> = own.map(|Signed { head, .. }| head).into_iter().collect();
    for note in wanted.checkpoints {
        signed.push(Checkpoint::open(note, std::slice::from_ref(wanted.key))?.head());
    }
    if signed.is_empty() {
        return Err(VerifyError::NoCheckpoint);
    }
    signed.sort_by_key(|head| head.size);
    Ok(signed)
}

fn journal_error(error: OfflineError) -> VerifyError {
    match error {
        OfflineError::Damaged { sequence, .. } => VerifyError::Damaged {
            index: sequence.saturating_sub(1),
            source: error,
        },
        other => VerifyError::Journal(other),
    }
}

/// A walk through records, in order.
struct Walk<'a> {
    seal: Option<&'a AuditSealKey>,
    log: LogId,
    first: u64,
    newest: TreeHead,
    tree: Tree,
    tiles: Tiles,
    /// What was signed, and not reached yet; the smallest last.
    signed: Vec<TreeHead>,
    /// The size up to which all is as signed.
    good: u64,
    /// The size with the last whole commit.
    whole: u64,
    records: u64,
    bytes: u64,
    /// Whether some records are known by their hashes alone.
    hashes_taken: bool,
    wrong_tiles: u64,
    torn: bool,
    /// The hashes of the tile that the next leaf belongs to, if the segment has them.
    expected: Option<Vec<Hash>>,
    /// The first record whose hash is not the one in the tiles, since the last good size.
    suspect: Option<(u64, Place)>,
}

impl<'a> Walk<'a> {
    /// Before the first record.
    fn begin(
        wanted: &Wanted<'a>,
        mut signed: Vec<TreeHead>,
        frames: &Offline,
    ) -> Result<Walk<'a>, VerifyError> {
        let log = LogId::from_bytes(frames.log_id());
        if wanted.key.name() != log.origin() {
            return Err(VerifyError::OtherLog {
                key: wanted.key.name().to_owned(),
                log: log.origin(),
            });
        }
        let newest = signed.last().copied().ok_or(VerifyError::NoCheckpoint)?;
        signed.reverse();
        let mut walk = Walk {
            seal: wanted.seal,
            log,
            first: frames.first().saturating_sub(1),
            newest,
            whole: 0,
            tree: Tree::new(),
            tiles: Tiles::open_existing(wanted.dir.join(TREE_DIR))?,
            signed,
            good: 0,
            records: 0,
            bytes: 0,
            hashes_taken: false,
            wrong_tiles: 0,
            torn: false,
            expected: None,
            suspect: None,
        };
        walk.compare()?;
        Ok(walk)
    }

    /// Comes to the first record that the journal has: through the archive if there is one, and by the hashes otherwise.
    fn come_to_first(
        &mut self,
        archive: Option<&Path>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), VerifyError> {
        match archive {
            Some(dir) => {
                let end = std::mem::take(&mut self.first);
                self.archived(&Directory::new(dir.to_owned()), end, progress)
            }
            None => {
                self.skip_to(self.first)?;
                self.compare()
            }
        }
    }

    /// The records before `end`, from the archive.
    fn archived(
        &mut self,
        archive: &dyn ArchiveStore,
        end: u64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), VerifyError> {
        for segment in 0..end.div_ceil(SEGMENT_RECORDS) {
            let mut records = archive::open(archive, segment)?;
            // To its end, so that its checksum is looked at; what the journal has as well is read there.
            while let Some((index, record)) = records.next_record()? {
                if index < end {
                    let is_record = RecordView::parse(record).is_ok();
                    self.record(record, is_record, Place::Archive(segment))?;
                }
            }
            progress(self.records, self.bytes);
        }
        self.whole = self.tree.size();
        Ok(())
    }

    /// Takes the records up to `size` from their hashes, of as large subtrees as there are hashes of.
    fn skip_to(&mut self, size: u64) -> Result<(), VerifyError> {
        let width = u64::from(WIDTH);
        let mut tile: (u64, u64, Option<Vec<Hash>>) = (0, 0, None);
        while self.tree.size() < size {
            let (at, left) = (self.tree.size(), size - self.tree.size());
            let (segment, within) = (at / SEGMENT_RECORDS, at % SEGMENT_RECORDS);
            let missing = VerifyError::Pruned {
                first: size,
                segment,
            };
            if within == 0 && left >= SEGMENT_RECORDS {
                let roots = self.tiles.roots_from(segment, 1);
                let root = roots.first().copied().ok_or(missing)?;
                self.append(SEGMENT_LEVEL, root)?;
                continue;
            }
            let whole_tile = within.is_multiple_of(width) && left >= width;
            let (wanted, place, level) = match whole_tile {
                true => (LEAF_TILES, within / width, LEVEL_BITS),
                false => (within / width, within % width, 0),
            };
            if tile.2.is_none() || (tile.0, tile.1) != (segment, wanted) {
                tile = (segment, wanted, self.tiles.tile(segment, wanted)?);
            }
            let hash = tile
                .2
                .as_ref()
                .and_then(|hashes| hashes.get(usize::try_from(place).unwrap_or(usize::MAX)));
            self.append(level, *hash.ok_or(missing)?)?;
        }
        Ok(())
    }

    fn append(&mut self, level: u8, root: Hash) -> Result<(), VerifyError> {
        self.hashes_taken = true;
        // In place by construction: each subtree follows the one before.
        let appended = self.tree.append_subtree(level, root);
        appended.map_err(|error| VerifyError::Io(io::Error::other(error)))?;
        self.whole = self.tree.size();
        Ok(())
    }

    /// Reads on to the end of journal segment `through`; what is known by its hash already is passed over. Whether another segment
    /// follows.
    fn read(
        &mut self,
        frames: &mut Offline,
        through: u64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<bool, VerifyError> {
        thread::scope(|scope| {
            for batch in read_ahead(scope, frames)? {
                for (frame, payload) in batch.frames() {
                    if frame.position.segment > through {
                        return Ok(true);
                    }
                    self.frame(frame, payload)?;
                }
                progress(self.records, self.bytes);
                match batch.failed {
                    Some(OfflineError::Damaged {
                        cause: DamageCause::Torn,
                        ..
                    }) => self.torn = true,
                    Some(error) => return Err(journal_error(error)),
                    None => {}
                }
            }
            Ok(false)
        })
    }

    fn frame(&mut self, frame: &Frame, payload: &[u8]) -> Result<(), VerifyError> {
        let known = self.tree.size();
        let is_seal = frame.kind == Kind::Seal;
        if is_seal && frame.sequence == known {
            self.seal(payload)
        } else if !is_seal && frame.sequence > known {
            let is_record = frame.kind == Kind::Record;
            self.record(payload, is_record, Place::Journal(frame.position))
        } else {
            Ok(())
        }
    }

    fn record(&mut self, record: &[u8], is_record: bool, place: Place) -> Result<(), VerifyError> {
        let index = self.tree.size();
        if !is_record {
            return Err(VerifyError::NoRecord { index, place });
        }
        let leaf = Hash::of_leaf(record);
        self.check_tile(index, leaf, place)?;
        self.tree.append(leaf);
        self.records += 1;
        self.bytes += record.len() as u64;
        self.compare()
    }

    /// Compares a leaf with the one in the tiles. A difference is no proof of anything, but it says where to look if a root
    /// differs.
    fn check_tile(&mut self, index: u64, leaf: Hash, place: Place) -> Result<(), VerifyError> {
        let at = index % u64::from(WIDTH);
        if at == 0 || self.expected.is_none() && self.records == 0 {
            let (segment, within) = (index / SEGMENT_RECORDS, index % SEGMENT_RECORDS);
            self.expected = if segment < self.tiles.segments() {
                self.tiles.tile(segment, within / u64::from(WIDTH))?
            } else {
                None
            };
        }
        let expected = self
            .expected
            .as_ref()
            .and_then(|tile| tile.get(usize::try_from(at).unwrap_or(usize::MAX)));
        if expected.is_some_and(|expected| *expected != leaf) && self.suspect.is_none() {
            self.suspect = Some((index, place));
        }
        Ok(())
    }

    /// Compares the tree with what was signed at its size.
    fn compare(&mut self) -> Result<(), VerifyError> {
        let size = self.tree.size();
        while let Some(signed) = self.signed.last().copied()
            && signed.size <= size
        {
            self.signed.pop();
            if signed.size < size {
                // It lies within what is known by its hashes; a later one covers it.
                continue;
            }
            if signed.root != self.tree.root() {
                let (from, to) = (self.good.max(self.first), size);
                return Err(match self.suspect {
                    Some((index, place)) => VerifyError::Changed { index, place },
                    None if self.hashes_taken => VerifyError::ChangedOrHashes { from, to },
                    None => VerifyError::ChangedWithin { from, to },
                });
            }
            self.good = size;
            // The records are the signed ones, so that the tiles are wrong.
            self.wrong_tiles += u64::from(self.suspect.take().is_some());
        }
        Ok(())
    }

    fn seal(&mut self, seal: &[u8]) -> Result<(), VerifyError> {
        let (from, size) = (self.whole, self.tree.size());
        self.whole = size;
        // What a signature covers needs no seal.
        let covered = self.good == size || !self.signed.is_empty();
        match self.seal {
            Some(key) if !covered && !key.is_seal(size, self.tree.root().as_bytes(), seal) => {
                let last = size.saturating_sub(1);
                Err(VerifyError::Forged { from, last })
            }
            _ => Ok(()),
        }
    }

    /// At the end of the log: whether it has all that was signed.
    fn ended(&self) -> Result<Verified, VerifyError> {
        // What no seal is behind counts where commits have none, in a log that an older version began.
        let size = if self.torn {
            self.whole
        } else {
            self.tree.size()
        };
        if size < self.newest.size {
            return Err(VerifyError::Truncated {
                found: size,
                signed: self.newest.size,
            });
        }
        Ok(Verified {
            log: self.log,
            first: self.first,
            records: self.records,
            bytes: self.bytes,
            checkpoint: self.newest,
            behind_checkpoint: size - self.newest.size,
            sealed: self.seal.is_some(),
            wrong_tiles: self.wrong_tiles,
            torn: self.torn,
        })
    }

    /// An error that keeps the log from being compared with what was signed comes behind the first record that was changed, if the
    /// hashes in `tree/` know of one.
    fn with_suspect(&self, error: VerifyError) -> VerifyError {
        let hides = matches!(
            error,
            VerifyError::Damaged { .. }
                | VerifyError::NoRecord { .. }
                | VerifyError::Truncated { .. }
        );
        match self.suspect {
            Some((index, place)) if hides => VerifyError::Differs {
                index,
                place,
                then: Box::new(error),
            },
            _ => error,
        }
    }
}

/// The directory of the trail: `dir` itself, or within a data directory, or within what `fieldkeep init` made.
#[must_use]
pub fn trail_in(dir: &Path) -> PathBuf {
    ["audit", "data/audit"]
        .iter()
        .map(|within| dir.join(within))
        .find(|within| within.is_dir())
        .unwrap_or_else(|| dir.to_owned())
}
