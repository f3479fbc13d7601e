//! kill -9 under a load of every kind of call: each call that got a reply is in the trail exactly once, and the store is as the trail says.

use std::time::Duration;

use fieldkeep::audit::verify::{Wanted, verify};
use fieldkeep_harness::{Home, Identity, Server};

use crate::{
    calls::{Callers, KEY, Ledger, Manner},
    random::Random,
    recorded::Recorded,
};

/// The longest time from one start to its kill.
const LONGEST_US: u64 = 900_000;
/// Refusals that may come of the load itself: a change of rights waits for calls that began before it.
const EXPECTED: [&str; 2] = ["CHANGE_PENDING", "CONFLICT"];

/// Kills and restarts `rounds` times. Whether all went as it must.
pub(crate) fn run(rounds: u64, seed: u64) -> bool {
    let runtime = crate::runtime();
    // A client belongs to the runtime that it is made in.
    let _inside = runtime.enter();
    let mut random = Random::new(seed);
    let home = Home::make();
    let admin = home.admin();
    let mut server = home.serve();
    let identities = home.path().join("identities");
    let data = server.issue(&admin, "default", "app", "data", &identities);
    server.run(&admin, &["key", "create", KEY]);
    let mut recorded = Recorded::of(home.path().join("data/audit"));
    runtime.block_on(recorded.begin(&server.admin_client(&admin)));

    let (mut told, mut failed, mut wrong) = (0, 0, 0);
    for round in 0..rounds {
        let ledger = runtime.block_on(load_until_killed(server, &admin, &data, round, &mut random));
        server = home.serve();
        told += ledger.told.len();
        failed += ledger.failed.len();
        wrong += recorded.missing(&ledger) + unexpected(&ledger);
        let client = server.admin_client(&admin);
        wrong += runtime.block_on(recorded.disagreements(&client, &ledger));
        if (round + 1) % 25 == 0 || round + 1 == rounds {
            println!(
                "audit-kill: {} rounds, {told} results and {failed} refusals told, {} records, {wrong} wrong",
                round + 1,
                recorded.records()
            );
        }
    }
    let checkpoint = runtime.block_on(async {
        let client = server.admin_client(&admin);
        client.audit().checkpoint().await.expect("a checkpoint")
    });
    server.stop();
    let key = checkpoint.verifier_key.parse().expect("a verifier key");
    let verified = verify(
        &Wanted {
            dir: &home.path().join("data/audit"),
            key: &key,
            checkpoints: &[checkpoint.checkpoint],
            archive: None,
            seal: None,
        },
        &mut |_, _| {},
    );
    if let Err(error) = &verified {
        eprintln!("audit-kill: the trail does not verify: {error}");
        wrong += 1;
    }
    println!(
        "audit-kill: {rounds} kills, {told} results and {failed} refusals that somebody was told of, each in the trail once; {} operations as the store has them; {wrong} wrong (seed {seed})",
        recorded.operations.count()
    );
    wrong == 0
}

async fn load_until_killed(
    server: Server,
    admin: &Identity,
    data: &Identity,
    round: u64,
    random: &mut Random,
) -> Ledger {
    let prefix = format!("k-{round}");
    let callers = Callers::start(&server, admin, data, Manner::Leave, &prefix, random);
    tokio::time::sleep(Duration::from_micros(random.below(LONGEST_US))).await;
    tokio::task::spawn_blocking(|| server.kill())
        .await
        .expect("killed");
    callers.end().await
}

/// Refusals that nothing explains.
pub(crate) fn unexpected(ledger: &Ledger) -> u64 {
    let others = ledger
        .others
        .iter()
        .filter(|(what, _)| !EXPECTED.iter().any(|expected| what.ends_with(expected)));
    others
        .map(|(what, count)| {
            eprintln!("{count} refusals that nothing explains: {what}");
            count
        })
        .sum()
}
