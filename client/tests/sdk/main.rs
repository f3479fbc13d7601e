//! The SDK against a fake service over real mutual TLS: transport, errors, retries, deadlines, reconnection.

mod batches;
mod connection;
mod errors;
mod fake;
mod identities;
mod lists;
mod pool;
mod renewal;
mod retries;
mod streams;
