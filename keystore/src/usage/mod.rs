//! Counts of what each key version encrypts, leased in blocks.
//!
//! A store record a version (`u/<handle>/<version>`) holds upper bounds. A process that is to use a version first commits a
//! block more into the record, and then spends that block in memory, without I/O.
//!
//! The invariant, for messages and for bytes alike:
//!
//! ```text
//! record  =  used (the truth)  +  left in memory  +  lost
//! ```
//!
//! - *Left* grows only after the commit that made the record larger was confirmed, and by no more.
//! - The record shrinks only by what was taken out of *left* before, so that nobody can spend it any more.
//! - Whoever cannot be told whether a commit happened neither spends its block nor gives it back: that is *lost*, as is what
//!   was left at a crash.
//! - Each commit names the revision of the record that it was computed from, so no two of them count from the same state.
//!
//! No term is ever negative, so the record is never less than the truth, whatever happens and in whatever order. Nothing depends on
//! there being one [`meter::Meter`] a version; that there is one makes the counts in memory exact.

mod dimension;
pub(crate) mod meter;
pub(crate) mod meters;
mod record;
