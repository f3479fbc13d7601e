//! Reading an index: strict, since a wrong answer would hide records.

use roaring::RoaringBitmap;

use super::dimension::{Asked, DIMENSIONS, Dimension, asked_by};
use super::format::{
    BUNDLES_BYTES, CRC_BYTES, ID_BYTES, IDS_BYTES, MAGIC, MAX_VALUE_BYTES, MAX_VALUES, TOO_MANY,
    VERSION, id_of,
};
use crate::filter::Filter;
use crate::segment::{BUNDLE_RECORDS, Position, SEGMENT_BUNDLES, SEGMENT_RECORDS};

/// Why bytes are not the index of a record segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// They are damaged, or something else.
    #[error(
        "the sidecar index of record segment `{segment:016x}` is damaged ({cause}): remove it and rebuild it from the records"
    )]
    Damaged {
        /// The record segment.
        segment: u64,
        /// What is wrong.
        cause: &'static str,
    },
    /// They were written by another version.
    #[error(
        "the sidecar index of record segment `{segment:016x}` has format version {version}, and this program reads version {VERSION}: rebuild it from the records"
    )]
    Version {
        /// The record segment.
        segment: u64,
        /// The version found.
        version: u32,
    },
    /// They are the index of another segment.
    #[error(
        "the sidecar index of record segment `{segment:016x}` is that of segment `{found:016x}`: rebuild it from the records"
    )]
    OtherSegment {
        /// The record segment.
        segment: u64,
        /// The segment that they are the index of.
        found: u64,
    },
}

/// The index of one record segment.
#[derive(Debug)]
pub struct Index {
    segment: u64,
    bundles: Vec<Bundle>,
    unreadable: RoaringBitmap,
    bytes: Vec<u8>,
    /// Where the request ids begin in `bytes`.
    ids_at: usize,
    /// Where each dimension's entries begin in `bytes`, and how many there are; `None` if there were too many.
    dictionaries: [Option<Dictionary>; DIMENSIONS],
}

/// The times of a bundle's records, and where its first one is.
#[derive(Debug)]
struct Bundle {
    earliest_us: u64,
    latest_us: u64,
    position: Position,
}

/// Where the entries of a dimension are.
#[derive(Clone, Copy, Debug)]
struct Dictionary {
    start: usize,
    entries: u32,
}

impl Index {
    /// The index of the record segment, from the bytes of its file.
    ///
    /// # Errors
    /// They are not the index of that segment: all say to rebuild it.
    pub fn open(segment: u64, bytes: Vec<u8>) -> Result<Index, IndexError> {
        let damaged = |cause| IndexError::Damaged { segment, cause };
        let mut rest = Rest {
            bytes: &bytes,
            segment,
        };
        if rest.take(MAGIC.len())? != MAGIC {
            return Err(damaged("its first bytes are wrong"));
        }
        let version = rest.u32()?;
        if version != VERSION {
            return Err(IndexError::Version { segment, version });
        }
        let found = rest.u64()?;
        if rest.u64()? != bytes.len() as u64 {
            return Err(damaged("its length is wrong"));
        }
        let (body, crc) = rest
            .bytes
            .split_last_chunk::<CRC_BYTES>()
            .ok_or(damaged("it is too short"))?;
        let covered = bytes
            .get(..bytes.len() - CRC_BYTES)
            .ok_or(damaged("it is too short"))?;
        if u32::from_be_bytes(*crc) != crc32fast::hash(covered) {
            return Err(damaged("its checksum is wrong"));
        }
        if found != segment {
            return Err(IndexError::OtherSegment { segment, found });
        }
        rest.bytes = body;

        let mut bundles = Vec::with_capacity(SEGMENT_BUNDLES);
        let mut of_bundles = Rest {
            bytes: rest.take(BUNDLES_BYTES)?,
            segment,
        };
        for _ in 0..SEGMENT_BUNDLES {
            bundles.push(Bundle {
                earliest_us: of_bundles.u64()?,
                latest_us: of_bundles.u64()?,
                position: Position {
                    segment: of_bundles.u64()?,
                    offset: of_bundles.u64()?,
                },
            });
        }
        let at = |rest: &Rest<'_>| covered.len() - rest.bytes.len();
        let ids_at = at(&rest);
        rest.take(IDS_BYTES)?;
        let unreadable = rest.set()?;
        let mut dictionaries = [None; DIMENSIONS];
        for dictionary in &mut dictionaries {
            let entries = rest.u32()?;
            if entries == TOO_MANY {
                continue;
            }
            if entries as usize > MAX_VALUES {
                return Err(damaged("a dimension has too many values"));
            }
            *dictionary = Some(Dictionary {
                start: at(&rest),
                entries,
            });
            rest.check_entries(entries)?;
        }
        if !rest.bytes.is_empty() {
            return Err(damaged("it has bytes behind its end"));
        }
        Ok(Index {
            segment,
            bundles,
            unreadable,
            ids_at,
            dictionaries,
            bytes,
        })
    }

