//! How much who may use: limits counted in fields and bytes, not in calls, and a guard against too many calls at once.
//!
//! [`Limits`] is what the records say, immutable, part of a snapshot that is swapped as a whole. [`Meters`] is what has been used, kept
//! in memory while the process runs and whatever limits come and go. [`Limits::admit`] charges a call to every
//! limit that is about it, or to none. [`shed`] is about all calls together and needs no records.
//!
//! Nothing here reads a clock: `now` is in nanoseconds of a clock that does not jump, from any origin.

mod charge;
mod meter;
pub mod record;
pub mod shed;
mod table;
#[cfg(test)]
mod tests;
pub mod window;

use std::{
    collections::HashMap,
    hash::{BuildHasher, DefaultHasher, Hash as _, Hasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use fieldkeep_crypto::names::Name;

pub use self::charge::{Admission, Refused};
use self::{
    record::{Limit, LimitError, Sharing},
    table::Table,
    window::{Unit, Window},
};

/// The most limits of one tenant, and of the whole service.
pub const MAX_LIMITS: usize = 1000;

/// How many principals with something used are known at once by default. A million more do not take more memory.
pub const DEFAULT_PRINCIPALS: usize = 1 << 16;

/// How many tenants with something used are known at once.
const TENANTS: usize = 1 << 13;

/// One call, as far as limits are concerned.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The tenant whose keys are used.
    pub tenant: &'a str,
    /// The caller's resource name.
    pub principal: &'a str,
    /// What it does, by key. The parts of one key stand together.
    pub parts: &'a [Part<'a>],
}

/// What a call does under one key.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The key's name, if the call uses one.
    pub key: Option<&'a str>,
    /// The actions, as the bits of an action set.
    pub actions: u32,
    /// How many fields.
    pub fields: u64,
    /// How many bytes of values.
    pub bytes: u64,
}

/// What has been used. One for a process.
pub struct Meters {
    /// Keyed by chance, so that nobody can choose names that meet in one place.
    hasher: RandomState,
    /// In the order in which they are locked.
    tables: [Table; 3],
}

impl Meters {
    /// Meters of which nothing is used, for up to `principals` at once.
    #[must_use]
    pub fn new(principals: usize) -> Meters {
        Meters {
            hasher: RandomState::new(),
            tables: [1, TENANTS, principals].map(Table::new),
        }
    }
}

/// Who has a meter. In the order in which their places are locked, so that no two calls wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Service,
    Tenant,
    Principal,
}

impl Subject {
    const ALL: [Subject; 3] = [Subject::Service, Subject::Tenant, Subject::Principal];

    /// Its table and its hash. Two of the same hash would share their meters: with 65,536 subjects that is one chance in 2^32.
    fn place<'m>(self, meters: &'m Meters, tenant: &str, principal: &str) -> (&'m Table, u64) {
        let [service, tenants, principals] = &meters.tables;
        match self {
            Subject::Service => (service, 0),
            Subject::Tenant => (tenants, meters.hasher.hash_one(tenant)),
            Subject::Principal => (principals, meters.hasher.hash_one(principal)),
        }
    }
}

/// All limits at one moment.
#[derive(Debug, Default)]
pub struct Limits {
    service: Group,
    tenants: HashMap<Name, Group>,
}

/// The limits of one tenant, or of the whole service, by what finds them.
#[derive(Debug, Default)]
struct Group {
    any: Vec<Compiled>,
    by_key: HashMap<Name, Vec<Compiled>>,
    by_principal: HashMap<Arc<str>, Vec<Compiled>>,
    len: usize,
}

#[derive(Debug)]
struct Compiled {
    limit: Arc<Limit>,
    subject: Subject,
    /// Each window with the id of its meter.
    windows: Vec<(u64, Window)>,
}

impl Limits {
    /// The limits of these records.
    ///
    /// # Errors
    /// [`LimitError`] of a limit that cannot be, or [`LimitError::TooMany`].
    pub fn new(limits: impl IntoIterator<Item = Limit>) -> Result<Limits, LimitError> {
        let mut all = Limits::default();
        for limit in limits {
            limit.check()?;
            let group = match &limit.tenant {
                None => &mut all.service,
                Some(tenant) => all.tenants.entry(tenant.clone()).or_default(),
            };
            group.add(Compiled::new(limit))?;
        }
        Ok(all)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.service.len == 0 && self.tenants.is_empty()
    }

    /// What `principal` has used at `now` of every limit of `tenant` and of the service that can be about him, whatever the key and
    /// the action. What is counted together with others is what they have all used.
    #[must_use]
    pub fn usage(&self, meters: &Meters, tenant: &str, principal: &str, now: u64) -> Vec<Usage> {
        let groups = [Some(&self.service), self.tenants.get(tenant)];
        let limits = groups.into_iter().flatten().flat_map(|group| {
            let own = group.by_principal.get(principal);
            let keys = group.by_key.values().flatten();
            group
                .any
                .iter()
                .chain(own.into_iter().flatten())
                .chain(keys)
        });
        let mut all = Vec::new();
        for one in limits {
            let (table, hash) = one.subject.place(meters, tenant, principal);
            let mut seat = table.find(hash);
            for (id, window) in &one.windows {
                let meter = seat.as_mut().and_then(|seat| seat.meter(*id));
                let (used, resets_in) = meter.map_or((0, Duration::ZERO), |meter| {
                    (meter.used(now), meter.resets_in(now))
                });
                all.push(Usage {
                    limit: Arc::clone(&one.limit),
                    window: *window,
                    used,
                    remaining: window.most().saturating_sub(used),
                    resets_in,
                });
            }
        }
        all
    }

