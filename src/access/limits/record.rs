//! The record of one limit: `sys/limit/` and its resource name.

use std::{fmt, sync::Arc};

use fieldkeep_crypto::names::Name;
use prost::Message as _;

use super::window::{Period, Unit, Window};
use crate::access::principal::Identity;

/// The most windows of one limit.
pub const MAX_WINDOWS: usize = 4;

/// What the store keys of all limits begin with.
pub const PREFIX: &str = "sys/limit/";

/// Whose calls are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// All calls that the limit is about.
    Together,
    /// Those of each tenant's things by themselves.
    EachTenant,
    /// Those of each principal by themselves.
    EachPrincipal,
}

impl Sharing {
    /// Every one.
    pub const ALL: [Sharing; 3] = [
        Sharing::Together,
        Sharing::EachTenant,
        Sharing::EachPrincipal,
    ];

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Sharing::Together => "together",
            Sharing::EachTenant => "each-tenant",
            Sharing::EachPrincipal => "each-principal",
        }
    }

    /// The one that is written so.
    #[must_use]
    pub fn parse(text: &str) -> Option<Sharing> {
        Sharing::ALL.into_iter().find(|one| one.as_str() == text)
    }
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A limit: which calls it is about, and how much they may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The tenant whose keys are used; `None` for every tenant.
    pub tenant: Option<Name>,
    /// The limit's name within the tenant.
    pub id: Name,
    /// The one principal it is about; `None` for every one.
    pub principal: Option<Identity>,
    /// The one key it is about; `None` for every one. Only a limit of one tenant can name a key.
    pub key: Option<Name>,
    /// The actions it is about, as the bits of an action set; 0 for every one.
    pub actions: u32,
    /// Whose calls are counted together.
    pub sharing: Sharing,
    /// One to [`MAX_WINDOWS`] windows, all of which must have room.
    pub windows: Vec<Window>,
    /// When it was set, Unix seconds.
    pub created: u64,
    /// Who set it: the resource name of an identity.
    pub set_by: Arc<str>,
}

/// Why a limit cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// There is no window, or there are too many.
    #[error("a limit has one to {MAX_WINDOWS} windows")]
    Windows,
    /// An amount is zero.
    #[error("an amount is at least 1")]
    Amount,
    /// Names of keys are those of one tenant.
    #[error("a limit of every tenant cannot name a key: set it for one tenant")]
    KeyWithoutTenant,
    /// Too many limits.
    #[error("a tenant has at most {} limits", super::MAX_LIMITS)]
    TooMany,
    /// A stored limit is not one: written by another version, since records are authenticated.
    #[error(
        "the limit record `{store_key}` cannot be read by this version: start the version that wrote it"
    )]
    UnknownRecord {
        /// The record's store key.
        store_key: String,
    },
}

/// The payload of the record. The record's key says tenant and id, and the record's MAC covers the key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct LimitRecord {
    /// `tenants/{t}/identities/{n}`, or empty.
    #[prost(string, tag = "1")]
    principal: String,
    /// Or empty.
    #[prost(string, tag = "2")]
    key: String,
    #[prost(uint32, tag = "3")]
    actions: u32,
    #[prost(uint32, tag = "4")]
    sharing: u32,
    #[prost(message, repeated, tag = "5")]
    windows: Vec<WindowRecord>,
    #[prost(uint64, tag = "6")]
    created: u64,
    #[prost(string, tag = "7")]
    set_by: String,
}

/// One window. A burst makes it a rate, a period without one a budget, and neither a number of calls under way.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct WindowRecord {
    #[prost(uint32, tag = "1")]
    unit: u32,
    #[prost(uint64, tag = "2")]
    amount: u64,
    #[prost(uint32, tag = "3")]
    period: u32,
    #[prost(uint64, tag = "4")]
    burst: u64,
}

impl Limit {
    /// Says whether it can be.
    ///
    /// # Errors
    /// [`LimitError`], but for what only stored records can be.
    pub fn check(&self) -> Result<(), LimitError> {
        if self.windows.is_empty() || self.windows.len() > MAX_WINDOWS {
            return Err(LimitError::Windows);
        }
        if !self.windows.iter().all(Window::is_valid) {
            return Err(LimitError::Amount);
        }
        if self.key.is_some() && self.tenant.is_none() {
            return Err(LimitError::KeyWithoutTenant);
        }
        Ok(())
    }

