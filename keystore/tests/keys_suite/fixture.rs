//! What the tests share: stores that can be copied, changed and held up, and keystores over them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use fieldkeep_crypto::{
    ciphertext::{Ciphertext, Suite},
    context::EncodedContext,
    keys::{Nonce, RootKey},
    names::{Field, Name},
};
use fieldkeep_keystore::{
    error::KeyError,
    info::CacheOptions,
    key::{Key, Version},
    keystore::Keystore,
    root::{RootError, RootParams, RootProvider},
    store::{
        CommitError, Committed, Operation, Record, Store, StoreError, Transaction,
        memory::MemoryStore, watch::Watch,
    },
};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

pub(crate) const NOW: u64 = 1_790_000_000;
pub(crate) const SUITE: Suite = Suite::KcXaes256Gcm;

/// A root provider without any cost.
pub(crate) struct FixedRoot(pub [u8; 32]);

pub(crate) const ROOT: FixedRoot = FixedRoot([7; 32]);

impl RootProvider for FixedRoot {
    fn name(&self) -> &'static str {
        "fixed"
    }

    fn make(&self) -> Result<(RootKey, RootParams), RootError> {
        let params = RootParams::from_bytes(b"params".to_vec());
        Ok((RootKey::from_bytes(Zeroizing::new(self.0)), params))
    }

    fn open(&self, params: &RootParams) -> Result<RootKey, RootError> {
        if params.as_bytes() != b"params" {
            return Err(RootError::Params { what: "changed" });
        }
        Ok(RootKey::from_bytes(Zeroizing::new(self.0)))
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// An operation that no other test in this process makes.
pub(crate) fn operation() -> Operation {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    numbered(NEXT.fetch_add(1, Ordering::Relaxed))
}

fn numbered(number: u64) -> Operation {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    Operation {
        id,
        fingerprint: [1; 32],
    }
}

pub(crate) async fn init() -> (Arc<MemoryStore>, Keystore) {
    let store = Arc::new(MemoryStore::new());
    let keystore = Keystore::init(store.clone(), &ROOT, NOW).await.unwrap();
    (store, keystore)
}

pub(crate) async fn open(store: Arc<dyn Store>) -> Keystore {
    Keystore::open(store, &ROOT, CacheOptions::default())
        .await
        .unwrap()
}

/// A keystore with the key `default`/`pii`.
pub(crate) async fn with_key() -> (Arc<MemoryStore>, Keystore) {
    let (store, keystore) = init().await;
    create(&keystore, "default", "pii").await;
    (store, keystore)
}

pub(crate) async fn create(keystore: &Keystore, tenant: &str, key: &str) {
    keystore
        .create_key(&name(tenant), &name(key), SUITE.into(), operation(), NOW)
        .await
        .unwrap();
}

pub(crate) async fn rotate(keystore: &Keystore, tenant: &str, key: &str) -> u32 {
    keystore
        .rotate_key(&name(tenant), &name(key), operation(), NOW)
        .await
        .unwrap()
        .value
        .primary
}

pub(crate) fn encrypt(version: &Version, plaintext: &[u8]) -> Vec<u8> {
    let field = Field::parse("customer.email").unwrap();
    let mut out = Vec::new();
    version
        .field_key(field)
        .seal(
            Nonce::make().unwrap(),
            &EncodedContext::EMPTY,
            plaintext,
            &mut out,
        )
        .unwrap();
    out
}

/// Decrypts the way the service does: by the handle and version in the ciphertext.
pub(crate) async fn decrypt(keystore: &Keystore, ciphertext: &[u8]) -> Result<Vec<u8>, KeyError> {
    let parsed = Ciphertext::parse(ciphertext).unwrap();
    let key = keystore.key_by_handle(parsed.handle()).await?;
    decrypt_with(&key, ciphertext).await
}

pub(crate) async fn decrypt_with(key: &Key, ciphertext: &[u8]) -> Result<Vec<u8>, KeyError> {
    let parsed = Ciphertext::parse(ciphertext).unwrap();
    let version = key.version(parsed.version()).await?;
    let field = Field::parse("customer.email").unwrap();
    let mut out = Vec::new();
    version
        .field_key(field)
        .open(&parsed, &EncodedContext::EMPTY, &mut out)
        .expect("the right key opens it");
    Ok(out)
}

/// Every record of a store.
pub(crate) type Records = BTreeMap<Bytes, Bytes>;

pub(crate) async fn dump(store: &dyn Store) -> Records {
    let records = store.scan(b"", None, 10_000).await.unwrap();
    records
        .into_iter()
        .map(|(key, record)| (key, record.value))
        .collect()
}

pub(crate) async fn restore(records: &Records) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    for (key, value) in records {
        put(&*store, key, value).await;
    }
    store
}

