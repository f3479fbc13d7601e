//! What the sled store promises over its end, whatever the end was: nothing acknowledged is lost, and what cannot be
//! repaired is refused with a reason.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod store_support;

use std::{fs, os::unix::fs::FileExt, path::Path};

use fieldkeep_keystore::store::{
    CommitError, Committed, Store,
    conformance::make_transaction,
    sled::{SledOptions, SledStore, StoreOpenError},
};
use store_support::{
    Fatal, contents, copy_dir, fill, forget_operations, open, options, plant, refusal, snapshots,
};

#[tokio::test]
async fn a_closed_store_opens_with_nothing_to_replay() {
    let dir = tempfile::tempdir().unwrap();
    let (store, report) = open(dir.path());
    assert!(report.created);
    let held = fill(&store, 0..20).await;
    store.close().await.unwrap();
    let (store, report) = open(dir.path());
    assert!(!report.created);
    assert_eq!(
        (report.revision, report.records, report.replayed_frames),
        (20, held.len() as u64, 0)
    );
    assert_eq!(report.rebuilt, None);
    assert_eq!(contents(&store).await, held);
    let next = store
        .commit(make_transaction(1000, &[("x", "y")], &[]))
        .await
        .unwrap();
    assert_eq!(next.revision, 21);
}

#[tokio::test]
async fn a_dropped_store_loses_nothing_and_remembers_its_operations() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let held = fill(&store, 0..20).await;
    drop(store);
    let (store, report) = open(dir.path());
    assert_eq!((report.replayed_frames, report.rebuilt), (20, None));
    assert_eq!(contents(&store).await, held);
    let again = store
        .commit(make_transaction(7, &[("whatever", "")], &[]))
        .await
        .unwrap();
    assert_eq!(
        again,
        Committed {
            revision: 8,
            repeated: true
        }
    );
}

#[tokio::test]
async fn a_killed_process_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let held = fill(&store, 0..20).await;
    // The files as a kill leaves them: what sled has in memory is gone.
    let killed = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), killed.path());
    let (revived, report) = open(killed.path());
    assert_eq!((report.replayed_frames, report.rebuilt), (20, None));
    assert_eq!(contents(&revived).await, held);
}

#[tokio::test]
async fn marks_bound_the_replay_by_commits_bytes_and_time() {
    let by_commits = SledOptions {
        mark_commits: 10,
        ..options()
    };
    let by_bytes = SledOptions {
        mark_bytes: 1,
        ..options()
    };
    let by_time = SledOptions {
        mark_seconds: 0,
        ..options()
    };
    for (chosen, replayed) in [(by_commits, 5), (by_bytes, 0), (by_time, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = SledStore::open(dir.path(), chosen).unwrap();
        let held = fill(&store, 0..25).await;
        // Dropped, not copied as by a kill: the last mark may still be on its way to the disk.
        drop(store);
        let (revived, report) = open(dir.path());
        assert_eq!((report.replayed_frames, report.rebuilt), (replayed, None));
        assert_eq!(contents(&revived).await, held);
    }
}

#[tokio::test]
async fn a_torn_sled_snapshot_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let held = fill(&store, 0..20).await;
    store.close().await.unwrap();
    let torn = dir.path().join("sled/snap.00000000000FFFFF.generating");
    fs::write(&torn, b"torn").unwrap();
    let (store, report) = open(dir.path());
    assert_eq!(report.rebuilt, None);
    assert!(!torn.exists());
    assert_eq!(contents(&store).await, held);
}

#[tokio::test]
async fn operation_ids_that_the_index_lost_are_put_back_after_an_unclean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    fill(&store, 0..20).await;
    store.compact().await.unwrap();
    let held = fill(&store, 20..40).await;
    store.close().await.unwrap();
    forget_operations(&dir.path().join("sled"), &[7, 30]);
    fs::remove_file(dir.path().join("clean")).unwrap();
    let (store, report) = open(dir.path());
    assert_eq!((report.replayed_frames, report.rebuilt), (0, None));
    for number in 0..40 {
        let again = make_transaction(number, &[("whatever", "")], &[]);
        let expected = Committed {
            revision: number + 1,
            repeated: true,
        };
        assert_eq!(store.commit(again).await.unwrap(), expected);
    }
    assert_eq!(contents(&store).await, held);
}

