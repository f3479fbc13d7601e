//! Certificates that were taken back: a set that is looked up in, and the records that it is made of.
//!
//! | record | what |
//! |---|---|
//! | `sys/revoked/{tenant}/{serial}` | one certificate, until it would have ended anyway |
//! | `sys/revoked-before/{tenant}/{name}` | every certificate of an identity that was issued up to a moment |
//!
//! A revocation names a tenant, so that who may revoke for one tenant can do nothing to the certificates of another.

use std::{collections::HashMap, sync::Arc};

use fieldkeep_crypto::names::Name;
use prost::Message as _;

use super::principal::Identity;

/// What the keys of revoked certificates begin with.
pub const SERIAL_PREFIX: &str = "sys/revoked/";
/// What the keys of revoked identities begin with.
pub const IDENTITY_PREFIX: &str = "sys/revoked-before/";
/// The most revocations that are held; a service that needs more has another problem.
pub const MAX_REVOCATIONS: usize = 100_000;
/// The longest serial number, characters: 20 bytes in hexadecimal (RFC 5280, section 4.1.2.2), a root's name, and a dot.
const MAX_SERIAL_CHARS: usize = 40 + 64;

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Revoked {
    /// One certificate, by its serial number as the audit trail writes it.
    Serial {
        /// The tenant that it is of.
        tenant: Name,
        /// The serial number.
        serial: Arc<str>,
    },
    /// What an identity was issued up to `Revocation::time`.
    Identity(Identity),
}

/// One revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// What is revoked.
    pub what: Revoked,
    /// When, Unix seconds. Of an identity: certificates issued up to then are refused.
    pub time: u64,
    /// When the certificate has ended for certain, Unix seconds; 0: never, as for an identity.
    pub until: u64,
    /// Who revoked it: a resource name.
    pub by: Arc<str>,
}

/// The payload of both records. The record's key says what is revoked, and the record's MAC covers the key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct RevocationRecord {
    #[prost(uint64, tag = "1")]
    time: u64,
    #[prost(uint64, tag = "2")]
    until: u64,
    #[prost(string, tag = "3")]
    by: String,
}

/// Why a text is no serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not the serial number of a certificate: write it as the audit trail does, in small hexadecimal digits, for a certificate of an external CA after the CA's name and a dot"
)]
pub struct SerialError;

impl Revoked {
    /// The certificate `serial` of `tenant`.
    ///
    /// # Errors
    /// The text is no serial number.
    pub fn serial(tenant: Name, serial: &str) -> Result<Revoked, SerialError> {
        let (root, digits) = match serial.rsplit_once('.') {
            Some((root, digits)) => (Some(root), digits),
            None => (None, serial),
        };
        let hexadecimal = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        let fits = serial.len() <= MAX_SERIAL_CHARS
            && !digits.is_empty()
            && digits.bytes().all(hexadecimal)
            && root.is_none_or(|root| Name::parse(root).is_ok());
        if !fits {
            return Err(SerialError);
        }
        Ok(Revoked::Serial {
            tenant,
            serial: serial.into(),
        })
    }

    /// The store key of its record.
    #[must_use]
    pub fn store_key(&self) -> String {
        match self {
            Revoked::Serial { tenant, serial } => format!("{SERIAL_PREFIX}{tenant}/{serial}"),
            Revoked::Identity(identity) => {
                format!("{IDENTITY_PREFIX}{}/{}", identity.tenant(), identity.name())
            }
        }
    }

    /// The tenant that it is about.
    #[must_use]
    pub fn tenant(&self) -> &Name {
        match self {
            Revoked::Serial { tenant, .. } => tenant,
            Revoked::Identity(identity) => identity.tenant(),
        }
    }

    fn of_store_key(key: &str) -> Option<Revoked> {
        let name = |text| Name::parse(text).ok();
        if let Some(rest) = key.strip_prefix(SERIAL_PREFIX) {
            let (tenant, serial) = rest.split_once('/')?;
            return Revoked::serial(name(tenant)?, serial).ok();
        }
        let (tenant, identity) = key.strip_prefix(IDENTITY_PREFIX)?.split_once('/')?;
        let identity = Identity::new(name(tenant)?, name(identity)?);
        Some(Revoked::Identity(identity))
    }
}

impl Revocation {
    /// The payload of its record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let record = RevocationRecord {
            time: self.time,
            until: self.until,
            by: self.by.as_ref().to_owned(),
        };
        record.encode_to_vec()
    }

    /// Reads a record; `None` if this version cannot.
    #[must_use]
    pub fn decode(store_key: &str, payload: &[u8]) -> Option<Revocation> {
        let record = RevocationRecord::decode(payload).ok()?;
        Some(Revocation {
            what: Revoked::of_store_key(store_key)?,
            time: record.time,
            until: record.until,
            by: record.by.into(),
        })
    }

    /// Whether no certificate can come any more that this refuses.
    #[must_use]
    pub fn is_over(&self, now: u64) -> bool {
        self.until != 0 && now > self.until
    }
}

/// All revocations at one moment.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    serials: HashMap<(Name, Arc<str>), Revocation>,
    identities: HashMap<Arc<str>, Revocation>,
}

