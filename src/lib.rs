//! Fieldkeep: a field-level encryption and key-management service.
//!
//! The parts and how they depend on each other are in `docs/ARCHITECTURE.md`.

pub mod access;
pub mod audit;
pub mod cli;
pub mod config;
pub mod disk;
pub mod grpc;
pub mod hardening;
pub mod init;
pub mod jobs;
pub mod server;
pub mod service;
pub mod telemetry;
pub mod version;
