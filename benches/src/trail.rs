//! A long audit trail: bytes a record, and the time and memory of verification, search and start.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fieldkeep::{
    audit::{AuditLog, trail::settle},
    config::Config,
    init::AUDIT_DIR,
};
use fieldkeep_harness::{
    Home, Identity, Server, binary,
    records::{RARE, rare_field, rare_key, rare_principal, usual},
};
use fieldkeep_keystore::{
    keystore::Keystore,
    store::{
        Store,
        sled::{SledOptions, SledStore},
    },
};
use fieldkeep_proto::v1::AuditFilter;
use ring::digest::{Context, SHA256, digest};
use rustix::fs::{Advice, fadvise};
use tokio::runtime::{Builder, Runtime};

use crate::process;

/// Records that are appended before somebody waits for them.
const COMMIT: u64 = 1_000;
/// Records of a record segment, which has one index.
const INDEXED: u64 = 65_536;
/// How long the indexes may take that are still to be made.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// Searches of the table.
const SEARCHES: u64 = 50;
/// How long a speed of the machine is measured.
const MEASURED: Duration = Duration::from_secs(2);
const SAMPLE_EVERY: Duration = Duration::from_millis(20);
const READ_BYTES: usize = 1 << 20;

/// Makes a trail of `records` records, and returns the tables.
pub(crate) fn run(records: u64) -> String {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let _inside = runtime.enter();
    let home = Home::make();
    let made = make(&runtime, &home, records);
    let dir = home.path().join("data").join(AUDIT_DIR);
    let sizes = [
        ("journal", bytes_in(&dir, "seg")),
        ("tiles", bytes_in(&dir.join("tree"), "tiles")),
        ("index", bytes_in(&dir.join("index"), "idx")),
    ];
    let mut text = format!(
        "{records} records of {} bytes (mean), appended by the library in commits of about {COMMIT}: {:.0} records/s.\n\n",
        made.payload_bytes / records,
        records as f64 / made.seconds
    );
    text.push_str("| files | bytes | bytes a record |\n|---|---|---|\n");
    for (name, bytes) in sizes {
        let a_record = bytes as f64 / records as f64;
        let _ = writeln!(text, "| {name} | {bytes} | {a_record:.1} |");
    }
    let mean = (made.payload_bytes / records) as usize;
    text.push_str(&machine(&dir, mean));
    text.push_str(&verification(&dir, &made, records));
    text.push_str(&service(&runtime, &home, &dir, records));
    text
}

/// What was made.
struct Made {
    key: String,
    payload_bytes: u64,
    seconds: f64,
}

