use proptest::prelude::*;

use super::*;
use crate::access::principal::Identity;

const S: u64 = 1_000_000_000;
const DECRYPT: u32 = 2;
const ENCRYPT: u32 = 1;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// A limit of each principal of `acme`.
fn limit(id: &str, windows: &[&str]) -> Limit {
    Limit {
        tenant: Some(name("acme")),
        id: name(id),
        principal: None,
        key: None,
        actions: 0,
        sharing: Sharing::EachPrincipal,
        windows: windows.iter().map(|text| text.parse().unwrap()).collect(),
        created: 0,
        set_by: "tenants/acme/identities/ops".into(),
    }
}

fn part(key: &str, actions: u32, fields: u64, bytes: u64) -> Part<'_> {
    Part {
        key: Some(key),
        actions,
        fields,
        bytes,
    }
}

fn call<'a>(tenant: &'a str, principal: &'a str, parts: &'a [Part<'a>]) -> Call<'a> {
    Call {
        tenant,
        principal,
        parts,
    }
}

fn used(limits: &Limits, meters: &Meters, principal: &str, now: u64) -> Vec<u64> {
    let usage = limits.usage(meters, "acme", principal, now);
    usage.iter().map(|one| one.used).collect()
}

#[test]
fn a_batch_counts_its_fields_and_each_principal_has_his_own() {
    let limits = Limits::new([limit("day", &["10 fields/day"])]).unwrap();
    let meters = Meters::new(64);
    let six = [part("pii", DECRYPT, 6, 60)];
    drop(limits.admit(&meters, &call("acme", "a", &six), 0).unwrap());
    let refused = limits.admit(&meters, &call("acme", "a", &six), 0);
    let refused = refused.unwrap_err();
    assert!(matches!(refused, Refused::Spent { .. }));
    // 13 slices of two hours.
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(26 * 3_600)));
    drop(limits.admit(&meters, &call("acme", "b", &six), 0).unwrap());
    drop(limits.admit(&meters, &call("other", "a", &six), 0).unwrap());
    assert_eq!(used(&limits, &meters, "a", 0), [6]);
    let usage = limits.usage(&meters, "acme", "a", S);
    assert_eq!(usage[0].remaining, 4);
    assert_eq!(usage[0].resets_in, Duration::from_secs(26 * 3_600 - 1));
    assert_eq!(limits.usage(&meters, "other", "a", 0), []);
}

#[test]
fn all_windows_are_charged_or_none() {
    let limits = Limits::new([
        limit("one", &["100 fields/s", "1000 B/s burst 1000"]),
        limit("two", &["5 calls/min", "2 calls"]),
        Limit {
            sharing: Sharing::Together,
            ..limit("all", &["150 fields/hour"])
        },
        Limit {
            tenant: None,
            sharing: Sharing::Together,
            ..limit("service", &["1000 fields/day"])
        },
    ])
    .unwrap();
    let meters = Meters::new(64);
    let admit = |principal: &str, fields, bytes| {
        let parts = [part("pii", DECRYPT, fields, bytes)];
        limits.admit(&meters, &call("acme", principal, &parts), 0)
    };
    let first = admit("a", 10, 10).unwrap();
    let second = admit("a", 10, 10).unwrap();
    let before = used(&limits, &meters, "a", 0);
    assert_eq!(before, [20, 20, 20, 2, 2, 20]);
    // Too many calls under way, too many bytes, too many fields: nothing is charged.
    assert!(admit("a", 1, 1).is_err());
    drop(second);
    assert!(admit("a", 1, 990).is_err());
    assert!(admit("a", 90, 1).is_err());
    assert_eq!(used(&limits, &meters, "a", 0), [20, 20, 20, 2, 1, 20]);
    // What the tenant has left binds another principal too, and he has been charged nothing.
    let _third = admit("b", 100, 1).unwrap();
    assert!(admit("b", 0, 1).is_ok());
    assert!(admit("c", 31, 1).is_err());
    assert_eq!(used(&limits, &meters, "c", 0), [120, 0, 0, 0, 0, 120]);
    drop(first);
    assert_eq!(used(&limits, &meters, "a", 0), [120, 20, 20, 2, 0, 120]);
}

