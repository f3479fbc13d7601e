//! Operations between their intent and their outcome.
//!
//! A change of the store and the record of it are two writes, between which a crash may come. So the intent is durable before
//! the change, and names the store's operation: a start finds the intents without an outcome, asks the store what became of
//! each, and writes the outcome. The settled mark stays before them, or no start would look at them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use fieldkeep_journal::Ticket;
use fieldkeep_keystore::{
    error::KeystoreError, keystore::Keystore, present::version_of_record,
    store::OPERATION_KEPT_SECONDS,
};
use fieldkeep_proto::v1::{AuditRecord, Phase};

use super::{AuditError, record::audit_change};

/// The rule of an outcome that a start found out.
pub const RULE_RECOVERED: &str = "recovered";
/// What the detail of an outcome ends with if the operation was made before, by another call.
pub const REPEATED: &str = "repeated=true";
const NOT_COMMITTED: &str =
    "not committed: the service ended before the change was made; repeat the call";
const FORGOTTEN: &str = "not known: the service ended before its outcome was on record, and the store keeps operation ids for a day; look at what the operation was about";
/// `google.rpc.Code` has these numbers.
const OK: i32 = 0;
const UNKNOWN: i32 = 2;
const ABORTED: i32 = 10;
/// The most operations that are followed one by one. Of further ones only the place of the first is kept.
const MAX_OPEN: usize = 10_000;

/// Which operation of which call: request id and operation id.
type OperationKey = [u8; 32];

/// A record that begins or ends an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    key: OperationKey,
    ends: bool,
}

impl Step {
    /// From the fields of a record; `None` if it is neither an intent nor an outcome.
    #[must_use]
    pub(super) fn of(phase: i32, request_id: &[u8], operation_id: &[u8]) -> Option<Step> {
        let ends = match Phase::try_from(phase) {
            Ok(Phase::Intent) => false,
            Ok(Phase::Outcome) => true,
            Ok(Phase::Unspecified) | Err(_) => return None,
        };
        let key = [request_id, operation_id].concat();
        Some(Step {
            key: key.try_into().ok()?,
            ends,
        })
    }

    fn of_record(record: &AuditRecord) -> Option<Step> {
        Step::of(record.phase, &record.request_id, &record.operation_id)
    }
}

/// The operations of this process whose outcome is not durable yet.
#[derive(Default)]
pub(super) struct OpenOperations {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    entries: Vec<Entry>,
    /// No index below this one is the intent's of an operation that is not among the entries.
    others: Option<u64>,
}

struct Entry {
    key: OperationKey,
    /// The intent has this index or a greater one.
    not_before: u64,
    /// The outcome is durable when so many records are; `None`: it was not appended.
    outcome: Option<u64>,
}

impl OpenOperations {
    fn lock(&self) -> MutexGuard<'_, Open> {
        // A poisoned lock still guards whole entries.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends the record of a step by `append`, and remembers what the settled mark has to know of it. `durable` says how many
    /// records are durable.
    pub(super) fn follow(
        &self,
        step: &Step,
        durable: impl FnOnce() -> u64,
        append: impl FnOnce() -> Result<Ticket, AuditError>,
    ) -> Result<Ticket, AuditError> {
        if step.ends {
            let ticket = append()?;
            if let Some(entry) = self.lock().newest(&step.key) {
                entry.outcome = Some(ticket.sequence);
            }
            return Ok(ticket);
        }
        // Before it is appended: once it is durable, no mark may pass it.
        self.lock().begin(step.key, durable());
        append().inspect_err(|_| self.lock().forget(&step.key))
    }

    /// The index that the settled mark may have at most when `durable` records are durable. What begins afterwards has greater
    /// indexes.
    pub(super) fn settled(&self, durable: u64) -> u64 {
        let mut open = self.lock();
        open.prune(durable);
        let first = open.entries.iter().map(|entry| entry.not_before);
        first.chain(open.others).fold(durable, u64::min)
    }
}

