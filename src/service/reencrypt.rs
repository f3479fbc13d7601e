//! ReEncrypt, of one field and of many: opens, and seals again under the primary version, with the same field and
//! context. It always opens its input, so that it never vouches for a ciphertext that is not one, and its plaintext
//! never leaves: it lives in a buffer that is wiped.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use fieldkeep_crypto::ciphertext::OVERHEAD_KC_XAES;
use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_crypto::keys::{FieldKey, Nonce, Nonces};
use fieldkeep_keystore::key::Key;
use zeroize::Zeroize;

use crate::access::action::{Action, ActionSet};
use crate::access::principal::Principal;
use crate::service::Core;
use crate::service::batch::{DecryptItem, Results};
use crate::service::charge::{Charge, Sum};
use crate::service::distinct::{self, Destinations, Opener, Openers, Wanted, at, opened_by};
use crate::service::failure::Failure;
use crate::service::field::{self, Source};
use crate::service::in_use::InUse;
use crate::service::items::{Hashers, hash_item};
use crate::service::offload::{Turns, Weight, offload};
use crate::service::perform::Operation;
use crate::service::perform::permit::{Asks, Permit, Right};
use crate::service::record::Account;
use crate::service::resource::{FieldName, KeyName};
use crate::service::usage::Tally;
use crate::service::vault::{Opening, Purpose};

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
    /// Whether the right to seal depends on the context of each item.
    by_item: bool,
    /// Whether it is another key than the one that opens.
    moves: bool,
}

impl Operation for ReEncrypt {
    const ACTION: Action = Action::ReEncrypt;
    type Output = ReEncrypted;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::OfFields
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
        let opening = Opening {
            field: self.field.as_str(),
            context: Some(&self.context),
            purpose: purpose(self.destination.as_ref()),
        };
        let source =
            field::open_source(core, permit, account, &ciphertext, &self.field, &opening).await?;
        let moves_to = opening.purpose.moves_to(permit.principal(), &source.key);
        let destination = match moves_to {
            Some(name) => Box::pin(self.find_destination(core, permit, name)).await,
            None => Ok(Arc::clone(&source.key)),
        };
        self.charge(core, permit, &opening, &source, &destination)?;
        // Opened before anything is said about the destination: a ciphertext that does not open tells nothing, whatever
        // key it names.
        let mut plaintext = field::scratch(field::opened_capacity(&ciphertext));
        field::open(
            &source.field_key,
            &ciphertext,
            &self.context,
            &mut plaintext,
        )?;
        if let Some(name) = moves_to {
            account.used(name.resource(permit.principal()), 0, self.field.as_str(), 0);
        }
        let destination = destination?;
        let resealer = resealer(&source.key, ciphertext.version(), &destination, &self.field)?;
        if moves_to.is_some() {
            account.used_version(resealer.version);
            hash_item(core, account, &destination, &self.field, &self.context);
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

impl ReEncrypt {
    async fn find_destination(
        &self,
        core: &Core,
        permit: &Permit<'_>,
        name: &KeyName,
    ) -> Result<Arc<Key>, Failure> {
        let ask = name.seal(permit.principal(), &self.field);
        let entitled = permit.entitle(ask, &self.context)?;
        core.vault.sealing_key(&entitled).await
    }

    /// Charges the opening, and the sealing under another key, at once: one call counts as one.
    fn charge(
        &self,
        core: &Core,
        permit: &Permit<'_>,
        opening: &Opening<'_>,
        source: &Source,
        destination: &Result<Arc<Key>, Failure>,
    ) -> Result<(), Failure> {
        let Some(mut charge) = Charge::begin(permit) else {
            return Ok(());
        };
        let mut sum = Sum::default();
        sum.add(field::value_bytes(&self.ciphertext));
        let actions = opening.counted_as(permit, &source.key, false);
        charge.add(&source.key, actions, sum);
        if let Ok(destination) = destination
            && destination.handle() != source.key.handle()
        {
            charge.add(destination, ENCRYPTS, sum);
        }
        charge.make(core, permit)
    }
}

fn purpose(destination: Option<&KeyName>) -> Purpose<'_> {
    destination.map_or(Purpose::Renew, Purpose::Move)
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
    /// Why it may not be sealed again, which is not told before it has opened.
    refused: Option<Failure>,
}

impl Planned {
    fn context<'a>(&'a self, shared: &'a EncodedContext) -> &'a EncodedContext {
        self.item.context.as_ref().unwrap_or(shared)
    }
}

impl Operation for BatchReEncrypt {
    const ACTION: Action = Action::ReEncrypt;
    type Output = Results<ReEncrypted>;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::OfFields
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
        let mut keys = Destinations::default();
        let mut turns = Turns::default();
        let mut openers = Openers::default();
        let mut resealers = Resealers::default();
        let mut planned = Vec::with_capacity(items.len());
        for item in items {
            turns.next().await;
            planned.push(match item {
                Err(failure) => Err(failure),
                Ok((item, destination)) => {
                    let name = destination.and_then(|index| destinations.get(index));
                    let context = item.context.as_ref().unwrap_or(&shared);
                    let wanted = Wanted {
                        item: &item,
                        context,
                        purpose: purpose(name),
                        destination,
                    };
                    match openers.resolve(core, permit, &fields, &wanted).await {
                        Err(failure) => Err(failure),
                        // What moves is never masked: that is refused.
                        Ok((opener, _)) => {
                            let planning = Planning {
                                core,
                                permit,
                                fields: &fields,
                                openers: &openers,
                            };
                            let (resealer, refused) =
                                resealers.plan(&planning, &mut keys, opener, &wanted).await;
                            Ok(Planned {
                                item,
                                opener,
                                resealer,
                                refused,
                            })
                        }
                    }
                }
            });
        }
        let opening = openers.report(core, account, &fields);
        let sealing = resealers.report(core, account);
        if let Some(mut charge) = Charge::begin(permit) {
            let used = planned.iter().flatten();
            openers.charge(
                &mut charge,
                used.map(|planned| (&planned.item, planned.opener)),
            );
            resealers.charge(&mut charge, &openers, &planned);
            charge.make(core, permit)?;
        }
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
        permit.release();
        let work = move || {
            let mut hashed = opening.hash(planned.iter().map(|planned| {
                let planned = planned.as_ref().ok()?;
                Some((planned.opener, planned.context(&shared)))
            }));
            hashed.extend(sealing.hash(planned.iter().map(|planned| {
                let planned = planned.as_ref().ok().filter(|one| one.refused.is_none())?;
                Some((planned.resealer, planned.context(&shared)))
            })));
            reseal_all(planned, &shared, &openers, &resealers.list).map(|results| (results, hashed))
        };
        let (mut results, hashed) = offload(core, weight, work).await??;
        opened.check_again(core, permit, &mut results).await;
        sealed.check_again(core, permit, &mut results).await;
        account.items(&results);
        account.item_hashes(hashed, &results);
        Ok(results)
    }
}

