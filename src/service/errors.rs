//! From the errors of the parts to what a call fails with.

use std::time::Duration;

use fieldkeep_keystore::error::{KeyError, KeystoreError};
use fieldkeep_keystore::store::CommitError;

use crate::access::AccessError;
use crate::access::api_key::ApiKeyError;
use crate::access::ca::CaError;
use crate::access::certificates::CertificatesError;
use crate::access::join::JoinError;
use crate::access::lockout::Backoff;
use crate::service::enroll::TOKEN_REFUSED;
use crate::service::failure::{Failure, Opaque};
use crate::service::perform::unauthenticated;

/// A key that the caller named.
pub(super) fn named_key(error: KeyError, name: &str) -> Failure {
    match error {
        KeyError::NotFound => Failure::KeyNotFound(name.into()),
        other => of_key(other),
    }
}

/// A key that a ciphertext named, as long as its tenant has not been checked: that there is none, or that its record is
/// damaged, is the opaque failure.
pub(super) fn key_of_ciphertext(error: KeyError) -> Failure {
    match error {
        KeyError::NotFound => Failure::DecryptionFailed(Opaque::UnknownHandle),
        KeyError::Damaged(damaged) => {
            // For the log; the caller may be of any tenant.
            let _internal = logged(damaged);
            Failure::DecryptionFailed(Opaque::Damaged)
        }
        other => of_key(other),
    }
}

/// A version, of a key of the caller's own tenant, that a ciphertext named.
pub(super) fn version_of_ciphertext(error: KeyError) -> Failure {
    match error {
        KeyError::NoSuchVersion => Failure::DecryptionFailed(Opaque::NoSuchVersion),
        other => of_key(other),
    }
}

/// A key of the caller's own tenant that was found before.
pub(super) fn of_key(error: KeyError) -> Failure {
    match error {
        KeyError::KeyDisabled => Failure::KeyDisabled,
        KeyError::VersionDisabled => Failure::VersionDisabled,
        KeyError::Unavailable(source) => Failure::store(source),
        KeyError::Uncounted(CommitError::NoSpace) => Failure::NoSpace,
        KeyError::Uncounted(source) => Failure::store(source),
        KeyError::NotFound | KeyError::NoSuchVersion => Failure::internal(error),
        KeyError::Damaged(damaged) => logged(damaged),
    }
}

impl From<KeystoreError> for Failure {
    fn from(error: KeystoreError) -> Self {
        match error {
            KeystoreError::TenantNotFound(tenant) => Self::TenantNotFound(tenant.into()),
            KeystoreError::TenantExists(tenant) => Self::AlreadyExists(tenant.into()),
            KeystoreError::KeyNotFound { key, .. } => Self::KeyNotFound(key.into()),
            KeystoreError::KeyExists { key, .. } => Self::AlreadyExists(key.into()),
            KeystoreError::NoSuchVersion { version, .. } => Self::VersionNotFound(version),
            KeystoreError::PrimaryVersion { .. } => Self::PrimaryVersion,
            KeystoreError::Conflict { .. } | KeystoreError::PrimaryMoved { .. } => Self::Conflict,
            KeystoreError::OperationReused => Self::RequestIdReused,
            KeystoreError::NoSpace => Self::NoSpace,
            KeystoreError::Unavailable(source) => Self::store(source),
            KeystoreError::Commit(source) => Self::store(source),
            KeystoreError::Interrupted => Self::store(error),
            KeystoreError::VersionsExhausted | KeystoreError::TooManyDisabledRanges { .. } => {
                Self::invalid("name", error.to_string())
            }
            KeystoreError::NotEmpty
            | KeystoreError::NotInitialised
            | KeystoreError::Format { .. }
            | KeystoreError::WrongRoot
            | KeystoreError::WrongProvider { .. }
            | KeystoreError::Root(_)
            | KeystoreError::InvalidSystemKey(_)
            | KeystoreError::TooLarge { .. }
            | KeystoreError::Damaged(_)
            | KeystoreError::RolledBack { .. }
            | KeystoreError::SecretDamaged { .. }
            | KeystoreError::Random(_)
            | KeystoreError::Wrap(_) => logged(error),
        }
    }
}

