//! Proofs as files that can be verified offline: that a record is in a log (C2SP tlog-proof), and that a log only grew (the form in
//! which C2SP tlog-witness submits a checkpoint). Both end with the signed checkpoint that they prove it for, verbatim.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::hash::Hash;
use crate::key::VerifierKey;
use crate::note::{MAX_NOTE_BYTES, Note, NoteError};
use crate::proof::{MAX_PATH, VerifyError, verify_consistency, verify_inclusion};
use crate::text::parse_decimal;

/// The first line of an inclusion proof.
const TLOG_PROOF: &str = "c2sp.org/tlog-proof@v1";

/// The most extra data that an inclusion proof carries, in bytes: enough for a record.
pub const MAX_EXTRA_BYTES: usize = 65_535;

/// The longest file, in bytes.
pub const MAX_EVIDENCE_BYTES: usize = 2 * MAX_NOTE_BYTES;

/// Why a file is not a proof, or proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// The file is longer than [`MAX_EVIDENCE_BYTES`].
    #[error("the proof is longer than {MAX_EVIDENCE_BYTES} bytes")]
    TooLong,
    /// The first line is not that of this kind of proof.
    #[error("the first line of the proof is not `{0}`")]
    FirstLine(&'static str),
    /// There is no empty line before the checkpoint.
    #[error("the proof has no empty line before its checkpoint; it is cut off")]
    NoCheckpoint,
    /// The extra data is malformed, empty or too long.
    #[error("the extra data of the proof is not the base64 of 1 to {MAX_EXTRA_BYTES} bytes")]
    Extra,
    /// The line with the index is missing or malformed.
    #[error("the proof has no line `index <number>` where one must be")]
    Index,
    /// A hash is malformed. Counted from 1.
    #[error("hash {0} of the proof is not the base64 of 32 bytes")]
    Hash(usize),
    /// There are more than [`MAX_PATH`] hashes.
    #[error("the proof has more than {MAX_PATH} hashes")]
    TooManyHashes,
    /// The proof begins at another checkpoint than the one that it was to be verified for.
    #[error("the proof begins at `{origin}` of size {size}, the older checkpoint does not")]
    OtherStart {
        /// The log of the proof.
        origin: String,
        /// The size at which it begins.
        size: u64,
    },
    /// The checkpoint is malformed or not signed as it must be.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The hashes prove nothing.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

impl From<NoteError> for EvidenceError {
    fn from(error: NoteError) -> Self {
        Self::Checkpoint(error.into())
    }
}

/// The proof that a record is in a log, as a file: C2SP tlog-proof. `Display` and `FromStr` are its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InclusionProof {
    index: u64,
    extra: Option<Vec<u8>>,
    path: Vec<Hash>,
    checkpoint: String,
}

impl InclusionProof {
    /// The proof that [`crate::proof::prove_inclusion`] made for record `index` and the signed `checkpoint`. `extra` goes with it unauthenticated, such
    /// as the record itself, so that the file needs nothing beside it.
    ///
    /// # Errors
    /// [`EvidenceError`] if a part could not be read back.
    pub fn new(
        index: u64,
        path: Vec<Hash>,
        extra: Option<Vec<u8>>,
        checkpoint: String,
    ) -> Result<Self, EvidenceError> {
        let extra_fits = |extra: &Vec<u8>| (1..=MAX_EXTRA_BYTES).contains(&extra.len());
        if !extra.as_ref().is_none_or(extra_fits) {
            return Err(EvidenceError::Extra);
        }
        if path.len() > MAX_PATH {
            return Err(EvidenceError::TooManyHashes);
        }
        Note::parse(&checkpoint)?;
        Ok(Self {
            index,
            extra,
            path,
            checkpoint,
        })
    }

    /// The index of the record.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// What goes with the proof unauthenticated. If it is to be the record, hash it and verify.
    pub fn extra(&self) -> Option<&[u8]> {
        self.extra.as_deref()
    }

    /// Verifies that the record with the hash `leaf` ([`Hash::of_leaf`] of the record that the caller has) is in the log, at [`InclusionProof::index`], as of
    /// the returned checkpoint, which a log among `keys` signed.
    ///
    /// # Errors
    /// [`EvidenceError`], which says why nothing is proven.
    pub fn verify(&self, leaf: Hash, keys: &[VerifierKey]) -> Result<Checkpoint, EvidenceError> {
        let checkpoint = Checkpoint::open(&self.checkpoint, keys)?;
        verify_inclusion(leaf, self.index, checkpoint.head(), &self.path)?;
        Ok(checkpoint)
    }
}

