//! API keys: secrets that say who a caller is, for those who can have no certificate.

use std::sync::Arc;

use fieldkeep_crypto::names::Name;

use crate::access::AccessError;
use crate::access::action::Action;
use crate::access::api_key::format::{ApiKey, ApiKeyId};
use crate::access::api_key::record::{ApiKeyRecord, NewApiKey, PREFIX, api_key_key};
use crate::access::network::Network;
use crate::access::principal::Principal;
use crate::access::settings::HeldApiKey;
use crate::service::Core;
use crate::service::access::{LocalName, check_identity, listed_of};
use crate::service::failure::Failure;
use crate::service::keys::{Listed, Page};
use crate::service::operation::{Planned, Repeatable};
use crate::service::perform::Operation;
use crate::service::perform::permit::{Asks, Permit};
use crate::service::record::Account;

/// The life of an API key when none is asked for, seconds: 90 days.
pub const DEFAULT_TTL_S: u64 = 90 * 24 * 3_600;

/// An API key that was made or rotated, shown once.
pub struct MadeApiKey {
    /// What its owner gets.
    pub key: ApiKey,
    /// What is known of it.
    pub held: HeldApiKey,
}

/// Makes an API key for an identity of a tenant that exists.
pub struct CreateApiKey {
    /// Whose it is to be.
    pub identity: LocalName,
    /// Its life, seconds.
    pub ttl_s: u64,
    /// Where it may be used from; everywhere if empty.
    pub networks: Vec<Network>,
}

impl Operation for CreateApiKey {
    const ACTION: Action = Action::Certificate;
    const CHANGES: bool = true;
    type Output = MadeApiKey;

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        Asks::Of {
            tenant: self.identity.tenant(caller).as_str(),
            key: None,
        }
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        account.used(self.identity.resource(caller), 0, "", 0);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<MadeApiKey, Failure> {
        let caller = permit.principal();
        self.about(caller, account);
        let identity = self.identity.identity(caller);
        check_identity(core, permit, &identity).await?;
        let new = NewApiKey {
            identity,
            ttl_s: self.ttl_s,
            networks: self.networks,
            created_by: Arc::clone(&caller.resource),
        };
        let now = permit.now_s();
        let made = ApiKeyRecord::make(new, &core.api_key_hash, now);
        let (key, record) = made.map_err(AccessError::ApiKey)?;
        account.detail(detail(&record));
        let store_key = api_key_key(record.id);
        let planned = Planned::make()?;
        let operation = permit
            .begin(planned, store_key.clone().into(), account)
            .await?;
        let set = core.access.set(store_key, |_| Ok(record), operation, now);
        let changed = set.await?;
        account.changed(&changed);
        let held = HeldApiKey::new(changed.value);
        Ok(MadeApiKey { key, held })
    }
}

fn detail(record: &ApiKeyRecord) -> String {
    let (id, expires) = (record.id, record.expires);
    match record.previous_until() {
        Some(until) => format!("api_key={id} expires={expires} previous_until={until}"),
        None => format!("api_key={id} expires={expires}"),
    }
}

/// The API key `id`, if the caller may do to its tenant what the permit is for; otherwise it is as if there were none.
fn found(permit: &Permit<'_>, id: &ApiKeyId) -> Result<Arc<HeldApiKey>, Failure> {
    let not_found = |hidden_by| Failure::NoSuchSetting {
        what: "API key",
        hidden_by,
    };
    let snapshot = permit.snapshot();
    let held = snapshot.settings().api_key(id);
    let held = held.ok_or_else(|| not_found(None))?;
    permit
        .check(held.record.identity.tenant().as_str(), None)
        .map_err(|refused| not_found(refused.refused_by()))?;
    Ok(Arc::clone(held))
}

/// Makes a new secret of an API key.
pub struct RotateApiKey {
    /// Which.
    pub id: ApiKeyId,
    /// Its life from now on, seconds.
    pub ttl_s: u64,
    /// How long the present secret is taken still, seconds.
    pub overlap_s: u64,
}

