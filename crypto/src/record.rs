//! Authentication of stored records, so that whoever writes the disk cannot plant, swap or forge one.
//!
//! value = be64(generation) || payload || HMAC-SHA256(RK, `fieldkeep/v1/record` || store id || lp(store key) ||
//! be64(generation) || lp(payload))

use ring::hmac;
use subtle::ConstantTimeEq as _;

use crate::keys::RecordKey;
use crate::labels;
use crate::length_prefix::length_bytes;
use crate::wrap::StoreId;

/// How much longer than its payload a stored value is, in bytes.
pub const RECORD_OVERHEAD_BYTES: usize = 8 + 32;

/// Why a stored value is not a record of this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes than generation and MAC have.
    #[error("the stored record is too short")]
    TooShort,
    /// The MAC is not the one of this record key, store, store key, generation and payload.
    #[error("the stored record is not authentic")]
    NotAuthentic,
}

/// A stored record that has been authenticated. Only the generation tells whether it is the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'v> {
    /// How often the record was written: grows with every change.
    pub generation: u64,
    /// The content.
    pub payload: &'v [u8],
}

impl RecordKey {
    /// The stored value of a record: [`RECORD_OVERHEAD_BYTES`] more than its payload.
    pub fn seal_record(
        &self,
        store: &StoreId,
        store_key: &[u8],
        generation: u64,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut value = Vec::with_capacity(RECORD_OVERHEAD_BYTES + payload.len());
        value.extend_from_slice(&generation.to_be_bytes());
        value.extend_from_slice(payload);
        value.extend_from_slice(self.mac(store, store_key, generation, payload).as_ref());
        value
    }

    /// Checks a stored value, in constant time, and takes it apart.
    ///
    /// # Errors
    /// [`RecordError`]; nothing of the value may then be used.
    pub fn open_record<'v>(
        &self,
        store: &StoreId,
        store_key: &[u8],
        value: &'v [u8],
    ) -> Result<Record<'v>, RecordError> {
        let (generation, rest) = value
            .split_first_chunk::<8>()
            .ok_or(RecordError::TooShort)?;
        let (payload, mac) = rest.split_last_chunk::<32>().ok_or(RecordError::TooShort)?;
        let generation = u64::from_be_bytes(*generation);
        let expected = self.mac(store, store_key, generation, payload);
        if bool::from(expected.as_ref().ct_eq(mac.as_slice())) {
            Ok(Record {
                generation,
                payload,
            })
        } else {
            Err(RecordError::NotAuthentic)
        }
    }

    fn mac(&self, store: &StoreId, store_key: &[u8], generation: u64, payload: &[u8]) -> hmac::Tag {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.as_bytes()));
        mac.update(labels::RECORD);
        mac.update(store.as_bytes());
        mac.update(&length_bytes(store_key.len()));
        mac.update(store_key);
        mac.update(&generation.to_be_bytes());
        mac.update(&length_bytes(payload.len()));
        mac.update(payload);
        mac.sign()
    }
}
