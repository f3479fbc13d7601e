//! The comparison of the audit trail with the store, at start.
//!
//! The record of a management operation says what it left in the store: key, generation, hash. A store that is older than
//! its trail, or has another value under the same generation, was rolled back or planted. One that is newer is what a
//! crash between the store's commit and the record leaves; then its intent is in the trail without an outcome, and the start
//! writes the outcome as the store knows it.
//!
//! The *settled mark*, system record `sys/settled`, is an index into the trail, with the root of the tree over the records before
//! it: all of them were in the store when the mark was written, and each intent before it has its outcome, so that a start looks
//! only at what came after, and whoever replaces them changes the root.

use std::sync::atomic::Ordering;

use fieldkeep_crypto::random::RandomError;
use fieldkeep_keystore::{error::KeystoreError, keystore::Keystore, store::Operation};
use fieldkeep_tlog::tree::TreeHead;
use prost::Message as _;

use super::{AuditError, AuditLog, operations::Unresolved, record};

/// The mark is due after this many records with changes.
pub const SETTLE_CHANGES: u64 = 10_000;
/// The mark is due after this many records of any kind, since a start reads them all.
pub const SETTLE_RECORDS: u64 = 250_000;

const MARK_KEY: &str = "sys/settled";
/// The record of how much of the trail left for the archive.
const ARCHIVED_KEY: &str = "sys/archived";

/// The payload of the mark.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct SettledMark {
    /// Records with smaller indices are settled.
    #[prost(uint64, tag = "1")]
    audit_index: u64,
    /// The root of the tree over them, 32 bytes; empty in marks of versions without a tree.
    #[prost(bytes = "vec", tag = "2")]
    root: Vec<u8>,
}

/// The payload of the record of what left.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct ArchivedMark {
    /// Records with smaller indices may be missing in the journal: they are in the archive.
    #[prost(uint64, tag = "1")]
    kept_from: u64,
}

/// Why a start is refused, or the mark was not written.
#[derive(Debug, thiserror::Error)]
pub enum TrailError {
    /// `init` writes records, so that an empty trail has been removed.
    #[error(
        "the audit trail is empty, though this data directory has been used: its `audit` directory was removed or replaced; restore it from its mirror or a backup"
    )]
    Missing,
    /// The trail ends before the mark.
    #[error(
        "the audit trail has {found} records, but the store has seen {settled}: the trail was rolled back; restore the `audit` directory from its mirror or the newest backup, or, if what is missing is lost for good, start once with `--accept-audit-loss`, which goes on record"
    )]
    Short {
        /// Records in the trail.
        found: u64,
        /// The mark.
        settled: u64,
    },
    /// Records at the beginning are missing that did not leave for the archive.
    #[error(
        "the audit trail begins with record {first}, but only those before {kept_from} left for an archive: its beginning was removed; restore the `audit` directory from its mirror or the newest backup, or, if what is missing is lost for good, start once with `--accept-audit-loss`, which goes on record"
    )]
    Removed {
        /// The first record in the trail.
        first: u64,
        /// The first that did not leave.
        kept_from: u64,
    },
    /// The trail has other records than the store has seen.
    #[error(
        "the first {settled} records of the audit trail are not those that the store has seen: they were replaced; restore the `audit` directory from its mirror or the newest backup"
    )]
    Replaced {
        /// The mark.
        settled: u64,
    },
    /// The store does not hold what the trail says.
    #[error("record {index} of the audit trail does not agree with the store: {source}")]
    Disagrees {
        /// The record's index.
        index: u64,
        /// Which record of the store, and how.
        source: KeystoreError,
    },
    /// A change in the trail is malformed.
    #[error(
        "record {index} of the audit trail has a malformed change: it was written by another version, or not by Fieldkeep"
    )]
    MalformedChange {
        /// The record's index.
        index: u64,
    },
    /// The mark is not one of this version.
    #[error(
        "the record `{MARK_KEY}` cannot be read by this version: start the version that wrote it"
    )]
    UnknownMark,
    /// The trail cannot be read.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// There are no random numbers.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// What [`check_trail`] compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrailReport {
    /// The mark: where the comparison began.
    pub settled: u64,
    /// Records that were read.
    pub records: u64,
    /// Changes that were compared.
    pub changes: u64,
    /// Operations that had no outcome and got one.
    pub recovered: u64,
}

