//! Unary Encrypt by callers with a certificate, an API key and a token, against the bare echo.

use std::{fmt::Write as _, time::Duration};

use fieldkeep_client::Client;

use crate::{
    load::{self, Measured},
    report::spread,
    rows::encrypt,
    servers::Place,
    system::{CONNECTIONS, IN_FLIGHT, runtime},
};

const WAYS: [&str; 4] = ["bare echo, certificate", "certificate", "API key", "token"];

/// Measures `rounds` times and returns the table.
pub(crate) fn run(rounds: usize, length: Duration) -> String {
    let place = Place::make();
    let (server, bare) = (place.fieldkeep(&[]), place.bare(&[]));
    let (key, issuer) = (place.api_key(&server), place.issuer(&server));
    let token = issuer.token("app");
    let runtime = runtime(2);
    let _inside = runtime.enter();
    let sides = [
        (place.clients(&bare, CONNECTIONS), bare.pid()),
        (place.clients(&server, CONNECTIONS), server.pid()),
        (
            place.clients_by(&server, CONNECTIONS, |client| client.api_key(&key)),
            server.pid(),
        ),
        (
            place.clients_by(&server, CONNECTIONS, |client| client.token(&token)),
            server.pid(),
        ),
    ];
    let mut measured: Vec<Vec<Measured>> = Vec::new();
    for round in 0..rounds {
        let mut of_round: Vec<(usize, Measured)> = Vec::new();
        for turn in 0..sides.len() {
            // Another one begins each round, so that none always runs on a warmer machine.
            let way = (turn + round) % sides.len();
            let (clients, pid) = &sides[way];
            let call = |client: Client, number| async move { encrypt(&client, number).await };
            let one = runtime.block_on(load::run(clients, IN_FLIGHT, length, *pid, call));
            eprintln!(
                "round {}: {:.0} calls/s, {}",
                round + 1,
                one.rate,
                WAYS[way]
            );
            of_round.push((way, one));
        }
        of_round.sort_by_key(|(way, _)| *way);
        measured.push(of_round.into_iter().map(|(_, one)| one).collect());
    }
    drop(sides);
    bare.stop();
    server.stop();
    table(&measured, length)
}

fn table(measured: &[Vec<Measured>], length: Duration) -> String {
    let mut text = format!(
        "Unary Encrypt by three kinds of callers, {CONNECTIONS} connections x {IN_FLIGHT} in flight, against the bare echo; {} interleaved rounds of {} s. Median (smallest to largest). \
         Callers with an API key or a token have no certificate; each connection shows the same credential with each call.\n\n\
         | caller | calls/s | ratio to the echo | p50 us | p99 us | server CPU us a call |\n|---|---|---|---|---|---|\n",
        measured.len(),
        length.as_secs(),
    );
    for (way, title) in WAYS.iter().enumerate() {
        let of = || measured.iter().map(|round| &round[way]);
        let _ = writeln!(
            text,
            "| {title} | {} | **{}** | {} | {} | {} |",
            spread(of().map(|m| m.rate), 0),
            spread(measured.iter().map(|r| r[way].rate / r[0].rate), 2),
            spread(of().map(|m| f64::from(m.percentile_us(50.0))), 0),
            spread(of().map(|m| f64::from(m.percentile_us(99.0))), 0),
            spread(of().map(|m| m.cpu_us), 1),
        );
    }
    text
}
