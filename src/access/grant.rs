//! A grant: who may do what to which keys and fields, and when. Grants only allow, and are never changed: a right is
//! narrowed by revoking its grant and making another.

mod record;

use std::{fmt, sync::Arc};

use fieldkeep_crypto::names::Name;
use fieldkeep_crypto::random::{self, RandomError};
use fieldkeep_keystore::store::Operation;
use ring::digest::{SHA256, digest};

pub(crate) use self::record::key_of;
pub(super) use self::record::{PREFIX, decode};
use super::{
    action::Action,
    condition::Conditions,
    group::Group,
    pattern::Pattern,
    principal::{Identity, IdentityError},
    role::Role,
};

/// The most keys of one grant, and the most fields.
pub const MAX_PATTERNS: usize = 32;
/// The most pairs of a key and a field of one grant.
pub const MAX_PAIRS: usize = 256;

/// The name of a grant: `g-` and 16 hexadecimal digits, random and never used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GrantId([u8; GrantId::RULE_BYTES]);

impl GrantId {
    const RULE: &str = "grant:";
    const RULE_BYTES: usize = 24;

    /// A new random one.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub fn make() -> Result<GrantId, RandomError> {
        let mut bytes = [0; 8];
        random::fill(&mut bytes)?;
        Ok(GrantId::of_bytes(bytes))
    }

    /// That of the grant that an operation makes: the same if it is repeated. Operation ids are random, or hashes of what the
    /// caller chose; so are the first bytes of a hash of them.
    #[must_use]
    pub(crate) fn of_operation(operation: &Operation) -> GrantId {
        let hash = digest(&SHA256, &operation.id);
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(hash.as_ref()) {
            *to = *from;
        }
        GrantId::of_bytes(bytes)
    }

    /// The one with these eight bytes.
    #[must_use]
    pub fn of_bytes(bytes: [u8; 8]) -> GrantId {
        let mut text = *b"grant:g-0000000000000000";
        if let Some(digits) = text.get_mut(8..) {
            data_encoding::HEXLOWER.encode_mut(&bytes, digits);
        }
        GrantId(text)
    }

    /// Parses `g-0123456789abcdef`.
    #[must_use]
    pub fn parse(text: &str) -> Option<GrantId> {
        let digits = text.strip_prefix("g-")?;
        let bytes = data_encoding::HEXLOWER.decode(digits.as_bytes()).ok()?;
        Some(GrantId::of_bytes(bytes.try_into().ok()?))
    }

    /// `g-0123456789abcdef`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.as_rule()
            .strip_prefix(GrantId::RULE)
            .unwrap_or_default()
    }

    /// As the audit trail writes the rule that decided: `grant:g-0123456789abcdef`.
    #[must_use]
    pub fn as_rule(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whom a grant is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// One identity.
    Identity(Identity),
    /// Everybody in a group.
    Group(Group),
}

impl Who {
    /// Parses the resource name of an identity or a group, or the name of an identity of `own_tenant`.
    ///
    /// # Errors
    /// The text has none of these forms, or a name is not in the grammar.
    pub fn parse(text: &str, own_tenant: &Name) -> Result<Who, IdentityError> {
        if text.contains("/groups/") {
            Group::parse(text, own_tenant).map(Who::Group)
        } else {
            Identity::parse(text, own_tenant).map(Who::Identity)
        }
    }

    /// The tenant of the identity or the group.
    #[must_use]
    pub fn tenant(&self) -> &Name {
        match self {
            Who::Identity(identity) => identity.tenant(),
            Who::Group(group) => group.tenant(),
        }
    }

    /// The resource name.
    #[must_use]
    pub fn resource(&self) -> &Arc<str> {
        match self {
            Who::Identity(identity) => identity.resource(),
            Who::Group(group) => group.resource(),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource())
    }
}

/// Whose things a grant opens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Those of one tenant.
    Tenant(Name),
    /// Those of every tenant, and of the service as a whole; never the values of fields.
    All,
}

impl Scope {
    /// What [`Scope::All`] is written as.
    pub const ALL: &str = "*";