#[test]
fn a_batch_larger_than_a_limit_is_told_so() {
    let limits = Limits::new([limit("day", &["10 fields/day", "5 fields/s burst 7"])]).unwrap();
    let meters = Meters::new(64);
    let parts = [part("pii", DECRYPT, 8, 0)];
    let refused = limits.admit(&meters, &call("acme", "a", &parts), 0);
    let refused = refused.unwrap_err();
    assert_eq!(refused.retry_after(), None);
    assert_eq!(
        refused.to_string(),
        "the call counts 8 and the limit `tenants/acme/limits/day` of 5 fields/s burst 7 never allows more than 7 at once: send smaller batches"
    );
    assert_eq!(used(&limits, &meters, "a", 0), [0, 0]);
}

#[test]
fn what_is_given_back_was_never_charged() {
    let limits = Limits::new([limit("day", &["10 fields/day", "100 fields/s burst 10"])]).unwrap();
    let meters = Meters::new(64);
    let three = [part("pii", DECRYPT, 3, 0)];
    let three = call("acme", "a", &three);
    drop(limits.admit(&meters, &three, S).unwrap());
    drop(limits.admit(&meters, &three, S).unwrap());
    limits.give_back(&meters, &three, S);
    assert_eq!(used(&limits, &meters, "a", S), [3, 3]);
    // What has leaked since is not given back a second time.
    drop(limits.admit(&meters, &three, S + S / 50).unwrap());
    limits.give_back(&meters, &three, S);
    assert_eq!(used(&limits, &meters, "a", S + S / 50), [3, 3]);
    // Nor what does not count any more.
    let later = S * 86_400 * 2;
    drop(limits.admit(&meters, &three, later).unwrap());
    limits.give_back(&meters, &three, S);
    assert_eq!(used(&limits, &meters, "a", later)[0], 3);
}

#[test]
fn of_several_refusals_the_longest_wait_is_told() {
    let limits = Limits::new([limit(
        "day",
        &["10 fields/s", "10 fields/hour", "10 fields/min"],
    )])
    .unwrap();
    let meters = Meters::new(64);
    let parts = [part("pii", DECRYPT, 10, 0)];
    drop(
        limits
            .admit(&meters, &call("acme", "a", &parts), 0)
            .unwrap(),
    );
    let refused = limits.admit(&meters, &call("acme", "a", &parts), 0);
    let wait = refused.unwrap_err().retry_after();
    assert_eq!(wait, Some(Duration::from_secs(3_900)));
    assert!(
        limits
            .admit(&meters, &call("acme", "a", &parts), 3_900 * S)
            .is_ok()
    );
}

