//! What a check of the limits costs a call, and what the guard against too many calls costs, alone and with two threads at once.

#![allow(missing_docs, reason = "`criterion_group` makes undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark may fail loudly")]

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fieldkeep::access::limits::{
    Call, DEFAULT_PRINCIPALS, Limits, Meters, Part,
    record::{Limit, Sharing},
    shed::{Overload, ShedOptions},
};
use fieldkeep_crypto::names::Name;

const PRINCIPAL: &str = "tenants/default/identities/app-frontend";

fn limit(id: &str, sharing: Sharing, windows: &[&str]) -> Limit {
    Limit {
        tenant: Some(Name::parse("default").unwrap()),
        id: Name::parse(id).unwrap(),
        principal: None,
        key: None,
        actions: 0,
        sharing,
        windows: windows.iter().map(|text| text.parse().unwrap()).collect(),
        created: 0,
        set_by: PRINCIPAL.into(),
    }
}

/// Limits that no call of this benchmark reaches.
fn sets() -> Vec<(&'static str, Vec<Limit>)> {
    let rate = "1000000000000 fields/s burst 1000000000000";
    let day = "1000000000000000 fields/day";
    let each = Sharing::EachPrincipal;
    let many = |n: usize| (0..n).map(move |one| limit(&format!("l{one}"), each, &[rate]));
    vec![
        ("no limit", Vec::new()),
        ("one rate", vec![limit("one", each, &[rate])]),
        ("one budget", vec![limit("one", each, &[day])]),
        (
            "a rate, a budget and calls under way, and the tenant's rate",
            vec![
                limit("one", each, &[rate, day, "1000000 calls"]),
                limit("all", Sharing::Together, &[rate]),
            ],
        ),
        ("ten rates", many(10).collect()),
        (
            "a rate among 990 of other keys",
            (0..990)
                .map(|one| Limit {
                    key: Some(Name::parse(&format!("key-{one}")).unwrap()),
                    ..limit(&format!("k{one}"), each, &[day])
                })
                .chain(many(1))
                .collect(),
        ),
    ]
}

fn parts() -> [Part<'static>; 1] {
    [Part {
        key: Some("pii"),
        actions: 1,
        fields: 1,
        bytes: 29,
    }]
}

fn admit(limits: &Limits, meters: &Meters, principal: &str, now: u64) {
    let parts = parts();
    let call = Call {
        tenant: "default",
        principal,
        parts: &parts,
    };
    drop(black_box(
        limits.admit(meters, black_box(&call), now).unwrap(),
    ));
}

/// Runs `measured` while another thread runs `other` over and over.
fn beside(other: impl Fn() + Sync, measured: impl FnOnce()) {
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                other();
            }
        });
        measured();
        end.store(true, Ordering::Relaxed);
    });
}

fn limits(c: &mut Criterion) {
    let mut group = c.benchmark_group("limits");
    group.throughput(Throughput::Elements(1));
    for (name, records) in sets() {
        let limits = Limits::new(records).unwrap();
        let meters = Meters::new(DEFAULT_PRINCIPALS);
        let mut now = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                now += 1_000;
                admit(&limits, &meters, PRINCIPAL, now);
            });
        });
    }
    let name = "a rate, a budget and calls under way, and the tenant's rate";
    let records = sets().into_iter().find(|(other, _)| *other == name);
    let limits = Limits::new(records.unwrap().1).unwrap();
    let meters = Meters::new(DEFAULT_PRINCIPALS);
    let mut now = 0;
    beside(
        || admit(&limits, &meters, "tenants/default/identities/other", 1),
        || {
            group.bench_function("the same, beside another thread without a pause", |b| {
                b.iter(|| {
                    now += 1_000;
                    admit(&limits, &meters, PRINCIPAL, now);
                });
            });
        },
    );
    let limits = Limits::new([limit(
        "one",
        Sharing::EachPrincipal,
        &["1000000000000 fields/s burst 1000000000000"],
    )])
    .unwrap();
    beside(
        || admit(&limits, &meters, "tenants/default/identities/other", 1),
        || {
            group.bench_function("one rate, beside another thread without a pause", |b| {
                b.iter(|| {
                    now += 1_000;
                    admit(&limits, &meters, PRINCIPAL, now);
                });
            });
        },
    );
    let newcomers: Vec<String> = (0..1_000_000).map(|n| format!("n-{n}")).collect();
    let mut newcomers = newcomers.iter().cycle();
    group.bench_function("one rate, a million principals in turn", |b| {
        b.iter(|| {
            now += 1_000;
            admit(&limits, &meters, newcomers.next().unwrap(), now);
        });
    });
    group.finish();
}

fn shed(c: &mut Criterion) {
    let mut group = c.benchmark_group("shed");
    group.throughput(Throughput::Elements(1));
    let overload = Overload::new(ShedOptions::default());
    let call = |overload: &Arc<Overload>, principal: &str| {
        drop(black_box(overload.enter(principal, 1).unwrap()));
    };
    group.bench_function("enter and leave", |b| b.iter(|| call(&overload, PRINCIPAL)));
    beside(
        || call(&overload, "tenants/default/identities/other"),
        || {
            group.bench_function(
                "enter and leave, beside another thread without a pause",
                |b| {
                    b.iter(|| call(&overload, PRINCIPAL));
                },
            );
        },
    );
    group.finish();
}

criterion_group!(benches, limits, shed);
criterion_main!(benches);