    /// The record segment.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// The offsets of all records that the filter may accept: every one that it accepts is among them. The others
    /// are there because a dimension had too many values, or since the filter asks for more than the index knows.
    ///
    /// # Errors
    /// [`IndexError::Damaged`]: a set is malformed in spite of the checksum.
    pub fn select(&self, filter: &Filter) -> Result<RoaringBitmap, IndexError> {
        let mut left = self.in_time(filter);
        for (dimension, asked) in asked_by(filter) {
            if left.is_empty() {
                break;
            }
            if let Some(set) = self.union(dimension, &asked)? {
                left &= set;
            }
        }
        if let Some(request_id) = &filter.request_id
            && !left.is_empty()
        {
            left &= self.with_id(id_of(request_id));
        }
        Ok(left | &self.unreadable)
    }

    /// Where the frame of the first record of a bundle is in the journal, the bundle that has the record at `offset`.
    /// That record is found by reading on from there, at most 256 frames.
    #[must_use]
    pub fn position_of(&self, offset: u16) -> Option<Position> {
        let bundle = usize::from(offset) / BUNDLE_RECORDS as usize;
        self.bundles.get(bundle).map(|bundle| bundle.position)
    }

    /// The records of bundles that have one within the filter's times.
    fn in_time(&self, filter: &Filter) -> RoaringBitmap {
        let mut set = RoaringBitmap::new();
        for (bundle, start) in self
            .bundles
            .iter()
            .zip((0..).step_by(BUNDLE_RECORDS as usize))
        {
            if filter.from_us.is_none_or(|from| bundle.latest_us >= from)
                && filter.to_us.is_none_or(|to| bundle.earliest_us < to)
            {
                set.insert_range(start..start + BUNDLE_RECORDS);
            }
        }
        set
    }

    /// The records that have a value of the dimension as it is asked for. `None` if the dimension had too many values.
    fn union(
        &self,
        dimension: Dimension,
        asked: &Asked<'_>,
    ) -> Result<Option<RoaringBitmap>, IndexError> {
        let Some(Some(dictionary)) = self.dictionaries.get(dimension as usize) else {
            return Ok(None);
        };
        let mut rest = Rest {
            bytes: self.bytes.get(dictionary.start..).unwrap_or_default(),
            segment: self.segment,
        };
        let mut union = RoaringBitmap::new();
        for _ in 0..dictionary.entries {
            if asked.may_be(rest.value()?) {
                union |= rest.set()?;
            } else {
                rest.set_bytes()?;
            }
        }
        Ok(Some(union))
    }

    /// The records whose request id begins so.
    fn with_id(&self, id: [u8; ID_BYTES]) -> RoaringBitmap {
        let ids = self.bytes.get(self.ids_at..).unwrap_or_default();
        ids.chunks_exact(ID_BYTES)
            .zip(0..SEGMENT_RECORDS)
            .filter(|(is, _)| *is == id)
            .map(|(_, record)| record)
            .collect()
    }
}

/// What is not read yet of an index.
struct Rest<'a> {
    bytes: &'a [u8],
    segment: u64,
}

impl<'a> Rest<'a> {
    fn damaged(&self, cause: &'static str) -> IndexError {
        IndexError::Damaged {
            segment: self.segment,
            cause,
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], IndexError> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(length)
            .ok_or_else(|| self.damaged("it is too short"))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], IndexError> {
        let (taken, rest) = self
            .bytes
            .split_first_chunk()
            .ok_or_else(|| self.damaged("it is too short"))?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, IndexError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, IndexError> {
        self.array().map(u64::from_be_bytes)
    }

    fn value(&mut self) -> Result<&'a [u8], IndexError> {
        let [length] = self.array()?;
        self.take(length.into())
    }

    fn set_bytes(&mut self) -> Result<&'a [u8], IndexError> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn set(&mut self) -> Result<RoaringBitmap, IndexError> {
        let mut bytes = self.set_bytes()?;
        match RoaringBitmap::deserialize_from(&mut bytes) {
            Ok(set) if bytes.is_empty() && set.max() < Some(SEGMENT_RECORDS) => Ok(set),
            _ => Err(self.damaged("a set of records is malformed")),
        }
    }

    /// Checks that there are so many entries, sorted by their values.
    fn check_entries(&mut self, entries: u32) -> Result<(), IndexError> {
        let mut before = None;
        for _ in 0..entries {
            let value = self.value()?;
            if before >= Some(value) {
                return Err(self.damaged("its values are not sorted"));
            }
            before = Some(value);
            self.set_bytes()?;
        }
        Ok(())
    }
}

const _: () = assert!(MAX_VALUE_BYTES == u8::MAX as usize);
