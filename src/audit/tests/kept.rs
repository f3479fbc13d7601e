//! Checkpoints that were kept elsewhere tell what the directory of a trail does not.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use fieldkeep_tlog::tile::SEGMENT_RECORDS;
use fieldkeep_tlog::tree::Tree;

use super::evidence::{audit_dir, copied, loss, more, open_stored, stored, trail};
use super::*;
use crate::audit::kept::FoundIn;

/// Opens the trail if it contains the checkpoints in the files.
fn containing(dir: &TempDir, kept: &[PathBuf]) -> Result<AuditLog, AuditError> {
    let disk = Arc::new(SystemDisk);
    AuditLog::open_containing(disk, &audit_dir(dir), options(), stored, kept, None)
}

/// Keeps a checkpoint of the log that is signed over `head`, beside the trail in `dir`.
fn keep(dir: &TempDir, log: LogId, head: TreeHead) -> PathBuf {
    let keys = stored(log).unwrap();
    let path = dir.path().join(format!("kept-{}", head.size));
    fs::write(&path, Signed::make(&keys.signing, head).unwrap().note).unwrap();
    path
}

#[test]
fn a_trail_that_was_put_back_is_told_by_a_checkpoint_that_was_kept_elsewhere_alone() {
    let dir = trail(5);
    let earlier = copied(&dir);
    more(&dir, 4);
    let path = {
        let log = open_stored(&dir).unwrap();
        keep(&dir, log.log, log.checkpoint().head)
    };
    // With its own checkpoint of then it is whole as far as it tells.
    drop(open_stored(&earlier).unwrap());
    let refused = loss(containing(&earlier, std::slice::from_ref(&path)));
    let found_in = FoundIn::Kept(path.clone());
    let truncated = LossError::Truncated {
        found: 5,
        signed: 9,
        found_in: found_in.clone(),
    };
    assert_eq!(refused, truncated);
    let said = refused.to_string();
    assert!(said.contains(path.to_str().unwrap()), "{said}");
    // Longer, and another one.
    {
        let log = open(&earlier);
        for number in 50..60 {
            log.append_blocking(&numbered(number)).unwrap();
        }
    }
    drop(open_stored(&earlier).unwrap());
    let refused = loss(containing(&earlier, std::slice::from_ref(&path)));
    let changed = LossError::Changed {
        signed: 9,
        found_in,
    };
    assert_eq!(refused, changed);
    // The log that it is of contains it, however long it gets.
    drop(containing(&dir, std::slice::from_ref(&path)).unwrap());
    more(&dir, 3);
    let log = containing(&dir, &[path]).unwrap();
    assert_eq!(log.checkpoint().head.size, 12);
}

#[test]
fn a_file_without_a_checkpoint_of_the_log_is_no_loss_but_refused() {
    let (dir, other) = (trail(5), trail(5));
    let path = {
        let log = open_stored(&other).unwrap();
        keep(&other, log.log, log.checkpoint().head)
    };
    for path in [path, dir.path().join("none")] {
        let refused = containing(&dir, &[path]).err().unwrap();
        assert!(matches!(refused, AuditError::Kept(_)), "{refused}");
    }
    drop(open_stored(&dir).unwrap());
}

#[test]
fn a_checkpoint_within_complete_segments_is_compared_by_their_tiles() {
    let dir = TempDir::new().unwrap();
    let log = {
        let log = open(&dir);
        fill(&log, SEGMENT_RECORDS + 99);
        wait_for_index(&dir);
        log.log
    };
    let mut tree = Tree::new();
    let mut paths = Vec::new();
    for number in 0..SEGMENT_RECORDS + 100 {
        if [0, 1, 1000, 65_535, 65_536, 65_600].contains(&number) {
            paths.push(keep(&dir, log, tree.head()));
        }
        tree.append(Hash::of_leaf(&numbered(number).encode_to_vec()));
    }
    let tiles = audit_dir(&dir).join("tree/0000000000000000.tiles");
    let file = || fs::metadata(&tiles).unwrap().ino();
    let made = file();
    drop(containing(&dir, &paths).unwrap());
    assert_eq!(file(), made, "the records were not read for it");

    // Tiles are no evidence: those that differ are made again from the records, which tell.
    let whole = fs::read(&tiles).unwrap();
    let mut other = whole.clone();
    other[999 * 32] ^= 1;
    fs::write(&tiles, other).unwrap();
    drop(containing(&dir, &paths).unwrap());
    assert_eq!(fs::read(&tiles).unwrap(), whole);

    let wrong = TreeHead {
        size: 1000,
        root: Hash::of_leaf(b"another one"),
    };
    let path = keep(&dir, log, wrong);
    let changed = LossError::Changed {
        signed: 1000,
        found_in: FoundIn::Kept(path.clone()),
    };
    assert_eq!(loss(containing(&dir, &[path])), changed);
}
