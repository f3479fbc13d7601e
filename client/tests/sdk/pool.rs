//! Several connections.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, task::JoinSet};

use crate::fake::{Fake, Step};

#[tokio::test]
async fn calls_at_the_same_time_spread_over_all_connections() {
    let fake = Fake::start().await;
    let client = fake.builder().connections(3).build().unwrap();
    let go_on = Arc::new(Notify::new());
    fake.script((0..6).map(|_| Step::Wait(Arc::clone(&go_on))));
    let mut tasks = JoinSet::new();
    for _ in 0..6 {
        let client = client.clone();
        tasks.spawn(async move { client.field("pii", "f").encrypt(b"x").await });
    }
    fake.arrived(6).await;
    assert_eq!(fake.accepted(), 3);
    go_on.notify_waiters();
    while let Some(outcome) = tasks.join_next().await {
        outcome.unwrap().unwrap();
    }
}

#[tokio::test]
async fn one_call_at_a_time_needs_one_connection() {
    let fake = Fake::start().await;
    let client = fake.builder().connections(3).build().unwrap();
    for _ in 0..6 {
        client.field("pii", "f").encrypt(b"x").await.unwrap();
    }
    assert_eq!(fake.accepted(), 1);
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_its_place() {
    let fake = Fake::start().await;
    let client = fake.builder().connections(2).build().unwrap();
    fake.script([Step::Hang]);
    let short = Duration::from_millis(50);
    let call = client.field("pii", "f").timeout(short);
    call.encrypt(b"x").await.unwrap_err();
    client.field("pii", "f").encrypt(b"x").await.unwrap();
    assert_eq!(fake.accepted(), 1);
}

#[tokio::test]
async fn each_connection_is_made_again_by_itself() {
    let fake = Fake::start().await;
    let client = fake.builder().connections(2).build().unwrap();
    for round in 1..=3 {
        let go_on = Arc::new(Notify::new());
        fake.script((0..2).map(|_| Step::Wait(Arc::clone(&go_on))));
        let field = client.field("pii", "f");
        let release = async {
            fake.arrived(2 * round).await;
            go_on.notify_waiters();
        };
        let (one, two, ()) = tokio::join!(field.encrypt(b"x"), field.encrypt(b"x"), release);
        one.unwrap();
        two.unwrap();
        assert_eq!(fake.accepted() as usize, 2 * round);
        fake.break_connections();
    }
}