/// Damages the index in one way, and expects all records back. What the index was is kept aside.
async fn is_rebuilt_after(damage: impl Fn(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let held = fill(&store, 0..200).await;
    store.close().await.unwrap();
    for round in 1..=2 {
        damage(&dir.path().join("sled"));
        let (store, report) = open(dir.path());
        assert!(report.rebuilt.is_some(), "round {round}");
        assert_eq!(contents(&store).await, held);
        let again = store.commit(make_transaction(7, &[], &[])).await.unwrap();
        assert!(again.repeated, "operation ids are rebuilt, too");
        store.close().await.unwrap();
        let (store, report) = open(dir.path());
        assert_eq!(report.rebuilt, None, "once is enough");
        store.close().await.unwrap();
    }
    let aside = fs::read_dir(dir.path())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let aside: Vec<String> = aside
        .filter(|name| name.starts_with("sled.damaged"))
        .collect();
    assert!(aside.len() <= 1, "{aside:?}");
}

#[tokio::test]
async fn index_file_truncated() {
    is_rebuilt_after(|sled| {
        let file = fs::OpenOptions::new()
            .write(true)
            .open(sled.join("db"))
            .unwrap();
        file.set_len(3000).unwrap();
    })
    .await;
}

#[tokio::test]
async fn index_file_emptied() {
    is_rebuilt_after(|sled| fs::write(sled.join("db"), b"").unwrap()).await;
}

#[tokio::test]
async fn index_file_garbage() {
    is_rebuilt_after(|sled| {
        let length = fs::metadata(sled.join("db")).unwrap().len() as usize;
        let garbage: Vec<u8> = (0..length).map(|i| (i * 7 + i / 251) as u8).collect();
        fs::write(sled.join("db"), garbage).unwrap();
    })
    .await;
}

#[tokio::test]
async fn index_configuration_garbage() {
    is_rebuilt_after(|sled| {
        fs::write(sled.join("conf"), b"this is not sled's configuration").unwrap()
    })
    .await;
}

#[tokio::test]
async fn index_snapshot_garbage() {
    is_rebuilt_after(|sled| fs::write(sled.join("snap.FFFFFFFFFFFFFFFF"), [9; 100]).unwrap()).await;
}

#[tokio::test]
async fn index_file_deleted() {
    is_rebuilt_after(|sled| fs::remove_file(sled.join("db")).unwrap()).await;
}

#[tokio::test]
async fn index_deleted() {
    is_rebuilt_after(|sled| fs::remove_dir_all(sled).unwrap()).await;
}

#[tokio::test]
async fn index_is_an_older_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    fill(&store, 0..50).await;
    store.close().await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_dir(&dir.path().join("sled"), copy.path());
    let (store, _) = open(dir.path());
    let held = fill(&store, 50..100).await;
    store.close().await.unwrap();
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    copy_dir(copy.path(), &dir.path().join("sled"));
    let (store, report) = open(dir.path());
    assert!(report.rebuilt.is_some());
    for (key, value) in held {
        assert_eq!(contents(&store).await.get(&key), Some(&value));
    }
}

#[tokio::test]
async fn record_planted_in_the_index() {
    is_rebuilt_after(|sled| plant(sled, b"planted", Some(b"\0\0\0\0\0\0\0\x01value"))).await;
}

#[tokio::test]
async fn record_removed_from_the_index() {
    is_rebuilt_after(|sled| plant(sled, b"k003", None)).await;
}

#[tokio::test]
async fn record_changed_in_the_index() {
    is_rebuilt_after(|sled| plant(sled, b"k003", Some(b"\0\0\0\0\0\0\0\x01value"))).await;
}

