//! The items of batches and streams, and their results.

use std::fmt;

use bytes::Bytes;
use tonic::Code;

use fieldkeep_proto::v1;

use crate::{Error, ErrorKind, error::kind_of};

/// Values to encrypt, and defaults for what an item leaves empty.
#[derive(Clone, Debug, Default)]
pub struct BatchEncrypt {
    /// The key of items that name none.
    pub key: String,
    /// The field of items that name none.
    pub field: String,
    /// The context of items that have none, as names and values.
    pub context: Vec<(String, String)>,
    /// The items.
    pub items: Vec<EncryptItem>,
}

/// One value of a [`BatchEncrypt`].
#[derive(Clone, Default)]
pub struct EncryptItem {
    /// The value, at most 64 KiB.
    pub plaintext: Bytes,
    /// The context, as names and values; if it has any pair it replaces the batch's.
    pub context: Vec<(String, String)>,
    /// The key; empty: the batch's.
    pub key: String,
    /// The field; empty: the batch's.
    pub field: String,
}

/// Ciphertexts to decrypt, and defaults for what an item leaves empty.
#[derive(Clone, Debug, Default)]
pub struct BatchDecrypt {
    /// The field of items that name none.
    pub field: String,
    /// The context of items that have none, as names and values.
    pub context: Vec<(String, String)>,
    /// The items.
    pub items: Vec<DecryptItem>,
}

/// One ciphertext of a [`BatchDecrypt`].
#[derive(Clone, Default)]
pub struct DecryptItem {
    /// Ciphertext format v1, binary form.
    pub ciphertext: Bytes,
    /// The context, as names and values; if it has any pair it replaces the batch's.
    pub context: Vec<(String, String)>,
    /// The field; empty: the batch's.
    pub field: String,
}

/// Ciphertexts to re-encrypt, and defaults for what an item leaves empty.
#[derive(Clone, Debug, Default)]
pub struct BatchReEncrypt {
    /// The field of items that name none.
    pub field: String,
    /// The context of items that have none, as names and values.
    pub context: Vec<(String, String)>,
    /// The key to seal under, of items that name none; empty: the key that the ciphertext names.
    pub destination_key: String,
    /// The items.
    pub items: Vec<ReEncryptItem>,
}

/// One ciphertext of a [`BatchReEncrypt`].
#[derive(Clone, Default)]
pub struct ReEncryptItem {
    /// Ciphertext format v1, binary form.
    pub ciphertext: Bytes,
    /// The context, as names and values; if it has any pair it replaces the batch's.
    pub context: Vec<(String, String)>,
    /// The field; empty: the batch's.
    pub field: String,
    /// The key to seal under; empty: the batch's.
    pub destination_key: String,
}

/// The result of one item of a [`BatchEncrypt`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encrypted {
    /// Ciphertext format v1, binary form. It shares the reply's buffer with its neighbours.
    pub ciphertext: Bytes,
    /// The key version that sealed it.
    pub version: u32,
}

/// A value as it was decrypted: of one item of a [`BatchDecrypt`], or from
/// [`FieldCall::reveal`](crate::FieldCall::reveal).
#[derive(Clone, PartialEq, Eq)]
pub struct Decrypted {
    /// The value; if it is masked, what the mask of its field shows of it. In a batch it shares the reply's buffer with its
    /// neighbours.
    pub plaintext: Bytes,
    /// Whether it is masked: the caller may decrypt the field only so. Do not store it in the place of the value.
    pub masked: bool,
}

/// Why one item of a batch failed, while its neighbours may have succeeded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ItemError {
    /// The gRPC status code.
    pub code: Code,
    /// The stable reason, of [`reason`](crate::reason); empty if there is none.
    pub reason: String,
    /// What happened and what to do, for people.
    pub message: String,
}

