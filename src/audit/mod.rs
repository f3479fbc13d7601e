//! The audit trail: one record a call, appended to a journal of its own before the reply leaves.
//!
//! A frame of the journal is one encoded `fieldkeep.v1.AuditRecord`. Indexes of records begin at 0, sequences of frames at 1.
//! The records are the leaves of a Merkle tree, whose root each commit seals and each checkpoint signs (docs/audit-format.md).
//! Reading is blocking file access: it belongs on a blocking thread, not on a runtime's.

pub mod archive;
pub mod checkpoint;
pub mod encoded;
mod index;
pub mod kept;
pub mod keys;
pub mod operations;
pub mod prove;
pub mod record;
pub mod recover;
mod report;
mod seal;
pub mod sinks;
#[cfg(test)]
mod tests;
pub mod trail;
mod tree;
pub mod verify;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use fieldkeep_audit::archive::ArchiveError;
use fieldkeep_audit::index::BuildError;
use fieldkeep_journal::{
    AppendError, AppendOptions, Disk, Journal, OpenError, Options, ReadError, SystemDisk, Ticket,
};
use fieldkeep_keystore::keystore::Keystore;
use fieldkeep_proto::v1::AuditRecord;
use fieldkeep_tlog::{
    checkpoint::CheckpointError,
    hash::Hash,
    key::{SigningKey, VerifierKey},
    log_id::LogId,
    receipt::Receipt,
    tree::TreeHead,
};
use prost::{DecodeError, Message as _};

#[cfg(test)]
use self::archive::ArchiveConfig;
use self::archive::{Archive, Cursor};
use self::checkpoint::{CheckpointStats, Checkpoints, Signed, Slots};
use self::encoded::Encoded;
use self::index::Indexer;
use self::kept::{Expected, KeptError};
use self::keys::{LogKeys, LogKeysError};
use self::operations::OpenOperations;
use self::record::{LocalCall, local_record};
use self::recover::{LossError, Recovered, recover};
use self::seal::{Heads, Sealer};
use self::sinks::CheckpointSinks;
use self::tree::Tiles;
use crate::config::AuditConfig;
use crate::version::AUDITED;

/// The largest record, bytes.
pub const MAX_RECORD_BYTES: usize = 65_535;

/// The audit trail of one data directory. A clone is the same trail.
#[derive(Clone)]
pub struct AuditLog {
    // These three end in this order, so that the last checkpoint is over all that was appended.
    indexer: Arc<Indexer>,
    journal: Journal,
    checkpoints: Arc<Checkpoints>,
    progress: Arc<Progress>,
    log: LogId,
    signing: Arc<SigningKey>,
    tiles: Arc<Tiles>,
    heads: Arc<Heads>,
    /// Where records are that left, if any may.
    archive: Option<Archive>,
}

/// How far the trail and the store have been compared; see [`trail`].
#[derive(Default)]
struct Progress {
    /// Records before this index need not be compared with the store again.
    settled: AtomicU64,
    /// Records with changes since then.
    unsettled_changes: AtomicU64,
    /// Record segments that are known to be archived, from the first on.
    archived: AtomicU64,
    /// Operations whose intent is on record and whose outcome is not.
    operations: OpenOperations,
}

/// Why the trail could not be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// It cannot be opened.
    #[error("the audit trail cannot be opened: {0}")]
    Open(#[from] OpenError),
    /// A record was not taken.
    #[error("the audit trail takes no record: {0}")]
    Append(#[from] AppendError),
    /// A record is larger than [`MAX_RECORD_BYTES`] even after what may be cut was cut.
    #[error("the audit record is larger than {MAX_RECORD_BYTES} bytes")]
    TooLarge,
    /// Records are missing, or others than those that were signed.
    #[error(
        "the audit trail is not what this service wrote: {0}; restore the `audit` directory from its mirror or the newest backup, or, if what is missing is lost for good, start once with `--accept-audit-loss`, which goes on record"
    )]
    Lost(LossError),
    /// A checkpoint that was kept elsewhere, and that the trail has to contain, cannot be gone by.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// There are no keys for it.
    #[error("the keys of the audit trail: {0}")]
    Keys(#[from] LogKeysError),
    /// A file beside the journal cannot be read or written.
    #[error("a file of the audit trail's tree or checkpoints cannot be read or written: {0}")]
    File(#[from] io::Error),
    /// The index of a segment cannot be made.
    #[error(transparent)]
    Index(#[from] BuildError),
    /// No checkpoint can be made.
    #[error("no checkpoint of the audit trail can be made: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// A hash of the tree is missing, or a proof is not possible.
    #[error("the tree of the audit trail: {0}")]
    Tree(String),
    /// Records cannot be archived, or read from the archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The record left for an archive.
    #[error(
        "record {index} of the audit trail was archived: set `audit.archive_dir` to the directory of the archive"
    )]
    InArchive {
        /// The record's index.
        index: u64,
    },
    /// A record cannot be read.
    #[error("the audit trail cannot be read: {0}")]
    Read(#[from] ReadError),
    /// A frame is no audit record.
    #[error(
        "record {index} of the audit trail cannot be decoded: it was written by another version, or not by Fieldkeep"
    )]
    UnknownRecord {
        /// The record's index.
        index: u64,
        /// The cause.
        #[source]
        source: DecodeError,
    },
}

