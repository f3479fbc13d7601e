//! What the pipeline needs from whoever encrypts and decrypts for it.

use std::sync::Arc;

use bytes::Bytes;

use super::super::failure::Failure;
use super::layout::Column;

/// What to do with a batch of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Plaintext to ciphertext.
    Encrypt,
    /// Ciphertext to plaintext.
    Decrypt,
    /// Ciphertext to ciphertext under the primary version.
    ReEncrypt,
}

/// One value, in binary form, with what it is bound to.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// The column it came from: key and field.
    pub(crate) column: Arc<Column>,
    /// The context of its row.
    pub(crate) context: Arc<[(String, String)]>,
    /// Plaintext, or ciphertext format v1 in its binary form.
    pub(crate) value: Bytes,
}

/// Why one item failed.
#[derive(Clone, Debug)]
pub(crate) struct ItemRefused {
    /// The service's stable reason.
    pub(crate) reason: String,
    /// What happened and what to do.
    pub(crate) message: String,
}

impl ItemRefused {
    /// Whether the value is not a ciphertext that opens here.
    pub(crate) fn does_not_open(&self) -> bool {
        self.reason == "DECRYPTION_FAILED"
    }
}

/// One result an item, or the failure of the whole call.
pub(crate) type Outcome = Result<Vec<Result<Bytes, ItemRefused>>, Failure>;
