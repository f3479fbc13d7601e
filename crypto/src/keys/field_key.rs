//! The key of one field of one key version, ready to use: suite 01.

use std::fmt;

use crate::ciphertext::{
    Ciphertext, HEADER_BYTES, Handle, MAX_PLAINTEXT_BYTES, OVERHEAD_KC_XAES, Suite, encode_header,
};
use crate::context::{EncodedContext, MAX_CONTEXT_BYTES};
use crate::error::{OpenError, SealError};
use crate::hkdf;
use crate::kc_xaes::KcXaes;
use crate::keys::Dek;
use crate::keys::Nonce;
use crate::labels;
use crate::length_prefix::length_bytes;
use crate::names::Field;

/// A field key with its AES key schedule: sealing and opening need nothing more than nonce, context and data.
///
/// Derived by [`Dek::derive_field_key`], never stored. About 300 bytes, so it is kept behind a pointer.
pub struct FieldKey {
    cipher: KcXaes,
    header: [u8; HEADER_BYTES],
    suite: Suite,
    handle: Handle,
    version: u32,
}

impl FieldKey {
    pub(crate) fn derive(
        dek: &Dek,
        suite: Suite,
        tenant: &str,
        handle: Handle,
        version: u32,
        field: Field<'_>,
    ) -> Self {
        let key = hkdf::expand::<32>(
            dek.as_bytes(),
            &[
                labels::FIELD,
                &[suite.code()],
                &length_bytes(tenant.len()),
                tenant.as_bytes(),
                handle.as_bytes(),
                &version.to_be_bytes(),
                &length_bytes(field.as_str().len()),
                field.as_str().as_bytes(),
            ],
        );
        let header = encode_header(suite, handle, version);
        Self {
            cipher: KcXaes::new(&key),
            header,
            suite,
            handle,
            version,
        }
    }

    /// Encrypts `plaintext` (at most 64 KiB) and appends header, nonce, ciphertext, tag and commitment to `out`: 86 bytes more
    /// than the plaintext. Nothing but `out` is allocated. On an error `out` is as it was.
    ///
    /// # Errors
    /// [`SealError::TooLong`] for a plaintext over [`MAX_PLAINTEXT_BYTES`], [`SealError::VersionZero`] for a key of version 0.
    pub fn seal(
        &self,
        nonce: Nonce,
        context: &EncodedContext,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        if plaintext.len() > MAX_PLAINTEXT_BYTES {
            return Err(SealError::TooLong);
        }
        if self.version == 0 {
            return Err(SealError::VersionZero);
        }
        let before = out.len();
        out.reserve(OVERHEAD_KC_XAES + plaintext.len());
        out.extend_from_slice(&self.header);
        let sealed = with_aad(&self.header, context, |aad| match aad {
            Some(aad) => self.cipher.seal(&nonce, aad, plaintext, out),
            None => Err(SealError::Cipher),
        });
        if sealed.is_err() {
            out.truncate(before);
        }
        sealed
    }

    /// Opens a ciphertext that this field key sealed with the same context and appends its plaintext to `out`.
    ///
    /// The ciphertext must name this key's handle, version and suite. The commitment is compared first, in constant time, then
    /// AES-GCM runs. On failure `out` is as it was, and nothing of the plaintext remains in its memory.
    ///
    /// # Errors
    /// [`OpenError`], which says nothing of the cause.
    pub fn open(
        &self,
        ciphertext: &Ciphertext<'_>,
        context: &EncodedContext,
        out: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        if ciphertext.header() != self.header.as_slice() {
            return Err(OpenError);
        }
        with_aad(&self.header, context, |aad| match aad {
            Some(aad) => self.cipher.open(ciphertext.body(), aad, out),
            None => Err(OpenError),
        })
    }

    /// The suite of the key.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The handle of the key.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// The version of the key.
    pub fn version(&self) -> u32 {
        self.version
    }
}

/// The header is public, the key is not.
impl fmt::Debug for FieldKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "FieldKey(redacted, {} version {})",
            self.handle, self.version
        )
    }
}

/// Calls `f` with header || context in one piece, as ring wants it, on the stack: usual contexts need a small buffer, the longest
/// still need no allocation. `f` gets `None` for a context that is too long, which cannot be made.
fn with_aad<R>(
    header: &[u8; HEADER_BYTES],
    context: &EncodedContext,
    f: impl FnOnce(Option<&[u8]>) -> R,
) -> R {
    const USUAL_BYTES: usize = 192;
    let context = context.as_bytes();
    if HEADER_BYTES + context.len() <= USUAL_BYTES {
        let mut buffer = [0; USUAL_BYTES];
        f(join(&mut buffer, header, context))
    } else {
        let mut buffer = [0; HEADER_BYTES + MAX_CONTEXT_BYTES];
        f(join(&mut buffer, header, context))
    }
}

/// Writes `header || context` to the front of `buffer`; `None` if it does not fit.
fn join<'b>(buffer: &'b mut [u8], header: &[u8; HEADER_BYTES], context: &[u8]) -> Option<&'b [u8]> {
    let used = buffer.get_mut(..HEADER_BYTES + context.len())?;
    let (front, back) = used.split_at_mut_checked(HEADER_BYTES)?;
    front.copy_from_slice(header);
    back.copy_from_slice(context);
    Some(used)
}
