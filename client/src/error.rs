//! The one error of the SDK's calls.

use std::{fmt, time::Duration};

use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{ConfigError, ConnectError, reason};

/// Why a call failed. [`Error::kind`] is what to branch on.
///
/// `Debug` shows the message too, so that it is read where `main` returns the error or a test unwraps it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The client cannot be built from what it was given.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// No connection could be made; nothing was sent.
    #[error("cannot connect to `{address}`: {source}")]
    Connect {
        /// The host and port.
        address: Box<str>,
        /// What went wrong.
        source: ConnectError,
    },

    /// The service refused this client's certificate during the TLS handshake.
    #[error(
        "`{address}` refused the client certificate ({alert}): it may have expired, or come from the CA of another \
         Fieldkeep; issue a new one with `fieldkeep cert issue`"
    )]
    CertificateRefused {
        /// The host and port.
        address: Box<str>,
        /// The TLS alert that the service sent.
        alert: Box<str>,
    },

    /// The connection broke while the call was under way, so its outcome is unknown.
    #[error("the connection to `{address}` broke before the reply came: {detail}")]
    ConnectionLost {
        /// The host and port.
        address: Box<str>,
        /// What the transport says.
        detail: Box<str>,
    },

    /// No reply came in time.
    #[error("no reply within {} ms{}", timeout.as_millis(), last_failure(last.as_deref()))]
    DeadlineExceeded {
        /// The time that the call had.
        timeout: Duration,
        /// Why the try before the last one failed, if there was one.
        last: Option<Box<Error>>,
    },

    /// The service refused the call or could not do it.
    #[error(transparent)]
    Server(Box<ServerError>),

    /// The call was refused here, before anything was sent.
    #[error("{message}")]
    Refused {
        /// The reason that the service would give, of [`reason`].
        reason: &'static str,
        /// What is wrong and what to do.
        message: Box<str>,
    },

    /// A stream broke. The items that have no result may have been carried out or not.
    #[error("the stream broke after {answered} results: {source}")]
    Stream {
        /// The results that had come.
        answered: u64,
        /// Why it broke.
        source: Box<Error>,
    },

    /// The decrypted value is not UTF-8 text.
    #[error("the decrypted value is not UTF-8 text: take it as bytes with `decrypt`")]
    NotText,

    /// The operating system gave no random numbers.
    #[error("the operating system gave no random numbers")]
    Random,

    /// The reply is not what the protocol promises.
    #[error("the reply cannot be understood: {what}")]
    Reply {
        /// What is wrong with it.
        what: &'static str,
    },
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?}", self.kind())?;
        if let Some(reason) = self.reason() {
            write!(f, ", {reason}")?;
        }
        f.write_str(")")
    }
}

fn last_failure(last: Option<&Error>) -> String {
    last.map(|error| format!(" (the try before: {error})"))
        .unwrap_or_default()
}

/// The kinds of [`Error`], for branching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The client's own settings or identity files.
    Config,
    /// No connection could be made.
    Connect,
    /// The caller is not known or does not have the right.
    Refused,
    /// What the call names is not there.
    NotFound,
    /// What the call would make is there already.
    AlreadyExists,
    /// A part of the request is not valid.
    InvalidArgument,
    /// A ciphertext could not be opened. There is no more to know.
    DecryptionFailed,
    /// The state of a key, version or role does not allow the call.
    FailedPrecondition,
    /// Another change came first.
    Conflict,
    /// The service is out of some resource, such as disk space.
    ResourceExhausted,
    /// The service cannot answer at the moment.
    Unavailable,
    /// No reply came in time.
    DeadlineExceeded,
    /// A fault of the service or of the protocol.
    Internal,
}

/// An error that the service reported.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ServerError {
    pub(crate) code: Code,
    pub(crate) reason: Option<Box<str>>,
    pub(crate) message: Box<str>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) request_id: Option<Box<str>>,
}

impl ServerError {
    /// The gRPC status code.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let error = client.field("missing", "f").encrypt(b"x").await.unwrap_err();
    /// let fieldkeep_client::Error::Server(error) = error else { return Err(error) };
    /// println!("{:?}", error.code());
    /// # Ok(())
    /// # }
    /// ```
    pub fn code(&self) -> Code {
        self.code
    }