#[test]
fn scopes_say_which_calls_count() {
    let app = Identity::new(name("acme"), name("app"));
    let resource = app.resource().to_string();
    let limits = Limits::new([
        Limit {
            actions: DECRYPT,
            ..limit("decrypts", &["100 fields/day"])
        },
        Limit {
            key: Some(name("pii")),
            sharing: Sharing::Together,
            ..limit("key", &["100 fields/day"])
        },
        Limit {
            principal: Some(app),
            key: Some(name("cards")),
            ..limit("app", &["100 fields/day"])
        },
        Limit {
            tenant: None,
            sharing: Sharing::EachTenant,
            ..limit("tenant", &["1000 fields/day"])
        },
    ])
    .unwrap();
    let meters = Meters::new(64);
    let parts = [
        part("cards", DECRYPT, 1, 0),
        part("cards", ENCRYPT, 2, 0),
        part("pii", DECRYPT, 4, 0),
        part("pii", ENCRYPT, 8, 0),
        part("rest", DECRYPT, 16, 0),
    ];
    drop(
        limits
            .admit(&meters, &call("acme", &resource, &parts), 0)
            .unwrap(),
    );
    let one = |id: &str, tenant: &str, principal: &str| {
        let usage = limits.usage(&meters, tenant, principal, 0);
        let one = usage.iter().find(|one| one.limit.id.as_str() == id);
        one.map(|one| one.used)
    };
    assert_eq!(one("decrypts", "acme", &resource), Some(21));
    assert_eq!(one("key", "acme", &resource), Some(12));
    assert_eq!(one("app", "acme", &resource), Some(3));
    assert_eq!(one("tenant", "acme", &resource), Some(31));
    assert_eq!(one("decrypts", "acme", "b"), Some(0));
    assert_eq!(one("key", "acme", "b"), Some(12));
    assert_eq!(one("app", "acme", "b"), None);
    assert_eq!(one("tenant", "other", &resource), Some(0));
    // A call without a key is about no limit of a key.
    let describe = [Part {
        key: None,
        actions: 32,
        fields: 1,
        bytes: 0,
    }];
    drop(
        limits
            .admit(&meters, &call("acme", &resource, &describe), 0)
            .unwrap(),
    );
    assert_eq!(one("key", "acme", &resource), Some(12));
    assert_eq!(one("tenant", "acme", &resource), Some(32));
}

#[test]
fn what_was_used_outlives_a_change_of_limits() {
    let meters = Meters::new(64);
    let parts = [part("pii", DECRYPT, 10, 0)];
    let before = Limits::new([limit("day", &["10 fields/day"])]).unwrap();
    drop(
        before
            .admit(&meters, &call("acme", "a", &parts), 0)
            .unwrap(),
    );
    let after = Limits::new([
        limit("new", &["5 calls/s"]),
        limit("day", &["15 fields/day"]),
    ])
    .unwrap();
    assert!(after.admit(&meters, &call("acme", "a", &parts), 0).is_err());
    assert_eq!(used(&after, &meters, "a", 0), [0, 10]);
}

#[test]
fn without_limits_everything_is_admitted() {
    let limits = Limits::new([]).unwrap();
    assert!(limits.is_empty());
    let meters = Meters::new(64);
    let parts = [part("pii", DECRYPT, u64::MAX, u64::MAX)];
    for now in [0, u64::MAX, 0] {
        drop(
            limits
                .admit(&meters, &call("acme", "a", &parts), now)
                .unwrap(),
        );
    }
}

#[test]
fn there_is_a_most_of_limits() {
    let many = |n: usize| (0..n).map(|one| limit(&format!("l{one}"), &["1 calls/s"]));
    assert!(Limits::new(many(MAX_LIMITS)).is_ok());
    assert_eq!(
        Limits::new(many(MAX_LIMITS + 1)).err(),
        Some(LimitError::TooMany)
    );
}

#[test]
fn a_million_principals_take_no_more_memory_and_make_nobody_forget_a_spent_limit() {
    let limits = Limits::new([limit("day", &["10 fields/day"])]).unwrap();
    let meters = Meters::new(1_024);
    let ten = [part("pii", DECRYPT, 10, 0)];
    let one = [part("pii", DECRYPT, 1, 0)];
    drop(
        limits
            .admit(&meters, &call("acme", "spent", &ten), 0)
            .unwrap(),
    );
    for newcomer in 0..1_000_000 {
        let newcomer = format!("n-{newcomer}");
        drop(
            limits
                .admit(&meters, &call("acme", &newcomer, &one), 1)
                .unwrap(),
        );
    }
    assert!(
        limits
            .admit(&meters, &call("acme", "spent", &one), 2)
            .is_err()
    );
}

