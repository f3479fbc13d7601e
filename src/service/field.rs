//! Encrypt and Decrypt of one field.

use std::fmt;

use bytes::Bytes;
use fieldkeep_crypto::ciphertext::{Ciphertext, OVERHEAD_KC_XAES};
use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_crypto::keys::{FieldKey, Nonce};
use fieldkeep_keystore::key::Key;
use zeroize::Zeroizing;

use crate::access::action::{Action, ActionSet};
use crate::access::principal::Principal;
use crate::service::Core;
use crate::service::charge::charge_one;
use crate::service::failure::{Failure, Opaque};
use crate::service::items::hash_item;
use crate::service::masking::Sight;
use crate::service::perform::Operation;
use crate::service::perform::permit::{Asks, Permit, Right};
use crate::service::record::Account;
use crate::service::resource::{FieldName, KeyName, key_resource};
use crate::service::vault::{Named, Opening, Purpose};
use crate::version::AUDITED;

/// Encrypt one field.
pub struct Encrypt {
    /// The key.
    pub key: KeyName,
    /// The field.
    pub field: FieldName,
    /// The context.
    pub context: EncodedContext,
    /// The value.
    pub plaintext: Bytes,
}

/// A ciphertext and the version that sealed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Format v1, binary.
    pub ciphertext: Bytes,
    /// The key version.
    pub version: u32,
}

impl Operation for Encrypt {
    const ACTION: Action = Action::Encrypt;
    type Output = Sealed;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::Field
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        account.used(self.key.resource(caller), 0, self.field.as_str(), 0);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Sealed, Failure> {
        self.about(permit.principal(), account);
        hash_context(core, account, &self.context);
        let ask = self.key.seal(permit.principal(), &self.field);
        let entitled = permit.entitle(ask, &self.context)?;
        let key = core.vault.sealing_key(&entitled).await?;
        hash_item(core, account, &key, &self.field, &self.context);
        let encrypts = ActionSet::of(&[Action::Encrypt]);
        charge_one(core, permit, &key, encrypts, self.plaintext.len())?;
        let version = key.primary();
        account.used_version(version.number());
        let field_key = version.field_key(self.field.field()?);
        let bytes = self.plaintext.len() as u64;
        core.vault.count(permit, &key, 1, bytes).await?;
        let mut out = Vec::with_capacity(self.plaintext.len() + OVERHEAD_KC_XAES);
        field_key
            .seal(Nonce::make()?, &self.context, &self.plaintext, &mut out)
            .map_err(Failure::internal)?;
        Ok(Sealed {
            ciphertext: Bytes::from(out),
            version: version.number(),
        })
    }
}

/// Decrypt one field.
pub struct Decrypt {
    /// The field.
    pub field: FieldName,
    /// The context.
    pub context: EncodedContext,
    /// Format v1, binary.
    pub ciphertext: Bytes,
}

/// What leaves of a value that was opened.
#[derive(Clone, PartialEq, Eq)]
pub struct Opened {
    /// The value, or what its mask shows of it.
    pub plaintext: Bytes,
    /// Whether it is masked.
    pub masked: bool,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("plaintext_bytes", &self.plaintext.len())
            .field("masked", &self.masked)
            .finish()
    }
}

impl Operation for Decrypt {
    const ACTION: Action = Action::Decrypt;
    type Output = Opened;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::OfFields
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        about_ciphertext(&self.ciphertext, &self.field, account);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Opened, Failure> {
        hash_context(core, account, &self.context);
        let ciphertext = parse_reported(&self.ciphertext, &self.field, account)?;
        let opening = Opening {
            field: self.field.as_str(),
            context: Some(&self.context),
            purpose: Purpose::Reveal,
        };
        let source = open_source(core, permit, account, &ciphertext, &self.field, &opening).await?;
        let actions = opening.counted_as(permit, &source.key, source.sight.is_masked());
        let bytes = ciphertext.plaintext_len();
        charge_one(core, permit, &source.key, actions, bytes)?;
        let sight = &source.sight;
        let room = sight.room(self.ciphertext.len()) + TAG_BYTES;
        let mut out = Vec::with_capacity(room);
        sight.open(&source.field_key, &ciphertext, &self.context, &mut out)?;
        let masked = sight.is_masked();
        account.masked(usize::from(masked));
        Ok(Opened {
            plaintext: Bytes::from(out),
            masked,
        })
    }
}

/// The key that a ciphertext names, and its field key, ready to open it.
pub(super) struct Source {
    pub(super) key: std::sync::Arc<Key>,
    pub(super) field_key: std::sync::Arc<FieldKey>,
    /// How much of the value the caller may see.
    pub(super) sight: Sight,
}

