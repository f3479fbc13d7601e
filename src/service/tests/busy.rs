//! A trail that is busy, on a disk whose writes can be held back.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use fieldkeep_journal::{Disk, DiskFile, SystemDisk};
use futures_util::poll;
use tonic::Code;

use super::*;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// Holds back the writes of records while it is closed.
#[derive(Default)]
pub(super) struct Gate {
    closed: Mutex<bool>,
    /// Whether the disk has no room for another file.
    full: AtomicBool,
    held: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(super) fn set(&self, closed: bool) {
        *self.closed.lock().unwrap() = closed;
        self.opened.notify_all();
    }

    /// Waits while it is closed if these are the bytes of a record; other writes pass.
    fn pass(&self, bytes: &[u8]) {
        let names: [&[u8]; 2] = [b"test/Rpc", b"fieldkeep.internal/Scheduled"];
        let has = |name: &&[u8]| bytes.windows(name.len()).any(|window| window == *name);
        if !names.iter().any(has) {
            return;
        }
        let mut closed = self.closed.lock().unwrap();
        while *closed {
            *self.held.lock().unwrap() = true;
            closed = self.opened.wait(closed).unwrap();
        }
    }
}

pub(super) struct GatedDisk(pub(super) Arc<Gate>);

struct GatedFile(Arc<dyn DiskFile>, Arc<Gate>);

impl GatedDisk {
    fn gated(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(GatedFile(file, Arc::clone(&self.0)))
    }
}

