//! Stored values: sealing, opening, and what the audit trail keeps of them.

use bytes::Bytes;
use fieldkeep_crypto::{
    keys::RecordKey,
    record::{Record, RecordError},
    wrap::StoreId,
};
use ring::digest;

use crate::{error::Damaged, info::Change};

/// A value ready to be stored, with its entry for the audit trail.
pub(crate) struct Sealed {
    pub(crate) store_key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) change: Change,
}

/// Seals a payload as the given generation of a record.
pub(crate) fn seal(
    record_key: &RecordKey,
    store_id: &StoreId,
    store_key: Bytes,
    generation: u64,
    payload: &[u8],
) -> Sealed {
    let value = Bytes::from(record_key.seal_record(store_id, &store_key, generation, payload));
    let change = Change {
        store_key: store_key.clone(),
        generation,
        digest: Some(digest_of(&value)),
    };
    Sealed {
        store_key,
        value,
        change,
    }
}

/// Authenticates a stored value.
pub(crate) fn open<'v>(
    record_key: &RecordKey,
    store_id: &StoreId,
    store_key: &[u8],
    value: &'v [u8],
) -> Result<Record<'v>, Damaged> {
    record_key
        .open_record(store_id, store_key, value)
        .map_err(|error| {
            Damaged::new(
                store_key,
                match error {
                    RecordError::TooShort => "it is too short",
                    RecordError::NotAuthentic => "its authentication code does not fit",
                },
            )
        })
}

/// SHA-256 of a stored value.
pub(crate) fn digest_of(value: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, value).as_ref());
    bytes
}
