//! Simulated lives of keys: what the planner promises, whatever happens.

use std::{collections::BTreeSet, sync::Arc};

use fieldkeep_crypto::{
    ciphertext::{Handle, Suite},
    names::Name,
};
use proptest::{collection::vec, prelude::*};

use super::{
    plan::{Act, Candidate, Cause, Next, Now, Planned, Replaced, Used, next, plan},
    policy::{RotationParts, RotationPolicy},
};
use crate::{info::KeySettings, state::KeyState};

const START: u64 = 1_795_323_600;

/// A key with the true state machine beneath.
struct Life {
    state: KeyState,
    /// When each version was made, by the clock of that time.
    created: Vec<u64>,
    used: Used,
    /// Versions that an operator enabled after they were retired.
    enabled_again: BTreeSet<u32>,
}

impl Life {
    fn new(number: u64, parts: RotationParts) -> Self {
        let policy = RotationPolicy::from_parts(parts).unwrap().map(Arc::new);
        let handle = Handle::from_bytes(number.to_be_bytes());
        let settings = KeySettings {
            rotation: policy,
            ..Suite::KcXaes256Gcm.into()
        };
        Life {
            state: KeyState::new(handle, settings, START),
            created: vec![START],
            used: Used::default(),
            enabled_again: BTreeSet::new(),
        }
    }

    fn candidate(&self) -> Option<Candidate> {
        let policy = Arc::clone(self.state.rotation.as_ref()?);
        let version = self.state.retired_through + 1;
        let oldest =
            (version < self.state.primary && policy.parts().retire_after.is_some()).then(|| {
                Replaced {
                    version,
                    since: self.created[version as usize].min(self.state.rotated),
                }
            });
        Some(Candidate {
            tenant: Name::parse("default").unwrap(),
            name: Name::parse("key").unwrap(),
            handle: self.state.handle,
            primary: self.state.primary,
            rotated: self.state.rotated,
            enabled: self.state.enabled,
            policy,
            used: self.used,
            oldest,
        })
    }

    fn rotate(&mut self, now: u64) {
        let next = self.state.rotate(now).unwrap();
        assert_eq!(
            next.primary,
            self.state.primary + 1,
            "versions are monotonic"
        );
        self.state = next;
        self.created.push(now);
        self.used = Used::default();
    }

    fn carry_out(&mut self, act: Act, now: u64) {
        match act {
            Act::Rotate { from, .. } => {
                self.state.rotate_from(from, now).unwrap();
                self.state.rotate_from(from + 1, now).unwrap_err();
                self.rotate(now);
            }
            Act::Retire { through } => {
                assert!(
                    through < self.state.primary,
                    "the primary version never retires"
                );
                self.state = self.state.retire(through).unwrap();
                assert!(self.state.is_disabled(through) || self.enabled_again.contains(&through));
            }
        }
        self.check();
    }

    /// One primary version, the newest, which is enabled; what was enabled again stays so.
    fn check(&self) {
        assert_eq!(self.state.primary as usize, self.created.len());
        assert!(!self.state.is_disabled(self.state.primary));
        assert!(self.state.retired_through < self.state.primary);
        for version in &self.enabled_again {
            assert!(
                !self.state.is_disabled(*version),
                "version {version} stays enabled"
            );
        }
        assert_eq!(
            KeyState::from_record(&self.state.to_record()).as_ref(),
            Ok(&self.state)
        );
    }
}

#[derive(Clone, Debug)]
enum Event {
    /// Time passes evenly.
    Pass(u64),
    /// The clock jumps, by seconds.
    Jump(i64),
    Use(usize, u64),
    RotateByHand(usize),
    SetEnabled(usize, bool),
    EnableOldest(usize),
}

