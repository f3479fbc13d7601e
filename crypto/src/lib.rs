//! The cryptography of Fieldkeep: names and contexts, the ciphertext format, suite 01, key wrapping and
//! the authentication of stored records.
//!
//! Everything here is synchronous and pure. Nothing does I/O except [`random`], which asks the operating
//! system; nothing logs. `docs/ciphertext-format.md` specifies every byte that this crate makes, and
//! `tests/vectors/` freezes it.
//!
//! # Secrets in memory
//!
//! Every key role has its own type without `Clone`, with a redacted `Debug`, wiped on drop ([`keys`]). Two
//! places cannot be wiped: the expanded keys inside ring's own types (they live on the stack for the
//! length of one call), and stack slots that a [`keys::FieldKey`] was moved out of.

pub mod api_key;
pub mod audit;
pub mod ciphertext;
pub mod context;
pub mod error;
mod hkdf;
mod kc_xaes;
pub mod keys;
pub mod labels;
mod length_prefix;
pub mod names;
pub mod random;
pub mod record;
mod secret;
pub mod wrap;