    /// Calls `found` for each limit with a meter of `subject` that is about `call`, with what the call takes of it.
    fn each<'l>(
        &'l self,
        subject: Subject,
        call: &Call<'_>,
        mut found: impl FnMut(&'l Compiled, Taken),
    ) {
        let mut visit = |limits: &'l [Compiled], parts: &[Part<'_>]| {
            for one in limits.iter().filter(|one| one.subject == subject) {
                if let Some(taken) = one.taken(parts) {
                    found(one, taken);
                }
            }
        };
        let groups = [Some(&self.service), self.tenants.get(call.tenant)];
        for group in groups.into_iter().flatten() {
            visit(&group.any, call.parts);
            if let Some(own) = find(&group.by_principal, call.principal) {
                visit(own, call.parts);
            }
            if group.by_key.is_empty() {
                continue;
            }
            for parts in call.parts.chunk_by(|one, next| one.key == next.key) {
                let key = parts.first().and_then(|part| part.key);
                if let Some(limits) = key.and_then(|key| find(&group.by_key, key)) {
                    visit(limits, parts);
                }
            }
        }
    }
}

/// Spares the hash where there is nothing.
fn find<'a, K>(map: &'a HashMap<K, Vec<Compiled>>, key: &str) -> Option<&'a [Compiled]>
where
    K: std::borrow::Borrow<str> + Eq + std::hash::Hash,
{
    if map.is_empty() {
        return None;
    }
    map.get(key).map(Vec::as_slice)
}

impl Group {
    fn add(&mut self, one: Compiled) -> Result<(), LimitError> {
        self.len += 1;
        if self.len > MAX_LIMITS {
            return Err(LimitError::TooMany);
        }
        let place = match (&one.limit.principal, &one.limit.key) {
            (Some(identity), _) => self
                .by_principal
                .entry(Arc::clone(identity.resource()))
                .or_default(),
            (None, Some(key)) => self.by_key.entry(key.clone()).or_default(),
            (None, None) => &mut self.any,
        };
        place.push(one);
        Ok(())
    }
}

impl Compiled {
    fn new(limit: Limit) -> Compiled {
        let subject = match (&limit.principal, limit.sharing, &limit.tenant) {
            (Some(_), ..) | (None, Sharing::EachPrincipal, _) => Subject::Principal,
            (None, Sharing::EachTenant, _) | (None, Sharing::Together, Some(_)) => Subject::Tenant,
            (None, Sharing::Together, None) => Subject::Service,
        };
        let windows = limit.windows.iter();
        let windows = windows
            .map(|window| (meter_id(&limit, window), *window))
            .collect();
        Compiled {
            limit: Arc::new(limit),
            subject,
            windows,
        }
    }

    /// What a call with these parts takes of it; `None` if it is not about any of them.
    fn taken(&self, parts: &[Part<'_>]) -> Option<Taken> {
        let key = self.limit.key.as_ref().map(Name::as_str);
        let actions = self.limit.actions;
        let about = |part: &&Part<'_>| {
            (key.is_none() || key == part.key) && (actions == 0 || actions & part.actions != 0)
        };
        let mut parts = parts.iter().filter(about).peekable();
        parts.peek()?;
        let nothing = Taken {
            fields: 0,
            bytes: 0,
        };
        Some(parts.fold(nothing, |taken, part| Taken {
            fields: taken.fields.saturating_add(part.fields),
            bytes: taken.bytes.saturating_add(part.bytes),
        }))
    }
}

/// Which meter a window has: the amounts may change and what was used still counts; a window of another kind starts anew.
fn meter_id(limit: &Limit, window: &Window) -> u64 {
    let mut hasher = DefaultHasher::new();
    limit.store_key().hash(&mut hasher);
    window.unit().hash(&mut hasher);
    match window {
        Window::Budget { per, .. } => (0_u8, per).hash(&mut hasher),
        Window::Rate { per, .. } => (1_u8, per).hash(&mut hasher),
        Window::UnderWay { .. } => 2_u8.hash(&mut hasher),
    }
    hasher.finish()
}

/// What a call takes of one limit.
#[derive(Clone, Copy, Debug)]
struct Taken {
    fields: u64,
    bytes: u64,
}

impl Taken {
    fn of(self, unit: Unit) -> u64 {
        match unit {
            Unit::Fields => self.fields,
            Unit::Bytes => self.bytes,
            Unit::Calls => 1,
        }
    }
}

/// What is used of one window, for `usage show`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The limit.
    pub limit: Arc<Limit>,
    /// Its window.
    pub window: Window,
    /// How much is used, in the window's unit.
    pub used: u64,
    /// How much is left at once.
    pub remaining: u64,
    /// How long until nothing is used any more, if nobody uses it; zero for calls under way.
    pub resets_in: Duration,
}
