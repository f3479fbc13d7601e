//! The mathematics and formats of the transparency log that the audit trail is: RFC 6962 hashing, the Merkle tree and its
//! tiles, checkpoints as signed notes, proofs, receipts, and the signatures of reports.
//!
//! Everything here is synchronous and pure: nothing does I/O, nothing logs, nothing reads the clock. The service, the command
//! line's offline verification and the client SDK all use it. `docs/audit-format.md` specifies every byte, and
//! `tests/independent/verify_tlog.py` is a second implementation made from that page alone.
//!
//! Whoever verifies needs a [`key::VerifierKey`] that he got from somewhere other than the log itself; everything else may come from
//! whoever wants to convince him.

pub mod bundle;
pub mod checkpoint;
pub mod evidence;
pub mod hash;
pub mod key;
pub mod log_id;
pub mod note;
pub mod proof;
pub mod receipt;
pub mod report;
pub mod subtree;
mod text;
pub mod tile;
pub mod tree;
