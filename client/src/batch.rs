//! Many fields in one call.

use std::fmt;

use bytes::Bytes;
use fieldkeep_proto::v1;
use prost::Message as _;
use tonic::Code;

use crate::{Client, Error, ErrorKind, ReEncrypted, error::kind_of, reason};

/// The most items in a batch.
pub const MAX_BATCH_ITEMS: usize = 10_000;
/// The longest request, in bytes as encoded.
pub const MAX_REQUEST_BYTES: usize = 8 * 1024 * 1024;

/// Values to encrypt, and defaults for what an item leaves empty.
///
/// ```no_run
/// # async fn example(client: fieldkeep_client::Client) -> Result<(), fieldkeep_client::Error> {
/// use fieldkeep_client::{BatchEncrypt, EncryptItem};
///
/// let rows = [("1", "ada@example.org"), ("2", "bob@example.org")];
/// let batch = BatchEncrypt {
///     key: "pii".into(),
///     field: "customer.email".into(),
///     items: rows.iter().map(|(id, email)| EncryptItem::new(*email).context("id", *id)).collect(),
///     ..BatchEncrypt::default()
/// };
/// for result in client.encrypt_batch(batch).await? {
///     match result {
///         Ok(encrypted) => println!("{} bytes", encrypted.ciphertext.len()),
///         Err(error) => eprintln!("{error}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct BatchEncrypt {
    /// The key of items that name none.
    pub key: String,
    /// The field of items that name none.
    pub field: String,
    /// The context of items that have none, as names and values.
    pub context: Vec<(String, String)>,
    /// The items, at most 10,000.
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
    /// The items, at most 10,000.
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
    /// The items, at most 10,000.
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

/// Why one item of a batch failed, while its neighbours may have succeeded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ItemError {
    /// The gRPC status code.
    pub code: Code,
    /// The stable reason, of [`reason`].
    pub reason: String,
    /// What happened and what to do, for people.
    pub message: String,
}

impl ItemError {
    /// The kind, to branch on.
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

impl EncryptItem {
    /// An item with the batch's key, field and context.
    pub fn new(plaintext: impl Into<Bytes>) -> Self {
        Self {
            plaintext: plaintext.into(),
            ..Self::default()
        }
    }

    /// Adds a name and value to the item's own context.
    #[must_use]
    pub fn context(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.context.push((name.into(), value.into()));
        self
    }
}

impl DecryptItem {
    /// An item with the batch's field and context.
    pub fn new(ciphertext: impl Into<Bytes>) -> Self {
        Self {
            ciphertext: ciphertext.into(),
            ..Self::default()
        }
    }

    /// Adds a name and value to the item's own context.
    #[must_use]
    pub fn context(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.context.push((name.into(), value.into()));
        self
    }
}

impl ReEncryptItem {
    /// An item with the batch's field, context and destination.
    pub fn new(ciphertext: impl Into<Bytes>) -> Self {
        Self {
            ciphertext: ciphertext.into(),
            ..Self::default()
        }
    }

    /// Adds a name and value to the item's own context.
    #[must_use]
    pub fn context(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.context.push((name.into(), value.into()));
        self
    }
}

// Items show lengths in place of values: a value is a secret, or becomes one when it is logged beside its row.
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

impl Client {
    /// Encrypts many values. The results come in the order of the items; each succeeds or fails by itself.
    ///
    /// # Errors
    /// [`reason::BATCH_TOO_LARGE`] and [`reason::REQUEST_TOO_LARGE`] before anything is sent; otherwise an error of
    /// the call as a whole.
    pub async fn encrypt_batch(
        &self,
        batch: BatchEncrypt,
    ) -> Result<Vec<Result<Encrypted, ItemError>>, Error> {
        check_count(batch.items.len())?;
        let count = batch.items.len();
        let request = v1::BatchEncryptRequest {
            key: batch.key,
            field: batch.field,
            context: pairs(batch.context),
            items: batch
                .items
                .into_iter()
                .map(|item| v1::EncryptItem {
                    plaintext: item.plaintext,
                    context: pairs(item.context),
                    key: item.key,
                    field: item.field,
                })
                .collect(),
        };
        check_bytes(request.encoded_len())?;
        let path = "/fieldkeep.v1.FieldService/BatchEncrypt";
        let reply: v1::BatchEncryptResponse = self.unary(path, request, self.batch_plan()).await?;
        let results = reply.results.into_iter().map(|result| match result.error {
            Some(error) => Err(error.into()),
            None => Ok(Encrypted {
                ciphertext: result.ciphertext,
                version: result.version,
            }),
        });
        collect(count, results)
    }

