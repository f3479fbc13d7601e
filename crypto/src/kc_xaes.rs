//! XAES-256-GCM (c2sp.org/XAES-256-GCM) with the KC-XAES key commitment (ePrint 2025/758): the AEAD of suite 01
//! and of wrapping.
//!
//! A message is `N(24) || ciphertext || tag(16) || KC(32)`. From key K and nonce N come, through AES-256 alone, the key of
//! one AES-256-GCM message and the commitment KC; GCM runs under that key with the last 12 bytes of N.

use aes_gcm::aes::cipher::consts::U16;
use aes_gcm::aes::cipher::{
    BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt as _, BlockSizeUser,
    KeyInit as _,
};
use aes_gcm::aes::{Aes256Enc, Block};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, UnboundKey};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::error::{OpenError, SealError};
use crate::keys::{NONCE_BYTES, Nonce};

/// Length of the GCM tag in bytes.
pub(crate) const TAG_BYTES: usize = 16;
/// Length of the key commitment in bytes.
pub(crate) const COMMITMENT_BYTES: usize = 32;
/// How much longer than its plaintext a message is, in bytes.
pub(crate) const OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES + COMMITMENT_BYTES;

/// A key, expanded: the AES schedule and the CMAC subkey K1. The schedule is wiped on drop by the `aes` crate.
pub(crate) struct KcXaes {
    aes: Aes256Enc,
    k1: Zeroizing<u128>,
}

/// What K and N give for one message.
struct MessageKeys {
    /// Kx, the AES-256-GCM key.
    gcm_key: Zeroizing<[u8; 32]>,
    commitment: [u8; COMMITMENT_BYTES],
}

impl KcXaes {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let aes = Aes256Enc::new(key.into());
        let mut block = Block::default();
        aes.encrypt_block(&mut block);
        let l = u128::from_be_bytes(block.0);
        block.0.zeroize();
        // Doubling in GF(2^128), without a branch on the secret bit.
        let k1 = (l << 1) ^ (0x87 * (l >> 127));
        Self {
            aes,
            k1: Zeroizing::new(k1),
        }
    }

    /// Appends `N || ciphertext || tag || KC` to `out`, which is [`OVERHEAD_BYTES`] more than `plaintext`.
    ///
    /// On an error `out` is as it was.
    pub(crate) fn seal(
        &self,
        nonce: &Nonce,
        aad: &[u8],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let nonce = nonce.as_bytes();
        let keys = self.derive_message_keys(nonce);
        let before = out.len();
        out.reserve(OVERHEAD_BYTES + plaintext.len());
        out.extend_from_slice(nonce);
        let start = out.len();
        out.extend_from_slice(plaintext);
        let sealed = out
            .get_mut(start..)
            .ok_or(SealError::Cipher)
            .and_then(|data| {
                gcm(&keys.gcm_key)
                    .and_then(|gcm| {
                        gcm.seal_in_place_separate_tag(gcm_nonce(nonce), Aad::from(aad), data)
                    })
                    .map_err(|_| SealError::Cipher)
            });
        match sealed {
            Ok(tag) => {
                out.extend_from_slice(tag.as_ref());
                out.extend_from_slice(&keys.commitment);
                Ok(())
            }
            Err(e) => {
                wipe_from(out, before);
                Err(e)
            }
        }
    }

    /// Appends the plaintext of `message` (`N || ciphertext || tag || KC`) to `out`.
    ///
    /// The commitment is compared first, in constant time; then GCM runs. On an error `out` is as it was and nothing of the
    /// plaintext remains.
    pub(crate) fn open(
        &self,
        message: &[u8],
        aad: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        let (nonce, rest) = message
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or(OpenError)?;
        let (data_and_tag, commitment) = rest
            .split_last_chunk::<COMMITMENT_BYTES>()
            .ok_or(OpenError)?;
        let plaintext_bytes = data_and_tag.len().checked_sub(TAG_BYTES).ok_or(OpenError)?;
        let keys = self.derive_message_keys(nonce);
        if !bool::from(keys.commitment.ct_eq(commitment)) {
            return Err(OpenError);
        }
        let start = out.len();
        out.extend_from_slice(data_and_tag);
        let opened = out
            .get_mut(start..)
            .ok_or(OpenError)
            .and_then(|data| open_in_place(&keys.gcm_key, nonce, aad, data));
        out.truncate(if opened.is_ok() {
            start + plaintext_bytes
        } else {
            start
        });
        opened
    }

    /// Kx and KC. The blocks that do not depend on each other are encrypted together.
    fn derive_message_keys(&self, nonce: &[u8; NONCE_BYTES]) -> MessageKeys {
        let [
            n0,
            n1,
            n2,
            n3,
            n4,
            n5,
            n6,
            n7,
            n8,
            n9,
            n10,
            n11, //
            m0,
            m1,
            m2,
            m3,
            m4,
            m5,
            m6,
            m7,
            m8,
            m9,
            m10,
            m11,
        ] = *nonce;
        let first = |a, b, c, d| {
            u128::from_be_bytes([a, b, c, d, n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, n11])
        };
        let last = |a, b, c, d| {
            u128::from_be_bytes([m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, a, b, c, d])
        };
        let mut blocks = [
            block(first(0, 1, b'X', 0) ^ *self.k1),
            block(first(0, 2, b'X', 0) ^ *self.k1),
            block(first(b'X', b'C', b'M', b'T')),
        ];
        self.aes.encrypt_with_backend(Together(&mut blocks));
        let [mut key_low, mut key_high, mut x1] = blocks;
        let x1_and_k1 = u128::from_be_bytes(x1.0) ^ *self.k1;
        let mut commitment_blocks = [
            block(x1_and_k1 ^ last(0, 1, 0, 1)),
            block(x1_and_k1 ^ last(0, 1, 0, 2)),
        ];
        self.aes
            .encrypt_with_backend(Together(&mut commitment_blocks));

        let mut keys = MessageKeys {
            gcm_key: Zeroizing::new([0; 32]),
            commitment: [0; COMMITMENT_BYTES],
        };
        join(&mut keys.gcm_key, &key_low, &key_high);
        let [low, high] = &commitment_blocks;
        join(&mut keys.commitment, low, high);
        for secret in [&mut key_low, &mut key_high, &mut x1] {
            secret.0.zeroize();
        }
        keys
    }
}

