//! The audit trail: one record a call, appended to a journal of its own before the reply leaves.
//!
//! A frame of the journal is one encoded `fieldkeep.v1.AuditRecord`. A record's index counts from 0, a frame's sequence from
//! 1. Reading is blocking file access: it belongs on a blocking thread, not on a runtime's.

pub mod encoded;
pub mod operations;
pub mod record;
#[cfg(test)]
mod tests;
pub mod trail;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use fieldkeep_journal::{
    AppendError, Disk, Journal, OpenError, Options, ReadError, Reader, SystemDisk, Ticket,
};
use fieldkeep_proto::v1::AuditRecord;
use prost::{DecodeError, Message as _};

use self::{encoded::Encoded, operations::OpenOperations};
use crate::config::AuditConfig;

/// The largest record, bytes.
pub const MAX_RECORD_BYTES: usize = 65_535;
/// The most records of one page of [`AuditLog::list`].
pub const MAX_PAGE: usize = 1000;

/// The audit trail of one data directory. A clone is the same trail.
#[derive(Clone)]
pub struct AuditLog {
    journal: Journal,
    progress: Arc<Progress>,
}

/// How far the trail and the store have been compared; see [`trail`].
#[derive(Default)]
struct Progress {
    /// Records before this index need not be compared with the store again.
    settled: AtomicU64,
    /// Records with changes since then.
    unsettled_changes: AtomicU64,
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
    /// Opens the trail in `dir`, or makes an empty one if there is none. Blocks.
    ///
    /// # Errors
    /// The trail is damaged, in use, or the directory cannot be used; the message says what to do.
    pub fn open(dir: &Path, config: &AuditConfig) -> Result<AuditLog, AuditError> {
        let options = Options {
            segment_bytes: config.segment_bytes,
            mirror: config.mirror_dir.clone(),
            max_payload_bytes: MAX_RECORD_BYTES,
            ..Options::default()
        };
        AuditLog::open_with(dir, options)
    }

    /// As [`AuditLog::open`], with the journal's own options.
    ///
    /// # Errors
    /// As [`AuditLog::open`].
    pub fn open_with(dir: &Path, options: Options) -> Result<AuditLog, AuditError> {
        AuditLog::open_on(Arc::new(SystemDisk), dir, options)
    }

    /// As [`AuditLog::open_with`], on the disk given.
    ///
    /// # Errors
    /// As [`AuditLog::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
    ) -> Result<AuditLog, AuditError> {
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
        Ok(AuditLog {
            journal,
            progress: Arc::default(),
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
        self.append_encoded(&Encoded::from(record))
    }

    /// As [`AuditLog::append`], of a record that is encoded.
    ///
    /// # Errors
    /// As [`AuditLog::append`].
    pub fn append_encoded(&self, record: &Encoded) -> Result<Ticket, AuditError> {
        let append = || {
            if record.as_bytes().len() <= MAX_RECORD_BYTES {
                Ok(self.journal.append(record.as_bytes())?)
            } else {
                self.append_fitted(record.decoded())
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

    fn append_fitted(&self, record: AuditRecord) -> Result<Ticket, AuditError> {
        let parts = record::fit(record).ok_or(AuditError::TooLarge)?;
        let encoded: Vec<Vec<u8>> = parts.iter().map(AuditRecord::encode_to_vec).collect();
        let payloads: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
        Ok(self.journal.append_all(&payloads)?)
    }

    /// Appends a record and waits until it is durable. Blocks; for use without a runtime's hub.
    ///
    /// # Errors
    /// As [`AuditLog::append`].
    pub fn append_blocking(&self, record: &AuditRecord) -> Result<(), AuditError> {
        let ticket = self.append(record)?;
        Ok(self.journal.wait_blocking(ticket)?)
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

    /// Up to `limit` records, newest first, with indices below `before`, or from the newest on. `limit` is cut to
    /// [`MAX_PAGE`]. Blocks.
    ///
    /// # Errors
    /// The trail cannot be read.
    pub fn list(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, AuditRecord)>, AuditError> {
        let end = before.unwrap_or(u64::MAX).min(self.len());
        let count = limit
            .min(MAX_PAGE)
            .min(usize::try_from(end).unwrap_or(usize::MAX));
        let start = end.saturating_sub(count as u64);
        let mut page = self
            .read_from(start)?
            .take(count)
            .collect::<Result<Vec<_>, _>>()?;
        page.reverse();
        Ok(page)
    }

    /// The records from `index` on, oldest first, as far as they are durable now. Blocks, as does the iterator.
    ///
    /// # Errors
    /// The trail cannot be read.
    pub fn read_from(&self, index: u64) -> Result<Records, AuditError> {
        // At the end there is nothing to seek to.
        let reader = (index < self.len()).then(|| self.journal.read(index.saturating_add(1)));
        Ok(Records {
            reader: reader.transpose()?,
        })
    }
}

/// Records of the trail, oldest first, each with its index.
pub struct Records {
    reader: Option<Reader>,
}

impl Iterator for Records {
    type Item = Result<(u64, AuditRecord), AuditError>;

    fn next(&mut self) -> Option<Self::Item> {
        let frame = self.reader.as_mut()?.next()?;
        Some(
            frame
                .map_err(AuditError::from)
                .and_then(|(sequence, payload)| {
                    let index = sequence.saturating_sub(1);
                    let record = AuditRecord::decode(payload.as_slice())
                        .map_err(|source| AuditError::UnknownRecord { index, source })?;
                    Ok((index, record))
                }),
        )
    }
}
