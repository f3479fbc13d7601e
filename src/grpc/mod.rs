//! The gRPC transport: TLS, routes, handlers, and the only place where messages become domain types.
//!
//! A handler parses its message, lets [`crate::service::Service::perform`] do the rest, and converts the result back.

pub mod convert;
pub mod gate;
pub mod handlers;
pub mod receive;
pub mod reply;
pub mod routes;
pub mod serve;
pub mod status;
pub mod stream;
pub mod tls;
pub mod unary;
