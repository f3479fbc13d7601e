//! What is distinct in a batch: keys to seal with, and (key, version, field) to open with, each resolved and authorized
//! once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use fieldkeep_crypto::ciphertext::{Ciphertext, Handle, Suite};
use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_crypto::keys::FieldKey;
use fieldkeep_keystore::info::AuditItems;
use fieldkeep_keystore::key::Key;

use crate::access::action::ActionSet;
use crate::service::Core;
use crate::service::batch::DecryptItem;
use crate::service::charge::{Charge, Sum};
use crate::service::failure::{Failure, Opaque};
use crate::service::field;
use crate::service::items::Hashers;
use crate::service::masking::{Sight, may_be_used};
use crate::service::perform::permit::{Entitled, Permit, Right};
use crate::service::record::Account;
use crate::service::resource::FieldName;
use crate::service::vault::{Named, Opening, Purpose};

/// The keys that a batch seals with, each resolved and authorized once.
#[derive(Default)]
pub(super) struct Destinations {
    keys: HashMap<(String, String), Result<Arc<Key>, Failure>>,
}

impl Destinations {
    pub(super) async fn resolve(
        &mut self,
        core: &Core,
        entitled: &Entitled<'_>,
    ) -> Result<Arc<Key>, Failure> {
        let ask = entitled.ask();
        let full = (ask.tenant.to_owned(), ask.key.to_owned());
        if let Some(known) = self.keys.get(&full) {
            return known.clone();
        }
        let key = core.vault.sealing_key(entitled).await;
        self.keys.insert(full, key.clone());
        key
    }
}

/// One item that is to be opened.
pub(super) struct Wanted<'a> {
    pub(super) item: &'a DecryptItem,
    pub(super) context: &'a EncodedContext,
    pub(super) purpose: Purpose<'a>,
    /// The index of the key that it moves to, which has a part in the right that it needs.
    pub(super) destination: Option<usize>,
}

/// What the ciphertexts of a batch are distinct by: key, suite, version, field, and the key that they move to.
type Name = (Handle, Suite, u32, usize, Option<usize>);

/// The distinct (key, version, field) that the ciphertexts of a batch name, each resolved and authorized once.
#[derive(Default)]
pub(super) struct Openers {
    index: HashMap<Name, usize>,
    /// Items that are no ciphertexts, by field.
    malformed: BTreeMap<usize, u32>,
    last: Option<(Name, usize)>,
    pub(super) list: Vec<Opener>,
}

/// One of them.
pub(super) struct Opener {
    handle: Handle,
    version: u32,
    field: usize,
    items: u32,
    found: Result<Found, Failure>,
}

/// The key of an item, the right to it, and what opens it.
struct Found {
    key: Arc<Key>,
    right: Right,
    /// What is done with it, as limits count it.
    actions: ActionSet,
    /// Whether the key and version are there and enabled is told only to whoever has the right.
    field_key: Result<Arc<FieldKey>, Failure>,
}

impl Opener {
    /// The key and version that it opens with, if it is ready to.
    pub(super) fn in_use(&self) -> Option<(Arc<Key>, u32)> {
        let found = self.found.as_ref().ok()?;
        found.field_key.as_ref().ok()?;
        Some((Arc::clone(&found.key), self.version))
    }

    fn name(&self) -> (Handle, u32, usize) {
        (self.handle, self.version, self.field)
    }

    /// How much of the item's value leaves, if its context gives the right where that depends on it. Of what does not open
    /// nothing does.
    fn sight_of_item(
        &self,
        permit: &Permit<'_>,
        opening: &Opening<'_>,
        context: &EncodedContext,
    ) -> Result<Sight, Failure> {
        let Ok(found) = &self.found else {
            return Ok(Sight::Hidden);
        };
        if let Right::Whole(sight) = &found.right {
            return Ok(sight.clone());
        }
        let ask = opening.ask(permit.principal(), &found.key);
        match permit.allowed(&ask, context) {
            Ok(sight) => may_be_used(&sight, opening, &ask).map(|()| sight),
            Err(_) if *found.key.tenant() != permit.principal().tenant => {
                Err(Failure::DecryptionFailed(Opaque::ForeignTenant))
            }
            Err(refused) => Err(refused),
        }
    }
}

/// Looks up the key and version of a ciphertext.
async fn open(
    core: &Core,
    permit: &Permit<'_>,
    opening: &Opening<'_>,
    ciphertext: &Ciphertext<'_>,
    field: &FieldName,
) -> Result<Found, Failure> {
    let named = Named {
        handle: ciphertext.handle(),
        suite: ciphertext.suite(),
    };
    let (key, right) = core.vault.opening_key(permit, named, opening).await?;
    let version = core
        .vault
        .opening_version(permit, &key, ciphertext.version())
        .await;
    let field = field.field()?;
    let field_key = version.map(|version| version.field_key(field));
    let masked = match &right {
        Right::Whole(sight) => sight.is_masked(),
        // Some of its values may leave masked.
        Right::ByItem => matches!(opening.purpose, Purpose::Reveal),
    };
    let actions = opening.counted_as(permit, &key, masked);
    Ok(Found {
        key,
        right,
        actions,
        field_key,
    })
}

