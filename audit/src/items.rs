//! The keyed hashes of single items, as a resource of a record has them: entries of fixed length, one behind the other.
//!
//! `docs/audit-format.md` specifies the bytes, `docs/ciphertext-format.md` the hash.

/// The length of a hash, bytes.
pub const HASH_BYTES: usize = 8;
/// The length of an entry: item, code, hash; bytes.
pub const ENTRY_BYTES: usize = 2 + 1 + HASH_BYTES;

/// One item of a call, told by its hash alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemHash<'a> {
    /// Its index in the call's message, from 0; 0 on unary calls.
    pub item: u16,
    /// The `google.rpc.Code` that it ended with.
    pub code: u8,
    /// The keyed hash.
    pub hash: &'a [u8; HASH_BYTES],
}

/// The entry of an item.
#[must_use]
pub fn entry(item: u16, code: u8, hash: [u8; HASH_BYTES]) -> [u8; ENTRY_BYTES] {
    let [high, low] = item.to_be_bytes();
    let [a, b, c, d, e, f, g, h] = hash;
    [high, low, code, a, b, c, d, e, f, g, h]
}

/// The items of `packed`, in its order. What is no whole entry at its end is left out.
pub fn items(packed: &[u8]) -> impl Iterator<Item = ItemHash<'_>> + Clone {
    let (entries, _) = packed.as_chunks::<ENTRY_BYTES>();
    entries.iter().map(|entry| {
        let [high, low, code, hash @ ..] = entry;
        ItemHash {
            item: u16::from_be_bytes([*high, *low]),
            code: *code,
            hash,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_were_written() {
        let packed = [
            entry(0, 0, [1; HASH_BYTES]),
            entry(9_999, 3, [2, 3, 4, 5, 6, 7, 8, 9]),
        ]
        .concat();
        assert_eq!(packed.len(), 22);
        assert_eq!(packed[11..], [0x27, 0x0f, 3, 2, 3, 4, 5, 6, 7, 8, 9]);
        let read: Vec<_> = items(&packed).collect();
        let told = |at: usize| (read[at].item, read[at].code, read[at].hash);
        assert_eq!(told(0), (0, 0, &[1; HASH_BYTES]));
        assert_eq!(told(1), (9_999, 3, &[2, 3, 4, 5, 6, 7, 8, 9]));
        assert_eq!(items(&packed[..21]).count(), 1);
        assert_eq!(items(&[]).count(), 0);
    }
}
