//! What opening does first: is there a store in the directory or in its mirror, may one be made, and its journal.

use std::path::Path;

use fieldkeep_journal::{self as journal, Journal};

use super::{
    SledOptions, StoreOpenError,
    frame::{Body, MAX_FRAME_BYTES, State},
    layout::{self, Layout, Stage},
    recover::decode,
};

/// Makes the directory if it must and may be made.
pub(super) fn make_dir(layout: &Layout, options: &SledOptions) -> Result<(), StoreOpenError> {
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

pub(super) fn read_or_begin_format(
    layout: &Layout,
    options: &SledOptions,
) -> Result<Stage, StoreOpenError> {
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

pub(super) fn open_journal(
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
