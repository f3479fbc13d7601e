//! Writing a record segment to the archive, as a stream.

use std::error::Error;
use std::io::{self, Write};

use zstd::stream::write::Encoder;

use super::ArchiveError;
use super::store::ArchiveStore;
use crate::segment::{MAX_RECORD_BYTES, SEGMENT_RECORDS, first_of};

/// zstd's own default: records of one trail are much alike, and shrink to a fifth.
const LEVEL: i32 = 3;
/// The logarithm of the window, bytes: what a reader must keep in memory.
pub(super) const WINDOW_LOG: u32 = 21;

/// What [`write_segment`] wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the entry bundles.
    pub bytes: u64,
    /// Bytes of the archive file.
    pub compressed_bytes: u64,
}

/// Archives a record segment: `records` are its 65,536 records, oldest first. Verify the file afterwards, before the records
/// are pruned. Blocks.
///
/// # Errors
/// Nothing was archived: there are more or fewer records, one of them cannot be read or is too large, or the store failed.
pub fn write_segment<R, E>(
    store: &dyn ArchiveStore,
    segment: u64,
    records: impl IntoIterator<Item = Result<R, E>>,
) -> Result<Written, ArchiveError>
where
    R: AsRef<[u8]>,
    E: Error + Send + Sync + 'static,
{
    let first = first_of(segment).ok_or(ArchiveError::NoSegment { segment })?;
    let mut records = records.into_iter().enumerate();
    let mut written = Written::default();
    store.put(segment, &mut |out| {
        let failed = |source| ArchiveError::Write { segment, source };
        let mut out = encoder(out).map_err(failed)?;
        let mut count = 0;
        for (offset, record) in records.by_ref() {
            let index = first.saturating_add(offset as u64);
            let record = record.map_err(|source| ArchiveError::Records {
                index,
                source: source.into(),
            })?;
            let record = record.as_ref();
            let length = u16::try_from(record.len()).map_err(|_| ArchiveError::TooLarge {
                index,
                bytes: record.len(),
            })?;
            count += 1;
            if count > u64::from(SEGMENT_RECORDS) {
                break;
            }
            out.write_all(&length.to_be_bytes()).map_err(failed)?;
            out.write_all(record).map_err(failed)?;
            written.bytes += 2 + u64::from(length);
        }
        if count != u64::from(SEGMENT_RECORDS) {
            return Err(ArchiveError::Incomplete {
                segment,
                records: count,
            });
        }
        written.compressed_bytes = out.finish().map_err(failed)?.bytes;
        Ok(())
    })?;
    Ok(written)
}

/// One frame, whose content has a checksum.
fn encoder<W: Write>(out: W) -> io::Result<Encoder<'static, Counted<W>>> {
    let mut encoder = Encoder::new(Counted { out, bytes: 0 }, LEVEL)?;
    encoder.window_log(WINDOW_LOG)?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

/// Counts what is written.
struct Counted<W> {
    out: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.out.write(buffer)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

const _: () = assert!(MAX_RECORD_BYTES == u16::MAX as usize);