/// What sealing counts as for limits.
const ENCRYPTS: ActionSet = ActionSet::of(&[Action::Encrypt]);

/// What a batch sealed again with, for its record.
#[derive(Default)]
struct Use {
    name: String,
    version: u32,
    field: String,
    items: u32,
}

/// What a way of sealing again is found with.
struct Planning<'a> {
    core: &'a Core,
    permit: &'a Permit<'a>,
    fields: &'a [FieldName],
    openers: &'a Openers,
}

impl Planning<'_> {
    async fn find(
        &self,
        keys: &mut Destinations,
        opener: usize,
        wanted: &Wanted<'_>,
    ) -> Result<(Resealer, Use), Failure> {
        let (source, _) = opened_by(&self.openers.list, opener)?;
        let field = self
            .fields
            .get(wanted.item.field)
            .ok_or_else(|| Failure::internal("a field without a name"))?;
        let caller = self.permit.principal();
        let (key, right) = match wanted.purpose.moves_to(caller, source) {
            Some(name) => {
                let entitled = self.permit.entitle_any(name.seal(caller, field))?;
                let key = keys.resolve(self.core, &entitled).await?;
                (key, Some(entitled.right().clone()))
            }
            None => (Arc::clone(source), None),
        };
        let version = field::parse(&wanted.item.ciphertext)?.version();
        let resealer = Resealer {
            by_item: right == Some(Right::ByItem),
            ..resealer(source, version, &key, field)?
        };
        let used = Use {
            name: field::resource_of(&key),
            version: resealer.version,
            field: field.as_str().to_owned(),
            items: 0,
        };
        Ok((resealer, used))
    }
}

