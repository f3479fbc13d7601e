//! How a workload gets its first certificate, and how it renews it.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::access::action::Action;
use crate::access::ca::{CLIENT_TTL_S, Issued, OPERATOR_TTL_S};
use crate::access::join::{Checked, JoinError, JoinToken, MadeToken};
use crate::access::principal::{Identity, Principal};
use crate::service::Core;
use crate::service::access::{LocalName, check_reach};
use crate::service::failure::Failure;
use crate::service::operation::random_operation;
use crate::service::perform::entry::{Entrant, Entry};
use crate::service::perform::permit::{Asks, Permit};
use crate::service::perform::{Operation, ended_failure, unauthenticated};
use crate::service::record::Account;

/// What everybody is told whose token does not count; the audit trail has the cause.
pub const TOKEN_REFUSED: &str = "the join token is not valid: it was used, its time is over, or there never was one; ask for a new one (`fieldkeep cert join-token create`)";
const NO_CERTIFICATE: &str =
    "only a client certificate can be renewed, and this connection has none";
const EXPIRED: &str = "the certificate has expired, and an expired one cannot be renewed: enrol again with a new join token";
const FOREIGN: &str = "the certificate is of another CA, which renews it";

/// Makes a join token for an identity of a tenant that exists.
pub struct CreateJoinToken {
    /// Whom it lets in.
    pub identity: LocalName,
    /// How long it can be used, seconds; 0: the default.
    pub ttl_s: u64,
}

/// A token, whom it lets in, and by what the service is known.
pub struct CreatedToken {
    /// The token.
    pub made: MadeToken,
    /// The identity.
    pub identity: Identity,
    /// SHA-256 of the CA certificate, `sha256:` and hexadecimal.
    pub ca_fingerprint: String,
}

impl Operation for CreateJoinToken {
    const ACTION: Action = Action::Certificate;
    const CHANGES: bool = true;
    type Output = CreatedToken;

    fn asks<'a>(&'a self, caller: &'a Principal) -> Asks<'a> {
        Asks::Of {
            tenant: self.identity.tenant(caller).as_str(),
            key: None,
        }
    }

    fn about(&self, caller: &Principal, account: &mut Account) {
        account.used(self.identity.resource(caller), 0, "", 0);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<CreatedToken, Failure> {
        let caller = permit.principal();
        self.about(caller, account);
        let identity = self.identity.identity(caller);
        let tenant = identity.tenant();
        core.vault
            .manage(permit, tenant.as_str(), None)?
            .tenant(tenant)
            .await?;
        check_reach(permit, permit.snapshot().reached_by(identity.resource()))?;
        let operation = random_operation()?;
        let made = core
            .certificates
            .make_token(
                &identity,
                self.ttl_s,
                &caller.resource,
                operation,
                permit.now_s(),
            )
            .await?;
        account.changed(&made);
        let made = made.value;
        account.detail(format!(
            "join_token={} expires={}",
            made.token.id(),
            made.expires
        ));
        Ok(CreatedToken {
            made,
            identity,
            ca_fingerprint: core.ca.fingerprint(),
        })
    }
}

/// Gives a new workload its first certificate.
pub struct Enroll {
    /// What the caller shows.
    pub token: JoinToken,
    /// The signing request, PKCS #10 in DER.
    pub csr_der: Bytes,
}

/// The first certificate of a workload.
pub struct Enrolled {
    /// Who it is now.
    pub identity: Identity,
    /// Its certificate.
    pub issued: Issued,
}

impl Entry for Enroll {
    const RULE: &'static str = "join-token";
    type Output = Enrolled;

    async fn run(
        self,
        core: &Core,
        entrant: &Entrant<'_>,
        account: &mut Account,
    ) -> Result<Enrolled, Failure> {
        let source = Some(entrant.peer().network.to_canonical());
        let now = entrant.now_s();
        if !core.attempts.take(source, now) {
            return Err(Failure::TooManyAttempts);
        }
        let enrolled = self.enroll(core, now, account).await?;
        // Only failures count: many workloads may come from one address.
        core.attempts.give_back(source);
        Ok(enrolled)
    }
}

impl Enroll {
    async fn enroll(
        self,
        core: &Core,
        now: u64,
        account: &mut Account,
    ) -> Result<Enrolled, Failure> {
        let id = self.token.id().to_owned();
        let refused = |account: &mut Account, error: JoinError| {
            if matches!(
                error,
                JoinError::Unknown | JoinError::Expired | JoinError::Used
            ) {
                account.detail(format!("join_token={id} token={error}"));
            }
            Failure::from(error)
        };
        let certificates = &core.certificates;
        let checked = certificates
            .check_token(&self.token, &self.csr_der, now)
            .await;
        let admission = match checked.map_err(|error| refused(account, error))? {
            Checked::New(admission) => admission,
            Checked::Repeated(before) => {
                account.used(before.identity.resource().to_string(), 0, "", 0);
                account.detail(format!("join_token={id} repeated=true"));
                return Ok(Enrolled {
                    identity: before.identity,
                    issued: Issued {
                        certificate_pem: before.certificate_pem,
                        ca_pem: core.ca.certificate_pem().to_owned(),
                        not_after: before.not_after,
                        detail: String::new(),
                    },
                });
            }
        };
        let identity = admission.identity.clone();
        account.used(identity.resource().to_string(), 0, "", 0);
        let from = certificates.issuing_time(&identity, now);
        let issued = core
            .ca
            .issue(&self.csr_der, &identity, 0, CLIENT_TTL_S, from)?;
        let operation = random_operation()?;
        let used = certificates
            .use_up(admission, &self.csr_der, &issued, operation, now)
            .await
            .map_err(|error| refused(account, error))?;
        account.changed(&used);
        account.detail(format!("join_token={id} {}", issued.detail));
        Ok(Enrolled { identity, issued })
    }
}

/// Gives the caller a new certificate of its own identity.
pub struct RenewCertificate {
    /// The signing request, PKCS #10 in DER.
    pub csr_der: Bytes,
    /// The new certificate's life in seconds; 0: as the present one's.
    pub ttl_s: u64,
}

impl Entry for RenewCertificate {
    const RULE: &'static str = "own-identity";
    type Output = Issued;

