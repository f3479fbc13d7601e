//! Records that the trail did not take when their calls ended: kept, and written before any later record.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fieldkeep_journal::{AppendError, AppendOptions, Ticket};
use fieldkeep_proto::v1::{AuditRecord, Decision};
use prost::Message as _;

use crate::audit::encoded::Encoded;
use crate::audit::{AuditError, AuditLog};

/// Bytes of records that are kept at most, as encoded messages.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Records that are kept at most.
const MAX_RECORDS: usize = 16_384;
/// The rule of the record that counts the calls whose own records could not be kept.
const RULE_UNWRITTEN: &str = "unwritten";

/// The records, oldest first. While there is one, no result leaves: every record goes behind them, see [`Unwritten::append`].
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    /// How many there are, so that the common case takes no lock.
    count: AtomicUsize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    records: VecDeque<AuditRecord>,
    bytes: usize,
    /// Calls whose records did not fit.
    lost: u64,
    /// When the last of those ended.
    lost_us: u64,
}

impl Unwritten {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        // A poisoned lock still guards whole records.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every record has been written.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Whether another record would not fit, so that no further call may begin.
    pub(super) fn is_full(&self) -> bool {
        if self.is_empty() {
            return false;
        }
        let kept = self.lock();
        kept.records.len() >= MAX_RECORDS / 2 || kept.bytes >= MAX_BYTES / 2
    }

    /// Keeps a record for later. If there is no room, its call is counted.
    pub(super) fn keep(&self, record: AuditRecord) {
        let mut kept = self.lock();
        let bytes = record.encoded_len();
        if kept.records.len() < MAX_RECORDS && kept.bytes + bytes <= MAX_BYTES {
            kept.bytes += bytes;
            kept.records.push_back(record);
        } else {
            kept.lost += 1;
            kept.lost_us = record.time_us;
        }
        let count = kept.records.len() + usize::from(kept.lost > 0);
        self.count.store(count, Ordering::Release);
    }

    /// Appends what is kept, in order, as far as the trail takes it.
    ///
    /// # Errors
    /// Why the trail did not take the rest.
    pub(super) fn write(&self, audit: &AuditLog) -> Result<(), AuditError> {
        if self.is_empty() {
            return Ok(());
        }
        let mut kept = self.lock();
        let written = kept.write(audit);
        let count = kept.records.len() + usize::from(kept.lost > 0);
        self.count.store(count, Ordering::Release);
        written
    }

    /// Appends a record behind all that are kept, so that once it is durable, they are.
    ///
    /// # Errors
    /// The trail did not take it, or one before it.
    pub(super) fn append(
        &self,
        audit: &AuditLog,
        record: &Encoded,
        how: AppendOptions,
    ) -> Result<Ticket, AuditError> {
        self.write(audit)?;
        audit.append_encoded(record, how)
    }
}

impl Kept {
    fn write(&mut self, audit: &AuditLog) -> Result<(), AuditError> {
        while let Some(record) = self.records.front() {
            match audit.append(record) {
                // What can never be written must not keep everything else back.
                Err(error) if is_too_large(&error) => {
                    tracing::error!(%error, "a record of the audit trail is lost");
                }
                appended => drop(appended?),
            }
            self.bytes = self.bytes.saturating_sub(record.encoded_len());
            self.records.pop_front();
        }
        if self.lost > 0 {
            audit.append(&AuditRecord {
                time_us: self.lost_us,
                authentication: String::from("local"),
                rpc: String::from("fieldkeep.internal/AuditBacklog"),
                decision: Decision::Refused.into(),
                rule: RULE_UNWRITTEN.to_owned(),
                code: tonic::Code::Unavailable.into(),
                reason: format!(
                    "{} calls got no result and have no records, since the trail took none",
                    self.lost
                ),
                ..AuditRecord::default()
            })?;
            self.lost = 0;
        }
        Ok(())
    }
}

/// Whether the trail will never take this record.
pub(super) fn is_too_large(error: &AuditError) -> bool {
    matches!(
        error,
        AuditError::TooLarge | AuditError::Append(AppendError::TooLarge)
    )
}

/// Whether the trail takes no record now, but will after its next commit.
pub(super) fn is_busy(error: &AuditError) -> bool {
    matches!(error, AuditError::Append(AppendError::Busy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(time_us: u64, reason_bytes: usize) -> AuditRecord {
        AuditRecord {
            time_us,
            reason: "r".repeat(reason_bytes),
            ..AuditRecord::default()
        }
    }

    fn open(dir: &tempfile::TempDir) -> AuditLog {
        let options = fieldkeep_journal::Options::default();
        AuditLog::open_with(&dir.path().join("audit"), options).unwrap()
    }

    fn times(audit: &AuditLog, ticket: Ticket) -> Vec<u64> {
        audit.journal().wait_blocking(ticket).unwrap();
        let records = audit.read_from(0);
        records.map(|entry| entry.unwrap().1.time_us).collect()
    }

    #[test]
    fn what_was_kept_goes_before_what_comes() {
        let dir = tempfile::tempdir().unwrap();
        let (audit, unwritten) = (open(&dir), Unwritten::default());
        unwritten.keep(record(1, 0));
        unwritten.keep(record(2, 0));
        assert!(!unwritten.is_empty());
        let ticket = unwritten
            .append(
                &audit,
                &Encoded::from(&record(3, 0)),
                AppendOptions::default(),
            )
            .unwrap();
        assert!(unwritten.is_empty());
        assert_eq!(times(&audit, ticket), [1, 2, 3]);
    }

    #[test]
    fn what_does_not_fit_is_counted_in_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let (audit, unwritten) = (open(&dir), Unwritten::default());
        for time_us in 1..=6 {
            unwritten.keep(record(time_us, MAX_BYTES / 4));
        }
        assert!(unwritten.is_full());
        assert_eq!(unwritten.lock().lost, 3);
        let ticket = unwritten
            .append(
                &audit,
                &Encoded::from(&record(9, 0)),
                AppendOptions::default(),
            )
            .unwrap();
        assert_eq!(times(&audit, ticket), [1, 2, 3, 6, 9]);
        let summary = audit.list(None, 2).unwrap().remove(1).1;
        assert_eq!(summary.rule, RULE_UNWRITTEN);
        assert!(summary.reason.starts_with("3 calls "));
        assert!(!unwritten.is_full());
    }
}
