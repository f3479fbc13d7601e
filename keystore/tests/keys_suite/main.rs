//! The key hierarchy, its lifecycle and its cache, from the outside.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod cache;
mod fixture;
mod hierarchy;
mod lifecycle;
mod model;
mod on_sled;
mod races;
mod rollback;
mod root_providers;
mod rotation;
mod system_records;
mod tampering;
mod usage;
mod usage_races;
