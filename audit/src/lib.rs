//! Formats and tools over audit records that need no running service: they work on records, sidecar indexes and archives
//! wherever these come from. `docs/audit-format.md` specifies every byte.

pub mod archive;
pub mod export;
pub mod filter;
pub mod index;
pub mod items;
pub mod query;
pub mod report;
#[cfg(test)]
mod sample;
pub mod segment;
pub mod view;
