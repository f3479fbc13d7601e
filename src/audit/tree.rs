//! The hashes of the trail's Merkle tree on disk: what proofs are made of.
//!
//! Each complete record segment has a file with its tiles, so that its root and every hash within it is found without the
//! records. Nothing is kept for the records behind the last complete segment: their hashes are computed from the journal.
//! None of this is evidence, and all of it can be made again from the records.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::tile::{
    SEGMENT_RECORDS, TILE_BYTES, WIDTH, decode_hashes, encode_hashes, next_level,
};
use fieldkeep_tlog::tree::root_of;

/// Tiles of level 0 in the file of a segment; the one of level 1 follows them.
pub(super) const LEAF_TILES: u64 = SEGMENT_RECORDS / WIDTH as u64;
/// Bytes of the file of a segment.
const FILE_BYTES: u64 = (LEAF_TILES + 1) * TILE_BYTES as u64;

/// The directory of the tile files, and the root of each segment that has one, from the first on without gaps.
#[derive(Debug)]
pub(super) struct Tiles {
    dir: PathBuf,
    roots: Mutex<Vec<Hash>>,
}

impl Tiles {
    /// Opens the directory, or makes it, and reads the roots of the first `segments` segments; of fewer, if one has no whole file.
    ///
    /// # Errors
    /// The directory cannot be made, or a file in it not be read.
    pub(super) fn open(dir: PathBuf, segments: u64) -> io::Result<Tiles> {
        fs::create_dir_all(&dir)?;
        let roots = read_roots(&dir, segments)?;
        Ok(Tiles {
            dir,
            roots: Mutex::new(roots),
        })
    }

    /// Opens a directory as it is, and changes nothing; none is one without files.
    ///
    /// # Errors
    /// A file in it cannot be read.
    pub(super) fn open_existing(dir: PathBuf) -> io::Result<Tiles> {
        let roots = read_roots(&dir, u64::MAX)?;
        Ok(Tiles {
            dir,
            roots: Mutex::new(roots),
        })
    }

    fn roots(&self) -> std::sync::MutexGuard<'_, Vec<Hash>> {
        // A poisoned lock still guards whole roots.
        self.roots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many segments have their file, from the first on.
    pub(super) fn segments(&self) -> u64 {
        self.roots().len() as u64
    }

    /// The roots of the segments from `first` on, `count` of them; fewer if there are not so many.
    pub(super) fn roots_from(&self, first: u64, count: u64) -> Vec<Hash> {
        let roots = self.roots();
        let from = usize::try_from(first)
            .unwrap_or(usize::MAX)
            .min(roots.len());
        let to = from.saturating_add(usize::try_from(count).unwrap_or(usize::MAX));
        roots
            .get(from..to.min(roots.len()))
            .unwrap_or_default()
            .to_vec()
    }

