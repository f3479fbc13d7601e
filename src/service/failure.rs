//! Everything a call can fail with, and the one match from that to a `google.rpc.Code` and a stable reason.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use fieldkeep_crypto::random::RandomError;
use tonic::Code;

use crate::access::limits;
use crate::access::limits::shed::Shed;

/// Why a call, or one item of a batch, failed.
///
/// `Display` is what the caller may read. What only the audit trail and the logs may say is behind [`Failure::detail`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The one opaque failure of every ciphertext that does not open.
    #[error("decryption failed")]
    DecryptionFailed(Opaque),
    /// A part of the request is malformed.
    #[error("`{field}`: {problem}")]
    Invalid {
        /// The part of the request, as its message names it.
        field: &'static str,
        /// What is wrong with it and what would be right.
        problem: Cow<'static, str>,
    },
    /// A field is longer than the limit.
    #[error("the field has {bytes} bytes, at most {limit} are allowed")]
    FieldTooLarge {
        /// The field's length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The request is longer than the limit.
    #[error("the request is longer than {limit} bytes; send it in parts")]
    RequestTooLarge {
        /// The limit.
        limit: usize,
    },
    /// The batch has more items than the limit.
    #[error("the batch has {items} items, at most {limit} are allowed; send it in parts")]
    BatchTooLarge {
        /// The number of items.
        items: usize,
        /// The limit.
        limit: usize,
    },
    /// The reply would be longer than the limit.
    #[error(
        "the reply would have {bytes} bytes, at most {limit} are allowed; send the batch in parts"
    )]
    ReplyTooLarge {
        /// The length that the reply could reach.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The caller could not be named, or its credential has ended.
    #[error("the caller is not authenticated: {told}")]
    Unauthenticated {
        /// The rule that refused, for the audit trail.
        rule: &'static str,
        /// What the caller is told.
        told: &'static str,
    },
    /// The caller has no right to this.
    #[error("{0}")]
    PermissionDenied(Refused),
    /// A right that the call relied on was taken away while it ran, or a mask was changed; asked again, it may be allowed.
    #[error("a right that this call used was taken away or changed while it ran; try again")]
    RightWithdrawn(&'static str),
    /// Nobody gives himself a right to the values of fields.
    #[error(
        "nobody gives himself, or a group that he is in, a right to the values of fields; ask another access admin"
    )]
    SelfGrant,
    /// Nobody who sees a field masked makes its mask show him more.
    #[error(
        "nobody who sees a field masked himself, or as one of a group, makes its mask show more; ask another access admin"
    )]
    SelfMask,
    /// No such key in a tenant whose keys the caller may name.
    #[error("there is no key `{0}`")]
    KeyNotFound(Arc<str>),
    /// No such tenant.
    #[error("there is no tenant `{0}`")]
    TenantNotFound(Arc<str>),
    /// No such version of a key that exists.
    #[error("the key has no version {0}")]
    VersionNotFound(u32),
    /// No such grant that the caller may see.
    #[error("there is no grant `{name}`")]
    GrantNotFound {
        /// Its name.
        name: Arc<str>,
        /// The rule that hides it from the caller, if there is one. He never learns it.
        hidden_by: Option<&'static str>,
    },
    /// The identity is not in the group.
    #[error("`{0}` is not in the group")]
    MemberNotFound(Arc<str>),
    /// There is none to remove or change.
    #[error("there is no such {what}")]
    NoSuchSetting {
        /// Of which kind.
        what: &'static str,
        /// The rule that hides it from the caller, if there is one. He never learns it.
        hidden_by: Option<&'static str>,
    },
    /// The name is taken.
    #[error("`{0}` exists already")]
    AlreadyExists(Arc<str>),
    /// The key is disabled.
    #[error("the key is disabled; an admin can enable it")]
    KeyDisabled,
    /// The version is disabled.
    #[error("the key version is disabled; an admin can enable it")]
    VersionDisabled,
    /// The primary version cannot be disabled.
    #[error("the primary version cannot be disabled; rotate the key first")]
    PrimaryVersion,
    /// Without it nobody could grant rights for all tenants again.
    #[error(
        "it is the last grant that lets somebody grant rights for all tenants; grant `admin` or `access-admin` for all tenants to another identity first"
    )]
    LastGrantor,
    /// There are as many grants or memberships as there may be.
    #[error("{0}")]
    AccessFull(Arc<str>),
    /// A change of rights is made, and calls that began before it have not ended.
    #[error(
        "the change is made and on record, but calls that began before it have not ended yet; send it again with the same `request_id` to wait for them"
    )]
    ChangePending,
    /// Somebody else changed the same record at the same time.
    #[error("the record was changed by another call at the same time; try again")]
    Conflict,
    /// A request id came again with another request.
    #[error("this `request_id` was used for another request; choose a new one")]
    RequestIdReused,
    /// The store cannot answer.
    #[error("the store is not available; try again")]
    StoreUnavailable(Arc<str>),
    /// The audit trail cannot be written, so no result may leave.
    #[error("the audit trail cannot be written, so the call has no result; see the server's log")]
    AuditUnavailable,
    /// The service is stopping.
    #[error("the service is shutting down; try again")]
    ShuttingDown,
    /// Too many attempts with what is no credential.
    #[error("too many failed attempts from this address; try again in {} s", retry_after.as_millis().div_ceil(1_000))]
    TooManyAttempts {
        /// The rule that refused, for the audit trail.
        rule: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// A limit has no room for the call, which was charged nothing.
    #[error("{0}")]
    LimitExceeded(Box<limits::Refused>),
    /// There are too many calls under way, or too many of this caller.
    #[error("{0}")]
    Overloaded(Shed),
    /// The keys of an issuer cannot be fetched.
    #[error("{0}")]
    KeysUnavailable(&'static str),
    /// No CA of this name.
    #[error("there is no CA `{name}`")]
    CaNotFound {
        /// Its name.
        name: Arc<str>,
        /// The rule that hides it from the caller, if there is one. He never learns it.
        hidden_by: Option<&'static str>,
    },
    /// No space for the change.
    #[error("there is no space left on the disk of the data directory; free some and try again")]
    NoSpace,
    /// A defect, or a stored record that does not verify.
    #[error("internal error; the server's log has the cause")]
    Internal(Arc<str>),
}

/// The refusal of a right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The rule that refused, for the audit trail.
    pub rule: &'static str,
    /// What the caller is told: what is missing, and the command that would give it.
    pub message: Arc<str>,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// When to try again after a failure that passes.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// The rule of who would give himself a right, or see more through one.
const RULE_SELF_GRANT: &str = "self-grant";
/// The rule of a limit that has no room.
const RULE_LIMIT: &str = "limit";
/// The rule of a call that was shed.
const RULE_OVERLOAD: &str = "overload";
/// The rule of a key that is another tenant's.
const RULE_FOREIGN_TENANT: &str = "foreign-tenant";

/// What the audit trail says about a ciphertext that did not open. The caller never learns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opaque {
    /// Not a ciphertext of format v1.
    Malformed,
    /// No key has this handle.
    UnknownHandle,
    /// The key is another tenant's.
    ForeignTenant,
    /// The ciphertext names a suite that is not the key's.
    SuiteMismatch,
    /// The key never had this version.
    NoSuchVersion,
    /// The record of the key does not verify, so that nobody can say whose key it is. The log names the record.
    Damaged,
    /// The commitment or the tag does not verify: another field, another context, or changed bytes.
    DecryptionFailed,
}