/// Encrypts a few blocks that do not depend on each other, side by side in the processor's pipeline.
///
/// `encrypt_blocks` of the `aes` crate is made for long runs: with wide vectors it first spreads the round keys, which costs more
/// than these blocks.
struct Together<'b, const N: usize>(&'b mut [Block; N]);

impl<const N: usize> BlockSizeUser for Together<'_, N> {
    type BlockSize = U16;
}

impl<const N: usize> BlockCipherEncClosure for Together<'_, N> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        for block in self.0 {
            backend.encrypt_block(block.into());
        }
    }
}

fn block(value: u128) -> Block {
    Block::from(value.to_be_bytes())
}

fn join(out: &mut [u8; 32], low: &Block, high: &Block) {
    let (front, back) = out.split_at_mut(16);
    front.copy_from_slice(low);
    back.copy_from_slice(high);
}

/// Decrypts `ciphertext || tag` to `plaintext || 16 bytes of no meaning`; on failure to zeros, whatever ring left there.
fn open_in_place(
    gcm_key: &[u8; 32],
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    data: &mut [u8],
) -> Result<(), OpenError> {
    let opened = gcm(gcm_key).and_then(|gcm| {
        gcm.open_in_place(gcm_nonce(nonce), Aad::from(aad), data)
            .map(|_| ())
    });
    opened.map_err(|_| {
        data.zeroize();
        OpenError
    })
}

fn gcm(key: &[u8; 32]) -> Result<LessSafeKey, ring::error::Unspecified> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new)
}

/// The last 12 bytes of N, which are GCM's nonce.
fn gcm_nonce(nonce: &[u8; NONCE_BYTES]) -> ring::aead::Nonce {
    let [.., m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11] = *nonce;
    ring::aead::Nonce::assume_unique_for_key([m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11])
}

/// Overwrites and drops what `out` has from `start` on.
fn wipe_from(out: &mut Vec<u8>, start: usize) {
    if let Some(data) = out.get_mut(start..) {
        data.zeroize();
    }
    out.truncate(start);
}

#[cfg(test)]
mod tests;
