//! The audit record: its bounds, and its parts that come from the keystore.

use bytes::Bytes;
use fieldkeep_audit::items::ENTRY_BYTES;
use fieldkeep_crypto::random::{self, RandomError};
use fieldkeep_keystore::info::Change;
use fieldkeep_proto::v1::{AuditChange, AuditRecord, AuditResource, Decision};
use prost::Message as _;

use super::MAX_RECORD_BYTES;

/// Where the texts of a record that is too large are cut, bytes.
const MAX_TEXT_BYTES: usize = 256;
/// Where the reason of a record that is too large is cut, bytes.
const MAX_REASON_BYTES: usize = 1024;
/// Room for the numbers `part` and `parts`: two tags of two bytes, two numbers of at most five.
const PART_BYTES: usize = 14;
/// The most hashes of items that one resource has in a record of several parts: about a sixth of a part, so that parts are filled.
const MAX_PIECE_HASHES: usize = 1024;

/// The record within its bounds: texts that are too long are cut, resources and hashes of items never; more than fit go into
/// further parts. `None` if what may not be cut is too large.
pub(super) fn fit(mut head: AuditRecord) -> Option<Vec<AuditRecord>> {
    if head.encoded_len() <= MAX_RECORD_BYTES {
        return Some(vec![head]);
    }
    cut_texts(&mut head);
    if head.encoded_len() <= MAX_RECORD_BYTES {
        return Some(vec![head]);
    }
    let resources = std::mem::take(&mut head.resources);
    let following = AuditRecord {
        time_us: head.time_us,
        request_id: head.request_id.clone(),
        principal: head.principal.clone(),
        rpc: head.rpc.clone(),
        action: head.action.clone(),
        decision: head.decision,
        ..AuditRecord::default()
    };
    let room = |part: &AuditRecord| MAX_RECORD_BYTES.checked_sub(part.encoded_len() + PART_BYTES);
    let mut left = room(&head)?;
    let mut parts = Vec::new();
    let mut part = head;
    for resource in resources.into_iter().flat_map(pieces) {
        let bytes = prost::encoding::message::encoded_len(RESOURCES_TAG, &resource);
        if bytes > left {
            parts.push(std::mem::replace(&mut part, following.clone()));
            left = room(&part)?;
        }
        left = left.checked_sub(bytes)?;
        part.resources.push(resource);
    }
    parts.push(part);
    let count = u32::try_from(parts.len()).ok()?;
    for (number, part) in (1..).zip(&mut parts) {
        part.part = number;
        part.parts = count;
    }
    Some(parts)
}

/// The resource, several times if it has many hashes of items: each time with the next of them and the items that they are of. The
/// last time has the items without a hash too, so that the sum stays what it is.
fn pieces(mut rest: AuditResource) -> impl Iterator<Item = AuditResource> {
    let mut is_done = false;
    std::iter::from_fn(move || {
        if is_done {
            return None;
        }
        if rest.item_hashes.len() <= MAX_PIECE_HASHES * ENTRY_BYTES {
            is_done = true;
            return Some(std::mem::take(&mut rest));
        }
        let items = rest.items.min(MAX_PIECE_HASHES as u32);
        rest.items -= items;
        Some(AuditResource {
            items,
            item_hashes: rest.item_hashes.split_to(MAX_PIECE_HASHES * ENTRY_BYTES),
            ..rest.clone()
        })
    })
}

/// The tag of `AuditRecord.resources`.
const RESOURCES_TAG: u32 = 13;

fn cut_texts(record: &mut AuditRecord) {
    cut(&mut record.reason, MAX_REASON_BYTES);
    cut(&mut record.detail, MAX_REASON_BYTES);
    for text in [
        &mut record.credential,
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
    record.operation_id.truncate(16);
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
    /// What it granted or issued, `name=value`.
    pub detail: &'a str,
    /// What it changed in the store.
    pub changes: &'a [Change],
    /// The store's revision after it; 0 if it changed nothing.
    pub store_revision: u64,
    /// A random id.
    pub request_id: [u8; 16],
    /// When, Unix seconds.
    pub now: u64,
}

/// An id for a local call.
///
/// # Errors
/// The operating system has no random numbers.
pub fn random_id() -> Result<[u8; 16], RandomError> {
    let mut id = [0; 16];
    random::fill(&mut id)?;
    Ok(id)
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
        detail: call.detail.to_owned(),
        changes: call.changes.iter().map(audit_change).collect(),
        store_revision: call.store_revision,
        ..AuditRecord::default()
    }
}
