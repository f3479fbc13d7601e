//! What carries a call: a connection to a service, or, in tests, the in-memory double.

use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::{body::Body, transport};
use tower::Service;

/// The HTTP/2 messages of a call go in, and its answer comes out.
#[derive(Clone)]
pub(crate) enum Wire {
    /// A connection to a service.
    Remote(transport::Channel),
}

impl Service<Request<Body>> for Wire {
    type Response = Response<Body>;
    type Error = transport::Error;
    type Future = <transport::Channel as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match self {
            Self::Remote(channel) => Service::poll_ready(channel, cx),
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self {
            Self::Remote(channel) => Service::call(channel, request),
        }
    }
}
