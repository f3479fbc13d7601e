//! A full disk refuses commits and loses nothing; with room again, the store goes on. Needs small disks of its own, so
//! each test says so and passes where it may not mount one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests"
)]

mod store_support;

use std::{fs, path::Path, process::Command};

use fieldkeep_keystore::store::{
    CommitError, Store,
    conformance::make_transaction,
    sled::{SledOptions, SledStore, StoreOpenError},
};
use store_support::{contents, fill, options};

/// A small disk in memory, until dropped.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(dir: &'a Path, mib: u32) -> Option<Disk<'a>> {
        fs::create_dir_all(dir).unwrap();
        let size = format!("size={mib}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Disk(dir)),
            _ => {
                eprintln!("skipped: mounting a tmpfs is not allowed here");
                None
            }
        }
    }

    /// Leaves about so much room.
    fn fill(&self, leave_kib: u64) {
        let space = rustix::fs::statvfs(self.0).unwrap();
        let length = (space.f_bavail * space.f_frsize).saturating_sub(leave_kib << 10);
        fs::write(self.0.join("filler"), vec![1; length as usize]).unwrap();
    }

    fn clear(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[tokio::test]
async fn a_nearly_full_disk_refuses_commits_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(dir.path(), 64) else {
        return;
    };
    let store_dir = dir.path().join("store");
    let chosen = || SledOptions {
        min_free_bytes: 16 << 20,
        ..options()
    };
    let (store, _) = SledStore::open(&store_dir, chosen()).unwrap();
    let held = fill(&store, 0..20).await;
    disk.fill(8 << 10);
    let refused = store
        .commit(make_transaction(100, &[("x", "y")], &[]))
        .await;
    assert!(matches!(refused, Err(CommitError::NoSpace)), "{refused:?}");
    let repeated = store.commit(make_transaction(3, &[], &[])).await.unwrap();
    assert!(repeated.repeated, "what needs no space is answered");
    assert!(store.compact().await.is_err());
    assert_eq!(contents(&store).await, held);
    store.close().await.unwrap();
    let (store, _) = SledStore::open(&store_dir, chosen()).unwrap();
    assert_eq!(contents(&store).await, held);
    disk.clear();
    assert_eq!(
        store
            .commit(make_transaction(100, &[("x", "y")], &[]))
            .await
            .unwrap()
            .revision,
        21
    );
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_rebuild_without_room_loses_nothing_and_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(dir.path(), 128) else {
        return;
    };
    let store_dir = dir.path().join("store");
    let chosen = || SledOptions {
        min_free_bytes: 1 << 20,
        ..options()
    };
    let (store, _) = SledStore::open(&store_dir, chosen()).unwrap();
    let value = "v".repeat(4096);
    for part in 0..6 {
        let keys: Vec<String> = (0..200).map(|key| format!("{part}{key:03}")).collect();
        let puts: Vec<_> = keys
            .iter()
            .map(|key| (key.as_str(), value.as_str()))
            .collect();
        store
            .commit(make_transaction(part, &puts, &[]))
            .await
            .unwrap();
    }
    let held = contents(&store).await;
    store.close().await.unwrap();
    // An index that cannot be opened and takes much room, so that moving it aside alone leaves too little.
    fs::write(
        store_dir.join("sled/conf"),
        b"this is not sled's configuration",
    )
    .unwrap();
    fs::write(store_dir.join("sled/large"), vec![7; 30 << 20]).unwrap();
    disk.fill(12 << 10);
    let error = SledStore::open(&store_dir, chosen()).unwrap_err();
    assert!(matches!(error, StoreOpenError::NoSpace { .. }), "{error}");
    assert!(error.to_string().contains("nothing is lost"), "{error}");
    assert!(store_dir.join("sled.damaged-1").exists());
    // The second attempt makes room itself.
    let (store, report) = SledStore::open(&store_dir, chosen()).unwrap();
    assert!(report.rebuilt.is_some());
    assert_eq!(contents(&store).await, held);
    assert!(!store_dir.join("sled.damaged-1").exists());
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_full_journal_disk_refuses_commits_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("mirror");
    let Some(disk) = Disk::mount(&small, 16) else {
        return;
    };
    let chosen = || SledOptions {
        mirror: Some(small.clone()),
        ..options()
    };
    let store_dir = dir.path().join("store");
    let (store, _) = SledStore::open(&store_dir, chosen()).unwrap();
    fill(&store, 0..20).await;
    disk.fill(1 << 10);
    let value = "v".repeat(4096);
    let keys: Vec<String> = (0..200).map(|key| format!("big{key:03}")).collect();
    let puts: Vec<_> = keys
        .iter()
        .map(|key| (key.as_str(), value.as_str()))
        .collect();
    let mut operation = 1000;
    let mut committed = 20;
    loop {
        match store.commit(make_transaction(operation, &puts, &[])).await {
            Ok(done) => committed = done.revision,
            Err(CommitError::NoSpace) => break,
            Err(other) => panic!("{other}"),
        }
        operation += 1;
        assert!(operation < 1100, "the disk never got full");
    }
    assert_eq!(store.revision().await.unwrap(), committed);
    let held = contents(&store).await;
    disk.clear();
    // The journal makes its next segment on a thread of its own, so the first attempts may come too early.
    let mut attempts = 0;
    let done = loop {
        match store
            .commit(make_transaction(operation, &[("x", "y")], &[]))
            .await
        {
            Ok(done) => break done,
            Err(CommitError::NoSpace) => attempts += 1,
            Err(other) => panic!("{other}"),
        }
        assert!(attempts < 10_000_000, "it never went on");
        tokio::task::yield_now().await;
    };
    assert_eq!(done.revision, committed + 1);
    store.close().await.unwrap();
    let (store, report) = SledStore::open(&store_dir, chosen()).unwrap();
    assert_eq!((report.revision, report.rebuilt), (committed + 1, None));
    let mut now = contents(&store).await;
    now.remove("x");
    assert_eq!(now, held);
    store.close().await.unwrap();
}
