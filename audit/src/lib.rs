//! What is made of the records of the audit trail.

pub mod export;
pub mod report;
