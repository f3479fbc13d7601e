//! Why a token is not taken: in full for the operator's log, in one sentence for the caller.

use fieldkeep_crypto::names::{Name, NameError};

use super::algorithm::Algorithm;

/// What a caller is told of every token that is not taken. Which check failed would help whoever tries tokens out.
const REFUSED: &str = "the bearer token was not accepted: get a new one from your identity provider, issued for this service, and send it as `authorization: Bearer TOKEN`; the service's log says under the request id what was wrong";
/// What he is told while the keys cannot be had.
const UNAVAILABLE: &str = "bearer tokens cannot be verified at the moment, since the identity provider's keys cannot be fetched: try again in a minute";

/// Why a token was not taken. The text is for the operator: of what the token says it shows only its issuer, shortened and
/// without control characters. A caller is told [`TokenError::caller_message`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It has more than 8 KiB.
    #[error("the token is longer than 8 KiB")]
    TooLong,
    /// It is no JWT in the compact form: three parts of base64url without padding, of which two are JSON objects in which no
    /// name stands twice; or its `alg` is `none` or unknown.
    #[error(
        "the token is no signed JWT: three parts, in two of them JSON with each name once, and a known `alg`"
    )]
    Malformed,
    /// Its header has `crit`: extensions that must be understood, and none is.
    #[error("the token's header has `crit`, and no extension is known")]
    Critical,
    /// Its header `typ` is none that the issuer is configured for.
    #[error("the token's `typ` is not one that is taken from this issuer: see its `token_types`")]
    Type,
    /// Nobody has configured its issuer.
    #[error(
        "the token is of the issuer `{iss}`, which is not configured; URLs are compared exactly, to the last slash"
    )]
    UnknownIssuer {
        /// The claim `iss`, shortened.
        iss: String,
    },
    /// It is of another issuer than the one that was asked about.
    #[error(
        "the token is of the issuer `{iss}`, and `{issuer}` is `{url}`; URLs are compared exactly, to the last slash"
    )]
    OtherIssuer {
        /// The issuer's name.
        issuer: Name,
        /// The issuer's URL.
        url: String,
        /// The claim `iss`, shortened.
        iss: String,
    },
    /// Its algorithm is not pinned.
    #[error(
        "the token is signed with {algorithm}, which the issuer `{issuer}` is not configured for"
    )]
    Algorithm {
        /// The issuer's name.
        issuer: Name,
        /// The token's algorithm.
        algorithm: String,
    },
    /// Its header names no key, and there are several.
    #[error("the token names no key (`kid`), and the issuer `{issuer}` has several")]
    KidRequired {
        /// The issuer's name.
        issuer: Name,
    },
    /// The issuer has no key of that id, also not after its keys were fetched anew, which is done every 30 s at most.
    #[error("the token's key (`kid`) is not one of the issuer `{issuer}`")]
    UnknownKey {
        /// The issuer's name.
        issuer: Name,
    },
    /// The key is of another type than the algorithm, or is for another one.
    #[error("the token names a key of the issuer `{issuer}` that is not for {algorithm}", algorithm = algorithm.as_str())]
    KeyMisfit {
        /// The issuer's name.
        issuer: Name,
        /// The token's algorithm.
        algorithm: Algorithm,
    },
    /// The signature is wrong.
    #[error("the token's signature does not fit the key of the issuer `{issuer}`")]
    Signature {
        /// The issuer's name.
        issuer: Name,
    },
    /// It is for somebody else.
    #[error("the token is for none of the audiences of the issuer `{issuer}`")]
    Audience {
        /// The issuer's name.
        issuer: Name,
    },
    /// It has ended.
    #[error("the token of the issuer `{issuer}` expired {ago} s ago")]
    Expired {
        /// The issuer's name.
        issuer: Name,
        /// Seconds, the leeway included.
        ago: u64,
    },
    /// It was issued longer ago than the issuer's tokens are taken.
    #[error(
        "the token of the issuer `{issuer}` was issued longer ago than its `max_age_seconds` allows"
    )]
    TooOld {
        /// The issuer's name.
        issuer: Name,
    },
    /// It begins later, by more than the leeway.
    #[error(
        "the token of the issuer `{issuer}` begins or was issued in the future: compare the clocks"
    )]
    NotYetValid {
        /// The issuer's name.
        issuer: Name,
    },
    /// A claim is missing or has another type than it must have.
    #[error("the token of the issuer `{issuer}` has no claim `{claim}` that is {expected}")]
    Claim {
        /// The issuer's name.
        issuer: Name,
        /// The claim, as the issuer's configuration names it.
        claim: String,
        /// What it must be.
        expected: &'static str,
    },
    /// The claim that names the caller gives no name.
    #[error(
        "the claim `{claim}` of the issuer `{issuer}` gives no name: {problem}; choose another claim, or set `name_rule` to `escape`"
    )]
    Subject {
        /// The issuer's name.
        issuer: Name,
        /// The claim, as the issuer's configuration names it.
        claim: String,
        /// Why.
        problem: NameError,
    },
    /// The issuer may not vouch for the tenant.
    #[error(
        "the issuer `{issuer}` may not vouch for the tenant that its token names: see its `tenants`"
    )]
    Tenant {
        /// The issuer's name.
        issuer: Name,
    },
    /// The token lists more groups than are taken.
    #[error(
        "the token of the issuer `{issuer}` lists more than 128 groups: have the provider filter them"
    )]
    TooManyGroups {
        /// The issuer's name.
        issuer: Name,
    },
    /// The issuer's keys were never fetched, or not for a day. The log has the reason at the time of each attempt.
    #[error("the keys of the issuer `{issuer}` could not be fetched")]
    NoKeys {
        /// The issuer's name.
        issuer: Name,
    },
}

impl TokenError {
    /// What the caller is told.
    pub fn caller_message(&self) -> &'static str {
        if self.is_transient() {
            UNAVAILABLE
        } else {
            REFUSED
        }
    }

    /// Whether the same token may be taken later, so that a client should try again.
    pub fn is_transient(&self) -> bool {
        matches!(self, TokenError::NoKeys { .. })
    }

    /// The rule that refused it, for the audit trail.
    pub fn rule(&self) -> &'static str {
        match self {
            TokenError::TooLong => "token-too-long",
            TokenError::Malformed => "token-malformed",
            TokenError::Critical => "token-critical-header",
            TokenError::Type => "token-type",
            TokenError::UnknownIssuer { .. } | TokenError::OtherIssuer { .. } => "token-issuer",
            TokenError::Algorithm { .. } => "token-algorithm",
            TokenError::KidRequired { .. } => "token-names-no-key",
            TokenError::UnknownKey { .. } => "token-unknown-key",
            TokenError::KeyMisfit { .. } => "token-key-misfit",
            TokenError::Signature { .. } => "token-signature",
            TokenError::Audience { .. } => "token-audience",
            TokenError::Expired { .. } => "token-expired",
            TokenError::TooOld { .. } => "token-too-old",
            TokenError::NotYetValid { .. } => "token-not-yet-valid",
            TokenError::Claim { .. } => "token-claim",
            TokenError::Subject { .. } => "token-name",
            TokenError::Tenant { .. } => "token-tenant",
            TokenError::TooManyGroups { .. } => "token-groups",
            TokenError::NoKeys { .. } => "token-keys-unavailable",
        }
    }
}

/// A text of a token that was not verified, fit for a line of a log: escaped, and at most 128 characters of it.
pub(super) fn shown(text: &str) -> String {
    text.escape_debug().take(128).collect()
}
