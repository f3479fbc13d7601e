//! Renews the client's certificate before it ends.
//!
//! A certificate lives a day. At about two thirds of its life the client makes a new key, has the service sign it, and goes
//! on with new connections; calls under way end where they are. If it was given files it replaces them, so that the
//! next start finds the new pair; if it may not, it keeps the pair in memory. A failure is tried again, at growing
//! intervals, until the certificate has ended. A certificate that the service refuses to renew, because another CA signed it, is
//! not tried again: whoever made it has to replace it.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fieldkeep_crypto::random;
use fieldkeep_proto::v1;

use crate::{Client, Error, call::Shared, identity::Life, reason, request::NewKey};

/// The service begins certificates this much in the past, seconds.
const BACKDATE_S: u64 = 300;
/// At the earliest and at the latest part of a life that a certificate is renewed at.
const EARLIEST: f64 = 0.60;
const LATEST: f64 = 0.73;
/// The longest sleep: the wall clock may be set, and the files may have been replaced.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
const SHORTEST_SLEEP: Duration = Duration::from_secs(1);
/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Where a renewed identity is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// In the files that the client was given.
    Files,
    /// In memory, since it was given in memory, or for this reason: the files could not be replaced.
    Memory(Option<Box<str>>),
}

/// What a renewal gave.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Renewed {
    /// When the new certificate ends, Unix seconds.
    pub expire_s: i64,
    /// Where it is kept.
    pub kept: Kept,
}

/// Why the last renewal by itself failed.
#[derive(Debug, Default)]
pub(crate) struct Problem(Mutex<Option<Arc<Error>>>);

impl Problem {
    pub(crate) fn get(&self) -> Option<Arc<Error>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, problem: Option<Arc<Error>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

impl Client {
    /// Renews the client's certificate now: a new key, signed by the service for the same identity. The client does it by
    /// itself at about two thirds of the certificate's life, unless [`renew`](crate::ClientBuilder::renew) says otherwise.
    ///
    /// New connections take the place of the present ones. If the client was given files, they are replaced, the key
    /// readable by its owner alone.
    ///
    /// # Errors
    /// See [`Error`]; the present identity stays. A certificate that has ended cannot be renewed.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let renewed = client.renew_identity().await?;
    /// println!("good until {} (Unix seconds)", renewed.expire_s);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn renew_identity(&self) -> Result<Renewed, Error> {
        let new = NewKey::make().map_err(|_| Error::Random)?;
        let request = v1::RenewCertificateRequest {
            csr_der: new.csr_der.into(),
            ttl_seconds: 0,
        };
        let path = "/fieldkeep.v1.CertificateService/RenewCertificate";
        let reply: v1::IssueCertificateResponse = self.unary(path, request, self.plan()).await?;
        let kept = self
            .pool()
            .take_renewed(reply.certificate_pem.into_bytes(), new.key_pem)
            .await?;
        Ok(Renewed {
            expire_s: reply.expire_time.map_or(0, |time| time.seconds),
            kept,
        })
    }

    /// Why the last renewal of the present certificate by the client itself failed; `None` if nothing is wrong. It is tried
    /// again, unless the reason is [`INVALID_REQUEST`](crate::reason::INVALID_REQUEST): the service renews no certificate that
    /// another CA signed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Fieldkeep::in_memory().key("pii").client().await?;
    /// if let Some(problem) = client.renewal_problem() {
    ///     eprintln!("the certificate is not renewed yet: {problem}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn renewal_problem(&self) -> Option<Arc<Error>> {
        self.renewal_state().get()
    }
}

