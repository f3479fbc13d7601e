//! Time to ready and resident memory with many keys.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use fieldkeep_harness::{Home, Server};
use tokio::{runtime::Builder, task::JoinSet};

use crate::process;

const WORKERS: u64 = 256;

/// Makes `count` keys through the API, then starts the service again, after a stop and after a kill.
pub(crate) fn run(count: u64) -> String {
    let home = Home::make();
    let empty = start(&home);
    let mut text = String::from(
        "| start | ready after, s | resident at ready, MiB | after 1,000 Encrypts with as many keys, MiB |\n|---|---|---|---|\n",
    );
    let _ = writeln!(
        text,
        "| empty | {:.2} | {:.0} | |",
        empty.1,
        mebibytes(&empty.0)
    );
    let server = empty.0;
    let app = server.issue(
        &home.admin(),
        "default",
        "app",
        "data",
        &home.path().join("identities"),
    );
    let seconds = create(&home, &server, count);
    let peak = process::memory_kib(server.pid()).1 >> 10;
    server.stop();

    for (name, kill) in [("after a stop", false), ("after kill -9", true)] {
        let (server, ready) = start(&home);
        let at_ready = mebibytes(&server);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let _inside = runtime.enter();
        let client = server.data_client(&app);
        runtime.block_on(async {
            for number in 0..count.min(1_000) {
                client
                    .field(&format!("k{number}"), "f")
                    .encrypt(b"x")
                    .await
                    .expect("encrypted");
            }
        });
        let _ = writeln!(
            text,
            "| {name} | {ready:.2} | {at_ready:.0} | {:.0} |",
            mebibytes(&server)
        );
        if kill {
            break;
        }
        server.kill();
    }
    format!(
        "{count} keys, made over gRPC in {seconds:.0} s ({:.0}/s); peak resident while making them {peak} MiB.\n\n{text}",
        count as f64 / seconds
    )
}

fn start(home: &Home) -> (Server, f64) {
    let started = Instant::now();
    let server = home.serve();
    (server, started.elapsed().as_secs_f64())
}

fn mebibytes(server: &Server) -> f64 {
    process::memory_kib(server.pid()).0 as f64 / 1024.0
}

fn create(home: &Home, server: &Server, count: u64) -> f64 {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let _inside = runtime.enter();
    let client = server.admin_client(&home.admin());
    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..WORKERS {
            let (client, next) = (client.clone(), next.clone());
            tasks.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    client
                        .keys()
                        .create(&format!("k{number}"))
                        .await
                        .expect("created");
                    if number % 50_000 == 0 {
                        eprintln!("{number} keys");
                    }
                }
            });
        }
        tasks.join_all().await;
    });
    started.elapsed().as_secs_f64()
}
