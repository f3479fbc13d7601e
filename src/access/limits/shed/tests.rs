use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn options(calls: u32) -> ShedOptions {
    ShedOptions {
        calls,
        principals: 50,
        ..ShedOptions::default()
    }
}

const MS: u64 = 1_000_000;

#[test]
fn one_principal_alone_has_the_whole_capacity() {
    let overload = Overload::new(options(8));
    let places: Vec<Place> = (0..8).map(|_| overload.enter("a", 0).unwrap()).collect();
    assert_eq!(
        overload.enter("a", 0).err(),
        Some(Shed::Share {
            share: 8,
            retry_after: Duration::from_millis(100)
        })
    );
    assert_eq!(overload.under_way(), 8);
    drop(places);
    assert_eq!(overload.under_way(), 0);
    assert_eq!(overload.principals.load(Ordering::Relaxed), 0);
    assert!(overload.held.iter().all(|part| part.lock().is_empty()));
}

#[test]
fn a_first_call_is_let_in_while_somebody_holds_more_than_his_share() {
    let overload = Overload::new(options(8));
    let mut greedy: Vec<Place> = (0..8).map(|_| overload.enter("a", 0).unwrap()).collect();
    let first = overload.enter("b", 0).unwrap();
    // A second one is not: the capacity is used up.
    assert!(overload.enter("b", 0).is_err());
    greedy.truncate(4);
    // Now there is room for b, who has less than half, and none for a, who has half.
    let second = overload.enter("b", 0).unwrap();
    assert!(overload.enter("a", 0).is_err());
    drop((first, second));
}

#[test]
fn ten_thousand_callers_do_not_starve_one_that_behaves() {
    let overload = Overload::new(ShedOptions::default());
    let names: Vec<String> = (0..10_000).map(|n| format!("flood-{n}")).collect();
    let mut flood = Vec::new();
    // A thousand of them take all they can before anyone else comes.
    for _ in 0..10 {
        for name in names.iter().take(1_000) {
            flood.extend(overload.enter(name, 0));
        }
    }
    assert!(overload.under_way() >= 4_000);
    for name in &names {
        flood.extend(overload.enter(name, 0));
    }
    // Then one that behaves sends one call after the other, while for each call that ends the flood tries ten.
    let mut calls = 0;
    for turn in 0..1_000 {
        let place = overload.enter("behaves", 0);
        calls += u32::from(place.is_ok());
        drop(place);
        flood.pop();
        for name in names.iter().skip(turn).take(10) {
            flood.extend(overload.enter(name, 0));
        }
    }
    assert_eq!(calls, 1_000);
    assert!(overload.under_way() <= 4_096 + 10_001);
}

#[test]
fn a_standing_queue_lowers_the_capacity_and_its_end_raises_it() {
    let overload = Overload::new(options(1_600));
    let place = overload.enter("a", 0).unwrap();
    for turn in 1..=40 {
        overload.observe(Duration::from_millis(60), turn * 100 * MS);
        overload.observe(Duration::from_secs(9), turn * 100 * MS);
    }
    assert_eq!(overload.capacity(), 100);
    assert!(overload.late.load(Ordering::Relaxed));
    // One call that did not wait shows that no queue stands.
    for turn in 41..=60 {
        overload.observe(Duration::from_secs(9), turn * 100 * MS);
        overload.observe(Duration::from_millis(1), turn * 100 * MS);
    }
    assert_eq!(overload.capacity(), 1_600);
    assert!(!overload.late.load(Ordering::Relaxed));
    drop(place);
}

#[test]
fn while_calls_wait_nobody_has_more_than_his_share() {
    let overload = Overload::new(options(1_600));
    let _other = overload.enter("b", 0).unwrap();
    for turn in 1..=40 {
        overload.observe(Duration::from_millis(60), turn * 100 * MS);
    }
    let places: Vec<Place> = (0..60)
        .filter_map(|_| overload.enter("a", 4_000 * MS).ok())
        .collect();
    assert_eq!(places.len(), 50);
}