#[tokio::test]
async fn rebuild_interrupted_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let held = fill(&store, 0..50).await;
    store.close().await.unwrap();
    fs::write(dir.path().join("rebuild"), "a rebuild was not finished").unwrap();
    plant(&dir.path().join("sled"), b"k003", None);
    let (store, report) = open(dir.path());
    assert!(report.rebuilt.is_some());
    assert!(!dir.path().join("rebuild").exists());
    assert_eq!(contents(&store).await, held);
}

#[tokio::test]
async fn a_large_index_is_checked_after_open_with_commits_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let large = || SledOptions {
        background_check_records: 1,
        ..options()
    };
    let (store, _) = open(dir.path());
    let held = fill(&store, 0..50).await;
    store.close().await.unwrap();
    let (store, report) = SledStore::open(dir.path(), large()).unwrap();
    assert!(report.check_pending);
    assert_eq!(contents(&store).await, held);
    store
        .commit(make_transaction(1000, &[("x", "y")], &[]))
        .await
        .unwrap();
    store.close().await.unwrap();

    // Found wrong, it takes no commit, ends the process, and the next open rebuilds.
    plant(&dir.path().join("sled"), b"k003", None);
    let fatal = Fatal::default();
    let (store, _) = SledStore::open(
        dir.path(),
        SledOptions {
            on_fatal: fatal.hook(),
            ..large()
        },
    )
    .unwrap();
    let refused = store
        .commit(make_transaction(1001, &[("x", "z")], &[]))
        .await;
    assert!(matches!(refused, Err(CommitError::Io(_))), "{refused:?}");
    assert_eq!(fatal.causes().len(), 1);
    drop(store);
    let (store, report) = SledStore::open(dir.path(), large()).unwrap();
    assert!(report.rebuilt.is_some());
    assert_eq!(
        store.get(b"k003").await.unwrap().unwrap().value,
        held["k003"].0
    );
    assert_eq!(store.get(b"x").await.unwrap().unwrap().value, "y");
}

#[tokio::test]
async fn without_a_clean_stop_a_large_index_is_checked_before_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    let large = || SledOptions {
        background_check_records: 1,
        ..options()
    };
    let (store, _) = open(dir.path());
    let held = fill(&store, 0..50).await;
    store.close().await.unwrap();
    assert!(dir.path().join("clean").exists());
    let (store, report) = SledStore::open(dir.path(), large()).unwrap();
    assert!(report.check_pending);
    assert!(!dir.path().join("clean").exists());
    drop(store);
    plant(&dir.path().join("sled"), b"k003", None);
    let (store, report) = SledStore::open(dir.path(), large()).unwrap();
    assert!(report.rebuilt.is_some() && !report.check_pending);
    assert_eq!(contents(&store).await, held);
    store.close().await.unwrap();
    // A marker of another moment proves nothing.
    fs::write(dir.path().join("clean"), "1\n").unwrap();
    let (_store, report) = SledStore::open(dir.path(), large()).unwrap();
    assert!(!report.check_pending);
}

#[tokio::test]
async fn a_close_during_the_check_after_open_keeps_what_it_finds() {
    let dir = tempfile::tempdir().unwrap();
    let fatal = Fatal::default();
    let large = SledOptions {
        background_check_records: 1,
        on_fatal: fatal.hook(),
        ..options()
    };
    let (store, _) = open(dir.path());
    let held = fill(&store, 0..1000).await;
    store.close().await.unwrap();
    plant(&dir.path().join("sled"), b"k003", None);
    let (store, report) = SledStore::open(dir.path(), large.clone()).unwrap();
    assert!(report.check_pending);
    store.close().await.unwrap_err();
    assert_eq!(fatal.causes().len(), 1);
    assert!(!dir.path().join("clean").exists());
    // The failed threads may still be about to let the directory go.
    drop(store);
    let (store, report) = SledStore::open(dir.path(), large).unwrap();
    assert!(report.rebuilt.is_some());
    assert_eq!(contents(&store).await, held);
}

