//! What a snapshot holds beside grants and groups: records of a few kinds, each of which is found by its store key, and by what
//! calls look for.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use fieldkeep_crypto::names::Name;
use fieldkeep_keystore::{info::SystemRecord, keystore::Keystore};

mod write;

use super::{
    AccessError,
    api_key::{
        LastUse, Secret,
        format::ApiKeyId,
        record::{self, ApiKeyRecord},
    },
    jwt::{self, Issuer, IssuerError, Jwt},
    limits::{
        Limits, MAX_LIMITS,
        record::{self as limit, Limit},
    },
    mask::{self, FieldMask},
    principal::{Principal, Proof},
    records::read_all,
};

/// A kind of records.
pub trait Setting: Clone + PartialEq + Send + Sync + 'static {
    /// What the store keys of all of them begin with.
    const PREFIX: &'static str;
    /// What one of them is called.
    const ONE: &'static str;
    /// What many of them are called.
    const WHAT: &'static str;
    /// The most of them. One tenant has a tenth at most, so that none can keep the others from having theirs.
    const MOST: usize;

    /// Whose it is; `None`: nobody's.
    fn tenant(&self) -> Option<&Name>;

    /// The payload of its record.
    fn encode(&self) -> Vec<u8>;

    /// The setting of a stored record.
    ///
    /// # Errors
    /// [`AccessError::UnknownRecord`].
    fn decode(store_key: &str, record: &SystemRecord) -> Result<Self, AccessError>;

    /// Those of its kind.
    fn kept(settings: &Settings) -> &Kept<Self>;

    /// The same, to be changed. [`Setting::index`] follows.
    fn kept_mut(settings: &mut Settings) -> &mut Kept<Self>;

    /// Makes anew by what calls find them.
    ///
    /// # Errors
    /// They do not suit one another.
    fn index(settings: &mut Settings) -> Result<(), AccessError>;

    /// Tells those of its kind to what works with them beside the snapshot, which has them already.
    ///
    /// # Errors
    /// As [`Setting::index`].
    fn published(_settings: &Settings, _jwt: &Jwt) -> Result<(), AccessError> {
        Ok(())
    }
}

/// The settings of one kind by their store keys.
pub type Kept<T> = BTreeMap<Arc<str>, Arc<T>>;

impl HeldApiKey {
    /// An API key that was not used yet.
    #[must_use]
    pub fn new(record: Arc<ApiKeyRecord>) -> HeldApiKey {
        HeldApiKey {
            principal: Arc::new(record.principal(Secret::Current)),
            last_use: Arc::default(),
            record,
        }
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}

/// All settings at one moment.
#[derive(Clone, Default)]
pub struct Settings {
    masks: Arc<Kept<FieldMask>>,
    masks_by_field: Arc<HashMap<Name, HashMap<Name, Arc<FieldMask>>>>,
    api_keys: Arc<Kept<ApiKeyRecord>>,
    api_keys_by_id: Arc<HashMap<ApiKeyId, Arc<HeldApiKey>>>,
    issuers: Arc<Kept<Issuer>>,
    issuer_generations: Arc<HashMap<Name, u64>>,
    limits: Arc<Kept<Limit>>,
    compiled_limits: Arc<Limits>,
}

/// An API key as calls find it.
#[derive(Clone)]
pub struct HeldApiKey {
    /// Its record.
    pub record: Arc<ApiKeyRecord>,
    /// Who has its present secret.
    pub principal: Arc<Principal>,
    /// When it was last used.
    pub last_use: Arc<LastUse>,
}

impl Settings {
    /// Reads all of them.
    pub(super) async fn load(keystore: &Keystore) -> Result<Settings, AccessError> {
        let mut settings = Settings::default();
        settings.load_kind::<FieldMask>(keystore).await?;
        settings.load_kind::<ApiKeyRecord>(keystore).await?;
        settings.load_kind::<Issuer>(keystore).await?;
        settings.load_kind::<Limit>(keystore).await?;
        Ok(settings)
    }

    async fn load_kind<T: Setting>(&mut self, keystore: &Keystore) -> Result<(), AccessError> {
        let all = read_all(keystore, T::PREFIX, |key, record| {
            let setting = T::decode(key, record)?;
            Ok::<_, AccessError>(Some((Arc::from(key), Arc::new(setting))))
        });
        *T::kept_mut(self) = all.await?.into_iter().collect();
        T::index(self)
    }

