//! Signed notes (C2SP signed-note): a text, an empty line, and lines of signatures.

use data_encoding::BASE64;

use crate::key::{ID_BYTES, KeyError, SigningKey, VerifierKey, is_name};
use crate::text::{decode_base64, has_control_characters};

/// The longest note, in bytes: 16 signatures as long as those of post-quantum schemes fit in, as the specification asks for.
pub const MAX_NOTE_BYTES: usize = 128 * 1024;

/// The most signatures on a note. The specification asks for 16 at least.
pub const MAX_SIGNATURES: usize = 32;

/// What a line with a signature begins with: an em dash and a space.
const SIGNATURE_PREFIX: &str = "\u{2014} ";

/// Why a note was not signed, or must not be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The note is longer than [`MAX_NOTE_BYTES`].
    #[error("the note is longer than {MAX_NOTE_BYTES} bytes")]
    TooLong,
    /// There is a control character other than the newline.
    #[error("the note has a control character")]
    ControlCharacter,
    /// The text to be signed does not end in a newline.
    #[error("the text of a note ends in a newline")]
    NoNewline,
    /// There is no empty line before the signatures.
    #[error("the note has no empty line between its text and its signatures")]
    NoSignatures,
    /// A line behind the last empty line is not a signature.
    #[error("line {0} of the signatures is not `\u{2014} <name> <base64>`")]
    SignatureLine(usize),
    /// There are more than [`MAX_SIGNATURES`].
    #[error("the note has more than {MAX_SIGNATURES} signatures")]
    TooManySignatures,
    /// A signature that names a known key is not by it.
    #[error("the signature of key `{0}` is not by that key: the note was changed or forged")]
    BadSignature(String),
    /// No signature is by a known key.
    #[error(
        "the note has no signature by a known key; check that the verifier key is that of this log"
    )]
    UnknownSigners,
    /// The key does not sign.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Signs `text`, which may have empty lines and ends in a newline. Returns the whole note.
///
/// # Errors
/// [`NoteError`] if the text cannot be that of a note.
pub fn sign(text: &str, key: &SigningKey) -> Result<String, NoteError> {
    if has_control_characters(text) {
        return Err(NoteError::ControlCharacter);
    }
    if !text.ends_with('\n') {
        return Err(NoteError::NoNewline);
    }
    let verifier = key.verifier_key();
    let mut signature = verifier.id().to_vec();
    signature.extend_from_slice(key.sign(text)?.as_ref());
    let note = format!(
        "{text}\n{SIGNATURE_PREFIX}{} {}\n",
        verifier.name(),
        BASE64.encode_display(&signature)
    );
    if note.len() > MAX_NOTE_BYTES {
        return Err(NoteError::TooLong);
    }
    Ok(note)
}

/// Opens a note: checks every signature that names one of `keys`, ignores the others, and returns the text and the keys that signed it, of which
/// there is at least one.
///
/// # Errors
/// [`NoteError`] if the note is malformed, if a signature that names a known key is not by it, or if no known key signed.
pub fn open<'n, 'k>(
    note: &'n str,
    keys: &'k [VerifierKey],
) -> Result<(&'n str, Vec<&'k VerifierKey>), NoteError> {
    let note = Note::parse(note)?;
    let mut signers = Vec::new();
    for signature in &note.signatures {
        // Names and ids may collide, so whoever of those named signed is the signer.
        let mut named = keys
            .iter()
            .filter(|key| key.name() == signature.name && *key.id() == signature.id)
            .peekable();
        if named.peek().is_none() {
            continue;
        }
        let signer = named
            .find(|key| key.verifies(note.text, &signature.bytes))
            .ok_or_else(|| NoteError::BadSignature(signature.name.to_owned()))?;
        signers.push(signer);
    }
    if signers.is_empty() {
        return Err(NoteError::UnknownSigners);
    }
    Ok((note.text, signers))
}

/// A note taken apart. Nothing of it is verified.
pub(crate) struct Note<'a> {
    text: &'a str,
    signatures: Vec<SignatureLine<'a>>,
}

