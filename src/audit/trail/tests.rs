use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use fieldkeep_crypto::{context::EncodedContext, names::Name};
use fieldkeep_keystore::{
    info::{CacheOptions, Change},
    root::key_file::KeyFile,
    store::{
        CommitError, Committed, Record, Store, StoreError, Transaction,
        memory::MemoryStore,
        sled::{SledOptions, SledStore},
        watch::Watch,
    },
};
use fieldkeep_proto::v1::AuditRecord;
use tempfile::TempDir;

use super::*;
use crate::audit::record::{LocalCall, local_record};

const NOW: u64 = 1_800_000_000;

fn open(dir: &TempDir) -> AuditLog {
    let options = fieldkeep_journal::Options {
        segment_bytes: 1 << 20,
        ..fieldkeep_journal::Options::default()
    };
    AuditLog::open_with(&dir.path().join("audit"), options).unwrap()
}

fn operation() -> Operation {
    Operation::make().unwrap()
}

/// A keystore over `store`, its key file, and a trail beside them.
struct Fixture {
    root: KeyFile,
    keystore: Keystore,
    log: AuditLog,
    /// Last, since fields are dropped in order and the trail writes until it is dropped.
    dir: TempDir,
}

async fn fixture(dir: TempDir, store: Arc<dyn Store>) -> Fixture {
    let root = KeyFile::create(dir.path().join("root.key")).unwrap();
    let keystore = Keystore::init(store, &root, NOW).await.unwrap();
    let log = open(&dir);
    log.append_blocking(&record_of(&[])).unwrap();
    Fixture {
        dir,
        root,
        keystore,
        log,
    }
}

impl Fixture {
    /// Changes `key` and writes the record of it.
    async fn change(&self, key: &str, payload: Option<&[u8]>) -> Vec<Change> {
        let present = self.keystore.system_record(key).await.unwrap();
        let generation = present.map(|record| record.generation);
        let changed = self
            .keystore
            .change_system_record(key, generation, payload, operation(), NOW)
            .await
            .unwrap();
        self.log
            .append_blocking(&record_of(&changed.changes))
            .unwrap();
        changed.changes
    }

    async fn check(&self) -> Result<TrailReport, TrailError> {
        check_trail(&self.keystore, &self.log, NOW, false).await
    }
}

fn record_of(changes: &[Change]) -> AuditRecord {
    local_record(LocalCall {
        detail: "",
        rpc: "test",
        action: "test",
        resource: "test",
        changes,
        store_revision: 1,
        request_id: [0; 16],
        now: NOW,
    })
}

/// A store whose records can be overwritten behind the keystore's back.
struct Tampered {
    below: MemoryStore,
    planted: Mutex<BTreeMap<Bytes, Option<Bytes>>>,
}

impl Tampered {
    fn make() -> Arc<Tampered> {
        Arc::new(Tampered {
            below: MemoryStore::new(),
            planted: Mutex::default(),
        })
    }

    async fn value(&self, key: &str) -> Bytes {
        self.below.get(key.as_bytes()).await.unwrap().unwrap().value
    }

    fn plant(&self, key: &str, value: Option<Bytes>) {
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.planted.lock().unwrap().insert(key, value);
    }
}

#[async_trait]
impl Store for Tampered {
    async fn get(&self, key: &[u8]) -> Result<Option<Record>, StoreError> {
        let planted = self.planted.lock().unwrap().get(key).cloned();
        match planted {
            Some(value) => Ok(value.map(|value| Record { value, revision: 1 })),
            None => self.below.get(key).await,
        }
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Record)>, StoreError> {
        self.below.scan(prefix, after, limit).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        self.below.commit(transaction).await
    }

    async fn operation(&self, id: &[u8; 16]) -> Result<Option<u64>, StoreError> {
        self.below.operation(id).await
    }

    async fn watch(&self, from: u64) -> Result<Watch, StoreError> {
        self.below.watch(from).await
    }

    async fn revision(&self) -> Result<u64, StoreError> {
        self.below.revision().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.below.close().await
    }

    fn kind(&self) -> &'static str {
        self.below.kind()
    }
}

#[tokio::test]
async fn a_store_that_agrees_passes() {
    let fixture = fixture(TempDir::new().unwrap(), Arc::new(MemoryStore::new())).await;
    for payload in [Some(&b"1"[..]), Some(b"2"), None, Some(b"3"), None] {
        fixture.change("sys/test/a", payload).await;
    }
    fixture.change("sys/test/b", Some(b"x")).await;
    let report = fixture.check().await.unwrap();
    assert_eq!(
        report,
        TrailReport {
            settled: 0,
            records: 7,
            changes: 6,
            recovered: 0,
        }
    );
}

#[tokio::test]
async fn a_store_that_is_newer_by_a_crash_passes() {
    let fixture = fixture(TempDir::new().unwrap(), Arc::new(MemoryStore::new())).await;
    fixture.change("sys/test/a", Some(b"1")).await;
    // Committed, and then the crash, before the record of it.
    fixture
        .keystore
        .change_system_record("sys/test/a", Some(1), Some(b"2"), operation(), NOW)
        .await
        .unwrap();
    fixture.check().await.unwrap();
}

