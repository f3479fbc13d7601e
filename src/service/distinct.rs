//! What is distinct in a batch: keys to seal with, and (key, version, field) to open with, each resolved and authorized
//! once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use fieldkeep_crypto::ciphertext::{Ciphertext, Handle, Suite};
use fieldkeep_crypto::keys::FieldKey;
use fieldkeep_keystore::key::Key;

use crate::service::Core;
use crate::service::batch::DecryptItem;
use crate::service::failure::{Failure, Opaque};
use crate::service::field;
use crate::service::perform::Permit;
use crate::service::record::Account;
use crate::service::resource::{FieldName, KeyName};

/// The keys that a batch seals with, each resolved and authorized once.
#[derive(Default)]
pub(super) struct Destinations {
    keys: HashMap<(String, String), Result<Arc<Key>, Failure>>,
}

impl Destinations {
    pub(super) async fn resolve(
        &mut self,
        core: &Core,
        permit: &Permit<'_>,
        name: &KeyName,
    ) -> Result<Arc<Key>, Failure> {
        let full = (
            name.tenant(permit.principal()).to_owned(),
            name.key().to_owned(),
        );
        if let Some(known) = self.keys.get(&full) {
            return known.clone();
        }
        let key = core.vault.sealing_key(permit, name).await;
        self.keys.insert(full, key.clone());
        key
    }
}

/// The distinct (key, version, field) that the ciphertexts of a batch name, each resolved and authorized once.
#[derive(Default)]
pub(super) struct Openers {
    keys: HashMap<(Handle, Suite), Result<Arc<Key>, Failure>>,
    index: HashMap<(Handle, Suite, u32, usize), usize>,
    /// Items that are no ciphertexts, by field.
    malformed: BTreeMap<usize, u32>,
    last: Option<((Handle, Suite, u32, usize), usize)>,
    pub(super) list: Vec<Opener>,
}

/// One of them.
pub(super) struct Opener {
    handle: Handle,
    version: u32,
    field: usize,
    items: u32,
    pub(super) ready: Result<(Arc<Key>, Arc<FieldKey>), Failure>,
}

impl Opener {
    /// The key and version that it opens with, if it is ready to.
    pub(super) fn in_use(&self) -> Option<(Arc<Key>, u32)> {
        let (key, _) = self.ready.as_ref().ok()?;
        Some((Arc::clone(key), self.version))
    }
}

impl Openers {
    /// The index of what opens `item`; it may hold a failure. A malformed ciphertext has none.
    pub(super) async fn resolve(
        &mut self,
        core: &Core,
        permit: &Permit<'_>,
        fields: &[FieldName],
        item: &DecryptItem,
    ) -> Result<usize, Failure> {
        let ciphertext = field::parse(&item.ciphertext)
            .inspect_err(|_| *self.malformed.entry(item.field).or_default() += 1)?;
        let name = (
            ciphertext.handle(),
            ciphertext.suite(),
            ciphertext.version(),
            item.field,
        );
        let known = match self.last {
            Some((last, opener)) if last == name => Some(opener),
            _ => self.index.get(&name).copied(),
        };
        let opener = match known {
            Some(opener) => opener,
            None => {
                let ready = self
                    .open(core, permit, fields, &ciphertext, item.field)
                    .await;
                let (handle, _, version, field) = name;
                self.list.push(Opener {
                    handle,
                    version,
                    field,
                    items: 0,
                    ready,
                });
                self.index.insert(name, self.list.len() - 1);
                self.list.len() - 1
            }
        };
        self.last = Some((name, opener));
        if let Some(opener) = self.list.get_mut(opener) {
            opener.items += 1;
        }
        Ok(opener)
    }

    async fn open(
        &mut self,
        core: &Core,
        permit: &Permit<'_>,
        fields: &[FieldName],
        ciphertext: &Ciphertext<'_>,
        field: usize,
    ) -> Result<(Arc<Key>, Arc<FieldKey>), Failure> {
        let name = (ciphertext.handle(), ciphertext.suite());
        let key = match self.keys.get(&name) {
            Some(known) => known.clone(),
            None => {
                let key = core.vault.opening_key(permit, name.0, name.1).await;
                self.keys.insert(name, key.clone());
                key
            }
        }?;
        let version = core
            .vault
            .opening_version(permit, &key, ciphertext.version())
            .await?;
        let field = fields
            .get(field)
            .ok_or_else(|| Failure::internal("a field without a name"))?;
        let field_key = version.field_key(field.field()?);
        Ok((key, field_key))
    }

    /// Tells the record what was opened.
    pub(super) fn report(&self, account: &mut Account, fields: &[FieldName]) {
        for opener in &self.list {
            let field = fields.get(opener.field).map_or("", FieldName::as_str);
            let (version, items) = (opener.version, opener.items);
            let handle = || format!("handle:{}", opener.handle);
            match &opener.ready {
                Ok((key, _)) => account.used(field::resource_of(key), version, field, items),
                Err(Failure::DecryptionFailed(Opaque::UnknownHandle)) => {
                    account.not_found(handle(), version, field, items);
                }
                // There is such a key, so that it is named whatever else the batch names.
                Err(_) => account.used(handle(), version, field, items),
            }
        }
        for (field, items) in &self.malformed {
            let field = fields.get(*field).map_or("", FieldName::as_str);
            account.not_found(field::MALFORMED.into(), 0, field, *items);
        }
    }
}

/// Names what the items of a refused batch are about: each distinct key, version and field, without a look at the keys.
pub(super) fn about_items<'a>(
    items: impl Iterator<Item = &'a DecryptItem>,
    fields: &[FieldName],
    account: &mut Account,
) {
    let mut named: BTreeMap<(usize, String, u32), u32> = BTreeMap::new();
    for item in items {
        let (name, version) = field::named_by(&item.ciphertext);
        *named.entry((item.field, name, version)).or_default() += 1;
    }
    for ((index, name, version), items) in named {
        let field = fields.get(index).map_or("", FieldName::as_str);
        account.not_found(name, version, field, items);
    }
}

/// What opens an item, or why nothing does.
pub(super) fn opened_by(
    openers: &[Opener],
    index: usize,
) -> Result<(&Arc<Key>, &FieldKey), Failure> {
    let opener = openers
        .get(index)
        .ok_or_else(|| Failure::internal("an item without an opener"))?;
    match &opener.ready {
        Ok((key, field_key)) => Ok((key, field_key)),
        Err(failure) => Err(failure.clone()),
    }
}

/// The resolved thing at `index`, or its failure.
pub(super) fn at<T>(list: &[Result<T, Failure>], index: usize) -> Result<&T, Failure> {
    let found = list
        .get(index)
        .ok_or_else(|| Failure::internal("an item without its key"))?;
    found.as_ref().map_err(Clone::clone)
}
