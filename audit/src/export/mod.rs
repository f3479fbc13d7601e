//! Records in the formats of others: [`jsonl`] for scripts, [`ocsf`] for a SIEM.

pub mod jsonl;
pub mod ocsf;
pub mod operation;
pub(crate) mod words;
