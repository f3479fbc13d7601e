//! Opening: from whatever a crash left to an index that agrees with the journal, or a refusal that says why.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use fieldkeep_journal::Journal;

use super::{
    MIN_SEGMENT_BYTES, OpenReport, SledOptions, StoreOpenError, directory,
    frame::{Body, Frame, Outcome, Position, State, encode_stored},
    index::{Index, IndexError, Update, caught},
    layout::{Layout, Stage},
    operations, rebuild,
    snapshot::{self, Start},
};
use crate::store::operation_age::{CLOCK_COMMITS, OperationClock};

/// How many changes are applied to the index at once while replaying and rebuilding.
const REPLAY_CHANGES: usize = 2048;

/// A store that is open and agrees with its journal.
pub(super) struct Recovered {
    pub(super) layout: Layout,
    pub(super) lock: fs::File,
    pub(super) journal: Journal,
    pub(super) index: Arc<Index>,
    pub(super) state: State,
    pub(super) position: Position,
    /// The two newest snapshots, the newest first.
    pub(super) generations: Vec<Start>,
    /// The index has not been compared with the set hash yet; do that before the first commit.
    pub(super) check_pending: bool,
    /// What operation ids age by, as of the last commits.
    pub(super) clock: OperationClock,
    pub(super) report: OpenReport,
}

/// Opens, replays, checks, and rebuilds if it must.
pub(super) fn recover(layout: Layout, options: &SledOptions) -> Result<Recovered, StoreOpenError> {
    if options.segment_bytes < MIN_SEGMENT_BYTES {
        return Err(StoreOpenError::SegmentTooSmall {
            segment_bytes: options.segment_bytes,
        });
    }
    directory::make_dir(&layout, options)?;
    let lock = layout.lock()?;
    // Only under the lock, since another process may be making the store.
    let fresh = directory::read_or_begin_format(&layout, options)? == Stage::Creating;
    let (journal, found) = directory::open_journal(&layout, options, fresh)?;
    let mut tip = if fresh {
        begin(&journal)?
    } else {
        Tip::read(&journal, &layout)?
    };
    let generations = read_generations(&journal, tip.position)?;
    let dirs = snapshot_dirs(&layout, options);
    for dir in &dirs {
        snapshot::keep_only(dir, &generations)
            .map_err(|source| StoreOpenError::io("tidy", dir, source))?;
    }
    snapshot::complete(&dirs, &generations);
    let clock = read_clock(&journal, &tip)?;
    let mut report = OpenReport {
        created: fresh,
        revision: tip.state.revision,
        records: tip.state.records,
        replayed_frames: 0,
        torn_frames_dropped: found.torn_frames_dropped,
        journal_repaired: found.repaired,
        journal_mark_replaced: found.mark_replaced,
        rebuilt: None,
        check_pending: false,
    };
    // Before sled is opened: from here on, only another whole close is a clean stop.
    let clean = layout.take_clean()? == Some(tip.sequence);
    let reason = match layout.rebuild_reason()? {
        Some(reason) => Err(reason),
        None => {
            match open_index(&layout, options, &journal, &tip, fresh, clean).and_then(|opened| {
                if !fresh && !clean {
                    let oldest_kept = clock.oldest_kept();
                    operations::restore(&opened.0, &journal, &dirs, &generations, oldest_kept)?;
                }
                Ok(opened)
            }) {
                Ok(opened) => Ok(opened),
                Err(Unusable::Refused(error)) => return Err(error),
                // The index may be good; it is not given up because the disk is full.
                Err(Unusable::NoSpace) => return Err(rebuild::no_space(&layout, &tip.state)),
                Err(Unusable::Index(reason)) => Err(reason),
            }
        }
    };
    let (index, check_pending) = match reason {
        Ok((index, replayed, check_pending)) => {
            report.replayed_frames = replayed;
            report.check_pending = check_pending;
            (index, check_pending)
        }
        Err(reason) => {
            tracing::warn!(%reason, "the index does not agree with the journal and is rebuilt from it");
            let index =
                rebuild::rebuild(&layout, options, &journal, &mut tip, &generations, &reason)?;
            report.rebuilt = Some(reason);
            (index, false)
        }
    };
    // The mirror first: a store that is ready can always be brought back from it.
    if let Some(mirror) = options.mirror.as_deref().map(Layout::new)
        && mirror.read_format()?.is_none()
    {
        mirror.write_format(Stage::Ready)?;
    }
    if fresh {
        layout.write_format(Stage::Ready)?;
    }
    let Tip {
        state, position, ..
    } = tip;
    let index = Arc::new(index);
    Ok(Recovered {
        layout,
        lock,
        journal,
        index,
        state,
        position,
        generations,
        check_pending,
        clock,
        report,
    })
}

