//! A call before its message is whole: whether it may be received at all, and its record if it never gets to
//! [`Service::perform`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tonic::Code;

use crate::access::limits::shed::Place;
use crate::service::call::{Call, Peer};
use crate::service::failure::Failure;
use crate::service::perform::attempt::Attempt;
use crate::service::perform::permit::admit;
use crate::service::perform::{NO_IDENTITY, Refusal, ended_failure};
use crate::service::{Core, Service};

/// The rule of a call whose caller went away before its message was whole.
pub const RULE_INCOMPLETE: &str = "incomplete";
/// The rule of a call that took longer than its caller or its RPC allows.
pub const RULE_DEADLINE: &str = "deadline";
/// The rule of a stream that ended without ever having a message.
pub const RULE_NO_MESSAGE: &str = "no-message";
/// Bytes of messages that all connections together may have under way. Short ones are not counted.
pub(super) const MESSAGES_BYTES: usize = 64 * 1024 * 1024;

/// A call whose message is on its way. If it is dropped before [`Arrival::end`], it leaves a record that says so.
pub struct Arrival<'a> {
    core: &'a Arc<Core>,
    call: &'a Call,
    ended: bool,
}

impl Arrival<'_> {
    /// From now on the call's record is somebody else's matter.
    pub fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // An attempt that is dropped writes its record.
            drop(Attempt::with_rule(
                self.core,
                self.call.clone(),
                RULE_INCOMPLETE,
            ));
        }
    }
}

/// The place of a message among those of its connection and of all.
#[derive(Debug)]
pub struct MessageRoom {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Service {
    /// Takes responsibility for the record of `call` while its message arrives or is parsed.
    #[must_use]
    pub fn arrive<'a>(&'a self, call: &'a Call) -> Arrival<'a> {
        Arrival {
            core: &self.core,
            call,
            ended: false,
        }
    }

    /// Whether the caller may do what the RPC is for, to anything at all. [`Service::perform`] decides; this comes
    /// before any memory or work is spent on a message that is long.
    ///
    /// # Errors
    /// The refusal, which has to go on record.
    pub fn admit(&self, call: &Call) -> Result<(), Failure> {
        let core = &self.core;
        if core.is_draining() {
            return Err(Failure::ShuttingDown);
        }
        if core.audit_down.load(Ordering::Acquire) {
            return Err(Failure::AuditUnavailable);
        }
        let Some(principal) = call.peer.principal.as_ref() else {
            return Err(NO_IDENTITY);
        };
        if let Some(ended) = call.peer.ended() {
            return Err(ended_failure(ended));
        }
        let (snapshot, now_us) = (core.access.snapshot(), core.clock.now_us());
        admit(
            &snapshot,
            principal,
            call.action,
            call.peer.network(),
            now_us,
        )
    }

    /// A place for `call` among those under way, so that it is refused before anything is spent on it if there are too many.
    /// `waited` is how long it has waited for this, if that is known. Calls of administration need none: whoever has to mend an
    /// overload must get through. Nor do those of nobody, who are refused soon enough.
    ///
    /// # Errors
    /// [`Failure::Overloaded`], which has to go on record.
    pub fn place(&self, call: &Call, waited: Option<Duration>) -> Result<Option<Place>, Failure> {
        let Some(principal) = call.peer.principal.as_ref() else {
            return Ok(None);
        };
        if !call.action.is_data() {
            return Ok(None);
        }
        let (overload, now) = (&self.core.overload, self.core.clock.monotonic_ns());
        if let Some(waited) = waited {
            overload.observe(waited, now);
        }
        let place = overload.enter(&principal.resource, now);
        place.map(Some).map_err(Failure::Overloaded)
    }

    /// Room for a message of `bytes` bytes of `peer`: first among those of its connection, then among those of all, so that
    /// who waits for his own holds nobody up. The room is free when it is dropped.
    ///
    /// # Errors
    /// [`Failure::RequestTooLarge`] if there can never be so much.
    pub async fn message_room(&self, peer: &Peer, bytes: usize) -> Result<MessageRoom, Failure> {
        Ok(MessageRoom {
            _own: peer.message_share(bytes).await?,
            _all: self.room(bytes).await?,
        })
    }

    /// Room for a message of `bytes` bytes among those of all connections; waits for it. The room is free when the permit
    /// is dropped.
    ///
    /// # Errors
    /// [`Failure::RequestTooLarge`] if there can never be so much.
    pub async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Failure> {
        let too_large = Failure::RequestTooLarge {
            limit: MESSAGES_BYTES,
        };
        let count = match u32::try_from(bytes) {
            Ok(count) if bytes <= MESSAGES_BYTES => count,
            _ => return Err(too_large),
        };
        Arc::clone(&self.core.messages)
            .acquire_many_owned(count)
            .await
            .map_err(Failure::internal)
    }

    /// Records that a stream whose caller was admitted ended without a message, durably.
    ///
    /// # Errors
    /// The refusal to end it with instead if the trail cannot be written.
    pub async fn unused(&self, call: Call) -> Result<(), Refusal> {
        let request_id = call.request_id;
        let mut attempt = Attempt::with_rule(&self.core, call, RULE_NO_MESSAGE).allowed();
        self.record_code(&mut attempt, Code::Ok)
            .await
            .map_err(|failure| Refusal::new(failure, request_id))
    }

    /// Records that a call ran out of time, durably. What it had done by then has its own record with the same request id.
    ///
    /// # Errors
    /// The refusal to reply with instead if the trail cannot be written.
    pub async fn expire(&self, call: Call) -> Result<(), Refusal> {
        let request_id = call.request_id;
        let mut attempt = Attempt::with_rule(&self.core, call, RULE_DEADLINE);
        self.record_code(&mut attempt, Code::DeadlineExceeded)
            .await
            .map_err(|failure| Refusal::new(failure, request_id))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;
    use crate::service::tests::{Fixture, peer};

    #[tokio::test]
    async fn messages_wait_for_room_and_give_it_back() {
        let f = Fixture::make().await;
        let most = f.service.room(MESSAGES_BYTES).await.unwrap();
        let mut waiting = Box::pin(f.service.room(1));
        assert!(poll!(&mut waiting).is_pending());
        drop(most);
        drop(waiting.await.unwrap());
        assert!(f.service.room(MESSAGES_BYTES + 1).await.is_err());
    }

    #[tokio::test]
    async fn one_connection_takes_a_quarter_of_the_room_at_most() {
        const QUARTER: usize = MESSAGES_BYTES / 4;
        let f = Fixture::make().await;
        let (own, other) = (peer("acme/app"), peer("other/app"));
        let held = f.service.message_room(&own, QUARTER).await.unwrap();
        let mut waiting = Box::pin(f.service.message_room(&own, 1));
        assert!(poll!(&mut waiting).is_pending());
        // Who waits for his own share holds nothing of what is there for all.
        drop(f.service.room(MESSAGES_BYTES - QUARTER).await.unwrap());
        drop(f.service.message_room(&other, QUARTER).await.unwrap());
        drop(held);
        drop(waiting.await.unwrap());
    }
}
