use std::cell::Cell;
use std::convert::Infallible;
use std::sync::LazyLock;

use fieldkeep_proto::v1::{AuditRecord, AuditResource};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use prost::Message as _;

use super::*;
use crate::index::IndexBuilder;
use crate::sample;

mod walk;

const SEGMENT: u64 = SEGMENT_RECORDS as u64;

fn index_of(segment: u64, record: impl Fn(u64) -> Vec<u8>) -> Vec<u8> {
    let mut builder = IndexBuilder::new(segment);
    for offset in 0..=u16::MAX {
        let index = segment * SEGMENT + u64::from(offset);
        builder
            .add(offset, &record(index), position_of(index))
            .unwrap();
    }
    builder.finish().unwrap()
}

fn position_of(index: u64) -> Position {
    Position {
        segment: index >> 20,
        offset: index << 3,
    }
}

/// A log in memory.
struct Memory<'r> {
    records: &'r [Vec<u8>],
    first: u64,
    /// The indexes of the first segments.
    indexes: Vec<Option<Arc<Index>>>,
    /// Reads that had a position.
    at_positions: Cell<u64>,
}

impl Source for Memory<'_> {
    type Error = Infallible;

    fn first(&self) -> u64 {
        self.first
    }

    fn len(&self) -> u64 {
        self.records.len() as u64
    }

    fn index(&self, segment: u64) -> Option<Arc<Index>> {
        self.indexes.get(segment as usize)?.clone()
    }

    fn read(
        &self,
        from: u64,
        position: Option<Position>,
        visit: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        assert!(from >= self.first);
        if let Some(position) = position {
            assert_eq!(position, position_of(from));
            self.at_positions.set(self.at_positions.get() + 1);
        }
        for (index, record) in (from..).zip(&self.records[from as usize..]) {
            if visit(index, record).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Two segments with an index, and a third that is not complete.
static RECORDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut runner = TestRunner::deterministic();
    let samples: Vec<AuditRecord> = (0..700)
        .map(|_| sample::record().new_tree(&mut runner).unwrap().current())
        .collect();
    (0..2 * SEGMENT + 20_000)
        .map(|index| {
            let mut record = samples[(sample::scattered(index) % 700) as usize].clone();
            record.time_us = index / 4000 + record.time_us % 3;
            record.encode_to_vec()
        })
        .collect()
});

static INDEXES: LazyLock<Vec<Option<Arc<Index>>>> = LazyLock::new(|| {
    (0..2)
        .map(|segment| {
            let bytes = index_of(segment, |index| RECORDS[index as usize].clone());
            Some(Arc::new(Index::open(segment, bytes).unwrap()))
        })
        .collect()
});

fn log() -> Memory<'static> {
    Memory {
        records: &RECORDS,
        first: 0,
        indexes: INDEXES.clone(),
        at_positions: Cell::new(0),
    }
}

/// All pages, each of which keeps its bounds.
fn pages(source: &Memory<'_>, filter: &Filter, limit: usize) -> Vec<(u64, Vec<u8>)> {
    let (mut before, mut all) = (None, Vec::new());
    loop {
        let page = list(source, filter, before, limit).unwrap();
        assert!(page.records.len() <= limit);
        assert!(page.read < MAX_READ + SEGMENT);
        all.extend(page.records);
        let Some(next) = page.next else { return all };
        assert!(before.is_none_or(|before| next < before), "pages go on");
        before = Some(next);
    }
}

fn naive(source: &Memory<'_>, filter: &Filter) -> Vec<(u64, Vec<u8>)> {
    let mut all: Vec<_> = (0..)
        .zip(source.records)
        .skip(source.first as usize)
        .filter(|(_, record)| filter.accepts_view(&RecordView::parse(record).unwrap()))
        .map(|(index, record)| (index, record.clone()))
        .collect();
    all.reverse();
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_pages_have_what_the_filter_accepts_newest_first(
        filter in sample::filter(),
        limit in prop::sample::select(vec![150, 400, 1000]),
        indexed in (any::<bool>(), any::<bool>()),
        first in prop::sample::select(vec![0, 1, 300, 70_000]),
    ) {
        let mut source = log();
        source.first = first;
        for (slot, is_indexed) in source.indexes.iter_mut().zip([indexed.0, indexed.1]) {
            if !is_indexed {
                *slot = None;
            }
        }
        let expected = naive(&source, &filter);
        let found = pages(&source, &filter, limit);
        prop_assert!(found == expected, "{} instead of {}", found.len(), expected.len());
    }
}

#[test]
fn an_empty_log_has_one_empty_page() {
    let source = Memory {
        records: &[],
        first: 0,
        indexes: Vec::new(),
        at_positions: Cell::new(0),
    };
    assert!(source.is_empty());
    assert_eq!(
        list(&source, &Filter::default(), None, 10).unwrap(),
        Page::default()
    );
    assert_eq!(
        list(&log(), &Filter::default(), Some(0), 10).unwrap(),
        Page::default()
    );
}

#[test]
fn the_newest_records_are_read_without_the_others() {
    let page = list(&log(), &Filter::default(), None, 100).unwrap();
    assert_eq!(page.records.len(), 100);
    assert_eq!(page.records[0].0, 2 * SEGMENT + 19_999);
    assert_eq!(page.next, Some(2 * SEGMENT + 19_900));
    assert!(page.read <= FIRST_STEP);
    // Also in the middle of a segment that has an index.
    let page = list(&log(), &Filter::default(), Some(1000), 100).unwrap();
    assert_eq!((page.records[0].0, page.next), (999, Some(900)));
    assert!(page.read <= u64::from(BUNDLE_RECORDS));
}