/// Renews for as long as the client is there.
pub(crate) async fn keep_renewed(client: Weak<Shared>) {
    let mut failures = 0;
    let mut draw = 0.5;
    let mut known = None;
    let mut is_refused = false;
    loop {
        let Some(client) = Client::upgrade(&client) else {
            return;
        };
        let life = client.pool().life();
        if life != known {
            // Another certificate: by a renewal, or because somebody replaced the files.
            (known, failures, draw) = (life, 0, random_part());
            is_refused = false;
            client.renewal_state().set(None);
        }
        let wait = match life {
            Some(life) if !is_refused => wait(life, failures, draw, now_s()),
            _ => LONGEST_SLEEP,
        };
        if !wait.is_zero() {
            drop(client);
            tokio::time::sleep(wait.clamp(SHORTEST_SLEEP, LONGEST_SLEEP)).await;
            continue;
        }
        // Another process with the same files may have been first.
        client.pool().look_now().await;
        if client.pool().life() != known {
            continue;
        }
        match client.renew_identity().await {
            Ok(_) => client.renewal_state().set(None),
            Err(error) => {
                failures += 1;
                is_refused = is_final(&error);
                client.renewal_state().set(Some(Arc::new(error)));
                if is_refused {
                    continue;
                }
                let pause = pause(life, failures);
                drop(client);
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// How long to wait before a certificate is renewed; zero: now. One that has ended cannot be renewed, and is waited with until
/// the files change.
fn wait(life: Life, failures: u32, draw: f64, now: u64) -> Duration {
    if now >= life.not_after {
        return LONGEST_SLEEP;
    }
    if failures > 0 {
        return Duration::ZERO;
    }
    let from = life
        .not_before
        .saturating_add(BACKDATE_S)
        .min(life.not_after);
    let whole = Duration::from_secs(life.not_after - from);
    let due = Duration::from_secs(from) + whole.mul_f64(EARLIEST + (LATEST - EARLIEST) * draw);
    due.saturating_sub(Duration::from_secs(now))
}

/// Whether the service would refuse the same certificate again: it is of another CA. That is waited with until the files change,
/// as with one that has ended.
fn is_final(error: &Error) -> bool {
    error.reason() == Some(reason::INVALID_REQUEST)
}

/// The pause after so many failures: doubled each time, and no longer than leaves time for more tries.
fn pause(life: Option<Life>, failures: u32) -> Duration {
    let whole = life.map_or(0, |life| {
        life.not_after.saturating_sub(life.not_before + BACKDATE_S)
    });
    let first = (Duration::from_secs(whole) / 1_000).max(SHORTEST_SLEEP);
    let longest = (Duration::from_secs(whole) / 24).clamp(SHORTEST_SLEEP, LONGEST_PAUSE);
    let full = first.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let full = full.min(longest);
    // Half of it random, so that clients do not come back together.
    full / 2 + (full / 2).mul_f64(random_part())
}

/// A number from 0 to 1. Without random numbers every client takes the middle.
fn random_part() -> f64 {
    let mut draw = [0; 4];
    match random::fill(&mut draw) {
        Ok(()) => f64::from(u32::from_be_bytes(draw)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn life(issued: u64, ttl: u64) -> Life {
        Life {
            not_before: issued - BACKDATE_S,
            not_after: issued + ttl,
        }
    }

    #[test]
    fn a_certificate_is_renewed_at_about_two_thirds_of_its_life() {
        let now = 1_800_000_000;
        let hours = |draw| wait(life(now, DAY), 0, draw, now).as_secs_f64() / 3_600.0;
        assert!((14.3..14.5).contains(&hours(0.0)), "{}", hours(0.0));
        assert!((17.5..17.6).contains(&hours(1.0)), "{}", hours(1.0));
        // One that was read late in its life is renewed at once.
        assert_eq!(
            wait(life(now - 20 * 3_600, DAY), 0, 1.0, now),
            Duration::ZERO
        );
        // The backdating counts for nothing, so that a short life is no endless renewal.
        assert!(wait(life(now, 30), 0, 0.0, now) >= Duration::from_secs(17));
    }

    #[test]
    fn failures_are_tried_again_until_the_end_and_not_beyond() {
        let now = 1_800_000_000;
        assert_eq!(wait(life(now, DAY), 3, 0.5, now + DAY - 1), Duration::ZERO);
        assert_eq!(wait(life(now, DAY), 3, 0.5, now + DAY), LONGEST_SLEEP);
    }

    #[test]
    fn pauses_grow_and_leave_time_for_many_tries() {
        let day = Some(life(1_800_000_000, DAY));
        let first = pause(day, 1);
        assert!(first >= Duration::from_secs(43) && first <= Duration::from_secs(87));
        assert!(pause(day, 40) <= LONGEST_PAUSE);
        assert!(pause(Some(life(1_800_000_000, 6)), 9) <= SHORTEST_SLEEP);
        assert!(pause(None, 1) <= SHORTEST_SLEEP);
    }
}
