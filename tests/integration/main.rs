//! The real binary, over real mutual TLS, in a temporary directory of each test's own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod access;
mod api;
mod api_keys;
mod attacks;
mod audit;
mod backup;
mod budgets;
mod canaries;
mod certificates;
mod ciphertexts;
mod command_line;
mod data;
mod dev;
mod directory;
mod doctor;
mod evidence;
mod first_ten_minutes;
mod fixture;
mod lifecycle;
mod limits;
mod masks;
mod metrics;
mod oidc;
mod otlp;
mod readme;
mod reports;
mod rollback;
mod rotation;
mod sdk;
mod streams;
mod systemd;
mod tokens;
mod transport;