impl Openers {
    /// The index of what opens `item`, which may hold a failure, and how much of its value leaves. A malformed ciphertext has
    /// none.
    pub(super) async fn resolve(
        &mut self,
        core: &Core,
        permit: &Permit<'_>,
        fields: &[FieldName],
        wanted: &Wanted<'_>,
    ) -> Result<(usize, Sight), Failure> {
        let item = wanted.item;
        let ciphertext = field::parse(&item.ciphertext)
            .inspect_err(|_| *self.malformed.entry(item.field).or_default() += 1)?;
        let name = (
            ciphertext.handle(),
            ciphertext.suite(),
            ciphertext.version(),
            item.field,
            wanted.destination,
        );
        let field = fields
            .get(item.field)
            .ok_or_else(|| Failure::internal("a field without a name"))?;
        let opening = Opening {
            field: field.as_str(),
            context: None,
            purpose: wanted.purpose,
        };
        let known = match self.last {
            Some((last, opener)) if last == name => Some(opener),
            _ => self.index.get(&name).copied(),
        };
        let opener = match known {
            Some(opener) => opener,
            None => {
                let found = open(core, permit, &opening, &ciphertext, field).await;
                let (handle, _, version, field, _) = name;
                self.list.push(Opener {
                    handle,
                    version,
                    field,
                    items: 0,
                    found,
                });
                self.index.insert(name, self.list.len() - 1);
                self.list.len() - 1
            }
        };
        self.last = Some((name, opener));
        let found = self
            .list
            .get_mut(opener)
            .ok_or_else(|| Failure::internal("an item without an opener"))?;
        found.items += 1;
        let sight = found.sight_of_item(permit, &opening, wanted.context)?;
        Ok((opener, sight))
    }

    /// Adds to `charge` what `items` are about to open, each with the index of its opener.
    pub(super) fn charge<'a>(
        &self,
        charge: &mut Charge,
        items: impl Iterator<Item = (&'a DecryptItem, usize)>,
    ) {
        let mut sums = vec![Sum::default(); self.list.len()];
        for (item, opener) in items {
            if let Some(sum) = sums.get_mut(opener) {
                sum.add(field::value_bytes(&item.ciphertext));
            }
        }
        for (opener, sum) in self.list.iter().zip(sums) {
            if let Ok(found) = &opener.found
                && found.field_key.is_ok()
            {
                charge.add(&found.key, found.actions, sum);
            }
        }
    }

    /// Tells the record what was opened: each distinct key, version and field once, wherever it moves to. Gives what hashes the
    /// items of each opener, by its index.
    pub(super) fn report(
        &self,
        core: &Core,
        account: &mut Account,
        fields: &[FieldName],
    ) -> Hashers {
        let mut hashers = Hashers::default();
        let mut sums: HashMap<(Handle, u32, usize), (u32, &Opener)> = HashMap::new();
        for opener in &self.list {
            let (items, named) = sums.entry(opener.name()).or_insert((0, opener));
            *items += opener.items;
            // One that was found has the key's name, also where another that moves elsewhere was refused.
            if named.found.is_err() && opener.found.is_ok() {
                *named = opener;
            }
        }
        // Where the resources are whose key asks for hashes of items.
        let mut places = HashMap::new();
        for (index, opener) in self.list.iter().enumerate() {
            let field = fields.get(opener.field).map_or("", FieldName::as_str);
            let name = opener.name();
            if let Some((items, named)) = sums.remove(&name) {
                let version = opener.version;
                let handle = || format!("handle:{}", opener.handle);
                match &named.found {
                    Ok(found) => {
                        account.used(field::resource_of(&found.key), version, field, items);
                        if found.key.audit_items() == AuditItems::Hashes {
                            places.insert(name, account.place());
                        }
                    }
                    Err(Failure::DecryptionFailed(Opaque::UnknownHandle)) => {
                        account.not_found(handle(), version, field, items);
                    }
                    // There is such a key, so that it is named whatever else the batch names.
                    Err(_) => account.used(handle(), version, field, items),
                }
            }
            if let (Ok(found), Some(place)) = (&opener.found, places.get(&name)) {
                hashers.add(core, (index, *place), &found.key, field);
            }
        }
        for (field, items) in &self.malformed {
            let field = fields.get(*field).map_or("", FieldName::as_str);
            account.not_found(field::MALFORMED.into(), 0, field, *items);
        }
        hashers
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
    let found = opener.found.as_ref().map_err(Clone::clone)?;
    let field_key = found.field_key.as_ref().map_err(Clone::clone)?;
    Ok((&found.key, field_key))
}

/// The resolved thing at `index`, or its failure.
pub(super) fn at<T>(list: &[Result<T, Failure>], index: usize) -> Result<&T, Failure> {
    let found = list
        .get(index)
        .ok_or_else(|| Failure::internal("an item without its key"))?;
    found.as_ref().map_err(Clone::clone)
}
