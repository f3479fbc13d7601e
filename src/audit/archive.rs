//! Records that left for the archive: whole record segments, read back and compared with the tree before the journal gives them up.
//!
//! Their tiles and indexes stay, so that proofs and searches go on as before; only the records themselves are read from the archive.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fieldkeep_audit::archive::{
    self, ArchiveError, ArchiveStore, Directory, SegmentReader, Written, write_segment,
};
use fieldkeep_audit::view::RecordView;
use fieldkeep_journal::{Frames, Journal, ReadError};
use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::tile::SEGMENT_RECORDS;
use fieldkeep_tlog::tree::root_of;

use super::tree::Tiles;
use super::{AuditError, AuditLog};

/// Where records go, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveConfig {
    /// The directory of the archive, which exists: a mounted share, for example.
    pub dir: PathBuf,
    /// How old the newest record of a segment is when the segment leaves; `None`: nothing leaves, and what left before is read.
    pub after: Option<Duration>,
}

/// The archive of one trail.
#[derive(Clone)]
pub(super) struct Archive {
    pub(super) store: Arc<dyn ArchiveStore>,
    after: Option<Duration>,
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Archive(after {:?})", self.after)
    }
}

impl Archive {
    pub(super) fn new(config: &ArchiveConfig) -> Archive {
        Archive {
            store: Arc::new(Directory::new(config.dir.clone())),
            after: config.after,
        }
    }
}

/// A record segment that left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archived {
    /// The record segment.
    pub segment: u64,
    /// Its size, and that of its file.
    pub written: Written,
    /// The index of the first record that the journal keeps if [`AuditLog::remove_archived`] is called.
    pub kept_from: u64,
}

impl AuditLog {
    /// Archives the oldest record segment that is due at `now_us`, microseconds since the Unix epoch, and puts that on record. `None` if none is due, or nothing is to be archived. A segment is due when its newest record is older than the setting says, every
    /// intent in it has its outcome, and a checkpoint covers it. Blocks.
    ///
    /// # Errors
    /// The archive cannot be used, or has not what was written to it: then nothing is removed.
    pub fn archive_next(&self, now_us: u64) -> Result<Option<Archived>, AuditError> {
        let Some((store, after)) = self
            .archive
            .as_ref()
            .and_then(|archive| Some((&archive.store, archive.after?)))
        else {
            return Ok(None);
        };
        let archived = self.progress.archived.load(Ordering::Relaxed);
        let segment = archived.max(gone(&self.journal));
        let end = (segment + 1) * SEGMENT_RECORDS;
        let signed = self.checkpoint().head;
        let settled = self.progress.settled.load(Ordering::Relaxed);
        let is_kept_beside = segment < self.tiles.segments() && self.indexer.has(segment);
        if end > signed.size.min(settled) || !is_kept_beside {
            return Ok(None);
        }
        let after_us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        if self.time_of(end - 1)?.saturating_add(after_us) > now_us {
            return Ok(None);
        }
        // What the archive is compared with must be what was signed, not what a file of tiles says.
        if self.root_at(signed.size)? != signed.root {
            return Err(AuditError::Tree(String::from(
                "its files are not those of the records that were signed; start the service again, which makes them anew",
            )));
        }
        let written = self.archive_segment(store.as_ref(), segment)?;
        self.progress.archived.store(segment + 1, Ordering::Relaxed);
        let kept = self.journal.first_after_prune_before(end + 1);
        self.tiles.sync(segment)?;
        let detail = format!(
            "log={} segment={segment:016x} records={}-{} bytes={} archived_bytes={} kept_from={} cause=older_than_{}s",
            self.log,
            end - SEGMENT_RECORDS,
            end - 1,
            written.bytes,
            written.compressed_bytes,
            kept.saturating_sub(1),
            after.as_secs(),
        );
        // On record before the first file goes.
        self.put_on_record(
            "fieldkeep.internal/ArchiveAudit",
            &detail,
            now_us / 1_000_000,
        )?;
        Ok(Some(Archived {
            segment,
            written,
            kept_from: kept.saturating_sub(1),
        }))
    }

