//! A crash between any two of intent, commit and outcome, and the start after it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use fieldkeep_crypto::ciphertext::Handle;
use fieldkeep_keystore::info::CacheOptions;
use fieldkeep_keystore::rotation::plan::{Act, Cause};
use fieldkeep_keystore::store::watch::Watch;
use fieldkeep_keystore::store::{CommitError, Committed, Record, StoreError, Transaction};
use fieldkeep_proto::v1::Phase;
use tokio::sync::Notify;
use tonic::Code;

use super::busy::{Gate, GatedDisk, until_held};
use super::*;
use crate::audit::operations::RULE_RECOVERED;
use crate::audit::record::change_of;
use crate::audit::trail::{check_trail, settle};
use crate::service::access::{CreateGrant, RevokeGrant};
use crate::service::keys::{CreateKey, CreateTenant, RotateKey};
use crate::service::perform::own::OwnAct;
use crate::service::schedule::KeyId;

const ID: &str = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";

/// Where the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    /// The intent is not on the disk.
    BeforeIntent,
    /// The intent is, and the store was not changed.
    BeforeCommit,
    /// The store was changed, and the service has not heard of it.
    AfterCommit,
    /// The service has heard of it, and the outcome is not on the disk.
    BeforeOutcome,
    /// Everything is on the disk.
    AfterOutcome,
}

/// How a store fails under a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fails {
    /// It did nothing, and does not know.
    Before,
    /// It did what it was told, and does not know.
    After,
}

const CRASHES: [Crash; 5] = [
    Crash::BeforeIntent,
    Crash::BeforeCommit,
    Crash::AfterCommit,
    Crash::BeforeOutcome,
    Crash::AfterOutcome,
];

/// A store that stops for ever where it is told to. Leases of use and marks go through.
struct Crashing {
    below: Arc<MemoryStore>,
    crash: Mutex<Option<Crash>>,
    fails: Mutex<Option<Fails>>,
    stopped: Notify,
    gate: Arc<Gate>,
}

impl Crashing {
    async fn stop<T>(&self) -> T {
        self.stopped.notify_one();
        std::future::pending().await
    }
}

