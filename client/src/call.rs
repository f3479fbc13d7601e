//! The client, and the one way that a call takes: deadline, tries, errors.

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use fieldkeep_crypto::random;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::{task::AbortHandle, time::Instant};
use tonic::Code;

#[cfg(feature = "testing")]
use crate::testing::{Fault, Injected};
use crate::{
    ClientBuilder, ConfigError, ConnectError, Error, ServerError,
    bearer::{Bearer, Shown},
    codec::SharedCodec,
    pool::{Lease, Pool},
    receipts::{self, Receipts},
    renew,
};

/// Longer deadlines are cut to this, so that no sum of times overflows.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
const MAX_TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A client of a Fieldkeep service. Cheap to clone; clones share the connections.
///
/// It has to be built and used in one Tokio runtime, with its I/O and time drivers enabled.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    receipts: Option<Receipts>,
    #[cfg(feature = "testing")]
    faults: Option<Injected>,
}

pub(crate) struct Shared {
    settings: Settings,
    pool: Pool,
    /// What is shown with each call beside the connection's certificate, or instead of one.
    bearer: Option<Bearer>,
    renewal_problem: renew::Problem,
    /// The task that renews the certificate, which ends with the client.
    renewing: OnceLock<AbortHandle>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(task) = self.renewing.get() {
            task.abort();
        }
    }
}

/// What a client does by itself.
pub(crate) struct Settings {
    pub(crate) timeout: Duration,
    pub(crate) batch_timeout: Duration,
    /// How many parts of one batch are under way at the same time.
    pub(crate) parallel: usize,
}

/// How one call is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// The time for all tries together.
    pub(crate) timeout: Duration,
    /// Whether a call that may have been carried out can be sent again.
    pub(crate) repeatable: bool,
}

impl Plan {
    /// The same plan for a call that must not be carried out twice.
    pub(crate) fn once(self) -> Self {
        Self {
            repeatable: false,
            ..self
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.shared.pool.authority())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client with the settings of the environment:
    ///
    /// | variable | |
    /// |---|---|
    /// | `FIELDKEEP_ADDR` | the service: `https://host:port` or `host:port` |
    /// | `FIELDKEEP_CA` | a PEM file with the CA that signed the service's certificate |
    /// | `FIELDKEEP_CERT` | a PEM file with this client's certificate |
    /// | `FIELDKEEP_KEY` | a PEM file with the certificate's private key |
    ///
    /// Instead of the last two, or beside them: `FIELDKEEP_TOKEN_FILE`, a file with a token of an identity provider;
    /// `FIELDKEEP_API_KEY`, an API key; or `FIELDKEEP_API_KEY_FILE`, a file with one.
    ///
    /// It connects when the first call is made.
    ///
    /// # Errors
    /// [`Error::Config`] names the variable or file that is missing or wrong.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// match fieldkeep_client::Client::from_env() {
    ///     Ok(client) => println!("{client:?}"),
    ///     Err(error) => eprintln!("set FIELDKEEP_ADDR and its like: {error}"),
    /// }
    /// # }
    /// ```
    pub fn from_env() -> Result<Self, Error> {
        ClientBuilder::from_env()?.build()
    }

    /// A client with settings of your own.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let client = fieldkeep_client::Client::builder()
    ///     .address("https://127.0.0.1:7420")
    ///     .ca_file("no-such-directory/ca.pem")
    ///     .identity_files("app.pem", "app.key")
    ///     .timeout(Duration::from_secs(2))
    ///     .build();
    /// let error = client.unwrap_err();
    /// assert!(error.to_string().contains("no-such-directory/ca.pem"));
    /// ```
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) fn new(settings: Settings, pool: Pool, bearer: Option<Bearer>) -> Self {
        Self {
            shared: Arc::new(Shared {
                settings,
                pool,
                bearer,
                renewal_problem: renew::Problem::default(),
                renewing: OnceLock::new(),
            }),
            receipts: None,
            #[cfg(feature = "testing")]
            faults: None,
        }
    }

    /// The client of `shared`, if there is still one.
    pub(crate) fn upgrade(shared: &Weak<Shared>) -> Option<Self> {
        Some(Self {
            shared: shared.upgrade()?,
            receipts: None,
            #[cfg(feature = "testing")]
            faults: None,
        })
    }

