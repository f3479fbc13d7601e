//! The connections of a client: which one a call takes, and how new ones replace them when the identity's files change.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use tokio::time::Instant;
use tonic::client::Grpc;
use zeroize::Zeroizing;

use crate::{
    ConfigError, Error,
    connect::{Address, ConnectionState, open_channel},
    identity::{Credentials, Life, Texts},
    renew::Kept,
    wire::Wire,
};

/// The longest message in either direction, in bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// The connections to one service.
pub(crate) struct Pool {
    authority: Box<str>,
    connections: ArcSwap<Connections>,
    /// `None`: nothing that it was made of can change.
    renewal: Option<Renewal>,
}

/// At least one connection.
struct Connections {
    first: Arc<Connection>,
    others: Vec<Arc<Connection>>,
}

/// One connection, which is made when a call needs it, and again when it has broken.
struct Connection {
    grpc: Grpc<Wire>,
    state: Arc<ConnectionState>,
    /// Calls under way.
    calls: AtomicUsize,
}

/// A call's place on a connection.
pub(crate) struct Lease {
    pub(crate) grpc: Grpc<Wire>,
    connection: Arc<Connection>,
}

/// What is needed to see that the identity has changed on disk, and to use the new one.
struct Renewal {
    address: Address,
    credentials: Arc<Credentials>,
    started: Instant,
    interval: Duration,
    /// When the files are due to be looked at, in milliseconds after `started`.
    due_ms: AtomicU64,
    /// Whether any part is a file.
    may_change: bool,
    /// Held by whoever looks at the files: what they held at the last look.
    present: tokio::sync::Mutex<Arc<Texts>>,
    /// What the present connections were made of: that, or a renewed identity that could not be written to the files.
    used: ArcSwap<Texts>,
    problem: Mutex<Option<Arc<ConfigError>>>,
}

impl Pool {
    /// Reads the identity and prepares `count` connections.
    ///
    /// # Errors
    /// What is wrong with the identity or the address, or that there is no Tokio runtime.
    pub(crate) fn open(
        address: Address,
        credentials: Credentials,
        count: usize,
        interval: Duration,
    ) -> Result<Self, Error> {
        let loaded = credentials.load(None)?;
        // Without known ones there are always some.
        let (texts, tls) = loaded.ok_or(Error::Reply {
            what: "the identity was not read",
        })?;
        let connections = Connections::open(&address, &Arc::new(tls), count)?;
        let authority = address.authority.clone().into();
        let texts = Arc::new(texts);
        let renewal = Some(Renewal {
            address,
            may_change: credentials.may_change(),
            credentials: Arc::new(credentials),
            started: Instant::now(),
            interval,
            due_ms: AtomicU64::new(as_ms(interval)),
            used: ArcSwap::new(Arc::clone(&texts)),
            present: tokio::sync::Mutex::new(texts),
            problem: Mutex::new(None),
        });
        Ok(Self {
            authority,
            connections: ArcSwap::from_pointee(connections),
            renewal,
        })
    }

    /// One connection without an identity, by which a first one is asked for.
    ///
    /// # Errors
    /// What is wrong with the address, or that there is no Tokio runtime.
    pub(crate) fn anonymous(address: Address, tls: Arc<ClientConfig>) -> Result<Self, Error> {
        Ok(Self {
            authority: address.authority.clone().into(),
            connections: ArcSwap::from_pointee(Connections::open(&address, &tls, 1)?),
            renewal: None,
        })
    }

    /// The life of the certificate in use.
    pub(crate) fn life(&self) -> Option<Life> {
        self.renewal.as_ref()?.used.load().life()
    }

    /// Looks at the identity's files at once.
    pub(crate) async fn look_now(&self) {
        if let Some(renewal) = &self.renewal
            && renewal.may_change
        {
            let present = renewal.present.lock().await;
            self.look(renewal, present).await;
        }
    }

    /// Goes on with a renewed identity, and writes it to the files if it came from such.
    ///
    /// # Errors
    /// The service's reply is no certificate of the key.
    pub(crate) async fn take_renewed(
        &self,
        certificate: Vec<u8>,
        key: Zeroizing<String>,
    ) -> Result<Kept, Error> {
        let Some(renewal) = &self.renewal else {
            return Ok(Kept::Memory(None));
        };
        let mut present = renewal.present.lock().await;
        let texts = renewal
            .used
            .load()
            .with_identity(certificate, key.as_bytes());
        let (credentials, address) = (Arc::clone(&renewal.credentials), renewal.address.clone());
        let count = 1 + self.connections.load().others.len();
        let taken = tokio::task::spawn_blocking(move || {
            let tls = Arc::new(credentials.tls_config(&texts)?);
            let connections = Connections::open(&address, &tls, count)?;
            let kept = credentials.keep(&texts);
            Ok::<_, ConfigError>((texts, connections, kept))
        });
        let ended = |_| Error::Reply {
            what: "the runtime is ending",
        };
        let (texts, connections, kept) = taken.await.map_err(ended)??;
        let texts = Arc::new(texts);
        renewal.used.store(Arc::clone(&texts));
        self.connections.store(Arc::new(connections));
        match kept {
            Ok(true) => {
                *present = texts;
                Ok(Kept::Files)
            }
            Ok(false) => Ok(Kept::Memory(None)),
            Err(error) => Ok(Kept::Memory(Some(error.to_string().into()))),
        }
    }