#[tokio::test]
async fn rolled_back_planted_and_missing_records_are_told_apart_from_good_ones() {
    let store = Tampered::make();
    let fixture = fixture(TempDir::new().unwrap(), store.clone()).await;
    fixture.change("sys/test/a", Some(b"old")).await;
    let old = store.value("sys/test/a").await;
    fixture.change("sys/test/a", Some(b"new")).await;
    fixture.change("sys/test/b", Some(b"other")).await;
    fixture.change("sys/test/gone", Some(b"was")).await;
    let was = store.value("sys/test/gone").await;
    fixture.change("sys/test/gone", None).await;
    fixture.check().await.unwrap();
    let new = store.value("sys/test/a").await;

    let mut forged = new.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    for (key, planted) in [
        ("sys/test/a", Some(old)),
        ("sys/test/a", None),
        ("sys/test/a", Some(Bytes::from(forged))),
        ("sys/test/b", Some(new)),
        ("sys/test/gone", Some(was)),
        ("sys/test/gone", None),
    ] {
        store.plant(key, planted.clone());
        let error = fixture.check().await.unwrap_err();
        assert!(
            matches!(error, TrailError::Disagrees { .. }),
            "{key} {planted:?}: {error}"
        );
        let message = error.to_string();
        assert!(
            message.contains(key) && message.contains("restore"),
            "{message}"
        );
        store.planted.lock().unwrap().clear();
    }
    fixture.check().await.unwrap();
}

