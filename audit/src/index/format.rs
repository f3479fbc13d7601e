//! The numbers of the format, shared by what writes and what reads it.

use crate::segment::{SEGMENT_BUNDLES, SEGMENT_RECORDS};

/// The first bytes.
pub(super) const MAGIC: [u8; 4] = *b"FKAI";
/// The format version.
pub(super) const VERSION: u32 = 1;
/// Magic, version, segment, length of the file.
pub(super) const HEADER_BYTES: usize = 4 + 4 + 8 + 8;
/// Of each bundle: earliest and latest time, journal segment, offset in it.
pub(super) const BUNDLE_BYTES: usize = 4 * 8;
/// All bundles.
pub(super) const BUNDLES_BYTES: usize = SEGMENT_BUNDLES * BUNDLE_BYTES;
/// The beginning of a request id that the index has of each record.
pub(super) const ID_BYTES: usize = 4;
/// The beginnings of all request ids.
pub(super) const IDS_BYTES: usize = SEGMENT_RECORDS as usize * ID_BYTES;
/// CRC-32 of all bytes before it.
pub(super) const CRC_BYTES: usize = 4;

/// The most values of a dimension.
///
/// With more of them a value has less than 16 records of a segment on average: the dictionary would become as large as what it
/// is to save reading, and somebody who makes up names could make the index and the memory to build it grow without
/// end. Deployments have far fewer callers, keys and fields that are in use within 65,536 calls.
pub(super) const MAX_VALUES: usize = 4096;
/// The number of values that stands for a dimension with more than [`MAX_VALUES`].
pub(super) const TOO_MANY: u32 = u32::MAX;
/// Where a value is cut, bytes. Names that are valid are shorter than this.
pub(super) const MAX_VALUE_BYTES: usize = 255;

/// The beginning of a request id, filled up with zeros.
pub(super) fn id_of(request_id: &[u8]) -> [u8; ID_BYTES] {
    let mut id = [0; ID_BYTES];
    for (to, from) in id.iter_mut().zip(request_id) {
        *to = *from;
    }
    id
}

/// A value as the index has it.
pub(super) fn cut(value: &[u8]) -> &[u8] {
    value.get(..MAX_VALUE_BYTES).unwrap_or(value)
}
