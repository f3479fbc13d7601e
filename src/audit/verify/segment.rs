//! The verification of one journal segment of a log that takes long to read as a whole.

use fieldkeep_journal::{Offline, OfflineError};
use fieldkeep_tlog::tile::SEGMENT_RECORDS;

use super::{Verified, VerifyError, Walk, Wanted, journal_error, signed_heads};
use crate::audit::recover::TREE_DIR;
use crate::audit::tree::Tiles;

/// Verifies journal segment `segment`, the id in its file's name: its frames, that they follow those of the segment before it and are
/// followed by those of the one behind it, and that its records are the signed ones. Of the other records those without tiles,
/// behind the last complete record segment, are read as well, and the hashes in `tree/` stand for the rest; together they must
/// have the signed root. Blocks.
///
/// What is wrong in other segments does not show. [`Verified::records`] and [`Verified::bytes`] are of what was read.
///
/// # Errors
/// The first thing that is wrong, or [`VerifyError::Pruned`] if hashes are missing that have to stand for records.
pub fn verify_segment(wanted: &Wanted<'_>, segment: u64) -> Result<Verified, VerifyError> {
    let signed = signed_heads(wanted)?;
    let size = signed.last().map_or(0, |newest| newest.size);
    let tiles = Tiles::open_existing(wanted.dir.join(TREE_DIR))?;
    let tail = tiles.segments().min(size / SEGMENT_RECORDS) * SEGMENT_RECORDS;
    let mut frames = open(wanted, segment.saturating_sub(1), tail)?;
    let mut walk = Walk::begin(wanted, signed, &frames)?;
    let begun = walk.come_to_first(None, &mut |_, _| {});
    let verified = begun.and_then(|()| read(wanted, segment, tail, &mut frames, &mut walk));
    verified.map_err(|error| walk.with_suspect(error))
}

/// `tail` is the first record that no tile has the hash of.
fn read(
    wanted: &Wanted<'_>,
    segment: u64,
    tail: u64,
    frames: &mut Offline,
    walk: &mut Walk<'_>,
) -> Result<Verified, VerifyError> {
    let quiet: &mut dyn FnMut(u64, u64) = &mut |_, _| {};
    if walk.read(frames, segment, quiet)? {
        walk.skip_to(tail)?;
        walk.compare()?;
        // Also if there is nothing to skip: the frame that was looked at last is to be read again.
        *frames = open(wanted, u64::MAX, walk.tree.size())?;
        walk.read(frames, u64::MAX, quiet)?;
    }
    walk.ended()
}

/// The journal from segment `id` on, or from an earlier one: from the last that begins at record `index` or before it, and has a header
/// that can be read. Where the records of another one begin, only the segment before it says.
fn open(wanted: &Wanted<'_>, mut id: u64, index: u64) -> Result<Offline, VerifyError> {
    loop {
        let opened = Offline::open_from(wanted.dir, id);
        let too_late = match &opened {
            Ok(frames) if frames.first() <= index.saturating_add(1) => None,
            Ok(frames) => frames.segment(),
            Err(OfflineError::Damaged { segment, .. }) => Some(*segment),
            Err(_) => None,
        };
        match too_late {
            Some(begun) if begun > 0 && begun <= id => id = begun - 1,
            _ => return opened.map_err(journal_error),
        }
    }
}