    async fn run(
        self,
        core: &Core,
        entrant: &Entrant<'_>,
        account: &mut Account,
    ) -> Result<Issued, Failure> {
        let Some(credential) = entrant.peer().credential() else {
            return Err(unauthenticated(NO_CERTIFICATE));
        };
        if let Some(ended) = entrant.peer().ended() {
            return Err(ended_failure(ended));
        }
        let principal = &credential.principal;
        account.used(principal.resource.to_string(), 0, "", 0);
        let now = entrant.now_s();
        if i64::try_from(now).unwrap_or(i64::MAX) > principal.not_after {
            return Err(unauthenticated(EXPIRED));
        }
        if credential.root.is_some() {
            return Err(Failure::invalid("csr_der", FOREIGN));
        }
        let identity = principal.identity();
        let life = u64::try_from(principal.not_after)
            .unwrap_or(0)
            .saturating_sub(credential.issued_at);
        // An operator's longer life stays what it was, and nobody's grows.
        let max_s = life.clamp(CLIENT_TTL_S, OPERATOR_TTL_S);
        let ttl_s = match self.ttl_s {
            0 => life.clamp(1, max_s),
            asked => asked,
        };
        let from = core.certificates.issuing_time(&identity, now);
        let issued = core
            .ca
            .issue(&self.csr_der, &identity, ttl_s, max_s, from)?;
        let before = &principal.credential;
        account.detail(format!("renewed={before} {}", issued.detail));
        Ok(issued)
    }
}

/// Attempts that a source may make at once.
const BURST: u32 = 10;
/// After this a source may make another one, seconds.
const REFILL_S: u64 = 6;
/// Sources are told apart in so many buckets.
const BUCKETS: usize = 1_024;

/// How many attempts without a certificate each source has left: a fixed number of buckets, so that no flood of sources takes
/// memory. Two sources may share one; the secret of a token does not depend on this bound, only what a flood costs.
pub struct Attempts {
    buckets: Mutex<Vec<Bucket>>,
    hasher: RandomState,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: u32,
    /// When one was added last, Unix seconds.
    filled: u64,
}

impl Default for Attempts {
    fn default() -> Self {
        let full = Bucket {
            left: BURST,
            filled: 0,
        };
        Self {
            buckets: Mutex::new(vec![full; BUCKETS]),
            hasher: RandomState::new(),
        }
    }
}

impl Attempts {
    /// Takes one attempt of `source` at `now`, Unix seconds, if it has one left.
    pub fn take(&self, source: Option<IpAddr>, now: u64) -> bool {
        let mut taken = false;
        self.with(source, |bucket| {
            let more = now.saturating_sub(bucket.filled) / REFILL_S;
            if more > 0 {
                let more = u32::try_from(more).unwrap_or(BURST);
                bucket.left = bucket.left.saturating_add(more).min(BURST);
                bucket.filled = now;
            }
            taken = bucket.left > 0;
            bucket.left = bucket.left.saturating_sub(1);
        });
        taken
    }

    /// Gives one back, for an attempt that succeeded.
    pub fn give_back(&self, source: Option<IpAddr>) {
        self.with(source, |bucket| bucket.left = (bucket.left + 1).min(BURST));
    }

    fn with(&self, source: Option<IpAddr>, change: impl FnOnce(&mut Bucket)) {
        // Whoever has one IPv6 address has a /64 of them.
        let of = match source {
            Some(IpAddr::V6(address)) => address.to_bits() >> 64,
            Some(IpAddr::V4(address)) => u128::from(address.to_bits()),
            None => 0,
        };
        let index = self.hasher.hash_one(of) as usize % BUCKETS;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(index) {
            change(bucket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_of_a_source_are_bounded_and_come_back_with_time() {
        let attempts = Attempts::default();
        let source = Some("192.0.2.7".parse().unwrap());
        let took = |now| (0..20).filter(|_| attempts.take(source, now)).count();
        assert_eq!(took(1_000), BURST as usize);
        assert_eq!(took(1_000), 0);
        assert_eq!(took(1_000 + 2 * REFILL_S), 2);
        attempts.give_back(source);
        assert_eq!(took(1_000 + 2 * REFILL_S), 1);
        assert_eq!(took(100_000), BURST as usize);
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let attempts = Attempts::default();
        for last in 0..BURST {
            let source = format!("2001:db8::{last:x}").parse().unwrap();
            assert!(attempts.take(Some(source), 0));
        }
        assert!(!attempts.take(Some("2001:db8::ffff:1".parse().unwrap()), 0));
    }
}