/// The directories that hold snapshots.
pub(super) fn snapshot_dirs(layout: &Layout, options: &SledOptions) -> Vec<PathBuf> {
    let mirror = options
        .mirror
        .as_ref()
        .map(|mirror| mirror.join("snapshots"));
    [Some(layout.snapshots()), mirror]
        .into_iter()
        .flatten()
        .collect()
}

/// What the last frame says.
pub(super) struct Tip {
    pub(super) sequence: u64,
    pub(super) position: Position,
    pub(super) state: State,
}

impl Tip {
    fn read(journal: &Journal, layout: &Layout) -> Result<Tip, StoreOpenError> {
        let sequence = journal.next() - 1;
        let payload =
            journal
                .read_one(sequence)?
                .ok_or_else(|| StoreOpenError::JournalMissing {
                    path: layout.journal(),
                })?;
        let frame = decode(sequence, &payload)?;
        Ok(Tip {
            sequence,
            position: frame.position,
            state: frame.state,
        })
    }
}

/// The times of the last commits: enough frames, since marks and snapshots are far between.
fn read_clock(journal: &Journal, tip: &Tip) -> Result<OperationClock, StoreOpenError> {
    let mut clock = OperationClock::default();
    let from = tip.sequence.saturating_sub(4 * CLOCK_COMMITS as u64);
    for frame in journal.read(from.max(journal.first()))? {
        let (sequence, payload) = frame?;
        if let Body::Transaction {
            operation, time, ..
        } = decode(sequence, &payload)?.body
            && !operation.is_once()
        {
            clock.note(time);
        }
    }
    Ok(clock)
}

/// The first frame of a new journal: a mark of the empty store.
fn begin(journal: &Journal) -> Result<Tip, StoreOpenError> {
    let (position, state) = (Position::default(), State::default());
    let ticket = journal.append(
        &Frame {
            position,
            state,
            body: Body::Mark,
        }
        .encode(),
    )?;
    journal.wait_blocking(ticket)?;
    Ok(Tip {
        sequence: ticket.sequence,
        position,
        state,
    })
}

pub(super) fn decode(sequence: u64, payload: &[u8]) -> Result<Frame<'_>, StoreOpenError> {
    Frame::decode(payload).map_err(|source| StoreOpenError::ForeignFrame { sequence, source })
}

/// The two newest snapshots that the journal names, the newest first.
fn read_generations(journal: &Journal, position: Position) -> Result<Vec<Start>, StoreOpenError> {
    let mut generations = Vec::new();
    let mut next = position.snapshot;
    while next >= journal.first() && generations.len() < 2 {
        let Some(payload) = journal.read_one(next)? else {
            break;
        };
        let Body::Snapshot {
            start_sequence,
            start_revision,
            previous,
        } = decode(next, &payload)?.body
        else {
            break;
        };
        generations.push(Start {
            sequence: start_sequence,
            revision: start_revision,
        });
        next = previous;
    }
    Ok(generations)
}

/// Why the index was not taken.
enum Unusable {
    Refused(StoreOpenError),
    NoSpace,
    Index(String),
}

impl From<IndexError> for Unusable {
    fn from(error: IndexError) -> Self {
        if error.is_no_space() {
            return Unusable::NoSpace;
        }
        Unusable::Index(error.to_string())
    }
}

impl From<StoreOpenError> for Unusable {
    fn from(error: StoreOpenError) -> Self {
        Unusable::Refused(error)
    }
}

impl From<ReplayError> for Unusable {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Index(error) => error.into(),
            ReplayError::Journal(error) => error.into(),
        }
    }
}

