//! The records that somebody asks for, oldest first, in as many steps as its reader likes.

use std::ops::ControlFlow;

use roaring::RoaringBitmap;

use super::{INDEX_COST, QueryError, Source};
use crate::filter::Filter;
use crate::index::Index;
use crate::segment::{
    BUNDLE_RECORDS, Position, SEGMENT_BUNDLES, SEGMENT_RECORDS, first_of, segment_of,
};
use crate::view::RecordView;

/// A walk over the records that a filter accepts, oldest first.
///
/// Of a record segment with a sidecar index, only the entry bundles with candidates are read, from the position that the index has of
/// them. What the index said, a few KiB, is kept until the walk leaves the segment, so that short steps do not open it again and again.
#[derive(Clone, Debug)]
pub struct Walk {
    filter: Filter,
    next: u64,
    until: u64,
    plan: Option<Plan>,
    read: u64,
}

/// What the index of a segment says about the walk through it.
#[derive(Clone, Debug)]
struct Plan {
    segment: u64,
    /// Offsets of the records that the filter may accept, as far as they were not looked at.
    candidates: RoaringBitmap,
    /// Where the first frame of each bundle is.
    bundles: Vec<Position>,
}

/// Records to read one after the other: from the index `from` up to, but not with, `to`.
struct Stretch {
    from: u64,
    to: u64,
    position: Option<Position>,
}

impl Walk {
    /// A walk over the records with indexes from `from` up to, but not with, `until`, as far as the log has them. With `u64::MAX` it
    /// can go on whenever there are more.
    #[must_use]
    pub fn new(filter: Filter, from: u64, until: u64) -> Walk {
        Walk {
            filter,
            next: from,
            until,
            plan: None,
            read: 0,
        }
    }

    /// The index behind the last record that was looked at.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whether all records up to `until` were looked at.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.next >= self.until
    }

    /// How many records were read so far, asked for or not.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read
    }

    /// Goes on: calls `visit` with the index and the encoded bytes of each record that the filter accepts, until it breaks, the log or the
    /// walk ends, or about `budget` records were looked at. A look into an index counts as a bundle. Records that were pruned are passed
    /// over. Blocks as the source does.
    ///
    /// # Errors
    /// The source fails, or has not the records that it says; the walk is where it came to.
    pub fn go_on<S: Source>(
        &mut self,
        source: &S,
        budget: u64,
        visit: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), QueryError<S::Error>> {
        let first = source.first();
        self.next = self.next.max(first);
        let end = self.until.min(source.len());
        let mut left = budget;
        while self.next < end && left > 0 {
            let segment = segment_of(self.next);
            if self.look_up(source, segment) {
                left = left.saturating_sub(INDEX_COST);
            }
            let behind = segment.checked_add(1).and_then(first_of);
            let end = behind.map_or(end, |behind| end.min(behind));
            let Some(stretch) = self.stretch(first, end) else {
                self.next = end;
                continue;
            };
            if self.take(source, stretch, &mut left, visit)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Sees to the plan of the segment. Whether an index was opened for it.
    fn look_up<S: Source>(&mut self, source: &S, segment: u64) -> bool {
        if matches!(&self.plan, Some(plan) if plan.segment == segment) {
            return false;
        }
        // An index that proves malformed in spite of its checksum is as good as none.
        self.plan = source
            .index(segment)
            .and_then(|index| Plan::of(&index, &self.filter));
        self.plan.is_some()
    }

    /// What to read next before `end`, which is in the same segment or its end; nothing if no record there is asked for. The records
    /// before `first` are not kept.
    fn stretch(&mut self, first: u64, end: u64) -> Option<Stretch> {
        match &mut self.plan {
            Some(plan) => plan.stretch(self.next, first, end),
            None => Some(Stretch {
                from: self.next,
                to: end,
                position: None,
            }),
        }
    }

    /// Reads a stretch, and breaks if `visit` did.
    fn take<S: Source>(
        &mut self,
        source: &S,
        stretch: Stretch,
        left: &mut u64,
        visit: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, QueryError<S::Error>> {
        let Walk {
            filter,
            next,
            plan,
            read,
            ..
        } = self;
        let Stretch { from, to, position } = stretch;
        let (mut at, mut flow, mut wrong) = (from, ControlFlow::Continue(()), None);
        let look = &mut |index: u64, record: &[u8]| {
            if index != at {
                wrong = Some(QueryError::Missing { index: at });
                return ControlFlow::Break(());
            }
            *read += 1;
            // A bundle begins before where the step before ended.
            if index >= *next {
                if plan.as_ref().is_none_or(|plan| plan.has(index)) {
                    match RecordView::parse(record) {
                        Ok(view) if filter.accepts_view(&view) => flow = visit(index, record),
                        Ok(_) => {}
                        Err(_) => {
                            wrong = Some(QueryError::Unreadable { index });
                            return ControlFlow::Break(());
                        }
                    }
                }
                *next = index + 1;
                *left = left.saturating_sub(1);
            }
            at += 1;
            if flow.is_continue() && at < to && *left > 0 {
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
        if flow.is_continue() && at < to && *left > 0 {
            return Err(QueryError::Missing { index: at });
        }
        Ok(flow)
    }
}

impl Plan {
    fn of(index: &Index, filter: &Filter) -> Option<Plan> {
        let bundle = |bundle: usize| {
            let offset = u16::try_from(bundle * BUNDLE_RECORDS as usize).ok()?;
            index.position_of(offset)
        };
        Some(Plan {
            segment: index.segment(),
            candidates: index.select(filter).ok()?,
            bundles: (0..SEGMENT_BUNDLES).map_while(bundle).collect(),
        })
    }

    fn start(&self) -> u64 {
        first_of(self.segment).unwrap_or(0)
    }

    fn has(&self, index: u64) -> bool {
        u32::try_from(index.saturating_sub(self.start()))
            .is_ok_and(|offset| self.candidates.contains(offset))
    }

    /// The next bundles with candidates, as many as follow one another: from the first candidate on that is not before `next`.
    fn stretch(&mut self, next: u64, first: u64, end: u64) -> Option<Stretch> {
        let start = self.start();
        let done = u32::try_from(next.saturating_sub(start)).unwrap_or(SEGMENT_RECORDS);
        self.candidates.remove_range(..done);
        let candidate = self.candidates.min()?;
        if start + u64::from(candidate) >= end {
            return None;
        }
        let bundle = candidate - candidate % BUNDLE_RECORDS;
        let mut behind = bundle + BUNDLE_RECORDS;
        while self
            .candidates
            .range_cardinality(behind..behind + BUNDLE_RECORDS)
            > 0
        {
            behind += BUNDLE_RECORDS;
        }
        let from = start + u64::from(bundle);
        // The first bundle that is kept may have lost its beginning.
        let position = self.bundles.get((bundle / BUNDLE_RECORDS) as usize);
        Some(Stretch {
            from: from.max(first),
            to: end.min(start + u64::from(behind)),
            position: position.copied().filter(|_| from >= first),
        })
    }
}
