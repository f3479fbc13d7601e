use super::*;
use crate::query::walk::Walk;

/// Goes on until the walk comes no further, in steps of so many accepted records and such a budget.
fn walked(source: &Memory<'_>, walk: &mut Walk, step: usize, budget: u64) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    loop {
        let before = walk.next();
        let mut left = step;
        let visit = &mut |index: u64, record: &[u8]| {
            all.push((index, record.to_vec()));
            left -= 1;
            match left {
                0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        };
        walk.go_on(source, budget, visit).unwrap();
        if walk.next() == before {
            return all;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_walk_in_any_steps_has_what_the_filter_accepts_oldest_first(
        filter in sample::filter(),
        step in prop::sample::select(vec![1000, 7777, 1_000_000]),
        budget in prop::sample::select(vec![300, 20_000, 1_000_000]),
        indexed in (any::<bool>(), any::<bool>()),
        first in prop::sample::select(vec![0, 1, 300, 70_000]),
        from in prop::sample::select(vec![0, 1000, 65_535, 65_536]),
        until in prop::sample::select(vec![500, 65_536, 140_000, u64::MAX]),
    ) {
        let mut source = log();
        source.first = first;
        for (slot, is_indexed) in source.indexes.iter_mut().zip([indexed.0, indexed.1]) {
            if !is_indexed {
                *slot = None;
            }
        }
        let mut expected = naive(&source, &filter);
        expected.reverse();
        expected.retain(|(index, _)| (from..until).contains(index));
        let mut walk = Walk::new(filter, from, until);
        let found = walked(&source, &mut walk, step, budget);
        prop_assert!(found == expected, "{} instead of {}", found.len(), expected.len());
        let end = until.min(source.len());
        prop_assert_eq!(walk.next(), end.max(from).max(first));
        prop_assert_eq!(walk.is_over(), walk.next() >= until);
    }
}

/// Three segments of which each has a time of its own, and a rest.
fn three_times() -> (Vec<Vec<u8>>, Vec<Option<Arc<Index>>>) {
    let records: Vec<_> = (0..3 * SEGMENT + 10)
        .map(|index| {
            let record = AuditRecord {
                time_us: 1_000 * (index / SEGMENT) + index % 7,
                ..AuditRecord::default()
            };
            record.encode_to_vec()
        })
        .collect();
    let indexes = (0..3)
        .map(|segment| {
            let bytes = index_of(segment, |index| records[index as usize].clone());
            Some(Arc::new(Index::open(segment, bytes).unwrap()))
        })
        .collect();
    (records, indexes)
}

#[test]
fn segments_without_a_record_in_the_range_of_time_are_not_read() {
    let (records, indexes) = three_times();
    let source = Memory {
        records: &records,
        first: 0,
        indexes,
        at_positions: Cell::new(0),
    };
    let between = |from_us, to_us| Filter {
        from_us: Some(from_us),
        to_us: Some(to_us),
        ..Filter::default()
    };
    let mut walk = Walk::new(between(1_000, 2_000), 0, 3 * SEGMENT);
    let found = walked(&source, &mut walk, usize::MAX, u64::MAX);
    let indexes = found.iter().map(|(index, _)| *index);
    assert!(indexes.eq(SEGMENT..2 * SEGMENT));
    assert_eq!(walk.read(), SEGMENT, "the one segment and no other");
    assert_eq!(source.at_positions.get(), 1, "in one go");
    assert!(walk.is_over());
    // No record at all is read if none is asked for.
    let mut walk = Walk::new(between(5_000, 6_000), 0, 3 * SEGMENT);
    assert!(walked(&source, &mut walk, usize::MAX, u64::MAX).is_empty());
    assert_eq!((walk.read(), walk.next()), (0, 3 * SEGMENT));
}

#[test]
fn short_steps_cost_no_more_than_the_bundle_they_begin_in() {
    let (records, indexes) = three_times();
    let source = Memory {
        records: &records,
        first: 0,
        indexes,
        at_positions: Cell::new(0),
    };
    let mut walk = Walk::new(Filter::default(), 0, SEGMENT);
    let found = walked(&source, &mut walk, 100, u64::MAX);
    assert_eq!(found.len() as u64, SEGMENT);
    assert!(walk.read() < SEGMENT / 100 * 400);
}

#[test]
fn a_walk_without_an_end_goes_on_with_what_came() {
    let records = one_of(40, &[3, 30]);
    let mut source = Memory {
        records: &records[..20],
        first: 0,
        indexes: Vec::new(),
        at_positions: Cell::new(0),
    };
    let mut walk = Walk::new(destroys(), 0, u64::MAX);
    let indexes = |found: Vec<(u64, Vec<u8>)>| -> Vec<u64> {
        found.into_iter().map(|(index, _)| index).collect()
    };
    assert_eq!(indexes(walked(&source, &mut walk, 10, 1_000)), [3]);
    assert_eq!(walk.next(), 20);
    source.records = &records;
    assert_eq!(indexes(walked(&source, &mut walk, 10, 1_000)), [30]);
    assert_eq!((walk.next(), walk.is_over()), (40, false));
}

#[test]
fn what_a_walk_cannot_read_is_named() {
    let accept = &mut |_: u64, _: &[u8]| ControlFlow::Continue(());
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
        let mut walk = Walk::new(destroys(), 0, u64::MAX);
        let result = walk.go_on(&source, u64::MAX, accept);
        assert!(matches!(result, Err(QueryError::Unreadable { index: 400 })));
        assert_eq!(walk.next(), 400);
    }
    for ends in [true, false] {
        let source = Lacking {
            inner: log(),
            missing: 2 * SEGMENT + 10,
            ends,
        };
        let mut walk = Walk::new(Filter::default(), 2 * SEGMENT, u64::MAX);
        let result = walk.go_on(&source, u64::MAX, accept);
        let missing = source.missing;
        assert!(matches!(result, Err(QueryError::Missing { index }) if index == missing));
        assert_eq!(walk.next(), missing);
    }
}
