//! The keystore of Fieldkeep: stores, the key hierarchy and the key cache (design, section 4).
//!
//! ```text
//! root provider (key file, passphrase)  ->  root key
//!   root key    wraps  master keys MK 1..n                 root/keyring
//!   MK          wraps  the system's record key, the audit key, each tenant's KEK
//!   tenant KEK  wraps  the tenant's record key, DEK versions
//!   DEK         derives field keys, never stored
//! ```
//!
//! - [`keystore::Keystore`] is the way in: tenants, keys, versions, system records.
//! - [`key::Key`] is what the data path gets: an immutable snapshot out of a bounded cache.
//! - [`rotation::plan`] says which keys are due, from their [`rotation::policy::RotationPolicy`] and their use.
//! - [`key::Key::count`] counts use before it happens; the module `usage` says why the counts are never too low.
//! - [`store::Store`] is where records are kept; [`root::RootProvider`] is where the root key comes from.
//!
//! Invariants:
//! - Every record but `meta/store` and `root/...` is authenticated before it is parsed; those are protected by
//!   the unwrapping of the keys in them.
//! - A record's generation only grows, also over its deletion.
//! - A key has exactly one primary version, which is its newest; versions are never reused.
//! - A record of use is never less than the truth: what is counted was leased in a durable commit before.
//! - Once a change is acknowledged, every later [`keystore::Keystore::key`] sees it.

mod cache;
mod candidates;
mod field_keys;
mod key_source;
mod keyring;
mod lifecycle;
mod listing;
mod mutation;
mod reader;
mod records;
mod rollback;
mod scheduled;
mod sealed;
mod state;
mod store_key;
mod system;
mod tenants;
mod usage;

pub mod error;
pub mod info;
pub mod key;
pub mod keystore;
pub mod present;
pub mod root;
pub mod rotation;
pub mod store;