#[tokio::test]
async fn closing_during_the_check_after_open_is_fine() {
    let dir = tempfile::tempdir().unwrap();
    let large = || SledOptions {
        background_check_records: 1,
        ..options()
    };
    let (store, _) = open(dir.path());
    let held = fill(&store, 0..200).await;
    store.close().await.unwrap();
    for _ in 0..5 {
        let (store, _) = SledStore::open(dir.path(), large()).unwrap();
        store.close().await.unwrap();
        drop(SledStore::open(dir.path(), large()).unwrap());
    }
    let (store, report) = open(dir.path());
    assert_eq!(report.rebuilt, None);
    assert_eq!(contents(&store).await, held);
}

#[tokio::test]
async fn a_missing_or_older_journal_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    fill(&store, 0..5).await;
    store.close().await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_dir(&dir.path().join("journal"), copy.path());
    let (store, _) = open(dir.path());
    fill(&store, 5..10).await;
    store.close().await.unwrap();

    let journal = dir.path().join("journal");
    fs::remove_dir_all(&journal).unwrap();
    assert!(matches!(
        refusal(dir.path()),
        StoreOpenError::JournalMissing { .. }
    ));
    fs::create_dir(&journal).unwrap();
    assert!(matches!(
        refusal(dir.path()),
        StoreOpenError::JournalMissing { .. }
    ));
    copy_dir(copy.path(), &journal);
    let error = refusal(dir.path());
    assert!(
        matches!(
            error,
            StoreOpenError::JournalBehind {
                journal: 5,
                index: 10,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("restore"), "{error}");
}

#[tokio::test]
async fn a_damaged_journal_is_refused_and_not_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    fill(&store, 0..50).await;
    store.close().await.unwrap();
    let segment = fs::read_dir(dir.path().join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let segment = segment
        .filter(|path| path.extension().is_some_and(|end| end == "seg"))
        .min()
        .unwrap();
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&segment)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 2000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 2000).unwrap();
    for _ in 0..2 {
        let error = refusal(dir.path());
        assert!(matches!(error, StoreOpenError::Journal(_)), "{error}");
    }
    file.write_all_at(&byte, 2000).unwrap();
    let (store, _) = open(dir.path());
    assert_eq!(store.revision().await.unwrap(), 50);
}

#[tokio::test]
async fn format_unknown_damaged_or_missing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    fill(&store, 0..5).await;
    store.close().await.unwrap();
    let format = dir.path().join("FORMAT");
    let text = fs::read_to_string(&format).unwrap();
    fs::write(&format, text.replace("format = 1", "format = 2")).unwrap();
    let error = refusal(dir.path());
    assert!(matches!(error, StoreOpenError::FormatUnknown { .. }));
    assert!(error.to_string().contains("format `2`"), "{error}");
    for damaged in [&b"\xff\xfe"[..], b"", b"fieldkeep store\n"] {
        fs::write(&format, damaged).unwrap();
        assert!(matches!(
            refusal(dir.path()),
            StoreOpenError::FormatDamaged { .. }
        ));
    }
    fs::remove_file(&format).unwrap();
    assert!(matches!(
        refusal(dir.path()),
        StoreOpenError::FormatMissing { .. }
    ));
    fs::write(&format, text).unwrap();
    let (store, _) = open(dir.path());
    assert_eq!(store.revision().await.unwrap(), 5);
}

