//! Who fails waits, who does not fail never does, and the memory stays what it is.

use std::collections::HashSet;

use proptest::prelude::*;

use super::{table::CAPACITY, *};

const ALICE: Option<&str> = Some("api-key:alice");
const BOB: Option<&str> = Some("api-key:bob");
const MINUTE_MS: u64 = 60_000;

fn v4(address: u32) -> Source {
    Source::V4(address)
}

fn fail(lockout: &Lockout, source: Source, who: Option<&str>, times: u32, now_ms: u64) {
    (0..times).for_each(|_| lockout.failed(source, who, now_ms));
}

fn wait_ms(lockout: &Lockout, source: Source, who: Option<&str>, now_ms: u64) -> u64 {
    let backoff = lockout.check(source, who, now_ms).err();
    backoff.map_or(0, |backoff| backoff.retry_after_ms)
}

#[test]
fn five_failures_are_free_and_then_each_wait_is_twice_as_long() {
    let lockout = Lockout::default();
    let mut now_ms = 5000;
    let mut waits = Vec::new();
    for _ in 0..20 {
        lockout.failed(v4(1), ALICE, now_ms);
        let wait = wait_ms(&lockout, v4(1), ALICE, now_ms);
        waits.push(wait / 1000);
        now_ms += wait;
        assert_eq!(wait_ms(&lockout, v4(1), ALICE, now_ms), 0, "the wait ends");
    }
    let expected = [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900];
    // After waits of over ten minutes one failure is forgotten, and the next one takes its place.
    assert_eq!(waits[..16], expected);
    assert!(waits[16..].iter().all(|wait| *wait >= 512), "{waits:?}");
}

#[test]
fn a_name_locks_nobody_out_elsewhere() {
    let lockout = Lockout::default();
    fail(&lockout, v4(1), ALICE, 100, 0);
    assert_eq!(
        lockout.check(v4(1), ALICE, 0).unwrap_err().scope,
        Scope::Claim
    );
    assert_eq!(lockout.check(v4(2), ALICE, 0), Ok(()));
}

#[test]
fn a_success_clears_its_own_failures_and_no_others() {
    let lockout = Lockout::default();
    fail(&lockout, v4(1), ALICE, 10, 0);
    fail(&lockout, v4(1), BOB, 10, 0);
    lockout.succeeded(v4(1), "api-key:alice", MINUTE_MS);
    assert_eq!(lockout.check(v4(1), ALICE, 0), Ok(()));
    assert!(lockout.check(v4(1), BOB, 0).is_err());
}

#[test]
fn trying_many_identities_makes_the_source_wait() {
    let lockout = Lockout::default();
    for id in 0..60 {
        lockout.failed(v4(1), Some(&format!("api-key:{id}")), 0);
    }
    let backoff = lockout.check(v4(1), Some("api-key:new"), 0).unwrap_err();
    assert_eq!(
        (backoff.scope, backoff.retry_after_ms),
        (Scope::Source, MINUTE_MS)
    );
    assert!(lockout.check(v4(1), None, 0).is_err());
    assert_eq!(lockout.check(v4(2), None, 0), Ok(()));
    assert_eq!(lockout.check(v4(1), None, MINUTE_MS), Ok(()));
}

#[test]
fn whoever_has_succeeded_does_not_wait_with_his_source_for_a_day() {
    let lockout = Lockout::default();
    lockout.succeeded(v4(1), "api-key:alice", 0);
    fail(&lockout, v4(1), None, 100, 0);
    assert_eq!(lockout.check(v4(1), ALICE, 0), Ok(()));
    assert!(lockout.check(v4(1), BOB, 0).is_err());
    fail(&lockout, v4(1), ALICE, 6, 0);
    assert!(
        lockout.check(v4(1), ALICE, 0).is_err(),
        "but for his own failures"
    );
    let next_day_ms = 24 * 60 * MINUTE_MS;
    fail(&lockout, v4(1), None, 100, next_day_ms);
    assert!(lockout.check(v4(1), ALICE, next_day_ms).is_err());
}

