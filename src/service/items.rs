//! What the audit trail has of single items: the setting of a key, and the keyed hashes that it asks for.
//!
//! Calls under keys that ask for counts alone do nothing here but look at the setting, once for each distinct key and field.

use std::collections::BTreeMap;

use fieldkeep_audit::items::HASH_BYTES;
use fieldkeep_crypto::audit::ItemHasher;
use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_keystore::info::{AuditItems, KeyInfo};
use fieldkeep_keystore::key::Key;

use crate::access::action::Action;
use crate::access::principal::Principal;
use crate::service::Core;
use crate::service::failure::Failure;
use crate::service::keys::{begin_key, finish_key};
use crate::service::operation::Repeatable;
use crate::service::perform::Operation;
use crate::service::perform::permit::{Asks, Permit};
use crate::service::record::Account;
use crate::service::resource::{FieldName, KeyName};

/// Set what the audit trail has of the items of calls that use a key.
pub struct SetAuditItems {
    /// The key.
    pub key: KeyName,
    /// What the trail has, from the next call on.
    pub items: AuditItems,
    /// The request's id.
    pub request: Repeatable,
}

impl Operation for SetAuditItems {
    const ACTION: Action = Action::Manage;
    const CHANGES: bool = true;
    type Output = KeyInfo;

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        self.key.asks(caller)
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        account.used(self.key.resource(caller), 0, "", 0);
        account.detail(items_detail(self.items));
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<KeyInfo, Failure> {
        self.about(permit.principal(), account);
        let (id, keystore, operation) =
            begin_key(core, permit, account, &self.key, &self.request).await?;
        let now = permit.now_s();
        let changed = keystore
            .set_audit_items(&id.tenant, &id.key, self.items, operation, now)
            .await?;
        finish_key(core, keystore, account, id, changed).await
    }
}

/// The setting as a `name=value` pair, for the audit record.
pub(super) fn items_detail(items: AuditItems) -> String {
    format!("audit_items={}", items.as_str())
}

/// An item that somebody looks for in the trail.
#[derive(Debug, Clone)]
pub struct Sought {
    /// The key.
    pub key: KeyName,
    /// The field.
    pub field: FieldName,
    /// The encryption context.
    pub context: EncodedContext,
}

impl Sought {
    /// The hash that records have of it.
    pub(super) fn hash(&self, core: &Core, caller: &Principal) -> [u8; HASH_BYTES] {
        let (tenant, key) = (self.key.tenant(caller), self.key.key());
        let hasher = core.vault.item_hasher(tenant, key, self.field.as_str());
        hasher.hash(&self.context)
    }
}

/// Reports the keyed hash of a unary call's item, if its key asks for it: an item of the resource that was reported last.
pub(super) fn hash_item(
    core: &Core,
    account: &mut Account,
    key: &Key,
    field: &FieldName,
    context: &EncodedContext,
) {
    if key.audit_items() == AuditItems::Hashes {
        account.item_hash(hasher(core, key, field.as_str()).hash(context));
    }
}

fn hasher(core: &Core, key: &Key, field: &str) -> ItemHasher {
    let (tenant, name) = (key.tenant().as_str(), key.name().as_str());
    core.vault.item_hasher(tenant, name, field)
}

/// What hashes the items of a batch: for those of its uses (one key, version and field) whose key asks for it.
#[derive(Default)]
pub(super) struct Hashers(BTreeMap<usize, (usize, ItemHasher)>);

/// The hash of an item of a batch, and the resource of the record that it belongs to.
#[derive(Debug)]
pub(super) struct Hashed {
    /// The item's index in the batch.
    pub(super) item: usize,
    /// The resource's index in the record.
    pub(super) place: usize,
    /// The keyed hash.
    pub(super) hash: [u8; HASH_BYTES],
}

impl Hashers {
    /// The use with the index `index` is of `field` under `key`, whose resource has the index `place` in the record.
    pub(super) fn add(
        &mut self,
        core: &Core,
        (index, place): (usize, usize),
        key: &Key,
        field: &str,
    ) {
        if key.audit_items() == AuditItems::Hashes {
            self.0.insert(index, (place, hasher(core, key, field)));
        }
    }

    /// The hashes of the items of a batch, in its order: each item is given with the index of its use and its context, or `None`
    /// if its caller had no right to it. Work for the thread of the batch's cipher.
    pub(super) fn hash<'a>(
        &self,
        items: impl Iterator<Item = Option<(usize, &'a EncodedContext)>>,
    ) -> Vec<Hashed> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let hashed = items.enumerate().filter_map(|(item, used)| {
            let (index, context) = used?;
            let (place, hasher) = self.0.get(&index)?;
            Some(Hashed {
                item,
                place: *place,
                hash: hasher.hash(context),
            })
        });
        hashed.collect()
    }
}
