//! The conformance suite: every rule of [`Store`], as a function that takes an empty store and panics if the rule does
//! not hold. [`run`] checks them all. Each store's tests call it, so that a new store has its tests from the start.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test suite, compiled for tests alone; a failed rule is a panic"
)]

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    CommitError, Committed, Event, OPERATION_KEPT_SECONDS, Operation, Record, Store, StoreError,
    Transaction,
    limits::{
        MAX_CHANGES, MAX_KEY_BYTES, MAX_SCAN, MAX_TRANSACTION_BYTES, MAX_VALUE_BYTES, MAX_WATCHERS,
    },
    watch::{RING_EVENTS, WATCHER_COMMITS},
};

/// An empty store under test.
pub type Subject = Arc<dyn Store>;

const NOW: u64 = 1_800_000_000;

/// Checks every rule, each on a store of its own.
pub async fn run<F: Future<Output = Subject>>(make: impl Fn() -> F) {
    an_empty_store_has_nothing(make().await).await;
    puts_are_read_back_with_their_revision(make().await).await;
    deletes_remove_and_absent_deletes_change_nothing(make().await).await;
    expectations_hold_or_nothing_happens(make().await).await;
    a_transaction_is_all_or_nothing(make().await).await;
    scans_are_ordered_paged_and_bounded_by_their_prefix(make().await).await;
    a_repeated_operation_gets_its_first_outcome(make().await).await;
    what_became_of_an_operation_can_be_asked(make().await).await;
    operation_ids_are_kept_a_day_and_not_for_ever(make().await).await;
    a_clock_that_was_ahead_forgets_no_operation_ids(make().await).await;
    changes_that_nobody_repeats_are_not_remembered(make().await).await;
    concurrent_increments_lose_nothing(make().await).await;
    concurrent_repeats_happen_once(make().await).await;
    limits_are_enforced(make().await).await;
    a_watch_sees_every_change_in_order(make().await).await;
    a_watch_can_start_in_the_past_and_in_the_future(make().await).await;
    a_watch_that_starts_too_early_is_told(make().await).await;
    a_slow_watcher_is_dropped_between_commits(make().await).await;
    watchers_are_bounded_and_leave(make().await).await;
    a_closed_store_refuses(make().await).await;
}

/// A transaction without expectations under an operation id of its own.
#[must_use]
pub fn make_transaction(operation: u64, puts: &[(&str, &str)], deletes: &[&str]) -> Transaction {
    Transaction {
        operation: make_operation(operation),
        expect: Vec::new(),
        puts: puts
            .iter()
            .map(|(key, value)| (bytes(key), bytes(value)))
            .collect(),
        deletes: deletes.iter().map(|key| bytes(key)).collect(),
        now: NOW,
    }
}

