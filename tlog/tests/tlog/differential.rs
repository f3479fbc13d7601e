//! The same as another implementation: `tlog_tiles` and `signed_note`, which come from the Go library of the checksum database.

use data_encoding::BASE64;
use fieldkeep_tlog::checkpoint::Checkpoint;
use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::key::{SigningKey, VerifierKey};
use fieldkeep_tlog::log_id::LogId;
use fieldkeep_tlog::note;
use fieldkeep_tlog::proof::{
    prove_consistency, prove_inclusion, verify_consistency, verify_inclusion,
};
use fieldkeep_tlog::report::{ReportForm, ReportSignature, ReportStatement};
use fieldkeep_tlog::subtree::root_at;
use fieldkeep_tlog::tile::Tile;
use fieldkeep_tlog::tree::TreeHead;
use proptest::prelude::*;
use signed_note::{Note, StandardSigner, StandardVerifier, VerifierList};

use crate::sources::{Nodes, leaf, leaves};

const LARGEST: u64 = 1_500;
const NAME: &str = "log.example/1";
const SEED: [u8; 32] = [7; 32];

/// The hashes of a tree in the order in which `tlog_tiles` stores them.
struct Stored(Vec<tlog_tiles::Hash>);

impl Stored {
    fn new(count: u64) -> Self {
        let mut stored = Self(Vec::new());
        for at in 0..count {
            let hashes = tlog_tiles::stored_hashes(at, &at.to_be_bytes(), &stored);
            stored.0.extend(hashes.expect("appends"));
        }
        stored
    }
}

impl tlog_tiles::HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|at| self.0[*at as usize]).collect())
    }
}

fn theirs(hash: Hash) -> tlog_tiles::Hash {
    tlog_tiles::Hash(*hash.as_bytes())
}

fn key() -> SigningKey {
    SigningKey::from_seed(NAME, &SEED).expect("is a key")
}

/// The same key in the other implementation.
fn their_key() -> StandardSigner {
    let vkey = key().verifier_key().to_string();
    let id = vkey.split('+').nth(1).expect("has an id");
    let secret = BASE64.encode(&[&[1][..], &SEED].concat());
    StandardSigner::new(&format!("PRIVATE+KEY+{NAME}+{id}+{secret}")).expect("is a key")
}

/// The text of a note, if the other implementation opens it with the same key.
fn opened_by_them(note: &[u8]) -> Option<Vec<u8>> {
    let vkey = key().verifier_key().to_string();
    let verifier = StandardVerifier::new(&vkey).expect("is a key");
    let note = Note::from_bytes(note).ok()?;
    note.verify(&VerifierList::new(vec![Box::new(verifier)]))
        .ok()?;
    Some(note.text().to_vec())
}

fn opened_by_us(note: &[u8]) -> Option<Vec<u8>> {
    let keys = [key().verifier_key().clone()];
    let (text, _) = note::open(str::from_utf8(note).ok()?, &keys).ok()?;
    Some(text.as_bytes().to_vec())
}

#[test]
fn trees_and_proofs_are_the_same() {
    let (nodes, stored) = (Nodes::new(leaves(LARGEST)), Stored::new(LARGEST));
    // Steps that meet every remainder of a tile.
    for size in (1..=LARGEST).step_by(37).chain([256, 512, 1024, LARGEST]) {
        let root = root_at(&nodes, size).expect("is there");
        let their_root = tlog_tiles::tree_hash(size, &stored).expect("is there");
        assert_eq!(theirs(root), their_root, "size {size}");
        let head = TreeHead { size, root };
        for at in (0..size).step_by(11).chain([size - 1]) {
            let path = prove_inclusion(&nodes, at, size).expect("is in the tree");
            let their_path = tlog_tiles::prove_record(size, at, &stored).expect("is in the tree");
            assert!(
                path.iter()
                    .copied()
                    .map(theirs)
                    .eq(their_path.iter().copied())
            );
            let their_leaf = theirs(leaf(at));
            tlog_tiles::check_record(&their_path, size, their_root, at, their_leaf)
                .expect("is proven");
            assert_eq!(verify_inclusion(leaf(at), at, head, &path), Ok(()));

            let old = at + 1;
            let old_root = root_at(&nodes, old).expect("is there");
            let path = prove_consistency(&nodes, old, size).expect("is later");
            let their_path = tlog_tiles::prove_tree(size, old, &stored).expect("is later");
            assert!(
                path.iter()
                    .copied()
                    .map(theirs)
                    .eq(their_path.iter().copied())
            );
            tlog_tiles::check_tree(&their_path, size, their_root, old, theirs(old_root))
                .expect("is proven");
            let old_head = TreeHead {
                size: old,
                root: old_root,
            };
            assert_eq!(verify_consistency(old_head, head, &path), Ok(()));
        }
    }
}

