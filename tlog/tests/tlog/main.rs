//! Tests of the whole crate: published answers, properties, other implementations.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code may fail loudly"
)]

mod differential;
mod example;
mod independent;
mod properties;
mod published;
mod sources;
