//! Counts of use under random interleavings, failures and crashes, and from many threads.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use fieldkeep_keystore::{
    info::CacheOptions,
    keystore::Keystore,
    store::{
        CommitError, Committed, Record, Store, StoreError, Transaction, memory::MemoryStore,
        watch::Watch,
    },
};
use proptest::prelude::*;
use tokio::task::JoinSet;

use crate::{fixture::*, usage::usage};

const KEYS: u64 = 24;

/// Small and good enough: xorshift64*.
#[derive(Clone)]
struct Dice(Arc<Mutex<u64>>);

impl Dice {
    fn new(seed: u64) -> Self {
        Dice(Arc::new(Mutex::new(seed | 1)))
    }

    fn roll(&self, sides: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// A store whose calls take a random number of turns, and whose commits of usage fail now and then, before or after they
/// happened.
struct Flaky {
    inner: Arc<MemoryStore>,
    dice: Dice,
    /// One commit in so many fails; 0: none.
    fails: u64,
}

impl Flaky {
    async fn dawdle(&self) {
        for _ in 0..self.dice.roll(5) {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Store for Flaky {
    async fn get(&self, key: &[u8]) -> Result<Option<Record>, StoreError> {
        self.dawdle().await;
        let record = self.inner.get(key).await;
        self.dawdle().await;
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
        let of_usage = transaction
            .puts
            .iter()
            .any(|(key, _)| key.starts_with(b"u/"));
        let fails = of_usage && self.fails > 0 && self.dice.roll(self.fails) == 0;
        self.dawdle().await;
        if fails && self.dice.roll(2) == 0 {
            return Err(CommitError::Busy);
        }
        // A caller that goes away does not take it back.
        let inner = Arc::clone(&self.inner);
        let late = self.dice.roll(3);
        let commit = tokio::spawn(async move {
            for _ in 0..late {
                tokio::task::yield_now().await;
            }
            inner.commit(transaction).await
        });
        let outcome = commit.await.unwrap();
        self.dawdle().await;
        if fails {
            return Err(CommitError::Closed);
        }
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
        "flaky"
    }
}

/// What was encrypted: messages and bytes by key and version.
type Truth = Arc<Mutex<BTreeMap<(u64, u32), (u64, u64)>>>;

fn small_cache() -> CacheOptions {
    CacheOptions {
        max_keys: 8,
        ..CacheOptions::default()
    }
}

/// One of those that use keys.
async fn work(keystore: Keystore, dice: Dice, truth: Truth, steps: u64) {
    for _ in 0..steps {
        let number = dice.roll(KEYS).min(dice.roll(KEYS));
        let key = format!("key-{number}");
        match dice.roll(40) {
            0 => {
                rotate(&keystore, "default", &key).await;
            }
            1 => {
                let _ = keystore.flush_usage().await;
            }
            2 | 3 => {
                let before = truth.lock().unwrap().clone();
                let told = usage(&keystore, &key).await;
                compare(&before, number, &told, false);
            }
            _ => {
                let key = keystore.key("default", &key).await.unwrap();
                let most = if dice.roll(8) == 0 { 3000 } else { 300 };
                let (messages, bytes) = (dice.roll(most), dice.roll(900_000));
                if key.count(messages, bytes).await.is_ok() {
                    let mut truth = truth.lock().unwrap();
                    let used = truth.entry((number, key.primary().number())).or_default();
                    *used = (used.0 + messages, used.1 + bytes);
                }
            }
        }
    }
}

fn compare(
    truth: &BTreeMap<(u64, u32), (u64, u64)>,
    number: u64,
    told: &[(u32, u64, u64)],
    exact: bool,
) {
    let told: BTreeMap<u32, (u64, u64)> = told
        .iter()
        .map(|(version, messages, bytes)| (*version, (*messages, *bytes)))
        .collect();
    for ((_, version), (messages, bytes)) in truth.range((number, 0)..(number + 1, 0)) {
        let (m, b) = told.get(version).copied().unwrap_or_default();
        assert!(
            m >= *messages && b >= *bytes,
            "key {number} v{version}: {m} {b} < {messages} {bytes}"
        );
        assert!(
            !exact || (m, b) == (*messages, *bytes),
            "key {number} v{version}: {m} {b} > {messages} {bytes}"
        );
    }
}

async fn live(seed: u64, fails: u64, crashes: bool, processes: u64) {
    let (store, keystore) = init().await;
    for number in 0..KEYS {
        create(&keystore, "default", &format!("key-{number}")).await;
    }
    drop(keystore);
    let (dice, truth) = (Dice::new(seed), Truth::default());
    for _ in 0..3 {
        let flaky = Arc::new(Flaky {
            inner: Arc::clone(&store),
            dice: dice.clone(),
            fails,
        });
        let mut opened = Vec::new();
        for _ in 0..processes {
            let keystore = Keystore::open(flaky.clone(), &ROOT, small_cache()).await;
            opened.push(keystore.unwrap());
        }
        let mut tasks = JoinSet::new();
        for keystore in &opened {
            for _ in 0..4 {
                tasks.spawn(work(keystore.clone(), dice.clone(), Arc::clone(&truth), 25));
            }
        }
        if crashes {
            for _ in 0..dice.roll(2000) {
                tokio::task::yield_now().await;
            }
            tasks.abort_all();
            while let Some(ended) = tasks.join_next().await {
                assert!(ended.is_ok() || ended.unwrap_err().is_cancelled());
            }
        } else {
            while let Some(ended) = tasks.join_next().await {
                ended.unwrap();
            }
            for keystore in &opened {
                let _ = keystore.flush_usage().await;
            }
        }
        let exact = !crashes && fails == 0;
        let truth = truth.lock().unwrap().clone();
        let fresh = open(Arc::clone(&store) as Arc<dyn Store>).await;
        for number in 0..KEYS {
            let told = usage(&fresh, &format!("key-{number}")).await;
            compare(&truth, number, &told, exact);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn never_less_than_the_truth(seed: u64, fails in prop_oneof![Just(0), 3..20_u64], crashes: bool, processes in 1..3_u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(live(seed, fails, crashes, processes));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_threads_count_exactly() {
    let (store, keystore) = init().await;
    for number in 0..KEYS {
        create(&keystore, "default", &format!("key-{number}")).await;
    }
    let keystore = Keystore::open(store.clone(), &ROOT, small_cache())
        .await
        .unwrap();
    let truth = Truth::default();
    let mut tasks = JoinSet::new();
    for seed in 1..=8 {
        let dice = Dice::new(seed * 7919);
        tasks.spawn(work(keystore.clone(), dice, Arc::clone(&truth), 1000));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    keystore.flush_usage().await.unwrap();
    let fresh = open(store).await;
    let truth = truth.lock().unwrap().clone();
    for number in 0..KEYS {
        let told = usage(&fresh, &format!("key-{number}")).await;
        compare(&truth, number, &told, true);
    }
}