#[test]
fn tiles_and_their_paths_are_the_same() {
    for size in [
        1, 255, 256, 257, 65_536, 70_000, 600_000, 16_777_216, 16_777_217,
    ] {
        let ours: Vec<String> = (0..8)
            .flat_map(|level| (0..).map_while(move |at| Tile::in_tree(level, at, size)))
            .map(|tile| tile.path())
            .collect();
        // Theirs have the height in the path, as the checksum database has.
        let theirs: Vec<String> = tlog_tiles::Tile::new_tiles(8, 0, size)
            .iter()
            .map(|tile| tile.path().replace("tile/8/", "tile/"))
            .collect();
        assert_eq!(ours, theirs, "size {size}");
    }
}

#[test]
fn notes_are_the_same() {
    for text in [
        "one line\n",
        "with\n\nempty lines\n\n",
        "\u{e8} subito sera\n",
    ] {
        let ours = note::sign(text, &key()).expect("signs");
        let mut theirs = Note::new(text.as_bytes(), &[]).expect("is a text");
        theirs.add_sigs(&[&their_key()]).expect("signs");
        assert_eq!(ours.as_bytes(), theirs.to_bytes());
        assert_eq!(
            opened_by_them(ours.as_bytes()).as_deref(),
            Some(text.as_bytes())
        );
    }
}

#[test]
fn checkpoints_are_the_same() {
    for size in [0, 1, 20_852_163, 1 << 62] {
        let root = if size == 0 {
            Hash::EMPTY_ROOT
        } else {
            leaf(size)
        };
        let ours = Checkpoint::new(NAME, TreeHead { size, root }).expect("is a checkpoint");
        let theirs =
            tlog_tiles::Checkpoint::new(NAME, size, theirs(root), "").expect("is a checkpoint");
        assert_eq!(ours.to_string().as_bytes(), theirs.to_bytes());
        let read = tlog_tiles::Checkpoint::from_bytes(ours.to_string().as_bytes());
        assert_eq!(read.expect("is a checkpoint"), theirs);
    }
}

/// With a key that they know, theirs opens the note, and finds no checkpoint in it.
#[test]
fn the_signature_of_a_report_is_no_checkpoint_to_them() {
    let log = LogId::from_bytes([1; 16]);
    let key = SigningKey::from_seed(&log.origin(), &SEED).expect("is a key");
    let head = TreeHead {
        size: 3,
        root: leaf(3),
    };
    let checkpoint = Checkpoint::new(&log.origin(), head)
        .and_then(|checkpoint| checkpoint.sign(&key))
        .expect("signs");
    let statement = ReportStatement {
        log,
        form: ReportForm::Json,
        sha256: [5; 32],
        from_us: 1,
        to_us: 2,
        first: 0,
        head,
    };
    let file = ReportSignature::make(&statement, checkpoint.clone(), &key)
        .expect("signs")
        .to_string();
    let signed = file
        .strip_suffix(&format!("\n{checkpoint}"))
        .expect("ends so");
    let vkey = key.verifier_key().to_string();
    let text = |note: &str| {
        let verifier = StandardVerifier::new(&vkey).expect("is a key");
        let note = Note::from_bytes(note.as_bytes()).expect("is a note");
        note.verify(&VerifierList::new(vec![Box::new(verifier)]))
            .expect("is signed");
        note.text().to_vec()
    };
    assert_eq!(text(signed), statement.to_string().into_bytes());
    assert!(tlog_tiles::Checkpoint::from_bytes(&text(signed)).is_err());
    assert!(tlog_tiles::Checkpoint::from_bytes(&text(&checkpoint)).is_ok());
}

proptest! {
    /// Ours may refuse more, never less.
    #[test]
    fn a_damaged_note_that_we_open_they_open_too(
        lines in prop::collection::vec("[ -~]{0,12}", 1..5),
        changes in prop::collection::vec(any::<(u16, u8)>(), 0..3),
        copies in 1usize..3,
    ) {
        let text = lines.join("\n") + "\n";
        let mut note = note::sign(&text, &key()).expect("signs").into_bytes();
        let signature = note[text.len() + 1..].to_vec();
        note.extend(signature.repeat(copies - 1));
        for (at, change) in &changes {
            let length = note.len();
            note[usize::from(*at) % length] ^= change;
        }
        let ours = opened_by_us(&note);
        if ours.is_some() {
            prop_assert_eq!(&ours, &opened_by_them(&note));
        }
        if changes.is_empty() {
            prop_assert_eq!(ours.as_deref(), Some(text.as_bytes()));
        }
    }

    #[test]
    fn a_damaged_key_that_we_read_they_read_too(at in 0usize..67, change in any::<u8>()) {
        let mut text = key().verifier_key().to_string().into_bytes();
        let length = text.len();
        text[at % length] ^= change;
        if let Ok(text) = str::from_utf8(&text)
            && let Ok(key) = text.parse::<VerifierKey>()
        {
            prop_assert_eq!(key.to_string(), text);
            prop_assert!(StandardVerifier::new(text).is_ok());
        }
    }
}
