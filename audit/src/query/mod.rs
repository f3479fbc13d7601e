//! Pages of the records that somebody asks for, newest first, over any number of record segments.
//!
//! Where a segment has its sidecar index, only the entry bundles with candidates are read, from the position that the index
//! has of each. Elsewhere the records are scanned. A page costs a bounded number of records read, whatever is asked: when that is
//! used up before the page is full, the page says where to go on.

mod page;
#[cfg(test)]
mod tests;
pub mod walk;

use std::error::Error;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use roaring::RoaringBitmap;

use self::page::Found;
use crate::filter::Filter;
use crate::index::Index;
use crate::segment::{BUNDLE_RECORDS, Position, SEGMENT_RECORDS, first_of, segment_of};
use crate::view::RecordView;

/// The most records of a page.
pub const MAX_PAGE: usize = 1000;
/// The most bytes of the records of a page; a single record always fits.
pub const MAX_PAGE_BYTES: usize = 4 << 20;
/// About how many records a page may read: four segments, a fraction of a second. It may be exceeded by one segment.
pub const MAX_READ: u64 = 4 * SEGMENT_RECORDS as u64;
/// What it counts to look into an index, in records: a thousand indexes and nothing else are a page's work too.
const INDEX_COST: u64 = BUNDLE_RECORDS as u64;
/// The first step of a scan back from the newest records, which are most often asked for; each further one is 4 times as long,
/// up to a segment.
const FIRST_STEP: u64 = 1024;

/// Where records are read from.
pub trait Source {
    /// Why records cannot be read.
    type Error: Error + 'static;

    /// The index of the first record that is kept: those before were pruned.
    fn first(&self) -> u64;

    /// How many records the log has, which is the index of the next one.
    fn len(&self) -> u64;

    /// Whether the log has no records.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sidecar index of a record segment. `None` if there is none or it cannot be opened: then the segment is scanned.
    fn index(&self, segment: u64) -> Option<Arc<Index>>;

    /// Calls `visit` with each record from the index `from` on, oldest first, and its index, until it breaks or there are no more.
    ///
    /// `position` is where an index says that the frame of record `from` is. It is a hint, for the journal may have been
    /// rewritten since: what is there counts only if it is the frame of that record.
    ///
    /// # Errors
    /// The records cannot be read.
    fn read(
        &self,
        from: u64,
        position: Option<Position>,
        visit: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Self::Error>;
}

/// Why a page could not be made.
#[derive(Debug, thiserror::Error)]
pub enum QueryError<E: Error + 'static> {
    /// The source failed.
    #[error(transparent)]
    Source(E),
    /// A record is not one of this version.
    #[error(
        "record {index} of the audit trail cannot be decoded: it was written by another version, or not by Fieldkeep"
    )]
    Unreadable {
        /// The record's index.
        index: u64,
    },
    /// The source ended, or went on with another record.
    #[error("record {index} of the audit trail is missing: verify the trail")]
    Missing {
        /// The record's index.
        index: u64,
    },
}

/// Some of the records that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The records, encoded, each with its index; newest first. There may be none although there are more pages.
    pub records: Vec<(u64, Vec<u8>)>,
    /// Where the next page begins, to be passed on as `before`. `None` on the last page.
    pub next: Option<u64>,
    /// How many records were read for it.
    pub read: u64,
}

/// The newest records that `filter` accepts, with indexes below `before`, or from the newest on. `limit` is at least 1 and
/// at most [`MAX_PAGE`]. Blocks as the source does.
///
/// # Errors
/// The source fails, or has not the records that it says.
pub fn list<S: Source>(
    source: &S,
    filter: &Filter,
    before: Option<u64>,
    limit: usize,
) -> Result<Page, QueryError<S::Error>> {
    let mut search = Search {
        source,
        filter,
        first: source.first(),
        end: before.unwrap_or(u64::MAX).min(source.len()),
        found: Found::new(limit.clamp(1, MAX_PAGE), MAX_PAGE_BYTES),
        read: 0,
        cost: 0,
    };
    let mut step = FIRST_STEP;
    while search.goes_on() {
        let segment = segment_of(search.end - 1);
        let start = first_of(segment).unwrap_or(0);
        let index = source.index(segment);
        search.cost += index.as_ref().map_or(0, |_| INDEX_COST);
        // An index that proves malformed in spite of its checksum is as good as none.
        match index.and_then(|index| Some((index.select(filter).ok()?, index))) {
            Some((candidates, index)) => search.take_candidates(start, candidates, &index)?,
            None => {
                let from = search.end.saturating_sub(step).max(start);
                search.take(from, None, |_| true)?;
                step = (step * 4).min(SEGMENT_RECORDS.into());
            }
        }
    }
    let next = search.found.next().unwrap_or(search.end);
    Ok(Page {
        records: search.found.into_records(),
        next: (next > search.first).then_some(next),
        read: search.read,
    })
}

