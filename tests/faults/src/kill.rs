//! kill -9 at random moments, of the serving process and of the opening one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fieldkeep_client::{Client, reason::KEY_DISABLED};
use fieldkeep_harness::{Home, Identity, Server};
use fieldkeep_proto::v1::KeyState;
use tokio::task::JoinSet;

use crate::{random::Random, recorded::Operations};

/// Calls that are in flight at once.
const WORKERS: u64 = 8;
/// Older keys that are looked at after each restart; the last restart looks at all.
const OLDER: usize = 20;

/// What was acknowledged of one key: its newest version, that it was disabled, and a ciphertext of each version that sealed one.
#[derive(Default)]
struct Acknowledged {
    version: u32,
    disabled: bool,
    sealed: Vec<Vec<u8>>,
}

type Ledger = BTreeMap<String, Acknowledged>;

/// Kills and restarts `rounds` times.
pub(crate) fn run(rounds: u64, seed: u64) {
    let runtime = crate::runtime();
    let mut random = Random::new(seed);
    let home = Home::make();
    let admin = home.admin();
    let server = home.serve();
    let data = server.issue(
        &admin,
        "default",
        "app",
        "data",
        &home.path().join("identities"),
    );
    drop(server);

    let mut ledger = Ledger::new();
    let (mut lost, mut open_kills) = (0, 0);
    for round in 0..rounds {
        let server = home.serve();
        let fresh = Arc::new(Mutex::new(Ledger::new()));
        runtime.block_on(load_until_killed(
            server,
            &admin,
            &data,
            round,
            &mut random,
            &fresh,
        ));
        for _ in 0..random.below(3) {
            home.serve_and_kill_after(Duration::from_micros(random.below(80_000)));
            open_kills += 1;
        }
        let fresh = std::mem::take(&mut *fresh.lock().expect("not poisoned"));
        let server = home.serve();
        let older = sample(&ledger, &mut random);
        let looked_at = fresh.iter().chain(older);
        lost += runtime.block_on(missing(&server, &admin, &data, looked_at));
        server.kill();
        ledger.extend(fresh);
        if (round + 1) % 25 == 0 || round + 1 == rounds {
            println!(
                "kill: {} rounds, {} opens killed, {} keys and {} versions acknowledged, {lost} lost",
                round + 1,
                open_kills,
                ledger.len(),
                ledger.values().map(|a| u64::from(a.version)).sum::<u64>(),
            );
        }
    }
    let server = home.serve();
    lost += runtime.block_on(missing(&server, &admin, &data, ledger.iter()));
    let unaudited = runtime.block_on(unaudited(&server, &admin, &ledger));
    server.stop();
    println!(
        "kill: all keys looked at once more: {lost} lost, {unaudited} operations of which the audit trail and the store do not agree, 0 failed opens"
    );
    assert_eq!((lost, unaudited), (0, 0), "seed {seed}");
}