    /// The prefix of the store keys of one tenant's limits.
    #[must_use]
    pub fn store_prefix(tenant: &Name) -> String {
        format!("{PREFIX}tenants/{tenant}/")
    }

    /// The record's key in the store.
    #[must_use]
    pub fn store_key(&self) -> String {
        limit_key(&self.resource())
    }

    /// `tenants/{tenant}/limits/{id}`, or `limits/{id}` of the whole service.
    #[must_use]
    pub fn resource(&self) -> String {
        limit_resource(self.tenant.as_ref(), &self.id)
    }

    /// The record's payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let principal = self.principal.as_ref().map(|one| one.resource().as_ref());
        let record = LimitRecord {
            principal: principal.unwrap_or_default().to_owned(),
            key: self.key.as_ref().map_or("", Name::as_str).to_owned(),
            actions: self.actions,
            sharing: match self.sharing {
                Sharing::Together => 1,
                Sharing::EachTenant => 2,
                Sharing::EachPrincipal => 3,
            },
            windows: self.windows.iter().map(WindowRecord::from).collect(),
            created: self.created,
            set_by: self.set_by.as_ref().to_owned(),
        };
        record.encode_to_vec()
    }

    /// The limit of a record.
    ///
    /// # Errors
    /// [`LimitError::UnknownRecord`].
    pub fn decode(store_key: &str, payload: &[u8]) -> Result<Limit, LimitError> {
        Limit::parse(store_key, payload).ok_or_else(|| LimitError::UnknownRecord {
            store_key: store_key.to_owned(),
        })
    }

    fn parse(store_key: &str, payload: &[u8]) -> Option<Limit> {
        let record = LimitRecord::decode(payload).ok()?;
        let name = |text: &str| Name::parse(text).ok();
        let (tenant, id) = parse_resource(store_key.strip_prefix(PREFIX)?)?;
        let limit = Limit {
            tenant,
            id,
            principal: match record.principal.as_str() {
                "" => None,
                resource => Some(identity(resource)?),
            },
            key: match record.key.as_str() {
                "" => None,
                key => Some(name(key)?),
            },
            actions: record.actions,
            sharing: match record.sharing {
                1 => Sharing::Together,
                2 => Sharing::EachTenant,
                3 => Sharing::EachPrincipal,
                _ => return None,
            },
            windows: record
                .windows
                .iter()
                .map(WindowRecord::window)
                .collect::<Option<_>>()?,
            created: record.created,
            set_by: record.set_by.into(),
        };
        limit.check().ok()?;
        Some(limit)
    }
}

/// The store key of the limit with this resource name. Those of the whole service come before those of tenants.
#[must_use]
pub fn limit_key(resource: &str) -> String {
    format!("{PREFIX}{resource}")
}

/// The resource name of the limit `id` of a tenant, or of the whole service.
#[must_use]
pub fn limit_resource(tenant: Option<&Name>, id: &Name) -> String {
    match tenant {
        Some(tenant) => format!("tenants/{tenant}/limits/{id}"),
        None => format!("limits/{id}"),
    }
}

/// The tenant and the id of a resource name; no tenant: the whole service.
#[must_use]
pub fn parse_resource(resource: &str) -> Option<(Option<Name>, Name)> {
    let name = |text: &str| Name::parse(text).ok();
    match resource.strip_prefix("limits/") {
        Some(id) => Some((None, name(id)?)),
        None => {
            let (tenant, id) = resource.strip_prefix("tenants/")?.split_once("/limits/")?;
            Some((Some(name(tenant)?), name(id)?))
        }
    }
}

/// The identity of a resource name; a bare name is not one.
fn identity(resource: &str) -> Option<Identity> {
    let (tenant, _) = resource.strip_prefix("tenants/")?.split_once('/')?;
    Identity::parse(resource, &Name::parse(tenant).ok()?).ok()
}