#[test]
fn many_calls_under_way_are_all_given_back() {
    let all = (0..10).map(|one| limit(&format!("l{one}"), &["3 calls"]));
    let limits = Limits::new(all).unwrap();
    let meters = Meters::new(64);
    let parts = [part("pii", DECRYPT, 1, 0)];
    for _ in 0..10 {
        let admit = || limits.admit(&meters, &call("acme", "a", &parts), 0);
        let three = [admit().unwrap(), admit().unwrap(), admit().unwrap()];
        assert!(admit().is_err());
        drop(three);
        assert_eq!(used(&limits, &meters, "a", 0), [0; 10]);
    }
}

#[test]
fn cores_that_meet_never_give_more() {
    let limits = Limits::new([
        limit("each", &["500 fields/day"]),
        Limit {
            sharing: Sharing::Together,
            ..limit("all", &["1200 fields/day burst 1200"])
        },
    ])
    .unwrap();
    let meters = Meters::new(64);
    let run = |principals: [&'static str; 3]| {
        let mut admitted = 0;
        for turn in 0..3_000 {
            let parts = [part("pii", DECRYPT, 1, 0)];
            let principal = principals[turn % 3];
            let outcome = limits.admit(&meters, &call("acme", principal, &parts), 0);
            admitted += u64::from(outcome.is_ok());
        }
        admitted
    };
    let total: u64 = std::thread::scope(|scope| {
        let orders = [["a", "b", "c"], ["c", "b", "a"], ["b", "a", "c"]];
        let threads = orders.map(|order| scope.spawn(move || run(order)));
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(total, 1_200);
    let each: u64 = ["a", "b", "c"]
        .iter()
        .map(|one| used(&limits, &meters, one, 0)[0])
        .sum();
    assert_eq!(each, 1_200);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the limits and the calls: a refused call changes no usage, and an admitted one adds exactly what it takes.
    #[test]
    fn a_call_is_charged_in_full_or_not_at_all(
        windows in prop::collection::vec((0..4_usize, 1..30_u64, 0..3_usize), 1..6),
        calls in prop::collection::vec((0..3_usize, 0..9_u64, 0..9_u64, 0..40_u64), 0..60),
    ) {
        let limits = windows.iter().enumerate().map(|(index, (kind, amount, sharing))| {
            let text = [
                format!("{amount} fields/day"),
                format!("{amount} B/day"),
                format!("{amount} calls/day"),
                format!("{amount} calls"),
            ];
            Limit {
                sharing: [Sharing::Together, Sharing::EachTenant, Sharing::EachPrincipal][*sharing],
                tenant: (*amount % 2 == 0).then(|| name("acme")),
                ..limit(&format!("l{index}"), &[&text[*kind]])
            }
        });
        let limits = Limits::new(limits).unwrap();
        let meters = Meters::new(8);
        let mut under_way = Vec::new();
        let mut now = 0;
        for (principal, fields, bytes, step) in calls {
            now += step;
            let principal = ["a", "b", "c"][principal];
            let parts = [part("pii", DECRYPT, fields, bytes)];
            let before = limits.usage(&meters, "acme", principal, now);
            let outcome = limits.admit(&meters, &call("acme", principal, &parts), now);
            let after = limits.usage(&meters, "acme", principal, now);
            let fits = before.iter().all(|one| take(one, fields, bytes) <= one.remaining);
            prop_assert_eq!(outcome.is_ok(), fits);
            for (before, after) in before.iter().zip(&after) {
                let taken = if fits { take(before, fields, bytes) } else { 0 };
                prop_assert_eq!(after.used, before.used + taken);
                prop_assert!(after.used <= after.window.most());
            }
            under_way.extend(outcome.ok());
            if step > 30 {
                under_way.clear();
            }
        }
    }
}

fn take(usage: &Usage, fields: u64, bytes: u64) -> u64 {
    match usage.window.unit() {
        Unit::Fields => fields,
        Unit::Bytes => bytes,
        Unit::Calls => 1,
    }
}