impl fmt::Display for InclusionProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{TLOG_PROOF}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", BASE64.encode_display(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        write_path(f, &self.path)?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for InclusionProof {
    type Err = EvidenceError;

    fn from_str(text: &str) -> Result<Self, EvidenceError> {
        let (head, checkpoint) = split(text)?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(TLOG_PROOF) {
            return Err(EvidenceError::FirstLine(TLOG_PROOF));
        }
        let extra = lines
            .next_if(|line| line.starts_with("extra "))
            .and_then(|line| line.strip_prefix("extra "))
            .map(|extra| BASE64.decode(extra.as_bytes()))
            .transpose()
            .map_err(|_| EvidenceError::Extra)?;
        let index = lines
            .next()
            .and_then(|line| line.strip_prefix("index "))
            .and_then(parse_decimal)
            .ok_or(EvidenceError::Index)?;
        Self::new(index, parse_path(lines)?, extra, checkpoint.to_owned())
    }
}

/// The proof that a log at a newer checkpoint begins with all of its records at an older one, as a file: the line `old <size>`, the hashes, an empty
/// line, the newer checkpoint (C2SP tlog-witness, "add-checkpoint"). `Display` and `FromStr` are its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistencyProof {
    old_size: u64,
    path: Vec<Hash>,
    checkpoint: String,
}

impl ConsistencyProof {
    /// The proof that [`crate::proof::prove_consistency`] made from `old_size` to the signed newer `checkpoint`.
    ///
    /// # Errors
    /// [`EvidenceError`] if a part could not be read back.
    pub fn new(old_size: u64, path: Vec<Hash>, checkpoint: String) -> Result<Self, EvidenceError> {
        if path.len() > MAX_PATH {
            return Err(EvidenceError::TooManyHashes);
        }
        Note::parse(&checkpoint)?;
        Ok(Self {
            old_size,
            path,
            checkpoint,
        })
    }

    /// Verifies that the log only grew from `old`, which the caller has opened or kept, to the returned checkpoint, which that log signed with a key
    /// among `keys`.
    ///
    /// # Errors
    /// [`EvidenceError`], which says why nothing is proven.
    pub fn verify(
        &self,
        old: &Checkpoint,
        keys: &[VerifierKey],
    ) -> Result<Checkpoint, EvidenceError> {
        let new = Checkpoint::open(&self.checkpoint, keys)?;
        if old.origin() != new.origin() || old.head().size != self.old_size {
            return Err(EvidenceError::OtherStart {
                origin: new.origin().to_owned(),
                size: self.old_size,
            });
        }
        verify_consistency(old.head(), new.head(), &self.path)?;
        Ok(new)
    }
}

impl fmt::Display for ConsistencyProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        write_path(f, &self.path)?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for ConsistencyProof {
    type Err = EvidenceError;

    fn from_str(text: &str) -> Result<Self, EvidenceError> {
        let (head, checkpoint) = split(text)?;
        let mut lines = head.split('\n');
        let old_size = lines
            .next()
            .and_then(|line| line.strip_prefix("old "))
            .and_then(parse_decimal)
            .ok_or(EvidenceError::FirstLine("old <size>"))?;
        Self::new(old_size, parse_path(lines)?, checkpoint.to_owned())
    }
}

/// The lines before the first empty line, and the checkpoint after it.
fn split(text: &str) -> Result<(&str, &str), EvidenceError> {
    if text.len() > MAX_EVIDENCE_BYTES {
        return Err(EvidenceError::TooLong);
    }
    text.split_once("\n\n").ok_or(EvidenceError::NoCheckpoint)
}

fn parse_path<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<Hash>, EvidenceError> {
    // One more than there may be shows that there are too many.
    lines
        .take(MAX_PATH + 1)
        .enumerate()
        .map(|(at, line)| line.parse().map_err(|_| EvidenceError::Hash(at + 1)))
        .collect()
}

