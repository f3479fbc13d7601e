//! Reading a trail from the oldest record on.

use std::fs;
use std::ops::ControlFlow;

use fieldkeep_audit::filter::Filter;
use fieldkeep_audit::query::QueryError;
use fieldkeep_audit::query::walk::Walk;
use fieldkeep_tlog::tile::SEGMENT_RECORDS;

use super::*;

/// The indexes of the records that a walk over all of the trail accepts, and how many it read.
fn walked(log: &AuditLog, filter: Filter) -> Result<(Vec<u64>, u64), QueryError<AuditError>> {
    let mut walk = Walk::new(filter, 0, log.len());
    let (mut found, mut held) = (Vec::new(), None);
    while !walk.is_over() {
        log.walk(&mut walk, &mut held, 10_000, &mut |index, _| {
            found.push(index);
            ControlFlow::Continue(())
        })?;
    }
    Ok((found, walk.read()))
}

#[test]
fn a_range_of_time_is_read_without_the_segments_that_have_nothing_of_it() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir);
    // The time of a record is its index.
    fill(&log, SEGMENT_RECORDS + 999);
    wait_for_index(&dir);
    let since = |from_us| Filter {
        from_us: Some(from_us),
        ..Filter::default()
    };
    let last: Vec<u64> = (SEGMENT_RECORDS + 500..SEGMENT_RECORDS + 1000).collect();
    let (found, read) = walked(&log, since(SEGMENT_RECORDS + 500)).unwrap();
    assert_eq!((found, read), (last.clone(), 1000));
    let (found, read) = walked(&log, since(SEGMENT_RECORDS - 300)).unwrap();
    assert_eq!(found.len(), 1300);
    assert_eq!(read, 512 + 1000, "two bundles of the first segment");
    let (found, _) = walked(&log, Filter::default()).unwrap();
    assert!(found.into_iter().eq(0..SEGMENT_RECORDS + 1000));

    // What is not read may as well be damaged.
    let first = fs::read_dir(dir.path().join("audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .min()
        .unwrap();
    let mut bytes = fs::read(&first).unwrap();
    bytes[100_000] ^= 1;
    fs::write(&first, bytes).unwrap();
    assert_eq!(walked(&log, since(SEGMENT_RECORDS + 500)).unwrap().0, last);
    assert!(walked(&log, Filter::default()).is_err());
}