/// Compares the records after the settled mark with the store, and then writes the outcomes of operations that a crash
/// interrupted. Reads files, so it blocks; for use at start, before anything else is written. `now` is in Unix seconds. With
/// `accept_loss`, a trail that is shorter than the mark is compared as far as it goes.
///
/// # Errors
/// The trail is missing, short or another one, or the store was rolled back or planted: do not serve.
pub async fn check_trail(
    keystore: &Keystore,
    audit: &AuditLog,
    now: u64,
    accept_loss: bool,
) -> Result<TrailReport, TrailError> {
    let (mark, _) = read_mark(keystore).await?;
    let settled = mark.audit_index;
    let found = audit.len();
    if found == 0 {
        return Err(TrailError::Missing);
    }
    if found < settled && !accept_loss {
        return Err(TrailError::Short { found, settled });
    }
    let (first, kept_from) = (audit.kept_from(), read_archived(keystore).await?.0);
    if first > kept_from && !accept_loss {
        return Err(TrailError::Removed { first, kept_from });
    }
    if !mark.root.is_empty()
        && found >= settled
        && audit.root_at(settled)?.as_bytes().as_slice() != mark.root
        && !accept_loss
    {
        return Err(TrailError::Replaced { settled });
    }
    let mut report = TrailReport {
        settled,
        records: 0,
        changes: 0,
        recovered: 0,
    };
    let mut with_changes = 0;
    let mut unresolved = Unresolved::default();
    for entry in audit.read_from(settled) {
        let (index, record) = entry?;
        for change in &record.changes {
            let change = record::change_of(change).ok_or(TrailError::MalformedChange { index })?;
            keystore
                .check_change(&change)
                .await
                .map_err(|source| TrailError::Disagrees { index, source })?;
            report.changes += 1;
        }
        unresolved.note(index, &record);
        report.records += 1;
        with_changes += u64::from(!record.changes.is_empty());
    }
    audit.progress.settled.store(settled, Ordering::Relaxed);
    audit
        .progress
        .unsettled_changes
        .store(with_changes, Ordering::Relaxed);
    for outcome in unresolved.outcomes(keystore, now).await? {
        audit.append_blocking(&outcome)?;
        report.recovered += 1;
    }
    Ok(report)
}

/// Writes the mark: every record that is durable now is settled, since an operation's changes are in the store before its
/// record is appended; except from the first intent on that has no durable outcome. For use after [`check_trail`]: at a clean shutdown, and when [`settle_if_due`] says so.
///
/// # Errors
/// The store cannot be written; the old mark still stands, and the next start compares more.
pub async fn settle(keystore: &Keystore, audit: &AuditLog, now: u64) -> Result<(), TrailError> {
    let unsettled = audit.progress.unsettled_changes.swap(0, Ordering::Relaxed);
    let size = audit.progress.operations.settled(audit.len());
    let written = match head_at(audit, size).await {
        Ok(head) => write_mark(keystore, head, now).await,
        Err(error) => Err(error.into()),
    };
    if written.is_ok() {
        audit.progress.settled.fetch_max(size, Ordering::Relaxed);
    } else {
        audit
            .progress
            .unsettled_changes
            .fetch_add(unsettled, Ordering::Relaxed);
    }
    written
}

/// Writes the mark if [`SETTLE_CHANGES`] or [`SETTLE_RECORDS`] came since the last; a look at two counters otherwise.
/// Whether it was written.
///
/// # Errors
/// As [`settle`].
pub async fn settle_if_due(
    keystore: &Keystore,
    audit: &AuditLog,
    now: u64,
) -> Result<bool, TrailError> {
    let records = audit
        .len()
        .saturating_sub(audit.progress.settled.load(Ordering::Relaxed));
    let changes = audit.progress.unsettled_changes.load(Ordering::Relaxed);
    if records < SETTLE_RECORDS && changes < SETTLE_CHANGES {
        return Ok(false);
    }
    settle(keystore, audit, now).await?;
    Ok(true)
}

