//! BatchEncrypt and BatchDecrypt: what is distinct in a batch is resolved once, then its items run without an await, off
//! the runtime's thread if they are many bytes. An item that fails takes nobody with it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use fieldkeep_crypto::ciphertext::{Ciphertext, Handle, OVERHEAD_KC_XAES, Suite};
use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_crypto::keys::{FieldKey, Nonces};
use fieldkeep_keystore::key::Key;

use crate::access::Action;
use crate::access::principal::Principal;
use crate::service::failure::Failure;
use crate::service::field::{self, Sealed};
use crate::service::perform::{Operation, Permit};
use crate::service::record::Account;
use crate::service::resource::{FieldName, KeyName};
use crate::service::{Core, offload};

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
    field_key: Arc<FieldKey>,
    version: u32,
}

impl Operation for BatchEncrypt {
    const ACTION: Action = Action::Encrypt;
    type Output = Results<Sealed>;

    fn tenant<'a>(&'a self, caller: &'a Principal) -> &'a str {
        caller.tenant.as_str()
    }

    async fn run(self, core: &Core, permit: &Permit, account: &mut Account) -> Result<Results<Sealed>, Failure> {
        let mut keys = Destinations::default();
        let mut sealers = Vec::with_capacity(self.targets.len());
        let mut uses = count(self.targets.len(), self.items.iter().flatten().map(|item| item.target)).into_iter();
        for (key, field) in &self.targets {
            let sealer = sealer(keys.resolve(core, permit, key).await, field);
            let version = sealer.as_ref().map_or(0, |sealer| sealer.version);
            account.used(key.resource(permit.principal()), version, field.as_str(), uses.next().unwrap_or(0));
            sealers.push(sealer);
        }
        let bytes = self.items.iter().flatten().map(|item| item.plaintext.len()).sum();
        let results = offload(core, bytes, move || seal_all(self.items, &self.shared, &sealers)).await??;
        account.items(&results);
        Ok(results)
    }
}

fn sealer(key: Result<Arc<Key>, Failure>, field: &FieldName) -> Result<Sealer, Failure> {
    let key = key?;
    let version = key.primary();
    Ok(Sealer { field_key: version.field_key(field.field()?), version: version.number() })
}

