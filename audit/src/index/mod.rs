//! The sidecar index of a complete record segment: which of its records name what.
//!
//! It is a help for searching and never evidence: it can be thrown away and made again from the records, whoever can write it
//! can hide records from a search (not from a verification, which never reads it), and what it finds are candidates that
//! [`crate::filter::Filter::accepts_view`] still decides about. `docs/audit-format.md` specifies its bytes.

mod build;
mod dimension;
mod format;
mod offsets;
mod read;
#[cfg(test)]
mod tests;

pub use build::{BuildError, IndexBuilder};
pub use read::{Index, IndexError};
