//! What the tests of the sled store share: opening, filling, looking, copying.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "tests; not every test binary uses everything"
)]

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use fieldkeep_keystore::store::{
    Store,
    conformance::{make_operation, make_transaction},
    sled::{FatalHook, OpenReport, SledOptions, SledStore, StoreOpenError},
};

/// Key to (value, revision).
pub(crate) type Contents = BTreeMap<String, (Bytes, u64)>;

/// Small segments; a fatal failure is a failed test.
pub(crate) fn options() -> SledOptions {
    let on_fatal = FatalHook::new(|cause| panic!("fatal: {cause}"));
    SledOptions {
        segment_bytes: 4 << 20,
        on_fatal,
        ..SledOptions::default()
    }
}

pub(crate) fn open(dir: &Path) -> (SledStore, OpenReport) {
    SledStore::open(dir, options()).unwrap()
}

pub(crate) fn refusal(dir: &Path) -> StoreOpenError {
    SledStore::open(dir, options()).unwrap_err()
}

/// One commit for each number: some keys are made, some changed, some deleted.
pub(crate) async fn fill(store: &SledStore, numbers: Range<u64>) -> Contents {
    for number in numbers {
        let (made, changed) = (format!("k{number:03}"), format!("c{}", number % 7));
        let deleted = format!("k{:03}", number / 2);
        let value = format!("value {number}");
        let deletes: &[&str] = if number % 2 == 1 && number % 3 == 0 {
            &[&deleted]
        } else {
            &[]
        };
        store
            .commit(make_transaction(
                number,
                &[(&made, &value), (&changed, &value)],
                deletes,
            ))
            .await
            .unwrap();
    }
    contents(store).await
}

pub(crate) async fn contents(store: &SledStore) -> Contents {
    let page = store.scan(b"", None, 10_000).await.unwrap();
    page.into_iter()
        .map(|(key, record)| {
            (
                String::from_utf8(key.to_vec()).unwrap(),
                (record.value, record.revision),
            )
        })
        .collect()
}

/// Changes the index behind the store's back.
pub(crate) fn plant(sled: &Path, key: &[u8], stored: Option<&[u8]>) {
    let db = sled::Config::new()
        .path(sled)
        .flush_every_ms(None)
        .open()
        .unwrap();
    let records = db.open_tree("records").unwrap();
    match stored {
        Some(stored) => drop(records.insert(key, stored).unwrap()),
        None => assert!(records.remove(key).unwrap().is_some()),
    }
    db.flush().unwrap();
}

/// Makes the index forget operation ids behind the store's back.
pub(crate) fn forget_operations(sled: &Path, numbers: &[u64]) {
    let db = sled::Config::new()
        .path(sled)
        .flush_every_ms(None)
        .open()
        .unwrap();
    let operations = db.open_tree("operations").unwrap();
    for number in numbers {
        let id = make_operation(*number).id;
        assert!(operations.remove(id).unwrap().is_some());
    }
    db.flush().unwrap();
}

/// Copies all files as they are now. The last in the order of names go first, so that the journal's file `durable` is
/// not newer than its segments: a mark may still be on its way.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let mut entries: Vec<_> = fs::read_dir(from).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(|entry| Reverse(entry.file_name()));
    for entry in entries {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            // The journal prepares its next segment under a temporary name, which may be gone by now.
            match fs::copy(entry.path(), target) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

/// The snapshot files, the oldest first.
pub(crate) fn snapshots(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir.join("snapshots")) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "seg"));
    paths.sort();
    paths
}

/// Collects the causes of fatal failures instead of ending the process.
#[derive(Default)]
pub(crate) struct Fatal(Arc<Mutex<Vec<String>>>);

impl Fatal {
    pub(crate) fn hook(&self) -> FatalHook {
        let causes = Arc::clone(&self.0);
        FatalHook::new(move |cause| causes.lock().unwrap().push(cause.to_owned()))
    }

    pub(crate) fn causes(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}