impl Open {
    fn begin(&mut self, key: OperationKey, durable: u64) {
        self.prune(durable);
        if self.entries.len() < MAX_OPEN {
            self.entries.push(Entry {
                key,
                not_before: durable,
                outcome: None,
            });
        } else {
            self.others.get_or_insert(durable);
        }
    }

    /// The entry of the newest operation with this key that has no outcome.
    fn newest(&mut self, key: &OperationKey) -> Option<&mut Entry> {
        let mut entries = self.entries.iter_mut().rev();
        entries.find(|entry| entry.key == *key && entry.outcome.is_none())
    }

    fn forget(&mut self, key: &OperationKey) {
        let is_it = |entry: &Entry| entry.key == *key && entry.outcome.is_none();
        if let Some(place) = self.entries.iter().rposition(is_it) {
            self.entries.remove(place);
        }
    }

    fn prune(&mut self, durable: u64) {
        self.entries
            .retain(|entry| entry.outcome.is_none_or(|outcome| outcome > durable));
    }
}

/// The intents without an outcome in what a start reads.
#[derive(Default)]
pub(super) struct Unresolved {
    /// Of one call and operation there can be several, if the service tried an act of its own again.
    intents: HashMap<OperationKey, Vec<(u64, AuditRecord)>>,
    /// The time of the newest record, microseconds since the Unix epoch.
    newest_us: u64,
}

impl Unresolved {
    /// Takes notice of the record with this index, the next one.
    pub(super) fn note(&mut self, index: u64, record: &AuditRecord) {
        self.newest_us = self.newest_us.max(record.time_us);
        let Some(step) = Step::of_record(record) else {
            return;
        };
        if !step.ends {
            let intents = self.intents.entry(step.key).or_default();
            intents.push((index, record.clone()));
            return;
        }
        // The intent of an outcome may be before what is read.
        if let Some(intents) = self.intents.get_mut(&step.key) {
            intents.pop();
            if intents.is_empty() {
                self.intents.remove(&step.key);
            }
        }
    }

    /// The outcomes, in the order of the intents, as the store knows them at `now`, Unix seconds.
    ///
    /// # Errors
    /// What reading the store gives.
    pub(super) async fn outcomes(
        self,
        keystore: &Keystore,
        now: u64,
    ) -> Result<Vec<AuditRecord>, KeystoreError> {
        let intents: BTreeMap<u64, AuditRecord> = self.intents.into_values().flatten().collect();
        let mut outcomes = Vec::with_capacity(intents.len());
        for intent in intents.into_values() {
            let age_s = self.newest_us.saturating_sub(intent.time_us) / 1_000_000;
            let became = What::became(keystore, &intent, age_s).await?;
            outcomes.push(became.record(intent, now));
        }
        Ok(outcomes)
    }
}

/// What became of an operation.
struct What {
    code: i32,
    reason: &'static str,
    repeated: bool,
    revision: u64,
    /// The primary version of the key that it was about.
    version: Option<u32>,
    changes: Vec<fieldkeep_proto::v1::AuditChange>,
}

impl What {
    async fn became(
        keystore: &Keystore,
        intent: &AuditRecord,
        age_s: u64,
    ) -> Result<What, KeystoreError> {
        let id = <[u8; 16]>::try_from(intent.operation_id.as_ref()).unwrap_or_default();
        let Some(revision) = keystore.operation_revision(&id).await? else {
            let (code, reason) = if age_s < OPERATION_KEPT_SECONDS {
                (ABORTED, NOT_COMMITTED)
            } else {
                (UNKNOWN, FORGOTTEN)
            };
            return Ok(What {
                code,
                reason,
                repeated: false,
                revision: 0,
                version: None,
                changes: Vec::new(),
            });
        };
        let present = keystore.present_records(&intent.intended_keys).await?;
        Ok(What {
            code: OK,
            reason: "",
            repeated: revision <= intent.store_revision,
            revision,
            version: present
                .iter()
                .find_map(|change| version_of_record(&change.store_key)),
            changes: present.iter().map(audit_change).collect(),
        })
    }

