use super::*;
use crate::hash::Hash;

const FROM_US: u64 = 1_793_491_200_000_000;
const TO_US: u64 = 1_796_083_200_000_000;
const SHA256: [u8; 32] = [0x5a; 32];

fn log(byte: u8) -> LogId {
    LogId::from_bytes([byte; 16])
}

fn key_of(log: LogId, seed: u8) -> SigningKey {
    SigningKey::from_seed(&log.origin(), &[seed; 32]).expect("is a key")
}

fn key() -> SigningKey {
    key_of(log(1), 7)
}

fn keys() -> [VerifierKey; 1] {
    [key().verifier_key().clone()]
}

fn head(size: u64) -> TreeHead {
    TreeHead {
        size,
        root: Hash::of_leaf(&size.to_be_bytes()),
    }
}

fn statement() -> ReportStatement {
    ReportStatement {
        log: log(1),
        form: ReportForm::Json,
        sha256: SHA256,
        from_us: FROM_US,
        to_us: TO_US,
        first: 0,
        head: head(70_000),
    }
}

fn checkpoint(log: LogId, head: TreeHead, key: &SigningKey) -> String {
    Checkpoint::new(&log.origin(), head)
        .and_then(|checkpoint| checkpoint.sign(key))
        .expect("signs")
}

fn signature() -> ReportSignature {
    let checkpoint = checkpoint(log(1), head(70_000), &key());
    ReportSignature::make(&statement(), checkpoint, &key()).expect("signs")
}

/// The file with this text in place of the one about the report, signed by `key`.
fn with_text(text: &str, key: &SigningKey) -> ReportSignature {
    ReportSignature {
        note: note::sign(text, key).expect("signs"),
        ..signature()
    }
}

#[test]
fn what_is_signed_verifies_and_is_a_file() {
    for form in ReportForm::ALL {
        let statement = ReportStatement {
            form,
            ..statement()
        };
        let checkpoint = checkpoint(log(1), head(70_000), &key());
        let made = ReportSignature::make(&statement, checkpoint.clone(), &key()).expect("signs");
        assert_eq!(made.verify(SHA256, &keys()), Ok(statement));
        assert_eq!(made.to_string().parse(), Ok(made.clone()));
        assert_eq!(made.checkpoint(), checkpoint);
        assert_eq!(statement.to_string().parse(), Ok(statement));
    }
    let expected = format!(
        "fieldkeep/audit-report/{}\nform json\nsha256 {}\nfrom {FROM_US}\nto {TO_US}\nfirst 0\nsize 70000\nroot {}\n",
        "01".repeat(16),
        "5a".repeat(32),
        head(70_000).root
    );
    assert_eq!(statement().to_string(), expected);
}

#[test]
fn every_flipped_bit_is_refused() {
    let text = signature().to_string();
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let Ok(flipped) = String::from_utf8(bytes) else {
                continue;
            };
            let opened = flipped
                .parse::<ReportSignature>()
                .and_then(|signature| signature.verify(SHA256, &keys()));
            assert!(opened.is_err(), "bit {bit} of byte {at}: {flipped}");
        }
    }
}

#[test]
fn another_report_is_named_as_such() {
    let mut other = SHA256;
    other[31] ^= 1;
    assert_eq!(
        signature().verify(other, &keys()),
        Err(ReportError::OtherReport {
            signed: "5a".repeat(32),
            found: format!("{}5b", "5a".repeat(31)),
        })
    );
}

#[test]
fn a_signature_by_another_key_proves_nothing() {
    let unknown = Err(ReportError::Note(NoteError::UnknownSigners));
    let other = [key_of(log(1), 8).verifier_key().clone()];
    assert_eq!(signature().verify(SHA256, &other), unknown);
    // A known key that is not the log's does not speak for the log.
    let both = [&key(), &key_of(log(2), 8)].map(|key| key.verifier_key().clone());
    let by_other = with_text(&statement().to_string(), &key_of(log(2), 8));
    assert_eq!(
        by_other.verify(SHA256, &both),
        Err(ReportError::NotByTheLog(log(1).origin()))
    );
}

#[test]
fn a_report_signature_is_no_checkpoint() {
    let made = signature();
    // Not as a checkpoint of any log, whatever key is known.
    assert!(Checkpoint::open(&made.note, &keys()).is_err());
    let text = statement().to_string();
    assert!(text.parse::<Checkpoint>().is_err());
    // Nor for who does not compare the origin: the line after it is no size.
    assert_eq!(
        format!(
            "{}\n{}",
            log(1).origin(),
            text.split_once('\n').expect("has lines").1
        )
        .parse::<Checkpoint>(),
        Err(CheckpointError::Size)
    );
    assert_ne!(text.lines().next(), Some(log(1).origin().as_str()));
}

#[test]
fn a_checkpoint_is_no_report_signature() {
    let note = checkpoint(log(1), head(70_000), &key());
    assert_eq!(note.parse::<ReportSignature>(), Err(ReportError::FirstLine));
    let twice = format!("{note}\n{note}");
    assert_eq!(
        twice.parse::<ReportSignature>(),
        Err(ReportError::FirstLine)
    );
    let forged = ReportSignature {
        note: note.clone(),
        checkpoint: note,
    };
    assert_eq!(forged.verify(SHA256, &keys()), Err(ReportError::FirstLine));
}