fn one_of(count: u64, wanted: &[u64]) -> Vec<Vec<u8>> {
    let plain = AuditRecord {
        action: "encrypt".into(),
        ..AuditRecord::default()
    }
    .encode_to_vec();
    let rare = AuditRecord {
        action: "destroy".into(),
        ..AuditRecord::default()
    }
    .encode_to_vec();
    (0..count)
        .map(|index| {
            if wanted.contains(&index) {
                rare.clone()
            } else {
                plain.clone()
            }
        })
        .collect()
}

fn destroys() -> Filter {
    Filter {
        action: Some("destroy".into()),
        ..Filter::default()
    }
}

#[test]
fn without_indexes_a_page_says_where_to_go_on() {
    let records = one_of(7 * SEGMENT, &[5]);
    let source = Memory {
        records: &records,
        first: 0,
        indexes: Vec::new(),
        at_positions: Cell::new(0),
    };
    let page = list(&source, &destroys(), None, 10).unwrap();
    assert!(page.records.is_empty());
    assert!(page.read >= MAX_READ && page.read < MAX_READ + SEGMENT);
    let next = page.next.unwrap();
    assert_eq!(next, 7 * SEGMENT - page.read);
    let page = list(&source, &destroys(), Some(next), 10).unwrap();
    assert_eq!(page.records[0].0, 5);
    assert_eq!(page.next, None);
}

#[test]
fn with_indexes_only_bundles_with_candidates_are_read() {
    let wanted = [5, 255, 70_000, 3 * SEGMENT - 1];
    let records = one_of(3 * SEGMENT, &wanted);
    let indexes = (0..3)
        .map(|segment| index_of(segment, |index| records[index as usize].clone()))
        .zip(0..)
        .map(|(bytes, segment)| Some(Arc::new(Index::open(segment, bytes).unwrap())))
        .collect();
    let source = Memory {
        records: &records,
        first: 0,
        indexes,
        at_positions: Cell::new(0),
    };
    let page = list(&source, &destroys(), None, 10).unwrap();
    let found: Vec<u64> = page.records.iter().map(|(index, _)| *index).collect();
    assert_eq!(found, [3 * SEGMENT - 1, 70_000, 255, 5]);
    assert_eq!((page.next, source.at_positions.get()), (None, 3));
    assert!(page.read <= 3 * u64::from(BUNDLE_RECORDS));
}

#[test]
fn a_page_keeps_to_its_bytes() {
    let large = |index: u64| AuditRecord {
        resources: vec![AuditResource {
            name: "x".repeat(60_000),
            ..AuditResource::default()
        }],
        time_us: index,
        ..AuditRecord::default()
    };
    let records: Vec<_> = (0..200).map(|index| large(index).encode_to_vec()).collect();
    let source = Memory {
        records: &records,
        first: 0,
        indexes: Vec::new(),
        at_positions: Cell::new(0),
    };
    let page = list(&source, &Filter::default(), None, 1000).unwrap();
    assert_eq!(page.records.len(), MAX_PAGE_BYTES / 60_012);
    assert_eq!(
        pages(&source, &Filter::default(), 1000),
        naive(&source, &Filter::default())
    );

    // One record that is larger than a page is a page.
    let mut found = Found::new(10, 100);
    for index in 0..3 {
        found.push(index, &[0; 200]);
    }
    found.finish();
    assert_eq!((found.is_full(), found.next()), (true, Some(2)));
    assert_eq!(found.into_records().len(), 1);
}

#[test]
fn a_record_that_cannot_be_read_is_named_and_not_passed_over() {
    let mut records = one_of(SEGMENT + 10, &[]);
    records[400] = vec![0xff];
    let bytes = index_of(0, |index| records[index as usize].clone());
    let indexes = vec![Some(Arc::new(Index::open(0, bytes).unwrap()))];
    for indexes in [indexes, Vec::new()] {
        let source = Memory {
            records: &records,
            first: 0,
            indexes,
            at_positions: Cell::new(0),
        };
        let result = list(&source, &destroys(), None, 10);
        assert!(matches!(result, Err(QueryError::Unreadable { index: 400 })));
    }
}

/// A source that leaves out one record, or ends before it.
struct Lacking<'r> {
    inner: Memory<'r>,
    missing: u64,
    ends: bool,
}

impl Source for Lacking<'_> {
    type Error = Infallible;

    fn first(&self) -> u64 {
        self.inner.first()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn index(&self, segment: u64) -> Option<Arc<Index>> {
        self.inner.index(segment)
    }

    fn read(
        &self,
        from: u64,
        position: Option<Position>,
        visit: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        self.inner.read(from, position, &mut |index, record| {
            if index == self.missing {
                return match self.ends {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                };
            }
            visit(index, record)
        })
    }
}

#[test]
fn a_record_that_is_missing_is_named() {
    for ends in [true, false] {
        let source = Lacking {
            inner: log(),
            missing: 2 * SEGMENT + 19_990,
            ends,
        };
        let result = list(&source, &Filter::default(), None, 10);
        assert!(matches!(
            result,
            Err(QueryError::Missing { index }) if index == source.missing
        ));
    }
}
