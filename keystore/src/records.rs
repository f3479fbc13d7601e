//! The payloads of stored records. Fields may be added; a number, once used, keeps its meaning.

use fieldkeep_crypto::names::Name;
use prost::Message;

/// The format of the store that this code reads and writes.
pub(crate) const FORMAT: u32 = 1;

/// `meta/store`. Not authenticated by itself: the store id is an input of every other record's MAC.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetaRecord {
    #[prost(uint32, tag = "1")]
    pub(crate) format: u32,
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) store_id: Vec<u8>,
}

/// A wrapped key with what its wrap is bound to.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WrappedKey {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    /// The version of the key that wraps this one.
    #[prost(uint32, tag = "2")]
    pub(crate) parent_version: u32,
    /// Unix seconds.
    #[prost(uint64, tag = "3")]
    pub(crate) created: u64,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) wrapped: Vec<u8>,
}

/// `root/keyring`. Protected by the unwrapping of the master keys.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyringRecord {
    /// The kind of the root provider.
    #[prost(string, tag = "1")]
    pub(crate) provider: String,
    /// The provider's own parameters.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) params: Vec<u8>,
    /// Oldest first; the last is the current one.
    #[prost(message, repeated, tag = "3")]
    pub(crate) master_keys: Vec<WrappedKey>,
}

/// `t/<tenant>`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TenantRecord {
    /// Unix seconds.
    #[prost(uint64, tag = "1")]
    pub(crate) created: u64,
    /// Wrapped by the master key, oldest first; the last is the current one.
    #[prost(message, repeated, tag = "2")]
    pub(crate) keks: Vec<WrappedKey>,
    /// The tenant's record key, wrapped by a KEK.
    #[prost(message, optional, tag = "3")]
    pub(crate) record_key: Option<WrappedKey>,
}

/// `k/<tenant>/<key>`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyRecord {
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) handle: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub(crate) suite: u32,
    #[prost(bool, tag = "3")]
    pub(crate) disabled: bool,
    #[prost(uint32, tag = "4")]
    pub(crate) primary: u32,
    /// Unix seconds.
    #[prost(uint64, tag = "5")]
    pub(crate) created: u64,
    /// Unix seconds.
    #[prost(uint64, tag = "6")]
    pub(crate) rotated: u64,
    /// First and last version of each range in turn.
    #[prost(uint32, repeated, tag = "7")]
    pub(crate) disabled_versions: Vec<u32>,
    #[prost(message, optional, tag = "8")]
    pub(crate) rotation: Option<RotationRecord>,
    /// Versions up to this one were retired by schedule and are not retired again.
    #[prost(uint32, tag = "9")]
    pub(crate) retired_through: u32,
    /// What the audit trail has of the items of calls: 0 counts, 1 a keyed hash of each too.
    #[prost(uint32, tag = "10")]
    pub(crate) audit_items: u32,
}

/// A rotation policy in a key's record. Zero and empty: not set.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RotationRecord {
    /// Seconds.
    #[prost(uint64, tag = "1")]
    pub(crate) period: u64,
    #[prost(string, tag = "2")]
    pub(crate) cron: String,
    /// Seconds; zero is not the same as absent.
    #[prost(uint64, optional, tag = "3")]
    pub(crate) jitter: Option<u64>,
    #[prost(uint64, tag = "4")]
    pub(crate) max_messages: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) max_bytes: u64,
    /// Seconds.
    #[prost(uint64, tag = "6")]
    pub(crate) retire_after: u64,
}

/// `u/<handle>/<version>`. Upper bounds of what was encrypted: what was counted, and what is leased.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct UsageRecord {
    #[prost(uint64, tag = "1")]
    pub(crate) messages: u64,
    /// Bytes of plaintext.
    #[prost(uint64, tag = "2")]
    pub(crate) bytes: u64,
}

/// `v/<handle>/<version>`, after the tenant's name (see [`split_tenant`]).
#[derive(Clone, PartialEq, Message)]
pub(crate) struct VersionRecord {
    /// The key's name.
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    /// Unix seconds.
    #[prost(uint64, tag = "2")]
    pub(crate) created: u64,
    #[prost(uint32, tag = "3")]
    pub(crate) suite: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) kek_version: u32,
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) wrapped: Vec<u8>,
}

/// Parses a record that nothing authenticates: only its one encoding is taken, so that every changed byte shows.
pub(crate) fn decode_strict<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    (message.encode_to_vec() == bytes).then_some(message)
}

/// A version record's payload: length of the tenant's name (one byte), the name, the message. The name stands before
/// the message because it says which record key authenticates the payload; it is believed only after that.
pub(crate) fn join_tenant(tenant: &Name, record: &VersionRecord) -> Vec<u8> {
    let name = tenant.as_str().as_bytes();
    let mut payload = Vec::with_capacity(1 + name.len() + record.encoded_len());
    // A name has at most 63 bytes.
    payload.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    payload.extend_from_slice(name);
    payload.extend_from_slice(&record.encode_to_vec());
    payload
}

/// The tenant's name and the message of a version record's payload.
pub(crate) fn split_tenant(payload: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = payload.split_first()?;
    let (name, message) = rest.split_at_checked(usize::from(*length))?;
    let name = str::from_utf8(name).ok()?;
    fieldkeep_crypto::names::check_name(name).ok()?;
    Some((name, message))
}