/// The distinct ways of sealing again in a batch.
#[derive(Default)]
struct Resealers {
    index: HashMap<usize, usize>,
    list: Vec<Result<Resealer, Failure>>,
    used: Vec<Use>,
}

impl Resealers {
    /// The index of what seals again what `opener` opens; an opener has its destination in its name. It may hold a failure.
    async fn plan(
        &mut self,
        planning: &Planning<'_>,
        keys: &mut Destinations,
        opener: usize,
        wanted: &Wanted<'_>,
    ) -> (usize, Option<Failure>) {
        if let Some(&known) = self.index.get(&opener) {
            self.count(known);
            return (known, self.refused(known, planning, wanted));
        }
        let found = planning.find(keys, opener, wanted).await;
        let (resealer, used) = match found {
            Ok((resealer, used)) => (Ok(resealer), used),
            Err(failure) => (Err(failure), Use::default()),
        };
        self.list.push(resealer);
        self.used.push(used);
        let index = self.list.len() - 1;
        self.index.insert(opener, index);
        self.count(index);
        (index, self.refused(index, planning, wanted))
    }

    /// Why one item may not be sealed again, if that depends on its context.
    fn refused(
        &self,
        index: usize,
        planning: &Planning<'_>,
        wanted: &Wanted<'_>,
    ) -> Option<Failure> {
        let Some(Ok(Resealer { by_item: true, .. })) = self.list.get(index) else {
            return None;
        };
        let Purpose::Move(name) = wanted.purpose else {
            return None;
        };
        let field = planning.fields.get(wanted.item.field)?;
        let ask = name.seal(planning.permit.principal(), field);
        planning.permit.allowed(&ask, wanted.context).err()
    }

    fn count(&mut self, index: usize) {
        if let Some(used) = self.used.get_mut(index) {
            used.items += 1;
        }
    }

    /// Adds to `charge` what `items` are about to seal under other keys than those that they are opened with.
    fn charge(&self, charge: &mut Charge, openers: &Openers, items: &[Result<Planned, Failure>]) {
        let mut sums = vec![Sum::default(); self.list.len()];
        for planned in items.iter().flatten() {
            let Ok((source, _)) = opened_by(&openers.list, planned.opener) else {
                continue;
            };
            if let Some(Ok(resealer)) = self.list.get(planned.resealer)
                && resealer.key.handle() != source.handle()
                && planned.refused.is_none()
                && let Some(sum) = sums.get_mut(planned.resealer)
            {
                sum.add(field::value_bytes(&planned.item.ciphertext));
            }
        }
        for (resealer, sum) in self.list.iter().zip(sums) {
            if let Ok(resealer) = resealer {
                charge.add(&resealer.key, ENCRYPTS, sum);
            }
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
                && planned.refused.is_none()
            {
                let bytes = field::value_bytes(&planned.item.ciphertext);
                tally.add(&resealer.key, 1, bytes as u64);
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

    /// Tells the record what was sealed with; what stays as it is is among what was opened. Gives what hashes the items of those
    /// that move them to another key: the others' items are hashed with what opens them.
    fn report(&mut self, core: &Core, account: &mut Account) -> Hashers {
        let mut hashers = Hashers::default();
        for (index, (resealer, used)) in self.list.iter().zip(self.used.drain(..)).enumerate() {
            let Ok(resealer) = resealer else { continue };
            if resealer.field_key.is_none() {
                continue;
            }
            account.used(used.name, used.version, &used.field, used.items);
            if resealer.moves {
                let places = (index, account.place());
                hashers.add(core, places, &resealer.key, &used.field);
            }
        }
        hashers
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
    let moves = source.handle() != destination.handle();
    let current = !moves && version == primary.number();
    let field_key = if current {
        None
    } else {
        Some(primary.field_key(field.field()?))
    };
    Ok(Resealer {
        key: Arc::clone(destination),
        field_key,
        version: primary.number(),
        by_item: false,
        moves,
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
                refused,
            } = planned?;
            let ciphertext = field::parse(&item.ciphertext)?;
            let (_, field_key) = opened_by(&openers.list, opener)?;
            let context = item.context.as_ref().unwrap_or(shared);
            plaintext.as_mut_slice().zeroize();
            plaintext.clear();
            field::open(field_key, &ciphertext, context, &mut plaintext)?;
            if let Some(refused) = refused {
                return Err(refused);
            }
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