    fn record(self, intent: AuditRecord, now: u64) -> AuditRecord {
        let mut resources = intent.resources;
        if let (Some(version), Some(resource)) = (self.version, resources.first_mut())
            && resource.version == 0
        {
            resource.version = version;
        }
        let mut detail = intent.detail;
        if self.repeated {
            append_word(&mut detail, REPEATED);
        }
        AuditRecord {
            time_us: now.saturating_mul(1_000_000),
            phase: Phase::Outcome.into(),
            rule: RULE_RECOVERED.to_owned(),
            code: self.code,
            reason: self.reason.to_owned(),
            changes: self.changes,
            store_revision: self.revision,
            detail,
            resources,
            duration_us: 0,
            intended_keys: Vec::new(),
            ..intent
        }
    }
}

/// Adds a word to the details of a record.
pub fn append_word(detail: &mut String, word: &str) {
    if !detail.is_empty() {
        detail.push(' ');
    }
    detail.push_str(word);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(number: u8, ends: bool) -> Step {
        let phase = if ends { Phase::Outcome } else { Phase::Intent };
        Step::of(phase.into(), &[number; 16], &[number; 16]).unwrap()
    }

    fn appended(sequence: u64) -> Result<Ticket, AuditError> {
        Ok(Ticket::at(sequence))
    }

    #[test]
    fn the_mark_waits_for_durable_outcomes() {
        let open = OpenOperations::default();
        assert_eq!(open.settled(7), 7);
        open.follow(&step(1, false), || 10, || appended(12))
            .unwrap();
        open.follow(&step(2, false), || 11, || appended(13))
            .unwrap();
        assert_eq!(open.settled(9), 9);
        assert_eq!(open.settled(20), 10);
        open.follow(&step(1, true), || 0, || appended(21)).unwrap();
        assert_eq!(open.settled(20), 10, "appended, and not durable");
        assert_eq!(open.settled(21), 11);
        open.follow(&step(2, true), || 0, || appended(22)).unwrap();
        assert_eq!(open.settled(30), 30);
    }

    #[test]
    fn what_was_not_appended_holds_nothing_up() {
        let open = OpenOperations::default();
        let refused = || Err(AuditError::TooLarge);
        assert!(open.follow(&step(1, false), || 10, refused).is_err());
        assert_eq!(open.settled(20), 20);
        open.follow(&step(1, false), || 20, || appended(21))
            .unwrap();
        assert!(open.follow(&step(1, true), || 0, refused).is_err());
        assert_eq!(open.settled(30), 20, "the outcome is not on record");
    }

    #[test]
    fn a_second_attempt_with_the_same_ids_is_another_operation() {
        let open = OpenOperations::default();
        open.follow(&step(1, false), || 10, || appended(11))
            .unwrap();
        open.follow(&step(1, false), || 12, || appended(13))
            .unwrap();
        open.follow(&step(1, true), || 0, || appended(14)).unwrap();
        assert_eq!(open.settled(20), 10, "the first has none");
    }

    #[test]
    fn there_are_at_most_so_many() {
        let open = OpenOperations::default();
        for number in 0..MAX_OPEN as u64 + 5 {
            let sequence = 101 + number;
            let begun = open.follow(&step(1, false), || 100 + number, || appended(sequence));
            begun.unwrap();
        }
        assert_eq!(open.lock().entries.len(), MAX_OPEN);
        for number in 0..MAX_OPEN as u64 {
            let sequence = 50_000 + number;
            open.follow(&step(1, true), || 0, || appended(sequence))
                .unwrap();
        }
        assert_eq!(open.settled(100_000), 100 + MAX_OPEN as u64);
        assert_eq!(open.lock().entries.len(), 0);
    }

    #[test]
    fn other_records_are_no_steps() {
        assert_eq!(Step::of(0, &[1; 16], &[1; 16]), None);
        assert_eq!(Step::of(9, &[1; 16], &[1; 16]), None);
        assert_eq!(Step::of(1, &[1; 16], &[]), None);
    }
}