    /// The stable reason, of [`reason`]. `None` if the answer did not come from Fieldkeep's own handlers.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let error = client.field("missing", "f").encrypt(b"x").await.unwrap_err();
    /// let fieldkeep_client::Error::Server(error) = error else { return Err(error) };
    /// assert_eq!(error.reason(), Some(fieldkeep_client::reason::KEY_NOT_FOUND));
    /// # Ok(())
    /// # }
    /// ```
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// What happened and what to do, for people.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let error = client.field("missing", "f").encrypt(b"x").await.unwrap_err();
    /// let fieldkeep_client::Error::Server(error) = error else { return Err(error) };
    /// assert_eq!(error.message(), "there is no key `missing`");
    /// # Ok(())
    /// # }
    /// ```
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How long the service asks to wait before the next try.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let error = client.field("missing", "f").encrypt(b"x").await.unwrap_err();
    /// let fieldkeep_client::Error::Server(error) = error else { return Err(error) };
    /// assert!(error.retry_after().is_none(), "waiting would not help");
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The call's id in the audit trail and the service's log, in hex.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let error = client.field("missing", "f").encrypt(b"x").await.unwrap_err();
    /// let fieldkeep_client::Error::Server(error) = error else { return Err(error) };
    /// if let Some(id) = error.request_id() {
    ///     eprintln!("ask the operator about call {id}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// Reads the details of `status` (google.rpc.Status: ErrorInfo, RetryInfo).
    pub(crate) fn from_status(status: &tonic::Status) -> Self {
        let message = match status.message() {
            "" => status.code().description(),
            message => message,
        };
        Self {
            code: status.code(),
            reason: status
                .get_details_error_info()
                .map(|info| info.reason.into_boxed_str()),
            message: message.into(),
            retry_after: status
                .get_details_retry_info()
                .map(|info| info.retry_delay.unwrap_or(Duration::ZERO)),
            request_id: status
                .metadata()
                .get("fieldkeep-request-id")
                .and_then(|id| id.to_str().ok())
                .map(Box::from),
        }
    }

    /// Whether the service says that the same call may work in a moment.
    pub(crate) fn is_transient(&self) -> bool {
        self.code == Code::Unavailable
            && (self.retry_after.is_some()
                || matches!(
                    self.reason(),
                    Some(
                        reason::STORE_UNAVAILABLE
                            | reason::AUDIT_UNAVAILABLE
                            | reason::SHUTTING_DOWN
                    )
                ))
    }
}

impl Error {
    /// The kind, to branch on.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let error = client.field("missing", "f").encrypt(b"x").await.unwrap_err();
    /// assert_eq!(error.kind(), fieldkeep_client::ErrorKind::NotFound);
    /// # Ok(())
    /// # }
    /// ```
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) => ErrorKind::Config,
            Self::Connect { .. } => ErrorKind::Connect,
            Self::CertificateRefused { .. } => ErrorKind::Refused,
            Self::ConnectionLost { .. } => ErrorKind::Unavailable,
            Self::DeadlineExceeded { .. } => ErrorKind::DeadlineExceeded,
            Self::Server(error) => kind_of(error.code, error.reason()),
            Self::Refused { reason, .. } => kind_of(Code::InvalidArgument, Some(reason)),
            Self::Stream { source, .. } => source.kind(),
            Self::NotText => ErrorKind::InvalidArgument,
            Self::Random | Self::Reply { .. } => ErrorKind::Internal,
        }
    }

    /// The gRPC status code: the service's, or the one that describes a failure on this side. `None` for
    /// [`Error::Config`] and where no code fits.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let error = client.field("missing", "f").encrypt(b"x").await.unwrap_err();
    /// assert!(error.code().is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Server(error) => Some(error.code),
            Self::Connect { .. } | Self::ConnectionLost { .. } => Some(Code::Unavailable),
            Self::CertificateRefused { .. } => Some(Code::Unauthenticated),
            Self::DeadlineExceeded { .. } => Some(Code::DeadlineExceeded),
            Self::Refused { .. } => Some(Code::InvalidArgument),
            Self::Stream { source, .. } => source.code(),
            Self::Config(_) | Self::NotText | Self::Random | Self::Reply { .. } => None,
        }
    }

    /// The stable reason, of [`reason`], if there is one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let error = client.field("missing", "f").encrypt(b"x").await.unwrap_err();
    /// assert_eq!(error.reason(), Some(fieldkeep_client::reason::KEY_NOT_FOUND));
    /// # Ok(())
    /// # }
    /// ```
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Server(error) => error.reason(),
            Self::Refused { reason, .. } => Some(reason),
            Self::Stream { source, .. } => source.reason(),
            _ => None,
        }
    }

    /// What happened and what to do, for people. The same as `to_string`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let error = client.field("missing", "f").encrypt(b"x").await.unwrap_err();
    /// assert_eq!(error.message(), "there is no key `missing`");
    /// # Ok(())
    /// # }
    /// ```
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// Whether this is the one opaque error of a ciphertext that cannot be opened.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// let error = client.field("pii", "f").decrypt(b"damaged").await.unwrap_err();
    /// assert!(error.is_decryption_failed());
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_decryption_failed(&self) -> bool {
        self.kind() == ErrorKind::DecryptionFailed
    }
}

/// The kind of a status code and reason.
pub(crate) fn kind_of(code: Code, reason: Option<&str>) -> ErrorKind {
    if reason == Some(reason::DECRYPTION_FAILED) {
        return ErrorKind::DecryptionFailed;
    }
    match code {
        Code::Unauthenticated | Code::PermissionDenied => ErrorKind::Refused,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::InvalidArgument,
        Code::FailedPrecondition => ErrorKind::FailedPrecondition,
        Code::Aborted => ErrorKind::Conflict,
        Code::ResourceExhausted => ErrorKind::ResourceExhausted,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => ErrorKind::Internal,
    }
}