/// Opens the index, replays what it may not have durably, and checks it. Returns the number of frames replayed and
/// whether the full check is still to be done. It may be put off only after a clean stop: what was compared until then is
/// a state that may have been replayed a moment ago, and says nothing about the records below it.
fn open_index(
    layout: &Layout,
    options: &SledOptions,
    journal: &Journal,
    tip: &Tip,
    fresh: bool,
    clean: bool,
) -> Result<(Index, u64, bool), Unusable> {
    let index = Index::open(&layout.sled(), options.cache_bytes)?;
    if fresh {
        let mut update = Update::default();
        update.set_state(&tip.state);
        index.apply(update)?;
        index.make_durable()?;
    }
    let Some(held) = caught(|| index.state())? else {
        return Err(Unusable::Index("the index is empty".to_owned()));
    };
    if held.revision > tip.state.revision {
        let (journal, index) = (tip.state.revision, held.revision);
        return Err(StoreOpenError::JournalBehind {
            path: layout.journal(),
            journal,
            index,
        }
        .into());
    }
    let from = tip.position.sled_through + 1;
    if from < journal.first() {
        return Err(Unusable::Index(
            "the index was never made durable through what the journal still has".to_owned(),
        ));
    }
    if from > journal.first() {
        let marked = journal.read_one(from - 1).map_err(StoreOpenError::from)?;
        if let Some(payload) = marked {
            let marked = decode(from - 1, &payload)?.state;
            if held.revision < marked.revision {
                let (held, marked) = (held.revision, marked.revision);
                return Err(Unusable::Index(format!(
                    "the index is at revision {held}, not at {marked} or later"
                )));
            }
        }
    }
    let replayed = replay(&index, journal, from)?;
    let held = caught(|| index.state())?;
    if held != Some(tip.state) {
        return Err(Unusable::Index(
            "count or set hash of the index are not the journal's".to_owned(),
        ));
    }
    if clean && replayed == 0 && tip.state.records >= options.background_check_records {
        return Ok((index, replayed, true));
    }
    check(&index, &tip.state)?;
    Ok((index, replayed, false))
}

/// The full check: every record is read, counted and hashed.
pub(super) fn check(index: &Index, expected: &State) -> Result<(), IndexError> {
    match index.recount(&AtomicBool::new(false))? {
        Some(found) if found.same_records(expected) => Ok(()),
        _ => Err(IndexError::Mismatch),
    }
}

/// Why a replay stopped.
pub(super) enum ReplayError {
    Index(IndexError),
    Journal(StoreOpenError),
}

impl From<IndexError> for ReplayError {
    fn from(error: IndexError) -> Self {
        ReplayError::Index(error)
    }
}

/// Applies every frame from `from` on, whether or not the index has it: values are absolute. Returns their number.
pub(super) fn replay(index: &Index, journal: &Journal, from: u64) -> Result<u64, ReplayError> {
    let mut replayed = 0;
    let mut changed = 0;
    let mut pending: Option<(Update, State)> = None;
    let apply = |(mut update, state): (Update, State)| {
        update.set_state(&state);
        caught(|| index.apply(update))
    };
    for frame in journal
        .read(from)
        .map_err(|error| ReplayError::Journal(error.into()))?
    {
        let (sequence, payload) = frame.map_err(|error| ReplayError::Journal(error.into()))?;
        let frame = decode(sequence, &payload).map_err(ReplayError::Journal)?;
        let Body::Transaction {
            operation,
            time,
            changes,
        } = frame.body
        else {
            continue;
        };
        let revision = frame.state.revision;
        let (update, state) = pending.get_or_insert_with(Default::default);
        *state = frame.state;
        for change in &changes {
            match change.value {
                Some(value) => update.put(change.key, encode_stored(revision, value)),
                None => update.delete(change.key),
            }
        }
        if !operation.is_once() {
            update.remember(
                &operation.id,
                &Outcome {
                    time,
                    revision,
                    fingerprint: operation.fingerprint,
                },
            );
        }
        replayed += 1;
        changed += changes.len() + 1;
        if changed >= REPLAY_CHANGES {
            changed = 0;
            pending.take().map_or(Ok(()), apply)?;
        }
    }
    pending.take().map_or(Ok(()), apply)?;
    Ok(replayed)
}