#[test]
fn segments_that_are_too_small_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let small = SledOptions {
        segment_bytes: (4 << 20) - 8,
        ..options()
    };
    let error = SledStore::open(&dir.path().join("data"), small).unwrap_err();
    assert!(
        matches!(error, StoreOpenError::SegmentTooSmall { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("4194304"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn nothing_is_made_where_nothing_may_be_made() {
    let dir = tempfile::tempdir().unwrap();
    let never = || SledOptions {
        create: false,
        ..options()
    };
    for path in [dir.path().to_path_buf(), dir.path().join("missing")] {
        let error = SledStore::open(&path, never()).unwrap_err();
        assert!(matches!(error, StoreOpenError::NotAStore { .. }), "{error}");
    }
    assert!(!dir.path().join("missing").exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(refusal(&file), StoreOpenError::Io { .. }));
}

#[tokio::test]
async fn making_a_store_that_was_interrupted_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.close().await.unwrap();
    let format = dir.path().join("FORMAT");
    let text = fs::read_to_string(&format).unwrap();
    fs::write(&format, text.replace("ready", "creating")).unwrap();
    fs::write(dir.path().join("sled/db"), b"half").unwrap();
    let (store, report) = open(dir.path());
    assert!(report.created);
    fill(&store, 0..5).await;
    store.close().await.unwrap();
    assert_eq!(fs::read_to_string(&format).unwrap(), text);
}

#[tokio::test]
async fn a_second_owner_is_refused_until_the_first_has_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let error = refusal(dir.path());
    let owner = std::process::id().to_string();
    assert!(
        matches!(&error, StoreOpenError::InUse { owner: named, .. } if *named == owner),
        "{error}"
    );
    store.close().await.unwrap();
    // The handle is still there; the directory is free all the same.
    open(dir.path());
}

#[tokio::test]
async fn compaction_keeps_everything_and_two_generations() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let first_segments = segments(dir.path());
    for generation in 0..4 {
        // Enough for the journal to go on to further segments.
        for i in 0..6 {
            let value = "v".repeat(4096);
            let keys: Vec<String> = (0..250).map(|key| format!("big{key:03}")).collect();
            let puts: Vec<_> = keys
                .iter()
                .map(|key| (key.as_str(), value.as_str()))
                .collect();
            store
                .commit(make_transaction(10_000 + generation * 10 + i, &puts, &[]))
                .await
                .unwrap();
        }
        fill(&store, generation * 10..generation * 10 + 10).await;
        store.compact().await.unwrap();
        store.compact().await.unwrap();
        assert_eq!(
            snapshots(dir.path()).len(),
            2.min(generation as usize + 1),
            "without changes there is no new one"
        );
    }
    assert!(
        segments(dir.path()).first() > first_segments.first(),
        "the journal's oldest part is gone"
    );
    fill(&store, 40..45).await;
    let held = contents(&store).await;
    let [older, newer] = snapshots(dir.path()).try_into().unwrap();
    let killed = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), killed.path());
    store.close().await.unwrap();

    // From the newest, from the one before it, and from neither.
    let sled = killed.path().join("sled");
    fs::remove_dir_all(&sled).unwrap();
    let (store, report) = open(killed.path());
    assert!(report.rebuilt.is_some());
    assert_eq!(contents(&store).await, held);
    assert!(
        store
            .commit(make_transaction(3, &[], &[]))
            .await
            .unwrap()
            .repeated,
        "snapshots have operation ids"
    );
    store.close().await.unwrap();
    let in_copy = |snapshot: &Path| {
        killed
            .path()
            .join("snapshots")
            .join(snapshot.file_name().unwrap())
    };
    let bytes = fs::read(in_copy(&newer)).unwrap();
    fs::write(in_copy(&newer), &bytes[..bytes.len() / 2]).unwrap();
    fs::remove_dir_all(&sled).unwrap();
    let (store, _) = open(killed.path());
    assert_eq!(contents(&store).await, held);
    store.close().await.unwrap();
    fs::remove_file(in_copy(&older)).unwrap();
    fs::remove_dir_all(&sled).unwrap();
    let error = refusal(killed.path());
    assert!(
        matches!(error, StoreOpenError::Unrecoverable { .. }),
        "{error}"
    );
    fs::write(in_copy(&newer), &bytes).unwrap();
    let (store, _) = open(killed.path());
    assert_eq!(contents(&store).await, held);
}

