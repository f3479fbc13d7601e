//! What the double refuses, in the words of the service (its `service::failure`).

use fieldkeep_keystore::error::{KeyError, KeystoreError};
use fieldkeep_proto::v1;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{Error, ServerError, reason};

/// A call, or an item, that has no result.
#[derive(Debug)]
pub(super) struct Refusal {
    code: Code,
    reason: &'static str,
    message: String,
}

impl Refusal {
    pub(super) fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
        }
    }

    pub(super) fn invalid(part: &str, problem: impl std::fmt::Display) -> Self {
        let message = format!("`{part}`: {problem}");
        Self::new(Code::InvalidArgument, reason::INVALID_REQUEST, message)
    }

    pub(super) fn opaque() -> Self {
        Self::new(
            Code::InvalidArgument,
            reason::DECRYPTION_FAILED,
            "decryption failed",
        )
    }

    pub(super) fn key_not_found(key: &str) -> Self {
        let message = format!("there is no key `{key}`");
        Self::new(Code::NotFound, reason::KEY_NOT_FOUND, message)
    }

    pub(super) fn key_disabled() -> Self {
        Self::new(
            Code::FailedPrecondition,
            reason::KEY_DISABLED,
            "the key is disabled; an admin can enable it",
        )
    }

    pub(super) fn internal(cause: impl std::fmt::Display) -> Self {
        Self::new(Code::Internal, reason::INTERNAL, cause.to_string())
    }

    pub(super) fn into_error(self) -> Error {
        Error::Server(Box::new(ServerError::from_status(&self.into())))
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let none = std::collections::HashMap::<String, String>::new();
        let details = ErrorDetails::with_error_info(refusal.reason, "fieldkeep", none);
        Status::with_error_details(refusal.code, refusal.message, details)
    }
}

impl From<Refusal> for v1::ItemError {
    fn from(refusal: Refusal) -> Self {
        Self {
            code: refusal.code.into(),
            reason: refusal.reason.to_owned(),
            message: refusal.message,
        }
    }
}

/// Of a key or version that is there, or that a ciphertext names.
impl From<KeyError> for Refusal {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::NotFound | KeyError::NoSuchVersion => Self::opaque(),
            KeyError::KeyDisabled => Self::key_disabled(),
            KeyError::VersionDisabled => Self::new(
                Code::FailedPrecondition,
                reason::VERSION_DISABLED,
                "the key version is disabled; an admin can enable it",
            ),
            other => Self::internal(other),
        }
    }
}

impl From<KeystoreError> for Refusal {
    fn from(error: KeystoreError) -> Self {
        let exists = |name: &str| {
            let message = format!("`{name}` exists already");
            Self::new(Code::AlreadyExists, reason::ALREADY_EXISTS, message)
        };
        match &error {
            KeystoreError::TenantNotFound(tenant) => {
                let message = format!("there is no tenant `{tenant}`");
                Self::new(Code::NotFound, reason::TENANT_NOT_FOUND, message)
            }
            KeystoreError::KeyNotFound { key, .. } => Self::key_not_found(key),
            KeystoreError::TenantExists(tenant) => exists(tenant),
            KeystoreError::KeyExists { key, .. } => exists(key),
            KeystoreError::NoSuchVersion { version, .. } => {
                let message = format!("the key has no version {version}");
                Self::new(Code::NotFound, reason::VERSION_NOT_FOUND, message)
            }
            KeystoreError::PrimaryVersion { .. } => Self::new(
                Code::FailedPrecondition,
                reason::PRIMARY_VERSION,
                "the primary version cannot be disabled; rotate the key first",
            ),
            KeystoreError::Conflict { .. } => Self::new(
                Code::Aborted,
                reason::CONFLICT,
                "the record was changed by another call at the same time; try again",
            ),
            KeystoreError::OperationReused => Self::new(
                Code::InvalidArgument,
                reason::REQUEST_ID_REUSED,
                "this `request_id` was used for another request; choose a new one",
            ),
            _ => Self::internal(error),
        }
    }
}
