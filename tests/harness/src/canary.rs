//! Recognisable secrets, and the search for them in everything that was written.

use std::{collections::HashMap, fs, io::Read as _, path::Path};

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, Encoding, HEXLOWER, HEXUPPER};

/// Random bytes of a canary.
const BYTES: usize = 24;
/// By so many first bytes a form is looked up.
const PREFIX: usize = 8;

/// Secrets that must not be found anywhere.
#[derive(Default)]
pub struct Canaries {
    /// By their first bytes, all forms with the names of their canaries.
    forms: HashMap<[u8; PREFIX], Vec<(Vec<u8>, String)>>,
}

impl Canaries {
    /// Draws a text of 48 random hexadecimal digits, named `name` when it is found.
    pub fn text(&mut self, name: &str) -> String {
        let text = HEXLOWER.encode(&random());
        self.plant(name, text.as_bytes());
        text
    }

    /// Draws 24 random bytes, named `name` when they are found.
    pub fn bytes(&mut self, name: &str) -> Vec<u8> {
        let bytes = random().to_vec();
        self.plant(name, &bytes);
        bytes
    }

    /// Looks for a secret that somebody else drew: as it is, in hexadecimal, in base64 and base64url.
    pub fn plant(&mut self, name: &str, secret: &[u8]) {
        assert!(secret.len() >= 16, "`{name}` could be met by chance");
        let mut forms = vec![
            secret.to_vec(),
            HEXLOWER.encode(secret).into_bytes(),
            HEXUPPER.encode(secret).into_bytes(),
        ];
        for encoding in [BASE64_NOPAD, BASE64URL_NOPAD] {
            forms.extend((0..3).map(|before| inside(&encoding, secret, before)));
        }
        for form in forms {
            let prefix = form[..PREFIX].try_into().expect("long enough");
            let known = self.forms.entry(prefix).or_default();
            known.push((form, name.to_owned()));
        }
    }

    /// The names of the canaries in `bytes`.
    pub fn found_in(&self, bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for (place, prefix) in bytes.windows(PREFIX).enumerate() {
            let prefix: &[u8; PREFIX] = prefix.try_into().expect("a window");
            for (form, name) in self.forms.get(prefix).into_iter().flatten() {
                if bytes[place..].starts_with(form) && !found.contains(name) {
                    found.push(name.clone());
                }
            }
        }
        found
    }

    /// The canaries in the files below `dir`, each as `name in path`.
    pub fn found_below(&self, dir: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut dirs = vec![dir.to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).expect("a folder that can be read") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                let bytes = fs::read(&path).expect("a file that can be read");
                // Segments are zero-filled ahead.
                let end = bytes
                    .iter()
                    .rposition(|byte| *byte != 0)
                    .map_or(0, |at| at + 1);
                let names = self.found_in(&bytes[..end]);
                found.extend(
                    names
                        .iter()
                        .map(|name| format!("{name} in {}", path.display())),
                );
            }
        }
        found
    }
}

/// What every base64 text has that holds `secret` behind `before` (modulo 3) other bytes, whatever is around it.
fn inside(encoding: &Encoding, secret: &[u8], before: usize) -> Vec<u8> {
    let mut bytes = vec![0; before];
    bytes.extend_from_slice(secret);
    let whole = bytes.len() / 3 * 3;
    let text = encoding.encode(&bytes[..whole]);
    // The first characters have bits of what is before.
    text.as_bytes()[[0, 2, 3][before]..].to_vec()
}

fn random() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    let mut source = fs::File::open("/dev/urandom").expect("random bytes");
    source.read_exact(&mut bytes).expect("random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_found_wherever_it_is() {
        let mut canaries = Canaries::default();
        let secret = canaries.bytes("secret");
        let other = canaries.text("other");
        assert!(
            canaries
                .found_in(b"nothing of the kind, and long enough")
                .is_empty()
        );
        for before in 0..7 {
            let mut around = vec![b'x'; before];
            around.extend_from_slice(&secret);
            around.extend_from_slice(b"yz");
            for text in [
                around.clone(),
                HEXLOWER.encode(&around).into_bytes(),
                HEXUPPER.encode(&around).into_bytes(),
                BASE64_NOPAD.encode(&around).into_bytes(),
                BASE64URL_NOPAD.encode(&around).into_bytes(),
            ] {
                assert_eq!(canaries.found_in(&text), ["secret"], "{before}");
                assert!(canaries.found_in(&text[..text.len() / 2]).is_empty());
            }
        }
        assert_eq!(canaries.found_in(other.as_bytes()), ["other"]);
    }
}
