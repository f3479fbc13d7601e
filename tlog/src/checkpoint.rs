//! Checkpoints (C2SP tlog-checkpoint): the size and root of a log, signed by it.

use std::fmt;
use std::str::FromStr;

use crate::hash::Hash;
use crate::key::{MAX_NAME_BYTES, SigningKey, VerifierKey};
use crate::note::{self, NoteError};
use crate::text::{has_control_characters, parse_decimal};
use crate::tree::{MAX_SIZE, TreeHead};

/// Why a checkpoint was not made, or must not be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The origin is empty, too long, or not one line.
    #[error(
        "the origin of a checkpoint is one line of 1 to {MAX_NAME_BYTES} bytes without control characters"
    )]
    Origin,
    /// There are not three lines, or there is an empty one, or the last does not end.
    #[error("a checkpoint is three lines or more, of which none is empty: origin, size, root")]
    Lines,
    /// The size is not a decimal number, or too large.
    #[error("the size of a checkpoint is a decimal number without leading zeros, at most 2^62")]
    Size,
    /// The root is not a hash, or not the one that the empty log has.
    #[error(
        "the root of a checkpoint is the base64 of 32 bytes; that of size 0 is the hash of nothing"
    )]
    Root,
    /// The key that is to sign is not the log's.
    #[error(
        "key `{key}` does not sign for the log `{origin}`; a log's key has its origin as its name"
    )]
    NotTheLogsKey {
        /// The name of the key.
        key: String,
        /// The origin of the checkpoint.
        origin: String,
    },
    /// Known keys signed, but none with the log's name.
    #[error("the checkpoint of `{0}` is not signed by a key of that log")]
    NotByTheLog(String),
    /// The note is malformed, or its signatures are not good.
    #[error(transparent)]
    Note(#[from] NoteError),
}

/// The text of a checkpoint: origin, size and root, each a line, and any lines of extensions, which mean nothing here. `Display` and `FromStr` are that text,
/// which nobody has signed; what counts is made with [`Checkpoint::sign`] and read with [`Checkpoint::open`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    head: TreeHead,
    /// Whole lines, each with its newline.
    extensions: String,
}

impl Checkpoint {
    /// The checkpoint of the log `origin` at `head`, without extensions.
    ///
    /// # Errors
    /// [`CheckpointError::Origin`], [`CheckpointError::Size`], or [`CheckpointError::Root`] if the size is 0 and the root not [`Hash::EMPTY_ROOT`].
    pub fn new(origin: &str, head: TreeHead) -> Result<Self, CheckpointError> {
        let is_line = !origin.contains('\n') && !has_control_characters(origin);
        if !is_line || !(1..=MAX_NAME_BYTES).contains(&origin.len()) {
            return Err(CheckpointError::Origin);
        }
        if head.size > MAX_SIZE {
            return Err(CheckpointError::Size);
        }
        if head.size == 0 && head.root != Hash::EMPTY_ROOT {
            return Err(CheckpointError::Root);
        }
        Ok(Self {
            origin: origin.to_owned(),
            head,
            extensions: String::new(),
        })
    }

    /// What names the log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The size and root of the log.
    pub const fn head(&self) -> TreeHead {
        self.head
    }

    /// Signs the checkpoint. Returns the note.
    ///
    /// # Errors
    /// [`CheckpointError::NotTheLogsKey`] if the name of the key is not the origin.
    pub fn sign(&self, key: &SigningKey) -> Result<String, CheckpointError> {
        let name = key.verifier_key().name();
        if name != self.origin {
            return Err(CheckpointError::NotTheLogsKey {
                key: name.to_owned(),
                origin: self.origin.clone(),
            });
        }
        Ok(note::sign(&self.to_string(), key)?)
    }

