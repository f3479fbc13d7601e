//! Tests of the whole crate: published answers, properties, other implementations.

mod differential;
mod example;
mod independent;
mod properties;
mod published;
mod sources;