impl Disk for GatedDisk {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        SystemDisk.make_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        SystemDisk.lock(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        SystemDisk.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.gated(SystemDisk.open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if self.0.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(self.gated(SystemDisk.create(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        SystemDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        SystemDisk.sync_dir(dir)
    }
}

impl DiskFile for GatedFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.1.pass(bytes);
        self.0.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

/// A fixture whose trail takes one record while another is being written, and the gate of its disk.
async fn busy_fixture(patience: Duration) -> (Fixture, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let options = fieldkeep_journal::Options {
        segment_bytes: 1 << 20,
        max_payload_bytes: AUDIT_RECORD_BYTES,
        max_pending_bytes: 1,
        ..Default::default()
    };
    let disk = Arc::new(GatedDisk(Arc::clone(&gate)));
    let limits = Limits {
        busy_patience: patience,
        ..each_on_record()
    };
    let f = Fixture::make_on(disk, options, limits).await;
    (f, gate)
}

/// Waits until the writer holds a record at the gate, so that what comes next is pending behind it.
pub(super) async fn until_held(gate: &Gate) {
    while !*gate.held.lock().unwrap() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_busy_trail_is_waited_for_and_loses_no_record() {
    let (f, gate) = busy_fixture(LONG).await;
    gate.set(true);
    let mut written = Box::pin(f.encrypt("acme/app", b"a"));
    assert!(poll!(&mut written).is_pending());
    until_held(&gate).await;
    let mut pending = Box::pin(f.encrypt("acme/app", b"b"));
    assert!(poll!(&mut pending).is_pending());
    // From here on the trail is busy.
    let mut given_up = Box::pin(f.encrypt("acme/app", b"c"));
    assert!(poll!(&mut given_up).is_pending());
    let mut waiting = Box::pin(f.encrypt("acme/app", b"d"));
    assert!(poll!(&mut waiting).is_pending());
    assert!(f.service.core().is_serving(), "busy is not broken");
    drop(given_up);
    assert!(f.service.core().is_serving());
    assert!(!f.service.core().unwritten.is_empty());
    gate.set(false);
    written.await.unwrap();
    pending.await.unwrap();
    waiting.await.unwrap();
    assert!(f.service.core().unwritten.is_empty());
    let codes: Vec<i32> = f.records().iter().map(|record| record.code).collect();
    assert_eq!(
        codes,
        [0, 0, i32::from(Code::Cancelled), 0],
        "what was given up is on record before what came later"
    );
}

#[tokio::test]
async fn what_a_busy_trail_did_not_take_is_written_without_another_call() {
    let (f, gate) = busy_fixture(LONG).await;
    gate.set(true);
    let mut written = Box::pin(f.encrypt("acme/app", b"a"));
    assert!(poll!(&mut written).is_pending());
    until_held(&gate).await;
    for plaintext in [b"b", b"c"] {
        let mut given_up = Box::pin(f.encrypt("acme/app", plaintext));
        assert!(poll!(&mut given_up).is_pending());
    }
    assert!(f.service.core().needs_probe());
    gate.set(false);
    written.await.unwrap();
    while f.service.core().needs_probe() {
        f.service.probe_audit(f.call::<Encrypt>("acme/app")).await;
        tokio::task::yield_now().await;
    }
    f.encrypt("acme/app", b"d").await.unwrap();
    assert_eq!(f.records().len(), 4);
}

#[tokio::test]
async fn a_trail_that_stays_busy_costs_the_call_its_result_and_nobody_elses() {
    let (f, gate) = busy_fixture(Duration::ZERO).await;
    gate.set(true);
    let mut written = Box::pin(f.encrypt("acme/app", b"a"));
    assert!(poll!(&mut written).is_pending());
    until_held(&gate).await;
    let mut pending = Box::pin(f.encrypt("acme/app", b"b"));
    assert!(poll!(&mut pending).is_pending());
    assert_eq!(
        f.encrypt("acme/app", b"c").await,
        Err(Failure::AuditUnavailable)
    );
    assert!(f.service.core().is_serving());
    gate.set(false);
    written.await.unwrap();
    pending.await.unwrap();
    // The kept record goes first, and whoever has no patience may find the trail busy with it.
    let mut calls = 4;
    while f.encrypt("acme/app", b"d").await.is_err() {
        calls += 1;
        tokio::task::yield_now().await;
    }
    assert_eq!(f.records().len(), calls);
}

#[tokio::test]
async fn on_a_full_disk_an_operator_can_still_look() {
    let gate = Arc::new(Gate::default());
    let options = fieldkeep_journal::Options {
        segment_bytes: 256 << 10,
        max_payload_bytes: AUDIT_RECORD_BYTES,
        reserve_bytes: 32 << 10,
        no_space_retry: Duration::from_millis(1),
        ..Default::default()
    };
    let disk = Arc::new(GatedDisk(Arc::clone(&gate)));
    let f = Fixture::make_on(disk, options, each_on_record()).await;
    gate.full.store(true, Ordering::SeqCst);
    // Two segments are there already; a record has some 300 bytes.
    let mut taken = 0;
    let refused = loop {
        match f.encrypt("acme/app", b"x").await {
            Ok(_) => taken += 1,
            Err(refused) => break refused,
        }
        assert!(taken < 10_000, "the disk is full");
    };
    assert_eq!(refused, Failure::AuditUnavailable);
    assert!(!f.service.core().is_serving());
    for _ in 0..10 {
        f.perform("acme/boss", crate::service::system::ReadStatus)
            .await
            .unwrap();
        let last = f.last_record();
        assert_eq!((last.action.as_str(), last.code), ("status", 0));
        // That says nothing about the others.
        assert!(!f.service.core().is_serving());
        assert_eq!(
            f.encrypt("acme/app", b"x").await,
            Err(Failure::AuditUnavailable)
        );
    }
    // An identity without the right to look has no part in it.
    let status = f.perform("acme/app", crate::service::system::ReadStatus);
    assert!(status.await.is_err());
    gate.full.store(false, Ordering::SeqCst);
    while !f.service.core().is_serving() {
        let mut probe = f.call::<crate::service::system::ReadStatus>("acme/app");
        probe.peer = Arc::new(Peer::local());
        f.service.probe_audit(probe).await;
        tokio::task::yield_now().await;
    }
    f.encrypt("acme/app", b"x").await.unwrap();
}
