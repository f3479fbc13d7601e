//! A record as the trail stores it, made straight from what a call has at hand.
//!
//! A record of the data path is written once and seldom read. Encoded from borrowed parts it takes one allocation; as an
//! [`AuditRecord`] it would take one for each text.

use bytes::Bytes;
use fieldkeep_proto::v1::{AuditChange, AuditRecord, AuditResource};
use prost::Message as _;
use prost::encoding::{self, WireType};

use super::operations::Step;

/// What a record says, borrowed. The fields are those of [`AuditRecord`]; it has no parts yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordParts<'a> {
    /// When the call ended, microseconds since the Unix epoch.
    pub time_us: u64,
    /// The call's id.
    pub request_id: &'a [u8],
    /// The identity.
    pub principal: &'a str,
    /// The method of authentication.
    pub authentication: &'a str,
    /// The caller's address and port.
    pub address: &'a str,
    /// The RPC.
    pub rpc: &'a str,
    /// The action.
    pub action: &'a str,
    /// The `fieldkeep.v1.Decision`.
    pub decision: i32,
    /// The rule that decided.
    pub rule: &'a str,
    /// The `google.rpc.Code`.
    pub code: i32,
    /// The reason of a refusal or failure.
    pub reason: &'a str,
    /// The duration, microseconds.
    pub duration_us: u64,
    /// What was used.
    pub resources: &'a [AuditResource],
    /// The keyed hash of the context.
    pub context_hash: &'a [u8],
    /// The items that succeeded.
    pub items_ok: u32,
    /// The items that failed.
    pub items_failed: u32,
    /// What was changed.
    pub changes: &'a [AuditChange],
    /// The store's revision after the change.
    pub store_revision: u64,
    /// What was granted, made or issued.
    pub detail: &'a str,
    /// What proved who the caller is.
    pub credential: &'a str,
    /// The `fieldkeep.v1.Phase`.
    pub phase: i32,
    /// The id of the store's operation.
    pub operation_id: &'a [u8],
    /// The store keys that an intent names.
    pub intended_keys: &'a [Bytes],
    /// How many calls it stands for.
    pub summarised: u64,
}

/// An encoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    bytes: Vec<u8>,
    has_changes: bool,
    step: Option<Step>,
}

impl Encoded {
    /// The record of `parts`: the same bytes as those of the [`AuditRecord`] with these fields.
    #[must_use]
    pub fn of(parts: &RecordParts<'_>) -> Self {
        // The usual record of a call on one field has about 300 bytes.
        let mut bytes = Vec::with_capacity(384);
        let out = &mut bytes;
        number(1, parts.time_us, out);
        text(2, parts.request_id, out);
        text(3, parts.principal.as_bytes(), out);
        text(4, parts.authentication.as_bytes(), out);
        text(5, parts.address.as_bytes(), out);
        text(6, parts.rpc.as_bytes(), out);
        text(7, parts.action.as_bytes(), out);
        number(8, signed(parts.decision), out);
        text(9, parts.rule.as_bytes(), out);
        number(10, signed(parts.code), out);
        text(11, parts.reason.as_bytes(), out);
        number(12, parts.duration_us, out);
        encoding::message::encode_repeated(13, parts.resources, out);
        text(15, parts.context_hash, out);
        number(16, parts.items_ok.into(), out);
        number(17, parts.items_failed.into(), out);
        encoding::message::encode_repeated(18, parts.changes, out);
        number(19, parts.store_revision, out);
        text(22, parts.detail.as_bytes(), out);
        text(23, parts.credential.as_bytes(), out);
        number(24, signed(parts.phase), out);
        text(25, parts.operation_id, out);
        for store_key in parts.intended_keys {
            encoding::encode_key(26, WireType::LengthDelimited, out);
            encoding::encode_varint(store_key.len() as u64, out);
            out.extend_from_slice(store_key);
        }
        number(27, parts.summarised, out);
        Self {
            bytes,
            has_changes: !parts.changes.is_empty(),
            step: Step::of(parts.phase, parts.request_id, parts.operation_id),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the record has changes of the store.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.has_changes
    }

    /// Which step of an operation the record is, if it is one.
    #[must_use]
    pub fn step(&self) -> Option<&Step> {
        self.step.as_ref()
    }

    /// The record, to change or keep it. What was encoded here can always be decoded; otherwise this would be the empty record.
    #[must_use]
    pub fn decoded(&self) -> AuditRecord {
        AuditRecord::decode(self.bytes.as_slice()).unwrap_or_default()
    }
}

impl From<&AuditRecord> for Encoded {
    fn from(record: &AuditRecord) -> Self {
        Self {
            bytes: record.encode_to_vec(),
            has_changes: !record.changes.is_empty(),
            step: Step::of(record.phase, &record.request_id, &record.operation_id),
        }
    }
}

/// As proto3 has it: what is zero or empty is left out.
fn number(tag: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        encoding::encode_key(tag, WireType::Varint, out);
        encoding::encode_varint(value, out);
    }
}

