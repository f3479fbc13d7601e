//! The token or API key of a caller. Nothing of a secret is shown; of a token, its issuer and its end.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;
use zeroize::Zeroizing;

use super::super::connection::Bearer;
use super::super::output::{rfc3339, shell_word};
use super::{Findings, files};

const TOKEN: &str = "own token";
const API_KEY: &str = "own API key";
const NEW_TOKEN: &str = "get a new token from the identity provider; an admin learns with `fieldkeep issuer check` why one is refused";

/// Checks what is shown with each call. `now` is in Unix seconds.
pub(super) fn check(findings: &mut Findings, shown: Bearer<'_>, now: i64) {
    match shown {
        Bearer::TokenFile(path) => token(findings, path, now),
        Bearer::ApiKeyFile(path) => files::private_file(findings, API_KEY, path, None),
        Bearer::ApiKey(_) => findings.ok(API_KEY, "`FIELDKEEP_API_KEY` is set"),
    }
}

fn token(findings: &mut Findings, path: &Path, now: i64) {
    let shown = path.display();
    let text = match fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) => {
            let detail = format!("cannot read `{shown}`: {error}");
            return findings.fail(TOKEN, detail, "correct the path, or run as its owner");
        }
    };
    let Some((issuer, end)) = issuer_and_end(text.trim()) else {
        let detail = format!("`{shown}` holds no token in the compact form of a JWT");
        return findings.fail(TOKEN, detail, NEW_TOKEN);
    };
    let time = rfc3339(end);
    let time = time.as_str().unwrap_or("-");
    if now >= end {
        let detail = format!("`{shown}` of `{issuer}` ended {time}");
        return findings.fail(TOKEN, detail, NEW_TOKEN);
    }
    findings.ok(TOKEN, format_args!("`{shown}` of `{issuer}`, until {time}"));
    // Kubernetes gives tokens to a whole container, so this is no failure.
    let mode = fs::metadata(path).map_or(0, |found| found.permissions().mode() & 0o777);
    if mode & 0o077 != 0 {
        let detail = format!("others may read `{shown}` (mode {mode:o})");
        let word = shell_word(&path.display().to_string());
        findings.warn(TOKEN, detail, format_args!("chmod 600 {word}"));
    }
}

/// The claims `iss` and `exp`, which nobody has verified.
fn issuer_and_end(token: &str) -> Option<(String, i64)> {
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let claims = BASE64URL_NOPAD.decode(claims.as_bytes()).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let issuer = claims.get("iss")?.as_str()?.to_owned();
    Some((issuer, claims.get("exp")?.as_i64()?))
}