fn segments(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir.join("journal"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".seg")).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_made_during_commits_is_exact_with_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let store = std::sync::Arc::new(store);
    fill(&store, 0..300).await;
    let compacting = tokio::spawn({
        let store = std::sync::Arc::clone(&store);
        async move { store.compact().await }
    });
    fill(&store, 300..600).await;
    compacting.await.unwrap().unwrap();
    let held = contents(&store).await;
    let killed = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), killed.path());
    assert_eq!(snapshots(killed.path()).len(), 1);
    fs::remove_dir_all(killed.path().join("sled")).unwrap();
    let (store, report) = open(killed.path());
    assert!(report.rebuilt.is_some());
    assert_eq!(contents(&store).await, held);
}

#[tokio::test]
async fn a_grown_journal_is_compacted_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let small = SledOptions {
        compact_bytes: 1 << 20,
        ..options()
    };
    let (store, _) = SledStore::open(dir.path(), small.clone()).unwrap();
    let value = "v".repeat(4000);
    let mut operation = 0;
    // The writer hears of a finished snapshot between commits; it will, since commits do not stop.
    while snapshots(dir.path()).len() < 2 {
        operation += 1;
        assert!(operation < 100_000, "no snapshot was made");
        store
            .commit(make_transaction(
                operation,
                &[("a", &value), ("b", &value)],
                &[],
            ))
            .await
            .unwrap();
    }
    let held = contents(&store).await;
    store.close().await.unwrap();
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    let (store, _) = SledStore::open(dir.path(), small).unwrap();
    assert_eq!(contents(&store).await, held);
}

