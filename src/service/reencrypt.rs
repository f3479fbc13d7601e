//! ReEncrypt, of one field and of many: opens, and seals again under the primary version, with the same field and
//! context. It always opens its input, so that it never vouches for a ciphertext that is not one, and its plaintext
//! never leaves: it lives in a buffer that is wiped.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use fieldkeep_crypto::ciphertext::{Ciphertext, OVERHEAD_KC_XAES};
use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_crypto::keys::{FieldKey, Nonce, Nonces};
use fieldkeep_keystore::key::Key;
use zeroize::Zeroize;

use crate::access::Action;
use crate::access::principal::Principal;
use crate::service::Core;
use crate::service::batch::{DecryptItem, Results};
use crate::service::distinct::{self, Destinations, Opener, Openers, at, opened_by};
use crate::service::failure::Failure;
use crate::service::field;
use crate::service::in_use::InUse;
use crate::service::offload::{Turns, Weight, offload};
use crate::service::perform::{Operation, Permit};
use crate::service::record::Account;
use crate::service::resource::{FieldName, KeyName};
use crate::service::usage::Tally;

/// Re-encrypt one field.
pub struct ReEncrypt {
    /// The field.
    pub field: FieldName,
    /// The context.
    pub context: EncodedContext,
    /// Format v1, binary.
    pub ciphertext: Bytes,
    /// The key to seal under; without one, the key that the ciphertext names.
    pub destination: Option<KeyName>,
}

/// A ciphertext after a re-encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReEncrypted {
    /// Format v1, binary.
    pub ciphertext: Bytes,
    /// The key version that seals it.
    pub version: u32,
    /// False: it was current already and is as it was.
    pub changed: bool,
}

/// The field key to seal with again; without one the ciphertext is current and stays.
struct Resealer {
    key: Arc<Key>,
    field_key: Option<Arc<FieldKey>>,
    version: u32,
}

impl Operation for ReEncrypt {
    const ACTION: Action = Action::ReEncrypt;
    type Output = ReEncrypted;

    fn tenant<'a>(&'a self, caller: &'a Principal) -> &'a str {
        caller.tenant.as_str()
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        field::about_ciphertext(&self.ciphertext, &self.field, account);
        if let Some(name) = &self.destination {
            account.used(name.resource(caller), 0, self.field.as_str(), 0);
        }
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<ReEncrypted, Failure> {
        field::hash_context(core, account, &self.context);
        let ciphertext = field::parse_reported(&self.ciphertext, &self.field, account)?;
        let source = field::open_source(core, permit, account, &ciphertext, &self.field).await?;
        // Opened before anything is said about the destination: a ciphertext that does not open tells nothing, whatever
        // key it names.
        let mut plaintext = field::scratch(field::opened_capacity(&ciphertext));
        field::open(
            &source.field_key,
            &ciphertext,
            &self.context,
            &mut plaintext,
        )?;
        let destination = match &self.destination {
            None => Arc::clone(&source.key),
            Some(name) => {
                account.used(name.resource(permit.principal()), 0, self.field.as_str(), 0);
                core.vault.sealing_key(permit, name).await?
            }
        };
        let resealer = resealer(&source.key, ciphertext.version(), &destination, &self.field)?;
        if self.destination.is_some() {
            account.used_version(resealer.version);
        } else if resealer.field_key.is_some() {
            account.used(
                field::resource_of(&destination),
                resealer.version,
                self.field.as_str(),
                0,
            );
        }
        let Some(field_key) = resealer.field_key else {
            return Ok(ReEncrypted {
                ciphertext: self.ciphertext,
                version: resealer.version,
                changed: false,
            });
        };
        let bytes = plaintext.len() as u64;
        core.vault.count(permit, &destination, 1, bytes).await?;
        core.vault
            .check_again(permit, &source.key, ciphertext.version())
            .await?;
        let mut out = Vec::with_capacity(plaintext.len() + OVERHEAD_KC_XAES);
        field_key
            .seal(Nonce::make()?, &self.context, &plaintext, &mut out)
            .map_err(Failure::internal)?;
        Ok(ReEncrypted {
            ciphertext: Bytes::from(out),
            version: resealer.version,
            changed: true,
        })
    }
}

/// Re-encrypt many fields.
pub struct BatchReEncrypt {
    /// The distinct fields.
    pub fields: Vec<FieldName>,
    /// The distinct destination keys.
    pub destinations: Vec<KeyName>,
    /// The context of items without one.
    pub shared: EncodedContext,
    /// The items, each with the index of its destination, or why one is not valid.
    pub items: Vec<Result<(DecryptItem, Option<usize>), Failure>>,
}

/// One item with the indexes of what opens it and of what seals it again.
struct Planned {
    item: DecryptItem,
    opener: usize,
    resealer: usize,
}

impl Operation for BatchReEncrypt {
    const ACTION: Action = Action::ReEncrypt;
    type Output = Results<ReEncrypted>;

