//! Certificates: of our CA, within their time, with their key.

use std::net::IpAddr;
use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::super::output::rfc3339;
use super::Findings;
use crate::config::Config;

const DAY_S: i64 = 86_400;

/// A certificate of the service or of a caller.
pub(super) struct Checked<'a> {
    /// What it is called in the findings.
    pub(super) check: &'static str,
    /// The CA that has to have signed it.
    pub(super) ca: &'a Path,
    /// Its file.
    pub(super) certificate: &'a Path,
    /// The file of its key.
    pub(super) key: &'a Path,
    /// How long before its end it is time for a new one, seconds.
    pub(super) notice_s: i64,
    /// How to get another.
    pub(super) remedy: &'a str,
}

/// The service's certificate.
pub(super) fn server(findings: &mut Findings, config: &Config, now: i64) {
    let checked = Checked {
        check: "server certificate",
        ca: &config.tls.ca,
        certificate: &config.tls.cert,
        key: &config.tls.key,
        notice_s: 30 * DAY_S,
        remedy: "make a new one with `fieldkeep cert server --config FILE` while the service is stopped, or restore the files under `tls`",
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
        let validity = parsed.validity();
        let (start, end) = (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        );
        let ca_end = ca.validity().not_after.timestamp();
        if parsed.verify_signature(Some(ca.public_key())).is_err() {
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
        } else if now < start {
            let detail = format!("`{shown}` begins only {}", time(start));
            findings.fail(
                self.check,
                detail,
                "the clock of this machine or of the signer is wrong: set it",
            );
        } else if now >= end || now >= ca_end {
            let detail = format!("`{shown}` or its CA ended {}", time(end.min(ca_end)));
            findings.fail(self.check, detail, self.remedy);
        } else if end - now < self.notice_s {
            findings.warn(
                self.check,
                format_args!("`{shown}` ends {}", time(end)),
                self.remedy,
            );
        } else {
            findings.ok(self.check, format_args!("`{shown}`, until {}", time(end)));
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
