//! Where the handles and DEKs of new keys come from: the operating system, always, in a service.
//!
//! The exception is for tests of applications, whose ciphertexts should decrypt in their next run. It exists only with the
//! feature `testing`, and only over a store in memory that is made here: keys that anybody can compute never get near a store
//! that keeps them, or near a keystore that was not made for this.

use fieldkeep_crypto::{ciphertext::Handle, keys::Dek, names::Name, random::RandomError};

/// Where new keys come from.
pub(crate) enum KeySource {
    /// The operating system.
    Random,
    /// A seed: the same names and versions give the same keys.
    #[cfg(feature = "testing")]
    Fixed(fixed::Seed),
}

impl KeySource {
    /// The handle of a new key.
    pub(crate) fn handle(&self, _tenant: &Name, _name: &Name) -> Result<Handle, RandomError> {
        match self {
            Self::Random => Handle::make(),
            #[cfg(feature = "testing")]
            Self::Fixed(seed) => Ok(seed.handle(_tenant, _name)),
        }
    }

    /// The DEK of a new version of a key.
    pub(crate) fn dek(
        &self,
        _tenant: &Name,
        _name: &Name,
        _version: u32,
    ) -> Result<Dek, RandomError> {
        match self {
            Self::Random => Dek::make(),
            #[cfg(feature = "testing")]
            Self::Fixed(seed) => Ok(seed.dek(_tenant, _name, _version)),
        }
    }
}

#[cfg(feature = "testing")]
mod fixed {
    use std::sync::Arc;

    use fieldkeep_crypto::{
        ciphertext::Handle,
        keys::{Dek, RootKey},
        labels,
        names::Name,
    };
    use ring::hmac;
    use zeroize::Zeroizing;

    use super::KeySource;
    use crate::{
        cache::KeyCache,
        error::KeystoreError,
        info::CacheOptions,
        keystore::Keystore,
        lifecycle::Lifecycle,
        root::{RootError, RootParams, RootProvider},
        store::memory::MemoryStore,
    };

    /// What fixed keys are derived from. It is no secret.
    pub(crate) struct Seed(hmac::Key);

    impl Seed {
        pub(super) fn handle(&self, tenant: &Name, name: &Name) -> Handle {
            // Version 0 is no key's.
            let [a, b, c, d, e, f, g, h, ..] = self.derive(tenant, name, 0);
            Handle::from_bytes([a, b, c, d, e, f, g, h])
        }

        pub(super) fn dek(&self, tenant: &Name, name: &Name, version: u32) -> Dek {
            Dek::dangerous_from_bytes(&self.derive(tenant, name, version))
        }

        /// HMAC-SHA-256(seed, label || tenant || 0 || name || 0 || be32(version)); no name holds a zero byte.
        fn derive(&self, tenant: &Name, name: &Name, version: u32) -> [u8; 32] {
            let mut mac = hmac::Context::with_key(&self.0);
            mac.update(labels::FIXED);
            for part in [tenant, name] {
                mac.update(part.as_str().as_bytes());
                mac.update(&[0]);
            }
            mac.update(&version.to_be_bytes());
            let mut out = [0; 32];
            out.copy_from_slice(mac.sign().as_ref());
            out
        }
    }

    /// A root key that nobody keeps: the keystore ends with its memory.
    struct Unkept;

    impl RootProvider for Unkept {
        fn name(&self) -> &'static str {
            "unkept"
        }

        fn make(&self) -> Result<(RootKey, RootParams), RootError> {
            let mut bytes = Zeroizing::new([0; 32]);
            fieldkeep_crypto::random::fill(&mut *bytes)?;
            Ok((
                RootKey::from_bytes(bytes),
                RootParams::from_bytes(Vec::new()),
            ))
        }

        fn open(&self, _: &RootParams) -> Result<RootKey, RootError> {
            Ok(self.make()?.0)
        }
    }

    impl Keystore {
        /// A keystore in memory, for tests. With a `seed`, tenants and keys of the same names have the same handles and keys
        /// each time; whoever knows the seed knows the keys. Nonces stay random.
        ///
        /// # Errors
        /// As [`Keystore::init`].
        pub async fn dangerous_in_memory(
            seed: Option<&[u8]>,
            now: u64,
        ) -> Result<Keystore, KeystoreError> {
            let keystore = Keystore::init(Arc::new(MemoryStore::new()), &Unkept, now).await?;
            let Some(seed) = seed else {
                return Ok(keystore);
            };
            let seed = Seed(hmac::Key::new(hmac::HMAC_SHA256, seed));
            Ok(Keystore {
                inner: Arc::new(Lifecycle {
                    reader: Arc::clone(&keystore.inner.reader),
                    cache: KeyCache::new(&CacheOptions::default()),
                    source: KeySource::Fixed(seed),
                }),
            })
        }
    }
}