#[test]
fn a_clock_that_goes_back_changes_nothing() {
    let overload = Overload::new(options(16));
    overload.observe(Duration::from_secs(1), u64::MAX);
    overload.observe(Duration::from_secs(1), 0);
    let _place = overload.enter("a", 0).unwrap();
    assert_eq!(overload.capacity(), 16);
}

proptest! {
    #[test]
    fn the_total_is_bounded_and_first_calls_are_not_shed_for_others(
        calls in 1..40_u32,
        steps in prop::collection::vec((any::<bool>(), 0..12_u64, 0..4_u64, 0..200_u64), 0..600),
    ) {
        let overload = Overload::new(ShedOptions { calls, principals: 12, ..ShedOptions::default() });
        let mut held: HashMap<u64, u32> = HashMap::new();
        let mut now = 0;
        for (enter, principal, time, delay) in steps {
            now += time * 50 * MS;
            if delay > 150 {
                overload.observe(Duration::from_millis(delay - 120), now);
            }
            if enter {
                let own = held.get(&principal).copied().unwrap_or(0);
                let entered = overload.admit(principal, now).is_ok();
                let callers = held.len() + usize::from(own == 0);
                let share = (overload.capacity() / u32::try_from(callers).unwrap()).max(1);
                let total = held.values().sum::<u32>();
                let over = held.iter().any(|(one, held)| *one != principal && *held > share);
                if own == 0 {
                    // Exactly then: there is room, or somebody holds more than his share.
                    prop_assert_eq!(entered, total < overload.capacity() || over);
                }
                // Nobody is shed while less than half is used and nothing waits.
                if !overload.late.load(Ordering::Relaxed) && total < overload.capacity() / 2 {
                    prop_assert!(entered);
                }
                if entered {
                    *held.entry(principal).or_default() += 1;
                }
            } else {
                overload.leave(principal);
                if let Some(own) = held.get_mut(&principal) {
                    *own -= 1;
                    if *own == 0 {
                        held.remove(&principal);
                    }
                }
            }
            let found: HashMap<u64, u32> = overload
                .held
                .iter()
                .flat_map(|part| part.lock().clone())
                .collect();
            prop_assert_eq!(&found, &held);
            prop_assert_eq!(overload.under_way(), held.values().sum::<u32>());
            prop_assert_eq!(overload.principals.load(Ordering::Relaxed) as usize, held.len());
            prop_assert!(overload.under_way() <= calls + 12);
        }
    }
}

#[test]
fn cores_that_meet_count_each_other() {
    let overload = Overload::new(options(64));
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let overload = &overload;
            scope.spawn(move || {
                for turn in 0..20_000_u64 {
                    let places: Vec<Place> = (0..turn % 40)
                        .filter_map(|_| overload.enter(name, turn).ok())
                        .collect();
                    assert!(
                        overload.under_way() <= 64 + 8,
                        "a first call, and one that is being refused, each"
                    );
                    drop(places);
                }
            });
        }
    });
    assert_eq!(overload.under_way(), 0);
    assert_eq!(overload.principals.load(Ordering::Relaxed), 0);
}

/// The load of the benchmarks: 8 connections with 32 calls each, of one identity or of a few, however long they wait.
#[test]
fn two_hundred_and_fifty_six_calls_at_once_are_never_shed() {
    for identities in [1, 2, 4, 8] {
        let overload = Overload::new(ShedOptions::default());
        let names: Vec<String> = (0..identities).map(|n| format!("app-{n}")).collect();
        for turn in 1..=100 {
            overload.observe(Duration::from_secs(1), turn * 100 * MS);
            let places: Vec<Place> = (0..256_usize)
                .map(|n| {
                    overload
                        .enter(&names[n % identities], turn * 100 * MS)
                        .unwrap()
                })
                .collect();
            drop(places);
        }
        assert_eq!(overload.capacity(), 256);
    }
}