/// An operation from a number; its fingerprint fits it.
#[must_use]
pub fn make_operation(number: u64) -> Operation {
    let mut id = [0; 16];
    // Mixed, so that ids are spread as random ones would be.
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    // Never all zeros, which is an operation of its own kind.
    id[8..].copy_from_slice(&number.wrapping_add(1).to_be_bytes());
    let mut fingerprint = [7; 32];
    fingerprint[..8].copy_from_slice(&number.to_be_bytes());
    Operation { id, fingerprint }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn expecting(mut transaction: Transaction, expect: &[(&str, Option<u64>)]) -> Transaction {
    transaction.expect = expect
        .iter()
        .map(|(key, revision)| (bytes(key), *revision))
        .collect();
    transaction
}

async fn value(store: &Subject, key: &str) -> Option<(String, u64)> {
    let record = store.get(key.as_bytes()).await.unwrap()?;
    Some((
        String::from_utf8(record.value.to_vec()).unwrap(),
        record.revision,
    ))
}

async fn keys(store: &Subject, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let page = store
        .scan(prefix.as_bytes(), after.map(str::as_bytes), limit)
        .await
        .unwrap();
    page.into_iter()
        .map(|(key, _)| String::from_utf8(key.to_vec()).unwrap())
        .collect()
}

/// Nothing to read, revision 0.
pub async fn an_empty_store_has_nothing(store: Subject) {
    assert_eq!(store.revision().await.unwrap(), 0);
    assert_eq!(store.get(b"a").await.unwrap(), None);
    assert_eq!(store.get(b"").await.unwrap(), None);
    assert!(store.scan(b"", None, 10).await.unwrap().is_empty());
}

/// A record has the value that was put last and the revision of that commit; revisions are 1, 2, 3, ...
pub async fn puts_are_read_back_with_their_revision(store: Subject) {
    let first = store
        .commit(make_transaction(1, &[("a", "1"), ("b", "")], &[]))
        .await
        .unwrap();
    assert_eq!(
        first,
        Committed {
            revision: 1,
            repeated: false
        }
    );
    let second = store
        .commit(make_transaction(2, &[("b", "2")], &[]))
        .await
        .unwrap();
    assert_eq!(second.revision, 2);
    assert_eq!(value(&store, "a").await, Some(("1".into(), 1)));
    assert_eq!(value(&store, "b").await, Some(("2".into(), 2)));
    let empty = store.commit(make_transaction(3, &[], &[])).await.unwrap();
    assert_eq!(
        empty.revision, 3,
        "a transaction that changes nothing gets a revision, too"
    );
    assert_eq!(store.revision().await.unwrap(), 3);
    let record = Record {
        value: Bytes::from_static(b"1"),
        revision: 1,
    };
    assert_eq!(
        store.scan(b"a", None, 9).await.unwrap(),
        vec![(Bytes::from_static(b"a"), record)]
    );
}

/// A deleted record is gone, and may be made again as a new one.
pub async fn deletes_remove_and_absent_deletes_change_nothing(store: Subject) {
    store
        .commit(make_transaction(1, &[("a", "1"), ("b", "1")], &[]))
        .await
        .unwrap();
    store
        .commit(make_transaction(2, &[], &["a", "never"]))
        .await
        .unwrap();
    assert_eq!(value(&store, "a").await, None);
    assert_eq!(keys(&store, "", None, 9).await, ["b"]);
    let again = expecting(make_transaction(3, &[("a", "2")], &[]), &[("a", None)]);
    store.commit(again).await.unwrap();
    assert_eq!(value(&store, "a").await, Some(("2".into(), 3)));
}

/// An expectation names exactly one revision, or absence.
pub async fn expectations_hold_or_nothing_happens(store: Subject) {
    store
        .commit(make_transaction(1, &[("a", "1")], &[]))
        .await
        .unwrap();
    store
        .commit(make_transaction(2, &[("a", "2")], &[]))
        .await
        .unwrap();
    for (operation, key, expected) in [
        (3, "a", None),
        (4, "a", Some(1)),
        (5, "a", Some(3)),
        (6, "b", Some(1)),
        (7, "b", Some(0)),
    ] {
        let transaction = expecting(
            make_transaction(operation, &[("a", "x")], &[]),
            &[(key, expected)],
        );
        match store.commit(transaction).await {
            Err(CommitError::Conflict { key: named }) => assert_eq!(named, key.as_bytes()),
            other => panic!("{key} {expected:?}: {other:?}"),
        }
    }
    assert_eq!(value(&store, "a").await, Some(("2".into(), 2)));
    assert_eq!(
        store.revision().await.unwrap(),
        2,
        "a refused transaction has no revision"
    );
    let good = expecting(
        make_transaction(8, &[("a", "3")], &[]),
        &[("a", Some(2)), ("b", None)],
    );
    assert_eq!(store.commit(good).await.unwrap().revision, 3);
    // A refused operation was not committed, so its id is still free.
    let retried = expecting(make_transaction(3, &[("a", "4")], &[]), &[("a", Some(3))]);
    assert_eq!(
        store.commit(retried).await.unwrap(),
        Committed {
            revision: 4,
            repeated: false
        }
    );
}

/// One failed expectation of several stops all puts and deletes.
pub async fn a_transaction_is_all_or_nothing(store: Subject) {
    store
        .commit(make_transaction(1, &[("a", "1"), ("b", "1")], &[]))
        .await
        .unwrap();
    let transaction = expecting(
        make_transaction(2, &[("a", "2"), ("c", "2")], &["b"]),
        &[("a", Some(1)), ("b", Some(9))],
    );
    assert!(matches!(
        store.commit(transaction).await,
        Err(CommitError::Conflict { .. })
    ));
    assert_eq!(value(&store, "a").await, Some(("1".into(), 1)));
    assert_eq!(keys(&store, "", None, 9).await, ["a", "b"]);
    let transaction = expecting(
        make_transaction(3, &[("a", "2"), ("c", "2")], &["b"]),
        &[("a", Some(1))],
    );
    store.commit(transaction).await.unwrap();
    assert_eq!(keys(&store, "", None, 9).await, ["a", "c"]);
}

/// Order is that of bytes; prefix and `after` are exact; fewer than the limit means the end.
pub async fn scans_are_ordered_paged_and_bounded_by_their_prefix(store: Subject) {
    let binary: [&[u8]; 7] = [
        b"k",
        b"k/",
        b"k/\0",
        b"k/a",
        b"k/a\xff",
        b"k/\xff\xff",
        b"k0",
    ];
    let mut transaction = make_transaction(1, &[("j\u{fe}", "v"), ("l", "v")], &[]);
    transaction.puts.extend(
        binary
            .iter()
            .rev()
            .map(|key| (Bytes::copy_from_slice(key), bytes("v"))),
    );
    store.commit(transaction).await.unwrap();
    let scan = async |prefix: &[u8], after: Option<&[u8]>, limit| {
        let page = store.scan(prefix, after, limit).await.unwrap();
        page.into_iter()
            .map(|(key, _)| key.to_vec())
            .collect::<Vec<_>>()
    };
    assert_eq!(scan(b"k/", None, 99).await, &binary[1..6]);
    assert_eq!(scan(b"k", None, 99).await, &binary[..]);
    assert_eq!(scan(b"k/a\xff", None, 99).await, &binary[4..5]);
    assert_eq!(scan(b"k/", Some(b"k/"), 99).await, &binary[2..6]);
    assert_eq!(scan(b"k/", Some(b"k/a\xff"), 99).await, &binary[5..6]);
    assert_eq!(
        scan(b"k/", Some(b"k/b"), 99).await,
        &binary[5..6],
        "`after` need not be there"
    );
    assert_eq!(
        scan(b"k/", Some(b"a"), 99).await,
        &binary[1..6],
        "`after` may be before the prefix"
    );
    assert!(
        scan(b"k/", Some(b"l"), 99).await.is_empty(),
        "`after` may be behind the prefix"
    );
    assert!(scan(b"k/", None, 0).await.is_empty());
    assert_eq!(scan(b"", None, 99).await.len(), 9);
    let mut paged = Vec::new();
    loop {
        let page = scan(b"k/", paged.last().map(Vec::as_slice), 2).await;
        let end = page.len() < 2;
        paged.extend(page);
        if end {
            break;
        }
    }
    assert_eq!(paged, &binary[1..6]);
    match store.scan(b"", None, MAX_SCAN + 1).await {
        Err(StoreError::ScanTooLarge { asked, limit }) => {
            assert_eq!((asked, limit), (MAX_SCAN + 1, MAX_SCAN))
        }
        other => panic!("{other:?}"),
    }
}

/// The id decides before the expectations do; another fingerprint is refused.
pub async fn a_repeated_operation_gets_its_first_outcome(store: Subject) {
    let create = expecting(make_transaction(1, &[("a", "1")], &[]), &[("a", None)]);
    assert_eq!(
        store.commit(create.clone()).await.unwrap(),
        Committed {
            revision: 1,
            repeated: false
        }
    );
    store
        .commit(make_transaction(2, &[("a", "2")], &[]))
        .await
        .unwrap();
    assert_eq!(
        store.commit(create.clone()).await.unwrap(),
        Committed {
            revision: 1,
            repeated: true
        }
    );
    assert_eq!(
        value(&store, "a").await,
        Some(("2".into(), 2)),
        "the repeat changed nothing"
    );
    let mut reused = create;
    reused.operation.fingerprint[31] ^= 1;
    assert!(matches!(
        store.commit(reused).await,
        Err(CommitError::OperationReused)
    ));
    assert_eq!(store.revision().await.unwrap(), 2);
}

/// The look-up by operation id finds the commits that happened and no others, also those that changed nothing, and is no commit.
pub async fn what_became_of_an_operation_can_be_asked(store: Subject) {
    let id = |number| make_operation(number).id;
    let asked = |number| {
        let store = Arc::clone(&store);
        async move { store.operation(&id(number)).await.unwrap() }
    };
    assert_eq!(asked(1).await, None, "before");
    store
        .commit(make_transaction(1, &[("a", "1")], &[]))
        .await
        .unwrap();
    store.commit(make_transaction(2, &[], &[])).await.unwrap();
    let refused = expecting(make_transaction(3, &[("a", "2")], &[]), &[("a", None)]);
    assert!(store.commit(refused).await.is_err());
    let repeated = store
        .commit(make_transaction(1, &[("a", "1")], &[]))
        .await
        .unwrap();
    assert!(repeated.repeated);
    assert_eq!(asked(1).await, Some(1), "the first outcome's");
    assert_eq!(asked(2).await, Some(2));
    assert_eq!(asked(3).await, None, "it was refused");
    assert_eq!(store.operation(&Operation::ONCE.id).await.unwrap(), None);
    assert_eq!(store.revision().await.unwrap(), 2);
}

/// Within the day an id is remembered; long after it, it is forgotten, so that ids do not pile up.
pub async fn operation_ids_are_kept_a_day_and_not_for_ever(store: Subject) {
    let first = make_transaction(1, &[("a", "1")], &[]);
    store.commit(first.clone()).await.unwrap();
    let mut later = make_transaction(2, &[("b", "1")], &[]);
    later.now = NOW + OPERATION_KEPT_SECONDS;
    store.commit(later).await.unwrap();
    assert!(store.commit(first.clone()).await.unwrap().repeated);
    // As many as it takes for the later time to be believed, and some more for the ids to be looked at.
    for operation in 3..110 {
        let mut later = make_transaction(operation, &[("b", "1")], &[]);
        later.now = NOW + OPERATION_KEPT_SECONDS + 1;
        store.commit(later).await.unwrap();
    }
    assert_eq!(store.operation(&first.operation.id).await.unwrap(), None);
    assert!(
        !store.commit(first).await.unwrap().repeated,
        "some commits later, the expired id is forgotten"
    );
}

/// Some commits with a clock that is years ahead do not make the ids of the others expire.
pub async fn a_clock_that_was_ahead_forgets_no_operation_ids(store: Subject) {
    for operation in 0..70 {
        let first = make_transaction(operation, &[("a", "1")], &[]);
        store.commit(first).await.unwrap();
    }
    for operation in 70..100 {
        let mut ahead = make_transaction(operation, &[("b", "1")], &[]);
        ahead.now = NOW + 1000 * OPERATION_KEPT_SECONDS;
        store.commit(ahead).await.unwrap();
    }
    for operation in 0..100 {
        let again = make_transaction(operation, &[("c", "1")], &[]);
        assert!(store.commit(again).await.unwrap().repeated, "{operation}");
    }
}

/// Each [`Operation::ONCE`] is a change of its own that keeps its expectations, and its time does not hold back what ids age by.
pub async fn changes_that_nobody_repeats_are_not_remembered(store: Subject) {
    let once = |value| Transaction {
        operation: Operation::ONCE,
        now: 0,
        ..make_transaction(0, &[("a", value)], &[])
    };
    for revision in 1..=100 {
        let expected = (revision > 1).then(|| revision - 1);
        let transaction = expecting(once("x"), &[("a", expected)]);
        let committed = store.commit(transaction.clone()).await.unwrap();
        assert_eq!((committed.revision, committed.repeated), (revision, false));
        let again = store.commit(transaction).await;
        assert!(matches!(again, Err(CommitError::Conflict { .. })));
    }
    let first = make_transaction(1, &[("b", "1")], &[]);
    store.commit(first.clone()).await.unwrap();
    for number in 2..300 {
        let mut later = make_transaction(number, &[("b", "2")], &[]);
        later.now = NOW + 2 * OPERATION_KEPT_SECONDS;
        store.commit(later).await.unwrap();
        store.commit(once("y")).await.unwrap();
    }
    assert!(!store.commit(first).await.unwrap().repeated, "forgotten");
}

/// Many tasks increment one counter by compare-and-commit; every increment counts.
pub async fn concurrent_increments_lose_nothing(store: Subject) {
    const TASKS: u64 = 8;
    const EACH: u64 = 20;
    store
        .commit(make_transaction(0, &[("n", "0")], &[]))
        .await
        .unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut operation = 1 + task * 1_000_000;
                for _ in 0..EACH {
                    loop {
                        let (now, revision) = value(&store, "n").await.unwrap();
                        let next = (now.parse::<u64>().unwrap() + 1).to_string();
                        operation += 1;
                        let change = make_transaction(operation, &[("n", &next)], &[]);
                        match store
                            .commit(expecting(change, &[("n", Some(revision))]))
                            .await
                        {
                            Ok(done) => {
                                assert!(done.revision > revision);
                                break;
                            }
                            Err(CommitError::Conflict { .. }) => tokio::task::yield_now().await,
                            Err(other) => panic!("{other}"),
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(
        value(&store, "n").await,
        Some(((TASKS * EACH).to_string(), 1 + TASKS * EACH))
    );
}

/// The same operation sent at once from several tasks is one change.
pub async fn concurrent_repeats_happen_once(store: Subject) {
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = Arc::clone(&store);
            let change = expecting(make_transaction(1, &[("a", "1")], &[]), &[("a", None)]);
            tokio::spawn(async move { store.commit(change).await.unwrap() })
        })
        .collect();
    let mut first = 0;
    for task in tasks {
        let done = task.await.unwrap();
        assert_eq!(done.revision, 1);
        first += usize::from(!done.repeated);
    }
    assert_eq!(first, 1);
    assert_eq!(store.revision().await.unwrap(), 1);
}

/// Whatever is at a limit is taken; what is beyond it is refused, and says which limit.
pub async fn limits_are_enforced(store: Subject) {
    let put = |operation, key: usize, value: usize| {
        let mut transaction = make_transaction(operation, &[], &[]);
        transaction
            .puts
            .push((Bytes::from(vec![b'k'; key]), Bytes::from(vec![0; value])));
        transaction
    };
    store
        .commit(put(1, MAX_KEY_BYTES, MAX_VALUE_BYTES))
        .await
        .unwrap();
    assert_eq!(
        store
            .get(&[b'k'; MAX_KEY_BYTES])
            .await
            .unwrap()
            .unwrap()
            .value
            .len(),
        MAX_VALUE_BYTES
    );
    let many = |operation, number: usize, value: usize| {
        let mut transaction = make_transaction(operation, &[], &[]);
        transaction.puts = (0..number)
            .map(|i| (Bytes::from(format!("{i:04}")), Bytes::from(vec![1; value])))
            .collect();
        transaction
    };
    store
        .commit(many(
            2,
            MAX_CHANGES,
            MAX_TRANSACTION_BYTES / MAX_CHANGES - 4,
        ))
        .await
        .unwrap();
    let too_large = [
        put(3, MAX_KEY_BYTES + 1, 1),
        put(3, 1, MAX_VALUE_BYTES + 1),
        many(3, MAX_CHANGES + 1, 1),
        many(3, MAX_CHANGES, MAX_TRANSACTION_BYTES / MAX_CHANGES - 3),
    ];
    for transaction in too_large {
        match store.commit(transaction).await {
            Err(CommitError::TooLarge { actual, limit, .. }) => assert!(actual > limit),
            other => panic!("{other:?}"),
        }
    }
    let twice = make_transaction(3, &[("a", "1")], &["a"]);
    let expected_twice = expecting(
        make_transaction(3, &[], &[]),
        &[("a", None), ("a", Some(1))],
    );
    for transaction in [put(3, 0, 1), twice, expected_twice] {
        assert!(matches!(
            store.commit(transaction).await,
            Err(CommitError::Invalid(_))
        ));
    }
    assert_eq!(store.revision().await.unwrap(), 2);
}

/// Live changes arrive in the order of revisions, each once, deletes as `None`, and give the same records.
pub async fn a_watch_sees_every_change_in_order(store: Subject) {
    let mut watch = store.watch(0).await.unwrap();
    for i in 0..50_u64 {
        let (a, b) = (format!("k{}", i % 7), format!("l{}", i % 5));
        let puts = [(a.as_str(), "v"), (b.as_str(), "w")];
        let deletes: &[&str] = if i % 3 == 0 { &["k1", "absent"] } else { &[] };
        let puts = if i % 3 == 0 && a == "k1" {
            &puts[1..]
        } else {
            &puts
        };
        store
            .commit(make_transaction(i, puts, deletes))
            .await
            .unwrap();
    }
    let mut replica = BTreeMap::new();
    let mut last = 0;
    while last < 50 {
        let Event {
            revision,
            key,
            value,
        } = watch.next().await.unwrap().unwrap();
        assert!(
            revision == last || revision == last + 1,
            "no gap and no step back: {last} then {revision}"
        );
        assert_ne!(key, "absent", "a delete of nothing is no change");
        last = revision;
        match value {
            Some(value) => drop(replica.insert(key, Record { value, revision })),
            None => drop(
                replica
                    .remove(&key)
                    .expect("only what was there is deleted"),
            ),
        }
        // The last commit has two events; the loop ends between them.
        if last == 50 {
            let Event { key, value, .. } = watch.next().await.unwrap().unwrap();
            replica.insert(
                key,
                Record {
                    value: value.unwrap(),
                    revision: 50,
                },
            );
        }
    }
    let all: BTreeMap<_, _> = store
        .scan(b"", None, 99)
        .await
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(replica, all);
}

/// `from` is exclusive; history comes first, then live changes; the future is waited for.
pub async fn a_watch_can_start_in_the_past_and_in_the_future(store: Subject) {
    for i in 1..=5 {
        store
            .commit(make_transaction(i, &[("k", "v")], &[]))
            .await
            .unwrap();
    }
    let mut past = store.watch(3).await.unwrap();
    let mut present = store.watch(5).await.unwrap();
    let mut future = store.watch(6).await.unwrap();
    for i in 6..=7 {
        store
            .commit(make_transaction(i, &[("k", "v")], &[]))
            .await
            .unwrap();
    }
    for expected in 4..=7 {
        assert_eq!(past.next().await.unwrap().unwrap().revision, expected);
    }
    assert_eq!(present.next().await.unwrap().unwrap().revision, 6);
    assert_eq!(future.next().await.unwrap().unwrap().revision, 7);
}

/// The ring is bounded: who asks for more history than it has is told where to begin.
pub async fn a_watch_that_starts_too_early_is_told(store: Subject) {
    let keys: Vec<String> = (0..1000).map(|i| format!("{i:04}")).collect();
    let puts: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "v")).collect();
    let commits = RING_EVENTS as u64 / 1000 + 2;
    for i in 1..=commits {
        store.commit(make_transaction(i, &puts, &[])).await.unwrap();
    }
    match store.watch(0).await {
        Err(StoreError::Compacted { oldest }) => {
            let mut watch = store.watch(oldest).await.unwrap();
            assert_eq!(watch.next().await.unwrap().unwrap().revision, oldest + 1);
            assert!(matches!(
                store.watch(oldest - 1).await,
                Err(StoreError::Compacted { .. })
            ));
        }
        other => panic!("{other:?}"),
    }
}

