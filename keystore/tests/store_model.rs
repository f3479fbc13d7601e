//! Random histories of the sled store, with ends of every kind in between, against a model that is a map.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod store_support;

use std::{collections::BTreeMap, fs, path::Path};

use bytes::Bytes;
use fieldkeep_keystore::store::{
    CommitError, Store, Transaction,
    conformance::{make_operation, make_transaction},
    sled::{SledOptions, SledStore},
};
use proptest::{collection::vec, prelude::*};
use store_support::{Contents, contents, copy_dir, options};

#[derive(Clone, Debug)]
enum Step {
    /// Puts and deletes; `stale`: with an expectation that does not hold.
    Commit {
        puts: BTreeMap<u8, Vec<u8>>,
        deletes: Vec<u8>,
        stale: bool,
    },
    /// An operation that was committed before, again.
    Repeat(prop::sample::Index),
    Compact,
    Close,
    Drop,
    /// Only what is in files survives.
    Kill,
    /// The same, and the index is gone.
    KillAndLoseIndex,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = vec(any::<u8>(), 0..40);
    let commit = (
        prop::collection::btree_map(0..12_u8, value, 0..4),
        vec(0..12_u8, 0..3),
        prop::bool::weighted(0.15),
    )
        .prop_map(|(puts, deletes, stale)| Step::Commit {
            puts,
            deletes,
            stale,
        });
    let step = prop_oneof![
        30 => commit,
        4 => any::<prop::sample::Index>().prop_map(Step::Repeat),
        2 => Just(Step::Compact),
        1 => Just(Step::Close),
        1 => Just(Step::Drop),
        2 => Just(Step::Kill),
        1 => Just(Step::KillAndLoseIndex),
    ];
    vec(step, 1..50)
}

#[derive(Default)]
struct Model {
    records: Contents,
    revision: u64,
    operations: Vec<u64>,
}

fn name(key: u8) -> String {
    format!("key{key}")
}

impl Model {
    fn transaction(
        &self,
        operation: u64,
        puts: &BTreeMap<u8, Vec<u8>>,
        deletes: &[u8],
        stale: bool,
    ) -> Transaction {
        let mut transaction = make_transaction(operation, &[], &[]);
        transaction.operation = make_operation(operation);
        transaction.puts = puts
            .iter()
            .map(|(key, value)| (Bytes::from(name(*key)), Bytes::from(value.clone())))
            .collect();
        let mut deletes: Vec<u8> = deletes
            .iter()
            .copied()
            .filter(|key| !puts.contains_key(key))
            .collect();
        deletes.sort_unstable();
        deletes.dedup();
        transaction.deletes = deletes
            .into_iter()
            .map(|key| Bytes::from(name(key)))
            .collect();
        transaction.expect = puts
            .keys()
            .map(|key| {
                (
                    Bytes::from(name(*key)),
                    self.records.get(&name(*key)).map(|(_, revision)| *revision),
                )
            })
            .collect();
        if stale {
            transaction
                .expect
                .push((Bytes::from_static(b"other"), Some(1)));
        }
        transaction
    }

    fn apply(&mut self, operation: u64, transaction: Transaction) {
        self.revision += 1;
        self.operations.push(operation);
        for (key, value) in transaction.puts {
            self.records.insert(
                String::from_utf8(key.to_vec()).unwrap(),
                (value, self.revision),
            );
        }
        for key in transaction.deletes {
            self.records.remove(std::str::from_utf8(&key).unwrap());
        }
    }
}

async fn run(steps: Vec<Step>) {
    let chosen = || SledOptions {
        mark_commits: 7,
        ..options()
    };
    let root = tempfile::tempdir().unwrap();
    let mut lives = 0;
    let mut dir = root.path().join("0");
    let mut store = SledStore::open(&dir, chosen()).unwrap().0;
    let mut model = Model::default();
    for (operation, step) in (1..).zip(steps) {
        match step {
            Step::Commit {
                puts,
                deletes,
                stale,
            } => {
                let transaction = model.transaction(operation, &puts, &deletes, stale);
                match store.commit(transaction.clone()).await {
                    Ok(done) => {
                        assert!(!stale && !done.repeated);
                        model.apply(operation, transaction);
                        assert_eq!(done.revision, model.revision);
                    }
                    Err(CommitError::Conflict { .. }) => assert!(stale),
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Repeat(which) => {
                if model.operations.is_empty() {
                    continue;
                }
                let index = which.index(model.operations.len());
                let again =
                    make_transaction(*model.operations.get(index).unwrap(), &[("never", "")], &[]);
                let done = store.commit(again).await.unwrap();
                assert!(done.repeated);
                assert_eq!(done.revision, index as u64 + 1);
            }
            Step::Compact => store.compact().await.unwrap(),
            Step::Close => {
                store.close().await.unwrap();
                store = reopen(&dir, &chosen(), &model).await;
            }
            Step::Drop => {
                drop(store);
                store = reopen(&dir, &chosen(), &model).await;
            }
            Step::Kill | Step::KillAndLoseIndex => {
                lives += 1;
                let next = root.path().join(lives.to_string());
                copy_dir(&dir, &next);
                drop(store);
                fs::remove_dir_all(&dir).unwrap();
                dir = next;
                if matches!(step, Step::KillAndLoseIndex) {
                    fs::remove_dir_all(dir.join("sled")).unwrap();
                }
                store = reopen(&dir, &chosen(), &model).await;
            }
        }
    }
    drop(store);
    reopen(&dir, &chosen(), &model).await;
}

async fn reopen(dir: &Path, options: &SledOptions, model: &Model) -> SledStore {
    let (store, report) = SledStore::open(dir, options.clone()).unwrap();
    assert_eq!(
        (report.revision, report.records),
        (model.revision, model.records.len() as u64)
    );
    assert_eq!(contents(&store).await, model.records);
    store
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_with_any_ends_is_the_models(steps in steps()) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(steps));
    }
}
