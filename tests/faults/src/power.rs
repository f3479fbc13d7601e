//! Power losses: a recorded run of a child process, restored at random points with only what was synced.

use std::{
    env, fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use fieldkeep_crypto::{ciphertext::Suite, names::Name};
use fieldkeep_keystore::{
    info::CacheOptions,
    keystore::Keystore,
    root::key_file::KeyFile,
    store::{
        Operation, Store as _,
        sled::{SledOptions, SledStore},
    },
};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::{
    random::Random,
    trace::{CALLS, Trace},
};

/// Keys that a recorded run makes; each is rotated once, some are disabled, and every acknowledgement is a line.
const KEYS: u32 = 60;
/// Other records between two keys, large enough together that journal segments fill and snapshots are made.
const OTHERS: u32 = 25;
const OTHER_BYTES: usize = 3_500;
const NOW: u64 = 1_700_000_000;

/// Records one run of each store, then restores it at `points` points.
pub(crate) fn run(points: u64, seed: u64) {
    let mut random = Random::new(seed);
    let control = losses("sled", points, &mut random);
    println!(
        "power loss, bare sled with flush (the control): {points} points, {} lost acknowledged data",
        control.lost
    );
    assert!(
        control.lost > 0,
        "the control must lose data, or this test proves nothing"
    );
    for kind in ["keystore", "mirrored"] {
        let ours = losses(kind, points, &mut random);
        println!(
            "power loss, {kind}: {points} points, {} acknowledgements checked, {} lost, {} failed opens",
            ours.checked, ours.lost, ours.failed
        );
        assert!(
            ours.lost == 0 && ours.failed == 0,
            "acknowledged keys were lost"
        );
    }
}

#[derive(Default)]
struct Tally {
    checked: u64,
    lost: u64,
    failed: u64,
}

fn losses(kind: &str, points: u64, random: &mut Random) -> Tally {
    let work = TempDir::new().expect("a temporary directory");
    // The root key is not part of what the power takes.
    KeyFile::create(root_key(work.path())).expect("a key file");
    let trace = record(kind, work.path());
    let mut tally = Tally::default();
    for _ in 0..points {
        let point = random.below(trace.len() as u64 + 1) as usize;
        let acknowledged: Vec<&str> = trace.lines(point).collect();
        // Half of the points keep nothing unsynced, half keep a random part of it.
        let lucky = random.below(2) == 0;
        let restored = work.path().join("restored");
        trace
            .restore(point, &restored, lucky.then_some(&mut *random))
            .expect("the state can be written");
        match check(kind, work.path(), &restored, &acknowledged) {
            Ok(missing) => {
                tally.lost += u64::from(missing > 0);
                if missing > 0 && kind != "sled" {
                    eprintln!(
                        "point {point}: {missing} of {} acknowledgements lost",
                        acknowledged.len()
                    );
                }
            }
            Err(_) if acknowledged.is_empty() => {} // nothing was promised yet
            Err(error) => {
                tally.failed += 1;
                if kind != "sled" {
                    eprintln!("point {point}: does not open: {error}");
                }
            }
        }
        tally.checked += acknowledged.len() as u64;
        fs::remove_dir_all(&restored).expect("the state can be removed");
    }
    tally
}

fn root_key(work: &Path) -> std::path::PathBuf {
    work.join("root.key")
}

fn record(kind: &str, work: &Path) -> Trace {
    let log = work.join("strace.log");
    let directory = work.join("data");
    fs::create_dir(&directory).expect("the data directory");
    let status = Command::new("strace")
        .args([
            "-f",
            "-xx",
            "-s",
            "67108864",
            "-e",
            "signal=none",
            "-e",
            &format!("trace={CALLS}"),
            "-o",
        ])
        .arg(&log)
        .arg(env::current_exe().expect("the running program has a path"))
        .args(["power-child", kind])
        .arg(&directory)
        .stdout(Stdio::null())
        .status()
        .expect("strace starts (Debian package `strace`)");
    assert!(status.success(), "the recorded run ended with {status}");
    let text = fs::read_to_string(&log).expect("the log is text");
    fs::remove_file(&log).expect("the log can be removed");
    Trace::parse(&text, &directory).expect("the log is understood")
}

/// The recorded process: makes and rotates keys, and prints a line for each acknowledgement.
pub(crate) fn child(kind: &str, directory: &Path) {
    if kind == "sled" {
        return bare_sled(directory);
    }
    let root = KeyFile::new(root_key(
        directory.parent().expect("below the work directory"),
    ));
    runtime().block_on(async {
        let (store, _) =
            SledStore::open(&directory.join("store"), options(kind, directory)).expect("opens");
        let store = Arc::new(store);
        let keystore = Keystore::init(store.clone(), &root, NOW)
            .await
            .expect("an empty store");
        acknowledge("made -");
        let tenant = Name::parse("default").expect("a name");
        let mut operations = 0_u128..;
        let mut operation = || Operation {
            id: operations.next().expect("endless").to_be_bytes(),
            fingerprint: [0; 32],
        };
        for number in 0..KEYS {
            let name = Name::parse(&format!("key-{number}")).expect("a name");
            keystore
                .create_key(&tenant, &name, Suite::KcXaes256Gcm.into(), operation(), NOW)
                .await
                .expect("made");
            acknowledge(&format!("{name} 1"));
            keystore
                .rotate_key(&tenant, &name, operation(), NOW)
                .await
                .expect("rotated");
            acknowledge(&format!("{name} 2"));
            if number % 3 == 0 {
                keystore
                    .set_key_enabled(&tenant, &name, false, operation(), NOW)
                    .await
                    .expect("disabled");
                acknowledge(&format!("{name} disabled"));
            }
            for other in 0..OTHERS {
                let key = format!("sys/other/{other}");
                let held = keystore
                    .system_record(&key)
                    .await
                    .expect("read")
                    .map(|record| record.generation);
                let payload = vec![number as u8; OTHER_BYTES];
                keystore
                    .change_system_record(&key, held, Some(&payload), operation(), NOW)
                    .await
                    .expect("written");
            }
        }
        store.close().await.expect("closes");
    });
}

/// Small figures, so that a short run marks, rolls, snapshots and prunes many times.
fn options(kind: &str, directory: &Path) -> SledOptions {
    SledOptions {
        segment_bytes: 4 << 20,
        mark_commits: 7,
        compact_bytes: 256 << 10,
        mirror: (kind == "mirrored").then(|| directory.join("mirror")),
        ..SledOptions::default()
    }
}

fn bare_sled(directory: &Path) {
    let db = sled::open(directory.join("store")).expect("opens");
    for number in 0..KEYS {
        db.insert(format!("key-{number}"), vec![7; 200])
            .expect("inserted");
        db.flush().expect("flushed");
        acknowledge(&format!("key-{number} 1"));
    }
}

/// One `write` a line, so that the trace has it in its place among the syncs.
fn acknowledge(line: &str) {
    let mut output = std::io::stdout().lock();
    output
        .write_all(format!("{line}\n").as_bytes())
        .and_then(|()| output.flush())
        .expect("standard output");
}

/// Opens the restored state; the number of acknowledgements that it does not hold.
fn check(kind: &str, work: &Path, restored: &Path, acknowledged: &[&str]) -> Result<usize, String> {
    let wanted: Vec<(&str, &str)> = acknowledged
        .iter()
        .filter_map(|line| line.split_once(' '))
        .collect();
    if kind == "sled" {
        let db = sled::open(restored.join("store")).map_err(|e| e.to_string())?;
        return Ok(wanted
            .iter()
            .filter(|(key, _)| !matches!(db.get(key), Ok(Some(_))))
            .count());
    }
    let root = KeyFile::new(root_key(work));
    runtime().block_on(async {
        let (store, _) = SledStore::open(&restored.join("store"), options(kind, restored))
            .map_err(|e| e.to_string())?;
        let store = Arc::new(store);
        let keystore = Keystore::open(store.clone(), &root, CacheOptions::default())
            .await
            .map_err(|e| e.to_string())?;
        let tenant = Name::parse("default").expect("a name");
        let mut missing = 0;
        for (key, what) in wanted.into_iter().filter(|(key, _)| *key != "made") {
            let name = Name::parse(key).expect("a name");
            let found = keystore.describe_key(&tenant, &name, NOW).await;
            let there = match what.parse::<u32>() {
                Ok(version) => found.is_ok_and(|key| key.primary >= version),
                Err(_) => found.is_ok_and(|key| !key.enabled),
            };
            missing += usize::from(!there);
        }
        store.close().await.map_err(|e| e.to_string())?;
        Ok(missing)
    })
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}