/// Size and root of the trail when it had `size` records.
async fn head_at(audit: &AuditLog, size: u64) -> Result<TreeHead, AuditError> {
    let head = audit.head();
    if head.size == size {
        return Ok(head);
    }
    // An operation is under way, or more was appended meanwhile: the root of then is computed from files.
    let audit = audit.clone();
    let root = tokio::task::spawn_blocking(move || audit.root_at(size))
        .await
        .map_err(|stopped| AuditError::Tree(stopped.to_string()))??;
    Ok(TreeHead { size, root })
}

/// Notes in the store that the records before `kept_from` are archived, before they are removed: whoever removes more shows at the
/// next start. `now` is in Unix seconds.
///
/// # Errors
/// The store cannot be written: nothing may be removed.
pub async fn note_kept_from(
    keystore: &Keystore,
    kept_from: u64,
    now: u64,
) -> Result<(), TrailError> {
    let (noted, generation) = read_archived(keystore).await?;
    if noted >= kept_from {
        return Ok(());
    }
    let payload = ArchivedMark { kept_from }.encode_to_vec();
    let operation = Operation::make()?;
    keystore
        .change_system_record(ARCHIVED_KEY, generation, Some(&payload), operation, now)
        .await?;
    Ok(())
}

/// What [`note_kept_from`] noted, and its generation; 0 and `None` if nothing left yet.
async fn read_archived(keystore: &Keystore) -> Result<(u64, Option<u64>), TrailError> {
    let Some(stored) = keystore.system_record(ARCHIVED_KEY).await? else {
        return Ok((0, None));
    };
    let mark =
        ArchivedMark::decode(stored.payload.as_ref()).map_err(|_| TrailError::UnknownMark)?;
    Ok((mark.kept_from, Some(stored.generation)))
}

/// Writes the mark for the trail as it is, also if it was further: after a loss that was accepted.
///
/// # Errors
/// As [`settle`].
pub async fn lower_mark(keystore: &Keystore, audit: &AuditLog, now: u64) -> Result<(), TrailError> {
    note_kept_from(keystore, audit.kept_from(), now).await?;
    let (_, generation) = read_mark(keystore).await?;
    replace_mark(keystore, generation, audit.head(), now).await
}

async fn write_mark(keystore: &Keystore, head: TreeHead, now: u64) -> Result<(), TrailError> {
    let (mark, generation) = read_mark(keystore).await?;
    if mark.audit_index >= head.size {
        return Ok(());
    }
    replace_mark(keystore, generation, head, now).await
}

async fn replace_mark(
    keystore: &Keystore,
    generation: Option<u64>,
    head: TreeHead,
    now: u64,
) -> Result<(), TrailError> {
    let payload = SettledMark {
        audit_index: head.size,
        root: head.root.as_bytes().to_vec(),
    };
    let payload = payload.encode_to_vec();
    let operation = Operation::make()?;
    match keystore
        .change_system_record(MARK_KEY, generation, Some(&payload), operation, now)
        .await
    {
        Ok(_) => Ok(()),
        // Another caller wrote its mark meanwhile, which is as good.
        Err(KeystoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The mark and its generation; 0 and `None` if it was never written.
async fn read_mark(keystore: &Keystore) -> Result<(SettledMark, Option<u64>), TrailError> {
    let Some(stored) = keystore.system_record(MARK_KEY).await? else {
        return Ok((SettledMark::default(), None));
    };
    let mark = SettledMark::decode(stored.payload.as_ref()).map_err(|_| TrailError::UnknownMark)?;
    Ok((mark, Some(stored.generation)))
}

#[cfg(test)]
mod tests;