/// Writes the trail of a directory that `init` made, as the service would.
fn make(runtime: &Runtime, home: &Home, records: u64) -> Made {
    let config = Config::load(&home.config()).expect("the configuration of `init`");
    let options = SledOptions {
        create: false,
        ..SledOptions::default()
    };
    let (store, _) = SledStore::open(&config.data_dir, options).expect("the store opens");
    let store: Arc<dyn Store> = Arc::new(store);
    let root = config.root.provider().expect("the root key");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    let dir = config.data_dir.join(AUDIT_DIR);
    let opened = async {
        let keystore = Keystore::open(Arc::clone(&store), root.as_ref(), config.cache)
            .await
            .expect("the keystore opens");
        let log = AuditLog::open(&dir, &config.audit, &keystore, now)
            .await
            .expect("the trail opens");
        (keystore, log)
    };
    let (keystore, log) = runtime.block_on(opened);
    let started = Instant::now();
    let mut payload_bytes = 0;
    for number in log.len()..records {
        let record = usual(number);
        payload_bytes += prost::Message::encoded_len(&record) as u64;
        if (number + 1).is_multiple_of(COMMIT) || number + 1 == records {
            log.append_blocking(&record).expect("appended");
        } else {
            log.append(&record).expect("appended");
        }
        if number.is_multiple_of(1_000_000) {
            eprintln!("{number} records");
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let until = Instant::now() + PATIENCE;
    while count_in(&dir.join("index"), "idx") < records / INDEXED {
        assert!(Instant::now() < until, "the indexes are not made in time");
        thread::sleep(SAMPLE_EVERY);
    }
    runtime.block_on(async {
        settle(&keystore, &log, now)
            .await
            .expect("the mark is written");
        store.close().await.expect("the store closes");
    });
    Made {
        key: log.verifier_key().to_string(),
        payload_bytes,
        seconds,
    }
}

fn files_in(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths
}

fn count_in(dir: &Path, extension: &str) -> u64 {
    files_in(dir, extension).len() as u64
}

fn bytes_in(dir: &Path, extension: &str) -> u64 {
    files_in(dir, extension)
        .iter()
        .map(|path| fs::metadata(path).map_or(0, |file| file.len()))
        .sum()
}

/// How fast this machine hashes and reads.
fn machine(dir: &Path, mean: usize) -> String {
    let large = vec![7; READ_BYTES];
    let record = vec![7; mean];
    let node = [7; 65];
    let rate = |bytes: usize, hash: &dyn Fn()| {
        let (started, mut times) = (Instant::now(), 0_u64);
        while started.elapsed() < MEASURED {
            for _ in 0..64 {
                hash();
            }
            times += 64;
        }
        let each = started.elapsed().as_secs_f64() / times as f64;
        (bytes as f64 / each / 1e6, each)
    };
    let (large_rate, _) = rate(large.len(), &|| {
        std::hint::black_box(digest(&SHA256, &large));
    });
    let (leaf_rate, leaf) = rate(mean, &|| {
        let mut hash = Context::new(&SHA256);
        hash.update(&[0]);
        hash.update(&record);
        std::hint::black_box(hash.finish());
    });
    let (_, inner) = rate(node.len(), &|| {
        std::hint::black_box(digest(&SHA256, &node));
    });
    let bound = mean as f64 / (leaf + inner) / 1e6;
    forget(dir);
    let (cold, bytes) = read_all(dir);
    let (warm, _) = read_all(dir);
    format!(
        "\n| this machine, one core | MB/s |\n|---|---|\n\
         | SHA-256, 1 MiB at a time | {large_rate:.0} |\n\
         | SHA-256, a record at a time | {leaf_rate:.0} |\n\
         | the same with the hash of one node a record, which is the least that a verification computes | {bound:.0} |\n\
         | reading the journal, not in memory | {:.0} |\n\
         | the same, in memory | {:.0} |\n",
        bytes as f64 / cold / 1e6,
        bytes as f64 / warm / 1e6,
    )
}

/// Makes the system forget what it holds of the journal in memory.
fn forget(dir: &Path) {
    for path in files_in(dir, "seg") {
        let file = File::open(path).expect("a segment");
        file.sync_all().expect("it is synced");
        fadvise(&file, 0, None, Advice::DontNeed).expect("the system takes the advice");
    }
}

/// Reads the journal; seconds and bytes.
fn read_all(dir: &Path) -> (f64, u64) {
    let started = Instant::now();
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    for path in files_in(dir, "seg") {
        let mut file = File::open(path).expect("a segment");
        loop {
            let read = file.read(&mut buffer).expect("it can be read");
            if read == 0 {
                break;
            }
            bytes += read as u64;
        }
    }
    (started.elapsed().as_secs_f64(), bytes)
}

fn verification(dir: &Path, made: &Made, records: u64) -> String {
    let mut text = String::from(
        "\n| `audit verify` | s | records/s | MB/s of records | peak memory, MiB |\n|---|---|---|---|---|\n",
    );
    for (name, cold) in [("the journal not in memory", true), ("in memory", false)] {
        if cold {
            forget(dir);
        }
        let started = Instant::now();
        let mut child = Command::new(binary())
            .args(["audit", "verify", "--dir"])
            .arg(dir)
            .args(["--key", &made.key])
            .stdout(Stdio::null())
            .spawn()
            .expect("`fieldkeep` starts");
        let mut peak = 0;
        let status = loop {
            if let Some(status) = child.try_wait().expect("the child can be waited for") {
                break status;
            }
            peak = process::resident_kib(child.id()).unwrap_or(0).max(peak);
            thread::sleep(SAMPLE_EVERY);
        };
        let seconds = started.elapsed().as_secs_f64();
        assert!(status.success(), "the trail does not verify");
        let _ = writeln!(
            text,
            "| {name} | {seconds:.2} | {:.0} | {:.0} | {} |",
            records as f64 / seconds,
            made.payload_bytes as f64 / seconds / 1e6,
            peak >> 10
        );
    }
    text
}

/// Start, and searches through the service.
fn service(runtime: &Runtime, home: &Home, dir: &Path, records: u64) -> String {
    forget(dir);
    let cold = start(home);
    cold.0.stop();
    let (server, warm, at_ready) = start(home);
    let mut text = format!(
        "\n| start on this trail | ready after, s | peak memory, MiB |\n|---|---|---|\n\
         | the journal not in memory | {:.2} | {} |\n| in memory | {warm:.2} | {at_ready} |\n",
        cold.1, cold.2
    );
    let _ = writeln!(
        text,
        "\n| `audit list`, all pages of {SEARCHES} searches | found, mean | p50, ms | max, ms |\n|---|---|---|---|"
    );
    for (name, filter) in filters() {
        let (found, times) = searches(runtime, &server, &home.admin(), filter);
        let _ = writeln!(
            text,
            "| {name} | {:.1} | {:.1} | {:.1} |",
            found as f64 / SEARCHES as f64,
            times[times.len() / 2],
            times[times.len() - 1]
        );
    }
    let peak = process::memory_kib(server.pid()).1 >> 10;
    let _ = writeln!(
        text,
        "\nPeak memory of the service after these searches over {records} records: {peak} MiB."
    );
    server.stop();
    text
}

/// The service, after how many seconds it was ready, and its peak memory then, MiB.
fn start(home: &Home) -> (Server, f64, u64) {
    let started = Instant::now();
    let server = home.serve();
    let seconds = started.elapsed().as_secs_f64();
    let peak = process::memory_kib(server.pid()).1 >> 10;
    (server, seconds, peak)
}

type MakeFilter = fn(u64) -> AuditFilter;

fn filters() -> [(&'static str, MakeFilter); 3] {
    [
        ("a rare principal", |number| AuditFilter {
            principal: rare_principal(number % RARE),
            ..AuditFilter::default()
        }),
        ("a rare key", |number| AuditFilter {
            key: rare_key(number % RARE),
            ..AuditFilter::default()
        }),
        ("a rare field", |number| AuditFilter {
            field: rare_field(number % RARE),
            ..AuditFilter::default()
        }),
    ]
}

/// How many records all searches found, and what each took, in milliseconds, the shortest first.
fn searches(
    runtime: &Runtime,
    server: &Server,
    admin: &Identity,
    filter: MakeFilter,
) -> (usize, Vec<f64>) {
    let client = server.admin_client(admin);
    let mut times = Vec::new();
    let mut found = 0;
    for number in 0..SEARCHES {
        let started = Instant::now();
        let pages = client.audit().find(filter(number)).page_size(1_000);
        let entries = runtime
            .block_on(pages.collect())
            .expect("the trail can be searched");
        times.push(started.elapsed().as_secs_f64() * 1e3);
        found += entries.len();
    }
    times.sort_unstable_by(f64::total_cmp);
    (found, times)
}