impl Revocations {
    /// The set of these.
    #[must_use]
    pub fn new(revocations: impl IntoIterator<Item = Revocation>) -> Revocations {
        let mut set = Revocations::default();
        for revocation in revocations {
            set.insert(revocation);
        }
        set
    }

    /// Whether a certificate is revoked: it itself, or all of its identity's up to when it was issued. Two look-ups,
    /// whatever the number of revocations, and no allocation.
    ///
    /// `issued_at` is the certificate's notBefore plus what the CA backdates by, Unix seconds.
    #[must_use]
    pub fn is_revoked(&self, serial: &Arc<str>, identity: &Identity, issued_at: u64) -> bool {
        let before = self.identities.get(identity.resource().as_ref());
        if before.is_some_and(|revocation| issued_at <= revocation.time) {
            return true;
        }
        !self.serials.is_empty()
            && self
                .serials
                .contains_key(&(identity.tenant().clone(), Arc::clone(serial)))
    }

    /// When a certificate that is issued at `now` has to say that it was, Unix seconds: after what revoked the identity's
    /// earlier ones, also within the same second.
    #[must_use]
    pub fn issuing_time(&self, identity: &Identity, now: u64) -> u64 {
        let before = self.identities.get(identity.resource().as_ref());
        before.map_or(now, |revocation| now.max(revocation.time.saturating_add(1)))
    }

    /// The same set with one more.
    #[must_use]
    pub fn with(&self, revocation: Revocation, now: u64) -> Revocations {
        let mut set = self.clone();
        set.serials.retain(|_, old| !old.is_over(now));
        set.insert(revocation);
        set
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.serials.len() + self.identities.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn insert(&mut self, revocation: Revocation) {
        match &revocation.what {
            Revoked::Serial { tenant, serial } => {
                let key = (tenant.clone(), Arc::clone(serial));
                self.serials.insert(key, revocation);
            }
            Revoked::Identity(identity) => {
                let key = Arc::clone(identity.resource());
                self.identities.insert(key, revocation);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn identity(tenant: &str, text: &str) -> Identity {
        Identity::new(name(tenant), name(text))
    }

    fn revocation(what: Revoked, time: u64, until: u64) -> Revocation {
        Revocation {
            what,
            time,
            until,
            by: "tenants/default/identities/admin".into(),
        }
    }

    fn serial(tenant: &str, text: &str) -> Revoked {
        Revoked::serial(name(tenant), text).unwrap()
    }

    #[test]
    fn a_serial_is_revoked_for_its_tenant_alone() {
        let set = Revocations::new([revocation(serial("acme", "ab12"), 100, 200)]);
        let app = identity("acme", "app");
        assert!(set.is_revoked(&"ab12".into(), &app, 1));
        assert!(set.is_revoked(&"ab12".into(), &identity("acme", "other"), 1_000));
        assert!(!set.is_revoked(&"ab13".into(), &app, 1));
        assert!(!set.is_revoked(&"ab12".into(), &identity("other", "app"), 1));
    }

    #[test]
    fn an_identity_is_revoked_up_to_a_second_and_comes_back_after_it() {
        let app = identity("acme", "app");
        let set = Revocations::new([revocation(Revoked::Identity(app.clone()), 100, 0)]);
        for (issued_at, revoked) in [(1, true), (99, true), (100, true), (101, false)] {
            assert_eq!(set.is_revoked(&"1".into(), &app, issued_at), revoked);
        }
        assert!(!set.is_revoked(&"1".into(), &identity("acme", "app2"), 1));
        // One that is issued in the same second, or after the clock was set back, is none of those.
        assert_eq!(set.issuing_time(&app, 100), 101);
        assert_eq!(set.issuing_time(&app, 7), 101);
        assert_eq!(set.issuing_time(&app, 500), 500);
    }

    #[test]
    fn records_read_back_and_keys_say_what_they_are_of() {
        for what in [
            serial("acme", "ab12"),
            serial("acme", "corp.root-2.ab12"),
            Revoked::Identity(identity("acme", "app")),
        ] {
            let made = revocation(what, 7, 9);
            let key = made.what.store_key();
            assert_eq!(Revocation::decode(&key, &made.encode()), Some(made));
        }
        let payload = revocation(serial("acme", "1"), 7, 9).encode();
        for key in ["sys/revoked/acme", "sys/revoked/acme/xyz", "sys/role/a/b"] {
            assert_eq!(Revocation::decode(key, &payload), None, "{key}");
        }
    }

    #[test]
    fn what_is_no_serial_is_refused() {
        for text in [
            "",
            "AB",
            "0x12",
            "ab 12",
            ".ab",
            "corp.",
            "corp/ab",
            &"a".repeat(200),
        ] {
            assert_eq!(
                Revoked::serial(name("acme"), text),
                Err(SerialError),
                "{text}"
            );
        }
    }

    #[test]
    fn what_has_ended_makes_room() {
        let set = Revocations::new([
            revocation(serial("acme", "1"), 100, 200),
            revocation(Revoked::Identity(identity("acme", "app")), 100, 0),
        ]);
        let set = set.with(revocation(serial("acme", "2"), 150, 400), 150);
        assert_eq!(set.len(), 3);
        let set = set.with(revocation(serial("acme", "3"), 300, 400), 300);
        assert_eq!(set.len(), 3, "the first one is over");
    }
}