impl AuditLog {
    /// Opens the trail in `dir`, or makes an empty one if there is none, with the keys that `keystore` has for it, or gets now. Blocks.
    /// `now` is in Unix seconds.
    ///
    /// # Errors
    /// The trail is damaged, in use, not what was signed and sealed, or the directory cannot be used; the message says what to do.
    pub async fn open(
        dir: &Path,
        config: &AuditConfig,
        keystore: &Keystore,
        now: u64,
    ) -> Result<AuditLog, AuditError> {
        let options = Options {
            segment_bytes: config.segment_bytes,
            mirror: config.mirror_dir.clone(),
            window: config.window,
            reserve_bytes: config.reserve_bytes,
            max_payload_bytes: MAX_RECORD_BYTES,
            ..Options::default()
        };
        let journal = open_journal(Arc::new(SystemDisk), dir, options)?;
        let log = LogId::from_bytes(journal.log_id());
        let mut keys = LogKeys::open_or_make(keystore, log, journal.durable(), now).await?;
        let mut dirs = vec![dir.to_owned()];
        dirs.extend(config.mirror_dir.clone());
        let archive = config.archive.as_ref().map(Archive::new);
        let kept = kept::read(&config.min_checkpoints, keys.signing.verifier_key())?;
        let checked = Checked::of(&journal, &dirs, &keys, &kept, archive, config.accept_loss)?;
        let made = keys.store(keystore, now).await?;
        let lost = checked.recovered.lost.clone();
        let audit = AuditLog::start(dir, journal, &keys, checked, config.sinks.clone())?;
        if let Some(made) = made {
            let record = LocalCall {
                rpc: "fieldkeep.internal/AuditLog",
                action: "audit",
                resource: "audit-log",
                detail: &format!("log={log} sealed_from={}", keys.sealed_from),
                changes: &made.changes,
                store_revision: made.revision,
                request_id: record::random_id().map_err(LogKeysError::from)?,
                now,
            };
            audit.append_blocking(&local_record(record))?;
        }
        if let Some(lost) = lost {
            tracing::error!(%lost, "the audit trail is not what this service wrote, which was accepted");
            let detail = format!("log={log} accepted={lost}");
            audit.put_on_record("fieldkeep serve --accept-audit-loss", &detail, now)?;
        }
        if !AUDITED {
            // Whoever reads the trail later must not take the silence that follows for rest.
            let detail = format!("log={log} calls-on-fields=unrecorded");
            audit.put_on_record("fieldkeep-without-audit", &detail, now)?;
        }
        Ok(audit)
    }

