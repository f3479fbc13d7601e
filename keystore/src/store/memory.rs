//! A store in memory: for tests, and for services that need nothing kept. It forgets everything when dropped.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    CommitError, Committed, Event, Record, Store, StoreError, Transaction, limits,
    operation_age::OperationClock,
    watch::{Watch, Watchers},
};

/// The store in memory.
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

struct Inner {
    records: BTreeMap<Bytes, Record>,
    operations: HashMap<[u8; 16], Outcome>,
    /// (time, id) of every entry in `operations`, so that the oldest are found.
    ages: BTreeSet<(u64, [u8; 16])>,
    clock: OperationClock,
    revision: u64,
    watchers: Watchers,
    closed: bool,
}

struct Outcome {
    fingerprint: [u8; 32],
    revision: u64,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        MemoryStore {
            inner: Mutex::new(Inner {
                records: BTreeMap::new(),
                operations: HashMap::new(),
                ages: BTreeSet::new(),
                clock: OperationClock::default(),
                revision: 0,
                watchers: Watchers::new(0),
                closed: false,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while the lock is held; a poisoned lock would still guard whole commits.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<MutexGuard<'_, Inner>, StoreError> {
        let inner = self.lock();
        if inner.closed {
            Err(StoreError::Closed)
        } else {
            Ok(inner)
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryStore")
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Record>, StoreError> {
        Ok(self.open()?.records.get(key).cloned())
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Record)>, StoreError> {
        limits::check_scan(limit)?;
        let inner = self.open()?;
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        Ok(inner
            .records
            .range::<[u8], _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, record)| (key.clone(), record.clone()))
            .collect())
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        limits::check_transaction(&transaction)?;
        let mut inner = self.lock();
        if inner.closed {
            return Err(CommitError::Closed);
        }
        inner.commit(transaction)
    }

    async fn operation(&self, id: &[u8; 16]) -> Result<Option<u64>, StoreError> {
        let inner = self.open()?;
        Ok(inner.operations.get(id).map(|outcome| outcome.revision))
    }

    async fn watch(&self, from: u64) -> Result<Watch, StoreError> {
        self.open()?.watchers.subscribe(from)
    }

    async fn revision(&self) -> Result<u64, StoreError> {
        Ok(self.open()?.revision)
    }

    async fn close(&self) -> Result<(), StoreError> {
        let mut inner = self.lock();
        inner.closed = true;
        inner.watchers.close();
        Ok(())
    }

    fn kind(&self) -> &'static str {
        "memory"
    }
}

impl Inner {
    fn commit(&mut self, transaction: Transaction) -> Result<Committed, CommitError> {
        let Transaction {
            operation,
            expect,
            puts,
            deletes,
            now,
        } = transaction;
        if let Some(outcome) = self.operations.get(&operation.id) {
            if outcome.fingerprint != operation.fingerprint {
                return Err(CommitError::OperationReused);
            }
            return Ok(Committed {
                revision: outcome.revision,
                repeated: true,
            });
        }
        for (key, expected) in expect {
            if self.records.get(&key).map(|record| record.revision) != expected {
                return Err(CommitError::Conflict { key });
            }
        }
        self.revision += 1;
        let revision = self.revision;
        let mut events = Vec::with_capacity(puts.len() + deletes.len());
        for (key, value) in puts {
            self.records.insert(
                key.clone(),
                Record {
                    value: value.clone(),
                    revision,
                },
            );
            events.push(Event {
                revision,
                key,
                value: Some(value),
            });
        }
        for key in deletes {
            if self.records.remove(&key).is_some() {
                events.push(Event {
                    revision,
                    key,
                    value: None,
                });
            }
        }
        if !operation.is_once() {
            self.operations.insert(
                operation.id,
                Outcome {
                    fingerprint: operation.fingerprint,
                    revision,
                },
            );
            self.ages.insert((now, operation.id));
            self.clock.note(now);
            self.forget_operations();
        }
        self.watchers.publish(events);
        Ok(Committed {
            revision,
            repeated: false,
        })
    }

    /// Forgets operation ids older than the time they are kept; at most a few each commit, which is more than a
    /// commit adds.
    fn forget_operations(&mut self) {
        let oldest_kept = self.clock.oldest_kept();
        for _ in 0..8 {
            match self.ages.first() {
                Some((time, id)) if *time < oldest_kept => {
                    self.operations.remove(id);
                    self.ages.pop_first();
                }
                _ => return,
            }
        }
    }
}
