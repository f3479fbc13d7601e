//! The token or the API key that a client shows with each call, in the header `authorization`.
//!
//! It goes over TLS 1.3 alone, since there is no other connection. Its text is in one buffer that is wiped when nobody has it any
//! more; the header is marked as sensitive, so that no table of header compression keeps it and no `Debug` shows it.
//!
//! A file is read again at most once a second while calls are made, and at once when the service refuses what it held: whoever
//! provides tokens, as Kubernetes does, replaces the file well before the token ends.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use zeroize::Zeroizing;

use crate::{
    ConfigError,
    identity::{Part, Source},
};

/// The longest token that a service takes, bytes.
const MAX_BYTES: usize = 8 * 1024;
/// The least time between two looks at the file.
const INTERVAL: Duration = Duration::from_secs(1);
const SCHEME: &str = "Bearer ";
/// What every API key begins with.
const API_KEY_MARK: &[u8] = b"fk_";

/// What is wrong with a token or an API key. Nothing of it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialProblem {
    /// There is nothing in it.
    #[error("is empty")]
    Empty,
    /// It is longer than the service takes.
    #[error("is longer than 8 KiB")]
    TooLong,
    /// It has blanks, line ends or other characters within that no token has.
    #[error("is no one line of letters, digits and signs")]
    NotOneLine,
    /// An API key begins with `fk_`.
    #[error("is no API key: it does not begin with `fk_`")]
    NoApiKey,
}

/// The header of one text.
pub(crate) struct Shown(MetadataValue<Ascii>);

impl Shown {
    /// Adds it to what goes with a call.
    pub(crate) fn add_to(&self, metadata: &mut MetadataMap) {
        metadata.insert("authorization", self.0.clone());
    }
}

/// Where a token or an API key is from, and what it is at present.
pub(crate) struct Bearer {
    what: Part,
    source: Source,
    started: Instant,
    /// When the file is due to be looked at, in milliseconds after `started`.
    due_ms: AtomicU64,
    present: ArcSwap<Shown>,
    /// Held by whoever looks at the file.
    looking: tokio::sync::Mutex<()>,
    problem: Mutex<Option<Arc<ConfigError>>>,
}

impl Bearer {
    /// Reads it.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub(crate) fn open(what: Part, source: Source) -> Result<Bearer, ConfigError> {
        let present = ArcSwap::from_pointee(read(what, &source)?);
        Ok(Bearer {
            what,
            source,
            started: Instant::now(),
            due_ms: AtomicU64::new(as_ms(INTERVAL)),
            present,
            looking: tokio::sync::Mutex::default(),
            problem: Mutex::default(),
        })
    }

    /// What to show now, after a look at the file if that is due. While another call looks, this one shows what there was.
    pub(crate) async fn shown(&self) -> Arc<Shown> {
        if self.is_due()
            && let Ok(_looking) = self.looking.try_lock()
        {
            self.look().await;
        }
        self.present.load_full()
    }

    /// Looks at the file at once, because the service did not take `refused`. Says whether there is another text now.
    pub(crate) async fn is_replaced(&self, refused: &Arc<Shown>) -> bool {
        let _looking = self.looking.lock().await;
        let is_new = || !Arc::ptr_eq(&self.present.load(), refused);
        if !is_new() && matches!(self.source, Source::File(_)) {
            self.look().await;
        }
        is_new()
    }

    /// Why the file could not be used at the last look, if it could not.
    pub(crate) fn problem(&self) -> Option<Arc<ConfigError>> {
        let problem = self.problem.lock();
        problem.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_due(&self) -> bool {
        matches!(self.source, Source::File(_))
            && as_ms(self.started.elapsed()) >= self.due_ms.load(Ordering::Acquire)
    }

    /// What cannot be used, as a file that is being replaced, is left for the next look.
    async fn look(&self) {
        let (what, source) = (self.what, self.source.clone());
        let Ok(looked) = tokio::task::spawn_blocking(move || read(what, &source)).await else {
            // The runtime is ending.
            return;
        };
        let problem = match looked {
            Ok(shown) => {
                if shown.0 != self.present.load().0 {
                    self.present.store(Arc::new(shown));
                }
                None
            }
            Err(error) => Some(Arc::new(error)),
        };
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
        let due = self.started.elapsed().saturating_add(INTERVAL);
        self.due_ms.store(as_ms(due), Ordering::Release);
    }
}

