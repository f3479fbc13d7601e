//! How long a large store takes to make, to open after a clean and an unclean end, and to check; and what memory it takes.
//!
//! `cargo run --release -p fieldkeep-keystore --example store_at_scale -- DIRECTORY [RECORDS [CACHE_MIB [drop | compact]]]`; a directory
//! that already has a store is only opened; then left without closing it (`drop`), or compacted during commits.
#![allow(clippy::print_stdout, reason = "it prints its measurements")]

use std::{env, error::Error, fs, path::Path, time::Instant};

use bytes::Bytes;
use fieldkeep_keystore::store::{
    Operation, Store, Transaction,
    sled::{SledOptions, SledStore},
};

const VALUE_BYTES: usize = 230;
const BATCH: u64 = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let dir = arguments.next().ok_or("say a directory")?;
    let dir = Path::new(&dir);
    let records: u64 = arguments.next().map_or(Ok(2_000_000), |n| n.parse())?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;

    if !dir.join("FORMAT").exists() {
        let started = Instant::now();
        let (store, _) = SledStore::open(dir, SledOptions::default())?;
        runtime.block_on(async {
            for batch in 0..records / BATCH {
                store.commit(make_transaction(batch)).await?;
            }
            println!(
                "made {records} records in {:.1} s, resident {} MiB",
                seconds(started),
                resident_mib()
            );
            store.close().await?;
            println!("closed after {:.1} s", seconds(started));
            Ok::<_, Box<dyn Error>>(())
        })?;
        return Ok(());
    }
    let cache_mib: u64 = arguments.next().map_or(Ok(64), |n| n.parse())?;
    let end = arguments.next().unwrap_or_default();
    let started = Instant::now();
    let options = SledOptions {
        cache_bytes: cache_mib << 20,
        ..SledOptions::default()
    };
    let (store, report) = SledStore::open(dir, options)?;
    println!(
        "open {:.2} s, resident {} MiB, {report:?}",
        seconds(started),
        resident_mib()
    );
    runtime.block_on(async {
        store.get(b"key/default/0").await?;
        println!("first read after {:.2} s", seconds(started));
        store
            .commit(make_transaction(1_000_000 + report.revision))
            .await?;
        println!(
            "first commit after {:.2} s, resident {} MiB",
            seconds(started),
            resident_mib()
        );
        let again = Instant::now();
        store
            .commit(make_transaction(2_000_000 + report.revision))
            .await?;
        println!("a commit of {BATCH} puts: {:.3} s", seconds(again));
        if end == "compact" {
            let compacting = Instant::now();
            let (done, longest) =
                tokio::join!(store.compact(), longest_commit(&store, report.revision));
            done?;
            println!(
                "compacted in {:.1} s; the longest commit meanwhile took {:.3} s",
                seconds(compacting),
                longest?
            );
        }
        if end != "drop" {
            let closing = Instant::now();
            store.close().await?;
            println!("closed in {:.2} s", seconds(closing));
        }
        Ok(())
    })
}

/// The longest of 2,000 commits of one put each, in seconds.
async fn longest_commit(store: &SledStore, seed: u64) -> Result<f64, Box<dyn Error>> {
    let mut longest: f64 = 0.0;
    for i in 0..2000 {
        let mut transaction = make_transaction(3_000_000 + seed * 10_000 + i);
        transaction.puts.truncate(1);
        let started = Instant::now();
        store.commit(transaction).await?;
        longest = longest.max(seconds(started));
    }
    Ok(longest)
}

fn make_transaction(batch: u64) -> Transaction {
    let mut id = [0; 16];
    for (to, from) in id
        .iter_mut()
        .zip(batch.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes())
    {
        *to = from;
    }
    let puts = (0..BATCH)
        .map(|i| {
            // Two records a key, as the keystore has them: metadata, and one version.
            let n = batch * BATCH + i;
            let spread = (n / 2).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let kind = if n.is_multiple_of(2) {
                "key"
            } else {
                "version"
            };
            (
                Bytes::from(format!("{kind}/default/{spread:016x}")),
                Bytes::from(vec![n as u8; VALUE_BYTES]),
            )
        })
        .collect();
    let operation = Operation {
        id,
        fingerprint: [0; 32],
    };
    Transaction {
        operation,
        expect: Vec::new(),
        puts,
        deletes: Vec::new(),
        now: 1_800_000_000 + batch / 10,
    }
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or("0");
    line.split_whitespace()
        .next()
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}
