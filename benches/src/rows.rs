//! The rows of the tables: what is called, and against what it is measured.

use std::sync::Arc;

use bytes::Bytes;
use fieldkeep_client::{
    BatchDecrypt, BatchEncrypt, BatchReEncrypt, Client, DecryptItem, EncryptItem, ReEncryptItem,
    Results,
};
use futures_util::stream;

/// The key whose ciphertexts are behind: it is rotated once they are made.
pub(crate) const OLD_KEY: &str = "old";
/// The key that is never rotated.
pub(crate) const KEY: &str = "pii";
pub(crate) const FIELD: &str = "customer.email";
pub(crate) const PLAINTEXT: &[u8; 29] = b"christopher.smith@example.com";
/// Items of a batch.
pub(crate) const BATCH: usize = 1_000;
/// Messages of a stream, each as long as a batch.
const MESSAGES: usize = 50;

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    Encrypt,
    OneAtATime,
    Decrypt,
    ReEncrypt,
    ReEncryptCurrent,
    BatchEncrypt,
    BatchDecrypt,
    BatchReEncrypt,
    BatchReEncryptCurrent,
    EncryptStream,
    DecryptStream,
    ReEncryptStream,
}

/// All of them: name on the command line, title, baseline.
pub(crate) const ROWS: [(Row, &str, &str); 12] = [
    (Row::Encrypt, "encrypt", "Encrypt / bare echo"),
    (Row::OneAtATime, "one", "Encrypt, one at a time / bare echo"),
    (Row::Decrypt, "decrypt", "Decrypt / bare echo"),
    (Row::ReEncrypt, "reencrypt", "ReEncrypt, behind / bare echo"),
    (
        Row::ReEncryptCurrent,
        "reencrypt-current",
        "ReEncrypt, current / bare echo",
    ),
    (
        Row::BatchEncrypt,
        "batch-encrypt",
        "BatchEncrypt x 1,000 / cipher only",
    ),
    (
        Row::BatchDecrypt,
        "batch-decrypt",
        "BatchDecrypt x 1,000 / cipher only",
    ),
    (
        Row::BatchReEncrypt,
        "batch-reencrypt",
        "BatchReEncrypt x 1,000, behind / cipher only",
    ),
    (
        Row::BatchReEncryptCurrent,
        "batch-reencrypt-current",
        "BatchReEncrypt x 1,000, current / cipher only",
    ),
    (
        Row::EncryptStream,
        "encrypt-stream",
        "EncryptStream of 50 x 1,000 / cipher only",
    ),
    (
        Row::DecryptStream,
        "decrypt-stream",
        "DecryptStream of 50 x 1,000 / cipher only",
    ),
    (
        Row::ReEncryptStream,
        "reencrypt-stream",
        "ReEncryptStream of 50 x 1,000, behind / cipher only",
    ),
];

/// The rows whose names are in `list`, separated by commas; all without one.
pub(crate) fn named(list: Option<&str>) -> Vec<Row> {
    let Some(list) = list else {
        return ROWS.iter().map(|(row, ..)| *row).collect();
    };
    let find = |name: &str| {
        let known = || ROWS.map(|(_, name, _)| name).join(", ");
        ROWS.iter()
            .find(|(_, known, _)| *known == name)
            .map_or_else(
                || panic!("no row `{name}`; there are: {}", known()),
                |r| r.0,
            )
    };
    list.split(',').map(find).collect()
}

