//! Certificates: of our CA, within their time, with their key.

use std::net::IpAddr;
use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, Validity, X509Certificate};

use super::super::output::rfc3339;
use super::Findings;
use crate::config::Config;

/// The longest notice of an end, seconds: a month is enough for a certificate of whatever life.
const MAX_NOTICE_S: i64 = 30 * 86_400;
const FROM_ITS_CA: &str = "have a new one issued by the CA that issued it";

/// A certificate of the service or of a caller.
pub(super) struct Checked<'a> {
    /// What it is called in the findings.
    pub(super) check: &'static str,
    /// The CA of the service.
    pub(super) ca: &'a Path,
    /// Who may have signed it.
    pub(super) signer: Signer,
    /// Its file.
    pub(super) certificate: &'a Path,
    /// The file of its key.
    pub(super) key: &'a Path,
    /// What to do when its end is near.
    pub(super) renewal: &'a str,
    /// How to get another when it cannot be used.
    pub(super) remedy: &'a str,
}

/// Who may have signed a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signer {
    /// The CA of the service alone.
    Ca,
    /// That, or one that was added to the service. Which those are only the service knows, and says in the handshake.
    CaOrAdded,
}

/// The service's certificate.
pub(super) fn server(findings: &mut Findings, config: &Config, now: i64) {
    let remedy = "make a new one with `fieldkeep cert server --config FILE` while the service is stopped, or restore the files under `tls`";
    let checked = Checked {
        check: "server certificate",
        ca: &config.tls.ca,
        signer: Signer::Ca,
        certificate: &config.tls.cert,
        key: &config.tls.key,
        renewal: remedy,
        remedy,
    };
    checked.check(findings, now);
    let Ok(der) = CertificateDer::from_pem_file(&config.tls.cert) else {
        return;
    };
    let Ok((_, parsed)) = X509Certificate::from_der(&der) else {
        return;
    };
    let (texts, addresses) = names(&parsed);
    for address in [config.listen.data.ip(), config.listen.admin.ip()] {
        if !address.is_unspecified() && !addresses.contains(&address) {
            let detail = format!("it is not for {address}, where the service listens");
            findings.warn(
                "server name",
                detail,
                "clients have to use one of its names; `fieldkeep cert server --config FILE --name NAME` adds one",
            );
        }
    }
    findings.ok("server name", texts.join(", "));
}

/// The names of a certificate as text, and those that are addresses.
fn names(certificate: &X509Certificate<'_>) -> (Vec<String>, Vec<IpAddr>) {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let (mut texts, mut addresses) = (Vec::new(), Vec::new());
    for name in names {
        match name {
            GeneralName::DNSName(name) => texts.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let Ok(address) = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
                else {
                    continue;
                };
                texts.push(address.to_string());
                addresses.push(address);
            }
            _ => {}
        }
    }
    (texts, addresses)
}

impl Checked<'_> {
    /// Checks the CA, the certificate and the pair.
    pub(super) fn check(&self, findings: &mut Findings, now: i64) {
        let ca = match read(self.ca) {
            Ok(ca) => ca,
            Err(problem) => {
                return findings.fail(
                    "CA certificate",
                    problem,
                    "name the `ca.pem` that `fieldkeep init` made",
                );
            }
        };
        let own = match read(self.certificate) {
            Ok(own) => own,
            Err(problem) => return findings.fail(self.check, problem, self.remedy),
        };
        let (Ok((_, ca)), Ok((_, parsed))) = (
            X509Certificate::from_der(&ca),
            X509Certificate::from_der(&own),
        ) else {
            return findings.fail(self.check, "a file holds no X.509 certificate", self.remedy);
        };
        let shown = self.certificate.display();
        let is_of_ca = parsed.verify_signature(Some(ca.public_key())).is_ok();
        if !is_of_ca && self.signer == Signer::Ca {
            let detail = format!("`{shown}` is not signed by the CA `{}`", self.ca.display());
            findings.fail(
                self.check,
                detail,
                "use the certificate and the `ca.pem` of one service",
            );
        } else if let Err(problem) = self.is_pair(&parsed) {
            findings.fail(
                self.check,
                problem,
                "use the certificate and the key that were made together",
            );
        } else {
            let ca = is_of_ca.then_some(&ca);
            self.check_life(findings, parsed.validity(), ca, now);
        }
    }

    /// Checks that it is of this time, and its CA too; `None`: it is of another CA, of which nothing is known here.
    fn check_life(
        &self,
        findings: &mut Findings,
        validity: &Validity,
        ca: Option<&X509Certificate<'_>>,
        now: i64,
    ) {
        let shown = self.certificate.display();
        let (start, end) = (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        );
        let ca_end = ca.map_or(i64::MAX, |ca| ca.validity().not_after.timestamp());
        // The service renews the certificates of its own CA alone.
        let (renewal, remedy, signer) = match ca {
            Some(_) => (self.renewal, self.remedy, ""),
            None => (
                FROM_ITS_CA,
                FROM_ITS_CA,
                ", of another CA than the service's own; the service takes it if that CA was added",
            ),
        };
        if now < start {
            findings.fail(
                self.check,
                format_args!("`{shown}` begins only {}", time(start)),
                "the clock of this machine or of the signer is wrong: set it",
            );
        } else if now >= end || now >= ca_end {
            findings.fail(
                self.check,
                format_args!("`{shown}` or its CA ended {}", time(end.min(ca_end))),
                remedy,
            );
        } else if end.saturating_sub(now) < notice_s(start, end) {
            findings.warn(
                self.check,
                format_args!("`{shown}` ends {}{signer}", time(end)),
                renewal,
            );
        } else {
            findings.ok(
                self.check,
                format_args!("`{shown}`, until {}{signer}", time(end)),
            );
        }
    }

    fn is_pair(&self, certificate: &X509Certificate<'_>) -> Result<(), String> {
        let shown = self.key.display();
        // The error is not shown in full: it must never quote what is in the file.
        let key = PrivateKeyDer::from_pem_file(self.key)
            .map_err(|_| format!("`{shown}` cannot be read as a private key in PEM"))?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key)
            .map_err(|_| format!("`{shown}` is a private key of a kind that is not supported"))?;
        match key.public_key() {
            Some(public) if public.as_ref() == certificate.public_key().raw => Ok(()),
            _ => Err(format!(
                "`{shown}` is not the key of `{}`",
                self.certificate.display()
            )),
        }
    }
}

