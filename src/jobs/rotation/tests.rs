//! Runs of the planner over a store in memory, a real trail, and a clock that the test sets.

use bytes::Bytes;
use fieldkeep_crypto::ciphertext::{Handle, Suite};
use fieldkeep_crypto::names::Name;
use fieldkeep_keystore::info::KeySettings;
use fieldkeep_keystore::rotation::plan::Cause;
use fieldkeep_keystore::rotation::policy::{RotationParts, RotationPolicy};
use fieldkeep_keystore::store::Transaction;
use fieldkeep_proto::v1::{AuditRecord, Phase};

use super::*;
use crate::service::perform::own::{RETIREMENT, ROTATION};
use crate::service::tests::{Fixture, NOW, operation};

fn rotation(f: &Fixture, per_second: usize) -> Rotation {
    let metrics = Arc::new(Metrics::new().unwrap());
    Rotation::new(f.service.clone(), metrics, RotationConfig { per_second })
}

fn every(period: u64) -> RotationParts {
    RotationParts {
        period: Some(period),
        jitter: Some(0),
        ..Default::default()
    }
}

fn id(key: &str) -> KeyId {
    KeyId {
        tenant: Name::parse("acme").unwrap(),
        key: Name::parse(key).unwrap(),
    }
}

/// Makes a key of the tenant `acme`, behind the planner's back.
async fn make(f: &Fixture, key: &str, parts: RotationParts) -> Handle {
    let (id, policy) = (id(key), RotationPolicy::from_parts(parts).unwrap());
    let settings = KeySettings {
        rotation: policy.map(Arc::new),
        ..Suite::KcXaes256Gcm.into()
    };
    f.keystore
        .create_key(&id.tenant, &id.key, settings, operation(), NOW)
        .await
        .unwrap()
        .value
        .handle
}

async fn primary(f: &Fixture, key: &str) -> u32 {
    let id = id(key);
    let info = f.keystore.describe_key(&id.tenant, &id.key, NOW).await;
    info.unwrap().primary
}

fn acts(f: &Fixture, rpc: &str) -> Vec<AuditRecord> {
    let mut records = f.records();
    records.retain(|record| record.rpc == rpc && record.phase() != Phase::Intent);
    records
}

async fn tick(r: &Rotation, state: &mut State) {
    let (_stop, stopped) = watch::channel(false);
    r.tick(state, &stopped).await.unwrap();
}

#[tokio::test]
async fn what_is_due_rotates_once_and_is_on_record() {
    let f = Fixture::make().await;
    for key in ["a", "b", "c"] {
        make(&f, key, every(10)).await;
    }
    let r = rotation(&f, 1_000);
    let mut state = r.recover().await.unwrap();
    f.set_time(NOW + 9);
    tick(&r, &mut state).await;
    assert_eq!((state.due.len(), r.figures().waiting.get()), (3, 3));
    assert_eq!((acts(&f, ROTATION).len(), r.figures().due.get()), (0, 0));
    f.set_time(NOW + 12);
    for _ in 0..3 {
        tick(&r, &mut state).await;
    }
    let records = acts(&f, ROTATION);
    assert_eq!(records.len(), 3);
    for record in &records {
        assert_eq!(
            record.detail,
            format!("cause=period due={} from=1", NOW + 10)
        );
        assert_eq!((record.rule.as_str(), record.code), ("schedule:period", 0));
        assert_eq!(record.action, "rotate");
        assert_eq!(
            (record.principal.as_str(), record.authentication.as_str()),
            ("", "local")
        );
        assert_eq!(record.resources[0].version, 2);
        assert!(!record.changes.is_empty());
    }
    assert_eq!(primary(&f, "a").await, 2);
    assert!(!state.planned, "the plan was not settled");
    let figures = r.metrics.render().unwrap();
    assert!(figures.contains("fieldkeep_rotations_total{cause=\"period\",outcome=\"ok\"} 3"));
    // The next ones are known.
    assert_eq!(state.due.len(), 3);
}

#[tokio::test]
async fn the_most_overdue_come_first_and_the_budget_is_kept() {
    let f = Fixture::make().await;
    for (key, period) in [("a", 7), ("b", 5), ("c", 6)] {
        make(&f, key, every(period)).await;
    }
    let r = rotation(&f, 2);
    let mut state = r.recover().await.unwrap();
    f.set_time(NOW + 7);
    tick(&r, &mut state).await;
    assert_eq!((r.figures().due.get(), r.figures().lag_s.get()), (3, 2));
    let mut names: Vec<String> = acts(&f, ROTATION)
        .iter()
        .map(|record| record.resources[0].name.clone())
        .collect();
    names.sort();
    assert_eq!(names, ["tenants/acme/keys/b", "tenants/acme/keys/c"]);
    tick(&r, &mut state).await;
    assert_eq!(acts(&f, ROTATION).len(), 3);
}

#[tokio::test]
async fn what_changes_is_noticed_before_the_next_pass() {
    let f = Fixture::make().await;
    let r = rotation(&f, 1_000);
    let mut state = r.recover().await.unwrap();
    tick(&r, &mut state).await;
    assert!(state.next_pass > Instant::now());
    make(&f, "new", every(5)).await;
    tick(&r, &mut state).await;
    assert_eq!(state.due.len(), 0, "a pass came too early");
    f.service.core().key_changed(id("new"));
    tick(&r, &mut state).await;
    assert_eq!(state.due.len(), 1);
    // Its policy goes before it is due.
    f.keystore
        .set_rotation(&id("new").tenant, &id("new").key, None, operation(), NOW)
        .await
        .unwrap();
    f.set_time(NOW + 60);
    tick(&r, &mut state).await;
    assert_eq!((acts(&f, ROTATION).len(), state.due.len()), (0, 0));
}

