//! Checkpoints that were kept elsewhere, for a start that asks the trail to contain them.
//!
//! Whoever puts the whole directory, store and trail, back to an older state leaves nothing in it that tells. A newer checkpoint,
//! kept where he cannot write, does.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use fieldkeep_tlog::checkpoint::Checkpoint;
use fieldkeep_tlog::key::VerifierKey;
use fieldkeep_tlog::note::MAX_NOTE_BYTES;
use fieldkeep_tlog::tree::TreeHead;

/// Where a checkpoint was found that the log has to contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundIn {
    /// In the directory of the trail.
    Trail,
    /// In a file that was kept elsewhere.
    Kept(PathBuf),
}

impl fmt::Display for FoundIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FoundIn::Trail => f.write_str("its checkpoint"),
            FoundIn::Kept(path) => write!(f, "the checkpoint in `{}`", path.display()),
        }
    }
}

/// What a checkpoint was signed over, and where it was found.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) head: TreeHead,
    pub(super) found_in: FoundIn,
}

/// Why a file has no checkpoint to go by.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// It cannot be read.
    #[error("cannot read the checkpoint `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// None in it is signed by this log's key.
    #[error(
        "`{}` holds no checkpoint of this log, `{log}`: it is damaged, or of another log; give a file with one that was kept of this log",
        path.display()
    )]
    NotOfThisLog {
        /// The file.
        path: PathBuf,
        /// The origin of the log.
        log: String,
    },
}

/// Reads the checkpoint of each file: a signed note, or several one after the other, of which the newest counts. Of a long file only the
/// end is read.
///
/// # Errors
/// A file cannot be read, or has no checkpoint that is signed by `key`.
pub(super) fn read(paths: &[PathBuf], key: &VerifierKey) -> Result<Vec<Expected>, KeptError> {
    let checkpoint = |path: &PathBuf| {
        let text = read_end(path).map_err(|source| KeptError::Read {
            path: path.clone(),
            source,
        })?;
        let head = newest_in(&text, key).ok_or_else(|| KeptError::NotOfThisLog {
            path: path.clone(),
            log: key.name().to_owned(),
        })?;
        Ok(Expected {
            head,
            found_in: FoundIn::Kept(path.clone()),
        })
    };
    paths.iter().map(checkpoint).collect()
}

/// The last bytes of a file, as many as the longest note has. What is no UTF-8 is in no note.
fn read_end(path: &Path) -> io::Result<String> {
    let most = MAX_NOTE_BYTES as u64;
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(most)))?;
    let mut end = Vec::new();
    file.take(most).read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

/// The newest of the notes in a text that `key` has signed. Each begins with a line that is the log's name, and ends where the next one
/// begins; one of which only a part is there is passed over.
fn newest_in(text: &str, key: &VerifierKey) -> Option<TreeHead> {
    let origin = format!("{}\n", key.name());
    let begins = text.match_indices(origin.as_str()).map(|(at, _)| at);
    let ends = begins.clone().skip(1).chain([text.len()]);
    begins
        .zip(ends)
        .filter_map(|(begin, end)| {
            let note = format!("{}\n", text.get(begin..end)?.trim_end_matches('\n'));
            let checkpoint = Checkpoint::open(&note, std::slice::from_ref(key)).ok()?;
            Some(checkpoint.head())
        })
        .max_by_key(|head| head.size)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use fieldkeep_tlog::hash::Hash;
    use fieldkeep_tlog::key::{SEED_BYTES, SigningKey};

    use super::*;

    const LOG: &str = "fieldkeep/audit/000102030405060708090a0b0c0d0e0f";

    fn key(seed: u8, name: &str) -> SigningKey {
        SigningKey::from_seed(name, &[seed; SEED_BYTES]).unwrap()
    }

    fn note(size: u64, key: &SigningKey) -> String {
        let root = Hash::of_leaf(&size.to_be_bytes());
        let checkpoint = Checkpoint::new(key.verifier_key().name(), TreeHead { size, root });
        checkpoint.unwrap().sign(key).unwrap()
    }

    /// The size of the checkpoint of a file with such bytes.
    fn size_in(bytes: impl AsRef<[u8]>) -> Result<u64, KeptError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept");
        fs::write(&path, bytes).unwrap();
        let found = read(std::slice::from_ref(&path), key(1, LOG).verifier_key())?;
        assert_eq!(found[0].found_in, FoundIn::Kept(path));
        Ok(found[0].head.size)
    }

    #[test]
    fn one_note_and_many_are_read() {
        let log = key(1, LOG);
        assert_eq!(size_in(note(7, &log)).unwrap(), 7);
        assert_eq!(size_in(note(7, &log).trim_end()).unwrap(), 7);
        // As the sink appends them; the last one is torn.
        let sent: String = (1..2000).map(|size| note(size, &log) + "\n").collect();
        assert_eq!(size_in(&sent).unwrap(), 1999);
        assert_eq!(size_in(&sent[..sent.len() - 40]).unwrap(), 1998);
        // As in the directory of a trail: two slots, the older one may come last.
        let slot = |size| {
            let mut slot = note(size, &log).into_bytes();
            slot.resize(512, b'\n');
            slot
        };
        assert_eq!(size_in([slot(9), slot(8)].concat()).unwrap(), 9);
        assert_eq!(size_in([vec![0xff; 512], slot(8)].concat()).unwrap(), 8);
    }

    #[test]
    fn what_is_no_checkpoint_of_the_log_is_refused_by_name() {
        let log = key(1, LOG);
        let changed = note(7, &log).replace("\n7\n", "\n8\n");
        for bytes in [
            String::new(),
            String::from("no note"),
            changed,
            // Another key, and another log.
            note(7, &key(2, LOG)),
            note(
                7,
                &key(1, "fieldkeep/audit/101112131415161718191a1b1c1d1e1f"),
            ),
        ] {
            let refused = size_in(&bytes).unwrap_err();
            assert!(matches!(refused, KeptError::NotOfThisLog { .. }), "{bytes}");
            let said = refused.to_string();
            assert!(said.contains("kept") && said.contains(LOG), "{said}");
        }
        let nowhere = PathBuf::from("/nowhere/kept");
        let refused = read(&[nowhere], log.verifier_key()).unwrap_err();
        assert!(refused.to_string().contains("`/nowhere/kept`"), "{refused}");
    }
}
