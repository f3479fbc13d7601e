//! Whether ten thousand callers who send at once starve one who behaves: its latencies alone and beside them.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fieldkeep_client::{Client, reason};
use fieldkeep_proto::v1::{EncryptRequest, field_service_client::FieldServiceClient};
use tokio::{runtime::Handle, task::JoinSet};
use tonic::{Request, transport::Channel};

use crate::{
    load::{self, Measured},
    report::spread,
    rows::{FIELD, KEY, PLAINTEXT},
    servers::{Place, Target},
    system::runtime,
};

/// Callers of the flood, each with a token of its own.
const CALLERS: usize = 10_000;
/// Their connections.
const CONNECTIONS: usize = 64;

/// Measures `rounds` times and returns the table.
pub(crate) fn run(rounds: usize, length: Duration) -> String {
    let place = Place::make();
    let server = place.fieldkeep(&[]);
    let issuer = place.issuer(&server);
    let tokens: Vec<String> = (0..CALLERS)
        .map(|number| issuer.token(&format!("caller-{number}")))
        .collect();
    // The flood has a runtime of its own, or the one would wait for the flood's tasks and not for the server.
    let (own, others) = (runtime(1), runtime(2));
    let _inside = own.enter();
    let behaved = place.clients(&server, 1);
    let given_up = Arc::new(AtomicU64::new(0));
    let one = || {
        let given_up = Arc::clone(&given_up);
        let call = move |client: Client, number: u64| {
            let given_up = Arc::clone(&given_up);
            async move {
                while !is_encrypted(&client, number).await {
                    given_up.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        load::run(&behaved, 1, length, server.pid(), call)
    };
    let mut measured: Vec<(Measured, Measured, Flooded)> = Vec::new();
    for round in 0..rounds {
        let pair = own.block_on(async {
            let alone = one().await;
            let flood = Flood::begin(&place, &server, &tokens, others.handle());
            let beside = one().await;
            (alone, beside, flood.end().await)
        });
        eprintln!(
            "round {}: p99 {} us alone, {} us beside {} accepted and {} refused calls",
            round + 1,
            pair.0.percentile_us(99.0),
            pair.1.percentile_us(99.0),
            pair.2.good,
            pair.2.refused,
        );
        measured.push(pair);
    }
    drop(behaved);
    server.stop();
    let mut text = table(&measured, length);
    let _ = writeln!(
        text,
        "\nCalls of the one that the SDK gave up after three refusals and that were made again, which counts in their latency: {}.",
        given_up.load(Ordering::Relaxed)
    );
    text
}

/// One Encrypt of the one caller; false if the service had too much to do for it each time that the SDK tried.
async fn is_encrypted(client: &Client, number: u64) -> bool {
    let id = number.to_string();
    let field = client.field(KEY, FIELD).context("id", &id);
    match field.encrypt(PLAINTEXT).await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.reason(), Some(reason::OVERLOADED), "{error}");
            false
        }
    }
}

/// What became of the flood's calls.
struct Flooded {
    good: u64,
    refused: u64,
}

struct Flood {
    tasks: JoinSet<()>,
    ended: Arc<AtomicBool>,
    good: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl Flood {
    /// One task for each caller, which sends one call after the other; they share connections as behind a gateway.
    fn begin(place: &Place, server: &Target, tokens: &[String], others: &Handle) -> Self {
        let mut flood = Self {
            tasks: JoinSet::new(),
            ended: Arc::default(),
            good: Arc::default(),
            refused: Arc::default(),
        };
        let _inside = others.enter();
        let shared: Vec<Channel> = (0..CONNECTIONS).map(|_| place.channel(server)).collect();
        for (number, token) in tokens.iter().enumerate() {
            let mut client = FieldServiceClient::new(shared[number % CONNECTIONS].clone());
            let ended = Arc::clone(&flood.ended);
            let (good, refused) = (Arc::clone(&flood.good), Arc::clone(&flood.refused));
            let value: tonic::metadata::MetadataValue<_> =
                format!("Bearer {token}").parse().expect("a header");
            let calls = async move {
                while !ended.load(Ordering::Relaxed) {
                    let mut request = Request::new(EncryptRequest {
                        key: KEY.into(),
                        field: FIELD.into(),
                        plaintext: Bytes::from_static(PLAINTEXT),
                        ..EncryptRequest::default()
                    });
                    request
                        .metadata_mut()
                        .insert("authorization", value.clone());
                    let count = match client.encrypt(request).await {
                        Ok(_) => &good,
                        Err(_) => &refused,
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            };
            flood.tasks.spawn_on(calls, others);
        }
        flood
    }

    async fn end(mut self) -> Flooded {
        self.ended.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        Flooded {
            good: self.good.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

fn table(measured: &[(Measured, Measured, Flooded)], length: Duration) -> String {
    let mut text = format!(
        "Unary Encrypt of one caller with a certificate, one call after the other, alone and beside {CALLERS} callers with a token each, who send one call after the other \
         over {CONNECTIONS} connections; {} rounds of {} s each. The flood's clients have threads of their own, and share all cores with the server and the one.\n\n\
         | | alone | beside the flood | ratio |\n|---|---|---|---|\n",
        measured.len(),
        length.as_secs(),
    );
    for percent in [50.0, 99.0, 99.9] {
        let of = |m: &Measured| f64::from(m.percentile_us(percent));
        let _ = writeln!(
            text,
            "| p{percent} us | {} | {} | {} |",
            spread(measured.iter().map(|(a, ..)| of(a)), 0),
            spread(measured.iter().map(|(_, b, _)| of(b)), 0),
            spread(measured.iter().map(|(a, b, _)| of(b) / of(a)), 2),
        );
    }
    let per_second = |count: u64| count as f64 / length.as_secs_f64();
    let _ = writeln!(
        text,
        "| calls/s of the one | {} | {} | |\n| calls/s of the flood, accepted | | {} | |\n| calls/s of the flood, refused | | {} | |",
        spread(measured.iter().map(|(a, ..)| a.rate), 0),
        spread(measured.iter().map(|(_, b, _)| b.rate), 0),
        spread(measured.iter().map(|(.., f)| per_second(f.good)), 0),
        spread(measured.iter().map(|(.., f)| per_second(f.refused)), 0),
    );
    text
}
