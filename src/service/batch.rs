//! BatchEncrypt and BatchDecrypt: what is distinct in a batch is resolved once, then its items run without an await, off
//! the runtime's thread if they are many bytes. An item that fails takes nobody with it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use fieldkeep_crypto::ciphertext::OVERHEAD_KC_XAES;
use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_crypto::keys::{FieldKey, Nonces};
use fieldkeep_keystore::key::Key;

use crate::access::action::{Action, ActionSet};
use crate::access::principal::Principal;
use crate::service::Core;
use crate::service::charge::{Charge, Sum};
use crate::service::distinct::{self, Destinations, Opener, Openers, Wanted, at, opened_by};
use crate::service::failure::Failure;
use crate::service::field::{self, Opened, Sealed};
use crate::service::in_use::InUse;
use crate::service::items::Hashers;
use crate::service::masking::Sight;
use crate::service::offload::{Turns, Weight, offload};
use crate::service::perform::Operation;
use crate::service::perform::permit::{Asks, Permit, Right};
use crate::service::record::Account;
use crate::service::resource::{FieldName, KeyName};
use crate::service::usage::Tally;
use crate::service::vault::Purpose;

/// The results of a batch, in the order of its items.
pub type Results<T> = Vec<Result<T, Failure>>;

/// Encrypt many fields.
pub struct BatchEncrypt {
    /// The distinct keys and fields.
    pub targets: Vec<(KeyName, FieldName)>,
    /// The context of items without one.
    pub shared: EncodedContext,
    /// The items, or why one is not valid.
    pub items: Vec<Result<EncryptItem, Failure>>,
}

/// One field to encrypt.
pub struct EncryptItem {
    /// Index of its key and field.
    pub target: usize,
    /// Its own context, if it has one.
    pub context: Option<EncodedContext>,
    /// The value.
    pub plaintext: Bytes,
}

/// The field key of one distinct target, ready to seal.
struct Sealer {
    key: Arc<Key>,
    field_key: Arc<FieldKey>,
    version: u32,
}

impl Operation for BatchEncrypt {
    const ACTION: Action = Action::Encrypt;
    type Output = Results<Sealed>;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::OfFields
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        for (key, field) in &self.targets {
            account.used(key.resource(caller), 0, field.as_str(), 0);
        }
    }

    async fn run(
        mut self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Results<Sealed>, Failure> {
        let mut keys = Destinations::default();
        let mut sealers = Vec::with_capacity(self.targets.len());
        let mut hashers = Hashers::default();
        let mut by_item = Vec::new();
        let mut uses = count(
            self.targets.len(),
            self.items.iter().flatten().map(|item| item.target),
        )
        .into_iter();
        let mut turns = Turns::default();
        for (index, (key, field)) in self.targets.iter().enumerate() {
            turns.next().await;
            let ask = key.seal(permit.principal(), field);
            let key_of = match permit.entitle_any(ask) {
                Ok(entitled) => {
                    if *entitled.right() == Right::ByItem {
                        by_item.push(index);
                    }
                    keys.resolve(core, &entitled).await
                }
                Err(refused) => Err(refused),
            };
            let sealer = sealer(key_of, field);
            let version = sealer.as_ref().map_or(0, |sealer| sealer.version);
            account.used(
                key.resource(permit.principal()),
                version,
                field.as_str(),
                uses.next().unwrap_or(0),
            );
            if let Ok(sealer) = &sealer {
                let places = (index, account.place());
                hashers.add(core, places, &sealer.key, field.as_str());
            }
            sealers.push(sealer);
        }
        self.check_items(permit, &by_item, &mut turns).await;
        charge(core, permit, &self.items, &sealers)?;
        count_use(core, permit, &self.items, &mut sealers).await;
        let sizes = self
            .items
            .iter()
            .flatten()
            .map(|item| size(&item.plaintext, item.context.as_ref()));
        let weight = Weight {
            bytes: sizes.sum(),
            items: self.items.len(),
        };
        let in_use = InUse::new(
            sealers.iter().map(|sealer| {
                let sealer = sealer.as_ref().ok()?;
                Some((Arc::clone(&sealer.key), sealer.version))
            }),
            self.items
                .iter()
                .map(|item| Some(item.as_ref().ok()?.target)),
        );
        permit.release();
        let (mut results, hashed) = offload(core, weight, move || {
            let used = self.items.iter().map(|item| {
                let item = item.as_ref().ok()?;
                Some((item.target, item.context.as_ref().unwrap_or(&self.shared)))
            });
            let hashed = hashers.hash(used);
            seal_all(self.items, &self.shared, &sealers).map(|results| (results, hashed))
        })
        .await??;
        in_use.check_again(core, permit, &mut results).await;
        account.items(&results);
        account.item_hashes(hashed, &results);
        Ok(results)
    }
}