#[test]
fn one_broken_client_does_not_make_its_source_wait() {
    let lockout = Lockout::default();
    for second in 0..24 * 3600 {
        let now_ms = second * 1000;
        if lockout.check(v4(1), ALICE, now_ms).is_ok() {
            lockout.failed(v4(1), ALICE, now_ms);
        }
        assert_eq!(lockout.check(v4(1), BOB, now_ms), Ok(()), "second {second}");
    }
}

#[test]
fn failures_are_forgotten() {
    let lockout = Lockout::default();
    fail(&lockout, v4(1), ALICE, 100, 0);
    // Sixteen are counted, and one is forgotten in ten minutes.
    let later_ms = 16 * 10 * MINUTE_MS;
    fail(&lockout, v4(1), ALICE, 5, later_ms);
    assert_eq!(lockout.check(v4(1), ALICE, later_ms), Ok(()));
    lockout.failed(v4(1), ALICE, later_ms);
    assert_eq!(wait_ms(&lockout, v4(1), ALICE, later_ms), 1000);
}

#[test]
fn a_clock_that_goes_back_prolongs_no_wait() {
    let lockout = Lockout::default();
    fail(&lockout, v4(1), ALICE, 100, u64::MAX / 2);
    assert_eq!(wait_ms(&lockout, v4(1), ALICE, 0), 15 * MINUTE_MS);
    fail(&lockout, v4(2), ALICE, 100, u64::MAX);
    assert_eq!(
        wait_ms(&lockout, v4(2), ALICE, u64::MAX),
        0,
        "the end of time"
    );
}

#[test]
fn a_host_is_one_source() {
    let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
    assert_eq!(
        source("2001:db8:1:2::1"),
        source("2001:db8:1:2:ffff:ffff:ffff:ffff")
    );
    assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
    assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
}

/// A locked source stays locked, whoever comes along; whoever has not failed is let in; the tables stay as they are.
#[test]
fn a_million_sources_take_no_more_memory_and_free_nobody() {
    let lockout = Lockout::default();
    // As few others as there may be: each of them could be evicted by one of the million.
    let locked: Vec<Source> = (0..64).map(|n| Source::V6(n << 32)).collect();
    for source in &locked {
        fail(&lockout, *source, ALICE, 16, 0);
        fail(&lockout, *source, None, 50, 0);
    }
    for n in 0..1_000_000u32 {
        lockout.failed(v4(n), ALICE, u64::from(n / 10_000));
        lockout.failed(v4(n), ALICE, u64::from(n / 10_000));
    }
    for table in [&lockout.pairs, &lockout.sources] {
        assert!(table.len() <= CAPACITY);
        assert!(table.len() > CAPACITY * 9 / 10, "the test fills them");
    }
    for source in locked {
        assert!(lockout.check(source, ALICE, 1000).is_err());
        assert!(lockout.check(source, BOB, 1000).is_err());
    }
    for n in 1_000_000..1_100_000u32 {
        assert_eq!(lockout.check(v4(n), ALICE, 1000), Ok(()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any order of failures, successes and times: a source without failures is let in, a claim with at most five failures
    /// from a source with at most fifty too, and no wait is longer than the longest.
    #[test]
    fn only_who_failed_waits(
        steps in prop::collection::vec((0u32..6, 0u8..4, 0u8..8, 0u64..20_000), 1..300)
    ) {
        let lockout = Lockout::default();
        let mut failed = HashSet::new();
        let mut counts = std::collections::HashMap::new();
        let mut now_ms = 0;
        for (source, who, event, elapsed_ms) in steps {
            now_ms += elapsed_ms;
            let name = format!("api-key:{who}");
            if event == 0 {
                lockout.succeeded(v4(source), &name, now_ms);
            } else {
                failed.insert(source);
                *counts.entry((source, who)).or_insert(0) += 1;
                *counts.entry((source, u8::MAX)).or_insert(0) += 1;
                lockout.failed(v4(source), Some(&name), now_ms);
            }
            for source in 0..7 {
                for who in 0..4 {
                    let wait = wait_ms(&lockout, v4(source), Some(&format!("api-key:{who}")), now_ms);
                    let count = |who| counts.get(&(source, who)).copied().unwrap_or(0);
                    let few = count(who) <= 5 && count(u8::MAX) <= 50;
                    prop_assert!(wait <= PAIR.longest_ms);
                    prop_assert!(wait == 0 || (failed.contains(&source) && !few));
                }
            }
        }
    }
}
