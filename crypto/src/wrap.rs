//! Wrapping: keys and private keys encrypted under a parent key.
//!
//! WK = Expand(parent, `fieldkeep/v1/wrap` || purpose, 32). The wrapped form is `01 || N(24) || ciphertext || tag(16) || KC(32)`, the
//! AEAD of suite 01 under WK; its AAD is the encoded [`WrapContext`], so a wrap opens only as what it was made for.

use std::fmt;

use zeroize::Zeroizing;

use crate::error::{OpenError, SealError};
use crate::hkdf;
use crate::kc_xaes::{self, KcXaes};
use crate::keys::Nonce;
use crate::keys::{Kek, MasterKey, RootKey};
use crate::labels;
use crate::length_prefix;
use crate::random::{self, RandomError};

/// The first byte of the wrapped form.
pub const WRAP_VERSION: u8 = 1;

/// How much longer than the secret the wrapped form is, in bytes.
pub const WRAP_OVERHEAD_BYTES: usize = 1 + kc_xaes::OVERHEAD_BYTES;

/// The longest secret that can be wrapped, in bytes.
pub const MAX_SECRET_BYTES: usize = 16_384;

/// The longest tenant name and the longest object id in a [`WrapContext`], in bytes each.
pub const MAX_WRAP_NAME_BYTES: usize = 1024;

/// What a wrapped secret is. Decides the parent's kind, the wrapping key and a part of the AAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// A master key, under the root key.
    MasterKey = 1,
    /// A tenant's KEK, under a master key. The only purpose whose AAD has the store id.
    Kek = 2,
    /// A DEK, under its tenant's KEK. The only purpose with a suite.
    Dek = 3,
    /// The system's record key, under a master key.
    RecordKey = 4,
    /// A tenant's record key, under its KEK.
    TenantRecordKey = 5,
    /// The private key of a certificate authority, under a master key.
    CaKey = 6,
    /// The key of the audit trail's keyed hashes, under a master key.
    AuditKey = 7,
}

impl Purpose {
    /// The purpose's byte in labels and AAD.
    pub const fn code(self) -> u8 {
        match self {
            Self::MasterKey => 1,
            Self::Kek => 2,
            Self::Dek => 3,
            Self::RecordKey => 4,
            Self::TenantRecordKey => 5,
            Self::CaKey => 6,
            Self::AuditKey => 7,
        }
    }
}

/// Which store a record or a KEK belongs to: 16 random bytes, made once when the store is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId([u8; 16]);

impl StoreId {
    /// Draws an id from the operating system.
    ///
    /// # Errors
    /// [`RandomError`] when the operating system gives no random bytes.
    pub fn make() -> Result<Self, RandomError> {
        let mut bytes = [0; 16];
        random::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({self})")
    }
}

/// Everything that a wrap is bound to beside its purpose and its parent. All of it must be the same when it is unwrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrapContext<'a> {
    /// The suite of a DEK; 0 for every other purpose.
    pub suite: u8,
    /// The tenant's name; empty for what belongs to no tenant. At most [`MAX_WRAP_NAME_BYTES`].
    pub tenant: &'a str,
    /// What names the secret within the store, a key's handle for example. At most [`MAX_WRAP_NAME_BYTES`].
    pub object_id: &'a [u8],
    /// The version of the secret.
    pub version: u32,
    /// The version of the parent key.
    pub parent_version: u32,
    /// When the secret was made, in Unix seconds.
    pub created: u64,
    /// The store, exactly for [`Purpose::Kek`].
    pub store_id: Option<&'a StoreId>,
}

impl WrapContext<'_> {
    /// purpose || suite || lp(tenant) || lp(object id) || be32(version) || be32(parent version) || be64(created) [|| store id];
    /// `None` where the context does not fit the purpose.
    fn encode(&self, purpose: Purpose) -> Option<Vec<u8>> {
        let fits = (self.suite != 0) == (purpose == Purpose::Dek)
            && self.store_id.is_some() == (purpose == Purpose::Kek)
            && self.tenant.len() <= MAX_WRAP_NAME_BYTES
            && self.object_id.len() <= MAX_WRAP_NAME_BYTES;
        if !fits {
            return None;
        }
        let mut aad = Vec::with_capacity(42 + self.tenant.len() + self.object_id.len());
        aad.push(purpose.code());
        aad.push(self.suite);
        length_prefix::push(&mut aad, self.tenant.as_bytes());
        length_prefix::push(&mut aad, self.object_id);
        aad.extend_from_slice(&self.version.to_be_bytes());
        aad.extend_from_slice(&self.parent_version.to_be_bytes());
        aad.extend_from_slice(&self.created.to_be_bytes());
        if let Some(id) = self.store_id {
            aad.extend_from_slice(id.as_bytes());
        }
        Some(aad)
    }
}

