//! Remembered operation ids after an unclean stop.
//!
//! Ids are in no count and no set hash, since they are forgotten at times that no frame records. So the index is not asked
//! whether it has them all: everything that snapshot and journal still say is looked up, and put back if it is missing.
//! An id that is lost would turn a retry into a second change.

use std::path::PathBuf;

use fieldkeep_journal::Journal;

use super::{
    frame::{Body, Frame, Outcome},
    index::{Index, IndexError, Update, caught},
    recover::ReplayError,
    snapshot::{self, Part, Start},
};

/// How many ids are put back at once.
const AT_ONCE: usize = 2048;

/// Puts back each id of the newest readable snapshot, and of the frames after it, that the index lacks or knows only from
/// an older commit. Ids older than `oldest_kept`, in Unix seconds, may be forgotten and are left out. Returns how many were put
/// back.
pub(super) fn restore(
    index: &Index,
    journal: &Journal,
    dirs: &[PathBuf],
    generations: &[Start],
    oldest_kept: u64,
) -> Result<u64, ReplayError> {
    let mut missing = Missing {
        index,
        oldest_kept,
        update: Update::default(),
        pending: 0,
        restored: 0,
    };
    let mut from = journal.first();
    for (start, dir) in generations
        .iter()
        .flat_map(|start| dirs.iter().map(move |dir| (*start, dir)))
    {
        match missing.look_up_snapshot(&snapshot::path_of(dir, start), start) {
            Ok(()) => {
                from = start.sequence + 1;
                break;
            }
            Err(snapshot::Failure::Index(error)) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, dir = %dir.display(), "a snapshot cannot be read for operation ids");
            }
        }
    }
    let frames = journal.read(from.max(journal.first()));
    for frame in frames.map_err(|error| ReplayError::Journal(error.into()))? {
        let (sequence, payload) = frame.map_err(|error| ReplayError::Journal(error.into()))?;
        let frame = Frame::decode(&payload).map_err(|source| {
            ReplayError::Journal(super::StoreOpenError::ForeignFrame { sequence, source })
        })?;
        if let Body::Transaction {
            operation, time, ..
        } = frame.body
            && !operation.is_once()
        {
            let outcome = Outcome {
                time,
                revision: frame.state.revision,
                fingerprint: operation.fingerprint,
            };
            missing.look_up(&operation.id, &outcome)?;
        }
    }
    missing.apply()?;
    if missing.restored > 0 {
        tracing::warn!(
            restored = missing.restored,
            "the index had lost operation ids, which were put back from snapshot and journal"
        );
    }
    Ok(missing.restored)
}

struct Missing<'a> {
    index: &'a Index,
    oldest_kept: u64,
    update: Update,
    pending: usize,
    restored: u64,
}

impl Missing<'_> {
    fn look_up_snapshot(
        &mut self,
        path: &std::path::Path,
        start: Start,
    ) -> Result<(), snapshot::Failure> {
        snapshot::read(path, start, &mut |part| {
            if let Part::Operations(operations) = part {
                for (id, outcome) in &operations {
                    self.look_up(id, outcome)?;
                }
            }
            Ok(())
        })
    }

    fn look_up(&mut self, id: &[u8; 16], outcome: &Outcome) -> Result<(), IndexError> {
        let held = caught(|| self.index.outcome(id))?;
        let known = held.is_some_and(|held| held.revision >= outcome.revision);
        if known || outcome.time < self.oldest_kept {
            return Ok(());
        }
        self.update.remember(id, outcome);
        self.restored += 1;
        self.pending += 1;
        if self.pending >= AT_ONCE {
            self.apply()?;
        }
        Ok(())
    }

    fn apply(&mut self) -> Result<(), IndexError> {
        self.pending = 0;
        let update = std::mem::take(&mut self.update);
        caught(|| self.index.apply(update))
    }
}