/// How long before its end it is time for a new one, seconds: a tenth of its life, which may be a day or years. The SDK has
/// renewed long before.
fn notice_s(start: i64, end: i64) -> i64 {
    (end.saturating_sub(start) / 10).min(MAX_NOTICE_S)
}

fn read(path: &Path) -> Result<CertificateDer<'static>, String> {
    CertificateDer::from_pem_file(path).map_err(|error| match error {
        rustls_pki_types::pem::Error::Io(error) => {
            format!("cannot read `{}`: {error}", path.display())
        }
        _ => format!("`{}` holds no certificate in PEM", path.display()),
    })
}

fn time(seconds: i64) -> String {
    rfc3339(seconds).as_str().unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use time::OffsetDateTime;

    use super::super::State;
    use super::*;

    const NOW: i64 = 1_800_000_000;
    const DAY_S: i64 = 86_400;

    fn make_ca() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// What is found at `NOW` of a certificate with a life of its own, signed by the CA or by another.
    fn found(signer: Signer, is_of_ca: bool, start: i64, end: i64) -> (State, String) {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        let ca = make_ca();
        let date = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        (params.not_before, params.not_after) = (date(start), date(end));
        let key = KeyPair::generate().unwrap();
        let other = make_ca();
        let issuer = if is_of_ca { &ca } else { &other };
        let certificate = params.signed_by(&key, issuer).unwrap();
        fs::write(file("ca.pem"), ca.pem()).unwrap();
        fs::write(file("own.pem"), certificate.pem()).unwrap();
        fs::write(file("own.key"), key.serialize_pem()).unwrap();
        let checked = Checked {
            check: "own certificate",
            ca: &file("ca.pem"),
            signer,
            certificate: &file("own.pem"),
            key: &file("own.key"),
            renewal: "renew",
            remedy: "replace",
        };
        let mut findings = Findings::default();
        checked.check(&mut findings, NOW);
        assert_eq!(findings.0.len(), 1, "{findings:?}");
        let finding = findings.0.remove(0);
        let said = finding.remedy.unwrap_or(finding.detail);
        (finding.state, said)
    }

    #[test]
    fn the_notice_is_a_share_of_the_life() {
        let state = |start, end| found(Signer::Ca, true, NOW + start, NOW + end).0;
        assert_eq!(state(-300, DAY_S), State::Ok, "fresh, of a day");
        assert_eq!(state(-DAY_S / 2, DAY_S / 2), State::Ok);
        assert_eq!(state(-DAY_S + 3_600, 3_600), State::Warn);
        assert_eq!(state(-10 * DAY_S, 20 * DAY_S), State::Ok);
        assert_eq!(state(-28 * DAY_S, 2 * DAY_S), State::Warn);
        assert_eq!(state(-334 * DAY_S, 31 * DAY_S), State::Ok);
        assert_eq!(state(-336 * DAY_S, 29 * DAY_S), State::Warn);
        assert_eq!(state(-DAY_S, 0), State::Fail);
        assert_eq!(state(10, DAY_S), State::Fail);
    }

    #[test]
    fn what_is_near_its_end_is_renewed_and_what_has_ended_replaced() {
        let found = |end| found(Signer::CaOrAdded, true, NOW - DAY_S, NOW + end);
        assert_eq!(found(60), (State::Warn, "renew".into()));
        assert_eq!(found(-60), (State::Fail, "replace".into()));
    }

    #[test]
    fn another_ca_may_have_signed_a_callers_certificate_alone() {
        let (state, said) = found(Signer::CaOrAdded, false, NOW - 300, NOW + DAY_S);
        assert_eq!(state, State::Ok);
        assert!(said.contains("of another CA"), "{said}");
        for end in [60, -60] {
            let (state, said) = found(Signer::CaOrAdded, false, NOW - DAY_S, NOW + end);
            assert_ne!(state, State::Ok);
            assert_eq!(said, FROM_ITS_CA);
        }
        assert_eq!(
            found(Signer::Ca, false, NOW - 300, NOW + DAY_S).0,
            State::Fail
        );
    }
}
