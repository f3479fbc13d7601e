//! Opening: from whatever a crash left to an index that agrees with the journal, or a refusal that says why.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use fieldkeep_journal::{self as journal, Journal};

use super::{
    MIN_SEGMENT_BYTES, OpenReport, SledOptions, StoreOpenError,
    frame::{Body, Frame, MAX_FRAME_BYTES, Outcome, Position, State, encode_stored},
    index::{Index, IndexError, Update, caught},
    layout::{self, Layout, Stage},
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
    make_dir(&layout, options)?;
    let lock = layout.lock()?;
    // Only under the lock, since another process may be making the store.
    let fresh = read_or_begin_format(&layout, options)? == Stage::Creating;
    let (journal, found) = open_journal(&layout, options, fresh)?;
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

/// Makes the directory if it must and may be made.
fn make_dir(layout: &Layout, options: &SledOptions) -> Result<(), StoreOpenError> {
    let dir = layout.dir();
    if !options.create && layout.read_format()?.is_none() && !mirror_has_store(options)? {
        has_no_parts(layout)?;
        return Err(StoreOpenError::NotAStore {
            path: dir.to_path_buf(),
            mirror: options.mirror.clone(),
        });
    }
    layout::make_dir(dir).map_err(|source| StoreOpenError::io("make the directory", dir, source))
}

fn read_or_begin_format(layout: &Layout, options: &SledOptions) -> Result<Stage, StoreOpenError> {
    if let Some(stage) = layout.read_format()? {
        return Ok(stage);
    }
    if mirror_has_store(options)? {
        tracing::warn!(
            dir = %layout.dir().display(),
            "the data directory has no FORMAT file; the store is brought back from its mirror"
        );
        layout.write_format(Stage::Ready)?;
        return Ok(Stage::Ready);
    }
    has_no_parts(layout)?;
    layout.write_format(Stage::Creating)?;
    Ok(Stage::Creating)
}

/// Whether the mirror has a finished store: its own FORMAT, which is written once it holds what the data directory does,
/// and a journal.
fn mirror_has_store(options: &SledOptions) -> Result<bool, StoreOpenError> {
    let Some(mirror) = options.mirror.as_deref().map(Layout::new) else {
        return Ok(false);
    };
    Ok(mirror.read_format()? == Some(Stage::Ready) && has_segments(&mirror.journal())?)
}

fn has_segments(journal: &Path) -> Result<bool, StoreOpenError> {
    layout::has_files(journal, ".seg").map_err(|source| StoreOpenError::io("read", journal, source))
}

/// A store that has lost its FORMAT must not be taken for a new one.
fn has_no_parts(layout: &Layout) -> Result<(), StoreOpenError> {
    if [layout.journal(), layout.sled(), layout.snapshots()]
        .iter()
        .any(|part| part.exists())
    {
        return Err(StoreOpenError::FormatMissing {
            path: layout.dir().to_path_buf(),
        });
    }
    Ok(())
}

fn open_journal(
    layout: &Layout,
    options: &SledOptions,
    fresh: bool,
) -> Result<(Journal, journal::Recovered), StoreOpenError> {
    let dir = layout.journal();
    let mirror = options.mirror.as_deref().map(Layout::new);
    if fresh {
        if let Some(mirror) = &mirror
            && layout::has_files(&mirror.snapshots(), ".seg")
                .map_err(|source| StoreOpenError::io("read", &mirror.snapshots(), source))?
        {
            return Err(StoreOpenError::MirrorInUse {
                mirror: mirror.dir().to_path_buf(),
            });
        }
        // Making the store was not finished, so nothing was ever acknowledged from what is there.
        for part in [dir.clone(), layout.sled(), layout.snapshots()] {
            layout::remove_dir(&part)
                .map_err(|source| StoreOpenError::io("remove", &part, source))?;
        }
    } else if layout::is_empty_dir(&dir)
        .map_err(|source| StoreOpenError::io("read", &dir, source))?
    {
        // The journal crate copies back what only the mirror has.
        match &mirror {
            Some(mirror) if has_segments(&mirror.journal())? => tracing::warn!(
                journal = %dir.display(),
                "the journal is missing or empty and is brought back from its mirror"
            ),
            _ => return Err(StoreOpenError::JournalMissing { path: dir }),
        }
    }
    layout::make_dir(&dir)
        .map_err(|source| StoreOpenError::io("make the directory", &dir, source))?;
    let mirror_journal = mirror.as_ref().map(Layout::journal);
    if let Some(mirror) = &mirror_journal {
        layout::make_dir(mirror)
            .map_err(|source| StoreOpenError::io("make the directory", mirror, source))?;
    }
    let on_fatal = options.on_fatal.clone();
    let journal_options = journal::Options {
        segment_bytes: options.segment_bytes,
        mirror: mirror_journal,
        max_payload_bytes: MAX_FRAME_BYTES,
        on_fatal: journal::FatalHook::new(move |error| on_fatal.call(&error.to_string())),
        ..journal::Options::default()
    };
    let (journal, found) = Journal::open(&dir, journal_options)?;
    if let Some(repaired) = &found.repaired {
        tracing::warn!(
            dir = %repaired.display(),
            "this copy of the journal was behind or damaged and has been repaired from the other one; check its disk"
        );
    }
    if found.mark_replaced {
        tracing::warn!(
            journal = %dir.display(),
            "the file `durable` of the journal was not readable and was written anew; check the disk"
        );
    }
    if !fresh && found.next == found.first {
        return Err(StoreOpenError::JournalMissing { path: dir });
    }
    if fresh
        && let Some(mirror) = &mirror
        && !is_of_empty_store(&journal)?
    {
        return Err(StoreOpenError::MirrorInUse {
            mirror: mirror.dir().to_path_buf(),
        });
    }
    Ok((journal, found))
}

/// Whether a journal has only what making a store leaves: marks of the empty store.
fn is_of_empty_store(journal: &Journal) -> Result<bool, StoreOpenError> {
    if journal.first() > 1 {
        return Ok(false);
    }
    for frame in journal.read(1)? {
        let (sequence, payload) = frame?;
        let frame = decode(sequence, &payload)?;
        if (frame.body, frame.state) != (Body::Mark, State::default()) {
            return Ok(false);
        }
    }
    Ok(true)
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
        if let Body::Transaction { time, .. } = decode(sequence, &payload)?.body {
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

fn decode(sequence: u64, payload: &[u8]) -> Result<Frame<'_>, StoreOpenError> {
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
        update.remember(
            &operation.id,
            &Outcome {
                time,
                revision,
                fingerprint: operation.fingerprint,
            },
        );
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