    /// Renews the certificate from now on, in a task of its own.
    pub(crate) fn start_renewal(&self) {
        let task = tokio::spawn(renew::keep_renewed(Arc::downgrade(&self.shared)));
        // It is started once.
        let _ = self.shared.renewing.set(task.abort_handle());
    }

    /// The same client, which collects the receipts of its calls, those of streams and of administration too. A client in memory keeps no
    /// audit log, and has none.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let receipts = fieldkeep_client::Receipts::up_to(1_000);
    /// let recorded = client.with_receipts(&receipts);
    /// recorded.field("pii", "customer.email").encrypt(b"ada@example.com").await?;
    /// for receipt in receipts.take() {
    ///     println!("to be proven later: {receipt}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_receipts(&self, receipts: &Receipts) -> Self {
        Self {
            receipts: Some(receipts.clone()),
            ..self.clone()
        }
    }

    pub(crate) fn receipts(&self) -> Option<&Receipts> {
        self.receipts.as_ref()
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    pub(crate) fn renewal_state(&self) -> &renew::Problem {
        &self.shared.renewal_problem
    }

    /// The same client with other faults.
    #[cfg(feature = "testing")]
    pub(crate) fn injecting(&self, faults: Injected) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            receipts: self.receipts.clone(),
            faults: Some(faults),
        }
    }

    /// Changes a message as a test asks for it.
    #[cfg(feature = "testing")]
    pub(crate) fn alter<M: Message + 'static>(&self, message: &mut M) {
        if let Some(faults) = &self.faults {
            faults.alter(message);
        }
    }

    /// Waits as long as a test asks for; says what goes wrong with the next call, and how long it waited.
    #[cfg(feature = "testing")]
    pub(crate) async fn next_fault(
        &self,
        timeout: Duration,
    ) -> Result<(Option<Fault>, Duration), Error> {
        let Some(faults) = &self.faults else {
            return Ok((None, Duration::ZERO));
        };
        let (fault, delay) = faults.draw();
        if !delay.is_zero() {
            tokio::time::sleep(delay.min(timeout)).await;
        }
        match fault {
            _ if delay >= timeout => {
                let late = Fault::Fail(crate::ErrorKind::DeadlineExceeded);
                Err(late.error(self.shared.pool.authority(), timeout))
            }
            Some(fault @ Fault::Fail(_)) => Err(fault.error(self.shared.pool.authority(), timeout)),
            other => Ok((other, delay)),
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Why changed files of the identity, the token or the API key were not taken over at the last look: for example a certificate that
    /// is there before its key. `None` if nothing is wrong. The client goes on with what it read before, and looks again.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// if let Some(problem) = client.identity_problem() {
    ///     eprintln!("the new identity is not used yet: {problem}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn identity_problem(&self) -> Option<Arc<ConfigError>> {
        let of_bearer = || self.shared.bearer.as_ref()?.problem();
        self.shared.pool.identity_problem().or_else(of_bearer)
    }

    /// The token or API key to show with a call, if the client has one.
    pub(crate) async fn shown(&self) -> Option<Arc<Shown>> {
        match &self.shared.bearer {
            Some(bearer) => Some(bearer.shown().await),
            None => None,
        }
    }

    /// Looks for a newer certificate, token or API key than those that a call was refused with.
    async fn has_newer(&self, lease: &Lease, shown: Option<&Arc<Shown>>) -> bool {
        let newer_token = match (&self.shared.bearer, shown) {
            (Some(bearer), Some(shown)) => bearer.is_replaced(shown).await,
            _ => false,
        };
        self.shared.pool.renew(lease).await || newer_token
    }

    /// How a call is made that touches one thing.
    pub(crate) fn plan(&self) -> Plan {
        Plan {
            timeout: self.settings().timeout,
            repeatable: true,
        }
    }

    /// How a batch is made.
    pub(crate) fn batch_plan(&self) -> Plan {
        Plan {
            timeout: self.settings().batch_timeout,
            repeatable: true,
        }
    }

    /// Makes one call: `path` is `/{package}.{service}/{method}`.
    #[cfg(not(feature = "testing"))]
    pub(crate) async fn unary<Req, Res>(
        &self,
        path: &'static str,
        request: Req,
        plan: Plan,
    ) -> Result<Res, Error>
    where
        Req: Message + 'static,
        Res: Message + Default + 'static,
    {
        self.call(path, request, plan).await
    }

    /// Makes one call, with the fault that a test may ask for.
    #[cfg(feature = "testing")]
    pub(crate) async fn unary<Req, Res>(
        &self,
        path: &'static str,
        mut request: Req,
        mut plan: Plan,
    ) -> Result<Res, Error>
    where
        Req: Message + 'static,
        Res: Message + Default + 'static,
    {
        let timeout = plan.timeout;
        let (fault, delay) = self.next_fault(timeout).await?;
        plan.timeout = timeout.saturating_sub(delay);
        self.alter(&mut request);
        let reply = self.call(path, request, plan).await?;
        match fault {
            None => Ok(reply),
            Some(fault) => Err(fault.error(self.shared.pool.authority(), timeout)),
        }
    }

    async fn call<Req, Res>(
        &self,
        path: &'static str,
        request: Req,
        plan: Plan,
    ) -> Result<Res, Error>
    where
        Req: Message + 'static,
        Res: Message + Default + 'static,
    {
        let request = Arc::new(request);
        let timeout = plan.timeout.min(LONGEST_TIMEOUT);
        let deadline = Instant::now() + timeout;
        let mut last = None;
        for tries in 1..=MAX_TRIES {
            let exceeded = |last: Option<Error>| Error::DeadlineExceeded {
                timeout,
                last: last.map(Box::new),
            };
            let lease = tokio::time::timeout_at(deadline, self.shared.pool.lease()).await;
            let Ok(mut lease) = lease else {
                return Err(exceeded(last));
            };
            let shown = self.shown().await;
            let message = Arc::clone(&request);
            let attempt = attempt(
                &mut lease,
                path,
                message,
                deadline,
                shown.as_deref(),
                self.receipts.is_some(),
            );
            let error = match tokio::time::timeout_at(deadline, attempt).await {
                Ok(Ok(reply)) => {
                    if let Some(receipts) = &self.receipts {
                        let text = reply.metadata().get(receipts::METADATA);
                        let text = text.and_then(|text| text.to_str().ok());
                        receipts.add(text.and_then(|text| text.parse().ok()));
                    }
                    return Ok(reply.into_inner());
                }
                Ok(Err(status)) => match self.explain(status, &lease) {
                    Failure::Deadline => return Err(exceeded(last)),
                    Failure::Other(error) => error,
                },
                Err(_) => return Err(exceeded(last)),
            };
            // Whoever was refused may have shown what was replaced since; nothing was carried out.
            if tries < MAX_TRIES
                && may_be_outdated(&error)
                && self.has_newer(&lease, shown.as_ref()).await
            {
                last = Some(error);
                continue;
            }
            if tries == MAX_TRIES || !may_repeat(&error, plan.repeatable) {
                return Err(error);
            }
            let pause = pause_before_next(tries, &error)?;
            // A pause that outlives the deadline would only hide what went wrong.
            if pause >= deadline.saturating_duration_since(Instant::now()) {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            last = Some(error);
        }
        // The last try returns above.
        Err(last.unwrap_or(Error::Reply {
            what: "no try was made",
        }))
    }

    /// A request of a stream, with all that goes with it beside the message.
    pub(crate) async fn stream_request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(shown) = self.shown().await {
            shown.add_to(request.metadata_mut());
        }
        #[cfg(feature = "otel")]
        crate::trace::inject(request.metadata_mut());
        request
    }

    /// A place on a connection, for a call that is not made here.
    pub(crate) async fn lease(&self) -> Lease {
        self.shared.pool.lease().await
    }

    /// Says what the failure of a stream means, which has no deadline of its own.
    pub(crate) fn explain_stream(&self, status: tonic::Status, lease: &Lease) -> Error {
        match self.explain(status, lease) {
            Failure::Deadline => Error::DeadlineExceeded {
                timeout: LONGEST_TIMEOUT,
                last: None,
            },
            Failure::Other(error) => error,
        }
    }

    /// Says what a failed try means: whose fault it is, and whether anything was sent.
    fn explain(&self, status: tonic::Status, lease: &Lease) -> Failure {
        let address = || self.shared.pool.authority().into();
        let Some(source) = std::error::Error::source(&status) else {
            // A tonic server reports a passed deadline as a cancellation.
            if status.code() == Code::Cancelled && status.message() == "Timeout expired" {
                return Failure::Deadline;
            }
            return Failure::Other(Error::Server(Box::new(ServerError::from_status(&status))));
        };
        if find::<tonic::TimeoutExpired>(source).is_some() {
            return Failure::Deadline;
        }
        Failure::Other(if let Some(error) = find::<ConnectError>(source) {
            Error::Connect {
                address: address(),
                source: error.clone(),
            }
        } else if let Some(alert) = lease.refusal() {
            Error::CertificateRefused {
                address: address(),
                alert,
            }
        } else {
            Error::ConnectionLost {
                address: address(),
                detail: innermost(source).to_string().into(),
            }
        })
    }
}