fn text(tag: u32, value: &[u8], out: &mut Vec<u8>) {
    if !value.is_empty() {
        encoding::encode_key(tag, WireType::LengthDelimited, out);
        encoding::encode_varint(value.len() as u64, out);
        out.extend_from_slice(value);
    }
}

/// An `int32` or an enum on the wire: negative numbers are extended to 64 bits.
fn signed(value: i32) -> u64 {
    i64::from(value).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_bytes_are_those_of_the_message(
            texts in proptest::collection::vec("\\PC{0,200}", 10),
            numbers in proptest::collection::vec(prop_oneof![Just(0), any::<u64>()], 4),
            smalls in proptest::collection::vec(prop_oneof![Just(0), any::<u32>()], 4),
            codes in (any::<i32>(), any::<i32>(), any::<i32>()),
            hashes in (proptest::collection::vec(any::<u8>(), 0..20), proptest::collection::vec(any::<u8>(), 0..20)),
            counts in (0_usize..4, 0_usize..3),
        ) {
            let resource = AuditResource {
                name: texts[0].clone(),
                version: smalls[0],
                field: texts[1].clone(),
                items: smalls[1],
                item_hashes: Bytes::from(hashes.1.clone()),
            };
            let change = AuditChange {
                store_key: Bytes::from(hashes.0.clone()),
                generation: numbers[0],
                value_sha256: Bytes::from(hashes.1.clone()),
            };
            let record = AuditRecord {
                time_us: numbers[0],
                request_id: Bytes::from(hashes.0.clone()),
                principal: texts[0].clone(),
                authentication: texts[1].clone(),
                address: texts[2].clone(),
                rpc: texts[3].clone(),
                action: texts[4].clone(),
                decision: codes.0,
                rule: texts[5].clone(),
                code: codes.1,
                reason: texts[6].clone(),
                duration_us: numbers[1],
                resources: vec![resource; counts.0],
                context_hash: Bytes::from(hashes.1.clone()),
                items_ok: smalls[2],
                items_failed: smalls[3],
                changes: vec![change; counts.1],
                store_revision: numbers[2],
                detail: texts[7].clone(),
                credential: texts[8].clone(),
                phase: codes.2,
                operation_id: Bytes::from(hashes.0.clone()),
                intended_keys: vec![Bytes::from(hashes.1.clone()); counts.0],
                summarised: numbers[3],
                ..AuditRecord::default()
            };
            let parts = RecordParts {
                time_us: record.time_us,
                request_id: &record.request_id,
                principal: &record.principal,
                authentication: &record.authentication,
                address: &record.address,
                rpc: &record.rpc,
                action: &record.action,
                decision: record.decision,
                rule: &record.rule,
                code: record.code,
                reason: &record.reason,
                duration_us: record.duration_us,
                resources: &record.resources,
                context_hash: &record.context_hash,
                items_ok: record.items_ok,
                items_failed: record.items_failed,
                changes: &record.changes,
                store_revision: record.store_revision,
                detail: &record.detail,
                credential: &record.credential,
                phase: record.phase,
                operation_id: &record.operation_id,
                intended_keys: &record.intended_keys,
                summarised: record.summarised,
            };
            let encoded = Encoded::of(&parts);
            prop_assert_eq!(&encoded, &Encoded::from(&record));
            prop_assert_eq!(encoded.decoded(), record);
        }
    }
}
