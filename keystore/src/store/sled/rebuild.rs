//! Rebuilding the index from what is the truth: a snapshot and the journal's frames after it.

use std::{fs, path::Path};

use fieldkeep_journal::Journal;

use super::{
    SledOptions, StoreOpenError,
    frame::{Body, Frame, State},
    index::{Index, IndexError, Update, caught},
    layout::{self, Layout},
    recover::{ReplayError, Tip, check, replay, snapshot_dirs},
    snapshot::{self, Part, Start},
};

/// sled writes pages anew while records are loaded, so its file becomes larger than they are; this is asked for to be safe.
const INDEX_FACTOR: u64 = 3;
/// What sled takes for an empty index, and the journal for its mark.
const INDEX_LEAST_BYTES: u64 = 4 << 20;

/// How many bytes should be free for an index of these records.
pub(super) fn needed_bytes(state: &State) -> u64 {
    state
        .live_bytes
        .saturating_mul(INDEX_FACTOR)
        .saturating_add(INDEX_LEAST_BYTES)
}

/// Rebuilds, or says that there is no space for it. A full disk is no damage: the marker stays, and so do journal and
/// snapshots.
pub(super) fn rebuild(
    layout: &Layout,
    options: &SledOptions,
    journal: &Journal,
    tip: &mut Tip,
    generations: &[Start],
    reason: &str,
) -> Result<Index, StoreOpenError> {
    rebuild_with_space(layout, options, journal, tip, generations, reason).map_err(|error| {
        if error.is_no_space() {
            no_space(layout, &tip.state)
        } else {
            error
        }
    })
}

pub(super) fn no_space(layout: &Layout, state: &State) -> StoreOpenError {
    StoreOpenError::NoSpace {
        path: layout.dir().to_path_buf(),
        needed_bytes: needed_bytes(state),
    }
}

/// Makes a new index from the newest usable snapshot, or from nothing if the journal is complete, and the frames after
/// it. The old one is moved aside. A crash in between leaves the marker, and the next open begins again.
fn rebuild_with_space(
    layout: &Layout,
    options: &SledOptions,
    journal: &Journal,
    tip: &mut Tip,
    generations: &[Start],
    reason: &str,
) -> Result<Index, StoreOpenError> {
    const AGAIN: &str = "a rebuild was not finished";
    let io = |source| StoreOpenError::io("move aside", &layout.sled(), source);
    if reason == AGAIN {
        // What the first attempt left is in the way of the second, and its index is no evidence of anything.
        layout.remove_asides().map_err(io)?;
        layout::remove_dir(&layout.sled()).map_err(io)?;
    } else {
        layout.move_index_aside().map_err(io)?;
    }
    layout
        .mark_for_rebuild(AGAIN)
        .map_err(|source| StoreOpenError::io("write", &layout.rebuild_marker(), source))?;
    // Asked beforehand, since sled does not always live to report a full disk.
    let needed = needed_bytes(&tip.state);
    if layout.free_bytes().is_some_and(|free| free < needed) {
        return Err(no_space(layout, &tip.state));
    }
    let dirs = snapshot_dirs(layout, options);
    let mut bases: Vec<Option<(Start, &Path)>> = Vec::new();
    for start in generations {
        bases.extend(dirs.iter().map(|dir| Some((*start, dir.as_path()))));
    }
    if journal.first() <= 1 {
        bases.push(None);
    }
    let mut failures = Vec::new();
    for base in bases {
        layout::remove_dir(&layout.sled()).map_err(io)?;
        match build(layout, options, journal, tip, base) {
            Ok(index) => {
                finish_rebuild(layout, journal, tip, &index)?;
                return Ok(index);
            }
            Err(ReplayError::Journal(error)) => return Err(error),
            Err(ReplayError::Index(error)) if error.is_no_space() => {
                return Err(no_space(layout, &tip.state));
            }
            Err(ReplayError::Index(error)) => failures.push(match base {
                Some((start, dir)) => {
                    format!("{}: {error}", snapshot::path_of(dir, start).display())
                }
                None => format!("whole journal: {error}"),
            }),
        }
    }
    if failures.is_empty() {
        failures.push("there is neither a snapshot nor a complete journal".to_owned());
    }
    Err(StoreOpenError::Unrecoverable {
        why: failures.join("; "),
    })
}

fn build(
    layout: &Layout,
    options: &SledOptions,
    journal: &Journal,
    tip: &Tip,
    base: Option<(Start, &Path)>,
) -> Result<Index, ReplayError> {
    let index = Index::open(&layout.sled(), options.cache_bytes)?;
    let mut from = journal.first();
    if let Some((start, dir)) = base {
        load(&index, dir, start)?;
        from = start.sequence + 1;
    }
    replay(&index, journal, from)?;
    // Without any frame after the base, the state has not been set yet.
    let mut update = Update::default();
    update.set_state(&tip.state);
    caught(|| index.apply(update))?;
    check(&index, &tip.state)?;
    Ok(index)
}

fn load(index: &Index, dir: &Path, start: Start) -> Result<(), IndexError> {
    let path = snapshot::path_of(dir, start);
    let loaded = snapshot::read(&path, start, &mut |part| {
        let mut update = Update::default();
        match part {
            Part::Records(records) => records
                .iter()
                .for_each(|(key, stored)| update.put(key, stored.to_vec())),
            Part::Operations(operations) => {
                operations
                    .iter()
                    .for_each(|(id, outcome)| update.remember(id, outcome));
            }
            Part::Head(_) | Part::End(..) => return Ok(()),
        }
        Ok(caught(|| index.apply(update))?)
    });
    loaded.map_err(|failure| match failure {
        snapshot::Failure::Index(error) => error,
        other => IndexError::Snapshot(other.to_string()),
    })
}

/// Makes the new index durable, marks it, and only then forgets that it had to be made.
fn finish_rebuild(
    layout: &Layout,
    journal: &Journal,
    tip: &mut Tip,
    index: &Index,
) -> Result<(), StoreOpenError> {
    caught(|| index.make_durable()).map_err(|error| {
        if error.is_no_space() {
            no_space(layout, &tip.state)
        } else {
            StoreOpenError::index(&error)
        }
    })?;
    tip.position.sled_through = tip.sequence;
    let mark = Frame {
        position: tip.position,
        state: tip.state,
        body: Body::Mark,
    };
    let ticket = journal.append(&mark.encode())?;
    journal.wait_blocking(ticket)?;
    tip.sequence = ticket.sequence;
    let marker = layout.rebuild_marker();
    let removed = fs::remove_file(&marker).and_then(|()| layout::sync_dir(layout.dir()));
    removed.map_err(|source| StoreOpenError::io("remove", &marker, source))
}