    /// Opens a signed checkpoint. One of `keys` must have signed it that has the origin as its name: the key of a witness alone does not speak for
    /// the log. Several keys of one name are those of a log whose key was changed.
    ///
    /// # Errors
    /// [`CheckpointError`], which says why the checkpoint must not be believed.
    pub fn open(note: &str, keys: &[VerifierKey]) -> Result<Self, CheckpointError> {
        let (text, signers) = note::open(note, keys)?;
        let checkpoint: Self = text.parse()?;
        if !signers.iter().any(|key| key.name() == checkpoint.origin) {
            return Err(CheckpointError::NotByTheLog(checkpoint.origin));
        }
        Ok(checkpoint)
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TreeHead { size, root } = self.head;
        write!(f, "{}\n{size}\n{root}\n{}", self.origin, self.extensions)
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.splitn(4, '\n');
        let (Some(origin), Some(size), Some(root), Some(extensions)) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Lines);
        };
        let head = TreeHead {
            size: parse_decimal(size).ok_or(CheckpointError::Size)?,
            root: root.parse().map_err(|_| CheckpointError::Root)?,
        };
        let ends = extensions.is_empty() || extensions.ends_with('\n');
        let has_empty = extensions.starts_with('\n') || extensions.contains("\n\n");
        if !ends || has_empty || has_control_characters(extensions) {
            return Err(CheckpointError::Lines);
        }
        Ok(Self {
            extensions: extensions.to_owned(),
            ..Self::new(origin, head)?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of the example of C2SP tlog-checkpoint.
    const TEXT: &str =
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    fn key(name: &str, seed: u8) -> SigningKey {
        SigningKey::from_seed(name, &[seed; 32]).expect("is a key")
    }

    #[test]
    fn the_example_of_the_specification_is_read_and_written() {
        let checkpoint: Checkpoint = TEXT.parse().expect("is a checkpoint");
        assert_eq!(checkpoint.origin(), "example.com/behind-the-sofa");
        assert_eq!(checkpoint.head().size, 20_852_163);
        assert_eq!(checkpoint.to_string(), TEXT);
        let extended = format!("{TEXT}one more\nand another\n");
        let checkpoint: Checkpoint = extended.parse().expect("has extensions");
        assert_eq!(checkpoint.to_string(), extended);
    }

    #[test]
    fn only_the_logs_own_key_makes_a_checkpoint() {
        let log = key("example.com/behind-the-sofa", 1);
        let witness = key("witness.example", 2);
        let checkpoint: Checkpoint = TEXT.parse().expect("is a checkpoint");
        let note = checkpoint.sign(&log).expect("signs");
        let keys = [&log, &witness].map(|key| key.verifier_key().clone());
        assert_eq!(Checkpoint::open(&note, &keys), Ok(checkpoint.clone()));
        assert_eq!(
            Checkpoint::open(&note, &keys[1..]),
            Err(NoteError::UnknownSigners.into())
        );
        assert!(matches!(
            checkpoint.sign(&witness),
            Err(CheckpointError::NotTheLogsKey { .. })
        ));
        let by_witness = note::sign(TEXT, &witness).expect("signs");
        assert_eq!(
            Checkpoint::open(&by_witness, &keys),
            Err(CheckpointError::NotByTheLog(checkpoint.origin))
        );
        // A log whose key was changed: two keys of one name.
        let newer = key("example.com/behind-the-sofa", 3);
        let keys = [&newer, &log].map(|key| key.verifier_key().clone());
        assert!(Checkpoint::open(&note, &keys).is_ok());
    }

    #[test]
    fn malformed_texts_are_refused() {
        use CheckpointError::{Lines, Origin, Root, Size};
        let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
        for (malformation, text, error) in [
            ("empty", String::new(), Lines),
            ("origin_alone", "origin\n".into(), Lines),
            ("root_missing", "origin\n1\n".into(), Lines),
            ("last_newline_missing", TEXT.trim_end().into(), Lines),
            ("origin_empty", format!("\n1\n{root}\n"), Origin),
            ("origin_with_tab", format!("a\tb\n1\n{root}\n"), Origin),
            (
                "origin_too_long",
                format!("{}\n1\n{root}\n", "o".repeat(256)),
                Origin,
            ),
            ("size_empty", TEXT.replace("20852163", ""), Size),
            (
                "size_with_leading_zero",
                TEXT.replace("20852163", "020852163"),
                Size,
            ),
            (
                "size_with_sign",
                TEXT.replace("20852163", "+20852163"),
                Size,
            ),
            (
                "size_with_space",
                TEXT.replace("20852163", "20852163 "),
                Size,
            ),
            (
                "size_too_large",
                TEXT.replace("20852163", "4611686018427387905"),
                Size,
            ),
            ("root_short", TEXT.replace("q2I=", ""), Root),
            ("root_without_padding", TEXT.replace('=', ""), Root),
            (
                "root_of_the_empty_log_is_another",
                TEXT.replace("20852163", "0"),
                Root,
            ),
            ("empty_line_at_end", format!("{TEXT}\n"), Lines),
            (
                "extension_without_newline",
                format!("{TEXT}extension"),
                Lines,
            ),
            ("empty_extension", format!("{TEXT}one\n\ntwo\n"), Lines),
            (
                "extension_with_carriage_return",
                format!("{TEXT}one\r\n"),
                Lines,
            ),
        ] {
            assert_eq!(text.parse::<Checkpoint>(), Err(error), "{malformation}");
        }
    }
}
