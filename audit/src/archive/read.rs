//! Reading a record segment from the archive, and comparing it with the log.

use std::io::{self, BufRead, BufReader, Read};

use ring::digest::{Context, SHA256};
use zstd::stream::read::Decoder;

use super::store::ArchiveStore;
use super::write::WINDOW_LOG;
use super::{ArchiveError, Damage};
use crate::segment::{BUNDLE_RECORDS, SEGMENT_RECORDS, first_of};

/// What [`verify`] read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Records.
    pub records: u64,
    /// Bytes of the entry bundles.
    pub bytes: u64,
}

/// The leaf hash of a record: SHA-256(0x00 || record) (RFC 6962, section 2.1).
#[must_use]
pub fn leaf_hash(record: &[u8]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(&[0]);
    context.update(record);
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    hash
}

/// The archived record segment, to be read from its first record on.
///
/// # Errors
/// The archive does not have it, or it cannot be opened.
pub fn open(
    store: &dyn ArchiveStore,
    segment: u64,
) -> Result<SegmentReader<Box<dyn Read + Send>>, ArchiveError> {
    SegmentReader::new(segment, store.get(segment)?)
}

/// Reads the archived record segment completely and shows `is_leaf` the index and leaf hash of each record, oldest first. It
/// says whether that is the hash of that record in the log.
///
/// # Errors
/// The first record that cannot be read or is another: nothing may be pruned.
pub fn verify(
    store: &dyn ArchiveStore,
    segment: u64,
    mut is_leaf: impl FnMut(u64, &[u8; 32]) -> bool,
) -> Result<Verified, ArchiveError> {
    let mut reader = open(store, segment)?;
    let mut verified = Verified::default();
    while let Some((index, record)) = reader.next_record()? {
        if !is_leaf(index, &leaf_hash(record)) {
            return Err(ArchiveError::OtherRecord { index });
        }
        verified.records += 1;
        verified.bytes += 2 + record.len() as u64;
    }
    Ok(verified)
}

/// The entry bundle of this number within the archived record segment: 256 records, each after its length as a big-endian `u16`.
///
/// The file is read up to that bundle. The checksum at its end is not looked at, so that a caller who needs to know
/// compares the records' leaf hashes.
///
/// # Errors
/// The archive does not have the segment, or it is damaged before the bundle's end.
pub fn read_bundle(
    store: &dyn ArchiveStore,
    segment: u64,
    bundle: u8,
) -> Result<Vec<u8>, ArchiveError> {
    let mut reader = open(store, segment)?;
    let first = u32::from(bundle) * BUNDLE_RECORDS;
    let mut bytes = Vec::new();
    for offset in 0..first + BUNDLE_RECORDS {
        let Some((_, record)) = reader.next_record()? else {
            break;
        };
        if offset >= first {
            // A record that was read has a length of two bytes.
            bytes.extend_from_slice(&(record.len() as u16).to_be_bytes());
            bytes.extend_from_slice(record);
        }
    }
    Ok(bytes)
}

/// An archive file that is being read. It needs memory for zstd's window, 2 MiB, and one record, whatever the file says.
pub struct SegmentReader<R: Read> {
    from: BufReader<Decoder<'static, BufReader<R>>>,
    segment: u64,
    first: u64,
    /// How many records were read.
    read: u32,
    is_damaged: bool,
    record: Vec<u8>,
}

impl<R: Read> SegmentReader<R> {
    /// Reads the archive file of a record segment from `file`.
    ///
    /// # Errors
    /// There is no such segment, or no memory.
    pub fn new(segment: u64, file: R) -> Result<SegmentReader<R>, ArchiveError> {
        let first = first_of(segment).ok_or(ArchiveError::NoSegment { segment })?;
        let decoder = Decoder::new(file).and_then(|mut decoder| {
            decoder.window_log_max(WINDOW_LOG)?;
            Ok(decoder.single_frame())
        });
        let decoder = decoder.map_err(|source| ArchiveError::Damaged {
            segment,
            index: first,
            cause: source.into(),
        })?;
        Ok(SegmentReader {
            from: BufReader::with_capacity(1 << 16, decoder),
            segment,
            first,
            read: 0,
            is_damaged: false,
            record: Vec::new(),
        })
    }

    /// The next record and its index. `None` after the last one, once it is certain that the file ends there and its checksum is right.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`], and again whenever it is called afterwards.
    pub fn next_record(&mut self) -> Result<Option<(u64, &[u8])>, ArchiveError> {
        let index = self.first.saturating_add(self.read.into());
        let read = if self.is_damaged {
            Err(Damage::Before)
        } else if self.read == SEGMENT_RECORDS {
            self.check_end().map(|()| false)
        } else {
            self.read_record().map(|()| true).map_err(Damage::from)
        };
        match read {
            Ok(true) => {
                self.read += 1;
                Ok(Some((index, &self.record)))
            }
            Ok(false) => Ok(None),
            Err(cause) => {
                self.is_damaged = true;
                Err(ArchiveError::Damaged {
                    segment: self.segment,
                    index,
                    cause,
                })
            }
        }
    }

    fn read_record(&mut self) -> io::Result<()> {
        let mut length = [0; 2];
        self.from.read_exact(&mut length)?;
        // At most 65,535 bytes, all of which records may have.
        self.record.resize(u16::from_be_bytes(length).into(), 0);
        self.from.read_exact(&mut self.record)
    }

    fn check_end(&mut self) -> Result<(), Damage> {
        let is_content_read = self.from.fill_buf()?.is_empty();
        let is_file_read = self.from.get_mut().get_mut().fill_buf()?.is_empty();
        match is_content_read && is_file_read {
            true => Ok(()),
            false => Err(Damage::Trailing),
        }
    }
}
