//! A cipher of the tests' own: it binds field and context, and is no secret. And an input that counts.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use fieldkeep_crypto::ciphertext::Ciphertext;

use super::super::cipher::{Item, ItemRefused, Operation, Outcome};

/// Header and frame of a ciphertext with `version`; then what it is bound to, then the plaintext turned over.
pub(super) fn seal(item: &Item, version: u8) -> Bytes {
    let mut sealed = vec![0xFE, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, version];
    sealed.extend([7; 72]);
    let bound = bound(item);
    sealed.push(bound.len() as u8);
    sealed.extend(bound);
    sealed.extend(item.value.iter().map(|byte| !byte));
    sealed.into()
}

pub(super) fn open(item: &Item) -> Option<Bytes> {
    let body = item.value.get(86..)?;
    let (length, rest) = body.split_first()?;
    let (sealed_for, plaintext) = rest.split_at_checked(*length as usize)?;
    (sealed_for == bound(item)).then(|| plaintext.iter().map(|byte| !byte).collect())
}

/// The key version that a ciphertext names.
pub(super) fn version_of(ciphertext: &[u8]) -> u32 {
    Ciphertext::parse(ciphertext).unwrap().version()
}

pub(super) fn bound(item: &Item) -> Vec<u8> {
    let text = format!("{}|{:?}", item.column.field, item.context);
    ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref()[..8].to_vec()
}

pub(super) fn refused(reason: &str) -> ItemRefused {
    ItemRefused {
        reason: reason.into(),
        message: reason.to_lowercase(),
    }
}

pub(super) fn answer(operation: Operation, items: &[Item]) -> Outcome {
    let one = |item: &Item| match operation {
        Operation::Encrypt => Ok(seal(item, 1)),
        Operation::Decrypt => open(item).ok_or_else(|| refused("DECRYPTION_FAILED")),
        Operation::ReEncrypt if Ciphertext::parse(&item.value).unwrap().version() == 2 => {
            Ok(item.value.clone())
        }
        Operation::ReEncrypt => {
            let value = open(item).ok_or_else(|| refused("DECRYPTION_FAILED"))?;
            Ok(seal(
                &Item {
                    value,
                    ..item.clone()
                },
                2,
            ))
        }
    };
    Ok(items.iter().map(one).collect())
}

/// Counts what the reader has given out.
pub(super) struct Counted {
    pub(super) input: std::io::Cursor<Vec<u8>>,
    pub(super) taken: Arc<AtomicUsize>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let taken = self.input.read(buffer)?;
        self.taken.fetch_add(taken, Ordering::SeqCst);
        Ok(taken)
    }
}
