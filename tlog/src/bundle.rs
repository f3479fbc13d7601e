//! Entry bundles as in C2SP tlog-tiles: the records of a tile's leaves, each after its length as a big-endian u16. Bundles one after the
//! other read as one, so the same functions do for the archive file of a record segment.

/// The longest record, in bytes.
pub const MAX_RECORD_BYTES: usize = 65_535;

/// Why a record is not one, or bytes are not a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The record is longer than its length can say.
    #[error("a record of {0} bytes is longer than {MAX_RECORD_BYTES}")]
    RecordTooLong(usize),
    /// The bytes end within a record or its length.
    #[error("the bundle ends within a record; it is cut off or damaged")]
    Truncated,
}

/// Appends `record` to the end of `bundle`.
///
/// # Errors
/// [`BundleError::RecordTooLong`] if it is longer than [`MAX_RECORD_BYTES`].
pub fn push_entry(bundle: &mut Vec<u8>, record: &[u8]) -> Result<(), BundleError> {
    let length =
        u16::try_from(record.len()).map_err(|_| BundleError::RecordTooLong(record.len()))?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(record);
    Ok(())
}

/// The records of `bundle`, in order. How many there must be, the caller knows from the place of the bundle in the log.
pub fn entries(bundle: &[u8]) -> Entries<'_> {
    Entries(bundle)
}

/// An iterator over the records of a bundle. It ends after an error.
#[derive(Debug, Clone)]
pub struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = Result<&'a [u8], BundleError>;

    fn next(&mut self) -> Option<Self::Item> {
        let bundle = std::mem::take(&mut self.0);
        if bundle.is_empty() {
            return None;
        }
        let entry = bundle
            .split_first_chunk()
            .and_then(|(length, rest)| rest.split_at_checked(u16::from_be_bytes(*length).into()));
        Some(match entry {
            Some((record, rest)) => {
                self.0 = rest;
                Ok(record)
            }
            None => Err(BundleError::Truncated),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bundle: &[u8]) -> Result<Vec<&[u8]>, BundleError> {
        entries(bundle).collect()
    }

    #[test]
    fn what_was_pushed_comes_out() {
        let longest = vec![9; MAX_RECORD_BYTES];
        let records: [&[u8]; 4] = [b"", b"one", &longest, b"last"];
        let mut bundle = Vec::new();
        for record in records {
            push_entry(&mut bundle, record).expect("is short enough");
        }
        assert_eq!(bundle[..7], [0, 0, 0, 3, b'o', b'n', b'e']);
        assert_eq!(all(&bundle).as_deref(), Ok(&records[..]));
        assert_eq!(all(b"").as_deref(), Ok(&[][..]));
    }

    #[test]
    fn a_record_of_65_536_bytes_is_refused() {
        let mut bundle = vec![1];
        let refused = push_entry(&mut bundle, &[0; MAX_RECORD_BYTES + 1]);
        assert_eq!(refused, Err(BundleError::RecordTooLong(65_536)));
        assert_eq!(bundle, [1]);
    }

    #[test]
    fn truncated_bundles_are_refused() {
        for (malformation, bytes) in [
            ("half_a_length", &[0][..]),
            ("record_missing", &[0, 1]),
            ("record_short", &[0, 3, 1, 2]),
            ("second_length_cut", &[0, 1, 7, 0]),
        ] {
            assert_eq!(all(bytes), Err(BundleError::Truncated), "{malformation}");
            assert!(entries(bytes).count() <= 2, "it ends after the error");
        }
    }
}
