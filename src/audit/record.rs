//! The audit record: its bounds, and its parts that come from the keystore.

use std::borrow::Cow;

use bytes::Bytes;
use fieldkeep_keystore::info::Change;
use fieldkeep_proto::v1::{AuditChange, AuditRecord, AuditResource, Decision};
use prost::Message as _;

use super::MAX_RECORD_BYTES;

/// The most resources that a record lists; the rest are counted in `more_resources`.
pub const MAX_RESOURCES: usize = 64;
/// Where the texts of a record that is too large are cut, bytes.
const MAX_TEXT_BYTES: usize = 256;
/// Where the reason of a record that is too large is cut, bytes.
const MAX_REASON_BYTES: usize = 1024;

/// The record within its bounds: as it is in nearly every case, else a copy with resources and texts cut.
pub(super) fn fit(record: &AuditRecord) -> Cow<'_, AuditRecord> {
    if record.resources.len() <= MAX_RESOURCES && record.encoded_len() <= MAX_RECORD_BYTES {
        return Cow::Borrowed(record);
    }
    let mut fitted = record.clone();
    let more = fitted.resources.len().saturating_sub(MAX_RESOURCES);
    fitted.resources.truncate(MAX_RESOURCES);
    let more = u32::try_from(more).unwrap_or(u32::MAX);
    fitted.more_resources = fitted.more_resources.saturating_add(more);
    if fitted.encoded_len() > MAX_RECORD_BYTES {
        cut_texts(&mut fitted);
    }
    Cow::Owned(fitted)
}

fn cut_texts(record: &mut AuditRecord) {
    cut(&mut record.reason, MAX_REASON_BYTES);
    for text in [
        &mut record.principal,
        &mut record.authentication,
        &mut record.address,
        &mut record.rpc,
        &mut record.action,
        &mut record.rule,
    ] {
        cut(text, MAX_TEXT_BYTES);
    }
    for resource in &mut record.resources {
        cut(&mut resource.name, MAX_TEXT_BYTES);
        cut(&mut resource.field, MAX_TEXT_BYTES);
    }
    record.request_id.truncate(16);
    record.context_hash.truncate(16);
}

/// Cuts a text to at most `limit` bytes, at the border of a character.
fn cut(text: &mut String, limit: usize) {
    let end = (0..=limit.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
}

/// A change of the store as the trail holds it.
pub fn audit_change(change: &Change) -> AuditChange {
    AuditChange {
        store_key: change.store_key.clone(),
        generation: change.generation,
        value_sha256: change
            .digest
            .map_or_else(Bytes::new, |digest| Bytes::copy_from_slice(&digest)),
    }
}

/// A change of the store from the trail. `None` if its digest is neither empty nor 32 bytes.
pub fn change_of(change: &AuditChange) -> Option<Change> {
    let digest = match change.value_sha256.as_ref() {
        [] => None,
        bytes => Some(<[u8; 32]>::try_from(bytes).ok()?),
    };
    Some(Change {
        store_key: change.store_key.clone(),
        generation: change.generation,
        digest,
    })
}

/// A call of this machine's operator that went through no server.
#[derive(Clone, Copy, Debug)]
pub struct LocalCall<'a> {
    /// The command, for example `fieldkeep init`.
    pub rpc: &'static str,
    /// The action.
    pub action: &'static str,
    /// What it was done to.
    pub resource: &'a str,
    /// What it changed in the store.
    pub changes: &'a [Change],
    /// The store's revision after it; 0 if it changed nothing.
    pub store_revision: u64,
    /// A random id.
    pub request_id: [u8; 16],
    /// When, Unix seconds.
    pub now: u64,
}

/// The record of a local call that succeeded.
pub fn local_record(call: LocalCall<'_>) -> AuditRecord {
    AuditRecord {
        time_us: call.now.saturating_mul(1_000_000),
        request_id: Bytes::copy_from_slice(&call.request_id),
        authentication: "local".to_owned(),
        rpc: call.rpc.to_owned(),
        action: call.action.to_owned(),
        decision: Decision::Allowed.into(),
        rule: "local".to_owned(),
        resources: vec![AuditResource {
            name: call.resource.to_owned(),
            ..AuditResource::default()
        }],
        changes: call.changes.iter().map(audit_change).collect(),
        store_revision: call.store_revision,
        ..AuditRecord::default()
    }
}
