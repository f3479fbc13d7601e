//! Tiles as in C2SP tlog-tiles: the tree cut into rows of 256 hashes. A level-0 tile holds leaf hashes; each hash of a tile of a
//! higher level is the root of a full tile of the level below.

use crate::hash::{HASH_BYTES, Hash};
use crate::tree::root_of;

/// The hashes of a full tile.
pub const WIDTH: u16 = 256;

/// Length of a full tile in bytes.
pub const TILE_BYTES: usize = WIDTH as usize * HASH_BYTES;

/// The levels of the tree that one tile level spans: 2^8 = 256.
pub const LEVEL_BITS: u8 = 8;

/// The highest level of a tile, of which a tree of [`crate::tree::MAX_SIZE`] leaves has one.
pub const MAX_LEVEL: u8 = 7;

/// The level of the tree at which the root of a record segment is: two full tile levels.
pub const SEGMENT_LEVEL: u8 = 2 * LEVEL_BITS;

/// The records of a record segment.
pub const SEGMENT_RECORDS: u64 = 1 << SEGMENT_LEVEL;

/// The bytes are not whole hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes are not a whole number of hashes of {HASH_BYTES} bytes")]
pub struct TileError(pub usize);

/// A tile of a tree of some size: which it is, and how many hashes of it there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    level: u8,
    index: u64,
    width: u16,
}

impl Tile {
    /// The tile `index` of `level` in a tree of `size` leaves. It is partial at the right edge of the tree, and `None` beyond it: there are no
    /// empty tiles.
    pub fn in_tree(level: u8, index: u64, size: u64) -> Option<Self> {
        if level > MAX_LEVEL {
            return None;
        }
        let hashes = size >> (level * LEVEL_BITS);
        let before = index.checked_mul(WIDTH.into())?;
        let width = hashes.saturating_sub(before).min(WIDTH.into());
        (width > 0).then_some(Self {
            level,
            index,
            width: u16::try_from(width).unwrap_or(WIDTH),
        })
    }

    /// The number of hashes, 1 to 256.
    pub const fn width(&self) -> u16 {
        self.width
    }

    /// The path of the tile: `tile/<level>/<index>`, such as `tile/1/x001/x234/067`, and `.p/<width>` if it is partial.
    pub fn path(&self) -> String {
        format!("tile/{}/{}", self.level, self.place())
    }

    /// The path of the entry bundle with the records of the tile's leaves, if this is a tile of level 0: `tile/entries/<index>`.
    pub fn entries_path(&self) -> Option<String> {
        (self.level == 0).then(|| format!("tile/entries/{}", self.place()))
    }

    fn place(&self) -> String {
        let mut place = format!("{:03}", self.index % 1000);
        let mut rest = self.index / 1000;
        while rest > 0 {
            place = format!("x{:03}/{place}", rest % 1000);
            rest /= 1000;
        }
        if self.width < WIDTH {
            place.push_str(&format!(".p/{}", self.width));
        }
        place
    }
}

/// The hashes of the next tile level above `hashes`, which begin with a tile: one for each full tile. What is left over at the end makes no hash
/// there yet.
pub fn next_level(hashes: &[Hash]) -> Vec<Hash> {
    hashes.chunks_exact(WIDTH.into()).map(root_of).collect()
}

/// Appends the bytes of `hashes`, as a tile has them, to `out`.
pub fn encode_hashes(hashes: &[Hash], out: &mut Vec<u8>) {
    out.reserve(hashes.len() * HASH_BYTES);
    for hash in hashes {
        out.extend_from_slice(hash.as_bytes());
    }
}

/// The hashes of a tile, a part of one, or several.
///
/// # Errors
/// [`TileError`] if there are bytes left over.
pub fn decode_hashes(bytes: &[u8]) -> Result<Vec<Hash>, TileError> {
    let (hashes, rest) = bytes.as_chunks();
    if !rest.is_empty() {
        return Err(TileError(bytes.len()));
    }
    Ok(hashes.iter().copied().map(Hash::from_bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of C2SP tlog-tiles, "Partial Tiles": a tree of size 70,000 has 273 full level-0 tiles and one of width 112, one full level-1
    /// tile and one of width 17, one partial level-2 tile of width 1.
    #[test]
    fn a_tree_of_70_000_has_the_tiles_of_the_specification() {
        let tiles = |level| -> Vec<u16> {
            (0..)
                .map_while(|at| Tile::in_tree(level, at, 70_000))
                .map(|tile| tile.width())
                .collect()
        };
        let level_0 = tiles(0);
        assert_eq!(level_0.len(), 274);
        assert!(level_0[..273].iter().all(|width| *width == 256));
        assert_eq!(level_0[273], 112);
        assert_eq!(tiles(1), [256, 17]);
        assert_eq!(tiles(2), [1]);
        assert_eq!(tiles(3), [0; 0]);
    }

    /// From C2SP tlog-tiles, "Merkle Tree": a tree of size 256 has a full level-0 tile and a partial level-1 tile of width 1, and index 1234067 is
    /// written `x001/x234/067`.
    #[test]
    fn paths_are_those_of_the_specification() {
        let path = |level, index, size| Tile::in_tree(level, index, size).map(|tile| tile.path());
        assert_eq!(path(0, 0, 256).as_deref(), Some("tile/0/000"));
        assert_eq!(path(1, 0, 256).as_deref(), Some("tile/1/000.p/1"));
        assert_eq!(path(0, 1, 256), None);
        assert_eq!(path(0, 273, 70_000).as_deref(), Some("tile/0/273.p/112"));
        let far = Tile::in_tree(0, 1_234_067, 1 << 40).expect("is in the tree");
        assert_eq!(far.path(), "tile/0/x001/x234/067");
        assert_eq!(
            far.entries_path().as_deref(),
            Some("tile/entries/x001/x234/067")
        );
        let partial = Tile::in_tree(0, 1_000, 256_001).expect("is in the tree");
        assert_eq!(
            partial.entries_path().as_deref(),
            Some("tile/entries/x001/000.p/1")
        );
        let above = Tile::in_tree(1, 0, 70_000).expect("is in the tree");
        assert_eq!(above.entries_path(), None);
        assert_eq!(Tile::in_tree(8, 0, u64::MAX), None);
        assert_eq!(Tile::in_tree(0, u64::MAX, u64::MAX), None);
    }

    #[test]
    fn a_partial_tile_makes_no_hash_above() {
        let leaves: Vec<Hash> = (0..600u32)
            .map(|at| Hash::of_leaf(&at.to_be_bytes()))
            .collect();
        let above = next_level(&leaves);
        assert_eq!(above, [root_of(&leaves[..256]), root_of(&leaves[256..512])]);
        assert_eq!(next_level(&above), []);
    }

    #[test]
    fn bytes_left_over_are_refused() {
        let hashes = [Hash::EMPTY_ROOT, Hash::of_leaf(b"x")];
        let mut bytes = Vec::new();
        encode_hashes(&hashes, &mut bytes);
        assert_eq!(bytes.len(), 64);
        assert_eq!(decode_hashes(&bytes).as_deref(), Ok(&hashes[..]));
        bytes.push(0);
        assert_eq!(decode_hashes(&bytes), Err(TileError(65)));
        assert_eq!(decode_hashes(&bytes[..63]), Err(TileError(63)));
    }
}
