//! The keystore of Fieldkeep: stores, the key hierarchy and the key cache.

pub mod store;