/// A watcher that does not read gets whole commits up to some point, then `Lagged`, then the end; others are not disturbed.
pub async fn a_slow_watcher_is_dropped_between_commits(store: Subject) {
    let mut watch = store.watch(0).await.unwrap();
    let commits = WATCHER_COMMITS as u64 + 10;
    for i in 1..=commits {
        store
            .commit(make_transaction(i, &[("a", "v"), ("b", "v")], &[]))
            .await
            .unwrap();
    }
    let mut seen = 0;
    let mut events = 0;
    loop {
        match watch.next().await.unwrap() {
            Ok(event) => {
                seen = event.revision;
                events += 1;
            }
            Err(StoreError::Lagged) => break,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(
        (seen, events),
        (WATCHER_COMMITS as u64, 2 * WATCHER_COMMITS),
        "whole commits only"
    );
    assert!(watch.next().await.is_none());
    let mut resumed = store.watch(seen).await.unwrap();
    assert_eq!(resumed.next().await.unwrap().unwrap().revision, seen + 1);
}

/// No more watchers than the limit; one that is dropped makes room.
pub async fn watchers_are_bounded_and_leave(store: Subject) {
    let mut watches = Vec::new();
    for _ in 0..MAX_WATCHERS {
        watches.push(store.watch(0).await.unwrap());
    }
    assert!(matches!(
        store.watch(0).await,
        Err(StoreError::TooManyWatchers { .. })
    ));
    watches.pop();
    store.watch(0).await.unwrap();
}

/// After close everything is refused with `Closed`, watches end, and closing again is fine.
pub async fn a_closed_store_refuses(store: Subject) {
    let mut watch = store.watch(0).await.unwrap();
    store
        .commit(make_transaction(1, &[("a", "1")], &[]))
        .await
        .unwrap();
    store.close().await.unwrap();
    assert!(matches!(store.get(b"a").await, Err(StoreError::Closed)));
    assert!(matches!(
        store.scan(b"", None, 1).await,
        Err(StoreError::Closed)
    ));
    assert!(matches!(store.revision().await, Err(StoreError::Closed)));
    let asked = store.operation(&make_operation(1).id).await;
    assert!(matches!(asked, Err(StoreError::Closed)));
    assert!(matches!(store.watch(0).await, Err(StoreError::Closed)));
    assert!(matches!(
        store.commit(make_transaction(2, &[], &[])).await,
        Err(CommitError::Closed)
    ));
    assert_eq!(
        watch.next().await.unwrap().unwrap().revision,
        1,
        "what was published still arrives"
    );
    assert!(watch.next().await.is_none());
    store.close().await.unwrap();
}
