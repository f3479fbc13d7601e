//! Calls of many clients at once, and what each of them was told.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use fieldkeep_client::{BatchEncrypt, Client, EncryptItem, Error, Receipt, Receipts, reason};
use fieldkeep_harness::{Identity, Server};
use fieldkeep_proto::v1::CreateGrantRequest;
use tokio::task::JoinSet;

use crate::random::Random;

/// The key of the calls on fields.
pub(crate) const KEY: &str = "pii";
const FIELD: &str = "customer.email";
/// Callers of small calls, of large ones, and of management.
const SMALL: u64 = 6;
const ADMINS: u64 = 2;
/// Items of a large batch, each with a field of its own, so that its record is large.
const LARGE_ITEMS: u64 = 500;
/// So seldom does a call fail on purpose: more would be counted together in one record.
const FAILURE_EVERY: Duration = Duration::from_millis(300);
/// How long a caller waits who was refused.
const PAUSE: Duration = Duration::from_millis(5);

/// A call whose result somebody got.
pub(crate) struct Told {
    pub(crate) receipt: Receipt,
    /// The last part of the RPC's name.
    pub(crate) method: &'static str,
}

/// What all were told.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) told: Vec<Told>,
    /// The id and the method of calls that failed on purpose.
    pub(crate) failed: Vec<(String, &'static str)>,
    /// Results that came without a receipt.
    pub(crate) without_receipt: u64,
    /// The newest version of each key that somebody was told of.
    pub(crate) versions: BTreeMap<String, u32>,
    /// Grants, and whether each stands; not those of which nobody knows.
    pub(crate) grants: BTreeMap<String, bool>,
    /// Calls that got nothing, since the trail took no record.
    pub(crate) unavailable: u64,
    /// Refusals that nobody expected.
    pub(crate) others: BTreeMap<String, u64>,
}

/// How the callers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// They go when the service goes.
    Leave,
    /// They stay whatever happens, and some of them make large calls.
    Stay,
}

/// Callers that are under way.
pub(crate) struct Callers {
    ledger: Arc<Mutex<Ledger>>,
    over: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Callers {
    /// Starts them. `prefix` begins the names of what they make. It has to be called within a runtime.
    pub(crate) fn start(
        server: &Server,
        admin: &Identity,
        data: &Identity,
        manner: Manner,
        prefix: &str,
        random: &mut Random,
    ) -> Self {
        let mut callers = Self {
            ledger: Arc::default(),
            over: Arc::default(),
            tasks: JoinSet::new(),
        };
        let (admin, data) = (server.admin_client(admin), server.data_client(data));
        for number in 0..SMALL {
            let caller = callers.caller(&data, manner, random);
            let large = manner == Manner::Stay && number % 3 == 2;
            let fails = number == 0;
            callers.tasks.spawn(async move {
                match large {
                    true => caller.encrypt_large().await,
                    false => caller.use_fields(fails).await,
                }
            });
        }
        for number in 0..ADMINS {
            let caller = callers.caller(&admin, manner, random);
            let prefix = format!("{prefix}-{number}");
            callers
                .tasks
                .spawn(async move { caller.manage(&prefix).await });
        }
        callers
    }

    fn caller(&self, client: &Client, manner: Manner, random: &mut Random) -> Caller {
        let receipts = Receipts::up_to(100);
        Caller {
            client: client.with_receipts(&receipts),
            receipts,
            ledger: Arc::clone(&self.ledger),
            over: Arc::clone(&self.over),
            stays: manner == Manner::Stay,
            random: Random::new(random.next()),
        }
    }

    /// What they were told so far.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("not poisoned")
    }

    /// Ends them, and waits for the calls that are under way.
    pub(crate) async fn end(self) -> Ledger {
        self.over.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
        std::mem::take(&mut *self.ledger.lock().expect("not poisoned"))
    }
}

struct Caller {
    client: Client,
    receipts: Receipts,
    ledger: Arc<Mutex<Ledger>>,
    over: Arc<AtomicBool>,
    stays: bool,
    random: Random,
}

impl Caller {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn note(&self, note: impl FnOnce(&mut Ledger)) {
        note(&mut self.ledger.lock().expect("not poisoned"));
    }

    /// Notes how a call ended; its result if it had one. `Err` once there is nobody to call any more.
    async fn ended<T>(
        &self,
        method: &'static str,
        outcome: Result<T, Error>,
    ) -> Result<Option<T>, ()> {
        let receipts = self.receipts.take();
        let error = match outcome {
            Ok(result) => {
                self.note(|ledger| {
                    ledger.without_receipt += u64::from(receipts.is_empty());
                    let told = receipts.into_iter();
                    ledger
                        .told
                        .extend(told.map(|receipt| Told { receipt, method }));
                });
                return Ok(Some(result));
            }
            Err(error) => error,
        };
        // Of a batch that was sent in parts, some have their results.
        match error.reason() {
            Some(reason::AUDIT_UNAVAILABLE) => self.note(|ledger| ledger.unavailable += 1),
            Some(reason) => self.note(|ledger| {
                *ledger
                    .others
                    .entry(format!("{method}: {reason}"))
                    .or_default() += 1;
            }),
            None if !self.stays => return Err(()),
            None => {}
        }
        tokio::time::sleep(PAUSE).await;
        Ok(None)
    }