#[tokio::test]
async fn a_mirror_alone_brings_everything_back() {
    let dir = tempfile::tempdir().unwrap();
    let mirror = tempfile::tempdir().unwrap();
    let mirrored = || SledOptions {
        mirror: Some(mirror.path().to_path_buf()),
        ..options()
    };
    let (store, _) = SledStore::open(dir.path(), mirrored()).unwrap();
    fill(&store, 0..30).await;
    store.compact().await.unwrap();
    fill(&store, 30..60).await;
    let held = contents(&store).await;
    store.close().await.unwrap();
    for part in ["journal", "snapshots", "sled"] {
        fs::remove_dir_all(dir.path().join(part)).unwrap();
    }
    copy_dir(&mirror.path().join("journal"), &dir.path().join("journal"));
    copy_dir(
        &mirror.path().join("snapshots"),
        &dir.path().join("snapshots"),
    );
    let (store, report) = SledStore::open(dir.path(), mirrored()).unwrap();
    assert!(report.rebuilt.is_some());
    assert_eq!(contents(&store).await, held);
    store.close().await.unwrap();
    // A snapshot that one side has lost comes back from the other.
    for lost in [dir.path(), mirror.path()] {
        fs::remove_dir_all(lost.join("snapshots")).unwrap();
        fs::remove_dir_all(dir.path().join("sled")).unwrap();
        let (store, _) = SledStore::open(dir.path(), mirrored()).unwrap();
        assert_eq!(contents(&store).await, held);
        assert_eq!(
            (snapshots(dir.path()).len(), snapshots(mirror.path()).len()),
            (1, 1)
        );
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_the_data_directory_lost_comes_back_from_the_mirror() {
    let root = tempfile::tempdir().unwrap();
    let (dir, mirror) = (root.path().join("data"), root.path().join("mirror"));
    let mirrored = || SledOptions {
        mirror: Some(mirror.clone()),
        create: false,
        ..options()
    };
    let error = SledStore::open(&dir, mirrored()).unwrap_err();
    assert!(matches!(error, StoreOpenError::NotAStore { .. }), "{error}");
    assert!(
        error.to_string().contains(mirror.to_str().unwrap()),
        "{error}"
    );
    let made = SledOptions {
        create: true,
        ..mirrored()
    };
    let (store, _) = SledStore::open(&dir, made).unwrap();
    fill(&store, 0..30).await;
    store.compact().await.unwrap();
    let held = fill(&store, 30..40).await;
    store.close().await.unwrap();
    let journal_lost = || fs::remove_dir_all(dir.join("journal")).unwrap();
    let journal_emptied = || {
        journal_lost();
        fs::create_dir(dir.join("journal")).unwrap();
    };
    let format_lost = || fs::remove_file(dir.join("FORMAT")).unwrap();
    let all_lost = || fs::remove_dir_all(&dir).unwrap();
    let losses: [&dyn Fn(); 4] = [&journal_lost, &journal_emptied, &format_lost, &all_lost];
    for lose in losses {
        lose();
        let (store, report) = SledStore::open(&dir, mirrored()).unwrap();
        assert!(!report.created);
        assert_eq!(contents(&store).await, held);
        store.close().await.unwrap();
        assert!(dir.join("FORMAT").exists());
    }
    // An empty mirror, as of a disk that is not mounted, brings nothing back and is not begun anew.
    fs::remove_dir_all(&mirror).unwrap();
    journal_lost();
    let error = SledStore::open(&dir, mirrored()).unwrap_err();
    assert!(
        matches!(error, StoreOpenError::JournalMissing { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn no_store_is_begun_over_a_mirror_that_holds_one() {
    let root = tempfile::tempdir().unwrap();
    let mirror = root.path().join("mirror");
    let mirrored = || SledOptions {
        mirror: Some(mirror.clone()),
        ..options()
    };
    let (store, _) = SledStore::open(&root.path().join("data"), mirrored()).unwrap();
    fill(&store, 0..30).await;
    store.compact().await.unwrap();
    let held = fill(&store, 30..40).await;
    store.close().await.unwrap();
    let other = root.path().join("other");
    let refused = || {
        let _ = fs::remove_dir_all(&other);
        fs::create_dir(&other).unwrap();
        let format = "fieldkeep store\nformat = 1\nkind = sled\nstage = creating\n";
        fs::write(other.join("FORMAT"), format).unwrap();
        let error = SledStore::open(&other, mirrored()).unwrap_err();
        assert!(
            matches!(error, StoreOpenError::MirrorInUse { .. }),
            "{error}"
        );
    };
    refused();
    assert_eq!(snapshots(&mirror).len(), 1);
    // Its journal alone is reason enough.
    let aside = root.path().join("aside");
    fs::rename(mirror.join("snapshots"), &aside).unwrap();
    refused();
    fs::rename(&aside, mirror.join("snapshots")).unwrap();
    fs::remove_dir_all(&other).unwrap();
    let (store, _) = SledStore::open(&other, mirrored()).unwrap();
    assert_eq!(contents(&store).await, held);
}

#[tokio::test]
async fn what_the_journal_repaired_is_told() {
    let root = tempfile::tempdir().unwrap();
    let (dir, mirror) = (root.path().join("data"), root.path().join("mirror"));
    let mirrored = || SledOptions {
        mirror: Some(mirror.clone()),
        ..options()
    };
    let (store, report) = SledStore::open(&dir, mirrored()).unwrap();
    assert_eq!(report.journal_repaired, None);
    fill(&store, 0..30).await;
    store.close().await.unwrap();
    for lost in [mirror.join("journal"), dir.join("journal")] {
        fs::remove_dir_all(&lost).unwrap();
        let (store, report) = SledStore::open(&dir, mirrored()).unwrap();
        assert_eq!(report.journal_repaired, Some(lost));
        assert!(!report.journal_mark_replaced);
        store.close().await.unwrap();
    }
    for journal in [dir.join("journal"), mirror.join("journal")] {
        fs::write(journal.join("durable"), [0; 64]).unwrap();
    }
    let (store, report) = SledStore::open(&dir, mirrored()).unwrap();
    assert!(report.journal_mark_replaced);
    store.close().await.unwrap();
}
