//! Many fields in one go: as many calls as they need.

use std::{iter, sync::OnceLock, vec};

use futures_util::{StreamExt as _, stream};

use crate::{
    BatchDecrypt, BatchEncrypt, BatchReEncrypt, Client, Decrypted, Encrypted, Error, ItemError,
    ReEncrypted,
    message::{Added, Batch, Group, Limits, outputs},
};

/// The most items of one call; longer batches are split.
pub const MAX_BATCH_ITEMS: usize = 10_000;
/// The longest request of one call, in bytes as encoded; longer batches are split.
pub const MAX_REQUEST_BYTES: usize = 8 * 1024 * 1024;

impl Client {
    /// Encrypts many values. The results come in the order of the items; each succeeds or fails by itself.
    ///
    /// A batch of any length is split into calls that keep the service's limits: 10,000 items, 8 MiB of request and
    /// 16 MiB of reply. Some of them are under way at the same time (see
    /// [`parallel_batches`](crate::ClientBuilder::parallel_batches)). When one of them fails as a whole, no further ones are
    /// begun. What others have done is not lost: the items that have no result get the failed call's error, each as its
    /// [`ItemError`].
    ///
    /// # Errors
    /// If not one of the calls came through, the error of the first; so always, if the batch fits into one call.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
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
    pub async fn encrypt_batch(
        &self,
        batch: BatchEncrypt,
    ) -> Result<Vec<Result<Encrypted, ItemError>>, Error> {
        let (defaults, items) = batch.into_parts();
        self.batch(defaults, items).await
    }

    /// Decrypts many ciphertexts. Each value says whether it is masked. The results come in the order of the items; each succeeds or fails by itself. Splits as
    /// [`encrypt_batch`](Self::encrypt_batch).
    ///
    /// # Errors
    /// As [`encrypt_batch`](Self::encrypt_batch).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// use fieldkeep_client::{BatchDecrypt, DecryptItem};
    ///
    /// let stored = client.field("pii", "customer.email").encrypt(b"ada@example.org").await?;
    /// let batch = BatchDecrypt {
    ///     field: "customer.email".into(),
    ///     items: vec![DecryptItem::new(stored), DecryptItem::new("damaged")],
    ///     ..BatchDecrypt::default()
    /// };
    /// let opened = client.decrypt_batch(batch).await?;
    /// let email = opened[0].as_ref().map(|value| (&value.plaintext[..], value.masked));
    /// assert_eq!(email, Ok((&b"ada@example.org"[..], false)));
    /// assert!(opened[1].is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn decrypt_batch(
        &self,
        batch: BatchDecrypt,
    ) -> Result<Vec<Result<Decrypted, ItemError>>, Error> {
        let (defaults, items) = batch.into_parts();
        self.batch(defaults, items).await
    }

    /// Re-encrypts many ciphertexts. The results come in the order of the items; each succeeds or fails by itself. Splits as
    /// [`encrypt_batch`](Self::encrypt_batch).
    ///
    /// # Errors
    /// As [`encrypt_batch`](Self::encrypt_batch).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// use fieldkeep_client::{BatchReEncrypt, ReEncryptItem};
    ///
    /// let stored = client.field("pii", "customer.email").encrypt(b"ada@example.org").await?;
    /// client.keys().rotate("pii").await?;
    /// let batch = BatchReEncrypt {
    ///     field: "customer.email".into(),
    ///     items: vec![ReEncryptItem::new(stored)],
    ///     ..BatchReEncrypt::default()
    /// };
    /// let renewed = client.reencrypt_batch(batch).await?;
    /// assert!(renewed[0].as_ref().is_ok_and(|item| item.changed));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reencrypt_batch(
        &self,
        batch: BatchReEncrypt,
    ) -> Result<Vec<Result<ReEncrypted, ItemError>>, Error> {
        let (defaults, items) = batch.into_parts();
        self.batch(defaults, items).await
    }

    async fn batch<B: Batch>(
        &self,
        defaults: B,
        items: Vec<B::Item>,
    ) -> Result<Vec<Result<B::Output, ItemError>>, Error> {
        let mut all = Vec::with_capacity(items.len());
        let failed = OnceLock::new();
        let parts = Parts {
            defaults,
            items: items.into_iter(),
            next: None,
        };
        let calls = parts.map(|part| self.part(part, &failed));
        let mut calls = stream::iter(calls).buffered(self.settings().parallel);
        let mut came_through = false;
        let mut first_error = None;
        while let Some((items, outcome)) = calls.next().await {
            match outcome {
                Ok(results) => {
                    came_through = true;
                    all.extend(results);
                }
                Err((for_items, error)) => {
                    all.extend(iter::repeat_n(for_items, items).map(Err));
                    first_error = first_error.or(error);
                }
            }
        }
        match first_error {
            Some(error) if !came_through => Err(error),
            _ => Ok(all),
        }
    }

    /// Makes one call of a batch, unless another one has failed as a whole. Returns with the outcome how many items it
    /// is for.
    async fn part<B: Batch>(
        &self,
        part: Part<B>,
        failed: &OnceLock<ItemError>,
    ) -> (usize, PartOutcome<B::Output>) {
        let (items, message) = match part {
            Part::Call(items, message) => (items, message),
            Part::TooLong(error) => return (1, Err(((&error).into(), Some(error)))),
        };
        if let Some(error) = failed.get() {
            return (items, Err((error.clone(), None)));
        }
        let outcome = self
            .unary::<B, B::Reply>(B::BATCH_PATH, message, self.batch_plan())
            .await
            .and_then(|reply| outputs::<B>(items, B::results(reply)));
        let outcome = outcome.map_err(|error| {
            // The first failure is as good as another one.
            let for_items = failed.get_or_init(|| (&error).into()).clone();
            (for_items, Some(error))
        });
        (items, outcome)
    }
}

/// What came of one call of a batch, or the error for each of its items, with the error itself if the call was made.
type PartOutcome<T> = Result<Vec<Result<T, ItemError>>, (ItemError, Option<Error>)>;

/// What becomes of the next items of a batch.
enum Part<B> {
    /// One call with so many items.
    Call(usize, B),
    /// One item that no call can hold.
    TooLong(Error),
}

/// A batch, part by part.
struct Parts<B: Batch> {
    defaults: B,
    items: vec::IntoIter<B::Item>,
    /// What did not fit into the part before.
    next: Option<B::WireItem>,
}

impl<B: Batch> Iterator for Parts<B> {
    type Item = Part<B>;

    fn next(&mut self) -> Option<Part<B>> {
        let mut group = Group::new(&self.defaults);
        while let Some(item) = self.next.take().or_else(|| self.items.next().map(B::item)) {
            match group.add(item, Limits::CALL) {
                Added::Yes => {}
                Added::Full(item) => {
                    self.next = Some(item);
                    break;
                }
                Added::TooLong(error) => return Some(Part::TooLong(error)),
            }
        }
        (!group.is_empty()).then(|| Part::Call(group.len(), group.into_message(&self.defaults)))
    }
}
