//! The stable reasons that the service gives with an error (`google.rpc.ErrorInfo`, domain `fieldkeep`).
//!
//! The list only grows: a reason is never renamed, and never given another meaning.

/// The ciphertext cannot be opened by this caller with this field and context. It is never told why.
pub const DECRYPTION_FAILED: &str = "DECRYPTION_FAILED";
/// A part of the request is not valid; the message names it.
pub const INVALID_REQUEST: &str = "INVALID_REQUEST";
/// A value is longer than 64 KiB.
pub const FIELD_TOO_LARGE: &str = "FIELD_TOO_LARGE";
/// A request is longer than 8 MiB.
pub const REQUEST_TOO_LARGE: &str = "REQUEST_TOO_LARGE";
/// A batch has more than 10,000 items.
pub const BATCH_TOO_LARGE: &str = "BATCH_TOO_LARGE";
/// The reply would be longer than a message may be.
pub const REPLY_TOO_LARGE: &str = "REPLY_TOO_LARGE";
/// The caller could not be named.
pub const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
/// The caller does not have the right.
pub const PERMISSION_DENIED: &str = "PERMISSION_DENIED";
/// There is no such key.
pub const KEY_NOT_FOUND: &str = "KEY_NOT_FOUND";
/// There is no such tenant.
pub const TENANT_NOT_FOUND: &str = "TENANT_NOT_FOUND";
/// The key has no such version.
pub const VERSION_NOT_FOUND: &str = "VERSION_NOT_FOUND";
/// There is no such grant that the caller may see.
pub const GRANT_NOT_FOUND: &str = "GRANT_NOT_FOUND";
/// The identity is not in the group.
pub const MEMBER_NOT_FOUND: &str = "MEMBER_NOT_FOUND";
/// A thing of this name is there already.
pub const ALREADY_EXISTS: &str = "ALREADY_EXISTS";
/// The key is disabled.
pub const KEY_DISABLED: &str = "KEY_DISABLED";
/// The key version is disabled.
pub const VERSION_DISABLED: &str = "VERSION_DISABLED";
/// The primary version of a key cannot be disabled.
pub const PRIMARY_VERSION: &str = "PRIMARY_VERSION";
/// Nobody gives himself, or a group that he is in, a right to the values of fields, or shows himself more through a mask.
pub const SELF_GRANT: &str = "SELF_GRANT";
/// Without this grant nobody could grant rights for all tenants again.
pub const LAST_GRANTOR: &str = "LAST_GRANTOR";
/// There are as many grants, memberships or masks as there may be.
pub const ACCESS_FULL: &str = "ACCESS_FULL";
/// A change of rights is made, and calls that began before it have not ended; the same request again waits for them.
pub const CHANGE_PENDING: &str = "CHANGE_PENDING";
/// Another change came first; try again.
pub const CONFLICT: &str = "CONFLICT";
/// A request id was used for another change before.
pub const REQUEST_ID_REUSED: &str = "REQUEST_ID_REUSED";
/// The store cannot be reached at the moment.
pub const STORE_UNAVAILABLE: &str = "STORE_UNAVAILABLE";
/// The audit trail cannot be written, so no call is answered.
pub const AUDIT_UNAVAILABLE: &str = "AUDIT_UNAVAILABLE";
/// The service is shutting down.
pub const SHUTTING_DOWN: &str = "SHUTTING_DOWN";
/// Too many failed attempts from one address; try again when RetryInfo says.
pub const TOO_MANY_ATTEMPTS: &str = "TOO_MANY_ATTEMPTS";
/// A limit has no room for the call; the message names it, and the error says how long to wait if waiting helps.
pub const LIMIT_EXCEEDED: &str = "LIMIT_EXCEEDED";
/// There are too many calls under way; try again a little later.
pub const OVERLOADED: &str = "OVERLOADED";
/// No CA of this name was added.
pub const CA_NOT_FOUND: &str = "CA_NOT_FOUND";
/// There is no such API key, mask, limit or issuer.
pub const SETTING_NOT_FOUND: &str = "SETTING_NOT_FOUND";
/// An identity provider's keys cannot be fetched, so that its tokens cannot be verified; try again.
pub const KEYS_UNAVAILABLE: &str = "KEYS_UNAVAILABLE";
/// The service's disk is full.
pub const NO_SPACE: &str = "NO_SPACE";
/// A fault of the service; its log has more.
pub const INTERNAL: &str = "INTERNAL";
