//! The handlers: thin, one a service of the contract.

mod access;
mod admin;
mod api_keys;
mod audit;
mod certificates;
mod field;
mod issuers;
mod limits;
mod masks;

use prost::Message;
use tonic::{Request, Status};

use crate::service::Service;
use crate::service::call::Call;
use crate::service::failure::Failure;

use super::convert::request_size;
use super::status;

/// All services of `fieldkeep.v1` on one runtime.
#[derive(Clone)]
pub struct Handlers {
    service: Service,
}

impl Handlers {
    /// The handlers over `service`.
    #[must_use]
    pub fn new(service: Service) -> Self {
        Self { service }
    }
}

/// Takes the call that the gate put with the request; without one nothing is served.
fn split<M>(request: Request<M>) -> Result<(Call, M), Status> {
    let (_, mut extensions, message) = request.into_parts();
    match extensions.remove::<Call>() {
        Some(call) => Ok((call, message)),
        None => Err(status::of_failure(&Failure::internal(
            "a request that did not pass the gate",
        ))),
    }
}

/// Takes the call and its message, parsed with `parse` unless it is longer than its RPC allows.
fn take<M: Message, O>(
    request: Request<M>,
    parse: impl FnOnce(M) -> Result<O, Failure>,
) -> Result<(Call, Result<O, Failure>), Status> {
    let (call, message) = split(request)?;
    let parsed = request_size(&message, call.request_bytes).and_then(|_| parse(message));
    Ok((call, parsed))
}