    /// The same settings, with another one under `key`, or without one.
    pub(super) fn with<T: Setting>(
        &self,
        key: &str,
        setting: Option<Arc<T>>,
    ) -> Result<Settings, AccessError> {
        let mut next = self.clone();
        let kept = T::kept_mut(&mut next);
        match setting {
            Some(setting) => {
                kept.insert(key.into(), setting);
            }
            None => {
                kept.remove(key);
            }
        }
        T::index(&mut next)?;
        Ok(next)
    }

    /// The setting with this store key.
    #[must_use]
    pub fn get<T: Setting>(&self, key: &str) -> Option<&Arc<T>> {
        T::kept(self).get(key)
    }

    /// Those whose store keys begin with `prefix` and come after `after`, in their order.
    pub fn list<'a, T: Setting>(
        &'a self,
        prefix: &'a str,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<T>)> {
        let begin = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        T::kept(self)
            .range::<str, _>((begin, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// Refuses one more if there is no room for it.
    pub(super) fn check_room<T: Setting>(&self, more: &T) -> Result<(), AccessError> {
        let kept = T::kept(self);
        let full = |limit| AccessError::Full {
            what: T::WHAT,
            limit,
            instead: "remove some",
        };
        if kept.len() >= T::MOST {
            return Err(full(T::MOST));
        }
        let of_tenant = T::MOST / 10;
        let beside = kept.values().filter(|one| one.tenant() == more.tenant());
        if more.tenant().is_some() && beside.count() >= of_tenant {
            return Err(full(of_tenant));
        }
        Ok(())
    }

    /// The mask of a field of a tenant.
    #[must_use]
    pub fn mask(&self, tenant: &str, field: &str) -> Option<&Arc<FieldMask>> {
        self.masks_by_field.get(tenant)?.get(field)
    }

    /// The API key with this id.
    #[must_use]
    pub fn api_key(&self, id: &ApiKeyId) -> Option<&Arc<HeldApiKey>> {
        self.api_keys_by_id.get(id)
    }

    /// The issuers.
    pub fn issuers(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.issuers.values()
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &Arc<Limits> {
        &self.compiled_limits
    }

    /// Whether what proved who a caller is does so still. `now` is in Unix seconds.
    #[must_use]
    pub fn proves(&self, proof: &Proof, now: i64) -> bool {
        let now = u64::try_from(now).unwrap_or_default();
        match proof {
            Proof::Certificate => true,
            Proof::ApiKey { id, hash } => self
                .api_key(id)
                .is_some_and(|held| held.record.takes(hash, now)),
            Proof::Token { issuer, generation } => {
                self.issuer_generations.get(issuer) == Some(generation)
            }
        }
    }
}

impl Setting for FieldMask {
    const PREFIX: &'static str = mask::PREFIX;
    const ONE: &'static str = "mask";
    const WHAT: &'static str = "masks";
    const MOST: usize = 100_000;

    fn tenant(&self) -> Option<&Name> {
        Some(&self.tenant)
    }

    fn encode(&self) -> Vec<u8> {
        FieldMask::encode(self)
    }

    fn decode(store_key: &str, record: &SystemRecord) -> Result<FieldMask, AccessError> {
        FieldMask::decode(store_key, record)
    }

    fn kept(settings: &Settings) -> &Kept<FieldMask> {
        &settings.masks
    }

    fn kept_mut(settings: &mut Settings) -> &mut Kept<FieldMask> {
        Arc::make_mut(&mut settings.masks)
    }

    fn index(settings: &mut Settings) -> Result<(), AccessError> {
        let mut by_field: HashMap<Name, HashMap<Name, Arc<FieldMask>>> = HashMap::new();
        for one in settings.masks.values() {
            let of_tenant = by_field.entry(one.tenant.clone()).or_default();
            of_tenant.insert(one.field.clone(), Arc::clone(one));
        }
        settings.masks_by_field = Arc::new(by_field);
        Ok(())
    }
}

impl Setting for ApiKeyRecord {
    const PREFIX: &'static str = record::PREFIX;
    const ONE: &'static str = "API key";
    const WHAT: &'static str = "API keys";
    const MOST: usize = 100_000;

    fn tenant(&self) -> Option<&Name> {
        Some(self.identity.tenant())
    }

    fn encode(&self) -> Vec<u8> {
        ApiKeyRecord::encode(self)
    }

    fn decode(store_key: &str, record: &SystemRecord) -> Result<ApiKeyRecord, AccessError> {
        ApiKeyRecord::decode(store_key, record)
    }

    fn kept(settings: &Settings) -> &Kept<ApiKeyRecord> {
        &settings.api_keys
    }

    fn kept_mut(settings: &mut Settings) -> &mut Kept<ApiKeyRecord> {
        Arc::make_mut(&mut settings.api_keys)
    }

    fn index(settings: &mut Settings) -> Result<(), AccessError> {
        let before = Arc::clone(&settings.api_keys_by_id);
        let held = |record: &Arc<ApiKeyRecord>| match before.get(&record.id) {
            Some(held) if Arc::ptr_eq(&held.record, record) => Arc::clone(held),
            held => Arc::new(HeldApiKey {
                last_use: held
                    .map(|held| Arc::clone(&held.last_use))
                    .unwrap_or_default(),
                ..HeldApiKey::new(Arc::clone(record))
            }),
        };
        let all = settings.api_keys.values();
        settings.api_keys_by_id = Arc::new(all.map(|record| (record.id, held(record))).collect());
        Ok(())
    }
}

impl Setting for Issuer {
    const PREFIX: &'static str = jwt::PREFIX;
    const ONE: &'static str = "issuer";
    const WHAT: &'static str = "issuers";
    const MOST: usize = 64;

    /// Issuers belong to the service.
    fn tenant(&self) -> Option<&Name> {
        None
    }

    fn encode(&self) -> Vec<u8> {
        self.record().encode_payload()
    }

    fn decode(store_key: &str, record: &SystemRecord) -> Result<Issuer, AccessError> {
        Issuer::decode(store_key, &record.payload)
            .map(|issuer| issuer.with_generation(record.generation))
            .map_err(|_| AccessError::UnknownRecord {
                store_key: store_key.to_owned(),
            })
    }

    fn kept(settings: &Settings) -> &Kept<Issuer> {
        &settings.issuers
    }

    fn kept_mut(settings: &mut Settings) -> &mut Kept<Issuer> {
        Arc::make_mut(&mut settings.issuers)
    }

    fn index(settings: &mut Settings) -> Result<(), AccessError> {
        let mut urls: HashMap<&str, &Name> = HashMap::new();
        for issuer in settings.issuers.values() {
            if let Some(other) = urls.insert(issuer.url().as_str(), issuer.name()) {
                let other = other.clone();
                return Err(AccessError::Issuer(IssuerError::DuplicateUrl { other }));
            }
        }
        let generation = |issuer: &Arc<Issuer>| (issuer.name().clone(), issuer.generation());
        let generations = settings.issuers.values().map(generation).collect();
        settings.issuer_generations = Arc::new(generations);
        Ok(())
    }

    /// Tokens of one that is gone are refused by the snapshot already.
    fn published(settings: &Settings, jwt: &Jwt) -> Result<(), AccessError> {
        let issuers = settings.issuers.values();
        Ok(jwt.set_issuers(issuers.map(|issuer| Issuer::clone(issuer)))?)
    }
}

impl Setting for Limit {
    const PREFIX: &'static str = limit::PREFIX;
    const ONE: &'static str = "limit";
    const WHAT: &'static str = "limits";
    const MOST: usize = 10 * MAX_LIMITS;

    fn tenant(&self) -> Option<&Name> {
        self.tenant.as_ref()
    }

    fn encode(&self) -> Vec<u8> {
        Limit::encode(self)
    }

    fn decode(store_key: &str, record: &SystemRecord) -> Result<Limit, AccessError> {
        Limit::decode(store_key, &record.payload).map_err(|_| AccessError::UnknownRecord {
            store_key: store_key.to_owned(),
        })
    }

    fn kept(settings: &Settings) -> &Kept<Limit> {
        &settings.limits
    }

    fn kept_mut(settings: &mut Settings) -> &mut Kept<Limit> {
        Arc::make_mut(&mut settings.limits)
    }

    fn index(settings: &mut Settings) -> Result<(), AccessError> {
        let all = settings.limits.values().map(|limit| Limit::clone(limit));
        settings.compiled_limits = Arc::new(Limits::new(all)?);
        Ok(())
    }
}
