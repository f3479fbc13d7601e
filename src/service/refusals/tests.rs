use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use fieldkeep_crypto::names::Name;
use proptest::prelude::*;

use super::*;
use crate::access::action::Action;
use crate::access::principal::{Identity, Principal};
use crate::service::call::{Peer, RequestIds};
use crate::telemetry::Metrics;

const RULES: [&str; 3] = ["no-grant", "invalid", "unauthenticated"];
const OPTIONS: RefusalOptions = RefusalOptions {
    of_one: 10,
    unauthenticated: 25,
};

/// A call of a principal, or of nobody from an address.
fn call(principal: Option<u32>, address: u32) -> Call {
    let principal = principal.map(|number| {
        let name = |text: String| Name::parse(&text).unwrap();
        let identity = Identity::new(name("acme".into()), name(format!("app-{number}")));
        Principal::new(&identity, i64::MAX).with_serial(&[1])
    });
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(address)), 9);
    Call {
        peer: Arc::new(Peer::new(principal, address)),
        request_id: RequestIds::make().unwrap().next(),
        started: Instant::now(),
        rpc: "test/Rpc",
        action: Action::Encrypt,
        request_bytes: 0,
        wants_receipt: false,
        metrics: Metrics::new().unwrap().rpc("test/Rpc"),
        trace: None,
    }
}

fn refusal(call: &Call, time_us: u64) -> Refusal<'_> {
    Refusal {
        call,
        rule: "no-grant",
        code: 7,
        time_us,
    }
}

fn note(counts: &mut Counts, call: &Call, now_ns: u64) -> Becomes {
    counts.note(&refusal(call, now_ns / 1_000), &OPTIONS, now_ns)
}

#[test]
fn ten_a_second_are_written_and_the_rest_is_counted() {
    let (mut counts, noisy) = (Counts::default(), call(Some(1), 1));
    for number in 0..110 {
        let expected = if number < 10 {
            Becomes::Written
        } else {
            Becomes::Counted
        };
        assert_eq!(note(&mut counts, &noisy, 1_000 * number), expected);
    }
    // Somebody else's single one.
    assert_eq!(
        note(&mut counts, &call(Some(2), 1), 200_000),
        Becomes::Written
    );
    assert!(counts.take_due(HOLD_NS).is_empty(), "not yet a second");
    let mut due = counts.take_due(HOLD_NS + 10_000);
    assert_eq!(due.len(), 1);
    let record = due.remove(0).record(&[9; 16]);
    assert_eq!((record.summarised, record.time_us), (100, 109));
    assert_eq!(record.detail, "no-grant:encrypt=100");
    assert_eq!((record.rule.as_str(), record.code), (RULE_SUMMARY, 7));
    assert_eq!(record.principal, "tenants/acme/identities/app-1");
    assert_eq!(
        (record.address.as_str(), record.credential.as_str()),
        ("0.0.0.1:9", "01")
    );
    assert_eq!(record.duration_us, 99);
    assert_eq!(
        note(&mut counts, &noisy, SECOND_NS),
        Becomes::Written,
        "the next second"
    );
}

#[test]
fn nobody_has_but_a_share_of_what_all_without_a_principal_have() {
    let mut counts = Counts::default();
    let mut becomes = |source: u32| note(&mut counts, &call(None, source), 0);
    // Ten of one source, and one each of fifteen others.
    for _ in 0..12 {
        becomes(0);
    }
    for source in 1..=15 {
        assert_eq!(becomes(source), Becomes::Written, "{source}");
    }
    for source in 16..2_000 {
        assert_eq!(becomes(source), Becomes::Counted, "{source}");
    }
    assert_eq!(counts.sources.len(), 16, "sources beyond are not followed");
    // A caller with a principal has its own.
    assert_eq!(note(&mut counts, &call(Some(1), 5), 0), Becomes::Written);
    let mut counted: Vec<(String, u64)> = counts
        .take_due(HOLD_NS)
        .into_iter()
        .map(|summary| summary.record(&[9; 16]))
        .map(|record| (record.address, record.summarised))
        .collect();
    counted.sort();
    assert_eq!(counted, [(String::new(), 1_984), ("0.0.0.0:9".into(), 2)]);
}

