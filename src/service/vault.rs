//! The keystore behind its permit: whoever has no [`Permit`] has no way to a key.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use fieldkeep_crypto::audit::ItemHasher;
use fieldkeep_crypto::ciphertext::{Handle, Suite};
use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_keystore::info::{Change, Changed, KeyInfo};
use fieldkeep_keystore::key::{Key, Version};
use fieldkeep_keystore::keystore::Keystore;
use fieldkeep_keystore::rotation::plan::Act;
use fieldkeep_keystore::store::Operation;
use futures_util::poll;

use crate::access::action::{Action, ActionSet};
use crate::access::principal::Principal;
use crate::service::errors;
use crate::service::failure::{Failure, Opaque};
use crate::service::masking::may_be_used;
use crate::service::perform::own::{OwnAct, OwnPermit};
use crate::service::perform::permit::{Ask, Entitled, Permit, Right};
use crate::service::resource::KeyName;
use crate::service::schedule::KeyId;

/// Which key a ciphertext names, and how it was sealed.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// The key's handle.
    pub handle: Handle,
    /// The suite that the ciphertext names.
    pub suite: Suite,
}

/// What a ciphertext is opened for.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The field.
    pub field: &'a str,
    /// The encryption context; `None`: each item has its own.
    pub context: Option<&'a EncodedContext>,
    /// What becomes of the value.
    pub purpose: Purpose<'a>,
}

/// What becomes of a value that is opened.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'a> {
    /// It leaves.
    Reveal,
    /// It is sealed again under the newest version of the same key.
    Renew,
    /// It is sealed again under a key that is named. If that is another one, whoever asks has to have the right to the value:
    /// under a key of his own he could read it.
    Move(&'a KeyName),
}

impl<'a> Purpose<'a> {
    /// The key that the value moves to, if that is another one than `from`.
    pub(super) fn moves_to(self, caller: &Principal, from: &Key) -> Option<&'a KeyName> {
        let Purpose::Move(to) = self else {
            return None;
        };
        let same = to.tenant(caller) == from.tenant().as_str() && to.key() == from.name().as_str();
        (!same).then_some(to)
    }
}

impl<'a> Opening<'a> {
    /// The right that it needs, now that the key is known.
    pub(super) fn ask<'k>(&self, caller: &Principal, key: &'k Key) -> Ask<'k>
    where
        'a: 'k,
    {
        let action = match self.purpose {
            Purpose::Reveal => Action::Decrypt,
            purpose if purpose.moves_to(caller, key).is_some() => Action::Decrypt,
            Purpose::Renew | Purpose::Move(_) => Action::ReEncrypt,
        };
        Ask {
            action,
            tenant: key.tenant().as_str(),
            key: key.name().as_str(),
            field: self.field,
        }
    }
}

impl Opening<'_> {
    /// What opening with `key` counts as for limits. A value that moves to another key is one that whoever has that key can read. One
    /// that is or may be `masked` counts as decrypted too: a budget of decryptions holds for what is seen in part.
    pub(super) fn counted_as(&self, permit: &Permit<'_>, key: &Key, masked: bool) -> ActionSet {
        let asked = self.ask(permit.principal(), key).action;
        if masked {
            ActionSet::of(&[permit.action(), asked, Action::DecryptMasked])
        } else {
            ActionSet::of(&[permit.action(), asked])
        }
    }
}

/// The keystore. Each method asks for the right to what it is about, before any key is looked up by its name or used.
pub struct Vault {
    keystore: Keystore,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").finish_non_exhaustive()
    }
}

impl Vault {
    /// Locks `keystore` away.
    #[must_use]
    pub fn new(keystore: Keystore) -> Self {
        Self { keystore }
    }

    /// The key to encrypt with that `entitled` is about.
    ///
    /// # Errors
    /// If there is no such key, if it is disabled, or if the store fails.
    pub async fn sealing_key(&self, entitled: &Entitled<'_>) -> Result<Arc<Key>, Failure> {
        let ask = entitled.ask();
        if ask.action != Action::Encrypt {
            return Err(Failure::internal("a key to seal with, without that right"));
        }
        let key = self
            .keystore
            .key(ask.tenant, ask.key)
            .await
            .map_err(|error| errors::named_key(error, ask.key))?;
        if !key.enabled() {
            return Err(Failure::KeyDisabled);
        }
        Ok(key)
    }

    /// The key that a ciphertext names, to open a field with it: first by its handle, then its suite, then the right to it.
    /// Everything that a foreign caller could learn from is one opaque failure, so whether the key is enabled is looked at
    /// after the right, in [`Vault::opening_version`].
    ///
    /// # Errors
    /// [`Failure::DecryptionFailed`] for an unknown handle, a key whose record is damaged, another suite and a foreign tenant's
    /// key; [`Failure::PermissionDenied`] to the key's own tenant, and to whoever may only see it masked; or the store fails.
    pub async fn opening_key(
        &self,
        permit: &Permit<'_>,
        named: Named,
        wanted: &Opening<'_>,
    ) -> Result<(Arc<Key>, Right), Failure> {
        let key = self
            .keystore
            .key_by_handle(named.handle)
            .await
            .map_err(errors::key_of_ciphertext)?;
        if key.suite() != named.suite {
            return Err(Failure::DecryptionFailed(Opaque::SuiteMismatch));
        }
        let ask = wanted.ask(permit.principal(), &key);
        let entitled = match wanted.context {
            Some(context) => permit.entitle(ask, context),
            None => permit.entitle_any(ask),
        };
        let right = match entitled {
            Ok(entitled) => {
                let right = entitled.right().clone();
                if let Right::Whole(sight) = &right {
                    may_be_used(sight, wanted, &ask)?;
                }
                right
            }
            Err(_) if *key.tenant() != permit.principal().tenant => {
                return Err(Failure::DecryptionFailed(Opaque::ForeignTenant));
            }
            Err(refused) => return Err(refused),
        };
        Ok((key, right))
    }

