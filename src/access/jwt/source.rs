//! One issuer and its keys as they were last fetched.
//!
//! Keys are fetched when a token names one that is not there, and every ten minutes of use, so that a key that the provider
//! withdrew ends here too. However many callers ask, one fetch is under way, and 30 s lie between two. A provider that
//! cannot be reached changes nothing for a day.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::{
    algorithm::Algorithm,
    discovery::fetch_keys,
    error::TokenError,
    fetch::Fetch,
    issuer::Issuer,
    keys::{Key, KeySet, NoKey},
};

/// The least time between two fetches, whatever tokens ask for, seconds.
pub(super) const COOL_DOWN: u64 = 30;
/// After what time keys are fetched anew, seconds.
pub(super) const REFRESH: u64 = 600;
/// After what time without a successful fetch keys are not used any more, seconds.
pub(super) const KEEP: u64 = 24 * 3600;

/// An issuer and its keys.
pub(super) struct Source {
    issuer: Issuer,
    fetch: Arc<dyn Fetch>,
    held: ArcSwapOption<Held>,
    /// Why the last fetch failed, if it did.
    problem: Mutex<Option<Arc<str>>>,
    /// When the last fetch began, Unix seconds. It is locked while one is under way.
    attempt: Arc<AsyncMutex<Option<u64>>>,
}

struct Held {
    keys: KeySet,
    fetched: u64,
}

impl Source {
    pub(super) fn new(issuer: Issuer, fetch: Arc<dyn Fetch>) -> Source {
        Source {
            issuer,
            fetch,
            held: ArcSwapOption::empty(),
            problem: Mutex::default(),
            attempt: Arc::default(),
        }
    }

    pub(super) fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Why the last fetch failed, with its causes; `None`: it did not, or there was none.
    pub(super) fn problem(&self) -> Option<Arc<str>> {
        let problem = self.problem.lock();
        problem.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_problem(&self, problem: Option<Arc<str>>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// The key for a token with this header, at `now`, Unix seconds. It may wait for one fetch.
    pub(super) async fn key(
        self: &Arc<Self>,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: u64,
    ) -> Result<Arc<Key>, TokenError> {
        let issuer = || self.issuer.name().clone();
        let no_keys = || TokenError::NoKeys { issuer: issuer() };
        let held = self.current(now).await.ok_or_else(no_keys)?;
        let mut found = held.keys.find(kid, algorithm);
        if found.as_ref().is_err_and(|why| *why == NoKey::Unknown) {
            self.refresh(now).await;
            let held = self.usable(now).ok_or_else(no_keys)?;
            found = held.keys.find(kid, algorithm);
        }
        found.map_err(|why| match why {
            NoKey::Unknown => TokenError::UnknownKey { issuer: issuer() },
            NoKey::KidRequired => TokenError::KidRequired { issuer: issuer() },
            NoKey::Misfit => TokenError::KeyMisfit {
                issuer: issuer(),
                algorithm,
            },
        })
    }

    /// How many keys there are at `now`. It may wait for one fetch.
    pub(super) async fn count(self: &Arc<Self>, now: u64) -> usize {
        self.current(now).await.map_or(0, |held| held.keys.len())
    }

    /// Whether the issuer still has `key`, at `now`. It may wait for one fetch.
    pub(super) async fn holds(self: &Arc<Self>, key: &Key, now: u64) -> bool {
        self.current(now)
            .await
            .is_some_and(|held| held.keys.holds(key))
    }

    /// The keys as they are known, fetched anew if it is time.
    async fn current(self: &Arc<Self>, now: u64) -> Option<Arc<Held>> {
        match self.usable(now) {
            Some(held) if now.abs_diff(held.fetched) < REFRESH => return Some(held),
            // One caller sees to it; the others go on with what there is.
            Some(_) => self.refresh_unless_under_way(now).await,
            None => self.refresh(now).await,
        }
        self.usable(now)
    }

    fn usable(&self, now: u64) -> Option<Arc<Held>> {
        self.held
            .load_full()
            .filter(|held| now.abs_diff(held.fetched) < KEEP)
    }

    async fn refresh(self: &Arc<Self>, now: u64) {
        let attempt = Arc::clone(&self.attempt).lock_owned().await;
        self.refresh_as(attempt, now).await;
    }

    async fn refresh_unless_under_way(self: &Arc<Self>, now: u64) {
        if let Ok(attempt) = Arc::clone(&self.attempt).try_lock_owned() {
            self.refresh_as(attempt, now).await;
        }
    }

    /// Fetches, unless it was done just before: so that of many who waited for a fetch, none begins another.
    async fn refresh_as(self: &Arc<Self>, mut attempt: OwnedMutexGuard<Option<u64>>, now: u64) {
        // A difference, so that a clock that was set back does not hold the next fetch up.
        if attempt.is_some_and(|last| now.abs_diff(last) < COOL_DOWN) {
            return;
        }
        *attempt = Some(now);
        let source = Arc::clone(self);
        // A task of its own: callers that go away again and again must not keep the keys from coming.
        let fetching = tokio::spawn(async move {
            source.fetch(now).await;
            drop(attempt);
        });
        // It fails only if the runtime ends.
        let _ = fetching.await;
    }

    async fn fetch(&self, now: u64) {
        let issuer = self.issuer.name();
        match fetch_keys(&self.issuer, self.fetch.as_ref()).await {
            Ok(keys) => {
                tracing::debug!(%issuer, keys = keys.len(), "fetched the keys of an issuer");
                self.set_problem(None);
                self.held.store(Some(Arc::new(Held { keys, fetched: now })));
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                self.set_problem(Some(with_causes(error).into()));
                tracing::warn!(%issuer, error, "the keys of an issuer were not fetched; what was fetched before is used for up to a day");
            }
        }
    }
}

/// An error and what caused it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some errors repeat the message of what caused them.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