impl From<Backoff> for Failure {
    fn from(wait: Backoff) -> Self {
        Self::TooManyAttempts {
            rule: wait.scope.as_str(),
            retry_after: Duration::from_millis(wait.retry_after_ms),
        }
    }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Grant(problem) => Self::invalid("grant", problem.to_string()),
            AccessError::GrantNotFound(id) => Self::GrantNotFound {
                name: id.as_str().into(),
                hidden_by: None,
            },
            AccessError::NotAMember { member, .. } => Self::MemberNotFound(member),
            AccessError::NoSuchSetting { what } => Self::NoSuchSetting {
                what,
                hidden_by: None,
            },
            AccessError::Issuer(problem) => Self::invalid("issuer", problem.to_string()),
            AccessError::Limit(problem) => Self::invalid("limit", problem.to_string()),
            AccessError::ApiKey(ApiKeyError::Random(error)) => error.into(),
            AccessError::ApiKey(problem) => Self::invalid("api_key", problem.to_string()),
            AccessError::Changed => Self::Conflict,
            AccessError::SelfGrant => Self::SelfGrant,
            AccessError::SelfMask => Self::SelfMask,
            AccessError::LastGrantor => Self::LastGrantor,
            AccessError::Full { .. } => Self::AccessFull(error.to_string().into()),
            AccessError::Keystore(source) => source.into(),
            AccessError::Interrupted => Self::store(error),
            AccessError::UnknownRecord { .. }
            | AccessError::OldRoles { .. }
            | AccessError::Tokens(_) => logged(error),
        }
    }
}

impl From<CaError> for Failure {
    fn from(error: CaError) -> Self {
        match error {
            CaError::Request { .. } => Self::invalid("csr_der", error.to_string()),
            CaError::Ttl { .. } => Self::invalid("ttl_seconds", error.to_string()),
            CaError::Keystore(source) => source.into(),
            CaError::NotInitialised
            | CaError::UnknownRecord
            | CaError::TrustDomain { .. }
            | CaError::ServerName { .. }
            | CaError::Expired
            | CaError::Certificate(_)
            | CaError::Random(_) => logged(error),
        }
    }
}

impl From<CertificatesError> for Failure {
    fn from(error: CertificatesError) -> Self {
        match error {
            CertificatesError::RootExists(name) => Self::AlreadyExists(name.as_str().into()),
            CertificatesError::RootNotFound(name) => Self::CaNotFound {
                name: name.as_str().into(),
                hidden_by: None,
            },
            CertificatesError::OwnTrustDomain(_) => {
                Self::invalid("trust_domain", error.to_string())
            }
            CertificatesError::Root(_) | CertificatesError::Pem => {
                Self::invalid("certificate_pem", error.to_string())
            }
            CertificatesError::TooManyRoots => Self::invalid("name", error.to_string()),
            CertificatesError::TooManyRevocations => Self::invalid("serial", error.to_string()),
            CertificatesError::Keystore(source) => source.into(),
            CertificatesError::UnknownRecord(_) => logged(error),
        }
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Unknown | JoinError::Expired | JoinError::Used => {
                unauthenticated(TOKEN_REFUSED)
            }
            JoinError::Ttl { .. } | JoinError::TooMany => {
                Self::invalid("ttl_seconds", error.to_string())
            }
            JoinError::Random(source) => source.into(),
            JoinError::Keystore(source) => source.into(),
            JoinError::Ca(source) => source.into(),
            JoinError::UnknownRecord(_) => logged(error),
        }
    }
}

/// Something that only an operator can mend.
fn logged(error: impl std::error::Error) -> Failure {
    tracing::error!(%error, "a call failed for a cause that its caller cannot mend");
    Failure::internal(error)
}
