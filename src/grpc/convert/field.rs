//! The messages of one field.

use fieldkeep_crypto::ciphertext::OVERHEAD_KC_XAES;
use fieldkeep_proto::v1::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, ReEncryptRequest,
    ReEncryptResponse,
};

use super::{context, field_name, field_size, key_name};
use crate::service::Limits;
use crate::service::failure::Failure;
use crate::service::field::{Decrypt, Encrypt, Opened, Sealed};
use crate::service::reencrypt::{ReEncrypt, ReEncrypted};

/// What an Encrypt asks for.
///
/// # Errors
/// The part that is not valid.
pub fn encrypt(request: EncryptRequest, limits: &Limits) -> Result<Encrypt, Failure> {
    field_size(request.plaintext.len(), limits.field_bytes)?;
    Ok(Encrypt {
        key: key_name("key", request.key)?,
        field: field_name(request.field)?,
        context: context(&request.context)?,
        plaintext: request.plaintext,
    })
}

/// The reply of an Encrypt.
#[must_use]
pub fn encrypted(sealed: Sealed) -> EncryptResponse {
    EncryptResponse {
        ciphertext: sealed.ciphertext,
        version: sealed.version,
    }
}

/// What a Decrypt asks for.
///
/// # Errors
/// The part that is not valid.
pub fn decrypt(request: DecryptRequest, limits: &Limits) -> Result<Decrypt, Failure> {
    field_size(
        request.ciphertext.len(),
        limits.field_bytes + OVERHEAD_KC_XAES,
    )?;
    Ok(Decrypt {
        field: field_name(request.field)?,
        context: context(&request.context)?,
        ciphertext: request.ciphertext,
    })
}

/// The reply of a Decrypt.
#[must_use]
pub fn decrypted(opened: Opened) -> DecryptResponse {
    DecryptResponse {
        plaintext: opened.plaintext,
        masked: opened.masked,
    }
}

/// What a ReEncrypt asks for.
///
/// # Errors
/// The part that is not valid.
pub fn reencrypt(request: ReEncryptRequest, limits: &Limits) -> Result<ReEncrypt, Failure> {
    field_size(
        request.ciphertext.len(),
        limits.field_bytes + OVERHEAD_KC_XAES,
    )?;
    let destination = match request.destination_key.as_str() {
        "" => None,
        _ => Some(key_name("destination_key", request.destination_key)?),
    };
    Ok(ReEncrypt {
        field: field_name(request.field)?,
        context: context(&request.context)?,
        ciphertext: request.ciphertext,
        destination,
    })
}

/// The reply of a ReEncrypt.
#[must_use]
pub fn reencrypted(value: ReEncrypted) -> ReEncryptResponse {
    ReEncryptResponse {
        ciphertext: value.ciphertext,
        version: value.version,
        changed: value.changed,
    }
}