async fn attempt<Req, Res>(
    lease: &mut Lease,
    path: &'static str,
    message: Arc<Req>,
    deadline: Instant,
    shown: Option<&Shown>,
    wants_receipt: bool,
) -> Result<tonic::Response<Res>, tonic::Status>
where
    Req: Message + 'static,
    Res: Message + Default + 'static,
{
    lease
        .grpc
        .ready()
        .await
        .map_err(|error| tonic::Status::from_error(error.into()))?;
    let mut request = tonic::Request::new(message);
    request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    if let Some(shown) = shown {
        shown.add_to(request.metadata_mut());
    }
    if wants_receipt {
        let metadata = request.metadata_mut();
        metadata.insert(
            receipts::METADATA,
            tonic::metadata::MetadataValue::from_static("1"),
        );
    }
    #[cfg(feature = "otel")]
    crate::trace::inject(request.metadata_mut());
    let path = PathAndQuery::from_static(path);
    lease.grpc.unary(request, path, SharedCodec::new()).await
}

/// Why a try failed. The deadline is kept here, by tonic's client and by the server: whichever notices first, it is told
/// in the same way.
enum Failure {
    Deadline,
    Other(Error),
}

/// The first error of type `E` in a chain of causes.
fn find<'a, E: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a E> {
    std::iter::successors(Some(error), |error| error.source())
        .find_map(|error| error.downcast_ref())
}