    /// The 256 hashes of tile `tile` of a segment: 0 to 255 are those of level 0, 256 is the one of level 1. `None` if
    /// the segment has no whole file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn tile(&self, segment: u64, tile: u64) -> io::Result<Option<Vec<Hash>>> {
        read(&self.dir, segment, tile)
    }

    /// The leaf hashes of a segment; fewer if it has no whole file.
    ///
    /// # Errors
    /// As [`Tiles::tile`].
    pub(super) fn leaves(&self, segment: u64) -> io::Result<Vec<Hash>> {
        let mut leaves = Vec::with_capacity(usize::try_from(SEGMENT_RECORDS).unwrap_or(0));
        for tile in 0..LEAF_TILES {
            leaves.extend(self.tile(segment, tile)?.unwrap_or_default());
        }
        Ok(leaves)
    }

    /// The tile of level 1 of a segment.
    ///
    /// # Errors
    /// As [`Tiles::tile`].
    pub(super) fn nodes(&self, segment: u64) -> io::Result<Option<Vec<Hash>>> {
        self.tile(segment, LEAF_TILES)
    }

    /// Writes the file of a segment from its leaf hashes: of the next one, or of one that has a file already. It is not synced: one that
    /// is lost is made again.
    ///
    /// # Errors
    /// A segment before it has no file, it has not as many leaves as a segment, or the file cannot be written.
    pub(super) fn write(&self, segment: u64, leaves: &[Hash]) -> io::Result<()> {
        if segment > self.segments() || leaves.len() as u64 != SEGMENT_RECORDS {
            return Err(io::Error::other("the tiles of a segment out of order"));
        }
        let nodes = next_level(leaves);
        let mut bytes = Vec::with_capacity(usize::try_from(FILE_BYTES).unwrap_or(0));
        encode_hashes(leaves, &mut bytes);
        encode_hashes(&nodes, &mut bytes);
        let path = path(&self.dir, segment);
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, &bytes)?;
        fs::rename(&temporary, &path)?;
        let root = root_of(&nodes);
        let mut roots = self.roots();
        match usize::try_from(segment)
            .ok()
            .and_then(|at| roots.get_mut(at))
        {
            Some(old) => *old = root,
            None => roots.push(root),
        }
        Ok(())
    }

    /// Makes the file of a segment durable, for when its records go.
    ///
    /// # Errors
    /// It is not there, or cannot be synced.
    pub(super) fn sync(&self, segment: u64) -> io::Result<()> {
        File::open(path(&self.dir, segment))?.sync_all()?;
        File::open(&self.dir)?.sync_all()
    }

    /// Forgets all roots, so that the files are made again.
    pub(super) fn forget(&self) {
        self.roots().clear();
    }
}

fn read_roots(dir: &Path, segments: u64) -> io::Result<Vec<Hash>> {
    let mut roots = Vec::new();
    for segment in 0..segments {
        match read(dir, segment, LEAF_TILES)? {
            Some(nodes) => roots.push(root_of(&nodes)),
            None => break,
        }
    }
    Ok(roots)
}

fn path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:016x}.tiles"))
}

fn read(dir: &Path, segment: u64, tile: u64) -> io::Result<Option<Vec<Hash>>> {
    let mut file = match File::open(path(dir, segment)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() != FILE_BYTES || tile > LEAF_TILES {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(tile * TILE_BYTES as u64))?;
    let mut bytes = vec![0; TILE_BYTES];
    file.read_exact(&mut bytes)?;
    decode_hashes(&bytes).map(Some).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(segment: u64) -> Vec<Hash> {
        (0..SEGMENT_RECORDS)
            .map(|at| Hash::of_leaf(&(segment << 32 | at).to_be_bytes()))
            .collect()
    }

    #[test]
    fn what_was_written_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let tiles = Tiles::open(dir.path().join("tree"), 0).unwrap();
        assert!(tiles.write(1, &leaves(1)).is_err(), "a gap");
        assert!(tiles.write(0, &leaves(0)[1..]).is_err(), "not a segment");
        let roots: Vec<Hash> = (0..2).map(|segment| root_of(&leaves(segment))).collect();
        tiles.write(0, &leaves(9)).unwrap();
        tiles.write(0, &leaves(0)).unwrap();
        tiles.write(1, &leaves(1)).unwrap();
        assert_eq!(tiles.roots_from(0, 9), roots);
        let again = Tiles::open(dir.path().join("tree"), 2).unwrap();
        assert_eq!(again.segments(), 2);
        assert_eq!(again.roots_from(0, 9), roots);
        assert_eq!(again.roots_from(1, 1), roots[1..]);
        assert_eq!(again.roots_from(3, 1), []);
        assert_eq!(
            again.tile(1, 7).unwrap().unwrap(),
            leaves(1)[7 * 256..8 * 256]
        );
        assert_eq!(root_of(&again.nodes(0).unwrap().unwrap()), roots[0]);
        assert_eq!(again.tile(2, 0).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_not_whole_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("tree");
        let tiles = Tiles::open(at.clone(), 0).unwrap();
        for segment in 0..2 {
            tiles.write(segment, &leaves(segment)).unwrap();
        }
        let file = File::options().write(true).open(path(&at, 0)).unwrap();
        file.set_len(FILE_BYTES - 1).unwrap();
        assert_eq!(Tiles::open(at, 2).unwrap().segments(), 0);
    }
}
