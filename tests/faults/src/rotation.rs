//! kill -9 while keys rotate by themselves: no counter below the truth, no rotation twice, everything decrypts.

use std::{
    collections::{BTreeMap, HashMap},
    fs::OpenOptions,
    io::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fieldkeep_client::Client;
use fieldkeep_crypto::ciphertext::Ciphertext;
use fieldkeep_harness::{Home, Identity, Server};
use fieldkeep_proto::v1::{AuditRecord, Key, KeyRotation};
use tokio::task::JoinSet;

use crate::random::Random;

/// Calls that are in flight at once.
const WORKERS: usize = 8;
/// A key by period rotates so often, seconds.
const PERIOD_S: i64 = 1;
/// A key by messages or bytes rotates after so many.
const MESSAGES: u64 = 40;
const BYTES: u64 = 1_500;
/// The longest time from one start to its kill.
const LONGEST_US: u64 = 1_600_000;
/// Ciphertexts that are kept of each round, to be opened after the last.
const KEPT: usize = 20;

/// The keys: by period, by messages, by bytes, and one that must never rotate.
const KINDS: [(&str, u64); 4] = [("period", 8), ("messages", 8), ("bytes", 4), ("never", 1)];

/// What was acknowledged under one version of one key.
#[derive(Default, Clone, Copy)]
struct Used {
    messages: u64,
    bytes: u64,
}

/// What was acknowledged.
#[derive(Default)]
struct Ledger {
    used: BTreeMap<(String, u32), Used>,
    /// Key, context and ciphertext of some.
    kept: Vec<(String, String, Vec<u8>)>,
}

/// Kills and restarts `rounds` times.
pub(crate) fn run(rounds: u64, seed: u64) {
    let runtime = crate::runtime();
    // A client belongs to the runtime that it is made in.
    let _inside = runtime.enter();
    let mut random = Random::new(seed);
    let home = Home::make();
    let mut config = OpenOptions::new()
        .append(true)
        .open(home.config())
        .expect("the configuration can be written");
    config
        .write_all(b"\n[rotation]\nper_second = 1000\n")
        .expect("the configuration can be written");
    let (admin, identities) = (home.admin(), home.path().join("identities"));
    let server = home.serve();
    let data = server.issue(&admin, "default", "app", "data", &identities);
    runtime.block_on(create(&server.admin_client(&admin)));
    server.kill();

    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut wrong = 0;
    for round in 0..rounds {
        let server = home.serve();
        let length = Duration::from_micros(random.below(LONGEST_US));
        runtime.block_on(load_until_killed(server, &data, length, round, &ledger));
        let server = home.serve();
        let keys = runtime.block_on(async {
            let keys = server.admin_client(&admin);
            wrong += below_the_truth(&keys, &ledger).await;
            keys.keys().list("").collect().await.expect("listed")
        });
        server.kill();
        ledger
            .lock()
            .expect("not poisoned")
            .thin_out(KEPT * (round as usize + 1));
        if (round + 1) % 25 == 0 || round + 1 == rounds {
            let versions: u32 = keys.iter().map(|key| key.primary_version).sum();
            println!(
                "rotation: {} rounds, {versions} versions, {wrong} wrong",
                round + 1
            );
        }
    }

    let server = home.serve();
    let (opened, unreadable, twice, unaudited, early) = runtime.block_on(async {
        let keys = server.admin_client(&admin);
        let (opened, unreadable) = open_all(&server.data_client(&data), &ledger).await;
        let (twice, unaudited, early) = doubled(&keys).await;
        (opened, unreadable, twice, unaudited, early)
    });
    server.stop();
    println!(
        "rotation: {wrong} counters below the truth, {twice} versions recorded twice, {early} rotations without a cause, {unaudited} that the trail does not have, \
         {unreadable} of {opened} ciphertexts do not open"
    );
    assert_eq!(
        (wrong, twice, early, unreadable),
        (0, 0, 0, 0),
        "seed {seed}"
    );
}

async fn create(admin: &Client) {
    for (kind, count) in KINDS {
        for number in 0..count {
            let policy = match kind {
                "period" => KeyRotation {
                    period: Some(seconds(PERIOD_S)),
                    jitter: Some(seconds(0)),
                    ..KeyRotation::default()
                },
                "messages" => KeyRotation {
                    max_messages: MESSAGES,
                    ..KeyRotation::default()
                },
                "bytes" => KeyRotation {
                    max_bytes: BYTES,
                    ..KeyRotation::default()
                },
                _ => KeyRotation::default(),
            };
            let policy = (kind != "never").then_some(policy);
            let name = format!("{kind}-{number}");
            admin
                .keys()
                .create_with(&name, policy)
                .await
                .expect("created");
        }
    }
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

async fn load_until_killed(
    server: Server,
    data: &Identity,
    length: Duration,
    round: u64,
    ledger: &Arc<Mutex<Ledger>>,
) {
    let names: Arc<[String]> = KINDS
        .iter()
        .flat_map(|(kind, count)| (0..*count).map(move |number| format!("{kind}-{number}")))
        .collect();
    let client = server.data_client(data);
    let over = Arc::new(AtomicBool::new(false));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (client, names, ledger, over) =
            (client.clone(), names.clone(), ledger.clone(), over.clone());
        workers.spawn(async move {
            for number in 0.. {
                let name = &names[(worker + number) % names.len()];
                let context = format!("{round}-{worker}-{number}");
                let plaintext = plaintext(&context);
                let call = client.field(name, "f").context("id", &context);
                let Ok(sealed) = call.encrypt(plaintext.as_bytes()).await else {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    continue;
                };
                note(&ledger, name, context, sealed, plaintext.len() as u64);
            }
        });
    }
    tokio::time::sleep(length).await;
    over.store(true, Ordering::Relaxed);
    tokio::task::spawn_blocking(|| server.kill())
        .await
        .expect("killed");
    workers.join_all().await;
}

/// The value that belongs to a context.
fn plaintext(context: &str) -> String {
    format!("value of {context}")
}

fn note(ledger: &Mutex<Ledger>, name: &str, context: String, sealed: Vec<u8>, bytes: u64) {
    let version = Ciphertext::parse(&sealed).expect("a ciphertext").version();
    let mut ledger = ledger.lock().expect("not poisoned");
    let used = ledger.used.entry((name.to_owned(), version)).or_default();
    used.messages += 1;
    used.bytes += bytes;
    ledger.kept.push((name.to_owned(), context, sealed));
}

impl Ledger {
    /// Drops ciphertexts evenly until at most `most` are kept.
    fn thin_out(&mut self, most: usize) {
        let step = self.kept.len().div_ceil(most.max(1)).max(1);
        let mut number = 0;
        self.kept.retain(|_| {
            number += 1;
            number % step == 0
        });
    }
}

/// How many counters say less than what was acknowledged.
async fn below_the_truth(admin: &Client, ledger: &Mutex<Ledger>) -> u64 {
    let truth = ledger.lock().expect("not poisoned").used.clone();
    let mut counted: HashMap<(String, u32), Used> = HashMap::new();
    for (kind, count) in KINDS {
        for number in 0..count {
            let name = format!("{kind}-{number}");
            let usage = admin.keys().usage(&name).await.expect("counted");
            for version in usage.versions {
                let used = Used {
                    messages: version.messages,
                    bytes: version.bytes,
                };
                counted.insert((name.clone(), version.version), used);
            }
        }
    }
    let mut below = 0;
    // A listing has the newest 1,000 versions of a key.
    let newest: BTreeMap<&str, u32> = truth
        .keys()
        .map(|(name, version)| (&**name, *version))
        .collect();
    for ((name, version), used) in &truth {
        if version + 900 < newest[&**name] {
            continue;
        }
        let counted = counted
            .get(&(name.clone(), *version))
            .copied()
            .unwrap_or_default();
        if counted.messages < used.messages || counted.bytes < used.bytes {
            eprintln!(
                "`{name}` version {version}: counted {} messages and {} bytes, acknowledged {} and {}",
                counted.messages, counted.bytes, used.messages, used.bytes
            );
            below += 1;
        }
    }
    below
}

/// How many kept ciphertexts there are, and how many do not open.
async fn open_all(data: &Client, ledger: &Mutex<Ledger>) -> (usize, usize) {
    let kept = std::mem::take(&mut ledger.lock().expect("not poisoned").kept);
    let mut unreadable = 0;
    for (name, context, sealed) in &kept {
        let opened = data
            .field(name, "f")
            .context("id", context)
            .decrypt(sealed)
            .await;
        if !opened
            .as_ref()
            .is_ok_and(|value| *value == plaintext(context).as_bytes())
        {
            eprintln!("`{name}`: a ciphertext does not open: {:?}", opened.err());
            unreadable += 1;
        }
    }
    (kept.len(), unreadable)
}

/// Versions that the audit trail has twice, versions that it does not have, and rotations that had no cause.
async fn doubled(admin: &Client) -> (u64, u64, u64) {
    // The keys go on rotating meanwhile: what they have now must be in the trail that is read after it.
    let mut keys = Vec::new();
    for listed in admin.keys().list("").collect().await.expect("listed") {
        let name = listed
            .name
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        let key = admin.keys().show(&name).await.expect("shown");
        keys.push((name, key));
    }
    let mut recorded: HashMap<(String, u32), u64> = HashMap::new();
    let mut pages = admin.audit().list();
    while let Some(entries) = pages.next_page().await.expect("the trail can be read") {
        for record in entries.into_iter().filter_map(|entry| entry.record) {
            if let Some(made) = made_by_schedule(&record) {
                *recorded.entry(made).or_default() += 1;
            }
        }
    }
    let twice = recorded.values().filter(|count| **count > 1).count() as u64;
    let (mut unaudited, mut early) = (0, 0);
    for (name, key) in keys {
        // The record of the newest one may still be on its way.
        let made = 2..key.primary_version;
        unaudited += made
            .filter(|version| !recorded.contains_key(&(key.name.clone(), *version)))
            .inspect(|version| eprintln!("`{name}`: the trail does not have version {version}"))
            .count() as u64;
        early += without_cause(admin, &name, &key).await;
    }
    (twice, unaudited, early)
}

/// The key and the version that a record of the schedule says it made.
fn made_by_schedule(record: &AuditRecord) -> Option<(String, u32)> {
    let own = record.authentication == "local" && record.action == "rotate";
    let resource = record.resources.first()?;
    (own && record.code == 0).then(|| (resource.name.clone(), resource.version))
}

/// Versions of a key that were replaced before anything asked for that.
async fn without_cause(admin: &Client, name: &str, key: &Key) -> u64 {
    if name.starts_with("never") {
        return u64::from(key.primary_version - 1);
    }
    if name.starts_with("period") {
        let made = |version: &fieldkeep_proto::v1::KeyVersion| {
            version.create_time.map_or(0, |time| time.seconds)
        };
        // Newest first.
        let pairs = key.versions.windows(2);
        return pairs
            .filter(|pair| made(&pair[0]) - made(&pair[1]) < PERIOD_S)
            .count() as u64;
    }
    let usage = admin.keys().usage(name).await.expect("counted");
    let replaced = usage
        .versions
        .iter()
        .filter(|version| version.version < key.primary_version);
    replaced
        .filter(|version| version.messages < MESSAGES && version.bytes < BYTES)
        .count() as u64
}
