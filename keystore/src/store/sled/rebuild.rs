//! Rebuilding the index from what is the truth: a snapshot and the journal's frames after it.

use std::{fs, path::Path};

use fieldkeep_journal::Journal;

use super::{
    SledOptions, StoreOpenError,
    frame::{Body, Frame},
    index::{Index, IndexError, Update, caught},
    layout::{self, Layout},
    recover::{ReplayError, Tip, check, replay, snapshot_dirs},
    snapshot::{self, Part, Start},
};

/// Makes a new index from the newest usable snapshot, or from nothing if the journal is complete, and the frames after
/// it. The old one is moved aside. A crash in between leaves the marker, and the next open begins again.
pub(super) fn rebuild(
    layout: &Layout,
    options: &SledOptions,
    journal: &Journal,
    tip: &mut Tip,
    generations: &[Start],
    reason: &str,
) -> Result<Index, StoreOpenError> {
    const AGAIN: &str = "a rebuild was not finished";
    let io = |source| StoreOpenError::io("move aside", &layout.sled(), source);
    if reason != AGAIN {
        layout.move_index_aside().map_err(io)?;
    }
    layout
        .mark_for_rebuild(AGAIN)
        .map_err(|source| StoreOpenError::io("write", &layout.rebuild_marker(), source))?;
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
    caught(|| index.make_durable()).map_err(|error| StoreOpenError::index(&error))?;
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