impl From<&Window> for WindowRecord {
    fn from(window: &Window) -> WindowRecord {
        let period = |per: Period| match per {
            Period::Second => 1,
            Period::Minute => 2,
            Period::Hour => 3,
            Period::Day => 4,
        };
        let (amount, period, burst) = match *window {
            Window::Budget { amount, per, .. } => (amount, period(per), 0),
            Window::Rate {
                amount, per, burst, ..
            } => (amount, period(per), burst),
            Window::UnderWay { calls } => (calls, 0, 0),
        };
        let unit = match window.unit() {
            Unit::Fields => 1,
            Unit::Bytes => 2,
            Unit::Calls => 3,
        };
        WindowRecord {
            unit,
            amount,
            period,
            burst,
        }
    }
}

impl WindowRecord {
    fn window(&self) -> Option<Window> {
        let WindowRecord { amount, burst, .. } = *self;
        let unit = match self.unit {
            1 => Unit::Fields,
            2 => Unit::Bytes,
            3 => Unit::Calls,
            _ => return None,
        };
        let per = match self.period {
            0 if unit == Unit::Calls && burst == 0 => {
                return Some(Window::UnderWay { calls: amount });
            }
            1 => Period::Second,
            2 => Period::Minute,
            3 => Period::Hour,
            4 => Period::Day,
            _ => return None,
        };
        Some(match burst {
            0 => Window::Budget { unit, amount, per },
            burst => Window::Rate {
                unit,
                amount,
                per,
                burst,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit() -> Limit {
        Limit {
            tenant: Some(Name::parse("acme").unwrap()),
            id: Name::parse("daily").unwrap(),
            principal: identity("tenants/acme/identities/app"),
            key: Some(Name::parse("pii").unwrap()),
            actions: 6,
            sharing: Sharing::EachPrincipal,
            windows: [
                "1 fields/s burst 9",
                "10 MiB/day",
                "3 calls",
                "9 calls/hour",
            ]
            .map(|text| text.parse().unwrap())
            .to_vec(),
            created: 1_800_000_000,
            set_by: "tenants/acme/identities/ops".into(),
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let one = limit();
        assert_eq!(one.store_key(), "sys/limit/tenants/acme/limits/daily");
        assert_eq!(Limit::decode(&one.store_key(), &one.encode()), Ok(one));
        let every = Limit {
            tenant: None,
            principal: None,
            key: None,
            sharing: Sharing::EachTenant,
            ..limit()
        };
        assert_eq!(every.store_key(), "sys/limit/limits/daily");
        assert_eq!(
            Limit::decode(&every.store_key(), &every.encode()),
            Ok(every)
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let none = Limit {
            windows: Vec::new(),
            ..limit()
        };
        assert_eq!(none.check(), Err(LimitError::Windows));
        let many = Limit {
            windows: vec![Window::UnderWay { calls: 1 }; MAX_WINDOWS + 1],
            ..limit()
        };
        assert_eq!(many.check(), Err(LimitError::Windows));
        let zero = Limit {
            windows: vec![Window::UnderWay { calls: 0 }],
            ..limit()
        };
        assert_eq!(zero.check(), Err(LimitError::Amount));
        let nowhere = Limit {
            tenant: None,
            ..limit()
        };
        assert_eq!(nowhere.check(), Err(LimitError::KeyWithoutTenant));
        for one in [none, many, zero] {
            assert!(Limit::decode(&one.store_key(), &one.encode()).is_err());
        }
    }

    #[test]
    fn records_of_other_versions_are_refused() {
        let key = limit().store_key();
        let record = LimitRecord::decode(limit().encode().as_slice()).unwrap();
        let broken: [fn(&mut LimitRecord); 8] = [
            |record| record.sharing = 4,
            |record| record.principal = "app".to_owned(),
            |record| record.key = "PII".to_owned(),
            |record| record.windows[0].unit = 0,
            |record| record.windows[0].period = 5,
            |record| record.windows[0].period = 0,
            |record| record.windows[2].burst = 1,
            |record| record.windows[1].amount = 0,
        ];
        for breaks in broken {
            let mut record = record.clone();
            breaks(&mut record);
            assert!(Limit::decode(&key, &record.encode_to_vec()).is_err());
        }
        for other in [
            "sys/limit/daily",
            "sys/limit/acme/daily",
            "sys/limit/tenants/acme/daily",
            "sys/limit/tenants/Acme/limits/daily",
            "sys/limit/limits/a/b",
        ] {
            assert!(Limit::decode(other, &limit().encode()).is_err(), "{other}");
        }
        assert!(Limit::decode(&key, &[0xff]).is_err());
    }
}