/// A key that wraps others: [`RootKey`], [`MasterKey`] or [`Kek`], and nothing else.
pub trait WrappingKey: sealed::KeyBytes {
    /// Whether secrets of this purpose are wrapped under this kind of key.
    fn wraps(purpose: Purpose) -> bool;
}

impl WrappingKey for RootKey {
    fn wraps(purpose: Purpose) -> bool {
        matches!(purpose, Purpose::MasterKey)
    }
}

impl WrappingKey for MasterKey {
    fn wraps(purpose: Purpose) -> bool {
        matches!(
            purpose,
            Purpose::Kek | Purpose::RecordKey | Purpose::CaKey | Purpose::AuditKey
        )
    }
}

impl WrappingKey for Kek {
    fn wraps(purpose: Purpose) -> bool {
        matches!(purpose, Purpose::Dek | Purpose::TenantRecordKey)
    }
}

mod sealed {
    use crate::keys::{Kek, MasterKey, RootKey};

    pub trait KeyBytes {
        fn key_bytes(&self) -> &[u8; 32];
    }

    impl KeyBytes for RootKey {
        fn key_bytes(&self) -> &[u8; 32] {
            self.as_bytes()
        }
    }

    impl KeyBytes for MasterKey {
        fn key_bytes(&self) -> &[u8; 32] {
            self.as_bytes()
        }
    }

    impl KeyBytes for Kek {
        fn key_bytes(&self) -> &[u8; 32] {
            self.as_bytes()
        }
    }
}

/// Wraps `secret` (at most [`MAX_SECRET_BYTES`]) under `parent`: [`WRAP_OVERHEAD_BYTES`] more than the secret.
///
/// # Errors
/// [`SealError::WrongParent`] and [`SealError::WrapContext`] where parent or context do not fit the purpose,
/// [`SealError::TooLong`], [`SealError::Random`].
pub fn wrap<P: WrappingKey>(
    parent: &P,
    purpose: Purpose,
    context: &WrapContext<'_>,
    secret: &[u8],
) -> Result<Vec<u8>, SealError> {
    wrap_with_nonce(parent, purpose, context, &Nonce::make()?, secret)
}

fn wrap_with_nonce<P: WrappingKey>(
    parent: &P,
    purpose: Purpose,
    context: &WrapContext<'_>,
    nonce: &Nonce,
    secret: &[u8],
) -> Result<Vec<u8>, SealError> {
    if !P::wraps(purpose) {
        return Err(SealError::WrongParent);
    }
    if secret.len() > MAX_SECRET_BYTES {
        return Err(SealError::TooLong);
    }
    let aad = context.encode(purpose).ok_or(SealError::WrapContext)?;
    let mut wrapped = Vec::with_capacity(WRAP_OVERHEAD_BYTES + secret.len());
    wrapped.push(WRAP_VERSION);
    derive_wrapping_key(parent, purpose).seal(nonce, &aad, secret, &mut wrapped)?;
    Ok(wrapped)
}

/// Opens what [`wrap`] made with the same parent, purpose and context.
///
/// # Errors
/// [`OpenError`], which says nothing of the cause.
pub fn unwrap<P: WrappingKey>(
    parent: &P,
    purpose: Purpose,
    context: &WrapContext<'_>,
    wrapped: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (version, message) = wrapped.split_first().ok_or(OpenError)?;
    if *version != WRAP_VERSION
        || !P::wraps(purpose)
        || wrapped.len() > WRAP_OVERHEAD_BYTES + MAX_SECRET_BYTES
    {
        return Err(OpenError);
    }
    let aad = context.encode(purpose).ok_or(OpenError)?;
    let mut secret = Zeroizing::new(Vec::with_capacity(message.len()));
    derive_wrapping_key(parent, purpose).open(message, &aad, &mut secret)?;
    Ok(secret)
}

fn derive_wrapping_key<P: WrappingKey>(parent: &P, purpose: Purpose) -> KcXaes {
    KcXaes::new(&hkdf::expand::<32>(
        parent.key_bytes(),
        &[labels::WRAP, &[purpose.code()]],
    ))
}