    /// Removes from the journal what is archived: the segments before `kept_from`, which the store knows of by then
    /// ([`super::trail::note_kept_from`]). How many. Blocks.
    ///
    /// # Errors
    /// A file cannot be removed; it is tried again with the next one.
    pub fn remove_archived(&self, kept_from: u64) -> Result<u64, AuditError> {
        Ok(self.journal.prune_before(kept_from.saturating_add(1))?)
    }

    /// The index of the first record that the journal has.
    pub(super) fn kept_from(&self) -> u64 {
        self.journal.first().saturating_sub(1)
    }

    /// Writes a segment to the archive, and reads it back.
    fn archive_segment(
        &self,
        store: &dyn ArchiveStore,
        segment: u64,
    ) -> Result<Written, AuditError> {
        let first = segment * SEGMENT_RECORDS;
        let records = self
            .journal
            .read(first + 1)?
            .map(|entry| entry.map(|(_, record)| record))
            .take(SEGMENT_RECORDS as usize);
        let written = write_segment(store, segment, records)?;
        let root = self.tiles.roots_from(segment, 1);
        let tiles = self.tiles.leaves(segment)?;
        let mut leaves = Vec::with_capacity(SEGMENT_RECORDS as usize);
        archive::verify(store, segment, |index, leaf| {
            let leaf = Hash::from_bytes(*leaf);
            leaves.push(leaf);
            let at = usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX);
            tiles.get(at) == Some(&leaf)
        })?;
        if root.first() != Some(&root_of(&leaves)) {
            return Err(ArchiveError::OtherRecord { index: first }.into());
        }
        Ok(written)
    }

    /// When the call of a record ended, microseconds since the Unix epoch.
    fn time_of(&self, index: u64) -> Result<u64, AuditError> {
        let record = self.journal.read_one(index + 1)?;
        let view = record
            .as_deref()
            .and_then(|record| RecordView::parse(record).ok());
        view.map(|view| view.time_us)
            .ok_or_else(|| AuditError::Tree(format!("record {index} cannot be read")))
    }

    /// The records from `index` on, wherever they are, as far as they are durable now. `frames`, if given, are those of the journal
    /// from there on.
    pub(crate) fn cursor(&self, index: u64, frames: Option<Frames>) -> Cursor {
        Cursor {
            journal: self.journal.clone(),
            archive: self.archive.clone(),
            next: index,
            place: frames.map_or(Place::Unknown, |frames| Place::Journal(Box::new(frames))),
            record: Vec::new(),
        }
    }
}

/// How many record segments the journal has no more, or not wholly.
pub(super) fn gone(journal: &Journal) -> u64 {
    journal.first().saturating_sub(1).div_ceil(SEGMENT_RECORDS)
}

/// Makes the tiles of archived record segments again that are missing, from their records.
///
/// # Errors
/// There is no archive, it has not all of them, or a file cannot be written.
pub(super) fn restore_tiles(
    journal: &Journal,
    tiles: &Tiles,
    archive: Option<&Archive>,
) -> Result<(), AuditError> {
    for segment in tiles.segments()..gone(journal) {
        let archive = archive.ok_or(AuditError::InArchive {
            index: segment * SEGMENT_RECORDS,
        })?;
        let mut leaves = Vec::with_capacity(SEGMENT_RECORDS as usize);
        archive::verify(archive.store.as_ref(), segment, |_, leaf| {
            leaves.push(Hash::from_bytes(*leaf));
            true
        })?;
        tiles.write(segment, &leaves)?;
        tracing::info!(
            segment,
            "made the tiles of an archived segment of the audit trail again"
        );
    }
    Ok(())
}

/// Records in order, from the archive as long as the journal has them no more, and then from the journal.
pub(crate) struct Cursor {
    journal: Journal,
    archive: Option<Archive>,
    next: u64,
    place: Place,
    record: Vec<u8>,
}

enum Place {
    Unknown,
    Archive(Box<SegmentReader<Box<dyn Read + Send>>>),
    Journal(Box<Frames>),
}

