//! Encrypting and decrypting fail differently: [`SealError`] says why, [`OpenError`] never does.

use crate::random::RandomError;

/// Why nothing was encrypted or wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The plaintext is longer than [`crate::ciphertext::MAX_PLAINTEXT_BYTES`], or a secret to be wrapped
    /// longer than [`crate::wrap::MAX_SECRET_BYTES`].
    #[error("the plaintext is too long")]
    TooLong,
    /// The field key was derived for version 0, which no ciphertext may name.
    #[error("version 0 is not a key version")]
    VersionZero,
    /// The wrap's context does not fit its purpose: see [`crate::wrap::WrapContext`].
    #[error("the context of the wrap does not fit its purpose")]
    WrapContext,
    /// This kind of key does not wrap secrets of this purpose.
    #[error("this kind of key wraps no secrets of this purpose")]
    WrongParent,
    /// No nonce could be drawn.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The AES-GCM implementation refused its input.
    #[error("the cipher refused its input")]
    Cipher,
}

/// Decryption failed. Deliberately without any detail: whoever asks must not learn which check refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("decryption failed")]
pub struct OpenError;
