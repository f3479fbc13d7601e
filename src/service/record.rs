//! What a call leaves in the audit trail.

use std::collections::BTreeMap;

use bytes::Bytes;
use fieldkeep_audit::items::{ENTRY_BYTES, HASH_BYTES, entry};
use fieldkeep_keystore::info::{Change, Changed};
use fieldkeep_proto::v1::{AuditChange, AuditResource, Decision, Phase};
use tonic::Code;

use crate::audit::encoded::{Encoded, RecordParts};
use crate::audit::operations::{REPEATED, append_word};
use crate::audit::record::audit_change;
use crate::service::call::Call;
use crate::service::failure::Failure;
use crate::service::intent::Intended;
use crate::service::items::Hashed;

/// The most bytes of a text that came from a caller.
const MAX_TEXT_BYTES: usize = 512;
/// The most resources that were not found and are named all the same; further ones are counted.
const MAX_NOT_FOUND: usize = 64;

/// What a running operation reports for its record. It never holds plaintext, key material or context values.
#[derive(Debug, Default)]
pub struct Account {
    resources: Vec<AuditResource>,
    not_found: usize,
    more_not_found: u32,
    context_hash: Option<[u8; 16]>,
    /// The hashes of a unary call's item, each with the index of its resource. How the item ended is how the call ends.
    item_hash: Vec<(usize, [u8; HASH_BYTES])>,
    detail: String,
    items_ok: u32,
    items_failed: u32,
    refused_by: Option<&'static str>,
    failures: BTreeMap<&'static str, u32>,
    changes: Vec<AuditChange>,
    store_revision: u64,
    /// Whether what was to be changed had been changed before.
    repeated: bool,
    /// The operation of the store that was begun.
    intended: Option<Intended>,
    /// Whether nobody knows what became of it.
    open: bool,
}

impl Account {
    /// A resource that the call used; `version` 0 and an empty `field` if it has none, `items` 0 on unary calls. Each one is
    /// named in the record, so that nobody hides one behind others; a batch has at most two an item.
    pub fn used(&mut self, name: String, version: u32, field: &str, items: u32) {
        self.resources.push(AuditResource {
            name: bounded(name),
            version,
            field: field.to_owned(),
            items,
            item_hashes: Bytes::new(),
        });
    }

    /// The index of the resource that was reported last.
    pub(super) fn place(&self) -> usize {
        self.resources.len().saturating_sub(1)
    }

    /// The keyed hash of a unary call's item, which used the resource that was reported last.
    pub(super) fn item_hash(&mut self, hash: [u8; HASH_BYTES]) {
        self.item_hash.push((self.place(), hash));
    }

    /// The keyed hashes of a batch's items, each with the code that its item ended with.
    pub(super) fn item_hashes<T>(
        &mut self,
        mut hashed: Vec<Hashed>,
        results: &[Result<T, Failure>],
    ) {
        hashed.sort_unstable_by_key(|one| (one.place, one.item));
        for of_one in hashed.chunk_by(|one, next| one.place == next.place) {
            let mut packed = Vec::with_capacity(of_one.len() * ENTRY_BYTES);
            for one in of_one {
                let failure = results
                    .get(one.item)
                    .and_then(|result| result.as_ref().err());
                let code = failure.map_or(Code::Ok, |failure| failure.verdict().0);
                // A batch has 10,000 items at most.
                let item = u16::try_from(one.item).unwrap_or(u16::MAX);
                packed.extend_from_slice(&entry(item, code_byte(code), one.hash));
            }
            let place = of_one.first().map(|one| one.place);
            if let Some(resource) = place.and_then(|place| self.resources.get_mut(place)) {
                resource.item_hashes = Bytes::from(packed);
            }
        }
    }

    /// What a call named and nothing was done with, because it was not found or not looked for: named as [`Account::used`]
    /// does up to a bound, and counted beyond it.
    pub fn not_found(&mut self, name: String, version: u32, field: &str, items: u32) {
        if self.not_found < MAX_NOT_FOUND {
            self.not_found += 1;
            self.used(name, version, field, items);
        } else {
            self.more_not_found = self.more_not_found.saturating_add(items.max(1));
        }
    }

    /// Names the version of the resource that was reported last.
    pub fn used_version(&mut self, version: u32) {
        if let Some(resource) = self.resources.last_mut() {
            resource.version = version;
        }
    }