#[async_trait]
impl Store for Crashing {
    async fn get(&self, key: &[u8]) -> Result<Option<Record>, StoreError> {
        self.below.get(key).await
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
        let crash = *self.crash.lock().unwrap();
        if crash == Some(Crash::BeforeCommit) {
            return self.stop().await;
        }
        let fails = *self.fails.lock().unwrap();
        let failed = || Err(CommitError::Io(std::io::Error::other("the disk failed")));
        if fails == Some(Fails::Before) {
            return failed();
        }
        let committed = self.below.commit(transaction).await?;
        if fails == Some(Fails::After) {
            return failed();
        }
        match crash {
            Some(Crash::AfterCommit) => self.stop().await,
            Some(Crash::BeforeOutcome) => {
                self.gate.set(true);
                Ok(committed)
            }
            _ => Ok(committed),
        }
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

struct Crashable {
    f: Fixture,
    store: Arc<Crashing>,
}

fn options() -> fieldkeep_journal::Options {
    fieldkeep_journal::Options {
        segment_bytes: 1 << 20,
        max_payload_bytes: AUDIT_RECORD_BYTES,
        on_fatal: fieldkeep_journal::FatalHook::new(|_| {}),
        ..Default::default()
    }
}

/// What is left after a crash: the store, and a trail with what was on the disk.
struct Left {
    keystore: Keystore,
    audit: AuditLog,
    recovered: u64,
    _dir: TempDir,
}

impl Drop for Crashable {
    /// The trail waits for its writer when it is closed.
    fn drop(&mut self) {
        self.store.gate.set(false);
    }
}

impl Crashable {
    async fn make() -> Self {
        let gate = Arc::new(Gate::default());
        let store = Arc::new(Crashing {
            below: Arc::new(MemoryStore::new()),
            crash: Mutex::new(None),
            fails: Mutex::new(None),
            stopped: Notify::new(),
            gate: Arc::clone(&gate),
        });
        let over = Arc::clone(&store) as Arc<dyn Store>;
        let disk = Arc::new(GatedDisk(gate));
        let f = Fixture::make_over(over, disk, options(), each_on_record()).await;
        // A trail is never empty: `init` writes the first record.
        f.encrypt("acme/app", b"x").await.unwrap();
        Self { f, store }
    }

    fn crash_at(&self, crash: Crash) {
        *self.store.crash.lock().unwrap() = Some(crash);
        self.store.gate.set(crash == Crash::BeforeIntent);
    }

    /// Lets `call` run until the process would end.
    async fn run(&self, crash: Crash, call: impl Future) {
        self.crash_at(crash);
        let ended = async {
            match crash {
                Crash::BeforeIntent | Crash::BeforeOutcome => until_held(&self.store.gate).await,
                Crash::BeforeCommit | Crash::AfterCommit => self.store.stopped.notified().await,
                Crash::AfterOutcome => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = call => assert_eq!(crash, Crash::AfterOutcome),
            () = ended => {}
        }
    }

    /// Starts on what is left.
    async fn restart(&self) -> Left {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(&self.f.dir.path().join(AUDIT), &dir.path().join(AUDIT));
        let left = Arc::clone(&self.store.below) as Arc<dyn Store>;
        let root = KeyFile::new(self.f.dir.path().join(ROOT_KEY));
        let keystore = Keystore::open(left, &root, CacheOptions::default()).await;
        let (keystore, trail) = (keystore.unwrap(), dir.path().join(AUDIT));
        let audit = AuditLog::open_with(&trail, options()).unwrap();
        let report = check_trail(&keystore, &audit, NOW + 5, false)
            .await
            .unwrap();
        Left {
            keystore,
            audit,
            recovered: report.recovered,
            _dir: dir,
        }
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Each intent has exactly one outcome, which says what the store says; no change is on record without one. Returns the outcomes.
pub(crate) async fn agree(records: &[AuditRecord], keystore: &Keystore) -> Vec<AuditRecord> {
    let mut open: HashMap<Vec<u8>, u64> = HashMap::new();
    let mut outcomes = Vec::new();
    for record in records {
        let key = [&record.request_id[..], &record.operation_id[..]].concat();
        match record.phase() {
            Phase::Unspecified => assert!(record.changes.is_empty(), "{record:?}"),
            Phase::Intent => {
                assert_eq!((record.operation_id.len(), record.code), (16, 2));
                assert!(!record.intended_keys.is_empty() && record.changes.is_empty());
                assert_eq!(open.insert(key, record.store_revision), None);
            }
            Phase::Outcome => {
                let before = open.remove(&key).expect("an outcome without an intent");
                let id = <[u8; 16]>::try_from(&record.operation_id[..]).unwrap();
                let committed = keystore.operation_revision(&id).await.unwrap();
                assert_eq!(record.store_revision, committed.unwrap_or(0), "{record:?}");
                // Who finds that there is nothing to do may say what there is.
                assert!(committed.is_none() || !record.changes.is_empty());
                let repeated = committed.is_some_and(|revision| revision <= before);
                assert_eq!(record.detail.ends_with("repeated=true"), repeated);
                for change in &record.changes {
                    let change = change_of(change).unwrap();
                    keystore.check_change(&change).await.unwrap();
                }
                outcomes.push(record.clone());
            }
        }
    }
    assert!(open.is_empty(), "an intent without an outcome");
    outcomes
}

impl Left {
    fn records(&self) -> Vec<AuditRecord> {
        let records = self.audit.read_from(0);
        records.map(|entry| entry.unwrap().1).collect()
    }

    /// What the start made of the one operation.
    async fn check(&self, crash: Crash, action: &str) {
        let outcomes = agree(&self.records(), &self.keystore).await;
        let begun = crash != Crash::BeforeIntent;
        assert_eq!(outcomes.len(), usize::from(begun));
        let recovered = begun && crash != Crash::AfterOutcome;
        assert_eq!(self.recovered, u64::from(recovered));
        for outcome in &outcomes {
            assert_eq!(outcome.action, action);
            let committed = crash != Crash::BeforeCommit;
            let code = if committed { Code::Ok } else { Code::Aborted };
            assert_eq!(outcome.code, i32::from(code), "{outcome:?}");
            assert_eq!(outcome.rule == RULE_RECOVERED, recovered);
            assert_eq!(outcome.reason.is_empty(), committed);
            assert!(!outcome.resources.is_empty());
            if action == "rotate" {
                assert_eq!(outcome.resources[0].version, 2 * u32::from(committed));
            }
        }
        let again = check_trail(&self.keystore, &self.audit, NOW, false)
            .await
            .unwrap();
        assert_eq!(again.recovered, 0);
    }
}

fn request(id: &str) -> Repeatable {
    Repeatable::parse(id, b"r").unwrap()
}

fn create(key_name: &str, id: &str) -> CreateKey {
    CreateKey {
        key: key(key_name),
        settings: Suite::KcXaes256Gcm.into(),
        request: request(id),
    }
}

#[tokio::test]
async fn a_crash_in_a_change_of_keys_is_resolved() {
    for crash in CRASHES {
        let c = Crashable::make().await;
        c.run(crash, c.f.perform("acme/boss", create("new", "")))
            .await;
        c.restart().await.check(crash, "manage").await;

        let c = Crashable::make().await;
        let rotate = RotateKey {
            key: key("pii"),
            request: request(ID),
        };
        c.run(crash, c.f.perform("acme/boss", rotate)).await;
        c.restart().await.check(crash, "rotate").await;

        let c = Crashable::make().await;
        let tenant = CreateTenant {
            tenant: name("new"),
            request: request(""),
        };
        c.run(crash, c.f.perform("acme/boss", tenant)).await;
        c.restart().await.check(crash, "tenant").await;
    }
}

#[tokio::test]
async fn a_crash_in_a_change_of_rights_is_resolved() {
    for crash in CRASHES {
        let c = Crashable::make().await;
        let grant = CreateGrant {
            wanted: wanted(Role::Data, "acme/new", &["*"], &["*"]),
            request: request(""),
        };
        c.run(crash, c.f.perform("acme/boss", grant)).await;
        c.restart().await.check(crash, "grant").await;

        let c = Crashable::make().await;
        let id = GrantId::parse(&c.f.rule_of("other/app")["grant:".len()..]).unwrap();
        let revoke = RevokeGrant {
            id,
            request: request(ID),
        };
        c.run(crash, c.f.perform("acme/boss", revoke)).await;
        c.restart().await.check(crash, "grant").await;
    }
}

#[tokio::test]
async fn a_crash_in_an_act_of_the_services_own_is_resolved() {
    for crash in CRASHES {
        let c = Crashable::make().await;
        let (tenant, pii) = (name("acme"), name("pii"));
        let info = c.f.keystore.describe_key(&tenant, &pii, NOW);
        let handle: Handle = info.await.unwrap().handle;
        let act = OwnAct {
            id: KeyId {
                tenant: name("acme"),
                key: name("pii"),
            },
            handle,
            act: Act::Rotate {
                from: 1,
                cause: Cause::Period,
            },
            due: NOW,
        };
        let metrics = c.f.metrics.rpc("test/Rpc");
        c.run(crash, c.f.service.perform_own(act, metrics)).await;
        c.restart().await.check(crash, "rotate").await;
    }
}

#[tokio::test]
async fn the_mark_passes_no_operation_under_way() {
    let c = Crashable::make().await;
    let creating = c.f.perform("acme/boss", create("new", ""));
    c.run(Crash::AfterCommit, creating).await;
    *c.store.crash.lock().unwrap() = None;
    for _ in 0..3 {
        c.f.encrypt("acme/app", b"x").await.unwrap();
    }
    settle(&c.f.keystore, &c.f.audit, NOW).await.unwrap();
    c.f.perform("acme/boss", create("other", "")).await.unwrap();
    settle(&c.f.keystore, &c.f.audit, NOW).await.unwrap();
    let left = c.restart().await;
    assert_eq!(left.recovered, 1);
    assert_eq!(agree(&left.records(), &left.keystore).await.len(), 2);
}

#[tokio::test]
async fn a_repeated_call_has_an_intent_of_its_own_and_says_so() {
    let f = Fixture::make().await;
    f.perform("acme/boss", create("new", ID)).await.unwrap();
    f.perform("acme/boss", create("new", ID)).await.unwrap();
    let reused = CreateKey {
        request: Repeatable::parse(ID, b"another").unwrap(),
        ..create("other", ID)
    };
    let refused = f.perform("acme/boss", reused).await;
    assert_eq!(refused.unwrap_err(), Failure::RequestIdReused);
    let records = f.records();
    let outcomes = agree(&records[..4], &f.keystore).await;
    assert_eq!(outcomes.len(), 2);
    assert_eq!(outcomes[0].operation_id, outcomes[1].operation_id);
    assert_ne!(outcomes[0].request_id, outcomes[1].request_id);
    assert_eq!(outcomes[0].detail, "suite=1");
    assert_eq!(outcomes[1].detail, "suite=1 repeated=true");
    let last = &records[5];
    assert_eq!((last.phase(), last.store_revision), (Phase::Outcome, 0));
}

#[tokio::test]
async fn a_change_that_was_refused_has_an_outcome_too() {
    let f = Fixture::make().await;
    let exists = f.perform("acme/boss", create("pii", "")).await;
    assert!(matches!(exists, Err(Failure::AlreadyExists(_))));
    let outcomes = agree(&f.records(), &f.keystore).await;
    let code = i32::from(Code::AlreadyExists);
    assert_eq!((outcomes.len(), outcomes[0].code), (1, code));
    // Who may not has no intent: nothing was to be done.
    f.perform("acme/app", create("k", "")).await.unwrap_err();
    assert_eq!(f.last_record().phase(), Phase::Unspecified);
    assert_eq!(f.records().len(), 3);
}

#[tokio::test]
async fn an_outcome_says_what_the_store_did_also_when_that_failed() {
    let c = Crashable::make().await;
    *c.store.fails.lock().unwrap() = Some(Fails::After);
    let failed = c.f.perform("acme/boss", create("new", "")).await;
    assert!(matches!(failed, Err(Failure::StoreUnavailable(_))));
    let outcomes = agree(&c.f.records(), &c.f.keystore).await;
    let code = i32::from(Code::Unavailable);
    assert_eq!((outcomes.len(), outcomes[0].code), (1, code));
    assert!(outcomes[0].store_revision > 0);
    assert_eq!(c.restart().await.recovered, 0);
}

#[tokio::test]
async fn an_outcome_that_cannot_be_known_is_left_to_the_next_start() {
    let c = Crashable::make().await;
    *c.store.fails.lock().unwrap() = Some(Fails::Before);
    let failed = c.f.perform("acme/boss", create("new", "")).await;
    assert!(matches!(failed, Err(Failure::StoreUnavailable(_))));
    let last = c.f.last_record();
    assert_eq!(
        (last.phase(), last.operation_id.len()),
        (Phase::Unspecified, 16)
    );
    let left = c.restart().await;
    left.check(Crash::BeforeCommit, "manage").await;
}

#[tokio::test]
async fn nothing_is_committed_without_an_intent() {
    // No record fits.
    let f = Fixture::make_with(64).await;
    let revision = f.keystore.store().revision().await.unwrap();
    let refused = f.perform("acme/boss", create("new", "")).await;
    assert_eq!(refused.unwrap_err(), Failure::AuditUnavailable);
    assert_eq!(f.keystore.store().revision().await.unwrap(), revision);
}

#[tokio::test]
async fn an_id_that_the_store_has_forgotten_is_told_as_such() {
    let c = Crashable::make().await;
    c.run(
        Crash::BeforeCommit,
        c.f.perform("acme/boss", create("new", "")),
    )
    .await;
    c.f.advance(25 * 3_600);
    // Long past the peer's certificate: the record of the refusal is what tells the time.
    c.f.encrypt("acme/app", b"x").await.unwrap_err();
    let left = c.restart().await;
    let outcomes = agree(&left.records(), &left.keystore).await;
    let outcome = &outcomes[0];
    assert_eq!((outcome.code, outcome.rule.as_str()), (2, RULE_RECOVERED));
    assert!(outcome.reason.starts_with("not known"));
}
