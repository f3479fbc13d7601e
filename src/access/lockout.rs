//! Back-off after failed authentication, by source and by what the caller claims to be, in a memory of a fixed size.
//!
//! A **source** is an IPv4 address, or the /64 of an IPv6 address, since that is what one host can have at will. What a
//! caller claims (`who`) is text that names a credential: `api-key:` and its id, `jwt:` with issuer and subject. Three things
//! are remembered:
//!
//! | of | after | waits | forgets | is for |
//! |---|---|---|---|---|
//! | source and `who` together | 5 failures | 1 s, doubled each time, up to 15 min | one in 10 min; all on success | guessing at one identity |
//! | source alone | 50 failures | 1 s, doubled each time, up to 1 min | one a minute | trying many identities |
//! | source and `who` that succeeded | | | after a day | letting them in while their source waits |
//!
//! - **Knowing a name locks nobody out.** There is no count by `who` alone: it would be a switch with which anyone turns off
//!   anyone. Guessing at one identity from many sources is what a secret of 256 bits is for.
//! - **Others behind the same address** wait with whoever tries many identities from there, a minute at most, and not at all if they
//!   have succeeded from there within a day. Nor do calls wait on a connection that has had the same credential verified:
//!   the caller of this module asks it only about credentials that are to be verified.
//! - **Whoever has not failed is never refused**, whatever happens to the tables: a subject is known by 64 bits of a
//!   keyed hash, and one without an entry does not wait.
//! - **The memory is fixed**: 32,768 entries of each kind, 2.3 MiB together. The entry with the fewest failures makes room, so whoever
//!   cycles addresses replaces his own, and to free one locked entry he must lock the fifteen others that share its buckets, each of
//!   which takes as many failures and waits (module `table`). With more sources than there are entries he
//!   gets more attempts than the table would give them; he had one for each source anyway.
//! - **A refused attempt is not counted**, nor is the secret looked at: a client that tries again too early does not wait longer.
//!
//! [`Lockout::check`] comes before a credential is verified, with the refusal as `RESOURCE_EXHAUSTED` and
//! its time as RetryInfo; then [`Lockout::failed`] or [`Lockout::succeeded`]. A credential that names nobody (it cannot be
//! parsed) has no `who`. Not a failure is what the caller proved and may not use (expired, from another network): it knows the secret.
//! Between `check` and `failed` other attempts may pass, as many as are being verified at that moment.
//!
//! Times are milliseconds of one clock that does not go back, such as the time since the process began.

use std::net::IpAddr;

mod table;
#[cfg(test)]
mod tests;

use self::table::{Pace, Table};

/// Source and claim together.
const PAIR: Pace = Pace {
    free: 5,
    first_ms: 1000,
    longest_ms: 15 * 60 * 1000,
    forget_ms: 10 * 60 * 1000,
};
/// The source alone. It is patient, since many may share one, and quick to forget.
const SOURCE: Pace = Pace {
    free: 50,
    first_ms: 1000,
    longest_ms: 60 * 1000,
    forget_ms: 60 * 1000,
};
/// Here a success is counted, and nobody waits.
const SUCCESS: Pace = Pace {
    free: u32::MAX - 2,
    first_ms: 1,
    longest_ms: 1,
    forget_ms: 24 * 3600 * 1000,
};

/// Where a caller comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// An IPv4 address, also one that is mapped into IPv6.
    V4(u32),
    /// The first 64 bits of an IPv6 address.
    V6(u64),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Source {
        match address.to_canonical() {
            IpAddr::V4(address) => Source::V4(address.to_bits()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Source::V6(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
        }
    }
}

/// Too many failures: nothing is verified before the time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many failed attempts: try again in {} s", retry_after_ms.div_ceil(1000))]
pub struct Backoff {
    /// How long to wait, milliseconds.
    pub retry_after_ms: u64,
    /// Whose failures they were.
    pub scope: Scope,
}

/// Whose failures a [`Backoff`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of this source with this claim.
    Claim,
    /// Those of this source with any claims.
    Source,
}

impl Scope {
    /// For the audit trail: `lockout-claim` or `lockout-source`.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Claim => "lockout-claim",
            Scope::Source => "lockout-source",
        }
    }
}

/// What is remembered of failed authentication. One for the whole process.
pub struct Lockout {
    pairs: Table,
    sources: Table,
    successes: Table,
}

impl Default for Lockout {
    fn default() -> Lockout {
        Lockout {
            pairs: Table::new(PAIR),
            sources: Table::new(SOURCE),
            successes: Table::new(SUCCESS),
        }
    }
}

impl Lockout {
    /// Whether a credential of `who` from `source` is to be verified at `now_ms`.
    ///
    /// # Errors
    /// [`Backoff`]; the credential is then not looked at.
    pub fn check(&self, source: Source, who: Option<&str>, now_ms: u64) -> Result<(), Backoff> {
        let refused = |retry_after_ms, scope| {
            Err(Backoff {
                retry_after_ms,
                scope,
            })
        };
        if let Some(who) = who {
            let wait_ms = self.pairs.wait_ms((source, who), now_ms);
            if wait_ms > 0 {
                return refused(wait_ms, Scope::Claim);
            }
        }
        let wait_ms = self.sources.wait_ms(source, now_ms);
        let succeeded = || who.is_some_and(|who| self.successes.count((source, who), now_ms) > 0);
        if wait_ms > 0 && !succeeded() {
            return refused(wait_ms, Scope::Source);
        }
        Ok(())
    }

    /// The credential was not genuine.
    pub fn failed(&self, source: Source, who: Option<&str>, now_ms: u64) {
        if let Some(who) = who {
            self.pairs.add((source, who), now_ms);
        }
        self.sources.add(source, now_ms);
    }

    /// The credential was genuine. Clears the failures of this source with this claim; the source's own stay, or whoever has
    /// one credential could try others without end.
    pub fn succeeded(&self, source: Source, who: &str, now_ms: u64) {
        self.pairs.clear((source, who));
        if self.successes.count((source, who), now_ms) == 0 {
            self.successes.add((source, who), now_ms);
        }
    }
}