    /// As [`AuditLog::open`], on the disk given, with the keys that `keys` makes for the log's id, and with this archive.
    #[cfg(test)]
    pub(crate) fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        keys: impl FnOnce(LogId) -> Result<LogKeys, LogKeysError>,
        archive: Option<&ArchiveConfig>,
    ) -> Result<AuditLog, AuditError> {
        let archive = archive.map(Archive::new);
        AuditLog::open_containing(disk, dir, options, keys, &[], archive)
    }

    /// As [`AuditLog::open_on`], if the log contains the checkpoints in the files.
    #[cfg(test)]
    fn open_containing(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        keys: impl FnOnce(LogId) -> Result<LogKeys, LogKeysError>,
        min_checkpoints: &[PathBuf],
        archive: Option<Archive>,
    ) -> Result<AuditLog, AuditError> {
        let mut dirs = vec![dir.to_owned()];
        dirs.extend(options.mirror.clone());
        let journal = open_journal(disk, dir, options)?;
        let keys = keys(LogId::from_bytes(journal.log_id()))?;
        let kept = kept::read(min_checkpoints, keys.signing.verifier_key())?;
        let checked = Checked::of(&journal, &dirs, &keys, &kept, archive, false)?;
        AuditLog::start(dir, journal, &keys, checked, CheckpointSinks::default())
    }

    /// As [`AuditLog::open_on`], on this machine's disk and with keys that are the same for each log.
    #[cfg(test)]
    pub(crate) fn open_with(dir: &Path, options: Options) -> Result<AuditLog, AuditError> {
        let options = Options {
            max_payload_bytes: MAX_RECORD_BYTES,
            ..options
        };
        AuditLog::open_on(Arc::new(SystemDisk), dir, options, LogKeys::testing, None)
    }

    fn start(
        dir: &Path,
        journal: Journal,
        keys: &LogKeys,
        checked: Checked,
        sinks: CheckpointSinks,
    ) -> Result<AuditLog, AuditError> {
        let Checked {
            recovered: Recovered { tree, tiles, .. },
            slots,
            newest,
            archive,
        } = checked;
        let heads = Arc::new(Heads::new(tree.head()));
        let seal = Sealer::new(Arc::clone(&keys.seal), tree, Arc::clone(&heads));
        journal.set_seal(Box::new(seal));
        let signing = Arc::clone(&keys.signing);
        let checkpoints = Checkpoints::start(
            Arc::clone(&heads),
            Arc::clone(&signing),
            slots,
            newest,
            sinks,
        )?;
        let tiles = Arc::new(tiles);
        let indexer = Indexer::start(dir, journal.clone(), Arc::clone(&tiles), Arc::clone(&heads))?;
        Ok(AuditLog {
            log: LogId::from_bytes(journal.log_id()),
            indexer: Arc::new(indexer),
            journal,
            checkpoints: Arc::new(checkpoints),
            progress: Arc::default(),
            signing,
            tiles,
            heads,
            archive,
        })
    }

    /// Appends a record. It is durable once the ticket is committed; wait for that before the reply leaves.
    ///
    /// A record that is too large loses the ends of long texts, and goes into several parts in one commit if its
    /// resources are too many: none is left out.
    ///
    /// # Errors
    /// There is no space, or the trail is closed or busy: no reply may leave. The record is too large still.
    pub fn append(&self, record: &AuditRecord) -> Result<Ticket, AuditError> {
        self.append_encoded(&Encoded::from(record), AppendOptions::default())
    }

    /// As [`AuditLog::append`], of a record that is encoded. `how` says whether it may be synced after its reply, and
    /// whether it may use what is kept for when the disk is full.
    ///
    /// # Errors
    /// As [`AuditLog::append`].
    pub fn append_encoded(
        &self,
        record: &Encoded,
        how: AppendOptions,
    ) -> Result<Ticket, AuditError> {
        let append = || {
            if record.as_bytes().len() <= MAX_RECORD_BYTES {
                Ok(self.journal.append_with(&[record.as_bytes()], how)?)
            } else {
                self.append_fitted(record.decoded(), how)
            }
        };
        let ticket = match record.step() {
            None => append()?,
            Some(step) => self
                .progress
                .operations
                .follow(step, || self.len(), append)?,
        };
        if record.has_changes() {
            self.progress
                .unsettled_changes
                .fetch_add(1, Ordering::Relaxed);
        }
        Ok(ticket)
    }

    fn append_fitted(&self, record: AuditRecord, how: AppendOptions) -> Result<Ticket, AuditError> {
        let parts = record::fit(record).ok_or(AuditError::TooLarge)?;
        let encoded: Vec<Vec<u8>> = parts.iter().map(AuditRecord::encode_to_vec).collect();
        let payloads: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
        Ok(self.journal.append_with(&payloads, how)?)
    }

    /// Appends a record and waits until it is durable. Blocks; for use without a runtime's hub.
    ///
    /// # Errors
    /// As [`AuditLog::append`].
    pub fn append_blocking(&self, record: &AuditRecord) -> Result<(), AuditError> {
        let ticket = self.append(record)?;
        Ok(self.journal.wait_blocking(ticket)?)
    }

    /// Puts an act of the log itself, which changed nothing in the store, on record. Blocks. `now` is in Unix seconds.
    fn put_on_record(&self, rpc: &'static str, detail: &str, now: u64) -> Result<(), AuditError> {
        self.append_blocking(&local_record(LocalCall {
            rpc,
            action: "audit",
            resource: "audit-log",
            detail,
            changes: &[],
            store_revision: 0,
            request_id: record::random_id().map_err(LogKeysError::from)?,
            now,
        }))
    }

    /// The journal below, for its hubs of waiters and its figures.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// How many records are durable.
    pub fn len(&self) -> u64 {
        self.journal.durable()
    }

    /// Whether no record is durable.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The receipt of the record that `ticket` is of, its last part if it has several. `None` if the log has no tree.
    pub fn receipt(&self, ticket: Ticket, durable: bool) -> Option<Receipt> {
        Some(Receipt {
            log: self.log,
            index: ticket.sequence.checked_sub(1)?,
            leaf: Hash::from_bytes(ticket.leaf?),
            durable,
        })
    }

    /// Whether the record of `ticket` is durable now.
    pub fn is_durable(&self, ticket: Ticket) -> bool {
        self.journal.durable() >= ticket.sequence
    }

    /// The key that checkpoints, and the signatures of reports, are verified with.
    pub fn verifier_key(&self) -> &VerifierKey {
        self.signing.verifier_key()
    }

    /// The id of the log.
    pub fn log_id(&self) -> LogId {
        self.log
    }

    /// The newest checkpoint.
    pub fn checkpoint(&self) -> Signed {
        self.checkpoints.newest()
    }

    /// What became of checkpoints since the start.
    pub fn checkpoint_stats(&self) -> CheckpointStats {
        self.checkpoints.stats()
    }

    /// Size and root of what is durable now.
    pub(crate) fn head(&self) -> TreeHead {
        self.heads.durable()
    }

    /// Up to `limit` records, newest first, with indices below `before`, or from the newest on: what the trail holds, read without
    /// an index.
    #[cfg(test)]
    pub(crate) fn list(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, AuditRecord)>, AuditError> {
        let end = before.unwrap_or(u64::MAX).min(self.len());
        let start = end.saturating_sub(limit as u64);
        let mut page = self
            .read_from(start)
            .take((end - start) as usize)
            .collect::<Result<Vec<_>, _>>()?;
        page.reverse();
        Ok(page)
    }

    /// The records from `index` on, oldest first, as far as they are durable now. Blocks, as does the iterator.
    pub fn read_from(&self, index: u64) -> Records {
        Records(self.cursor(index, None))
    }
}