    fn tenant<'a>(&'a self, caller: &'a Principal) -> &'a str {
        caller.tenant.as_str()
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        let items = self.items.iter().flatten().map(|(item, _)| item);
        distinct::about_items(items, &self.fields, account);
        for name in &self.destinations {
            account.used(name.resource(caller), 0, "", 0);
        }
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Results<ReEncrypted>, Failure> {
        let Self {
            fields,
            destinations,
            shared,
            items,
        } = self;
        let mut keys = Vec::with_capacity(destinations.len());
        let mut known = Destinations::default();
        let mut turns = Turns::default();
        for name in &destinations {
            turns.next().await;
            keys.push(known.resolve(core, permit, name).await);
        }
        let mut openers = Openers::default();
        let mut resealers = Resealers::default();
        let mut planned = Vec::with_capacity(items.len());
        for item in items {
            turns.next().await;
            planned.push(match item {
                Err(failure) => Err(failure),
                Ok((item, destination)) => {
                    match openers.resolve(core, permit, &fields, &item).await {
                        Err(failure) => Err(failure),
                        Ok(opener) => {
                            let resealer = resealers.plan(
                                &openers,
                                opener,
                                &keys,
                                destination,
                                &fields,
                                &item,
                            );
                            Ok(Planned {
                                item,
                                opener,
                                resealer,
                            })
                        }
                    }
                }
            });
        }
        openers.report(account, &fields);
        resealers.report(account);
        resealers.count_use(core, permit, &planned).await;
        let sizes = planned.iter().flatten().map(|planned| planned.item.size());
        let weight = Weight {
            bytes: sizes.sum(),
            items: planned.len(),
        };
        let opened = InUse::new(
            openers.list.iter().map(Opener::in_use),
            planned.iter().map(|item| Some(item.as_ref().ok()?.opener)),
        );
        let sealed = InUse::new(
            resealers.list.iter().map(|resealer| {
                let resealer = resealer.as_ref().ok()?;
                Some((Arc::clone(&resealer.key), resealer.version))
            }),
            planned
                .iter()
                .map(|item| Some(item.as_ref().ok()?.resealer)),
        );
        let work = move || reseal_all(planned, &shared, &openers, &resealers.list);
        let mut results = offload(core, weight, work).await??;
        opened.check_again(core, permit, &mut results).await;
        sealed.check_again(core, permit, &mut results).await;
        account.items(&results);
        Ok(results)
    }
}

/// What a batch sealed again with, for its record.
#[derive(Default)]
struct Use {
    name: String,
    version: u32,
    field: String,
    items: u32,
}

/// The distinct ways of sealing again in a batch.
#[derive(Default)]
struct Resealers {
    index: HashMap<(usize, Option<usize>), usize>,
    list: Vec<Result<Resealer, Failure>>,
    used: Vec<Use>,
}

impl Resealers {
    fn plan(
        &mut self,
        openers: &Openers,
        opener: usize,
        keys: &[Result<Arc<Key>, Failure>],
        destination: Option<usize>,
        fields: &[FieldName],
        item: &DecryptItem,
    ) -> usize {
        if let Some(&known) = self.index.get(&(opener, destination)) {
            self.count(known);
            return known;
        }
        let found = self.find(openers, opener, keys, destination, fields, item);
        let (resealer, used) = match found {
            Ok((resealer, used)) => (Ok(resealer), used),
            Err(failure) => (Err(failure), Use::default()),
        };
        self.list.push(resealer);
        self.used.push(used);
        let index = self.list.len() - 1;
        self.index.insert((opener, destination), index);
        self.count(index);
        index
    }

    fn find(
        &self,
        openers: &Openers,
        opener: usize,
        keys: &[Result<Arc<Key>, Failure>],
        destination: Option<usize>,
        fields: &[FieldName],
        item: &DecryptItem,
    ) -> Result<(Resealer, Use), Failure> {
        let (source, _) = opened_by(&openers.list, opener)?;
        let key = match destination {
            None => source,
            Some(index) => at(keys, index)?,
        };
        let field = fields
            .get(item.field)
            .ok_or_else(|| Failure::internal("a field without a name"))?;
        let resealer = resealer(
            source,
            field::parse(&item.ciphertext)?.version(),
            key,
            field,
        )?;
        let used = Use {
            name: field::resource_of(key),
            version: resealer.version,
            field: field.as_str().to_owned(),
            items: 0,
        };
        Ok((resealer, used))
    }