#[test]
fn the_checkpoint_must_be_the_one_that_the_report_rests_on() {
    let with = |checkpoint: String| ReportSignature {
        checkpoint,
        ..signature()
    };
    let other = |found| {
        Err(ReportError::OtherCheckpoint {
            signed: 70_000,
            found,
        })
    };
    let newer = with(checkpoint(log(1), head(70_001), &key()));
    assert_eq!(newer.verify(SHA256, &keys()), other(70_001));
    let root = TreeHead {
        root: head(1).root,
        ..head(70_000)
    };
    let forked = with(checkpoint(log(1), root, &key()));
    assert_eq!(forked.verify(SHA256, &keys()), other(70_000));
    // The checkpoint of another log that is known as well.
    let both = [&key(), &key_of(log(2), 8)].map(|key| key.verifier_key().clone());
    let foreign = with(checkpoint(log(2), head(70_000), &key_of(log(2), 8)));
    assert_eq!(foreign.verify(SHA256, &both), other(70_000));
    assert_eq!(
        foreign.verify(SHA256, &keys()),
        Err(CheckpointError::from(NoteError::UnknownSigners).into())
    );
    // The report's own note in the checkpoint's place.
    let twice = with(signature().note);
    assert!(matches!(
        twice.verify(SHA256, &keys()),
        Err(ReportError::Checkpoint(_))
    ));
}

#[test]
fn nothing_is_signed_that_could_not_be_read_back() {
    let make = |statement: ReportStatement, checkpoint: String, key: &SigningKey| {
        ReportSignature::make(&statement, checkpoint, key)
    };
    let note = || checkpoint(log(1), head(70_000), &key());
    let empty = ReportStatement {
        to_us: FROM_US,
        ..statement()
    };
    assert_eq!(make(empty, note(), &key()), Err(ReportError::Line("to")));
    let beyond = ReportStatement {
        first: 70_001,
        ..statement()
    };
    assert_eq!(
        make(beyond, note(), &key()),
        Err(ReportError::Line("first"))
    );
    let late = ReportStatement {
        to_us: u64::MAX,
        ..statement()
    };
    assert_eq!(make(late, note(), &key()), Err(ReportError::Line("to")));
    let other = ReportStatement {
        head: head(3),
        ..statement()
    };
    assert!(make(other, note(), &key()).is_err());
    assert!(make(statement(), note(), &key_of(log(2), 8)).is_err());
    assert!(make(statement(), String::new(), &key()).is_err());
}

#[test]
fn malformed_signatures_are_refused() {
    use ReportError::{FirstLine, Line, Lines, NoCheckpoint, TooLong};
    let file = signature().to_string();
    for (malformation, text, error) in [
        ("empty", String::new(), FirstLine),
        (
            "a_report",
            String::from("FIELDKEEP AUDIT REPORT\n"),
            FirstLine,
        ),
        ("space_before", format!(" {file}"), FirstLine),
        (
            "cut_before_the_signatures",
            statement().to_string(),
            NoCheckpoint,
        ),
        ("cut_before_the_checkpoint", signature().note, NoCheckpoint),
        (
            "too_long",
            format!("{file}{}", "x".repeat(MAX_SIGNATURE_BYTES)),
            TooLong,
        ),
    ] {
        assert_eq!(
            text.parse::<ReportSignature>(),
            Err(error),
            "{malformation}"
        );
    }
    let text = statement().to_string();
    for (malformation, text, error) in [
        ("checkpoints_origin", text.replace("-report", ""), FirstLine),
        ("log_id_upper_case", text.replace("/01", "/0A"), FirstLine),
        ("log_id_short", text.replace("/0101", "/01"), FirstLine),
        ("line_more", format!("{text}more\n"), Lines),
        ("line_missing", text.replace("form json\n", ""), Lines),
        ("form_unknown", text.replace("json", "pdf"), Line("form")),
        (
            "form_empty",
            text.replace("form json", "form "),
            Line("form"),
        ),
        ("two_spaces", text.replace("form ", "form  "), Line("form")),
        (
            "sha256_short",
            text.replace("5a5a\n", "5a\n"),
            Line("sha256"),
        ),
        (
            "sha256_upper_case",
            text.replace("5a\n", "5A\n"),
            Line("sha256"),
        ),
        ("lines_swapped", text.replace("from", "to"), Line("from")),
        (
            "from_with_leading_zero",
            text.replace("from ", "from 0"),
            Line("from"),
        ),
        (
            "to_missing",
            text.replace(&TO_US.to_string(), ""),
            Line("to"),
        ),
        (
            "to_not_later",
            text.replace(&TO_US.to_string(), &FROM_US.to_string()),
            Line("to"),
        ),
        (
            "first_beyond_the_size",
            text.replace("first 0", "first 70001"),
            Line("first"),
        ),
        (
            "size_with_sign",
            text.replace("size ", "size +"),
            Line("size"),
        ),
        ("root_without_padding", text.replace('=', ""), Line("root")),
    ] {
        assert_eq!(
            text.parse::<ReportStatement>(),
            Err(error.clone()),
            "{malformation}"
        );
        assert_eq!(
            with_text(&text, &key()).verify(SHA256, &keys()),
            Err(error),
            "{malformation}, signed"
        );
    }
    assert_eq!(text.trim_end().parse::<ReportStatement>(), Err(Lines));
}
