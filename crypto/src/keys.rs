//! One type for each role of a key. All are exactly 32 bytes, never cloned, never shown, wiped on drop.
//!
//! The root provider gives the [`RootKey`]; it wraps [`MasterKey`]s, these the tenants' [`Kek`]s, these the [`Dek`]s.
//! Field keys are derived from a DEK and never stored: [`FieldKey`].

mod field_key;
mod nonce;

pub use field_key::FieldKey;
pub use nonce::{NONCE_BYTES, Nonce, Nonces};

use zeroize::Zeroizing;

use crate::ciphertext::{Handle, Suite};
use crate::error::{OpenError, SealError};
use crate::hkdf;
use crate::labels;
use crate::names::Field;
use crate::secret::{random_key, secret_key};
use crate::wrap::{self, Purpose, WrapContext};

secret_key! {
    /// The key of the root provider (a key file, a passphrase), which wraps master keys.
    RootKey
}
secret_key! {
    /// A master key, which wraps the tenants' KEKs and the system's own secrets.
    MasterKey
}
secret_key! {
    /// A tenant's key-encryption key, which wraps that tenant's DEKs.
    Kek
}
secret_key! {
    /// A data-encryption key: one version of a key. Field keys are derived from it.
    Dek
}
secret_key! {
    /// The key that authenticates stored records.
    RecordKey
}
secret_key! {
    /// The key of the keyed hashes in the audit trail.
    AuditKey
}
secret_key! {
    /// The key of the seals of the audit trail. Derived from the system's [`RecordKey`] and never stored.
    AuditSealKey
}
secret_key! {
    /// The key of the hashes of API keys. Derived from the system's [`RecordKey`] and never stored.
    ApiKeyHashKey
}

random_key!(MasterKey);
random_key!(Kek);
random_key!(Dek);
random_key!(RecordKey);
random_key!(AuditKey);

impl RootKey {
    /// The root key with the bytes that a root provider read or derived.
    pub fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(Box::new(bytes))
    }
}

impl RecordKey {
    /// Derives the key of the hashes of API keys: Expand(RK, `fieldkeep/v1/api-key-hash`, 32), RK being the system's.
    pub fn derive_api_key_hash_key(&self) -> ApiKeyHashKey {
        let derived = hkdf::expand::<32>(self.as_bytes(), &[labels::API_KEY_HASH]);
        ApiKeyHashKey(Box::new(derived))
    }

    /// Derives the key of the audit trail's seals: Expand(RK, `fieldkeep/v1/audit-seal`, 32), RK being the system's.
    pub fn derive_audit_seal_key(&self) -> AuditSealKey {
        let derived = hkdf::expand::<32>(self.as_bytes(), &[labels::AUDIT_SEAL]);
        AuditSealKey(Box::new(derived))
    }
}

impl Dek {
    /// Derives the key of one field:
    /// Expand(DEK, `fieldkeep/v1/field` || suite || lp(tenant) || handle || be32(version) || lp(field), 32).
    ///
    /// `tenant` is the tenant's name, `version` the version that this DEK is, at least 1.
    pub fn derive_field_key(
        &self,
        suite: Suite,
        tenant: &str,
        handle: Handle,
        version: u32,
        field: Field<'_>,
    ) -> FieldKey {
        FieldKey::derive(self, suite, tenant, handle, version, field)
    }
}

/// Adds the typed forms of wrapping and unwrapping to a key role.
macro_rules! wrapped_under {
    ($name:ident, $purpose:expr, $parent:ty, $wrap:ident, $unwrap:ident) => {
        impl $name {
            /// Wraps this key under `parent`: `01 || N(24) || ciphertext || tag(16) || KC(32)`.
            ///
            /// # Errors
            /// As [`wrap::wrap`].
            pub fn $wrap(
                &self,
                parent: &$parent,
                context: &WrapContext<'_>,
            ) -> Result<Vec<u8>, SealError> {
                wrap::wrap(parent, $purpose, context, self.as_bytes())
            }

            /// Unwraps a key of this role that `parent` wrapped with the same context.
            ///
            /// # Errors
            /// [`OpenError`], which says nothing of the cause.
            pub fn $unwrap(
                parent: &$parent,
                context: &WrapContext<'_>,
                wrapped: &[u8],
            ) -> Result<Self, OpenError> {
                let secret = wrap::unwrap(parent, $purpose, context, wrapped)?;
                Self::filled_by(|bytes| {
                    let secret: &[u8; 32] = secret.as_slice().try_into().map_err(|_| OpenError)?;
                    bytes.copy_from_slice(secret);
                    Ok(())
                })
            }
        }
    };
}

wrapped_under!(MasterKey, Purpose::MasterKey, RootKey, wrap, unwrap);
wrapped_under!(Kek, Purpose::Kek, MasterKey, wrap, unwrap);
wrapped_under!(Dek, Purpose::Dek, Kek, wrap, unwrap);
wrapped_under!(RecordKey, Purpose::RecordKey, MasterKey, wrap, unwrap);
wrapped_under!(
    RecordKey,
    Purpose::TenantRecordKey,
    Kek,
    wrap_for_tenant,
    unwrap_for_tenant
);
wrapped_under!(AuditKey, Purpose::AuditKey, MasterKey, wrap, unwrap);
