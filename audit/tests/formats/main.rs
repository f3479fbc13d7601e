//! What is made of records, against published schemas, naive sums and hostile texts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod hostile;
mod ocsf;
mod records;
mod report;
mod schema;