impl Opaque {
    /// The word for the audit record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownHandle => "unknown-handle",
            Self::ForeignTenant => "foreign-tenant",
            Self::SuiteMismatch => "suite-mismatch",
            Self::NoSuchVersion => "no-such-version",
            Self::Damaged => "damaged",
            Self::DecryptionFailed => "decryption-failed",
        }
    }
}

impl Failure {
    /// A malformed part of the request.
    pub fn invalid(field: &'static str, problem: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid {
            field,
            problem: problem.into(),
        }
    }

    /// A defect, or damage; `cause` goes to the log and the audit trail only.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        Self::Internal(cause.to_string().into())
    }

    /// The store cannot answer; `cause` goes to the log and the audit trail only.
    pub fn store(cause: impl std::fmt::Display) -> Self {
        Self::StoreUnavailable(cause.to_string().into())
    }

    /// The gRPC code and the stable reason: the one match from failures to what a caller sees.
    #[must_use]
    pub fn verdict(&self) -> (Code, &'static str) {
        match self {
            Self::DecryptionFailed(_) => (Code::InvalidArgument, "DECRYPTION_FAILED"),
            Self::Invalid { .. } => (Code::InvalidArgument, "INVALID_REQUEST"),
            Self::FieldTooLarge { .. } => (Code::InvalidArgument, "FIELD_TOO_LARGE"),
            Self::RequestTooLarge { .. } => (Code::InvalidArgument, "REQUEST_TOO_LARGE"),
            Self::BatchTooLarge { .. } => (Code::InvalidArgument, "BATCH_TOO_LARGE"),
            Self::ReplyTooLarge { .. } => (Code::InvalidArgument, "REPLY_TOO_LARGE"),
            Self::Unauthenticated { .. } => (Code::Unauthenticated, "UNAUTHENTICATED"),
            Self::PermissionDenied(_) => (Code::PermissionDenied, "PERMISSION_DENIED"),
            Self::KeyNotFound(_) => (Code::NotFound, "KEY_NOT_FOUND"),
            Self::TenantNotFound(_) => (Code::NotFound, "TENANT_NOT_FOUND"),
            Self::VersionNotFound(_) => (Code::NotFound, "VERSION_NOT_FOUND"),
            Self::GrantNotFound { .. } => (Code::NotFound, "GRANT_NOT_FOUND"),
            Self::MemberNotFound(_) => (Code::NotFound, "MEMBER_NOT_FOUND"),
            Self::NoSuchSetting { .. } => (Code::NotFound, "SETTING_NOT_FOUND"),
            Self::AlreadyExists(_) => (Code::AlreadyExists, "ALREADY_EXISTS"),
            Self::KeyDisabled => (Code::FailedPrecondition, "KEY_DISABLED"),
            Self::VersionDisabled => (Code::FailedPrecondition, "VERSION_DISABLED"),
            Self::PrimaryVersion => (Code::FailedPrecondition, "PRIMARY_VERSION"),
            Self::SelfGrant | Self::SelfMask => (Code::PermissionDenied, "SELF_GRANT"),
            Self::LastGrantor => (Code::FailedPrecondition, "LAST_GRANTOR"),
            Self::AccessFull(_) => (Code::ResourceExhausted, "ACCESS_FULL"),
            Self::ChangePending => (Code::Unavailable, "CHANGE_PENDING"),
            Self::Conflict | Self::RightWithdrawn(_) => (Code::Aborted, "CONFLICT"),
            Self::RequestIdReused => (Code::InvalidArgument, "REQUEST_ID_REUSED"),
            Self::StoreUnavailable(_) => (Code::Unavailable, "STORE_UNAVAILABLE"),
            Self::AuditUnavailable => (Code::Unavailable, "AUDIT_UNAVAILABLE"),
            Self::ShuttingDown => (Code::Unavailable, "SHUTTING_DOWN"),
            Self::KeysUnavailable(_) => (Code::Unavailable, "KEYS_UNAVAILABLE"),
            Self::TooManyAttempts { .. } => (Code::ResourceExhausted, "TOO_MANY_ATTEMPTS"),
            Self::LimitExceeded(_) => (Code::ResourceExhausted, "LIMIT_EXCEEDED"),
            Self::Overloaded(_) => (Code::Unavailable, "OVERLOADED"),
            Self::CaNotFound { .. } => (Code::NotFound, "CA_NOT_FOUND"),
            Self::NoSpace => (Code::ResourceExhausted, "NO_SPACE"),
            Self::Internal(_) => (Code::Internal, "INTERNAL"),
        }
    }

    /// What the audit record says: more than the caller may know, never anything of a plaintext or a key.
    #[must_use]
    pub fn detail(&self) -> Cow<'_, str> {
        match self {
            Self::DecryptionFailed(opaque) => Cow::Borrowed(opaque.as_str()),
            Self::Invalid { field, problem } => Cow::Owned(format!("invalid `{field}`: {problem}")),
            Self::Unauthenticated { told, .. } => Cow::Borrowed(told),
            Self::PermissionDenied(refused) => Cow::Borrowed(refused.rule),
            Self::RightWithdrawn(rule) => Cow::Borrowed(rule),
            Self::SelfGrant | Self::SelfMask => Cow::Borrowed(RULE_SELF_GRANT),
            Self::KeyDisabled => Cow::Borrowed("key-disabled"),
            Self::VersionDisabled => Cow::Borrowed("version-disabled"),
            Self::StoreUnavailable(cause) => Cow::Owned(format!("store: {cause}")),
            Self::Internal(cause) => Cow::Owned(format!("internal: {cause}")),
            other => Cow::Owned(other.to_string()),
        }
    }

    /// A word for counting the failed items of a batch: bounded in number, unlike [`Failure::detail`].
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::DecryptionFailed(opaque) => opaque.as_str(),
            other => other.verdict().1,
        }
    }

    /// The rule that refused, if this is a refusal of a caller or of a right, whether or not the caller is told so.
    #[must_use]
    pub fn refused_by(&self) -> Option<&'static str> {
        match self {
            Self::Unauthenticated { rule, .. } => Some(rule),
            Self::PermissionDenied(refused) => Some(refused.rule),
            Self::RightWithdrawn(rule) => Some(rule),
            Self::TooManyAttempts { rule, .. } => Some(rule),
            Self::LimitExceeded(_) => Some(RULE_LIMIT),
            Self::Overloaded(_) => Some(RULE_OVERLOAD),
            Self::KeysUnavailable(_) => Some("token-keys-unavailable"),
            Self::GrantNotFound { hidden_by, .. }
            | Self::CaNotFound { hidden_by, .. }
            | Self::NoSuchSetting { hidden_by, .. } => *hidden_by,
            Self::SelfGrant | Self::SelfMask => Some(RULE_SELF_GRANT),
            Self::DecryptionFailed(Opaque::ForeignTenant) => Some(RULE_FOREIGN_TENANT),
            _ => None,
        }
    }

    /// When the same call may succeed, if it may without anybody's doing.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyAttempts { retry_after, .. } => Some(*retry_after),
            Self::LimitExceeded(refused) => refused.retry_after(),
            Self::Overloaded(shed) => Some(shed.retry_after()),
            other => other.is_transient().then_some(RETRY_DELAY),
        }
    }

    /// Whether the same call may succeed a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.verdict().0, Code::Unavailable)
    }
}

impl From<RandomError> for Failure {
    fn from(error: RandomError) -> Self {
        Self::internal(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_opaque_cause_looks_the_same_to_the_caller() {
        let causes = [
            Opaque::Malformed,
            Opaque::UnknownHandle,
            Opaque::ForeignTenant,
            Opaque::SuiteMismatch,
            Opaque::NoSuchVersion,
            Opaque::Damaged,
            Opaque::DecryptionFailed,
        ];
        for cause in causes {
            let failure = Failure::DecryptionFailed(cause);
            assert_eq!(failure.to_string(), "decryption failed");
            assert_eq!(
                failure.verdict(),
                (Code::InvalidArgument, "DECRYPTION_FAILED")
            );
            assert_eq!(failure.detail(), cause.as_str());
        }
    }

    #[test]
    fn causes_stay_inside() {
        for failure in [Failure::internal("row 7"), Failure::store("row 7")] {
            assert!(!failure.to_string().contains("row 7"));
            assert!(failure.detail().contains("row 7"));
        }
    }
}
