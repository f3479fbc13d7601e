//! The SDK against a fake service over real mutual TLS: transport, errors, retries, deadlines, reconnection.

mod batches;
mod connection;
mod double;
mod errors;
mod fake;
mod faults;
mod identities;
mod lists;
mod pool;
mod renewal;
mod retries;
mod streams;
mod traces;