impl ItemError {
    /// The kind, to branch on.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// use fieldkeep_client::{BatchDecrypt, DecryptItem, ErrorKind};
    ///
    /// let batch = BatchDecrypt {
    ///     field: "customer.email".into(),
    ///     items: vec![DecryptItem::new("damaged")],
    ///     ..BatchDecrypt::default()
    /// };
    /// for result in client.decrypt_batch(batch).await? {
    ///     let error = result.unwrap_err();
    ///     assert_eq!(error.kind(), ErrorKind::DecryptionFailed);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn kind(&self) -> ErrorKind {
        kind_of(self.code, Some(&self.reason))
    }
}

impl From<v1::ItemError> for ItemError {
    fn from(error: v1::ItemError) -> Self {
        Self {
            code: Code::from_i32(error.code),
            reason: error.reason,
            message: error.message,
        }
    }
}

/// A call that failed as a whole, told for each of its items.
impl From<&Error> for ItemError {
    fn from(error: &Error) -> Self {
        Self {
            code: error.code().unwrap_or(Code::Internal),
            reason: error.reason().unwrap_or_default().to_owned(),
            message: error.to_string(),
        }
    }
}

impl EncryptItem {
    /// An item with the batch's key, field and context.
    ///
    /// ```
    /// let item = fieldkeep_client::EncryptItem::new("ada@example.org");
    /// ```
    pub fn new(plaintext: impl Into<Bytes>) -> Self {
        Self {
            plaintext: plaintext.into(),
            ..Self::default()
        }
    }

    /// Adds a name and value to the item's own context.
    ///
    /// ```
    /// let item = fieldkeep_client::EncryptItem::new("ada@example.org").context("id", "42");
    /// assert_eq!(item.context.len(), 1);
    /// ```
    #[must_use]
    pub fn context(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.context.push((name.into(), value.into()));
        self
    }
}

impl DecryptItem {
    /// An item with the batch's field and context.
    ///
    /// ```
    /// let item = fieldkeep_client::DecryptItem::new(vec![0xfe, 1]);
    /// ```
    pub fn new(ciphertext: impl Into<Bytes>) -> Self {
        Self {
            ciphertext: ciphertext.into(),
            ..Self::default()
        }
    }

    /// Adds a name and value to the item's own context.
    ///
    /// ```
    /// let item = fieldkeep_client::DecryptItem::new(vec![0xfe, 1]).context("id", "42");
    /// assert_eq!(item.context.len(), 1);
    /// ```
    #[must_use]
    pub fn context(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.context.push((name.into(), value.into()));
        self
    }
}

impl ReEncryptItem {
    /// An item with the batch's field, context and destination.
    ///
    /// ```
    /// let item = fieldkeep_client::ReEncryptItem::new(vec![0xfe, 1]);
    /// ```
    pub fn new(ciphertext: impl Into<Bytes>) -> Self {
        Self {
            ciphertext: ciphertext.into(),
            ..Self::default()
        }
    }

    /// Adds a name and value to the item's own context.
    ///
    /// ```
    /// let item = fieldkeep_client::ReEncryptItem::new(vec![0xfe, 1]).context("id", "42");
    /// assert_eq!(item.context.len(), 1);
    /// ```
    #[must_use]
    pub fn context(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.context.push((name.into(), value.into()));
        self
    }
}

// Items show lengths in place of values: a value is a secret, or becomes one when it is logged beside its row.
impl fmt::Debug for Decrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decrypted")
            .field("plaintext_bytes", &self.plaintext.len())
            .field("masked", &self.masked)
            .finish()
    }
}

impl fmt::Debug for EncryptItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptItem")
            .field("plaintext_bytes", &self.plaintext.len())
            .field("key", &self.key)
            .field("field", &self.field)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for DecryptItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptItem")
            .field("ciphertext_bytes", &self.ciphertext.len())
            .field("field", &self.field)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ReEncryptItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReEncryptItem")
            .field("ciphertext_bytes", &self.ciphertext.len())
            .field("field", &self.field)
            .field("destination_key", &self.destination_key)
            .finish_non_exhaustive()
    }
}
