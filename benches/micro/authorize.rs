//! What one decision costs, at 10, 1,000 and 10,000 grants: spread over as many principals, and all on one, with exact names and
//! with beginnings of names. The bar is one microsecond (docs/performance.md).
#![allow(clippy::expect_used, reason = "a benchmark may fail loudly")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fieldkeep::access::action::Action;
use fieldkeep::access::condition::Conditions;
use fieldkeep::access::grant::{Grant, GrantId, Scope, Wanted, Who};
use fieldkeep::access::group::{Group, Membership};
use fieldkeep::access::pattern::Pattern;
use fieldkeep::access::principal::{Identity, Principal};
use fieldkeep::access::role::Role;
use fieldkeep::access::settings::Settings;
use fieldkeep::access::snapshot::{AccessSnapshot, Asked};
use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_crypto::names::Name;

const SIZES: [u64; 3] = [10, 1_000, 10_000];

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).expect("a pattern")
}

/// How the grants are laid out.
#[derive(Clone, Copy)]
enum Layout {
    /// One a principal.
    Spread,
    /// All on one, each for a field of its own.
    OneExact,
    /// All on one, each for fields that begin so, of eight lengths.
    OnePrefix,
    /// All on one, each with a condition on the context.
    OneConditional,
    /// One a principal, through a group.
    Groups,
}

/// The field of grant `number`, and a pattern that covers it.
fn field(layout: Layout, number: u64) -> (String, String) {
    match layout {
        Layout::OneExact | Layout::OneConditional => {
            let field = format!("customer.field-{number:05}");
            (field.clone(), field)
        }
        Layout::OnePrefix => {
            let begin = format!("c{number:05}{}", "x".repeat((number % 8) as usize));
            (format!("{begin}.email"), format!("{begin}.*"))
        }
        Layout::Spread | Layout::Groups => ("customer.email".into(), "customer.*".into()),
    }
}

fn principal(layout: Layout, number: u64) -> Identity {
    let text = match layout {
        Layout::Spread | Layout::Groups => format!("app-{number}"),
        Layout::OneExact | Layout::OnePrefix | Layout::OneConditional => String::from("app"),
    };
    Identity::new(name("acme"), name(&text))
}

fn snapshot(layout: Layout, size: u64) -> AccessSnapshot {
    let group = |number| Group::new(name("acme"), name(&format!("group-{number}")));
    let grants = (0..size).map(|number| {
        let who = match layout {
            Layout::Groups => Who::Group(group(number)),
            _ => Who::Identity(principal(layout, number)),
        };
        let conditions = match layout {
            Layout::OneConditional => Conditions {
                context: vec![("region".into(), "eu".into())],
                ..Conditions::default()
            },
            _ => Conditions::default(),
        };
        Grant {
            id: GrantId::of_bytes(number.to_be_bytes()),
            what: Wanted {
                keys: vec![pattern("pii")],
                fields: vec![pattern(&field(layout, number).1)],
                conditions,
                ..Wanted::all_of(Role::Data, Scope::Tenant(name("acme")), who)
            },
            created: 0,
            granted_by: "init".into(),
        }
    });
    let members = (0..size).filter(|_| matches!(layout, Layout::Groups));
    let memberships = members.map(|number| Membership {
        group: group(number),
        member: principal(layout, number),
        created: 0,
        added_by: "init".into(),
    });
    AccessSnapshot::new(grants, memberships.collect::<Vec<_>>(), Settings::default())
}

fn authorize(c: &mut Criterion) {
    let layouts = [
        ("spread", Layout::Spread),
        ("one-exact", Layout::OneExact),
        ("one-prefix", Layout::OnePrefix),
        ("one-conditional", Layout::OneConditional),
        ("groups", Layout::Groups),
    ];
    let context = EncodedContext::encode([("id", "42"), ("region", "eu")]).expect("a context");
    for (text, layout) in layouts {
        let mut group = c.benchmark_group(format!("authorize/{text}"));
        for size in SIZES {
            let snapshot = snapshot(layout, size);
            // Others in turn, so that not one of them stays in the processor's caches.
            let cases: Vec<(Principal, String)> = (0..size)
                .map(|number| {
                    let number = number.wrapping_mul(7_919) % size;
                    let caller = Principal::new(&principal(layout, number), i64::MAX);
                    (caller, field(layout, number).0)
                })
                .collect();
            let mut next = cases.iter().cycle();
            group.bench_function(BenchmarkId::from_parameter(size), |b| {
                b.iter(|| {
                    let (caller, field) = next.next().expect("there are cases");
                    let asked = Asked {
                        action: Action::Decrypt,
                        tenant: "acme",
                        key: Some("pii"),
                        field: Some(field),
                        context: Some(&context),
                        network: [10, 0, 0, 1].into(),
                        now: 0,
                    };
                    black_box(snapshot.authorize(caller, &asked)).expect("a grant")
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, authorize);
criterion_main!(benches);