/// Seals every item into one buffer of exactly the right size, of which the results are parts.
fn seal_all(
    items: Vec<Result<EncryptItem, Failure>>,
    shared: &EncodedContext,
    sealers: &[Result<Sealer, Failure>],
) -> Result<Results<Sealed>, Failure> {
    let mut nonces = Nonces::make(items.iter().flatten().count())?;
    let bytes = items.iter().flatten().map(|item| item.plaintext.len() + OVERHEAD_KC_XAES).sum();
    let mut out = Vec::with_capacity(bytes);
    let sealed: Vec<Result<(Range<usize>, u32), Failure>> = items
        .into_iter()
        .map(|item| {
            let item = item?;
            let sealer = at(sealers, item.target)?;
            let nonce = nonces.next_nonce().ok_or_else(|| Failure::internal("too few nonces"))?;
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
    let part = |(range, version)| Sealed { ciphertext: out.slice(range), version };
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

impl Operation for BatchDecrypt {
    const ACTION: Action = Action::Decrypt;
    type Output = Results<Bytes>;

    fn tenant<'a>(&'a self, caller: &'a Principal) -> &'a str {
        caller.tenant.as_str()
    }

    async fn run(self, core: &Core, permit: &Permit, account: &mut Account) -> Result<Results<Bytes>, Failure> {
        let mut openers = Openers::default();
        let mut items = Vec::with_capacity(self.items.len());
        for item in self.items {
            items.push(match item {
                Ok(item) => openers.resolve(core, permit, &self.fields, &item).await.map(|opener| (item, opener)),
                Err(failure) => Err(failure),
            });
        }
        openers.report(account, &self.fields);
        let bytes = items.iter().flatten().map(|(item, _)| item.ciphertext.len()).sum();
        let results = offload(core, bytes, move || open_all(items, &self.shared, &openers.list)).await?;
        account.items(&results);
        Ok(results)
    }
}

/// Opens every item into one buffer, of which the results are parts.
fn open_all(
    items: Vec<Result<(DecryptItem, usize), Failure>>,
    shared: &EncodedContext,
    openers: &[Opener],
) -> Results<Bytes> {
    // The overhead of the longest is room for a tag, which is cut off only after the item was opened.
    let bytes: usize = items.iter().flatten().map(|(item, _)| item.ciphertext.len()).sum();
    let spare = items.len().saturating_sub(1) * OVERHEAD_KC_XAES;
    let mut out = Vec::with_capacity(bytes.saturating_sub(spare));
    let opened: Vec<Result<Range<usize>, Failure>> = items
        .into_iter()
        .map(|item| {
            let (item, opener) = item?;
            let ciphertext = field::parse(&item.ciphertext)?;
            let (_, field_key) = opened_by(openers, opener)?;
            let start = out.len();
            let context = item.context.as_ref().unwrap_or(shared);
            field::open(field_key, &ciphertext, context, &mut out)?;
            Ok(start..out.len())
        })
        .collect();
    let out = Bytes::from(out);
    opened.into_iter().map(|result| result.map(|range| out.slice(range))).collect()
}

/// The keys that a batch seals with, each resolved and authorized once.
#[derive(Default)]
pub(super) struct Destinations {
    keys: HashMap<(String, String), Result<Arc<Key>, Failure>>,
}

impl Destinations {
    pub(super) async fn resolve(
        &mut self,
        core: &Core,
        permit: &Permit,
        name: &KeyName,
    ) -> Result<Arc<Key>, Failure> {
        let full = (name.tenant(permit.principal()).to_owned(), name.key().to_owned());
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

impl Openers {
    /// The index of what opens `item`; it may hold a failure. A malformed ciphertext has none.
    pub(super) async fn resolve(
        &mut self,
        core: &Core,
        permit: &Permit,
        fields: &[FieldName],
        item: &DecryptItem,
    ) -> Result<usize, Failure> {
        let ciphertext = field::parse(&item.ciphertext)?;
        let name = (ciphertext.handle(), ciphertext.suite(), ciphertext.version(), item.field);
        let known = match self.last {
            Some((last, opener)) if last == name => Some(opener),
            _ => self.index.get(&name).copied(),
        };
        let opener = match known {
            Some(opener) => opener,
            None => {
                let ready = self.open(core, permit, fields, &ciphertext, item.field).await;
                let (handle, _, version, field) = name;
                self.list.push(Opener { handle, version, field, items: 0, ready });
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
        permit: &Permit,
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
        let version = core.vault.opening_version(permit, &key, ciphertext.version()).await?;
        let field = fields.get(field).ok_or_else(|| Failure::internal("a field without a name"))?;
        let field_key = version.field_key(field.field()?);
        Ok((key, field_key))
    }

    /// Tells the record what was opened.
    pub(super) fn report(&self, account: &mut Account, fields: &[FieldName]) {
        for opener in &self.list {
            let name = match &opener.ready {
                Ok((key, _)) => field::resource_of(key),
                Err(_) => format!("handle:{}", opener.handle),
            };
            let field = fields.get(opener.field).map_or("", FieldName::as_str);
            account.used(name, opener.version, field, opener.items);
        }
    }
}

/// What opens an item, or why nothing does.
pub(super) fn opened_by(openers: &[Opener], index: usize) -> Result<(&Arc<Key>, &FieldKey), Failure> {
    let opener = openers.get(index).ok_or_else(|| Failure::internal("an item without an opener"))?;
    match &opener.ready {
        Ok((key, field_key)) => Ok((key, field_key)),
        Err(failure) => Err(failure.clone()),
    }
}

/// The resolved thing at `index`, or its failure.
pub(super) fn at<T>(list: &[Result<T, Failure>], index: usize) -> Result<&T, Failure> {
    let found = list.get(index).ok_or_else(|| Failure::internal("an item without its key"))?;
    found.as_ref().map_err(Clone::clone)
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