impl Operation for RotateApiKey {
    const ACTION: Action = Action::Certificate;
    const CHANGES: bool = true;
    /// Without an overlap it takes a secret back.
    const CHANGES_RIGHTS: bool = true;
    type Output = MadeApiKey;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::Found
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        account.detail(format!("api_key={}", self.id));
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<MadeApiKey, Failure> {
        let held = match found(permit, &self.id) {
            Ok(held) => held,
            Err(refused) => {
                self.about(permit.principal(), account);
                return Err(refused);
            }
        };
        let before = Arc::clone(&held.record);
        account.used(before.identity.to_string(), 0, "", 0);
        check_identity(core, permit, &before.identity).await?;
        let now = permit.now_s();
        let rotated = before.rotate(self.ttl_s, self.overlap_s, &core.api_key_hash, now);
        let (key, record) = rotated.map_err(AccessError::ApiKey)?;
        account.detail(detail(&record));
        let make = move |present: Option<&ApiKeyRecord>| match present {
            Some(present) if *present == *before => Ok(record),
            _ => Err(AccessError::Changed),
        };
        let store_key = api_key_key(self.id);
        let planned = Planned::make()?;
        let operation = permit
            .begin(planned, store_key.clone().into(), account)
            .await?;
        let set = core.access.set(store_key, make, operation, now);
        let changed = set.await?;
        account.changed(&changed);
        let held = HeldApiKey::new(changed.value);
        Ok(MadeApiKey { key, held })
    }
}

/// Revokes an API key.
pub struct RevokeApiKey {
    /// Which.
    pub id: ApiKeyId,
    /// The request's id.
    pub request: Repeatable,
}

impl Operation for RevokeApiKey {
    const ACTION: Action = Action::Certificate;
    const CHANGES: bool = true;
    const CHANGES_RIGHTS: bool = true;
    type Output = ();

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::Found
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        account.detail(format!("api_key={}", self.id));
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<(), Failure> {
        self.about(permit.principal(), account);
        match found(permit, &self.id) {
            Ok(held) => account.used(held.record.identity.to_string(), 0, "", 0),
            // It may be the repetition of a revocation that succeeded. Nobody else's key can be behind it: ids are made by chance.
            Err(Failure::NoSuchSetting {
                hidden_by: None, ..
            }) => {}
            Err(refused) => return Err(refused),
        }
        let key = api_key_key(self.id);
        let operation = self.request.begin(permit, key.clone(), account).await?;
        let unset = core
            .access
            .unset::<ApiKeyRecord>(key.clone(), operation, permit.now_s());
        core.record_change(account, &unset.await?, &key).await
    }
}

/// Lists API keys.
pub struct ListApiKeys {
    /// The tenant; without one, all.
    pub tenant: Option<Name>,
    /// Which page: API keys after the one with this id.
    pub page: Page,
}

impl Operation for ListApiKeys {
    const ACTION: Action = Action::Certificate;
    type Output = Listed<HeldApiKey>;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        self.tenant.as_ref().map_or(Asks::ALL, |tenant| Asks::Of {
            tenant: tenant.as_str(),
            key: None,
        })
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        account.used(listed_of(self.tenant.as_ref()), 0, "", 0);
    }

    async fn run(
        self,
        _core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Listed<HeldApiKey>, Failure> {
        self.about(permit.principal(), account);
        let snapshot = permit.snapshot();
        let settings = snapshot.settings();
        let after = self.page.after.as_ref().map(|id| format!("{PREFIX}{id}"));
        let found = settings
            .list::<ApiKeyRecord>(PREFIX, after.as_deref())
            .filter(|(_, record)| {
                let tenant = self.tenant.as_ref();
                tenant.is_none_or(|tenant| tenant == record.identity.tenant())
            })
            .take(self.page.limit)
            .filter_map(|(_, record)| settings.api_key(&record.id))
            .map(|held| HeldApiKey::clone(held))
            .collect();
        Ok(Listed::new(found, &self.page, |held: &HeldApiKey| {
            held.record.id.to_string()
        }))
    }
}
