//! Whether large batches delay small calls: unary Encrypt alone, and beside batches of 10,000 fields without a pause.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fieldkeep_client::Client;
use tokio::task::JoinHandle;

use crate::{
    load::{self, Measured},
    report::spread,
    rows::{KEY, encrypt, encrypt_batch},
    servers::Place,
    system::runtime,
};

const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 2;
const LARGE_BATCH: usize = 10_000;

/// Measures `rounds` times and returns the table.
pub(crate) fn run(rounds: usize, length: Duration) -> String {
    let place = Place::make();
    let server = place.fieldkeep(&[]);
    let runtime = runtime(2);
    let _inside = runtime.enter();
    let clients = place.clients(&server, CONNECTIONS);
    let batches = place.clients(&server, 1).remove(0);
    let unary = || {
        let call = |client: Client, number| async move { encrypt(&client, number).await };
        load::run(&clients, IN_FLIGHT, length, server.pid(), call)
    };
    let measured: Vec<(Measured, Measured)> = (0..rounds)
        .map(|_| {
            runtime.block_on(async {
                let alone = unary().await;
                let ended = Arc::new(AtomicBool::new(false));
                let beside = keep_busy(batches.clone(), &ended);
                let busy = unary().await;
                ended.store(true, Ordering::Relaxed);
                beside.await.expect("the batches succeed");
                (alone, busy)
            })
        })
        .collect();
    drop((clients, batches));
    server.stop();
    table(&measured, length)
}

/// One batch after the other until `ended`.
fn keep_busy(client: Client, ended: &Arc<AtomicBool>) -> JoinHandle<()> {
    let ended = Arc::clone(ended);
    tokio::spawn(async move {
        while !ended.load(Ordering::Relaxed) {
            let batch = encrypt_batch(KEY, 0, LARGE_BATCH);
            client.encrypt_batch(batch).await.expect("encrypted");
        }
    })
}

fn table(measured: &[(Measured, Measured)], length: Duration) -> String {
    let mut text = format!(
        "Unary Encrypt, {CONNECTIONS} connections x {IN_FLIGHT} in flight, alone and beside one connection with batches of 10,000 fields, one after the other; \
         {} rounds of {} s each. Servers and load generator on all cores, so that the batches also take CPU from the unary calls' own client.\n\n\
         | | alone | beside batches | ratio |\n|---|---|---|---|\n",
        measured.len(),
        length.as_secs(),
    );
    for percent in [50.0, 99.0, 99.9] {
        let of = |m: &Measured| f64::from(m.percentile_us(percent));
        let _ = writeln!(
            text,
            "| p{percent} us | {} | {} | {} |",
            spread(measured.iter().map(|(a, _)| of(a)), 0),
            spread(measured.iter().map(|(_, b)| of(b)), 0),
            spread(measured.iter().map(|(a, b)| of(b) / of(a)), 2),
        );
    }
    let _ = writeln!(
        text,
        "| calls/s | {} | {} | |",
        spread(measured.iter().map(|(a, _)| a.rate), 0),
        spread(measured.iter().map(|(_, b)| b.rate), 0),
    );
    text
}