    /// One place, in this process.
    #[cfg(feature = "testing")]
    pub(crate) fn in_memory(memory: crate::testing::Memory) -> Self {
        let first = Connection::new(Wire::Memory(memory), Arc::default());
        Self {
            authority: "in-memory".into(),
            connections: ArcSwap::from_pointee(Connections {
                first,
                others: Vec::new(),
            }),
            renewal: None,
        }
    }

    /// The host and port of the service.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Why changed files were not taken over, at the last look.
    pub(crate) fn identity_problem(&self) -> Option<Arc<ConfigError>> {
        let renewal = self.renewal.as_ref()?;
        renewal
            .problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A place on the connection with the fewest calls under way, after a look at the identity's files if that is due.
    pub(crate) async fn lease(&self) -> Lease {
        if let Some(renewal) = &self.renewal
            && renewal.is_due()
        {
            let present = renewal.present.lock().await;
            // Whoever waited here finds that another call has looked.
            if renewal.is_due() {
                self.look(renewal, present).await;
            }
        }
        self.connections.load().lease()
    }

    /// Looks at the identity's files at once, because a call on `refused` met a refusal. Returns whether there are other
    /// connections than the ones of `refused` now.
    pub(crate) async fn renew(&self, refused: &Lease) -> bool {
        let Some(renewal) = self.renewal.as_ref().filter(|renewal| renewal.may_change) else {
            return false;
        };
        let present = renewal.present.lock().await;
        let is_new = || !self.connections.load().has(&refused.connection);
        if !is_new() {
            self.look(renewal, present).await;
        }
        is_new()
    }

    /// Reads the files. If they have changed and fit together, new connections take the place of the present ones, which
    /// close when their last calls have ended.
    async fn look(&self, renewal: &Renewal, mut present: tokio::sync::MutexGuard<'_, Arc<Texts>>) {
        let (credentials, known) = (Arc::clone(&renewal.credentials), Arc::clone(&present));
        let address = renewal.address.clone();
        let count = 1 + self.connections.load().others.len();
        // Files may be slow, and parsing is work.
        let looked = tokio::task::spawn_blocking(move || {
            let Some((texts, tls)) = credentials.load(Some(&known))? else {
                return Ok(None);
            };
            let connections = Connections::open(&address, &Arc::new(tls), count)?;
            Ok(Some((texts, connections)))
        });
        let problem = match looked.await {
            Ok(Ok(None)) => None,
            Ok(Ok(Some((texts, connections)))) => {
                let texts = Arc::new(texts);
                renewal.used.store(Arc::clone(&texts));
                *present = texts;
                self.connections.store(Arc::new(connections));
                None
            }
            Ok(Err(error)) => Some(Arc::new(error)),
            // The runtime is ending.
            Err(_) => return,
        };
        *renewal
            .problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = problem;
        let due = renewal.started.elapsed().saturating_add(renewal.interval);
        renewal.due_ms.store(as_ms(due), Ordering::Release);
    }
}

impl Renewal {
    fn is_due(&self) -> bool {
        self.may_change && as_ms(self.started.elapsed()) >= self.due_ms.load(Ordering::Acquire)
    }
}

impl Connections {
    fn open(address: &Address, tls: &Arc<ClientConfig>, count: usize) -> Result<Self, ConfigError> {
        let open = || {
            let state = Arc::new(ConnectionState::default());
            let channel = open_channel(address, tls, &state)?;
            Ok(Connection::new(Wire::Remote(channel), state))
        };
        Ok(Self {
            first: open()?,
            others: (1..count).map(|_| open()).collect::<Result<_, _>>()?,
        })
    }

    fn has(&self, connection: &Arc<Connection>) -> bool {
        let mut all = std::iter::once(&self.first).chain(&self.others);
        all.any(|one| Arc::ptr_eq(one, connection))
    }

    fn lease(&self) -> Lease {
        let calls = |connection: &Connection| connection.calls.load(Ordering::Relaxed);
        let least = self.others.iter().fold(&self.first, |least, other| {
            if calls(other) < calls(least) {
                other
            } else {
                least
            }
        });
        least.calls.fetch_add(1, Ordering::Relaxed);
        Lease {
            grpc: least.grpc.clone(),
            connection: Arc::clone(least),
        }
    }
}

impl Connection {
    fn new(wire: Wire, state: Arc<ConnectionState>) -> Arc<Self> {
        let grpc = Grpc::new(wire)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Arc::new(Self {
            grpc,
            state,
            calls: AtomicUsize::new(0),
        })
    }
}

impl Lease {
    /// The alert by which the service refused the client's certificate, if that was the end of the last connection.
    pub(crate) fn refusal(&self) -> Option<Box<str>> {
        self.connection.state.refusal()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.connection.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