#[tokio::test]
async fn an_act_that_a_crash_parted_from_its_record_gets_it_once() {
    let f = Fixture::make().await;
    let mut planned = Vec::new();
    for key in ["done", "not-done"] {
        planned.push(OwnAct {
            id: id(key),
            handle: make(&f, key, every(5)).await,
            act: Act::Rotate {
                from: 1,
                cause: Cause::Period,
            },
            due: NOW + 5,
        });
    }
    let r = rotation(&f, 1_000);
    let mut state = r.recover().await.unwrap();
    r.store(&mut state, &planned).await.unwrap();
    let done = id("done");
    let operation = f.keystore.rotation_operation(planned[0].handle, 1);
    f.keystore
        .rotate_key_from(&done.tenant, &done.key, 1, operation, NOW + 5)
        .await
        .unwrap();

    let mut state = r.recover().await.unwrap();
    assert!(!state.planned);
    let records = acts(&f, ROTATION);
    let [record] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!(record.resources[0].name, "tenants/acme/keys/done");
    assert_eq!((record.resources[0].version, record.code), (2, 0));
    assert_eq!(
        record.detail,
        format!("cause=period due={} from=1 repeated=true", NOW + 5)
    );
    assert!(!record.changes.is_empty());
    assert_eq!(
        (primary(&f, "done").await, primary(&f, "not-done").await),
        (2, 1)
    );

    // A crash after the record and before the plan was settled.
    let intent = Intent::new(0, &planned).encode_to_vec();
    let stored = f.service.core().store_plan(state.generation, &intent).await;
    state.generation = Some(stored.unwrap());
    r.recover().await.unwrap();
    assert_eq!(acts(&f, ROTATION).len(), 1);
}

#[tokio::test]
async fn after_a_jump_of_the_clock_keys_rotate_and_nothing_retires() {
    let f = Fixture::make().await;
    let retire = RotationParts {
        retire_after: Some(10),
        ..every(3_600)
    };
    for key in ["steady", "jumped"] {
        make(&f, key, retire.clone()).await;
        let id = id(key);
        f.keystore
            .rotate_key(&id.tenant, &id.key, operation(), NOW + 1)
            .await
            .unwrap();
    }
    let r = rotation(&f, 1_000);
    let mut state = r.recover().await.unwrap();
    f.set_time(NOW + 11);
    tick(&r, &mut state).await;
    let records = acts(&f, RETIREMENT);
    assert_eq!(records.len(), 2);
    assert_eq!(
        records[0].detail,
        format!("cause=retire-after due={} through=1", NOW + 11)
    );
    assert_eq!(records[0].action, "manage");
    f.set_time(NOW + 3_600);
    tick(&r, &mut state).await;
    assert_eq!(
        (acts(&f, RETIREMENT).len(), r.figures().clock_jumped.get()),
        (2, 0)
    );

    // A second rotation, after which version 2 would retire too.
    for now in [9_000, 9_011, 9_012] {
        f.set_time(NOW + now);
        tick(&r, &mut state).await;
    }
    assert_eq!(r.figures().clock_jumped.get(), 1);
    assert_eq!(
        (acts(&f, ROTATION).len(), acts(&f, RETIREMENT).len()),
        (2, 2)
    );
}

#[tokio::test]
async fn a_key_that_fails_rests_and_the_others_go_on() {
    let f = Fixture::make().await;
    let broken = make(&f, "broken", every(5)).await;
    make(&f, "whole", every(6)).await;
    // A record where the next version's is to be.
    let planted = Transaction {
        operation: operation(),
        expect: Vec::new(),
        puts: vec![(
            Bytes::from(format!("v/{broken}/{:08x}", 2)),
            Bytes::from_static(&[0; 64]),
        )],
        deletes: Vec::new(),
        now: NOW,
    };
    f.keystore.store().commit(planted).await.unwrap();
    let r = rotation(&f, 1_000);
    let mut state = r.recover().await.unwrap();
    f.set_time(NOW + 10);
    for _ in 0..3 {
        tick(&r, &mut state).await;
    }
    assert_eq!(
        (primary(&f, "broken").await, primary(&f, "whole").await),
        (1, 2)
    );
    let failed = acts(&f, ROTATION);
    let failed: Vec<_> = failed.iter().filter(|record| record.code != 0).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    f.set_time(NOW + 10 + REST_S);
    tick(&r, &mut state).await;
    let tried = acts(&f, ROTATION);
    assert_eq!(tried.iter().filter(|record| record.code != 0).count(), 2);
}

#[tokio::test]
async fn a_stop_or_a_broken_store_ends_a_plan() {
    let f = Fixture::make().await;
    make(&f, "a", every(5)).await;
    let r = rotation(&f, 1_000);
    let mut state = r.recover().await.unwrap();
    f.set_time(NOW + 10);
    let (_stop, stopped) = watch::channel(true);
    r.tick(&mut state, &stopped).await.unwrap();
    assert_eq!(acts(&f, ROTATION).len(), 0);
    f.keystore.store().close().await.unwrap();
    let failure = r.tick(&mut state, &stopped).await.unwrap_err();
    assert!(failure.is_transient(), "{failure:?}");
}

#[tokio::test]
async fn a_service_that_shuts_down_begins_no_act() {
    let f = Fixture::make().await;
    make(&f, "a", every(5)).await;
    let r = rotation(&f, 1_000);
    let mut state = r.recover().await.unwrap();
    f.set_time(NOW + 10);
    f.service.core().start_draining();
    let (_stop, stopped) = watch::channel(false);
    let refused = r.tick(&mut state, &stopped).await;
    assert_eq!(refused, Err(Failure::ShuttingDown));
    assert_eq!((acts(&f, ROTATION).len(), primary(&f, "a").await), (0, 1));
}
