//! Reading a journal on a thread of its own, while the records before are hashed: so that a verification takes little longer than its hashes.

use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope};

use fieldkeep_audit::view::RecordView;
use fieldkeep_journal::{Offline, OfflineError, Position};

/// Bytes of payload after which a batch is handed over.
const BATCH_BYTES: usize = 128 << 10;
/// Batches that are read ahead.
const AHEAD: usize = 2;

/// Frames that were read and checked, and what came behind them.
#[derive(Default)]
pub(super) struct Batch {
    frames: Vec<Frame>,
    payloads: Vec<u8>,
    /// Why there are no more.
    pub(super) failed: Option<OfflineError>,
}

/// A frame, whose payload is in its batch.
pub(super) struct Frame {
    pub(super) sequence: u64,
    pub(super) position: Position,
    pub(super) kind: Kind,
    payload: Range<usize>,
}

/// What the payload of a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The seal of a commit.
    Seal,
    /// An audit record.
    Record,
    /// Neither.
    Other,
}

impl Batch {
    /// The frames with their payloads.
    pub(super) fn frames(&self) -> impl Iterator<Item = (&Frame, &[u8])> {
        self.frames.iter().map(|frame| {
            let payload = self.payloads.get(frame.payload.clone());
            // There by construction.
            (frame, payload.unwrap_or_default())
        })
    }

    /// The next frames up to a bound, or to the end of the log.
    fn read(frames: &mut Offline) -> Batch {
        let mut batch = Batch::default();
        while batch.payloads.len() < BATCH_BYTES {
            let frame = match frames.read_next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    batch.failed = Some(error);
                    break;
                }
            };
            let kind = if frame.is_seal {
                Kind::Seal
            } else if RecordView::parse(frame.payload).is_ok() {
                Kind::Record
            } else {
                Kind::Other
            };
            let start = batch.payloads.len();
            batch.payloads.extend_from_slice(frame.payload);
            batch.frames.push(Frame {
                sequence: frame.sequence,
                position: frame.position,
                kind,
                payload: start..batch.payloads.len(),
            });
        }
        batch
    }
}

/// Reads `frames` to their end, or to the first defect, or until nobody takes the batches any more.
///
/// # Errors
/// The system has no thread to give.
pub(super) fn read_ahead<'scope>(
    scope: &'scope Scope<'scope, '_>,
    frames: &'scope mut Offline,
) -> io::Result<Receiver<Batch>> {
    let (sender, receiver) = sync_channel(AHEAD);
    let work = move || hand_over(frames, &sender);
    Builder::new()
        .name("audit-reader".to_owned())
        .spawn_scoped(scope, work)?;
    Ok(receiver)
}

fn hand_over(frames: &mut Offline, sender: &SyncSender<Batch>) {
    loop {
        let batch = Batch::read(frames);
        let is_last = batch.payloads.len() < BATCH_BYTES;
        if sender.send(batch).is_err() || is_last {
            return;
        }
    }
}