fn policies() -> impl Strategy<Value = RotationParts> {
    let schedule = prop_oneof![
        3 => (1..5000_u64, any::<bool>(), 0..100_u64).prop_map(|(period, own, percent)| RotationParts {
            period: Some(period),
            jitter: own.then_some(period * percent / 100),
            ..RotationParts::default()
        }),
        2 => (prop::sample::select(vec!["* * * * *", "*/7 * * * *", "0 3 * * 1", "0 0 29 2 *"]), prop::option::of(0..9000_u64))
            .prop_map(|(cron, jitter)| RotationParts {
                cron: Some(cron.to_owned()),
                jitter,
                ..RotationParts::default()
            }),
        1 => Just(RotationParts::default()),
    ];
    let limits = (
        prop_oneof![Just(0), 1..50_u64],
        prop_oneof![Just(0), 1..500_u64],
    );
    (schedule, limits, prop::option::of(1..3000_u64)).prop_map(
        |(parts, (max_messages, max_bytes), retire_after)| RotationParts {
            max_messages,
            max_bytes,
            retire_after,
            ..parts
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let key = 0..8_usize;
    prop_oneof![
        8 => (0..400_u64).prop_map(Event::Pass),
        1 => (0..40_000_000_u64).prop_map(Event::Pass),
        1 => (-40_000_000..40_000_000_i64).prop_map(Event::Jump),
        1 => (-7000..7000_i64).prop_map(Event::Jump),
        4 => (key.clone(), 0..100_u64).prop_map(|(key, n)| Event::Use(key, n)),
        1 => key.clone().prop_map(Event::RotateByHand),
        1 => (key.clone(), any::<bool>()).prop_map(|(key, on)| Event::SetEnabled(key, on)),
        2 => key.prop_map(Event::EnableOldest),
    ]
}

struct World {
    lives: Vec<Life>,
    now: Now,
    budget: usize,
}

impl World {
    fn candidates(&self) -> (Vec<usize>, Vec<Candidate>) {
        let with = self.lives.iter().enumerate();
        with.filter_map(|(at, life)| Some((at, life.candidate()?)))
            .unzip()
    }

    /// One run of the planner, checked and carried out.
    fn tick(&mut self) -> Vec<Planned> {
        let (lives, candidates) = self.candidates();
        let planned = plan(self.now, &candidates, self.budget);
        assert!(planned.len() <= self.budget);
        let all = plan(self.now, &candidates, usize::MAX);
        assert_eq!(
            planned,
            all[..self.budget.min(all.len())],
            "the most overdue first"
        );
        let retires = |planned: &Planned| matches!(planned.act, Act::Retire { .. });
        assert!(all.is_sorted_by_key(|planned| (retires(planned), planned.due)));
        let mut seen = BTreeSet::new();
        for Planned { index, act, due } in &planned {
            let candidate = &candidates[*index];
            assert!(candidate.enabled && *due <= self.now.unix_s);
            let retires = matches!(act, Act::Retire { .. });
            assert!(self.now.steady || !retires, "nothing retires after a jump");
            if retires {
                let after = candidate.policy.parts().retire_after.unwrap();
                assert!(candidate.oldest.unwrap().since + after <= self.now.unix_s);
            }
            assert!(seen.insert((index, retires)), "no key twice");
            self.lives[lives[*index]].carry_out(*act, self.now.unix_s);
        }
        planned
    }

    fn happen(&mut self, event: &Event) {
        let now = self.now.unix_s;
        let count = self.lives.len();
        let key = |at: &usize| at % count;
        match event {
            Event::Pass(seconds) => self.now.unix_s += seconds,
            Event::Jump(seconds) => {
                self.now.unix_s = now.saturating_add_signed(*seconds);
                self.now.steady = seconds.unsigned_abs() <= 3600;
            }
            Event::Use(at, n) => {
                let used = &mut self.lives[key(at)].used;
                used.messages += n;
                used.bytes += 10 * n;
            }
            Event::RotateByHand(at) => self.lives[key(at)].rotate(now),
            Event::SetEnabled(at, enabled) => {
                let life = &mut self.lives[key(at)];
                life.state = life.state.set_enabled(*enabled);
            }
            Event::EnableOldest(at) => {
                let life = &mut self.lives[key(at)];
                let version = life.state.retired_through;
                if version > 0 && life.enabled_again.len() < 100 {
                    life.state = life.state.set_version_enabled(version, true).unwrap();
                    life.enabled_again.insert(version);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(
        policies in vec(policies(), 1..8),
        events in vec(event(), 0..120),
        budget in 1..5_usize,
    ) {
        let mut world = World {
            lives: policies.into_iter().enumerate().map(|(at, parts)| Life::new(at as u64, parts)).collect(),
            now: Now { unix_s: START, steady: true },
            budget,
        };
        for event in &events {
            world.happen(event);
            world.tick();
        }
        // Time stands still: everything that is due is done within as many plans as it takes, and each key rotates once.
        let (_, candidates) = world.candidates();
        let mut due = plan(world.now, &candidates, usize::MAX);
        due.retain(|planned| matches!(planned.act, Act::Rotate { .. }));
        let mut done = BTreeSet::new();
        for _ in 0..due.len().div_ceil(budget) {
            for Planned { index, act, .. } in world.tick() {
                if matches!(act, Act::Rotate { .. }) {
                    prop_assert!(done.insert(index), "a key rotated twice");
                }
            }
        }
        for Planned { index, .. } in due {
            prop_assert!(done.contains(&index), "key {index} starves");
        }
    }

    #[test]
    fn a_period_is_an_upper_bound(period in 1..40_u64, percent in 0..=100_u64, number: u64) {
        let parts = RotationParts {
            period: Some(period),
            jitter: Some(period * percent / 100),
            retire_after: Some(1),
            ..RotationParts::default()
        };
        let mut world = World {
            lives: vec![Life::new(number, parts)],
            now: Now { unix_s: START, steady: true },
            budget: 2,
        };
        for _ in 0..400 {
            world.now.unix_s += 1;
            let age = world.now.unix_s - world.lives[0].state.rotated;
            prop_assert!(age <= period, "{age} s");
            world.tick();
        }
        let life = &world.lives[0];
        let least = 400 / period;
        prop_assert!(u64::from(life.state.primary) > least);
        prop_assert!(life.state.primary - life.state.retired_through <= 3, "retiring keeps up");
    }

    #[test]
    fn a_stop_of_years_is_one_rotation(policies in vec(policies(), 1..20), years in 5..50_u64) {
        let mut world = World {
            lives: policies.into_iter().enumerate().map(|(at, parts)| Life::new(at as u64, parts)).collect(),
            now: Now { unix_s: START + years * 31_557_600, steady: true },
            budget: 3,
        };
        for _ in 0..10 {
            world.tick();
        }
        for life in &world.lives {
            let scheduled = life.state.rotation.as_ref().is_some_and(|policy| policy.schedule().is_some());
            prop_assert_eq!(life.state.primary, if scheduled { 2 } else { 1 });
        }
    }

    #[test]
    fn a_cron_time_comes_late_and_before_the_next(number: u64, jitter in prop::option::of(0..20_000_u64), passed in 0..100_000_u64) {
        let parts = RotationParts { cron: Some(String::from("30 * * * *")), jitter, ..RotationParts::default() };
        let life = Life::new(number, parts);
        let candidate = life.candidate().unwrap();
        let Some(Next { at: Some(at), cause: Cause::Cron }) = next(&candidate, START + passed) else {
            return Err(TestCaseError::fail("no cron time"));
        };
        let late = at - (START + 1800);
        prop_assert!(late <= jitter.unwrap_or(360).min(3599), "{late}");
    }
}

#[test]
fn jitter_spreads_evenly_and_stays_where_it_is() {
    const BUCKETS: u64 = 20;
    let mut found = [0_u32; BUCKETS as usize];
    for number in 0..10_000 {
        let parts = RotationParts {
            period: Some(1_000_000),
            jitter: Some(199_999),
            ..RotationParts::default()
        };
        let candidate = Life::new(number, parts).candidate().unwrap();
        let first = next(&candidate, START).unwrap();
        assert_eq!(next(&candidate, START + 500_000), Some(first));
        let early = START + 1_000_000 - first.at.unwrap();
        found[usize::try_from(early / (200_000 / BUCKETS)).unwrap()] += 1;
    }
    // 500 each; the standard deviation is 22.
    assert!(
        found.iter().all(|count| (400..600).contains(count)),
        "{found:?}"
    );
}

#[test]
fn a_version_from_the_future_rotates_once() {
    let parts = RotationParts {
        period: Some(86_400),
        ..RotationParts::default()
    };
    let mut life = Life::new(1, parts);
    life.state.rotated = START + 3601;
    let due = |life: &Life| next(&life.candidate().unwrap(), START).unwrap();
    let clock = Next {
        at: Some(START),
        cause: Cause::Clock,
    };
    assert_eq!(due(&life), clock);
    life.rotate(START);
    assert_eq!(due(&life).cause, Cause::Period);
    life.state.rotated = START + 3600;
    assert_eq!(due(&life).cause, Cause::Period);
    assert!(
        due(&life).at.unwrap() > START,
        "less than an hour counts as now"
    );
}

#[test]
fn limits_of_use_and_their_causes() {
    let parts = RotationParts {
        max_messages: 10,
        max_bytes: 100,
        ..RotationParts::default()
    };
    let mut life = Life::new(1, parts);
    let due = |life: &Life| next(&life.candidate().unwrap(), START + 9);
    let expect = |at, cause| Some(Next { at, cause });
    assert_eq!(due(&life), expect(None, Cause::Messages));
    life.used.bytes = 99;
    assert_eq!(due(&life), expect(None, Cause::Bytes), "the nearer one");
    life.used.bytes = 100;
    assert_eq!(due(&life), expect(Some(START + 9), Cause::Bytes));
    life.used.messages = 10;
    assert_eq!(due(&life), expect(Some(START + 9), Cause::Messages));
    life.state = life.state.set_enabled(false);
    assert_eq!(due(&life), None);
}

#[test]
fn a_policy_that_only_retires_rotates_nothing() {
    let parts = RotationParts {
        retire_after: Some(10),
        ..RotationParts::default()
    };
    let mut life = Life::new(1, parts);
    assert_eq!(next(&life.candidate().unwrap(), u64::MAX), None);
    life.rotate(START + 5);
    let candidates = [life.candidate().unwrap()];
    let retired = |unix_s, steady| !plan(Now { unix_s, steady }, &candidates, 9).is_empty();
    assert!(!retired(START + 14, true) && retired(START + 15, true));
    assert!(!retired(START + 15, false));
}

#[test]
fn a_key_that_is_given_twice_is_one_key() {
    let parts = RotationParts {
        period: Some(10),
        ..RotationParts::default()
    };
    let candidate = Life::new(1, parts).candidate().unwrap();
    let now = Now {
        unix_s: START + 10,
        steady: true,
    };
    assert_eq!(plan(now, &[candidate.clone(), candidate], 9).len(), 1);
}