    fn count(&mut self, index: usize) {
        if let Some(used) = self.used.get_mut(index) {
            used.items += 1;
        }
    }

    /// Counts what `items` are about to seal again, before it is known which of them open, and takes those resealers away
    /// whose keys could not be counted.
    async fn count_use(
        &mut self,
        core: &Core,
        permit: &Permit<'_>,
        items: &[Result<Planned, Failure>],
    ) {
        let mut tally = Tally::default();
        for planned in items.iter().flatten() {
            if let Some(Ok(resealer)) = self.list.get(planned.resealer)
                && resealer.field_key.is_some()
            {
                let bytes = Ciphertext::parse(&planned.item.ciphertext)
                    .map_or(0, |ciphertext| ciphertext.plaintext_len() as u64);
                tally.add(&resealer.key, 1, bytes);
            }
        }
        let uncounted = tally.count(core, permit).await;
        for resealer in &mut self.list {
            if let Ok(ready) = resealer
                && ready.field_key.is_some()
                && let Err(failure) = uncounted.check(&ready.key)
            {
                *resealer = Err(failure);
            }
        }
    }

    /// Tells the record what was sealed with; what stays as it is is among what was opened.
    fn report(&mut self, account: &mut Account) {
        for (resealer, used) in self.list.iter().zip(self.used.drain(..)) {
            if resealer
                .as_ref()
                .is_ok_and(|resealer| resealer.field_key.is_some())
            {
                account.used(used.name, used.version, &used.field, used.items);
            }
        }
    }
}

/// What seals `field` again: the primary version of `destination`, or nothing if the ciphertext is sealed with it.
fn resealer(
    source: &Key,
    version: u32,
    destination: &Arc<Key>,
    field: &FieldName,
) -> Result<Resealer, Failure> {
    let primary = destination.primary();
    let current = source.handle() == destination.handle() && version == primary.number();
    let field_key = if current {
        None
    } else {
        Some(primary.field_key(field.field()?))
    };
    Ok(Resealer {
        key: Arc::clone(destination),
        field_key,
        version: primary.number(),
    })
}

/// The results are parts of one buffer of their own, also what stays as it is: a part of the request would keep the whole
/// of its message alive until the reply is taken.
fn reseal_all(
    items: Vec<Result<Planned, Failure>>,
    shared: &EncodedContext,
    openers: &Openers,
    resealers: &[Result<Resealer, Failure>],
) -> Result<Results<ReEncrypted>, Failure> {
    let mut nonces = Nonces::make(items.iter().flatten().count())?;
    let lengths = || {
        items
            .iter()
            .flatten()
            .map(|planned| planned.item.ciphertext.len())
    };
    let mut plaintext = field::scratch(lengths().max().unwrap_or(0));
    let mut out = Vec::with_capacity(lengths().sum());
    let resealed = items
        .into_iter()
        .map(|planned| {
            let Planned {
                item,
                opener,
                resealer,
            } = planned?;
            let ciphertext = field::parse(&item.ciphertext)?;
            let (_, field_key) = opened_by(&openers.list, opener)?;
            let context = item.context.as_ref().unwrap_or(shared);
            plaintext.as_mut_slice().zeroize();
            plaintext.clear();
            field::open(field_key, &ciphertext, context, &mut plaintext)?;
            let resealer = at(resealers, resealer)?;
            let start = out.len();
            match &resealer.field_key {
                None => out.extend_from_slice(&item.ciphertext),
                Some(field_key) => {
                    let nonce = nonces
                        .next_nonce()
                        .ok_or_else(|| Failure::internal("too few nonces"))?;
                    field_key
                        .seal(nonce, context, &plaintext, &mut out)
                        .map_err(Failure::internal)?;
                }
            }
            let changed = resealer.field_key.is_some();
            Ok((start..out.len(), resealer.version, changed))
        })
        .collect::<Vec<Result<_, Failure>>>();
    let out = field::fitting(out);
    let part = |(range, version, changed)| ReEncrypted {
        ciphertext: out.slice(range),
        version,
        changed,
    };
    Ok(resealed
        .into_iter()
        .map(|result| result.map(part))
        .collect())
}