fn open_journal(disk: Arc<dyn Disk>, dir: &Path, options: Options) -> Result<Journal, AuditError> {
    let options = Options {
        leaf: Some(|record| *Hash::of_leaf(record).as_bytes()),
        ..options
    };
    let (journal, recovered) = Journal::open_on(disk, dir, options)?;
    if recovered.torn_frames_dropped > 0 {
        tracing::warn!(
            records = recovered.torn_frames_dropped,
            "dropped records at the end of the audit trail that were never acknowledged"
        );
    }
    if let Some(dir) = &recovered.repaired {
        tracing::warn!(dir = %dir.display(), "repaired one copy of the audit trail from the other");
    }
    if recovered.mark_replaced {
        tracing::warn!(
            "replaced the unreadable mark `durable` of the audit trail, whose records are whole"
        );
    }
    Ok(journal)
}

/// A trail that was compared with what was sealed and signed, and has a checkpoint over all of it.
struct Checked {
    recovered: Recovered,
    slots: Slots,
    newest: Signed,
    archive: Option<Archive>,
}

impl Checked {
    fn of(
        journal: &Journal,
        dirs: &[PathBuf],
        keys: &LogKeys,
        kept: &[Expected],
        archive: Option<Archive>,
        accept_loss: bool,
    ) -> Result<Checked, AuditError> {
        let dir = dirs.first().map(PathBuf::as_path).unwrap_or(Path::new(""));
        let newest = Slots::read(dirs, keys.signing.verifier_key())?;
        let recovered = recover(
            dir,
            journal,
            keys,
            newest.as_ref(),
            kept,
            archive.as_ref(),
            accept_loss,
        )?;
        let newest = Signed::make(&keys.signing, recovered.tree.head())?;
        let slots = Slots::open(dirs, &newest)?;
        Ok(Checked {
            recovered,
            slots,
            newest,
            archive,
        })
    }
}

/// Records of the trail, oldest first, each with its index.
pub struct Records(Cursor);

impl Iterator for Records {
    type Item = Result<(u64, AuditRecord), AuditError>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = match self.0.read_next() {
            Ok(index) => index?,
            Err(error) => return Some(Err(error)),
        };
        let record = AuditRecord::decode(self.0.record())
            .map_err(|source| AuditError::UnknownRecord { index, source });
        Some(record.map(|record| (index, record)))
    }
}
