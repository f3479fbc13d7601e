//! How the demo ends: what the trail says, what the disk holds, how fast it was.

use std::time::{Duration, Instant};

use fieldkeep_client::Client;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::super::failure::{Exit, Failure};
use super::super::local::blocking;
use super::super::output::thousands;
use super::audited;
use super::files::{CUSTOMERS, SHOWN, Search, rows, search};
use super::scene::Scene;
use super::story::expect;
use super::world::World;

/// Single calls that are made to see their rate, and how many at a time.
const SINGLE_CALLS: usize = 2_000;
const SINGLE_CALLS_AT_A_TIME: usize = 64;

/// A rate that was reached.
pub(super) struct Rate {
    /// What was done.
    pub(super) what: &'static str,
    /// How many times.
    pub(super) count: u64,
    /// What was counted.
    pub(super) unit: &'static str,
    /// In what time.
    pub(super) elapsed: Duration,
}

/// Shows the audit records of everything so far.
pub(super) async fn audit(world: &World, scene: &Scene) -> Result<(), Failure> {
    scene.title("7. What the audit trail says about all this")?;
    let mut pages = world.admin().audit().list().page_size(1_000);
    let mut entries = Vec::new();
    while let Some(page) = pages.next_page().await? {
        entries.extend(page);
    }
    let lines = audited::summary(&entries);
    scene.table(
        &audited::HEADER,
        lines.iter().map(audited::Line::cells).collect(),
    )?;
    let seen = |action: &str| {
        entries
            .iter()
            .filter_map(|entry| entry.record.as_ref())
            .any(|record| record.action == action)
    };
    expect(
        ["encrypt", "decrypt", "re-encrypt", "rotate", "grant"]
            .into_iter()
            .all(seen),
        "every call is recorded",
    )?;
    scene.done(&format!(
        "{} records, each on the disk before its reply left",
        thousands(entries.len() as u64)
    ))
}

/// Searches the disk for what was encrypted.
pub(super) async fn look_at_disk(world: &World, scene: &Scene) -> Result<(), Failure> {
    scene.title("8. What a thief of the disk would find")?;
    let mut texts = vec![
        String::from("@example.com"),
        String::from("penicillin"),
        String::from("call me back"),
    ];
    let customers = rows(CUSTOMERS)?;
    for row in SHOWN.iter().filter_map(|id| customers.get(*id)) {
        texts.extend(
            ["phone", "ssn", "card_number"]
                .iter()
                .filter_map(|column| row.get(*column))
                .cloned(),
        );
    }
    let places = [
        world.data_dir(),
        world.path("sealed.csv"),
        world.path("renewed.csv"),
    ];
    let control = world.path("customers.csv");
    let (found, control) = blocking(move || {
        let (mut found, mut in_control) = (Search::default(), Search::default());
        for place in &places {
            search(place, &texts, &mut found)?;
        }
        search(&control, &texts, &mut in_control)?;
        Ok::<_, Failure>((found, in_control))
    })
    .await??;
    expect(
        control.found.len() == 1,
        "the search finds plaintext where there is some",
    )?;
    if let Some(file) = found.found.first() {
        return Err(Failure::new(
            Exit::Failed,
            format_args!("there is plaintext in `{}`", file.display()),
        ));
    }
    scene.done(&format!(
        "no plaintext in the {} files of the data directory and the encrypted files ({:.0} MB)",
        found.files,
        found.bytes as f64 / 1e6
    ))
}

/// Many single encryptions over one connection, each audited and synced before its reply.
pub(super) async fn single_calls(client: &Client) -> Result<Rate, Failure> {
    let started = Instant::now();
    let calls = stream::iter(0..SINGLE_CALLS).map(|number| async move {
        let id = number.to_string();
        client
            .field("pii", "customer.email")
            .context("id", &id)
            .encrypt(b"somebody.new@example.com")
            .await
            .map(drop)
    });
    calls
        .buffer_unordered(SINGLE_CALLS_AT_A_TIME)
        .try_collect::<()>()
        .await?;
    Ok(Rate {
        what: "encrypt one value a call",
        count: SINGLE_CALLS as u64,
        unit: "calls",
        elapsed: started.elapsed(),
    })
}

/// The rates as a table.
pub(super) fn show_rates(scene: &Scene, rates: &[Rate]) -> Result<(), Failure> {
    scene.title("9. How fast it was")?;
    let rows = rates.iter().map(|rate| {
        let a_second = (rate.count as f64 / rate.elapsed.as_secs_f64().max(1e-6)) as u64;
        vec![
            rate.what.to_owned(),
            format!("{} {}/s", thousands(a_second), rate.unit),
        ]
    });
    scene.table(&["what", "rate"], rows.collect())?;
    scene.say("  over mutual TLS, audited, with client and service on the same machine; benches/ has measurements")?;
    if cfg!(debug_assertions) {
        scene.say("  this is a debug build: `cargo run --release -- demo` is many times faster")?;
    }
    Ok(())
}
