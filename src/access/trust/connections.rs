//! The open connections, so that what ends a certificate ends them too.
//!
//! A connection is entered before its certificate is looked at for the last time, and a change is published before the
//! connections are walked: whichever comes first, none is missed.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    task::Context,
};

use atomic_waker::AtomicWaker;

use super::Credential;

/// How long a connection is kept whose certificate has ended, seconds: calls on it are refused with a message meanwhile.
const EXPIRED_GRACE_S: u64 = 2;

/// Why calls on a connection are refused, although its handshake succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The certificate was revoked.
    Revoked,
    /// The CA that signed it was removed.
    CaRemoved,
}

impl Ended {
    /// The rule in the audit trail.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Ended::Revoked => "certificate-revoked",
            Ended::CaRemoved => "ca-removed",
        }
    }

    /// What the caller is told.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Ended::Revoked => {
                "the client certificate was revoked: get a new one with `fieldkeep join` and a new join token"
            }
            Ended::CaRemoved => {
                "the CA of the client certificate is not trusted any more: get a certificate of another CA"
            }
        }
    }

    fn code(self) -> u8 {
        match self {
            Ended::Revoked => 1,
            Ended::CaRemoved => 2,
        }
    }
}

/// How one connection stands. Every call looks at it: one load of an atomic.
#[derive(Debug, Default)]
pub struct Standing {
    ended: AtomicU8,
    cut: AtomicBool,
    /// Whether a call on it named somebody by a credential of its own.
    named: AtomicBool,
    waker: AtomicWaker,
}

impl Standing {
    /// Why calls are refused, if they are.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        match self.ended.load(Ordering::Acquire) {
            1 => Some(Ended::Revoked),
            2 => Some(Ended::CaRemoved),
            _ => None,
        }
    }

    /// Whether the connection has to close now; the task of `context` is woken when it has to.
    pub fn poll_cut(&self, context: &Context<'_>) -> bool {
        if self.cut.load(Ordering::Acquire) {
            return true;
        }
        self.waker.register(context.waker());
        self.cut.load(Ordering::Acquire)
    }

    /// Takes note that a call on the connection named somebody by a token or an API key: then it is no connection of nobody's, which
    /// would be closed after a minute.
    pub fn name(&self) {
        if !self.named.load(Ordering::Relaxed) {
            self.named.store(true, Ordering::Relaxed);
        }
    }

    fn end(&self, cause: Ended) {
        self.ended.store(cause.code(), Ordering::Release);
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// An open connection.
#[derive(Debug)]
struct Open {
    standing: Arc<Standing>,
    /// Whose it is; `None`: no certificate, or one that names nobody.
    credential: Option<Arc<Credential>>,
    /// When it has to close at the latest, Unix seconds.
    close_s: u64,
    /// When it has to close if it has named nobody until then, Unix seconds.
    nameless_s: u64,
}

/// All open connections.
#[derive(Debug, Default)]
pub struct Connections {
    open: Mutex<HashMap<u64, Open>>,
    next: AtomicU64,
}

/// A connection's place in [`Connections`], until it is dropped.
#[derive(Debug)]
pub struct Place {
    connections: Arc<Connections>,
    id: u64,
    standing: Arc<Standing>,
}

impl Connections {
    /// Enters a connection that closes at `close_s`, Unix seconds, at the latest, and at `nameless_s` if neither its certificate nor a
    /// call on it has named anybody until then.
    pub fn enter(
        self: &Arc<Self>,
        credential: Option<Arc<Credential>>,
        close_s: u64,
        nameless_s: u64,
    ) -> Place {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let standing = Arc::new(Standing::default());
        let open = Open {
            standing: Arc::clone(&standing),
            credential,
            close_s,
            nameless_s,
        };
        self.lock().insert(id, open);
        Place {
            connections: Arc::clone(self),
            id,
            standing,
        }
    }

    /// Refuses every further call of the connections whose credential `has_ended`. Says how many they are; the next
    /// [`Connections::sweep`] closes them, so that a caller may still read why.
    pub fn end_where(&self, cause: Ended, has_ended: impl Fn(&Credential) -> bool) -> usize {
        let mut count = 0;
        for open in self.lock().values() {
            if open.credential.as_deref().is_some_and(&has_ended) {
                open.standing.end(cause);
                count += 1;
            }
        }
        count
    }

    /// Closes the connections whose calls are refused, whose certificate has ended, or that are too old. `now` is in Unix
    /// seconds.
    pub fn sweep(&self, now: u64) {
        for open in self.lock().values() {
            let ends = open.credential.as_ref().map(|credential| {
                u64::try_from(credential.principal.not_after)
                    .unwrap_or(0)
                    .saturating_add(EXPIRED_GRACE_S)
            });
            let is_named = open.credential.is_some() || open.standing.named.load(Ordering::Relaxed);
            if open.standing.ended().is_some()
                || now > open.close_s
                || (!is_named && now > open.nameless_s)
                || ends.is_some_and(|ends| now > ends)
            {
                open.standing.cut();
            }
        }
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// How the connection stands.
    #[must_use]
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// Refuses every call of this connection.
    pub fn end(&self, cause: Ended) {
        self.standing.end(cause);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use fieldkeep_crypto::names::Name;

    use super::*;
    use crate::access::principal::{Identity, Principal};

    fn credential(text: &str, not_after: i64) -> Option<Arc<Credential>> {
        let name = |text| Name::parse(text).unwrap();
        let identity = Identity::new(name("acme"), name(text));
        Some(Arc::new(Credential {
            principal: Principal::new(&identity, not_after),
            issued_at: 0,
            root: None,
        }))
    }

    fn is_cut(place: &Place) -> bool {
        let context = Context::from_waker(Waker::noop());
        place.standing().poll_cut(&context)
    }

    #[test]
    fn what_ended_is_refused_at_once_and_closed_by_the_next_sweep() {
        let all = Arc::new(Connections::default());
        let (app, other) = (
            all.enter(credential("app", 1_000), 1_000, 1_000),
            all.enter(credential("other", 1_000), 1_000, 1_000),
        );
        let nobody = all.enter(None, 1_000, 1_000);
        let is_app = |credential: &Credential| credential.principal.name.as_str() == "app";
        assert_eq!(all.end_where(Ended::Revoked, is_app), 1);
        assert_eq!(app.standing().ended(), Some(Ended::Revoked));
        assert!(!is_cut(&app));
        all.sweep(100);
        assert!(is_cut(&app) && !is_cut(&other) && !is_cut(&nobody));
        drop(app);
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn a_connection_ends_with_its_certificate_and_with_its_age() {
        let all = Arc::new(Connections::default());
        let brief = all.enter(credential("app", 50), 1_000, 1_000);
        let old = all.enter(credential("app", 1_000), 70, 70);
        let nobody = all.enter(None, 70, 70);
        all.sweep(50 + EXPIRED_GRACE_S);
        assert!(!is_cut(&brief));
        all.sweep(51 + EXPIRED_GRACE_S);
        assert!(is_cut(&brief) && !is_cut(&old));
        all.sweep(71);
        assert!(is_cut(&old) && is_cut(&nobody));
    }
}
