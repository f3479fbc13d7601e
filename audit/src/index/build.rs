//! Building an index while the records are written, or from records that are there.

use std::collections::HashMap;

use super::dimension::{DIMENSIONS, values_of};
use super::format::{
    BUNDLES_BYTES, CRC_BYTES, HEADER_BYTES, IDS_BYTES, MAGIC, MAX_VALUES, TOO_MANY, VERSION, cut,
    id_of,
};
use super::offsets::Offsets;
use crate::segment::{BUNDLE_RECORDS, Position, SEGMENT_BUNDLES, SEGMENT_RECORDS};
use crate::view::RecordView;

/// What was added is no complete record segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Records are added one after the other, from the segment's first on.
    #[error(
        "record {offset} of the segment was added to its index where record {expected} is due: build it from the segment's first record on"
    )]
    OutOfOrder {
        /// The offset that was given.
        offset: u16,
        /// The offset that is due.
        expected: u32,
    },
    /// Only complete segments have an index.
    #[error(
        "the segment has {records} records and no index: one is made when it has {SEGMENT_RECORDS}"
    )]
    Incomplete {
        /// The records so far.
        records: u32,
    },
}

/// Makes the index of one record segment.
///
/// It holds the values of each dimension and sets of offsets. That is about as much as the index has on disk, some hundred KiB,
/// and bounded whatever the records say: at most 4,096 values of each dimension, with at most 8 KiB and 255 bytes each.
pub struct IndexBuilder {
    segment: u64,
    records: u32,
    bundles: Vec<Bundle>,
    request_ids: Vec<u8>,
    unreadable: Offsets,
    dictionaries: [Dictionary; DIMENSIONS],
}

/// The times of a bundle's records, microseconds since the Unix epoch, and where its first one is.
#[derive(Clone, Copy)]
struct Bundle {
    earliest_us: u64,
    latest_us: u64,
    position: Position,
}

impl IndexBuilder {
    /// An index of the record segment, without records yet.
    #[must_use]
    pub fn new(segment: u64) -> IndexBuilder {
        IndexBuilder {
            segment,
            records: 0,
            bundles: Vec::with_capacity(SEGMENT_BUNDLES),
            request_ids: Vec::with_capacity(IDS_BYTES),
            unreadable: Offsets::default(),
            dictionaries: Default::default(),
        }
    }

    /// Adds the record at `offset`, its index less that of the segment's first record, whose frame is at `position`.
    ///
    /// A record that cannot be read is added too: a search finds it whatever is asked, so that it is not passed over.
    ///
    /// # Errors
    /// [`BuildError::OutOfOrder`]; nothing was added.
    pub fn add(
        &mut self,
        offset: u16,
        record: &[u8],
        position: Position,
    ) -> Result<(), BuildError> {
        let at = u32::from(offset);
        if at != self.records {
            return Err(BuildError::OutOfOrder {
                offset,
                expected: self.records,
            });
        }
        self.records += 1;
        if at.is_multiple_of(BUNDLE_RECORDS) {
            self.bundles.push(Bundle {
                earliest_us: u64::MAX,
                latest_us: 0,
                position,
            });
        }
        let Ok(view) = RecordView::parse(record) else {
            self.unreadable.add(offset);
            self.request_ids.extend_from_slice(&id_of(&[]));
            return Ok(());
        };
        if let Some(bundle) = self.bundles.last_mut() {
            bundle.earliest_us = bundle.earliest_us.min(view.time_us);
            bundle.latest_us = bundle.latest_us.max(view.time_us);
        }
        self.request_ids.extend_from_slice(&id_of(view.request_id));
        values_of(&view, |dimension, value| {
            if let Some(dictionary) = self.dictionaries.get_mut(dimension as usize) {
                dictionary.add(value, offset);
            }
        });
        Ok(())
    }

    /// The index, to be written as `<segment as 16 hexadecimal digits>.idx`.
    ///
    /// # Errors
    /// [`BuildError::Incomplete`].
    pub fn finish(self) -> Result<Vec<u8>, BuildError> {
        if self.records != SEGMENT_RECORDS {
            return Err(BuildError::Incomplete {
                records: self.records,
            });
        }
        let mut out = Vec::with_capacity(HEADER_BYTES + BUNDLES_BYTES + 2 * IDS_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&self.segment.to_be_bytes());
        let length_at = out.len();
        out.extend_from_slice(&[0; 8]);
        for bundle in &self.bundles {
            for number in [
                bundle.earliest_us,
                bundle.latest_us,
                bundle.position.segment,
                bundle.position.offset,
            ] {
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
        out.extend_from_slice(&self.request_ids);
        push_set(self.unreadable, &mut out);
        for dictionary in self.dictionaries {
            dictionary.finish(&mut out);
        }
        let length = (out.len() + CRC_BYTES) as u64;
        if let Some(field) = out.get_mut(length_at..length_at + 8) {
            field.copy_from_slice(&length.to_be_bytes());
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        Ok(out)
    }
}

/// The values of one dimension.
#[derive(Default)]
struct Dictionary {
    /// Where each value is in `entries`.
    places: HashMap<Box<[u8]>, usize>,
    entries: Vec<Entry>,
    /// The entry that was added to last: often the next record has the same value.
    last: usize,
    too_many: bool,
}

struct Entry {
    value: Box<[u8]>,
    records: Offsets,
}

impl Dictionary {
    fn add(&mut self, value: &[u8], record: u16) {
        if self.too_many {
            return;
        }
        let value = cut(value);
        let same = |entry: &Entry| *entry.value == *value;
        if !self.entries.get(self.last).is_some_and(same) {
            match self.places.get(value) {
                Some(place) => self.last = *place,
                None => return self.add_value(value, record),
            }
        }
        if let Some(entry) = self.entries.get_mut(self.last) {
            entry.records.add(record);
        }
    }

    fn add_value(&mut self, value: &[u8], record: u16) {
        if self.entries.len() == MAX_VALUES {
            *self = Dictionary {
                too_many: true,
                ..Dictionary::default()
            };
            return;
        }
        self.last = self.entries.len();
        self.places.insert(value.into(), self.last);
        let mut records = Offsets::default();
        records.add(record);
        self.entries.push(Entry {
            value: value.into(),
            records,
        });
    }

    fn finish(mut self, out: &mut Vec<u8>) {
        if self.too_many {
            out.extend_from_slice(&TOO_MANY.to_be_bytes());
            return;
        }
        // The same records give the same bytes.
        self.entries
            .sort_unstable_by(|one, other| one.value.cmp(&other.value));
        out.extend_from_slice(&(self.entries.len() as u32).to_be_bytes());
        for entry in self.entries {
            out.push(entry.value.len() as u8);
            out.extend_from_slice(&entry.value);
            push_set(entry.records, out);
        }
    }
}

/// A set in the Roaring format, with its length before it.
fn push_set(set: Offsets, out: &mut Vec<u8>) {
    let set = set.finish();
    out.extend_from_slice(&(set.serialized_size() as u32).to_be_bytes());
    // Writing to memory cannot fail; if it did, the length would not fit, and the index be refused when it is opened.
    let _ = set.serialize_into(out);
}