    /// The keyed hash of a unary call's context.
    pub fn context(&mut self, hash: [u8; 16]) {
        self.context_hash = Some(hash);
    }

    /// What a management operation grants, makes or issues: `name=value` pairs, never a secret.
    pub fn detail(&mut self, detail: String) {
        self.detail = bounded(detail);
    }

    /// How many values left through a mask alone; none leaves the record as it is.
    pub fn masked(&mut self, values: usize) {
        if values > 0 {
            self.detail = format!("masked={values}");
        }
    }

    /// How the items of a batch ended.
    pub fn items<'a, T: 'a>(&mut self, results: impl IntoIterator<Item = &'a Result<T, Failure>>) {
        for result in results {
            match result {
                Ok(_) => self.items_ok += 1,
                Err(failure) => {
                    self.items_failed += 1;
                    if let Some(rule) = failure.refused_by() {
                        self.refused_by.get_or_insert(rule);
                    }
                    *self.failures.entry(failure.word()).or_default() += 1;
                }
            }
        }
    }

    /// The rule that refused a batch as a whole: the first one's, if no item succeeded. Items that are malformed beside it do not
    /// make it an allowed one.
    #[must_use]
    pub fn refused_by(&self) -> Option<&'static str> {
        self.refused_by.filter(|_| self.items_ok == 0)
    }

    /// What a management operation changed.
    pub fn changed<T>(&mut self, changed: &Changed<T>) {
        self.store_revision = changed.revision;
        self.repeated = changed.repeated;
        self.changes
            .extend(changed.changes.iter().map(audit_change));
    }

    /// What the store holds now of what a management operation changed before.
    pub fn present(&mut self, changes: &[Change]) {
        self.changes.extend(changes.iter().map(audit_change));
    }

    /// An operation of the store was begun, whose intent is on record.
    pub(super) fn begun(&mut self, intended: Intended) {
        self.intended = Some(intended);
    }

    /// The operation of the store that was begun.
    pub(super) fn intended(&self) -> Option<&Intended> {
        self.intended.as_ref()
    }

    /// The operation was committed, though the call failed; `present` is what the store holds of it.
    pub(super) fn committed(&mut self, revision: u64, present: &[Change]) {
        let before = self.intended.as_ref().map_or(0, |begun| begun.revision);
        self.repeated = revision <= before;
        self.store_revision = revision;
        if self.changes.is_empty() {
            self.present(present);
        }
    }

    /// Nobody knows what became of the operation: its outcome is found out at the next start.
    pub(super) fn leave_open(&mut self) {
        self.open = true;
    }

    /// The items that succeeded and failed.
    #[must_use]
    pub fn item_counts(&self) -> (u32, u32) {
        (self.items_ok, self.items_failed)
    }

    fn failed_items(&self) -> String {
        if self.failures.is_empty() {
            return String::new();
        }
        let words = self
            .failures
            .iter()
            .map(|(word, count)| format!("{word}:{count}"));
        words.collect::<Vec<_>>().join(" ")
    }
}

/// How a call ended, as its record says it.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    /// What was decided.
    pub decision: Decision,
    /// The rule that decided.
    pub rule: &'a str,
    /// The code of the reply.
    pub code: Code,
    /// The failure, if it is one.
    pub failure: Option<&'a Failure>,
    /// When the call ended, microseconds since the Unix epoch.
    pub now_us: u64,
}

/// The record of one call. `account` is used up.
pub fn compose(call: &Call, ending: Ending<'_>, account: &mut Account) -> Encoded {
    let mut account = std::mem::take(account);
    if account.more_not_found > 0 {
        let items = account.more_not_found;
        account.used(String::from("handle:*"), 0, "", items);
    }
    for (place, hash) in std::mem::take(&mut account.item_hash) {
        if let Some(resource) = account.resources.get_mut(place) {
            let packed = entry(0, code_byte(ending.code), hash);
            resource.item_hashes = Bytes::copy_from_slice(&packed);
        }
    }
    let reason = match ending.failure {
        Some(failure) => bounded(failure.detail().into_owned()),
        None => account.failed_items(),
    };
    if account.repeated {
        append_word(&mut account.detail, REPEATED);
    }
    let principal = call.peer.principal.as_ref();
    let intended = account.intended.as_ref();
    let phase = match intended {
        Some(_) if !account.open => Phase::Outcome,
        _ => Phase::Unspecified,
    };
    Encoded::of(&RecordParts {
        time_us: ending.now_us,
        request_id: call.request_id.as_bytes(),
        principal: principal.map_or("", |principal| &principal.resource),
        authentication: call.peer.authentication,
        address: call.peer.address(),
        rpc: call.rpc,
        action: call.action.as_str(),
        decision: ending.decision.into(),
        rule: ending.rule,
        code: ending.code.into(),
        reason: &reason,
        duration_us: u64::try_from(call.started.elapsed().as_micros()).unwrap_or(u64::MAX),
        resources: &account.resources,
        context_hash: account.context_hash.as_ref().map_or(&[], |hash| hash),
        items_ok: account.items_ok,
        items_failed: account.items_failed,
        changes: &account.changes,
        store_revision: account.store_revision,
        detail: &account.detail,
        credential: principal.map_or("", |principal| &principal.credential),
        phase: phase.into(),
        operation_id: intended.map_or(&[], |begun| &begun.operation_id),
        ..RecordParts::default()
    })
}