impl BatchEncrypt {
    /// Refuses the items of targets whose right depends on the context, if theirs does not give it.
    async fn check_items(&mut self, permit: &Permit<'_>, by_item: &[usize], turns: &mut Turns) {
        if by_item.is_empty() {
            return;
        }
        for slot in &mut self.items {
            let Ok(item) = slot else { continue };
            let Some((key, field)) = self.targets.get(item.target) else {
                continue;
            };
            if by_item.binary_search(&item.target).is_err() {
                continue;
            }
            turns.next().await;
            let context = item.context.as_ref().unwrap_or(&self.shared);
            let ask = key.seal(permit.principal(), field);
            if let Err(refused) = permit.allowed(&ask, context) {
                *slot = Err(refused);
            }
        }
    }
}

fn sealer(key: Result<Arc<Key>, Failure>, field: &FieldName) -> Result<Sealer, Failure> {
    let key = key?;
    let version = key.primary();
    Ok(Sealer {
        field_key: version.field_key(field.field()?),
        version: version.number(),
        key,
    })
}

/// Charges what `items` are about to seal to the limits.
fn charge(
    core: &Core,
    permit: &Permit<'_>,
    items: &[Result<EncryptItem, Failure>],
    sealers: &[Result<Sealer, Failure>],
) -> Result<(), Failure> {
    let Some(mut charge) = Charge::begin(permit) else {
        return Ok(());
    };
    let mut sums = vec![Sum::default(); sealers.len()];
    for item in items.iter().flatten() {
        if let Some(sum) = sums.get_mut(item.target) {
            sum.add(item.plaintext.len());
        }
    }
    let encrypts = ActionSet::of(&[Action::Encrypt]);
    for (sealer, sum) in sealers.iter().zip(sums) {
        if let Ok(sealer) = sealer {
            charge.add(&sealer.key, encrypts, sum);
        }
    }
    charge.make(core, permit)
}

/// Counts what `items` are about to seal, and takes the sealers away whose keys could not be counted.
async fn count_use(
    core: &Core,
    permit: &Permit<'_>,
    items: &[Result<EncryptItem, Failure>],
    sealers: &mut [Result<Sealer, Failure>],
) {
    let mut sums = vec![(0, 0); sealers.len()];
    for item in items.iter().flatten() {
        if let Some((messages, bytes)) = sums.get_mut(item.target) {
            *messages += 1;
            *bytes += item.plaintext.len() as u64;
        }
    }
    let mut tally = Tally::default();
    for (sealer, (messages, bytes)) in sealers.iter().zip(sums) {
        if let Ok(sealer) = sealer {
            tally.add(&sealer.key, messages, bytes);
        }
    }
    let uncounted = tally.count(core, permit).await;
    for sealer in sealers {
        if let Ok(ready) = sealer
            && let Err(failure) = uncounted.check(&ready.key)
        {
            *sealer = Err(failure);
        }
    }
}

/// Seals every item into one buffer of exactly the right size, of which the results are parts.
fn seal_all(
    items: Vec<Result<EncryptItem, Failure>>,
    shared: &EncodedContext,
    sealers: &[Result<Sealer, Failure>],
) -> Result<Results<Sealed>, Failure> {
    let mut nonces = Nonces::make(items.iter().flatten().count())?;
    let bytes = items
        .iter()
        .flatten()
        .map(|item| item.plaintext.len() + OVERHEAD_KC_XAES)
        .sum();
    let mut out = Vec::with_capacity(bytes);
    let sealed: Vec<Result<(Range<usize>, u32), Failure>> = items
        .into_iter()
        .map(|item| {
            let item = item?;
            let sealer = at(sealers, item.target)?;
            let nonce = nonces
                .next_nonce()
                .ok_or_else(|| Failure::internal("too few nonces"))?;
            let start = out.len();
            let context = item.context.as_ref().unwrap_or(shared);
            sealer
                .field_key
                .seal(nonce, context, &item.plaintext, &mut out)
                .map_err(Failure::internal)?;
            Ok((start..out.len(), sealer.version))
        })
        .collect();
    let out = Bytes::from(out);
    let part = |(range, version)| Sealed {
        ciphertext: out.slice(range),
        version,
    };
    Ok(sealed.into_iter().map(|result| result.map(part)).collect())
}

