//! One call: who makes it, from where, what it asks for, and when it began.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use fieldkeep_crypto::random::{self, RandomError};
use fieldkeep_keystore::store::Operation;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::access::action::Action;
use crate::access::principal::{Method, Principal};
use crate::access::trust::{Credential, Ended, Standing};
use crate::service::failure::Failure;
use crate::telemetry::RpcMetrics;
use crate::telemetry::trace::CallTrace;

/// How the process itself is authenticated.
pub const LOCAL: &str = "local";
/// How a connection without a client certificate is authenticated.
pub const WITHOUT_CERTIFICATE: &str = "none";
/// Bytes of replies of streams that one connection may have made and not yet taken: four of the longest.
const STREAM_REPLIES_BYTES: u32 = 64 * 1024 * 1024;
/// Bytes of messages that one connection may have under way: a quarter of what all together may have, so that nobody keeps
/// the others out by announcing messages and sending nothing.
const MESSAGES_BYTES: u32 = 16 * 1024 * 1024;

/// Who calls: the other end of one connection, resolved once when its handshake ended, or whom a call's own credential names.
#[derive(Debug)]
pub struct Peer {
    /// The caller; without one every call is refused.
    pub principal: Option<Arc<Principal>>,
    /// How it was authenticated: `mtls`, `jwt`, `api-key`, `none` without a client certificate, or `local` for the process itself.
    pub authentication: &'static str,
    /// What its certificate says and who vouches for it, if it has one.
    credential: Option<Arc<Credential>>,
    connection: Arc<Connection>,
}

/// What all calls of a connection share, whoever makes them.
#[derive(Debug)]
struct Connection {
    address: String,
    network: IpAddr,
    /// How it stands.
    standing: Arc<Standing>,
    stream_replies: Arc<Semaphore>,
    messages: Arc<Semaphore>,
    replied: AtomicBool,
    /// The keyed hash of the last credential that was verified here; 0: of none.
    verified: AtomicU64,
}

impl Connection {
    fn new(address: String, network: IpAddr, standing: Arc<Standing>) -> Arc<Self> {
        Arc::new(Self {
            address,
            network,
            standing,
            stream_replies: bytes(STREAM_REPLIES_BYTES),
            messages: bytes(MESSAGES_BYTES),
            replied: AtomicBool::new(false),
            verified: AtomicU64::new(0),
        })
    }
}

impl Peer {
    /// The peer of a connection from `address`.
    #[must_use]
    pub fn new(principal: Option<Principal>, address: SocketAddr) -> Self {
        let method = principal
            .as_ref()
            .map_or(Method::Mtls, |principal| principal.method);
        Self {
            principal: principal.map(Arc::new),
            authentication: method.as_str(),
            credential: None,
            connection: Connection::new(address.to_string(), address.ip(), Arc::default()),
        }
    }

    /// The peer of a connection from `address` that stands as `standing` says.
    #[must_use]
    pub fn of_connection(
        credential: Option<Arc<Credential>>,
        has_certificate: bool,
        standing: Arc<Standing>,
        address: SocketAddr,
    ) -> Self {
        let principal = credential.as_ref().map(|one| one.principal.clone());
        Self {
            principal: principal.map(Arc::new),
            authentication: if has_certificate {
                "mtls"
            } else {
                WITHOUT_CERTIFICATE
            },
            credential,
            connection: Connection::new(address.to_string(), address.ip(), standing),
        }
    }