/// The record of what a call is about to do, that `rule` allowed.
pub(super) fn compose_intent(
    call: &Call,
    rule: &str,
    now_us: u64,
    account: &Account,
    intended: &Intended,
) -> Encoded {
    let principal = call.peer.principal.as_ref();
    Encoded::of(&RecordParts {
        time_us: now_us,
        request_id: call.request_id.as_bytes(),
        principal: principal.map_or("", |principal| &principal.resource),
        authentication: call.peer.authentication,
        address: call.peer.address(),
        rpc: call.rpc,
        action: call.action.as_str(),
        decision: Decision::Allowed.into(),
        rule,
        code: Code::Unknown.into(),
        resources: &account.resources,
        store_revision: intended.revision,
        detail: &account.detail,
        credential: principal.map_or("", |principal| &principal.credential),
        phase: Phase::Intent.into(),
        operation_id: &intended.operation_id,
        intended_keys: std::slice::from_ref(&intended.store_key),
        ..RecordParts::default()
    })
}

/// A code as the entries of items have it. There are 17.
fn code_byte(code: Code) -> u8 {
    u8::try_from(i32::from(code)).unwrap_or(u8::MAX)
}

/// Cuts a text to [`MAX_TEXT_BYTES`] at a character boundary.
fn bounded(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        let mut end = MAX_TEXT_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(bounded("x".repeat(600)).len(), MAX_TEXT_BYTES);
        let cut = bounded("é".repeat(600));
        assert_eq!(cut.len(), MAX_TEXT_BYTES);
        assert_eq!(
            bounded(format!("x{}", "é".repeat(600))).len(),
            MAX_TEXT_BYTES - 1
        );
    }

    #[test]
    fn what_was_used_is_named_and_what_was_not_found_is_counted_beyond_64() {
        let mut account = Account::default();
        for n in 0..70 {
            account.used(format!("k{n}"), 1, "f", 1);
            account.not_found(format!("handle:{n}"), 1, "f", 2);
        }
        assert_eq!(account.resources.len(), 70 + 64);
        assert_eq!(account.more_not_found, 12);
    }

    #[test]
    fn failed_items_are_counted_by_word() {
        let mut account = Account::default();
        let unknown = || Err::<(), _>(Failure::KeyNotFound("k".into()));
        account.items(&[Ok(()), unknown(), unknown(), Err(Failure::KeyDisabled)]);
        assert_eq!(account.item_counts(), (1, 3));
        assert_eq!(account.failed_items(), "KEY_DISABLED:1 KEY_NOT_FOUND:2");
    }

    #[test]
    fn hashes_of_items_are_with_their_resource_in_the_order_of_the_batch() {
        let mut account = Account::default();
        account.used(String::from("a"), 1, "f", 2);
        account.used(String::from("b"), 1, "f", 1);
        let hashed = |item, place| Hashed {
            item,
            place,
            hash: [item as u8; 8],
        };
        let results = [Ok(()), Err(Failure::KeyDisabled), Ok(())];
        account.item_hashes(vec![hashed(2, 0), hashed(0, 0), hashed(1, 1)], &results);
        let [a, b] = account.resources.as_slice() else {
            panic!("two resources");
        };
        let (first, third) = (entry(0, 0, [0; 8]), entry(2, 0, [2; 8]));
        assert_eq!(a.item_hashes, [first, third].concat());
        // FAILED_PRECONDITION.
        assert_eq!(b.item_hashes, entry(1, 9, [1; 8]).to_vec());
    }
}