/// Looks up what a unary call opens, in the order of docs/ciphertext-format.md, and reports it.
pub(super) async fn open_source(
    core: &Core,
    permit: &Permit<'_>,
    account: &mut Account,
    ciphertext: &Ciphertext<'_>,
    field: &FieldName,
    opening: &Opening<'_>,
) -> Result<Source, Failure> {
    let handle = ciphertext.handle();
    let named = Named {
        handle,
        suite: ciphertext.suite(),
    };
    let (key, right) = match core.vault.opening_key(permit, named, opening).await {
        Ok(found) => found,
        Err(failure) => {
            account.used(
                format!("handle:{handle}"),
                ciphertext.version(),
                field.as_str(),
                0,
            );
            return Err(failure);
        }
    };
    account.used(resource_of(&key), ciphertext.version(), field.as_str(), 0);
    if let Some(context) = opening.context {
        hash_item(core, account, &key, field, context);
    }
    let version = core
        .vault
        .opening_version(permit, &key, ciphertext.version())
        .await?;
    let field_key = version.field_key(field.field()?);
    let sight = match right {
        Right::Whole(sight) => sight,
        Right::ByItem => return Err(Failure::internal("a right without the context of its call")),
    };
    Ok(Source {
        key,
        field_key,
        sight,
    })
}

/// Names the key and the field of a ciphertext that was not looked at because the call was refused.
pub(super) fn about_ciphertext(bytes: &[u8], field: &FieldName, account: &mut Account) {
    let (name, version) = named_by(bytes);
    account.not_found(name, version, field.as_str(), 0);
}

/// What the record calls the key and version of a ciphertext that is not looked up: its handle, or that it has none.
pub(super) fn named_by(bytes: &[u8]) -> (String, u32) {
    Ciphertext::parse(bytes).map_or_else(
        |_| (String::from(MALFORMED), 0),
        |ciphertext| {
            (
                format!("handle:{}", ciphertext.handle()),
                ciphertext.version(),
            )
        },
    )
}

/// What the record calls the key of what is no ciphertext.
pub(super) const MALFORMED: &str = "malformed";

/// Parses a unary call's ciphertext; a malformed one leaves its field on record.
pub(super) fn parse_reported<'a>(
    bytes: &'a [u8],
    field: &FieldName,
    account: &mut Account,
) -> Result<Ciphertext<'a>, Failure> {
    parse(bytes).inspect_err(|_| account.not_found(MALFORMED.into(), 0, field.as_str(), 0))
}

/// Parses a ciphertext; that it is malformed is nothing that the caller learns.
pub(super) fn parse(bytes: &[u8]) -> Result<Ciphertext<'_>, Failure> {
    Ciphertext::parse(bytes).map_err(|_| Failure::DecryptionFailed(Opaque::Malformed))
}

/// The bytes of the value in a ciphertext; none in what is not one.
pub(super) fn value_bytes(bytes: &[u8]) -> usize {
    Ciphertext::parse(bytes).map_or(0, |ciphertext| ciphertext.plaintext_len())
}

/// Opens `ciphertext`, appending its plaintext to `out`.
pub(super) fn open(
    field_key: &FieldKey,
    ciphertext: &Ciphertext<'_>,
    context: &EncodedContext,
    out: &mut Vec<u8>,
) -> Result<(), Failure> {
    field_key
        .open(ciphertext, context, out)
        .map_err(|_| Failure::DecryptionFailed(Opaque::DecryptionFailed))
}

/// What stands behind a plaintext until it is verified, bytes.
const TAG_BYTES: usize = 16;

/// Room for a plaintext while it is opened, bytes.
pub(super) fn opened_capacity(ciphertext: &Ciphertext<'_>) -> usize {
    ciphertext.plaintext_len() + TAG_BYTES
}

/// A buffer for a plaintext that does not leave: wiped when dropped, and never grown, so that no copy stays behind.
pub(super) fn scratch(bytes: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(bytes))
}

/// The parts of a batch's results in one buffer, which gives back what it has too much if many items failed.
pub(super) fn fitting(mut out: Vec<u8>) -> Bytes {
    if out.capacity() - out.len() > out.len() / 4 {
        out.shrink_to_fit();
    }
    Bytes::from(out)
}

/// A key's full name.
pub(super) fn resource_of(key: &Key) -> String {
    key_resource(key.tenant().as_str(), key.name().as_str())
}

/// Reports the keyed hash of a unary call's context, if it has one. It is for the record alone.
pub(super) fn hash_context(core: &Core, account: &mut Account, context: &EncodedContext) {
    if AUDITED && !context.is_empty() {
        account.context(core.vault.context_hash(context));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_is_mostly_empty_is_given_back() {
        for (capacity, bytes, kept) in [(1 << 20, 100, 100), (1000, 900, 1000)] {
            let mut out = Vec::with_capacity(capacity);
            out.resize(bytes, 7);
            let whole = fitting(out).try_into_mut().unwrap();
            assert_eq!((whole.len(), whole.capacity()), (bytes, kept));
        }
    }
}
