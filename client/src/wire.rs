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
    /// The double in this process.
    #[cfg(feature = "testing")]
    Memory(crate::testing::Memory),
}

type ChannelFuture = <transport::Channel as Service<Request<Body>>>::Future;

#[cfg(not(feature = "testing"))]
type WireFuture = ChannelFuture;

#[cfg(feature = "testing")]
type WireFuture = futures_util::future::Either<
    ChannelFuture,
    futures_util::future::BoxFuture<'static, Result<Response<Body>, transport::Error>>,
>;

impl Service<Request<Body>> for Wire {
    type Response = Response<Body>;
    type Error = transport::Error;
    type Future = WireFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match self {
            Self::Remote(channel) => Service::poll_ready(channel, cx),
            #[cfg(feature = "testing")]
            Self::Memory(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self {
            #[cfg(not(feature = "testing"))]
            Self::Remote(channel) => Service::call(channel, request),
            #[cfg(feature = "testing")]
            Self::Remote(channel) => WireFuture::Left(Service::call(channel, request)),
            #[cfg(feature = "testing")]
            Self::Memory(memory) => {
                let memory = memory.clone();
                WireFuture::Right(Box::pin(async move { Ok(memory.answer(request).await) }))
            }
        }
    }
}