#[tokio::test]
async fn the_same_generation_with_another_value_is_planted() {
    let fixture = fixture(TempDir::new().unwrap(), Arc::new(MemoryStore::new())).await;
    let mut changes = fixture.change("sys/test/a", Some(b"1")).await;
    fixture.check().await.unwrap();
    changes[0].digest = Some([0; 32]);
    fixture.log.append_blocking(&record_of(&changes)).unwrap();
    let error = fixture.check().await.unwrap_err();
    assert!(
        matches!(
            error,
            TrailError::Disagrees {
                index: 2,
                source: KeystoreError::RolledBack { .. }
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_malformed_change_is_refused() {
    let fixture = fixture(TempDir::new().unwrap(), Arc::new(MemoryStore::new())).await;
    let changes = fixture.change("sys/test/a", Some(b"1")).await;
    let mut record = record_of(&changes);
    record.changes[0].value_sha256.truncate(5);
    fixture.log.append_blocking(&record).unwrap();
    assert!(matches!(
        fixture.check().await,
        Err(TrailError::MalformedChange { index: 2 })
    ));
}

#[tokio::test]
async fn the_mark_advances_and_only_what_follows_is_compared() {
    let fixture = fixture(TempDir::new().unwrap(), Arc::new(MemoryStore::new())).await;
    fixture.change("sys/test/a", Some(b"1")).await;
    fixture.change("sys/test/a", Some(b"2")).await;
    assert!(
        !settle_if_due(&fixture.keystore, &fixture.log, NOW)
            .await
            .unwrap()
    );
    settle(&fixture.keystore, &fixture.log, NOW).await.unwrap();
    assert_eq!(
        fixture.check().await.unwrap(),
        TrailReport {
            settled: 3,
            records: 0,
            changes: 0,
            recovered: 0,
        }
    );
    fixture.change("sys/test/a", Some(b"3")).await;
    assert_eq!(
        fixture.check().await.unwrap(),
        TrailReport {
            settled: 3,
            records: 1,
            changes: 1,
            recovered: 0,
        }
    );
    // Again, with nothing new, it writes nothing.
    settle(&fixture.keystore, &fixture.log, NOW).await.unwrap();
    let revision = fixture.keystore.store().revision().await.unwrap();
    settle(&fixture.keystore, &fixture.log, NOW).await.unwrap();
    assert_eq!(fixture.keystore.store().revision().await.unwrap(), revision);
}

#[tokio::test]
async fn the_mark_is_due_after_ten_thousand_changes() {
    let fixture = fixture(TempDir::new().unwrap(), Arc::new(MemoryStore::new())).await;
    let changes = fixture.change("sys/test/a", Some(b"1")).await;
    let record = record_of(&changes);
    for _ in 2..SETTLE_CHANGES {
        fixture.log.append(&record).unwrap();
    }
    assert!(
        !settle_if_due(&fixture.keystore, &fixture.log, NOW)
            .await
            .unwrap()
    );
    fixture.log.append_blocking(&record).unwrap();
    assert!(
        settle_if_due(&fixture.keystore, &fixture.log, NOW)
            .await
            .unwrap()
    );
    assert!(
        !settle_if_due(&fixture.keystore, &fixture.log, NOW)
            .await
            .unwrap()
    );
    assert_eq!(fixture.check().await.unwrap().records, 0);
}

#[tokio::test]
async fn a_trail_that_is_gone_or_older_than_the_mark_is_refused() {
    let fixture = fixture(TempDir::new().unwrap(), Arc::new(MemoryStore::new())).await;
    let other = TempDir::new().unwrap();
    let empty = open(&other);
    let error = check_trail(&fixture.keystore, &empty, NOW, false)
        .await
        .unwrap_err();
    assert!(
        matches!(error, TrailError::Missing) && error.to_string().contains("restore"),
        "{error}"
    );

    fixture.change("sys/test/a", Some(b"1")).await;
    settle(&fixture.keystore, &fixture.log, NOW).await.unwrap();
    empty.append_blocking(&record_of(&[])).unwrap();
    let error = check_trail(&fixture.keystore, &empty, NOW, false)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            TrailError::Short {
                found: 1,
                settled: 2
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn an_older_copy_of_the_store_is_refused_beside_the_newer_trail() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let (store, _) = SledStore::open(&data, SledOptions::default()).unwrap();
    let first = fixture(dir, Arc::new(store)).await;
    let tenant = Name::parse("acme").unwrap();
    first.change("sys/role/acme/app", Some(b"data")).await;
    settle(&first.keystore, &first.log, NOW).await.unwrap();
    first.keystore.store().close().await.unwrap();
    let Fixture {
        dir,
        root,
        keystore,
        log,
    } = first;
    drop((keystore, log));

    let copy = dir.path().join("copy");
    copy_dir(&data, &copy);
    let (store, _) = SledStore::open(&data, SledOptions::default()).unwrap();
    let keystore = Keystore::open(Arc::new(store), &root, CacheOptions::default())
        .await
        .unwrap();
    let second = Fixture {
        log: open(&dir),
        dir,
        root,
        keystore,
    };
    second.change("sys/role/acme/app", None).await;
    let created = second
        .keystore
        .create_tenant(&tenant, operation(), NOW)
        .await
        .unwrap();
    second
        .log
        .append_blocking(&record_of(&created.changes))
        .unwrap();
    settle(&second.keystore, &second.log, NOW).await.unwrap();
    second.check().await.unwrap();
    second.keystore.store().close().await.unwrap();
    let Fixture {
        dir,
        root,
        keystore,
        log,
    } = second;
    drop((keystore, log));

    let (store, _) = SledStore::open(&copy, SledOptions::default()).unwrap();
    let keystore = Keystore::open(Arc::new(store), &root, CacheOptions::default())
        .await
        .unwrap();
    let error = check_trail(&keystore, &open(&dir), NOW, false)
        .await
        .unwrap_err();
    assert!(
        matches!(error, TrailError::Disagrees { index: 2, .. }),
        "{error}"
    );
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_context_leaves_a_keyed_hash_alone() {
    let first = fixture(TempDir::new().unwrap(), Arc::new(MemoryStore::new())).await;
    let second = fixture(TempDir::new().unwrap(), Arc::new(MemoryStore::new())).await;
    let hash = |fixture: &Fixture, value| {
        let context = EncodedContext::encode([("id", value)]).unwrap();
        fixture.keystore.audit_key().context_hash(&context)
    };
    assert_eq!(hash(&first, "42"), hash(&first, "42"));
    assert_ne!(hash(&first, "42"), hash(&first, "43"));
    assert_ne!(hash(&first, "42"), hash(&second, "42"));
    drop(first.dir);
}

#[tokio::test]
async fn a_trail_whose_beginning_was_removed_is_refused_unless_it_left() {
    let f = fixture(TempDir::new().unwrap(), Tampered::make()).await;
    let long = AuditRecord {
        detail: "-".repeat(900),
        ..record_of(&[])
    };
    for _ in 0..10_000 {
        f.log.append(&long).unwrap();
    }
    f.log.append_blocking(&record_of(&[])).unwrap();
    settle(&f.keystore, &f.log, NOW).await.unwrap();
    assert!(f.log.journal.prune_before(9_000).unwrap() > 0);
    let first = f.log.kept_from();
    let refused = f.check().await.unwrap_err();
    assert!(
        matches!(refused, TrailError::Removed { first: found, kept_from: 0 } if found == first),
        "{refused}"
    );
    // Less left than is missing, and then as much.
    note_kept_from(&f.keystore, first - 1, NOW).await.unwrap();
    assert!(matches!(
        f.check().await.unwrap_err(),
        TrailError::Removed { .. }
    ));
    // What left without tiles of its own is no more to be read here, but nobody removed it.
    let is_removed = |checked| matches!(checked, Err(TrailError::Removed { .. }));
    note_kept_from(&f.keystore, first, NOW).await.unwrap();
    assert!(!is_removed(f.check().await));
    // A loss that was accepted is noted as well.
    assert!(f.log.journal.prune_before(u64::MAX).unwrap() > 0);
    assert!(is_removed(f.check().await));
    lower_mark(&f.keystore, &f.log, NOW).await.unwrap();
    assert!(!is_removed(f.check().await));
}