    /// The tenant, or `*`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Scope::Tenant(tenant) => tenant.as_str(),
            Scope::All => Scope::ALL,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is to be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whom it is for.
    pub who: Who,
    /// Whose things it opens.
    pub scope: Scope,
    /// Whether it may open a tenant that is not that of whom it is for.
    pub cross_tenant: bool,
    /// What it allows.
    pub role: Role,
    /// Which keys, at least one pattern.
    pub keys: Vec<Pattern>,
    /// Which fields, at least one pattern.
    pub fields: Vec<Pattern>,
    /// When it counts.
    pub conditions: Conditions,
    /// When it ends, Unix seconds; `None`: when it is revoked.
    pub expires: Option<u64>,
}

/// A right that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its name.
    pub id: GrantId,
    /// What was granted.
    pub what: Wanted,
    /// When, Unix seconds.
    pub created: u64,
    /// Who granted it: the resource name of an identity, or `init`.
    pub granted_by: Arc<str>,
}

/// Why something cannot be granted to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Rights to values never cover all tenants.
    #[error("a role that touches the values of fields is granted for one tenant at a time")]
    DataForAll,
    /// It opens another tenant and does not say so.
    #[error(
        "it opens a tenant that is not that of whom it is for: say so with `cross_tenant`, if that is meant"
    )]
    CrossTenant,
    /// The role is not about single keys.
    #[error("the role is not about single keys: leave the keys away")]
    Keys,
    /// The role is not about fields.
    #[error("the role is not about fields: leave the fields away")]
    Fields,
    /// Too many keys or fields.
    #[error(
        "a grant has at most {MAX_PATTERNS} keys, {MAX_PATTERNS} fields and {MAX_PAIRS} pairs of both: make two"
    )]
    TooMany,
    /// Too many conditions.
    #[error("a grant has at most 16 context pairs and 16 networks: make two")]
    Conditions,
    /// A condition on the context, which a role without values never has.
    #[error("the role has no encryption context: leave that condition away")]
    Context,
    /// The end is not after the present time or the beginning.
    #[error("it would have ended before it begins")]
    Ended,
}

impl Wanted {
    /// Everything of `role` in `scope`, without conditions.
    #[must_use]
    pub fn all_of(role: Role, scope: Scope, who: Who) -> Wanted {
        let cross_tenant = match &scope {
            Scope::All => true,
            Scope::Tenant(tenant) => tenant != who.tenant(),
        };
        Wanted {
            who,
            scope,
            cross_tenant,
            role,
            keys: vec![Pattern::any()],
            fields: vec![Pattern::any()],
            conditions: Conditions::default(),
            expires: None,
        }
    }

    /// Whether it can be granted at `now`, Unix seconds, and means what it says.
    ///
    /// # Errors
    /// [`GrantError`].
    pub fn check(&self, now: u64) -> Result<(), GrantError> {
        let data = self.role.is_data();
        let opens_another = match &self.scope {
            Scope::All if data => return Err(GrantError::DataForAll),
            Scope::All => true,
            Scope::Tenant(tenant) => tenant != self.who.tenant(),
        };
        if opens_another && !self.cross_tenant {
            return Err(GrantError::CrossTenant);
        }
        if !self.role.takes_keys() && !only_any(&self.keys) {
            return Err(GrantError::Keys);
        }
        if !data && !only_any(&self.fields) {
            return Err(GrantError::Fields);
        }
        let counts = [self.keys.len(), self.fields.len()];
        if counts
            .iter()
            .any(|count| !(1..=MAX_PATTERNS).contains(count))
            || counts.iter().product::<usize>() > MAX_PAIRS
        {
            return Err(GrantError::TooMany);
        }
        if !self.conditions.is_bounded() {
            return Err(GrantError::Conditions);
        }
        if !data && !self.conditions.context.is_empty() {
            return Err(GrantError::Context);
        }
        let begins = self.conditions.not_before.unwrap_or(0).max(now);
        match self.expires {
            Some(expires) if expires <= begins => Err(GrantError::Ended),
            _ => Ok(()),
        }
    }

    /// Whether it lets somebody grant rights for all tenants, for good.
    pub(super) fn is_grantor(&self) -> bool {
        self.scope == Scope::All && self.role.actions().has(Action::Grant) && self.is_lasting()
    }

    /// Whether it counts whenever it is found: without conditions and without an end.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        self.conditions.is_empty() && self.expires.is_none()
    }
}

fn only_any(patterns: &[Pattern]) -> bool {
    matches!(patterns, [only] if only.is_any())
}

#[cfg(test)]
mod tests;
