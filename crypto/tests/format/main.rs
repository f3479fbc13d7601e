//! The format as a whole: frozen vectors, a second implementation, and strictness of every parser.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code may fail loudly"
)]

mod ciphertext_vectors;
mod differential;
mod parsers;
mod redaction;
mod second;
mod stored_vectors;
mod wrapping;