fn read(what: Part, source: &Source) -> Result<Shown, ConfigError> {
    let text = source.read(what)?;
    header(what, text.trim_ascii()).map_err(|problem| ConfigError::BadCredential {
        what,
        origin: source.origin(),
        problem,
    })
}

fn header(what: Part, text: &[u8]) -> Result<Shown, CredentialProblem> {
    if text.is_empty() {
        return Err(CredentialProblem::Empty);
    }
    if text.len() > MAX_BYTES {
        return Err(CredentialProblem::TooLong);
    }
    if !text.iter().all(u8::is_ascii_graphic) {
        return Err(CredentialProblem::NotOneLine);
    }
    if what == Part::ApiKey && !text.starts_with(API_KEY_MARK) {
        return Err(CredentialProblem::NoApiKey);
    }
    let mut line = Zeroizing::new(Vec::with_capacity(SCHEME.len() + text.len()));
    line.extend_from_slice(SCHEME.as_bytes());
    line.extend_from_slice(text);
    // The header keeps this very buffer, which is wiped when its last clone goes.
    let mut value = MetadataValue::try_from(Bytes::from_owner(Wiped(line)))
        .map_err(|_| CredentialProblem::NotOneLine)?;
    value.set_sensitive(true);
    Ok(Shown(value))
}

struct Wiped(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(shown: &Shown) -> String {
        shown.0.to_str().unwrap().to_owned()
    }

    #[test]
    fn what_is_no_token_is_told_without_showing_it() {
        let long = "a".repeat(MAX_BYTES + 1);
        for (what, text, problem) in [
            (Part::Token, " \n", CredentialProblem::Empty),
            (Part::Token, long.as_str(), CredentialProblem::TooLong),
            (Part::Token, "two secrets", CredentialProblem::NotOneLine),
            (Part::Token, "two\nsecrets", CredentialProblem::NotOneLine),
            (Part::Token, "s\u{e9}cret", CredentialProblem::NotOneLine),
            (Part::ApiKey, "secret", CredentialProblem::NoApiKey),
        ] {
            let Err(error) = Bearer::open(what, Source::memory(text.as_bytes())) else {
                panic!("`{text}` was taken");
            };
            assert!(
                matches!(error, ConfigError::BadCredential { problem: found, .. } if found == problem)
            );
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("cret"), "{shown}");
        }
    }

    #[test]
    fn the_header_is_sensitive_and_hidden() {
        let shown = header(Part::ApiKey, b"fk_secret").unwrap();
        assert_eq!(text(&shown), "Bearer fk_secret");
        let mut metadata = MetadataMap::new();
        shown.add_to(&mut metadata);
        assert!(metadata.get("authorization").unwrap().is_sensitive());
        assert!(!format!("{metadata:?}").contains("secret"));
    }

    #[tokio::test]
    async fn a_file_is_read_again_after_a_second_or_a_refusal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("one\n");
        let bearer = Bearer::open(Part::Token, Source::File(path.clone())).unwrap();
        let first = bearer.shown().await;
        assert_eq!(text(&first), "Bearer one");
        // The same again is no other one.
        assert!(!bearer.is_replaced(&first).await);
        write("two");
        // It was looked at just before.
        assert_eq!(text(bearer.shown().await.as_ref()), "Bearer one");
        assert!(bearer.is_replaced(&first).await);
        let second = bearer.shown().await;
        assert_eq!(text(&second), "Bearer two");
        write("three");
        tokio::time::sleep(INTERVAL + Duration::from_millis(100)).await;
        assert_eq!(text(bearer.shown().await.as_ref()), "Bearer three");
        // Half a replacement changes nothing, and is told.
        std::fs::remove_file(&path).unwrap();
        assert!(bearer.is_replaced(&second).await);
        let third = bearer.shown().await;
        assert!(!bearer.is_replaced(&third).await);
        assert_eq!(text(bearer.shown().await.as_ref()), "Bearer three");
        assert!(bearer.problem().unwrap().to_string().contains("token file"));
        write("four");
        assert!(bearer.is_replaced(&third).await);
        assert!(bearer.problem().is_none());
    }
}