/// A signature as it stands in a note.
struct SignatureLine<'a> {
    name: &'a str,
    id: [u8; ID_BYTES],
    bytes: Vec<u8>,
}

impl<'a> Note<'a> {
    pub(crate) fn parse(note: &'a str) -> Result<Self, NoteError> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(NoteError::TooLong);
        }
        if has_control_characters(note) {
            return Err(NoteError::ControlCharacter);
        }
        // The text keeps its last newline; the one after it is the empty line.
        let (text, lines) = note
            .rfind("\n\n")
            .and_then(|end| note.split_at_checked(end + 1))
            .ok_or(NoteError::NoSignatures)?;
        let lines = lines.strip_prefix('\n').unwrap_or(lines);
        if lines.is_empty() {
            return Err(NoteError::NoSignatures);
        }
        let mut signatures = Vec::new();
        for (at, line) in lines.split_inclusive('\n').enumerate() {
            if at == MAX_SIGNATURES {
                return Err(NoteError::TooManySignatures);
            }
            let signature = line.strip_suffix('\n').and_then(SignatureLine::parse);
            signatures.push(signature.ok_or(NoteError::SignatureLine(at + 1))?);
        }
        Ok(Self { text, signatures })
    }
}

impl<'a> SignatureLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (name, signature) = line.strip_prefix(SIGNATURE_PREFIX)?.split_once(' ')?;
        let signature = decode_base64(signature)?;
        let (id, bytes) = signature.split_first_chunk()?;
        (is_name(name) && !bytes.is_empty()).then(|| Self {
            name,
            id: *id,
            bytes: bytes.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C2SP signed-note, "Example".
    const VKEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const NOTE: &str = "This is an example message.\n\n\
        \u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

    fn known() -> Vec<VerifierKey> {
        vec![VKEY.parse().expect("is a key")]
    }

    fn opened(note: &str) -> Result<&str, NoteError> {
        open(note, &known()).map(|(text, _)| text)
    }

    #[test]
    fn the_example_of_the_specification_opens() {
        let keys = known();
        let (text, signers) = open(NOTE, &keys).expect("is signed");
        assert_eq!(text, "This is an example message.\n");
        assert_eq!(signers, [&keys[0]]);
    }

    #[test]
    fn what_is_signed_opens_and_another_text_does_not() {
        let key = SigningKey::from_seed("log.example/1", &[7; 32]).expect("is a key");
        let keys = [key.verifier_key().clone()];
        for text in [
            "one\n",
            "\n",
            "with\n\nempty\n\n\nlines\n\n",
            "\u{e8} sera\n",
        ] {
            let note = sign(text, &key).expect("signs");
            assert_eq!(open(&note, &keys).map(|(text, _)| text), Ok(text));
            let changed = note.replacen('\n', "x\n", 1);
            assert_eq!(
                open(&changed, &keys).map(|(text, _)| text),
                Err(NoteError::BadSignature("log.example/1".into()))
            );
        }
    }

    #[test]
    fn unknown_signatures_are_ignored_and_one_known_is_needed() {
        let other = SigningKey::from_seed("witness.example", &[8; 32]).expect("is a key");
        let namesake = SigningKey::from_seed("example.com/foo", &[9; 32]).expect("is a key");
        let text = "This is an example message.\n";
        let mut all = NOTE.to_owned();
        for key in [&other, &namesake] {
            let note = sign(text, key).expect("signs");
            assert_eq!(opened(&note), Err(NoteError::UnknownSigners));
            all.push_str(&note[text.len() + 1..]);
        }
        assert_eq!(opened(&all), Ok(text));
        assert_eq!(
            opened(&all.replace("\u{2014} witness", "\u{2014} w")),
            Ok(text)
        );
    }

    #[test]
    fn a_known_signature_that_is_bad_spoils_the_note() {
        let signature = &NOTE[NOTE.find('\u{2014}').expect("is there")..];
        let bad = signature.replace("aQM=", "aQA=");
        let error = NoteError::BadSignature("example.com/foo".into());
        assert_eq!(opened(&format!("{NOTE}{bad}")), Err(error.clone()));
        // The id of the key, and fewer bytes than a signature has.
        let short = format!("{NOTE}\u{2014} example.com/foo Uw2QOkn8\n");
        assert_eq!(opened(&short), Err(error));
    }

    #[test]
    fn malformed_notes_are_refused() {
        use NoteError::{
            ControlCharacter, NoSignatures, SignatureLine, TooLong, TooManySignatures,
        };
        let line = &NOTE[NOTE.find('\u{2014}').expect("is there")..];
        let text = "This is an example message.\n";
        for (malformation, note, error) in [
            ("empty", String::new(), NoSignatures),
            ("text_alone", text.into(), NoSignatures),
            ("signatures_missing", format!("{text}\n"), NoSignatures),
            ("empty_line_missing", format!("{text}{line}"), NoSignatures),
            (
                "last_newline_missing",
                NOTE.trim_end().into(),
                SignatureLine(1),
            ),
            (
                "carriage_returns",
                NOTE.replace('\n', "\r\n"),
                ControlCharacter,
            ),
            (
                "nul_in_text",
                NOTE.replace("This", "Th\0is"),
                ControlCharacter,
            ),
            (
                "tab_in_signature",
                NOTE.replace(" Uw2Q", "\tUw2Q"),
                ControlCharacter,
            ),
            (
                "hyphen_for_dash",
                NOTE.replace('\u{2014}', "-"),
                SignatureLine(1),
            ),
            (
                "no_space_after_dash",
                NOTE.replace("\u{2014} ", "\u{2014}"),
                SignatureLine(1),
            ),
            (
                "two_spaces_after_dash",
                NOTE.replace("\u{2014} ", "\u{2014}  "),
                SignatureLine(1),
            ),
            (
                "name_missing",
                NOTE.replace("example.com/foo ", ""),
                SignatureLine(1),
            ),
            (
                "name_with_plus",
                NOTE.replace("m/foo", "m+foo"),
                SignatureLine(1),
            ),
            (
                "name_with_no_break_space",
                NOTE.replace("m/foo", "m\u{a0}foo"),
                SignatureLine(1),
            ),
            ("padding_missing", NOTE.replace('=', ""), SignatureLine(1)),
            (
                "trailing_bits_set",
                NOTE.replace("QM=", "QN="),
                SignatureLine(1),
            ),
            (
                "space_after_signature",
                NOTE.replace("=\n", "= \n"),
                SignatureLine(1),
            ),
            (
                "id_alone",
                format!("{text}\n\u{2014} example.com/foo Uw2QOg==\n"),
                SignatureLine(1),
            ),
            (
                "id_short",
                format!("{text}\n\u{2014} example.com/foo Uw2Q\n"),
                SignatureLine(1),
            ),
            (
                "text_after_signatures",
                format!("{NOTE}more\n"),
                SignatureLine(2),
            ),
            ("empty_line_at_end", format!("{NOTE}\n"), NoSignatures),
            (
                "33_signatures",
                format!("{text}\n{}", line.repeat(33)),
                TooManySignatures,
            ),
            (
                "too_long",
                format!("{}{NOTE}", "x".repeat(MAX_NOTE_BYTES)),
                TooLong,
            ),
        ] {
            assert_eq!(opened(&note), Err(error), "{malformation}");
        }
        assert_eq!(opened(&format!("{text}\n{}", line.repeat(32))), Ok(text));
    }

    #[test]
    fn texts_that_no_note_can_have_are_not_signed() {
        let key = SigningKey::from_seed("k", &[7; 32]).expect("is a key");
        assert_eq!(sign("", &key), Err(NoteError::NoNewline));
        assert_eq!(sign("no newline", &key), Err(NoteError::NoNewline));
        assert_eq!(sign("a\tb\n", &key), Err(NoteError::ControlCharacter));
        let long = format!("{}\n", "x".repeat(MAX_NOTE_BYTES));
        assert_eq!(sign(&long, &key), Err(NoteError::TooLong));
    }
}
