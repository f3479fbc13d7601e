//! Steps through all records, oldest first.

use super::*;
use crate::query::walk::walk;

/// All that is found from `from` to `until`, and how many steps that took.
fn steps(
    source: &Memory<'_>,
    filter: &Filter,
    from: u64,
    until: u64,
) -> (Vec<(u64, Vec<u8>)>, usize) {
    let (mut next, mut all, mut count) = (from, Vec::new(), 0);
    while next < until {
        let visit = &mut |index: u64, record: &[u8]| all.push((index, record.to_vec()));
        let after = walk(source, filter, next, until, visit).unwrap();
        assert!(after > next, "steps go on");
        next = after;
        count += 1;
    }
    (all, count)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_steps_have_what_the_filter_accepts_oldest_first(
        filter in sample::filter(),
        indexed in (any::<bool>(), any::<bool>()),
        first in prop::sample::select(vec![0, 1, 300, 70_000]),
        ahead in prop::sample::select(vec![0, 299, SEGMENT, SEGMENT + 300]),
        until in prop::sample::select(vec![100, SEGMENT - 1, 2 * SEGMENT + 20_000]),
    ) {
        let mut source = log();
        source.first = first;
        let from = first + ahead;
        for (slot, is_indexed) in source.indexes.iter_mut().zip([indexed.0, indexed.1]) {
            if !is_indexed {
                *slot = None;
            }
        }
        let mut expected = naive(&source, &filter);
        expected.reverse();
        expected.retain(|(index, _)| (from..until).contains(index));
        let (found, _) = steps(&source, &filter, from, until);
        prop_assert!(found == expected, "{} instead of {}", found.len(), expected.len());
    }
}

#[test]
fn of_other_times_no_record_is_read() {
    let source = log();
    // The times of the samples are those of the segments, some 4,000 records to a microsecond.
    let filter = Filter {
        from_us: Some(20),
        to_us: Some(21),
        ..Filter::default()
    };
    let (found, count) = steps(&source, &filter, 0, 2 * SEGMENT);
    assert!(!found.is_empty());
    // One run of bundles in the second segment, found by its position.
    assert_eq!((count, source.at_positions.get()), (1, 1));
    assert!(
        found
            .iter()
            .all(|(index, _)| (SEGMENT..2 * SEGMENT).contains(index))
    );
}

#[test]
fn a_step_without_an_index_ends_after_a_segment() {
    let mut source = log();
    source.indexes.clear();
    let (_, count) = steps(&source, &Filter::default(), 0, 2 * SEGMENT + 20_000);
    assert_eq!(count, 3);
    // It visits nothing at and behind the end that was given.
    let (found, _) = steps(&source, &Filter::default(), 10, 12);
    let indexes: Vec<u64> = found.iter().map(|(index, _)| *index).collect();
    assert_eq!(indexes, [10, 11]);
}

#[test]
fn a_record_that_is_missing_or_unreadable_ends_the_walk() {
    let lacking = Lacking {
        inner: log(),
        missing: 2 * SEGMENT + 5,
        ends: false,
    };
    let walked = walk(
        &lacking,
        &Filter::default(),
        2 * SEGMENT,
        2 * SEGMENT + 9,
        &mut |_, _| {},
    );
    assert!(matches!(walked, Err(QueryError::Missing { index }) if index == 2 * SEGMENT + 5));
    let mut records = one_of(10, &[]);
    records[4] = vec![0xff];
    let source = Memory {
        records: &records,
        first: 0,
        indexes: Vec::new(),
        at_positions: Cell::new(0),
    };
    let walked = walk(&source, &destroys(), 0, 10, &mut |_, _| {});
    assert!(matches!(walked, Err(QueryError::Unreadable { index: 4 })));
    // What was pruned since the walk began is missing, too.
    let pruned = Memory { first: 3, ..source };
    let walked = walk(&pruned, &destroys(), 2, 3, &mut |_, _| {});
    assert!(matches!(walked, Err(QueryError::Missing { index: 2 })));
}