    /// Encrypts, decrypts and re-encrypts, one field or some; and now and then fails on purpose if it `fails`.
    async fn use_fields(mut self, fails: bool) {
        let mut failed = Instant::now();
        let mut kept: Option<(String, Vec<u8>)> = None;
        while !self.is_over() {
            if fails
                && failed.elapsed() >= FAILURE_EVERY
                && let Some((_, sealed)) = &kept
            {
                failed = Instant::now();
                let field = self.client.field(KEY, FIELD).context("id", "another");
                self.failed("Decrypt", field.decrypt(sealed).await);
                continue;
            }
            let id = self.random.next().to_string();
            let client = self.client.clone();
            let chosen = self.random.below(10);
            let ended = if chosen < 3
                && let Some((id, sealed)) = &kept
            {
                let field = client.field(KEY, FIELD).context("id", id);
                let outcome = field.decrypt(sealed).await;
                self.ended("Decrypt", outcome).await.map(drop)
            } else if chosen == 3
                && let Some((id, sealed)) = &kept
            {
                let field = client.field(KEY, FIELD).context("id", id);
                let outcome = field.reencrypt(sealed).await;
                self.ended("ReEncrypt", outcome).await.map(drop)
            } else if chosen == 4 {
                let items = 1 + self.random.below(50);
                let outcome = client.encrypt_batch(batch(items, &id, false)).await;
                self.ended("BatchEncrypt", outcome).await.map(drop)
            } else {
                let field = client.field(KEY, FIELD).context("id", &id);
                let outcome = field.encrypt(id.as_bytes()).await;
                let ended = self.ended("Encrypt", outcome).await;
                ended.map(|sealed| {
                    if let Some(sealed) = sealed {
                        kept = Some((id.clone(), sealed));
                    }
                })
            };
            if ended.is_err() {
                return;
            }
        }
    }

    /// Notes a call that must fail, by the id that its refusal bears.
    fn failed(&self, method: &'static str, outcome: Result<Vec<u8>, Error>) {
        let _ = self.receipts.take();
        if let Err(Error::Server(error)) = &outcome
            && error.reason() == Some(reason::DECRYPTION_FAILED)
            && let Some(id) = error.request_id()
        {
            self.note(|ledger| ledger.failed.push((id.to_owned(), method)));
        } else if outcome.is_ok() {
            self.note(|ledger| {
                *ledger
                    .others
                    .entry("opened with another context".to_owned())
                    .or_default() += 1;
            });
        }
    }

    /// Makes large records as fast as it can.
    async fn encrypt_large(mut self) {
        while !self.is_over() {
            let id = self.random.next().to_string();
            let outcome = self
                .client
                .encrypt_batch(batch(LARGE_ITEMS, &id, true))
                .await;
            if self.ended("BatchEncrypt", outcome).await.is_err() {
                return;
            }
        }
    }

    /// Makes and rotates keys, grants and takes grants back.
    async fn manage(mut self, prefix: &str) {
        let mut keys = 0;
        while !self.is_over() {
            let client = self.client.clone();
            let ended = match self.random.below(10) {
                0 => self.grant(&client, prefix, keys).await,
                1..4 => {
                    let name = format!("{prefix}-{keys}");
                    keys += 1;
                    let outcome = client.keys().create(&name).await;
                    self.key_made("CreateKey", &name, outcome).await
                }
                _ if keys == 0 => Ok(()),
                _ => {
                    let name = format!("{prefix}-{}", self.random.below(keys));
                    let outcome = client.keys().rotate(&name).await;
                    // The key may be one of which nobody was told.
                    let unknown = |error: &Error| error.reason() == Some(reason::KEY_NOT_FOUND);
                    match outcome {
                        Err(error) if unknown(&error) => Ok(()),
                        outcome => self.key_made("RotateKey", &name, outcome).await,
                    }
                }
            };
            if ended.is_err() {
                return;
            }
        }
    }

    async fn key_made(
        &self,
        method: &'static str,
        name: &str,
        outcome: Result<fieldkeep_proto::v1::Key, Error>,
    ) -> Result<(), ()> {
        if let Some(key) = self.ended(method, outcome).await? {
            self.note(|ledger| {
                let newest = ledger.versions.entry(name.to_owned()).or_default();
                *newest = (*newest).max(key.primary_version);
            });
        }
        Ok(())
    }

    /// Grants something, and takes most grants back at once.
    async fn grant(&mut self, client: &Client, prefix: &str, number: u64) -> Result<(), ()> {
        let wanted = CreateGrantRequest {
            principal: "tenants/default/identities/app".to_owned(),
            role: "encrypter".to_owned(),
            keys: vec![format!("{prefix}-{number}-{}", self.random.below(1 << 40))],
            fields: vec![FIELD.to_owned()],
            ..CreateGrantRequest::default()
        };
        let kept = self.random.below(4) == 0;
        let outcome = client.grants().create(wanted).await;
        let Some(grant) = self.ended("CreateGrant", outcome).await? else {
            return Ok(());
        };
        let stands = |stands: bool| {
            let name = grant.name.clone();
            self.note(move |ledger| ledger.grants.extend([(name, stands)]));
        };
        stands(true);
        if kept {
            return Ok(());
        }
        let outcome = client.grants().revoke(&grant.name).await;
        // Until somebody is told, nobody knows.
        self.note(|ledger| ledger.grants.retain(|name, _| *name != grant.name));
        if self.ended("RevokeGrant", outcome).await?.is_some() {
            stands(false);
        }
        Ok(())
    }
}

/// A batch; with a field of its own for each item if its record shall be large.
fn batch(items: u64, id: &str, large: bool) -> BatchEncrypt {
    let items = (0..items).map(|number| {
        let mut item = EncryptItem::new(&b"x"[..]).context("id", id);
        if large {
            item.field = format!("customer.{number:04}-{}", "long.".repeat(9));
            item.field.truncate(50);
        }
        item
    });
    BatchEncrypt {
        key: KEY.to_owned(),
        field: FIELD.to_owned(),
        items: items.collect(),
        ..BatchEncrypt::default()
    }
}