/// A search on its way from the newest records to the oldest.
struct Search<'s, S> {
    source: &'s S,
    filter: &'s Filter,
    /// The first record that there is.
    first: u64,
    /// Records from here on have been looked at.
    end: u64,
    found: Found,
    read: u64,
    cost: u64,
}

impl<S: Source> Search<'_, S> {
    /// Whether there is more to look at, room for it on the page, and work left that the page may cost.
    fn goes_on(&self) -> bool {
        self.end > self.first && !self.found.is_full() && self.cost < MAX_READ
    }

    /// Looks at the candidates of the segment that begins at `start`, bundle by bundle.
    fn take_candidates(
        &mut self,
        start: u64,
        mut candidates: RoaringBitmap,
        index: &Index,
    ) -> Result<(), QueryError<S::Error>> {
        let below = |bound: u64| u32::try_from(bound.saturating_sub(start)).unwrap_or(u32::MAX);
        candidates.remove_range(below(self.end)..);
        candidates.remove_range(..below(self.first));
        while let Some(last) = candidates.max() {
            if !self.goes_on() {
                return Ok(());
            }
            let bundle = last - last % BUNDLE_RECORDS;
            let from = start + u64::from(bundle);
            let position = u16::try_from(bundle)
                .ok()
                .and_then(|offset| index.position_of(offset));
            self.end = start + u64::from(last) + 1;
            self.take(from, position, |index| {
                u32::try_from(index - start).is_ok_and(|offset| candidates.contains(offset))
            })?;
            candidates.remove_range(bundle..);
        }
        self.end = start;
        Ok(())
    }

    /// Reads the records from `from` to the end of what was not looked at yet, and takes those that are `wanted` and accepted.
    fn take(
        &mut self,
        from: u64,
        position: Option<Position>,
        wanted: impl Fn(u64) -> bool,
    ) -> Result<(), QueryError<S::Error>> {
        let (run, found) = (from..self.end, &mut self.found);
        let visit = &mut |index: u64, record: &[u8]| found.push(index, record);
        read_run(self.source, self.filter, run, position, wanted, visit)?;
        let (from, end) = (from.max(self.first), self.end);
        self.read += end - from;
        self.cost += end - from;
        self.found.finish();
        self.end = from;
        Ok(())
    }
}

/// Reads the records of `run`, but for what was pruned, and calls `visit` with those that are `wanted` and accepted, oldest first.
/// `position` is that of the first of the run.
fn read_run<S: Source>(
    source: &S,
    filter: &Filter,
    run: Range<u64>,
    position: Option<Position>,
    wanted: impl Fn(u64) -> bool,
    visit: &mut dyn FnMut(u64, &[u8]),
) -> Result<(), QueryError<S::Error>> {
    let position = position.filter(|_| run.start >= source.first());
    let from = run.start.max(source.first());
    let mut next = from;
    let mut wrong = None;
    let look = &mut |index: u64, record: &[u8]| {
        if index != next {
            wrong = Some(QueryError::Missing { index: next });
            return ControlFlow::Break(());
        }
        if wanted(index) {
            match RecordView::parse(record) {
                Ok(view) if filter.accepts_view(&view) => visit(index, record),
                Ok(_) => {}
                Err(_) => {
                    wrong = Some(QueryError::Unreadable { index });
                    return ControlFlow::Break(());
                }
            }
        }
        next += 1;
        if next < run.end {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    };
    source
        .read(from, position, look)
        .map_err(QueryError::Source)?;
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    if next < run.end {
        return Err(QueryError::Missing { index: next });
    }
    Ok(())
}