impl Cursor {
    /// Goes on to the next record, and says its index; `None` at the end of what was durable.
    ///
    /// # Errors
    /// The record cannot be read, or is in an archive that is not known.
    pub(crate) fn read_next(&mut self) -> Result<Option<u64>, AuditError> {
        loop {
            let (index, record) = match &mut self.place {
                Place::Unknown if self.next >= self.journal.durable() => return Ok(None),
                Place::Unknown => {
                    self.place = self.find()?;
                    continue;
                }
                Place::Archive(reader) => match reader.next_record()? {
                    Some(found) => found,
                    None => {
                        self.place = Place::Unknown;
                        continue;
                    }
                },
                Place::Journal(frames) => match frames.read_next() {
                    Ok(Some(frame)) if frame.is_seal => continue,
                    Ok(Some(frame)) => (frame.sequence.saturating_sub(1), frame.payload),
                    Ok(None) => return Ok(None),
                    // It left for the archive meanwhile.
                    Err(ReadError::Pruned { .. }) => {
                        self.place = Place::Unknown;
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                },
            };
            if index >= self.next {
                self.record.clear();
                self.record.extend_from_slice(record);
                self.next = index + 1;
                return Ok(Some(index));
            }
        }
    }

    /// The record that was read last.
    pub(crate) fn record(&self) -> &[u8] {
        &self.record
    }

    fn find(&self) -> Result<Place, AuditError> {
        match self.journal.read_frames(self.next.saturating_add(1)) {
            Ok(frames) => Ok(Place::Journal(Box::new(frames))),
            Err(ReadError::Pruned { .. }) => {
                let index = self.next;
                let archive = self
                    .archive
                    .as_ref()
                    .ok_or(AuditError::InArchive { index })?;
                let reader = archive::open(archive.store.as_ref(), index / SEGMENT_RECORDS)?;
                Ok(Place::Archive(Box::new(reader)))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The most bytes of an archived segment that are held unpacked; segments of unary calls have a third of it.
const MAX_UNPACKED_BYTES: usize = 64 << 20;

/// The records of an archived segment, unpacked: a search looks into many of its bundles, and a walk at one after the other.
pub struct Unpacked {
    /// The record segment.
    pub(super) segment: u64,
    bytes: Vec<u8>,
    /// Where each record ends in `bytes`.
    ends: Vec<usize>,
}

impl fmt::Debug for Unpacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unpacked({:016x})", self.segment)
    }
}

impl Unpacked {
    /// Of the segment that has record `index`, if the journal has that no more. `None` if it has, or if the segment is too large to be held.
    ///
    /// # Errors
    /// The segment is in an archive that is not known, or cannot be read.
    pub(super) fn of(audit: &AuditLog, index: u64) -> Result<Option<Unpacked>, AuditError> {
        if index.saturating_add(1) >= audit.journal.first() {
            return Ok(None);
        }
        let archive = audit
            .archive
            .as_ref()
            .ok_or(AuditError::InArchive { index })?;
        let segment = index / SEGMENT_RECORDS;
        let mut records = archive::open(archive.store.as_ref(), segment)?;
        let mut unpacked = Unpacked {
            segment,
            bytes: Vec::new(),
            ends: Vec::new(),
        };
        while let Some((_, record)) = records.next_record()? {
            if unpacked.bytes.len() + record.len() > MAX_UNPACKED_BYTES {
                return Ok(None);
            }
            unpacked.bytes.extend_from_slice(record);
            unpacked.ends.push(unpacked.bytes.len());
        }
        Ok(Some(unpacked))
    }

    /// A record of the segment.
    pub(super) fn record(&self, index: u64) -> Option<&[u8]> {
        let at = index.checked_sub(self.segment * SEGMENT_RECORDS)?;
        let at = usize::try_from(at).ok()?;
        let start = match at.checked_sub(1) {
            None => 0,
            Some(before) => *self.ends.get(before)?,
        };
        self.bytes.get(start..*self.ends.get(at)?)
    }
}