    /// The version of `key` that a ciphertext names, if it and the key may decrypt.
    ///
    /// # Errors
    /// [`Failure::KeyDisabled`]; [`Failure::DecryptionFailed`] if there never was such a version, [`Failure::VersionDisabled`], or
    /// the store fails.
    pub async fn opening_version(
        &self,
        _permit: &Permit<'_>,
        key: &Key,
        version: u32,
    ) -> Result<Arc<Version>, Failure> {
        if !key.enabled() {
            return Err(Failure::KeyDisabled);
        }
        key.version(version)
            .await
            .map_err(errors::version_of_ciphertext)
    }

    /// Whether `key`, which was found before, and its version may still be used. Looks at the key as it is now.
    ///
    /// # Errors
    /// [`Failure::KeyDisabled`], [`Failure::VersionDisabled`], or the store fails.
    pub async fn check_again(
        &self,
        _permit: &Permit<'_>,
        key: &Arc<Key>,
        version: u32,
    ) -> Result<(), Failure> {
        let now = self
            .keystore
            .key_by_handle(key.handle())
            .await
            .map_err(errors::of_key)?;
        if Arc::ptr_eq(&now, key) {
            return Ok(());
        }
        now.version(version)
            .await
            .map(drop)
            .map_err(errors::version_of_ciphertext)
    }

    /// Counts what is about to be sealed under the primary version of `key`: so many messages with so many bytes of
    /// plaintext. Almost never waits; if it did, looks at the key again, which may have been disabled meanwhile.
    ///
    /// # Errors
    /// The count cannot be kept, since the store fails, or the key is disabled by now: nothing may be sealed.
    pub async fn count(
        &self,
        permit: &Permit<'_>,
        key: &Arc<Key>,
        messages: u64,
        bytes: u64,
    ) -> Result<(), Failure> {
        let mut counting = pin!(key.count(messages, bytes));
        if let Poll::Ready(counted) = poll!(&mut counting) {
            return counted.map_err(errors::of_key);
        }
        counting.await.map_err(errors::of_key)?;
        Box::pin(self.check_again(permit, key, key.primary().number())).await
    }

    /// The keystore, to manage what `tenant` has (`*`: what all have), or one of its keys.
    ///
    /// # Errors
    /// Without a right to that.
    pub fn manage(
        &self,
        permit: &Permit<'_>,
        tenant: &str,
        key: Option<&str>,
    ) -> Result<&Keystore, Failure> {
        permit.check(tenant, key)?;
        Ok(&self.keystore)
    }

    /// The operation of an act of the service's own: the same whenever it is tried, so that the store does it once.
    #[must_use]
    pub fn own_operation(&self, act: &OwnAct) -> Operation {
        match act.act {
            Act::Rotate { from, .. } => self.keystore.rotation_operation(act.handle, from),
            Act::Retire { through } => self.keystore.retirement_operation(act.handle, through),
        }
    }

    /// Does what `permit` is for, and nothing else. With it comes what the store holds of the key now, if the act had been
    /// done before.
    ///
    /// # Errors
    /// [`Failure::Conflict`] if another rotation came first; the key is not there; the store fails.
    pub async fn do_own_act(
        &self,
        permit: &OwnPermit,
    ) -> Result<(Changed<KeyInfo>, Vec<Change>), Failure> {
        let KeyId { tenant, key } = &permit.act().id;
        let (operation, now) = (permit.operation(), permit.now_s());
        let changed = match permit.act().act {
            Act::Rotate { from, .. } => {
                let keystore = &self.keystore;
                keystore
                    .rotate_key_from(tenant, key, from, operation, now)
                    .await?
            }
            Act::Retire { through } => {
                let keystore = &self.keystore;
                keystore
                    .retire_versions(tenant, key, through, operation, now)
                    .await?
            }
        };
        let present = if changed.changes.is_empty() {
            self.keystore.present_key(tenant, key).await?
        } else {
            Vec::new()
        };
        Ok((changed, present))
    }

    /// For the planner in [`crate::service::schedule`], which reads no key.
    pub(super) fn records(&self) -> &Keystore {
        &self.keystore
    }

    /// A keyed hash of an encryption context, for the audit record.
    #[must_use]
    pub fn context_hash(&self, context: &EncodedContext) -> [u8; 16] {
        self.keystore.audit_key().context_hash(context)
    }

    /// What makes keyed hashes of the items of a field, for the audit record.
    #[must_use]
    pub fn item_hasher(&self, tenant: &str, key: &str, field: &str) -> ItemHasher {
        self.keystore.audit_key().item_hasher(tenant, key, field)
    }
}
