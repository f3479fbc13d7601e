//! The verification of one journal segment of a log that takes long to read as a whole.

use fieldkeep_journal::Offline;
use fieldkeep_tlog::tile::SEGMENT_RECORDS;

use super::{Verified, VerifyError, Walk, Wanted, journal_error, signed_heads};

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
    let mut frames =
        Offline::open_from(wanted.dir, segment.saturating_sub(1)).map_err(journal_error)?;
    let mut walk = Walk::begin(wanted, signed, &frames)?;
    let begun = walk.come_to_first(None, &mut |_, _| {});
    let verified = begun.and_then(|()| read(wanted, segment, &mut frames, &mut walk));
    verified.map_err(|error| walk.with_suspect(error))
}

fn read(
    wanted: &Wanted<'_>,
    segment: u64,
    frames: &mut Offline,
    walk: &mut Walk<'_>,
) -> Result<Verified, VerifyError> {
    let quiet: &mut dyn FnMut(u64, u64) = &mut |_, _| {};
    if walk.read(frames, segment, quiet)? {
        let signed = walk.newest.size / SEGMENT_RECORDS;
        let tail = walk.tiles.segments().min(signed) * SEGMENT_RECORDS;
        walk.skip_to(tail)?;
        walk.compare()?;
        // Also if there is nothing to skip: the frame that was looked at last is to be read again.
        *frames = at(wanted, walk.tree.size())?;
        walk.read(frames, u64::MAX, quiet)?;
    }
    walk.ended()
}

/// The journal from the segment on that has record `index`, or the last one that begins before it.
fn at(wanted: &Wanted<'_>, index: u64) -> Result<Offline, VerifyError> {
    let mut id = u64::MAX;
    loop {
        let frames = Offline::open_from(wanted.dir, id).map_err(journal_error)?;
        match frames.segment() {
            Some(begun) if begun > 0 && begun <= id && frames.first() > index + 1 => id = begun - 1,
            _ => return Ok(frames),
        }
    }
}
