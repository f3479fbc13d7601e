//! The rows against their baselines, in interleaved rounds.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use fieldkeep_client::Client;
use tokio::runtime::{Builder, Runtime};

use crate::{
    load::{self, Measured},
    report::spread,
    rows::{Pool, Row},
    servers::{Place, pin},
};

pub(crate) const CONNECTIONS: usize = 8;
pub(crate) const IN_FLIGHT: usize = 32;
/// Streams at once, each on a connection of its own.
const STREAMS: usize = 4;
pub(crate) const BATCHES_IN_FLIGHT: usize = 2;

/// What and how long to measure.
pub(crate) struct Plan {
    pub(crate) rows: Vec<Row>,
    pub(crate) rounds: usize,
    pub(crate) length: Duration,
    /// On one core: the servers on core 0, the load on core 1. Otherwise everything on all cores.
    pub(crate) one_core: bool,
}

/// One server as the load sees it.
pub(crate) struct Side {
    pub(crate) clients: Vec<Client>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) pid: u32,
}

type Rounds = Vec<(Measured, Measured)>;

/// Measures and returns the table.
pub(crate) fn run(plan: &Plan) -> String {
    if plan.one_core {
        pin(Some(0));
    }
    let place = Place::make();
    let (server, bare) = (place.fieldkeep(&[]), place.bare(&[]));
    if plan.one_core {
        pin(Some(1));
    }
    let runtime = runtime(if plan.one_core { 1 } else { 2 });
    // A client belongs to the runtime that it is made in.
    let _inside = runtime.enter();
    let side = |target| {
        let clients = place.clients(target, CONNECTIONS);
        Side {
            pool: runtime.block_on(place.pool(target, &clients[0])),
            clients,
            pid: target.pid(),
        }
    };
    let (ours, theirs) = (side(&server), side(&bare));
    let mut rows: Vec<(Row, Rounds)> = plan.rows.iter().map(|&row| (row, Vec::new())).collect();
    for round in 0..plan.rounds {
        for (row, measured) in &mut rows {
            let one = |side| runtime.block_on(measure(*row, side, plan.length));
            // The order alternates, so that neither always runs on a warmer machine.
            let (a, b) = if round % 2 == 0 {
                let a = one(&ours);
                (a, one(&theirs))
            } else {
                let b = one(&theirs);
                (one(&ours), b)
            };
            eprintln!(
                "round {}: {:.0} and {:.0} calls/s, {:.1} and {:.1} us, {:.1} and {:.1} us of the load generator, {}",
                round + 1,
                a.rate,
                b.rate,
                a.cpu_us,
                b.cpu_us,
                a.own_cpu_us,
                b.own_cpu_us,
                row.title()
            );
            measured.push((a, b));
        }
    }
    drop((ours, theirs));
    bare.stop();
    server.stop();
    table(&rows, plan)
}

/// The runtime of the load.
pub(crate) fn runtime(threads: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// One measurement of a row against one server.
pub(crate) async fn measure(row: Row, side: &Side, length: Duration) -> Measured {
    let (clients, in_flight) = match row {
        Row::OneAtATime => (&side.clients[..1], 1),
        row if row.is_stream() => (&side.clients[..STREAMS], 1),
        row if row.is_batch() => (&side.clients[..], BATCHES_IN_FLIGHT),
        _ => (&side.clients[..], IN_FLIGHT),
    };
    let pool = Arc::clone(&side.pool);
    let call = move |client, number| row.call(client, number, Arc::clone(&pool));
    load::run(clients, in_flight, length, side.pid, call).await
}

fn table(rows: &[(Row, Rounds)], plan: &Plan) -> String {
    let cores = if plan.one_core {
        "each server pinned to core 0, the load generator to core 1"
    } else {
        "servers and load generator on all cores"
    };
    let mut text = format!(
        "Load: {CONNECTIONS} connections x {IN_FLIGHT} in flight ({BATCHES_IN_FLIGHT} for batches; {STREAMS} streams), mTLS 1.3, 29-byte field, one context pair; \
         {cores}; {} interleaved rounds of {} s. Median (smallest to largest). Key-file root, one journal directory; every call audited with fdatasync before the reply.\n\n\
         | load | fieldkeep, calls/s | baseline, calls/s | ratio | p50 us | p99 us | baseline p50, p99 us | server CPU us a call | baseline's |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        plan.rounds,
        plan.length.as_secs(),
    );
    for (row, pairs) in rows {
        let ours = || pairs.iter().map(|p| &p.0);
        let bare = || pairs.iter().map(|p| &p.1);
        let _ = writeln!(
            text,
            "| {} | {} | {} | **{}** | {} | {} | {}, {} | {} | {} |",
            row.title(),
            spread(ours().map(|m| m.rate), 0),
            spread(bare().map(|m| m.rate), 0),
            spread(pairs.iter().map(|(a, b)| a.rate / b.rate), 2),
            spread(ours().map(|m| f64::from(m.percentile_us(50.0))), 0),
            spread(ours().map(|m| f64::from(m.percentile_us(99.0))), 0),
            spread(bare().map(|m| f64::from(m.percentile_us(50.0))), 0),
            spread(bare().map(|m| f64::from(m.percentile_us(99.0))), 0),
            spread(ours().map(|m| m.cpu_us), 1),
            spread(bare().map(|m| m.cpu_us), 1),
        );
    }
    text
}