    /// Decrypts many ciphertexts. The results come in the order of the items; each succeeds or fails by itself.
    ///
    /// # Errors
    /// As [`encrypt_batch`](Self::encrypt_batch).
    pub async fn decrypt_batch(
        &self,
        batch: BatchDecrypt,
    ) -> Result<Vec<Result<Bytes, ItemError>>, Error> {
        check_count(batch.items.len())?;
        let count = batch.items.len();
        let request = v1::BatchDecryptRequest {
            field: batch.field,
            context: pairs(batch.context),
            items: batch
                .items
                .into_iter()
                .map(|item| v1::DecryptItem {
                    ciphertext: item.ciphertext,
                    context: pairs(item.context),
                    field: item.field,
                })
                .collect(),
        };
        check_bytes(request.encoded_len())?;
        let path = "/fieldkeep.v1.FieldService/BatchDecrypt";
        let reply: v1::BatchDecryptResponse = self.unary(path, request, self.batch_plan()).await?;
        let results = reply.results.into_iter().map(|result| match result.error {
            Some(error) => Err(error.into()),
            None => Ok(result.plaintext),
        });
        collect(count, results)
    }

    /// Re-encrypts many ciphertexts. The results come in the order of the items; each succeeds or fails by itself.
    ///
    /// # Errors
    /// As [`encrypt_batch`](Self::encrypt_batch).
    pub async fn reencrypt_batch(
        &self,
        batch: BatchReEncrypt,
    ) -> Result<Vec<Result<ReEncrypted, ItemError>>, Error> {
        check_count(batch.items.len())?;
        let count = batch.items.len();
        let request = v1::BatchReEncryptRequest {
            field: batch.field,
            context: pairs(batch.context),
            destination_key: batch.destination_key,
            items: batch
                .items
                .into_iter()
                .map(|item| v1::ReEncryptItem {
                    ciphertext: item.ciphertext,
                    context: pairs(item.context),
                    field: item.field,
                    destination_key: item.destination_key,
                })
                .collect(),
        };
        check_bytes(request.encoded_len())?;
        let path = "/fieldkeep.v1.FieldService/BatchReEncrypt";
        let reply: v1::BatchReEncryptResponse =
            self.unary(path, request, self.batch_plan()).await?;
        let results = reply.results.into_iter().map(|result| match result.error {
            Some(error) => Err(error.into()),
            None => Ok(ReEncrypted {
                ciphertext: result.ciphertext,
                version: result.version,
                changed: result.changed,
            }),
        });
        collect(count, results)
    }
}

fn pairs(context: Vec<(String, String)>) -> Vec<v1::ContextPair> {
    context
        .into_iter()
        .map(|(name, value)| v1::ContextPair { name, value })
        .collect()
}

fn check_count(items: usize) -> Result<(), Error> {
    if items <= MAX_BATCH_ITEMS {
        return Ok(());
    }
    Err(Error::Refused {
        reason: reason::BATCH_TOO_LARGE,
        message: format!("the batch has {items} items, and may have {MAX_BATCH_ITEMS}: split it")
            .into(),
    })
}

fn check_bytes(bytes: usize) -> Result<(), Error> {
    if bytes <= MAX_REQUEST_BYTES {
        return Ok(());
    }
    Err(Error::Refused {
        reason: reason::REQUEST_TOO_LARGE,
        message: format!("the batch has {bytes} bytes, and may have {MAX_REQUEST_BYTES}: split it")
            .into(),
    })
}

/// A reply with another number of results could pair values with the wrong rows, so it is refused as a whole.
fn collect<T>(
    expected: usize,
    results: impl ExactSizeIterator<Item = Result<T, ItemError>>,
) -> Result<Vec<Result<T, ItemError>>, Error> {
    if results.len() != expected {
        return Err(Error::Reply {
            what: "the batch's results are not as many as its items",
        });
    }
    Ok(results.collect())
}
