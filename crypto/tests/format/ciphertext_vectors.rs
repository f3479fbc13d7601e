//! `tests/vectors/ciphertext-v1.json`, with this crate and with the second implementation.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use fieldkeep_crypto::ciphertext::{self, Ciphertext, Handle, ParseError, Suite};
use fieldkeep_crypto::context::EncodedContext;
use fieldkeep_crypto::keys::{Dek, FieldKey, Nonce};
use fieldkeep_crypto::names::Field;
use serde::Deserialize;

use crate::second::{self, Opener};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    open: Vec<OpenCase>,
    refuse: Vec<RefuseCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenCase {
    name: String,
    dek: String,
    tenant: String,
    handle: String,
    version: u32,
    field: String,
    context: BTreeMap<String, String>,
    nonce: String,
    plaintext: String,
    ciphertext: String,
    text: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefuseCase {
    name: String,
    reason: String,
    dek: String,
    tenant: String,
    handle: String,
    version: u32,
    field: String,
    context: BTreeMap<String, String>,
    ciphertext: String,
    text: Option<String>,
}

fn vectors() -> File {
    serde_json::from_str(include_str!("../../../tests/vectors/ciphertext-v1.json")).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().unwrap()
}

fn field_key(opener: &Opener) -> Option<FieldKey> {
    Some(Dek::dangerous_from_bytes(&opener.dek).derive_field_key(
        Suite::KcXaes256Gcm,
        &opener.tenant,
        Handle::from_bytes(opener.handle),
        opener.version,
        Field::parse(&opener.field).ok()?,
    ))
}

fn context(opener: &Opener) -> Option<EncodedContext> {
    let pairs = opener.context.iter().rev();
    EncodedContext::encode(pairs.map(|(n, v)| (n.as_str(), v.as_str()))).ok()
}

/// What this crate says, in the order of the specification, under the names of the vectors; `crypto` stands for every
/// refusal after the parse, which this crate does not tell apart.
fn open(opener: &Opener, text: Option<&str>, bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    let key = field_key(opener).ok_or("field_name")?;
    let context = context(opener).ok_or("context")?;
    let decoded = text
        .map(ciphertext::decode_text)
        .transpose()
        .map_err(reason)?;
    let parsed = Ciphertext::parse(decoded.as_deref().unwrap_or(bytes)).map_err(reason)?;
    let mut out = b"before".to_vec();
    let opened = key.open(&parsed, &context, &mut out);
    let plaintext = out.strip_prefix(b"before").unwrap().to_vec();
    if opened.is_err() {
        assert!(plaintext.is_empty());
        return Err("crypto");
    }
    assert_eq!(plaintext.len(), parsed.plaintext_len());
    Ok(plaintext)
}

fn reason(error: ParseError) -> &'static str {
    match error {
        ParseError::TooShort => "too_short",
        ParseError::TooLong => "too_long",
        ParseError::Magic => "magic",
        ParseError::UnknownSuite(_) => "unknown_suite",
        ParseError::VersionZero => "version_zero",
        ParseError::TextPrefix => "text_prefix",
        ParseError::TextEncoding => "text_encoding",
    }
}

#[test]
fn every_open_case_seals_and_opens() {
    let cases = vectors().open;
    assert!(cases.len() >= 40);
    for case in cases {
        let opener = Opener {
            dek: array(&case.dek),
            tenant: case.tenant,
            handle: array(&case.handle),
            version: case.version,
            field: case.field,
            context: case.context,
        };
        let (plaintext, expected) = (hex(&case.plaintext), hex(&case.ciphertext));
        let nonce: [u8; 24] = array(&case.nonce);

        let mut sealed = Vec::new();
        let key = field_key(&opener).unwrap();
        let context = context(&opener).unwrap();
        key.seal(
            Nonce::dangerous_from_bytes(nonce),
            &context,
            &plaintext,
            &mut sealed,
        )
        .unwrap();
        assert_eq!(sealed, expected, "{}", case.name);
        assert_eq!(opener.seal(&nonce, &plaintext), expected, "{}", case.name);

        let text = case.text.as_deref();
        assert_eq!(
            open(&opener, text, &expected).as_ref(),
            Ok(&plaintext),
            "{}",
            case.name
        );
        assert_eq!(
            opener.open(&expected).as_ref(),
            Ok(&plaintext),
            "{}",
            case.name
        );
        if let Some(text) = text {
            assert_eq!(ciphertext::encode_text(&expected), text, "{}", case.name);
            assert_eq!(
                second::decode_text(text).unwrap(),
                expected,
                "{}",
                case.name
            );
        }
    }
}

#[test]
fn every_refuse_case_is_refused_for_its_reason() {
    let cases = vectors().refuse;
    assert!(cases.len() >= 60);
    for case in cases {
        let opener = Opener {
            dek: array(&case.dek),
            tenant: case.tenant,
            handle: array(&case.handle),
            version: case.version,
            field: case.field,
            context: case.context,
        };
        let text = case.text.as_deref();
        let bytes = hex(&case.ciphertext);
        let expected = match case.reason.as_str() {
            "wrong_handle" | "wrong_version" | "commitment" | "tag" => "crypto",
            parse => parse,
        };
        assert_eq!(open(&opener, text, &bytes), Err(expected), "{}", case.name);
        let second = match text.map(second::decode_text).transpose() {
            Ok(decoded) => opener.open(decoded.as_deref().unwrap_or(&bytes)),
            Err(reason) => Err(reason),
        };
        assert_eq!(second, Err(case.reason.as_str()), "{}", case.name);
    }
}

#[test]
fn names_are_unique_and_every_reason_occurs() {
    let file = vectors();
    let mut names: Vec<&str> = file.open.iter().map(|c| c.name.as_str()).collect();
    names.extend(file.refuse.iter().map(|c| c.name.as_str()));
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    for reason in [
        "field_name",
        "context",
        "text_prefix",
        "text_encoding",
        "too_short",
        "magic",
        "unknown_suite",
        "version_zero",
        "too_long",
        "wrong_handle",
        "wrong_version",
        "commitment",
        "tag",
    ] {
        assert!(file.refuse.iter().any(|c| c.reason == reason), "{reason}");
    }
}