/// Decrypt many fields.
pub struct BatchDecrypt {
    /// The distinct fields.
    pub fields: Vec<FieldName>,
    /// The context of items without one.
    pub shared: EncodedContext,
    /// The items, or why one is not valid.
    pub items: Vec<Result<DecryptItem, Failure>>,
}

/// One field to decrypt.
pub struct DecryptItem {
    /// Index of its field.
    pub field: usize,
    /// Its own context, if it has one.
    pub context: Option<EncodedContext>,
    /// Format v1, binary.
    pub ciphertext: Bytes,
}

impl DecryptItem {
    /// What it weighs, bytes.
    pub(super) fn size(&self) -> usize {
        size(&self.ciphertext, self.context.as_ref())
    }
}

fn size(value: &Bytes, context: Option<&EncodedContext>) -> usize {
    value.len() + context.map_or(0, |context| context.as_bytes().len())
}

/// An item with the index of what opens it, and how much of its value leaves.
struct Ready {
    item: DecryptItem,
    opener: usize,
    sight: Sight,
}

impl Operation for BatchDecrypt {
    const ACTION: Action = Action::Decrypt;
    type Output = Results<Opened>;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::OfFields
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        distinct::about_items(self.items.iter().flatten(), &self.fields, account);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Results<Opened>, Failure> {
        let mut openers = Openers::default();
        let mut items = Vec::with_capacity(self.items.len());
        let mut turns = Turns::default();
        for item in self.items {
            turns.next().await;
            items.push(match item {
                Ok(item) => {
                    let context = item.context.as_ref().unwrap_or(&self.shared);
                    let wanted = Wanted {
                        item: &item,
                        context,
                        purpose: Purpose::Reveal,
                        destination: None,
                    };
                    let resolved = openers.resolve(core, permit, &self.fields, &wanted).await;
                    resolved.map(|(opener, sight)| Ready {
                        item,
                        opener,
                        sight,
                    })
                }
                Err(failure) => Err(failure),
            });
        }
        let hashers = openers.report(core, account, &self.fields);
        if let Some(mut charge) = Charge::begin(permit) {
            let used = items.iter().flatten();
            openers.charge(&mut charge, used.map(|ready| (&ready.item, ready.opener)));
            charge.make(core, permit)?;
        }
        let sizes = items.iter().flatten().map(|ready| ready.item.size());
        let weight = Weight {
            bytes: sizes.sum(),
            items: items.len(),
        };
        let in_use = InUse::new(
            openers.list.iter().map(Opener::in_use),
            items.iter().map(|item| Some(item.as_ref().ok()?.opener)),
        );
        permit.release();
        let (mut results, hashed) = offload(core, weight, move || {
            let used = items.iter().map(|item| {
                let ready = item.as_ref().ok()?;
                let context = ready.item.context.as_ref().unwrap_or(&self.shared);
                Some((ready.opener, context))
            });
            let hashed = hashers.hash(used);
            (open_all(items, &self.shared, &openers.list), hashed)
        })
        .await?;
        in_use.check_again(core, permit, &mut results).await;
        account.items(&results);
        account.item_hashes(hashed, &results);
        account.masked(results.iter().flatten().filter(|one| one.masked).count());
        Ok(results)
    }
}

/// Opens every item into one buffer, of which the results are parts.
fn open_all(
    items: Vec<Result<Ready, Failure>>,
    shared: &EncodedContext,
    openers: &[Opener],
) -> Results<Opened> {
    let bytes: usize = items
        .iter()
        .flatten()
        .map(|ready| ready.sight.room(ready.item.ciphertext.len()))
        .sum();
    // The overhead is room for a tag, which is cut off only after the item was opened.
    let mut out = Vec::with_capacity(bytes + OVERHEAD_KC_XAES);
    let opened: Vec<Result<(Range<usize>, bool), Failure>> = items
        .into_iter()
        .map(|item| {
            let Ready {
                item,
                opener,
                sight,
            } = item?;
            let ciphertext = field::parse(&item.ciphertext)?;
            let (_, field_key) = opened_by(openers, opener)?;
            let start = out.len();
            let context = item.context.as_ref().unwrap_or(shared);
            sight.open(field_key, &ciphertext, context, &mut out)?;
            Ok((start..out.len(), sight.is_masked()))
        })
        .collect();
    let out = field::fitting(out);
    let part = |(range, masked)| Opened {
        plaintext: out.slice(range),
        masked,
    };
    opened.into_iter().map(|result| result.map(part)).collect()
}

fn count(distinct: usize, used: impl Iterator<Item = usize>) -> Vec<u32> {
    let mut counts = vec![0; distinct];
    for index in used {
        if let Some(count) = counts.get_mut(index) {
            *count += 1;
        }
    }
    counts
}
