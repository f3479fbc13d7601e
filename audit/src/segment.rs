//! How the records of the trail are divided: record segments, and entry bundles within them.

/// Records of a complete record segment, two full tile levels (C2SP tlog-tiles): segment n has the records from
/// n * 65,536 on.
pub const SEGMENT_RECORDS: u32 = 65_536;

/// Records of an entry bundle (C2SP tlog-tiles). A record segment has 256 bundles.
pub const BUNDLE_RECORDS: u32 = 256;

/// Bundles of a record segment.
pub const SEGMENT_BUNDLES: usize = 256;

/// The largest record, bytes.
pub const MAX_RECORD_BYTES: usize = 65_535;

/// Where a record's frame is in the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Id of the journal segment, as in its file's name.
    pub segment: u64,
    /// The frame's first byte in that file.
    pub offset: u64,
}

/// The record segment that the record of this index belongs to.
#[must_use]
pub const fn segment_of(index: u64) -> u64 {
    index / SEGMENT_RECORDS as u64
}

/// The index of the first record of a record segment. `None` if there is no such segment, since indexes end at 2^64 - 1.
#[must_use]
pub const fn first_of(segment: u64) -> Option<u64> {
    segment.checked_mul(SEGMENT_RECORDS as u64)
}