    /// The process itself.
    #[must_use]
    pub fn local() -> Self {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            principal: None,
            authentication: LOCAL,
            credential: None,
            connection: Connection::new(String::new(), here, Arc::default()),
        }
    }

    /// The same connection, for a call that `principal` makes by a credential of its own. The connection's certificate says
    /// nothing about it.
    #[must_use]
    pub fn with_caller(&self, principal: Arc<Principal>) -> Self {
        Self {
            authentication: principal.method.as_str(),
            principal: Some(principal),
            credential: None,
            connection: Arc::clone(&self.connection),
        }
    }

    /// The same connection, for a call by a credential that names nobody.
    #[must_use]
    pub fn without_caller(&self, method: Method) -> Self {
        Self {
            authentication: method.as_str(),
            principal: None,
            credential: None,
            connection: Arc::clone(&self.connection),
        }
    }

    /// Its address and port, as text for the audit record.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.connection.address
    }

    /// Its address without the port, as conditions of grants ask for it.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        self.connection.network
    }

    /// What its certificate says, if it names somebody.
    #[must_use]
    pub fn credential(&self) -> Option<&Credential> {
        self.credential.as_deref()
    }

    /// Why its calls are refused, although its handshake succeeded.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.connection.standing.ended()
    }

    /// Whether the credential with this keyed hash was the last that was verified on the connection.
    pub(super) fn has_verified(&self, hash: u64) -> bool {
        self.connection.verified.load(Ordering::Relaxed) == hash
    }

    /// Remembers the credential with this keyed hash, and that the connection is somebody's.
    pub(super) fn note_verified(&self, hash: u64) {
        self.connection.verified.store(hash, Ordering::Relaxed);
        self.connection.standing.name();
    }

    /// Whether no reply went there yet: true once.
    pub fn is_first_reply(&self) -> bool {
        let replied = &self.connection.replied;
        !replied.load(Ordering::Relaxed) && !replied.swap(true, Ordering::Relaxed)
    }

    /// Room for a reply of `bytes` among those of the connection's streams; waits until its caller took enough of them.
    /// More than there is room for counts as all of it.
    ///
    /// # Errors
    /// Never, since the room is never closed.
    pub async fn reply_room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Failure> {
        take(&self.connection.stream_replies, bytes, STREAM_REPLIES_BYTES).await
    }

    /// Room for a message of `bytes` bytes among those of the connection; see [`crate::service::Service::message_room`].
    pub(super) async fn message_share(
        &self,
        bytes: usize,
    ) -> Result<OwnedSemaphorePermit, Failure> {
        take(&self.connection.messages, bytes, MESSAGES_BYTES).await
    }
}

fn bytes(count: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count as usize))
}

/// Waits for `bytes` of `room`, or for all of it if that is less.
async fn take(
    room: &Arc<Semaphore>,
    bytes: usize,
    all: u32,
) -> Result<OwnedSemaphorePermit, Failure> {
    let count = u32::try_from(bytes).map_or(all, |count| count.min(all));
    Arc::clone(room)
        .acquire_many_owned(count)
        .await
        .map_err(Failure::internal)
}

/// The id of one call: 16 bytes, unique in the trail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId([u8; 16]);

impl RequestId {
    /// The id of what the service does by itself: that of the store's operation.
    #[must_use]
    pub fn of_operation(operation: &Operation) -> Self {
        Self(operation.id)
    }

    /// The bytes, for the audit record.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Makes request ids: 8 random bytes a process, then a counter. They name calls and keep no secret, so they need no
/// system call each.
#[derive(Debug)]
pub struct RequestIds {
    prefix: [u8; 8],
    next: AtomicU64,
}

impl RequestIds {
    /// Draws this process's prefix.
    ///
    /// # Errors
    /// If the operating system has no random numbers.
    pub fn make() -> Result<Self, RandomError> {
        let mut prefix = [0; 8];
        random::fill(&mut prefix)?;
        Ok(Self {
            prefix,
            next: AtomicU64::new(0),
        })
    }

    /// The next id.
    pub fn next(&self) -> RequestId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 16];
        let (head, tail) = id.split_at_mut(8);
        head.copy_from_slice(&self.prefix);
        tail.copy_from_slice(&count.to_be_bytes());
        RequestId(id)
    }

    /// The ids given out so far, which is the calls served since start.
    pub fn count(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }
}

/// One call, as the transport knows it before its message is parsed.
#[derive(Clone)]
pub struct Call {
    /// Who calls.
    pub peer: Arc<Peer>,
    /// The call's id.
    pub request_id: RequestId,
    /// When the call came in.
    pub started: Instant,
    /// The RPC, for example `fieldkeep.v1.FieldService/Encrypt`.
    pub rpc: &'static str,
    /// The action that the RPC's row names; `perform` compares it with the operation's own.
    pub action: Action,
    /// The longest message that the RPC takes, bytes.
    pub request_bytes: usize,
    /// Whether the caller asks for the receipt of its record.
    pub wants_receipt: bool,
    /// The RPC's metrics.
    pub metrics: Arc<RpcMetrics>,
    /// The call's span, if its trace is kept.
    pub trace: Option<Arc<CallTrace>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_unique_and_share_a_prefix() {
        let ids = RequestIds::make().unwrap();
        let (a, b) = (ids.next(), ids.next());
        assert_ne!(a, b);
        assert_eq!(a.as_bytes()[..8], b.as_bytes()[..8]);
        assert_eq!(a.to_string().len(), 32);
        assert_eq!(ids.count(), 2);
    }
}
