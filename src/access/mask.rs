//! Which mask a field has: `sys/mask/{tenant}/{field}`. What masks there are, and what each shows, is in [`kind`].
//!
//! A caller who has only `decrypt-masked` for a field gets its plaintext through the field's mask, never without one:
//! - A field without a mask is refused to such a caller. There is no default that would show a part.
//! - The ciphertext is opened into a buffer that is wiped when it is dropped, and [`Mask::apply`] writes what is shown
//!   into the reply's buffer, and nothing else of the value goes there.
//! - Who has `decrypt` as well gets the plaintext. The masks of a snapshot are one hash map from tenant and field to
//!   [`Mask`], so that the mask of a call is the one of the snapshot that authorized it.
//!
//! Masks do not hide whether a value is of the mask's kind (a value without a domain looks different from one with), and two
//! equal permitted parts look equal: that is what they say. They are not for fields that have few values.

use std::sync::Arc;

use fieldkeep_crypto::names::Name;
use fieldkeep_keystore::info::SystemRecord;
use prost::Message as _;

use super::AccessError;

pub mod kind;
#[cfg(test)]
mod tests;
pub mod write;

use self::kind::Mask;

/// What the store keys of all masks begin with.
pub const PREFIX: &str = "sys/mask/";

/// The mask of one field of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldMask {
    /// Whose field.
    pub tenant: Name,
    /// Which field. Fields and names have one grammar.
    pub field: Name,
    /// How it is shown.
    pub mask: Mask,
    /// When it was set, Unix seconds.
    pub created: u64,
    /// Who set it: a resource name.
    pub set_by: Arc<str>,
}

/// The payload of the record. Its key says which field, and the record's MAC covers the key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct MaskRecord {
    /// The text form of the mask.
    #[prost(string, tag = "1")]
    mask: String,
    #[prost(uint64, tag = "2")]
    created: u64,
    #[prost(string, tag = "3")]
    set_by: String,
}

/// The store key of the mask of a field.
pub fn mask_key(tenant: &Name, field: &Name) -> String {
    format!("{PREFIX}{tenant}/{field}")
}

/// What the store keys of a tenant's masks begin with.
pub fn masks_of(tenant: &Name) -> String {
    format!("{PREFIX}{tenant}/")
}

impl FieldMask {
    /// The payload of the record under [`mask_key`].
    pub fn encode(&self) -> Vec<u8> {
        let record = MaskRecord {
            mask: self.mask.to_string(),
            created: self.created,
            set_by: self.set_by.as_ref().to_owned(),
        };
        record.encode_to_vec()
    }

    /// The mask of a stored record.
    ///
    /// # Errors
    /// [`AccessError::UnknownRecord`] for whatever this version would not have written in the same bytes: a field that
    /// it does not know could say that less is to be shown.
    pub fn decode(store_key: &str, record: &SystemRecord) -> Result<FieldMask, AccessError> {
        FieldMask::decode_parts(store_key, &record.payload).ok_or_else(|| {
            AccessError::UnknownRecord {
                store_key: store_key.to_owned(),
            }
        })
    }

    fn decode_parts(store_key: &str, payload: &[u8]) -> Option<FieldMask> {
        let (tenant, field) = store_key.strip_prefix(PREFIX)?.split_once('/')?;
        let record = MaskRecord::decode(payload).ok()?;
        let mask = FieldMask {
            tenant: Name::parse(tenant).ok()?,
            field: Name::parse(field).ok()?,
            mask: record.mask.parse().ok()?,
            created: record.created,
            set_by: record.set_by.into(),
        };
        (mask.encode() == payload).then_some(mask)
    }
}
