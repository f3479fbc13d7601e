//! How a workload gets its first certificate, and how it renews it.

use bytes::Bytes;

use crate::access::action::Action;
use crate::access::ca::{CLIENT_TTL_S, Issued, OPERATOR_TTL_S};
use crate::access::join::{
    Checked, JoinError, JoinToken, MadeToken, Repeated, UsedUp, WantedToken,
};
use crate::access::lockout::Source;
use crate::access::principal::{Identity, Principal};
use crate::access::revocation::Revocations;
use crate::service::Core;
use crate::service::access::{LocalName, check_identity};
use crate::service::failure::Failure;
use crate::service::operation::Planned;
use crate::service::perform::entry::{Entrant, Entry};
use crate::service::perform::permit::{Asks, Permit};
use crate::service::perform::{Operation, ended_failure, unauthenticated};
use crate::service::record::Account;

/// What everybody is told whose token does not count; the audit trail has the cause.
pub const TOKEN_REFUSED: &str = "the join token is not valid: it was used, its time is over, a revocation ended it, or there never was one; ask for a new one (`fieldkeep cert join-token create`)";
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
        check_identity(core, permit, &identity).await?;
        let now = permit.now_s();
        let issue = |revocations: &Revocations| {
            if let Some(ended) = permit.ended() {
                return Err(ended_failure(ended));
            }
            let by = caller.resource.clone();
            let wanted = WantedToken::new(identity.clone(), self.ttl_s, by, revocations, now)?;
            Ok(wanted)
        };
        let wanted = core.certificates.issue_with(now, issue).await?;
        let drawn = core.certificates.draw_token(wanted).await?;
        account.detail(drawn.detail());
        let (planned, store_key) = (Planned::make()?, drawn.store_key());
        let operation = permit.begin(planned, store_key.into(), account).await?;
        let made = core.certificates.keep_token(drawn, operation).await?;
        account.changed(&made);
        let made = made.value;
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
        let source = Source::from(entrant.peer().network());
        let id = self.token.id().to_owned();
        let who = format!("join:{id}");
        let now_ms = core.clock.now_us() / 1_000;
        if let Err(backoff) = core.attempts.check(source, Some(&who), now_ms) {
            account.detail(format!("join_token={id}"));
            return Err(backoff.into());
        }
        let error = match self.enroll(core, entrant, account).await {
            Ok(enrolled) => {
                core.attempts.succeeded(source, &who, now_ms);
                return Ok(enrolled);
            }
            Err(Stopped::Begun(failure)) => return Err(failure),
            Err(Stopped::Token(error)) => error,
        };
        // Whoever shows one that was used or has ended knows the secret, and guesses nothing.
        if matches!(error, JoinError::Unknown) {
            core.attempts.failed(source, Some(&who), now_ms);
        }
        if matches!(
            error,
            JoinError::Unknown | JoinError::Expired | JoinError::Used
        ) {
            account.detail(format!("join_token={id} token={error}"));
        }
        Err(error.into())
    }
}

/// Why nobody was enrolled.
enum Stopped {
    /// The token, or what was to be done with it.
    Token(JoinError),
    /// The operation could not be begun.
    Begun(Failure),
}

impl From<JoinError> for Stopped {
    fn from(error: JoinError) -> Self {
        Self::Token(error)
    }
}

impl Enroll {
    async fn enroll(
        self,
        core: &Core,
        entrant: &Entrant<'_>,
        account: &mut Account,
    ) -> Result<Enrolled, Stopped> {
        let now = entrant.now_s();
        let id = self.token.id();
        let certificates = &core.certificates;
        let checked = certificates.check_token(&self.token, &self.csr_der, now);
        let admission = match checked.await? {
            Checked::New(admission) => admission,
            Checked::Repeated(before) => return Ok(repeated(core, id, before, account)),
        };
        let identity = admission.identity.clone();
        account.used(identity.resource().to_string(), 0, "", 0);
        let issue = |revocations: &Revocations| {
            // The token was looked at before, and a revocation may have come between.
            if admission.is_revoked(revocations) {
                return Err(JoinError::Unknown);
            }
            let from = revocations.issuing_time(identity.resource(), now);
            let issued = core
                .ca
                .issue(&self.csr_der, &identity, 0, CLIENT_TTL_S, from)?;
            Ok(issued)
        };
        let issued = certificates.issue_with(now, issue).await?;
        account.detail(format!("join_token={id} {}", issued.detail));
        let planned = Planned::make().map_err(JoinError::Random)?;
        let store_key = admission.store_key().to_owned();
        let begun = entrant.begin(planned, store_key.into(), account).await;
        let operation = begun.map_err(Stopped::Begun)?;
        let used = certificates.use_up(admission, &issued, operation, now);
        match used.await? {
            UsedUp::First(changed) => {
                account.changed(&changed);
                Ok(Enrolled { identity, issued })
            }
            UsedUp::Repeated(before) => Ok(repeated(core, id, before, account)),
        }
    }
}

/// The certificate that the token `id` gave before.
fn repeated(core: &Core, id: &str, before: Repeated, account: &mut Account) -> Enrolled {
    account.used(before.identity.resource().to_string(), 0, "", 0);
    account.detail(format!("join_token={id} repeated=true"));
    Enrolled {
        identity: before.identity,
        issued: Issued {
            certificate_pem: before.certificate_pem,
            ca_pem: core.ca.certificate_pem().to_owned(),
            not_after: before.not_after,
            detail: String::new(),
        },
    }
}

/// Gives the caller a new certificate of its own identity.
pub struct RenewCertificate {
    /// The signing request, PKCS #10 in DER.
    pub csr_der: Bytes,
    /// The new certificate's life in seconds; 0: as the present one's, which is the most.
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
        let (ttl_s, max_s) = renewed_life(life, self.ttl_s);
        let issue = |revocations: &Revocations| {
            // Again, while no revocation is under way: it would not cover what is dated after it.
            if let Some(ended) = entrant.peer().ended() {
                return Err(ended_failure(ended));
            }
            let from = revocations.issuing_time(identity.resource(), now);
            let issued = core
                .ca
                .issue(&self.csr_der, &identity, ttl_s, max_s, from)?;
            Ok(issued)
        };
        let issued = core.certificates.issue_with(now, issue).await?;
        let before = &principal.credential;
        account.detail(format!("renewed={before} {}", issued.detail));
        Ok(issued)
    }
}

/// The life that a renewed certificate is to have, and the longest that it may have, seconds. It is as long as the present one's
/// if nothing is `asked` for, and nobody's grows: whoever issued a short one meant it.
fn renewed_life(present_s: u64, asked_s: u64) -> (u64, u64) {
    let max_s = present_s.clamp(1, OPERATOR_TTL_S);
    let ttl_s = if asked_s == 0 { max_s } else { asked_s };
    (ttl_s, max_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_lengthens_no_life() {
        for (present_s, asked_s, renewed) in [
            (60, 0, (60, 60)),
            (60, 30, (30, 60)),
            // More than the longest, which the CA refuses.
            (60, 61, (61, 60)),
            (60, CLIENT_TTL_S, (CLIENT_TTL_S, 60)),
            (OPERATOR_TTL_S, 0, (OPERATOR_TTL_S, OPERATOR_TTL_S)),
            (OPERATOR_TTL_S + 9, 0, (OPERATOR_TTL_S, OPERATOR_TTL_S)),
            (0, 0, (1, 1)),
        ] {
            assert_eq!(renewed_life(present_s, asked_s), renewed);
        }
    }
}
