//! All records that somebody asks for, oldest first, some at a time: for what sums them up.

use super::{INDEX_COST, QueryError, Source, read_run};
use crate::filter::Filter;
use crate::segment::{BUNDLE_RECORDS, SEGMENT_RECORDS, first_of, segment_of};

/// About how many records one step may read: a segment, a tenth of a second. It may be exceeded by one segment.
const MAX_STEP: u64 = SEGMENT_RECORDS as u64;

/// Calls `visit` with records that `filter` accepts, and their indexes, oldest first: those from the index `from` on to just before
/// `until`. Stops after a step of bounded work. Gives the index to go on from, which is `until` when all is done. Blocks as the
/// source does.
///
/// # Errors
/// The source fails, or has not all records of the range, since some were pruned for example: none is passed over.
pub fn walk<S: Source>(
    source: &S,
    filter: &Filter,
    from: u64,
    until: u64,
    visit: &mut dyn FnMut(u64, &[u8]),
) -> Result<u64, QueryError<S::Error>> {
    if from < source.first() {
        return Err(QueryError::Missing { index: from });
    }
    let (mut next, mut cost) = (from, 0);
    while next < until && cost < MAX_STEP {
        let segment = segment_of(next);
        let start = first_of(segment).unwrap_or(next);
        let end = start.saturating_add(SEGMENT_RECORDS.into()).min(until);
        let index = source.index(segment);
        cost += index.as_ref().map_or(0, |_| INDEX_COST);
        // An index that proves malformed in spite of its checksum is as good as none.
        cost += match index.and_then(|index| Some((index.select(filter).ok()?, index))) {
            None => {
                read_run(source, filter, next..end, None, |_| true, visit)?;
                end - next
            }
            Some((mut candidates, index)) => {
                candidates.remove_range(..offset(next, start));
                candidates.remove_range(offset(end, start)..);
                let mut read = 0;
                while let Some(first) = candidates.min() {
                    let bundle = first - first % BUNDLE_RECORDS;
                    // Bundles with candidates that follow each other are one run.
                    let mut behind = bundle + BUNDLE_RECORDS;
                    while candidates.range_cardinality(behind..behind + BUNDLE_RECORDS) > 0 {
                        behind += BUNDLE_RECORDS;
                    }
                    let position = u16::try_from(bundle)
                        .ok()
                        .and_then(|bundle| index.position_of(bundle));
                    let run = start + u64::from(bundle)..end.min(start + u64::from(behind));
                    read += run.end - run.start;
                    let wanted = |index| candidates.contains(offset(index, start));
                    read_run(source, filter, run, position, wanted, visit)?;
                    candidates.remove_range(..behind);
                }
                read
            }
        };
        next = end;
    }
    Ok(next)
}

/// The place of a record in the segment that begins at `start`.
fn offset(index: u64, start: u64) -> u32 {
    u32::try_from(index.saturating_sub(start)).unwrap_or(u32::MAX)
}
