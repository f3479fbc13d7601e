//! Unary, one at a time, and batch, against the baselines, in interleaved rounds.

use std::{
    env,
    fmt::Write as _,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use fieldkeep_client::{BatchEncrypt, Client, EncryptItem};
use fieldkeep_harness::{Home, Identity};
use tokio::runtime::Builder;

use crate::{
    load::{self, Measured},
    report::spread,
};

const CONNECTIONS: usize = 8;
const IN_FLIGHT: usize = 32;
pub(crate) const PLAINTEXT: &[u8; 29] = b"christopher.smith@example.com";
pub(crate) const BATCH: usize = 1_000;
const BATCHES_IN_FLIGHT: usize = 2;

/// The three shapes of load.
#[derive(Clone, Copy)]
enum Shape {
    Unary,
    OneAtATime,
    Batch,
}

/// Measures `rounds` times and returns the table.
pub(crate) fn run(rounds: usize, length: Duration) -> String {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let home = Home::make();
    let server = home.serve();
    let admin = home.admin();
    let app = server.issue(
        &admin,
        "default",
        "app",
        "data",
        &home.path().join("identities"),
    );
    server.run(&admin, &["key", "create", "pii"]);
    let bare = Bare::start(&home);

    // A client belongs to the runtime that it is made in.
    let _inside = runtime.enter();
    let ours = (clients(&home, server.data, &app, CONNECTIONS), server.pid());
    let theirs = (
        clients(&home, bare.address, &app, CONNECTIONS),
        bare.child.id(),
    );
    let mut rows: Vec<(Shape, Vec<(Measured, Measured)>)> =
        [Shape::Unary, Shape::OneAtATime, Shape::Batch]
            .into_iter()
            .map(|shape| (shape, Vec::new()))
            .collect();
    for round in 0..rounds {
        for (shape, measured) in &mut rows {
            let pair = runtime.block_on(async {
                // The order alternates, so that neither always runs on a warmer machine.
                if round % 2 == 0 {
                    let a = measure(*shape, &ours.0, ours.1, length).await;
                    (a, measure(*shape, &theirs.0, theirs.1, length).await)
                } else {
                    let b = measure(*shape, &theirs.0, theirs.1, length).await;
                    (measure(*shape, &ours.0, ours.1, length).await, b)
                }
            });
            eprintln!(
                "round {}: {:.0} and {:.0} calls/s",
                round + 1,
                pair.0.rate,
                pair.1.rate
            );
            measured.push(pair);
        }
    }
    server.stop();
    table(&rows, rounds, length)
}

async fn measure(shape: Shape, clients: &[Client], pid: u32, length: Duration) -> Measured {
    match shape {
        Shape::Unary => load::run(clients, IN_FLIGHT, length, pid, encrypt).await,
        Shape::OneAtATime => load::run(&clients[..1], 1, length / 3, pid, encrypt).await,
        Shape::Batch => load::run(clients, BATCHES_IN_FLIGHT, length, pid, encrypt_batch).await,
    }
}

pub(crate) async fn encrypt(client: Client, number: u64) {
    let id = number.to_string();
    client
        .field("pii", "customer.email")
        .context("id", &id)
        .encrypt(PLAINTEXT)
        .await
        .expect("encrypted");
}

pub(crate) async fn encrypt_batch(client: Client, number: u64) {
    let items = (0..BATCH as u64)
        .map(|item| EncryptItem::new(&PLAINTEXT[..]).context("id", (number + item).to_string()))
        .collect();
    let batch = BatchEncrypt {
        key: "pii".into(),
        field: "customer.email".into(),
        items,
        ..BatchEncrypt::default()
    };
    let results = client.encrypt_batch(batch).await.expect("encrypted");
    assert!(results.len() == BATCH && results.iter().all(Result::is_ok));
}

pub(crate) fn clients(
    home: &Home,
    address: SocketAddr,
    identity: &Identity,
    connections: usize,
) -> Vec<Client> {
    let client = || {
        Client::builder()
            .address(address.to_string())
            .ca_file(home.ca())
            .identity_files(&identity.certificate, &identity.key)
            .build()
            .expect("the identity's files are valid")
    };
    (0..connections).map(|_| client()).collect()
}

/// The baseline process. Dropping it kills it.
struct Bare {
    child: Child,
    address: SocketAddr,
}

impl Bare {
    fn start(home: &Home) -> Self {
        let mut child = Command::new(env::current_exe().expect("the running program has a path"))
            .arg("baseline")
            .arg(home.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the baseline starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("its ready line");
        let address = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("data=")?.parse().ok())
            .expect("an address");
        Self { child, address }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn table(rows: &[(Shape, Vec<(Measured, Measured)>)], rounds: usize, length: Duration) -> String {
    let mut text = format!(
        "Load: {CONNECTIONS} connections x {IN_FLIGHT} in flight ({BATCHES_IN_FLIGHT} for batches), mTLS 1.3, 29-byte field, one context pair; \
         {rounds} interleaved rounds of {} s. Median (smallest to largest). Key-file root, one journal directory; every call audited with fdatasync before the reply.\n\n\
         | load | fieldkeep, calls/s | baseline, calls/s | ratio | p50 us | p99 us | baseline p50, p99 us | server CPU us a call | baseline's |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        length.as_secs(),
    );
    for (shape, pairs) in rows {
        let name = match shape {
            Shape::Unary => "unary Encrypt / bare echo",
            Shape::OneAtATime => "unary Encrypt, one at a time / bare echo",
            Shape::Batch => "BatchEncrypt x 1,000 / cipher only",
        };
        let ours = || pairs.iter().map(|p| &p.0);
        let bare = || pairs.iter().map(|p| &p.1);
        let _ = writeln!(
            text,
            "| {name} | {} | {} | **{}** | {} | {} | {}, {} | {} | {} |",
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