fn innermost<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> &'a (dyn std::error::Error + 'static) {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .unwrap_or(error)
}

/// Whether `error` may come of an identity, or a CA, that was replaced on disk since it was read.
fn may_be_outdated(error: &Error) -> bool {
    match error {
        Error::CertificateRefused { .. } => true,
        Error::Connect { source, .. } => matches!(source, ConnectError::UnknownCa),
        Error::Server(error) => error.code == Code::Unauthenticated,
        _ => false,
    }
}

/// Whether the same call may be sent again after `error`.
fn may_repeat(error: &Error, repeatable: bool) -> bool {
    match error {
        // Never sent.
        Error::Connect { source, .. } => source.is_transient(),
        // Sent, perhaps carried out.
        Error::ConnectionLost { .. } => repeatable,
        Error::Server(error) => repeatable && error.is_transient(),
        _ => false,
    }
}

/// The pause before the next try: doubled each time, half of it random so that clients do not come back together, and
/// never less than the service asks for.
fn pause_before_next(tries: u32, error: &Error) -> Result<Duration, Error> {
    let mut draw = [0u8; 4];
    random::fill(&mut draw).map_err(|_| Error::Random)?;
    let asked = match error {
        Error::Server(error) => error.retry_after.unwrap_or(Duration::ZERO),
        _ => Duration::ZERO,
    };
    Ok(pause(tries, u32::from_be_bytes(draw)).max(asked))
}

fn pause(tries: u32, draw: u32) -> Duration {
    let full = (FIRST_PAUSE * 2u32.saturating_pow(tries.saturating_sub(1))).min(LONGEST_PAUSE);
    full / 2 + (full / 2).mul_f64(f64::from(draw) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_stay_bounded_and_are_half_random() {
        assert_eq!(pause(1, 0), Duration::from_millis(25));
        assert_eq!(pause(1, u32::MAX), Duration::from_millis(50));
        assert_eq!(pause(2, u32::MAX), Duration::from_millis(100));
        assert_eq!(pause(32, u32::MAX), LONGEST_PAUSE);
    }
}
