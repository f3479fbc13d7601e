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
/// The most of them that are of one tenant, so that the admin of one cannot keep the others from revoking.
pub const MAX_REVOCATIONS_OF_TENANT: usize = MAX_REVOCATIONS / 10;
/// After this no certificate of the built-in CA lives any more that was issued before, seconds: what the first version gave
/// at most.
const LONGEST_LIFE_S: u64 = 365 * 24 * 3_600;
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
    /// The certificate `serial` of `tenant`. Zeros before the number make no difference: other programs write one, or leave one
    /// out, and a revocation that names no certificate would protect nobody.
    ///
    /// # Errors
    /// The text is no serial number. Nor is zero one (RFC 5280, section 4.1.2.2).
    pub fn serial(tenant: Name, serial: &str) -> Result<Revoked, SerialError> {
        let (root, digits) = match serial.rsplit_once('.') {
            Some((root, digits)) => (Some(root), digits),
            None => (None, serial),
        };
        let digits = digits.trim_start_matches('0');
        let hexadecimal = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        let fits = serial.len() <= MAX_SERIAL_CHARS
            && !digits.is_empty()
            && digits.bytes().all(hexadecimal)
            && root.is_none_or(|root| Name::parse(root).is_ok());
        if !fits {
            return Err(SerialError);
        }
        // Whole bytes, as the audit trail has them.
        let zero = if digits.len().is_multiple_of(2) {
            ""
        } else {
            "0"
        };
        let serial = match root {
            Some(root) => format!("{root}.{zero}{digits}"),
            None => format!("{zero}{digits}"),
        };
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
    /// The revocation of `what` at `now`, Unix seconds, after the `previous` one of the same, if there is any. It is never
    /// earlier than that, whatever the clock says: what was revoked stays so. Of an identity it is later by a second at least,
    /// since what was issued after the previous one is dated so.
    #[must_use]
    pub fn after(
        previous: Option<&Revocation>,
        what: Revoked,
        by: Arc<str>,
        now: u64,
    ) -> Revocation {
        let time = match (&what, previous) {
            (_, None) => now,
            (Revoked::Serial { .. }, Some(previous)) => now.max(previous.time),
            (Revoked::Identity(_), Some(previous)) => now.max(previous.time.saturating_add(1)),
        };
        let until = match &what {
            // A CA of others may have given it any life.
            Revoked::Serial { serial, .. } if serial.contains('.') => 0,
            Revoked::Serial { .. } => time.saturating_add(LONGEST_LIFE_S),
            Revoked::Identity(_) => 0,
        };
        Revocation {
            what,
            time,
            until,
            by,
        }
    }

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
        if self.covers(identity.resource(), issued_at) {
            return true;
        }
        !self.serials.is_empty()
            && self
                .serials
                .contains_key(&(identity.tenant().clone(), Arc::clone(serial)))
    }

    /// Whether the identity of this resource name was revoked at `time`, Unix seconds, or later.
    #[must_use]
    pub fn covers(&self, resource: &str, time: u64) -> bool {
        let before = self.identities.get(resource);
        before.is_some_and(|revocation| time <= revocation.time)
    }

    /// When something that the identity of this resource name gets or makes at `now` has to say that it was, Unix seconds: after
    /// what revoked the earlier, also within the same second.
    #[must_use]
    pub fn issuing_time(&self, resource: &str, now: u64) -> u64 {
        let before = self.identities.get(resource);
        before.map_or(now, |revocation| now.max(revocation.time.saturating_add(1)))
    }

    /// Whether one more can be held of `tenant`.
    #[must_use]
    pub fn has_room(&self, tenant: &Name) -> bool {
        let all = self.serials.values().chain(self.identities.values());
        let of_tenant = all.filter(|revocation| revocation.what.tenant() == tenant);
        self.len() < MAX_REVOCATIONS && of_tenant.count() < MAX_REVOCATIONS_OF_TENANT
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
        assert_eq!(set.issuing_time(app.resource(), 100), 101);
        assert_eq!(set.issuing_time(app.resource(), 7), 101);
        assert_eq!(set.issuing_time(app.resource(), 500), 500);
    }

    #[test]
    fn a_revocation_is_never_taken_back_by_a_later_one() {
        let after = |previous: &Revocation, now| {
            Revocation::after(Some(previous), previous.what.clone(), "boss".into(), now)
        };
        let app = Revoked::Identity(identity("acme", "app"));
        let first = Revocation::after(None, app, "boss".into(), 100);
        assert_eq!((first.time, first.until), (100, 0));
        for (now, time) in [(7, 101), (100, 101), (101, 101), (500, 500)] {
            assert_eq!(after(&first, now).time, time, "again at {now}");
        }
        let one = Revocation::after(None, serial("acme", "ab12"), "boss".into(), 100);
        assert_eq!((one.time, one.until), (100, 100 + LONGEST_LIFE_S));
        assert_eq!(after(&one, 7).until, one.until, "the clock was set back");
        let external = Revocation::after(None, serial("acme", "corp.ab"), "boss".into(), 100);
        assert_eq!(external.until, 0);
    }

    #[test]
    fn one_tenant_cannot_take_the_room_of_all() {
        let of_acme = |number| serial("acme", &format!("1{number:05x}"));
        let most = (0..MAX_REVOCATIONS_OF_TENANT).map(|n| revocation(of_acme(n), 1, 0));
        let set = Revocations::new(most);
        assert!(!set.has_room(&name("acme")));
        assert!(set.has_room(&name("other")));
        let one_less = (1..MAX_REVOCATIONS_OF_TENANT).map(|n| revocation(of_acme(n), 1, 0));
        assert!(Revocations::new(one_less).has_room(&name("acme")));
    }

    #[test]
    fn zeros_before_a_serial_make_no_difference() {
        for (text, same) in [
            ("00ab12", "ab12"),
            ("ab1", "0ab1"),
            ("000ab1", "0ab1"),
            ("corp.0012", "corp.12"),
        ] {
            let Revoked::Serial { serial, .. } = serial("acme", text) else {
                panic!("no serial");
            };
            assert_eq!(&*serial, same);
        }
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
            "0",
            "corp.00",
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