async fn load_until_killed(
    server: Server,
    admin: &Identity,
    data: &Identity,
    round: u64,
    random: &mut Random,
    ledger: &Arc<Mutex<Ledger>>,
) {
    let admin = server.admin_client(admin);
    let data = server.data_client(data);
    let done = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (admin, data, ledger, done) =
            (admin.clone(), data.clone(), ledger.clone(), done.clone());
        let mut random = Random::new(random.next());
        workers.spawn(async move {
            let mut number = 0;
            while work(
                &admin,
                &data,
                &format!("k-{round}-{worker}"),
                &mut number,
                &mut random,
                &ledger,
            )
            .await
            {
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    // Some rounds are killed while the very first calls run, some after hundreds.
    tokio::time::sleep(Duration::from_micros(random.below(250_000))).await;
    tokio::task::spawn_blocking(|| server.kill())
        .await
        .expect("killed");
    workers.join_all().await;
}

/// One acknowledged step; false once the server is gone.
async fn work(
    admin: &Client,
    data: &Client,
    prefix: &str,
    number: &mut u64,
    random: &mut Random,
    ledger: &Mutex<Ledger>,
) -> bool {
    let create = *number == 0 || random.below(3) == 0;
    let name = if create {
        *number += 1;
        format!("{prefix}-{}", *number - 1)
    } else {
        format!("{prefix}-{}", random.below(*number))
    };
    let is_disabled = ledger
        .lock()
        .expect("not poisoned")
        .get(&name)
        .is_some_and(|entry| entry.disabled);
    if is_disabled {
        return true;
    }
    let version = if create {
        admin
            .keys()
            .create(&name)
            .await
            .map(|key| key.primary_version)
    } else {
        admin
            .keys()
            .rotate(&name)
            .await
            .map(|key| key.primary_version)
    };
    let Ok(version) = version else { return false };
    note(ledger, &name, |entry| {
        entry.version = entry.version.max(version)
    });
    let sealed = data
        .field(&name, "f")
        .context("id", &name)
        .encrypt(name.as_bytes())
        .await;
    let Ok(sealed) = sealed else { return false };
    note(ledger, &name, |entry| entry.sealed.push(sealed));
    if random.below(8) == 0 {
        if admin.keys().disable(&name).await.is_err() {
            return false;
        }
        note(ledger, &name, |entry| entry.disabled = true);
    }
    true
}

fn note(ledger: &Mutex<Ledger>, name: &str, change: impl FnOnce(&mut Acknowledged)) {
    change(
        ledger
            .lock()
            .expect("not poisoned")
            .entry(name.to_owned())
            .or_default(),
    );
}

fn sample<'a>(ledger: &'a Ledger, random: &mut Random) -> Vec<(&'a String, &'a Acknowledged)> {
    if ledger.is_empty() {
        return Vec::new();
    }
    (0..OLDER)
        .filter_map(|_| {
            ledger
                .iter()
                .nth(random.below(ledger.len() as u64) as usize)
        })
        .collect()
}

/// How many acknowledged versions or ciphertexts are not there any more.
async fn missing<'a>(
    server: &Server,
    admin: &Identity,
    data: &Identity,
    ledger: impl Iterator<Item = (&'a String, &'a Acknowledged)>,
) -> u64 {
    let admin = server.admin_client(admin);
    let data = server.data_client(data);
    let mut lost = 0;
    for (name, acknowledged) in ledger {
        let key = admin.keys().show(name).await.unwrap_or_default();
        if key.primary_version < acknowledged.version {
            eprintln!(
                "`{name}`: version {} was acknowledged, {} is there",
                acknowledged.version, key.primary_version
            );
            lost += 1;
        }
        if acknowledged.disabled && key.state() != KeyState::Disabled {
            eprintln!("`{name}` was disabled, and is not any more");
            lost += 1;
        }
        for sealed in &acknowledged.sealed {
            let opened = data
                .field(name, "f")
                .context("id", name)
                .decrypt(sealed)
                .await;
            let right = match &opened {
                Ok(plaintext) => !acknowledged.disabled && plaintext == name.as_bytes(),
                // A call may have disabled it whose acknowledgement the kill cut off.
                Err(error) => {
                    error.reason() == Some(KEY_DISABLED) && key.state() == KeyState::Disabled
                }
            };
            if !right {
                eprintln!("`{name}`: a ciphertext does not open: {opened:?}");
                lost += 1;
            }
        }
    }
    lost
}

/// How many acknowledged creations the audit trail does not have exactly once, how many intents have not exactly one outcome, and
/// how many keys of which it has an outcome are not as it says.
async fn unaudited(server: &Server, admin: &Identity, ledger: &Ledger) -> usize {
    let admin = server.admin_client(admin);
    let mut pages = admin.audit().list();
    let mut audited = Operations::default();
    while let Some(entries) = pages.next_page().await.expect("the trail can be read") {
        for record in entries.into_iter().filter_map(|entry| entry.record) {
            audited.note(&record);
        }
    }
    let name = |key: &String| format!("tenants/default/keys/{key}");
    let not_once = ledger
        .keys()
        .filter(|key| audited.created.get(&name(key)) != Some(&1))
        .count();
    let open = audited.without_one_outcome();
    let mut others = 0;
    for (resource, version) in &audited.versions {
        let Some((_, key)) = resource.split_once("/keys/") else {
            continue;
        };
        let stored = admin.keys().show(key).await.unwrap_or_default();
        // The outcome that a start wrote names the key without the version.
        let is_as_told = stored.primary_version >= (*version).max(1);
        if !is_as_told {
            eprintln!(
                "`{key}`: version {version} is on record, {} is there",
                stored.primary_version
            );
            others += 1;
        }
    }
    not_once + open + others
}