#[test]
fn principals_and_causes_are_bounded() {
    let mut counts = Counts::default();
    for number in 0..MAX_PRINCIPALS as u32 + 50 {
        note(&mut counts, &call(Some(number), 1), 0);
    }
    assert_eq!(counts.principals.len(), MAX_PRINCIPALS);
    let due = counts.take_due(HOLD_NS);
    assert_eq!(due.len(), 1);
    assert_eq!((due[0].count, &*due[0].principal), (40, ""));

    let (mut caller, noisy) = (Caller::default(), call(Some(1), 1));
    for number in 0..100 {
        let rule: &'static str = Box::leak(format!("rule-{number}").into_boxed_str());
        let refusal = Refusal {
            rule,
            ..refusal(&noisy, 0)
        };
        caller.add(&refusal, false, 0);
    }
    let summary = caller.summary.unwrap();
    assert_eq!(summary.causes.len(), MAX_CAUSES + 1);
    assert_eq!(summary.causes.last().unwrap(), &(OTHER_CAUSE, 68));
}

#[test]
fn who_is_quiet_is_forgotten() {
    let mut counts = Counts::default();
    for number in 0..100 {
        note(&mut counts, &call(Some(number), number), 0);
        note(&mut counts, &call(None, number), 0);
    }
    note(&mut counts, &call(Some(0), 0), 2 * SECOND_NS);
    assert_eq!(counts.principals.len(), 1);
    // The one that has a summary stays until that is written.
    counts.take_due(4 * SECOND_NS);
    assert_eq!((counts.principals.len(), counts.sources.len()), (0, 0));
}

proptest! {
    /// Each call is written or in exactly one summary, by caller and cause; no caller writes more than its share in a second, nor do
    /// all without a principal; a summary is not held for longer than a second.
    #[test]
    fn nothing_is_lost_or_counted_twice(
        steps in proptest::collection::vec((0_u32..8, 0_usize..3, 0_u64..60_000_000), 1..600),
    ) {
        let calls: Vec<Call> = (0..8)
            .map(|n| call((n < 4).then_some(n), n))
            .collect();
        let mut counts = Counts::default();
        let (mut now_ns, mut ticked_ns) = (0, 0);
        let mut given: BTreeMap<&str, u64> = BTreeMap::new();
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        let mut written: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let mut without: Vec<u64> = Vec::new();
        let mut collect = |counts: &mut Counts, now_ns| {
            for summary in counts.take_due(now_ns) {
                assert!(now_ns == u64::MAX || now_ns - summary.first_ns <= SECOND_NS);
                assert_eq!(summary.causes.iter().map(|(_, count)| count).sum::<u64>(), summary.count);
                for ((rule, _), count) in summary.causes {
                    *found.entry(rule.to_owned()).or_default() += count;
                }
            }
        };
        for (who, rule, wait_ns) in steps {
            let until = now_ns + wait_ns;
            while ticked_ns + 100_000_000 <= until {
                ticked_ns += 100_000_000;
                collect(&mut counts, ticked_ns);
            }
            now_ns = until;
            let rule = RULES[rule];
            *given.entry(rule).or_default() += 1;
            let refusal = Refusal { rule, ..refusal(&calls[who as usize], 0) };
            if counts.note(&refusal, &OPTIONS, now_ns) == Becomes::Written {
                written.entry(who).or_default().push(now_ns);
                if who >= 4 {
                    without.push(now_ns);
                }
                let summary = counts.principals.len() + counts.sources.len();
                prop_assert!(summary <= 8);
                *given.get_mut(rule).unwrap() -= 1;
            }
        }
        collect(&mut counts, u64::MAX);
        given.retain(|_, count| *count > 0);
        let given: BTreeMap<String, u64> = given.into_iter().map(|(rule, count)| (rule.to_owned(), count)).collect();
        prop_assert_eq!(given, found);
        // Seconds follow one another, so that any second has parts of two.
        for times in written.values() {
            prop_assert!(most_in_a_second(times) <= 2 * OPTIONS.of_one as usize);
        }
        prop_assert!(most_in_a_second(&without) <= 2 * OPTIONS.unauthenticated as usize);
    }
}

fn most_in_a_second(times: &[u64]) -> usize {
    let within = |begin: &u64| {
        times
            .iter()
            .filter(|time| (*begin..begin + SECOND_NS).contains(time))
            .count()
    };
    times.iter().map(within).max().unwrap_or(0)
}