impl Row {
    pub(crate) fn title(self) -> &'static str {
        ROWS.iter()
            .find(|(row, ..)| *row == self)
            .map_or("", |(_, _, title)| title)
    }

    pub(crate) fn is_batch(self) -> bool {
        matches!(
            self,
            Row::BatchEncrypt
                | Row::BatchDecrypt
                | Row::BatchReEncrypt
                | Row::BatchReEncryptCurrent
        ) || self.is_stream()
    }

    /// Whether one call is a whole stream.
    pub(crate) fn is_stream(self) -> bool {
        matches!(
            self,
            Row::EncryptStream | Row::DecryptStream | Row::ReEncryptStream
        )
    }

    /// Makes one call; panics unless it succeeds as the row expects.
    pub(crate) async fn call(self, client: Client, number: u64, pool: Arc<Pool>) {
        match self {
            Row::Encrypt | Row::OneAtATime => encrypt(&client, number).await,
            Row::Decrypt => {
                let (id, ciphertext) = pool.current.at(number);
                let field = client.field(KEY, FIELD).context("id", id);
                let opened = field.decrypt(ciphertext).await.expect("decrypted");
                assert_eq!(opened.len(), PLAINTEXT.len());
            }
            Row::ReEncrypt => reencrypt(&client, pool.old.at(number)).await,
            Row::ReEncryptCurrent => reencrypt(&client, pool.current.at(number)).await,
            Row::BatchEncrypt => {
                let batch = encrypt_batch(KEY, number, BATCH);
                all_good(&client.encrypt_batch(batch).await.expect("encrypted"));
            }
            Row::BatchDecrypt => {
                let items = pool
                    .current
                    .items()
                    .map(|(id, ciphertext)| DecryptItem::new(ciphertext.clone()).context("id", id));
                let batch = BatchDecrypt {
                    field: FIELD.into(),
                    items: items.collect(),
                    ..BatchDecrypt::default()
                };
                all_good(&client.decrypt_batch(batch).await.expect("decrypted"));
            }
            Row::BatchReEncrypt => reencrypt_batch(&client, &pool.old).await,
            Row::BatchReEncryptCurrent => reencrypt_batch(&client, &pool.current).await,
            Row::EncryptStream => {
                let batch = encrypt_batch(KEY, number, 0);
                let items = (0..(MESSAGES * BATCH) as u64).map(move |item| {
                    EncryptItem::new(&PLAINTEXT[..]).context("id", (number + item).to_string())
                });
                all_streamed(client.encrypt_stream(batch, stream::iter(items))).await;
            }
            Row::DecryptStream => {
                let batch = BatchDecrypt {
                    field: FIELD.into(),
                    ..BatchDecrypt::default()
                };
                let items = (0..(MESSAGES * BATCH) as u64).map(move |number| {
                    let (id, ciphertext) = pool.current.at(number);
                    DecryptItem::new(ciphertext.clone()).context("id", id)
                });
                all_streamed(client.decrypt_stream(batch, stream::iter(items))).await;
            }
            Row::ReEncryptStream => {
                let batch = BatchReEncrypt {
                    field: FIELD.into(),
                    ..BatchReEncrypt::default()
                };
                let items = (0..(MESSAGES * BATCH) as u64).map(move |number| {
                    let (id, ciphertext) = pool.old.at(number);
                    ReEncryptItem::new(ciphertext.clone()).context("id", id)
                });
                all_streamed(client.reencrypt_stream(batch, stream::iter(items))).await;
            }
        }
    }
}

/// One unary Encrypt.
pub(crate) async fn encrypt(client: &Client, number: u64) {
    let id = number.to_string();
    client
        .field(KEY, FIELD)
        .context("id", &id)
        .encrypt(PLAINTEXT)
        .await
        .expect("encrypted");
}

/// A batch of `items` fields with a context each.
pub(crate) fn encrypt_batch(key: &str, first: u64, items: usize) -> BatchEncrypt {
    BatchEncrypt {
        key: key.into(),
        field: FIELD.into(),
        items: (0..items as u64)
            .map(|item| EncryptItem::new(&PLAINTEXT[..]).context("id", (first + item).to_string()))
            .collect(),
        ..BatchEncrypt::default()
    }
}

async fn reencrypt(client: &Client, (id, ciphertext): (&str, &Bytes)) {
    let field = client.field(KEY, FIELD).context("id", id);
    field.reencrypt(ciphertext).await.expect("re-encrypted");
}

async fn reencrypt_batch(client: &Client, ciphertexts: &Ciphertexts) {
    let items = ciphertexts
        .items()
        .map(|(id, ciphertext)| ReEncryptItem::new(ciphertext.clone()).context("id", id));
    let batch = BatchReEncrypt {
        field: FIELD.into(),
        items: items.collect(),
        ..BatchReEncrypt::default()
    };
    all_good(&client.reencrypt_batch(batch).await.expect("re-encrypted"));
}

fn all_good<T, E>(results: &[Result<T, E>]) {
    assert!(results.len() == BATCH && results.iter().all(Result::is_ok));
}

async fn all_streamed<T>(mut results: Results<T>) {
    let mut good = 0;
    while let Some(result) = results.next().await {
        good += usize::from(result.expect("the stream stays").is_ok());
    }
    assert_eq!(good, MESSAGES * BATCH);
}

/// Ciphertexts of one server.
pub(crate) struct Pool {
    current: Ciphertexts,
    old: Ciphertexts,
}

impl Pool {
    /// Lets the server make them; [`OLD_KEY`] has to be rotated after that.
    pub(crate) async fn make(client: &Client) -> Arc<Self> {
        Arc::new(Self {
            current: Ciphertexts::make(client, KEY).await,
            old: Ciphertexts::make(client, OLD_KEY).await,
        })
    }
}

struct Ciphertexts(Vec<(String, Bytes)>);

impl Ciphertexts {
    async fn make(client: &Client, key: &str) -> Self {
        let batch = encrypt_batch(key, 0, BATCH);
        let results = client.encrypt_batch(batch).await.expect("encrypted");
        let ciphertexts = results
            .into_iter()
            .map(|result| Bytes::copy_from_slice(&result.expect("an item").ciphertext));
        Self((0..).map(|n: u64| n.to_string()).zip(ciphertexts).collect())
    }

    fn at(&self, number: u64) -> (&str, &Bytes) {
        let (id, ciphertext) = &self.0[number as usize % self.0.len()];
        (id, ciphertext)
    }

    fn items(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.0
            .iter()
            .map(|(id, ciphertext)| (id.as_str(), ciphertext))
    }
}