/// Writes past the keystore, as somebody with access to the disk would.
pub(crate) async fn put(store: &dyn Store, key: &[u8], value: &[u8]) {
    let transaction = Transaction {
        operation: operation(),
        expect: Vec::new(),
        puts: vec![(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))],
        deletes: Vec::new(),
        now: NOW,
    };
    store.commit(transaction).await.unwrap();
}

pub(crate) async fn remove(store: &dyn Store, key: &[u8]) {
    let transaction = Transaction {
        operation: operation(),
        expect: Vec::new(),
        puts: Vec::new(),
        deletes: vec![Bytes::copy_from_slice(key)],
        now: NOW,
    };
    store.commit(transaction).await.unwrap();
}

/// A store that counts reads, and can hold them, or the answers of commits, until told otherwise.
pub(crate) struct HeldStore {
    inner: Arc<dyn Store>,
    pub(crate) gets: AtomicUsize,
    /// Reads of keys with this prefix happen at once, and are answered when a permit is given.
    held: Mutex<Option<Vec<u8>>>,
    pub(crate) permits: Semaphore,
    /// How many reads have happened and wait for a permit.
    pub(crate) waiting: tokio::sync::watch::Sender<usize>,
    /// Commits happen at once and are answered when a permit of this is given; many while it is not used.
    pub(crate) commit_permits: Semaphore,
    pub(crate) committed: tokio::sync::watch::Sender<usize>,
}

impl HeldStore {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(HeldStore {
            inner,
            gets: AtomicUsize::new(0),
            held: Mutex::new(None),
            permits: Semaphore::new(0),
            waiting: tokio::sync::watch::Sender::new(0),
            commit_permits: Semaphore::new(1_000_000),
            committed: tokio::sync::watch::Sender::new(0),
        })
    }

    pub(crate) fn hold(&self, prefix: &str) {
        *self.held.lock().unwrap() = Some(prefix.as_bytes().to_vec());
    }

    /// Lets held reads and all later ones go on.
    pub(crate) fn release(&self) {
        *self.held.lock().unwrap() = None;
        self.permits.add_permits(1000);
    }

    pub(crate) async fn until_waiting(&self, reads: usize) {
        let mut waiting = self.waiting.subscribe();
        waiting.wait_for(|count| *count >= reads).await.unwrap();
    }

    fn holds(&self, key: &[u8]) -> bool {
        let held = self.held.lock().unwrap();
        held.as_ref().is_some_and(|prefix| key.starts_with(prefix))
    }
}

#[async_trait]
impl Store for HeldStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Record>, StoreError> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        let record = self.inner.get(key).await;
        if self.holds(key) {
            self.waiting.send_modify(|count| *count += 1);
            self.permits.acquire().await.unwrap().forget();
        }
        record
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Record)>, StoreError> {
        self.inner.scan(prefix, after, limit).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        let outcome = self.inner.commit(transaction).await;
        self.committed.send_modify(|count| *count += 1);
        self.commit_permits.acquire().await.unwrap().forget();
        outcome
    }

    async fn operation(&self, id: &[u8; 16]) -> Result<Option<u64>, StoreError> {
        self.inner.operation(id).await
    }

    async fn watch(&self, from: u64) -> Result<Watch, StoreError> {
        self.inner.watch(from).await
    }

    async fn revision(&self) -> Result<u64, StoreError> {
        self.inner.revision().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }

    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
}