fn write_path(f: &mut fmt::Formatter<'_>, path: &[Hash]) -> fmt::Result {
    path.iter().try_for_each(|hash| writeln!(f, "{hash}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SigningKey;
    use crate::tree::{Tree, TreeHead};

    const ORIGIN: &str = "log.example";

    fn key() -> SigningKey {
        SigningKey::from_seed(ORIGIN, &[7; 32]).expect("is a key")
    }

    fn leaf(at: u64) -> Hash {
        Hash::of_leaf(&at.to_be_bytes())
    }

    fn head(size: u64) -> TreeHead {
        let mut tree = Tree::new();
        (0..size).for_each(|at| tree.append(leaf(at)));
        tree.head()
    }

    fn checkpoint(size: u64) -> Checkpoint {
        Checkpoint::new(ORIGIN, head(size)).expect("is a checkpoint")
    }

    fn signed(size: u64) -> String {
        checkpoint(size).sign(&key()).expect("signs")
    }

    /// Record 2 of 3.
    fn inclusion(extra: Option<Vec<u8>>) -> InclusionProof {
        InclusionProof::new(2, vec![head(2).root], extra, signed(3)).expect("is a proof")
    }

    /// From 2 records to 3.
    fn consistency() -> ConsistencyProof {
        ConsistencyProof::new(2, vec![leaf(2)], signed(3)).expect("is a proof")
    }

    #[test]
    fn an_inclusion_proof_is_a_file() {
        let keys = [key().verifier_key().clone()];
        for extra in [None, Some(2u64.to_be_bytes().to_vec())] {
            let proof = inclusion(extra.clone());
            let text = proof.to_string();
            assert_eq!(text.parse(), Ok(proof.clone()));
            assert_eq!(proof.extra(), extra.as_deref());
            assert_eq!(proof.index(), 2);
            assert_eq!(proof.verify(leaf(2), &keys), Ok(checkpoint(3)));
            assert_eq!(
                proof.verify(leaf(1), &keys),
                Err(VerifyError::RootMismatch.into())
            );
        }
        let text = inclusion(None).to_string();
        let expected = format!("{TLOG_PROOF}\nindex 2\n{}\n\n{}", head(2).root, signed(3));
        assert_eq!(text, expected);
        let alone = InclusionProof::new(0, Vec::new(), None, signed(1)).expect("is a proof");
        assert_eq!(alone.to_string().parse(), Ok(alone.clone()));
        assert_eq!(alone.verify(leaf(0), &keys), Ok(checkpoint(1)));
    }

    #[test]
    fn a_proof_under_anothers_checkpoint_proves_nothing() {
        let other = SigningKey::from_seed(ORIGIN, &[8; 32]).expect("is a key");
        let unknown = EvidenceError::from(NoteError::UnknownSigners);
        let keys = [other.verifier_key().clone()];
        assert_eq!(inclusion(None).verify(leaf(2), &keys), Err(unknown.clone()));
        assert_eq!(consistency().verify(&checkpoint(2), &keys), Err(unknown));
    }

    #[test]
    fn a_consistency_proof_is_a_file() {
        let keys = [key().verifier_key().clone()];
        let proof = consistency();
        let text = proof.to_string();
        assert_eq!(text, format!("old 2\n{}\n\n{}", leaf(2), signed(3)));
        assert_eq!(text.parse(), Ok(proof.clone()));
        assert_eq!(proof.verify(&checkpoint(2), &keys), Ok(checkpoint(3)));
        let start = EvidenceError::OtherStart {
            origin: ORIGIN.into(),
            size: 2,
        };
        assert_eq!(proof.verify(&checkpoint(1), &keys), Err(start.clone()));
        let namesake = Checkpoint::new("other.example", head(2)).expect("is a checkpoint");
        assert_eq!(proof.verify(&namesake, &keys), Err(start));
        let rewritten = TreeHead {
            size: 2,
            root: leaf(9),
        };
        let rewritten = Checkpoint::new(ORIGIN, rewritten).expect("is a checkpoint");
        assert_eq!(
            proof.verify(&rewritten, &keys),
            Err(VerifyError::RootMismatch.into())
        );
    }

    #[test]
    fn malformed_inclusion_proofs_are_refused() {
        use EvidenceError::{Extra, FirstLine, Hash as HashLine, Index, NoCheckpoint, TooLong};
        let text = inclusion(Some(vec![1, 2])).to_string();
        let hash = format!("{}\n", head(2).root);
        let first = FirstLine(TLOG_PROOF);
        let with_hashes = |count: usize| text.replace(&hash, &hash.repeat(count));
        let long = BASE64.encode(&vec![0; MAX_EXTRA_BYTES + 1]);
        for (malformation, text, error) in [
            ("empty", String::new(), NoCheckpoint),
            (
                "first_line_missing",
                text.replacen("c2sp.org/tlog-proof@v1\n", "", 1),
                first.clone(),
            ),
            ("version_2", text.replace("@v1", "@v2"), first.clone()),
            (
                "space_after_first_line",
                text.replace("@v1", "@v1 "),
                first.clone(),
            ),
            ("carriage_returns", text.replace('\n', "\r\n"), NoCheckpoint),
            ("extra_empty", text.replace("AQI=", ""), Extra),
            ("extra_without_padding", text.replace("AQI=", "AQI"), Extra),
            (
                "extra_trailing_bits_set",
                text.replace("AQI=", "AQJ="),
                Extra,
            ),
            ("extra_too_long", text.replace("AQI=", &long), Extra),
            (
                "extra_twice",
                text.replace("extra AQI=\n", "extra AQI=\nextra AQI=\n"),
                Index,
            ),
            (
                "extra_after_index",
                text.replace("extra AQI=\nindex 2\n", "index 2\nextra AQI=\n"),
                HashLine(1),
            ),
            ("index_missing", text.replace("index 2\n", ""), Index),
            (
                "index_with_leading_zero",
                text.replace("index 2", "index 02"),
                Index,
            ),
            ("index_negative", text.replace("index 2", "index -2"), Index),
            (
                "index_after_two_spaces",
                text.replace("index 2", "index  2"),
                Index,
            ),
            ("hash_cut", text.replace(&hash, &hash[4..]), HashLine(1)),
            (
                "hash_after_space",
                text.replace(&hash, &format!(" {hash}")),
                HashLine(1),
            ),
            ("64_hashes", with_hashes(64), EvidenceError::TooManyHashes),
            (
                "1000_hashes",
                with_hashes(1000),
                EvidenceError::TooManyHashes,
            ),
            (
                "empty_line_missing",
                text.replacen("\n\n", "\n", 1),
                HashLine(2),
            ),
            (
                "checkpoint_missing",
                text[..text.find("\n\n").expect("is there") + 2].into(),
                NoteError::NoSignatures.into(),
            ),
            (
                "signature_missing",
                text[..text.find('\u{2014}').expect("is there")].into(),
                NoteError::NoSignatures.into(),
            ),
            (
                "last_newline_missing",
                text.trim_end().into(),
                NoteError::SignatureLine(1).into(),
            ),
            (
                "too_long",
                format!("{text}{}", "x".repeat(MAX_EVIDENCE_BYTES)),
                TooLong,
            ),
        ] {
            assert_eq!(text.parse::<InclusionProof>(), Err(error), "{malformation}");
        }
        assert!(with_hashes(63).parse::<InclusionProof>().is_ok());
    }

    #[test]
    fn malformed_consistency_proofs_are_refused() {
        use EvidenceError::{FirstLine, Hash as HashLine, NoCheckpoint};
        let text = consistency().to_string();
        let hash = format!("{}\n", leaf(2));
        let first = FirstLine("old <size>");
        for (malformation, text, error) in [
            ("empty", String::new(), NoCheckpoint),
            ("old_missing", text.replace("old 2\n", ""), first.clone()),
            (
                "old_with_leading_zero",
                text.replace("old 2", "old 02"),
                first.clone(),
            ),
            (
                "old_without_space",
                text.replace("old 2", "old2"),
                first.clone(),
            ),
            (
                "an_inclusion_proof",
                inclusion(None).to_string(),
                first.clone(),
            ),
            ("hash_cut", text.replace(&hash, &hash[4..]), HashLine(1)),
            (
                "64_hashes",
                text.replace(&hash, &hash.repeat(64)),
                EvidenceError::TooManyHashes,
            ),
            (
                "empty_line_missing",
                text.replacen("\n\n", "\n", 1),
                HashLine(2),
            ),
            (
                "signature_missing",
                text[..text.find('\u{2014}').expect("is there")].into(),
                NoteError::NoSignatures.into(),
            ),
        ] {
            assert_eq!(
                text.parse::<ConsistencyProof>(),
                Err(error),
                "{malformation}"
            );
        }
    }

    #[test]
    fn parts_that_could_not_be_read_back_make_no_file() {
        let of = |path, extra| InclusionProof::new(0, path, extra, signed(1));
        assert_eq!(
            of(vec![leaf(0); 64], None),
            Err(EvidenceError::TooManyHashes)
        );
        assert_eq!(of(Vec::new(), Some(Vec::new())), Err(EvidenceError::Extra));
        assert_eq!(
            of(Vec::new(), Some(vec![0; 65_536])),
            Err(EvidenceError::Extra)
        );
        let unsigned = InclusionProof::new(0, Vec::new(), None, checkpoint(1).to_string());
        assert_eq!(unsigned, Err(NoteError::NoSignatures.into()));
        let unsigned = ConsistencyProof::new(0, Vec::new(), checkpoint(1).to_string());
        assert_eq!(unsigned, Err(NoteError::NoSignatures.into()));
    }
}
