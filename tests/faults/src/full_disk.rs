//! The trail's disk is filled to the last byte under load: no result without its record, none at all while it is full, and all goes on when
//! there is space again.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use fieldkeep_harness::{Home, Server};
use tokio::runtime::Runtime;

use crate::{
    audit_kill::unexpected,
    calls::{Callers, KEY, Ledger, Manner},
    random::Random,
    recorded::Recorded,
};

const MEBIBYTES: u32 = 64;
/// The smallest that may be set, so that two of them are soon full.
const SETTINGS: &str = "\n[audit]\nsegment_bytes = 8388608\n";
/// How long the trail may take until it is full, and until it takes records again.
const PATIENCE: Duration = Duration::from_secs(60);
/// After so long no call is under way any more that began before the disk was full.
const SETTLED: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Well,
    Badly,
    /// Nothing was tried, since this process may not mount.
    Skipped,
}

/// What the rounds came to.
#[derive(Default)]
struct Totals {
    told: usize,
    refused: u64,
    wrong: u64,
    slowest: Duration,
}

/// Fills the disk `rounds` times.
pub(crate) fn run(rounds: u64, seed: u64) -> Ended {
    let place = tempfile::TempDir::new().expect("a temporary directory");
    if Mount::make(place.path()).is_none() {
        println!("full-disk: skipped, since mounting a tmpfs is not allowed here; run as root");
        return Ended::Skipped;
    }
    let runtime = crate::runtime();
    let _inside = runtime.enter();
    let mut random = Random::new(seed);
    let mut totals = Totals::default();
    for round in 0..rounds {
        fill_once(&runtime, &mut random, &mut totals);
        println!(
            "full-disk: {} rounds, {} results told, {} calls got none while the disk was full, {} wrong",
            round + 1,
            totals.told,
            totals.refused,
            totals.wrong
        );
    }
    println!(
        "full-disk: a trail's disk of {MEBIBYTES} MiB filled {rounds} times, {} results told and recorded, {} calls without a result, calls again {:.1} s after there was space at the latest; {} wrong (seed {seed})",
        totals.told,
        totals.refused,
        totals.slowest.as_secs_f64(),
        totals.wrong
    );
    match totals.wrong {
        0 => Ended::Well,
        _ => Ended::Badly,
    }
}

fn fill_once(runtime: &Runtime, random: &mut Random, totals: &mut Totals) {
    let home = Home::make();
    let mut config = OpenOptions::new()
        .append(true)
        .open(home.config())
        .expect("the configuration can be written");
    config
        .write_all(SETTINGS.as_bytes())
        .expect("the configuration can be written");
    let dir = home.path().join("data/audit");
    // It goes before the home does, also if something fails.
    let mount = own_disk(&dir);
    let filler = dir.join("filler");
    let admin = home.admin();
    let server = home.serve();
    let identities = home.path().join("identities");
    let data = server.issue(&admin, "default", "app", "data", &identities);
    server.run(&admin, &["key", "create", KEY]);
    let mut recorded = Recorded::of(dir);
    runtime.block_on(recorded.begin(&server.admin_client(&admin)));

    let callers = Callers::start(&server, &admin, &data, Manner::Stay, "k", random);
    runtime.block_on(tokio::time::sleep(Duration::from_micros(
        random.below(300_000),
    )));
    fill(&filler);
    wait(runtime, "the trail takes no record", || {
        callers.ledger().unavailable > 0
    });
    runtime.block_on(tokio::time::sleep(SETTLED));
    let told = callers.ledger().told.len();
    // An operator can still look.
    for look in [
        &["audit", "list"][..],
        &["status"],
        &["audit", "checkpoint"],
    ] {
        server.run(&admin, look);
    }
    runtime.block_on(tokio::time::sleep(SETTLED / 2));
    let more = callers.ledger().told.len() - told;
    if more > 0 {
        eprintln!("{more} results left while the disk was full");
        totals.wrong += more as u64;
    }

    let (server, ledger) = match random.below(3) {
        0 => killed_while_full(runtime, &home, server, callers, &filler),
        end => {
            let space = Instant::now();
            fs::remove_file(&filler).expect("the filler can be removed");
            wait(runtime, "calls get results again", || {
                callers.ledger().told.len() > told
            });
            totals.slowest = totals.slowest.max(space.elapsed());
            runtime.block_on(tokio::time::sleep(SETTLED / 2));
            let ledger = runtime.block_on(callers.end());
            match end {
                1 => drop(server.kill()),
                _ => drop(server.stop()),
            }
            (home.serve(), ledger)
        }
    };
    totals.told += ledger.told.len();
    totals.refused += ledger.unavailable;
    totals.wrong += recorded.missing(&ledger) + unexpected(&ledger);
    let client = server.admin_client(&admin);
    totals.wrong += runtime.block_on(recorded.disagreements(&client, &ledger));
    server.stop();
    drop(mount);
}

/// The service ends while the disk is full, cannot start on it, and starts when there is space.
fn killed_while_full(
    runtime: &Runtime,
    home: &Home,
    server: Server,
    callers: Callers,
    filler: &Path,
) -> (Server, Ledger) {
    server.kill();
    let ledger = runtime.block_on(callers.end());
    match home.try_serve() {
        Err(said) => assert!(said.contains("no space"), "{said}"),
        Ok(server) => panic!("it started on a full disk: {}", server.kill()),
    }
    fs::remove_file(filler).expect("the filler can be removed");
    (home.serve(), ledger)
}

fn wait(runtime: &Runtime, what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "not within a minute: {what}");
        runtime.block_on(tokio::time::sleep(LOOK));
    }
}

/// Writes until there is not a byte left.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("the filler can be made");
    for bytes in [64 << 10, 4 << 10, 1] {
        let part = vec![1; bytes];
        while file.write_all(&part).is_ok() {}
    }
}

/// A small file system in memory, until it is dropped.
struct Mount(PathBuf);

impl Mount {
    /// `None` if that is not allowed.
    fn make(at: &Path) -> Option<Self> {
        let size = format!("size={MEBIBYTES}m,mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(at)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Whoever has it open still, a service that is being killed, keeps nobody waiting.
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("`{}` is still mounted", self.0.display());
        }
    }
}

/// Gives the trail in `dir` a disk of its own.
fn own_disk(dir: &Path) -> Mount {
    let before = dir.with_extension("before");
    fs::rename(dir, &before).expect("the trail can be moved");
    fs::create_dir(dir).expect("a directory");
    let mount = Mount::make(dir).expect("mounting was possible before");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(before.join("."))
        .arg(dir)
        .status();
    assert!(copied.is_ok_and(|status| status.success()), "cp -a");
    fs::remove_dir_all(before).expect("it can be removed");
    mount
}
