//! Certificates and keys from PEM, and the TLS settings made of them.

use std::{fmt, io::Read as _, path::PathBuf, sync::Arc};

use rustls::{ClientConfig, RootCertStore, client::Resumption, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _};
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::{
    ConfigError,
    keep::{finish_pair, replace_pair, unfinished},
};

/// No certificate or key comes near this length; the bound keeps a wrong path from filling the memory.
const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// A part of the client's credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The CA certificate.
    Ca,
    /// The client's certificate.
    Certificate,
    /// The client's private key.
    Key,
    /// The token that is shown with each call.
    Token,
    /// The API key that is shown with each call.
    ApiKey,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ca => "CA certificate",
            Self::Certificate => "client certificate",
            Self::Key => "private key",
            Self::Token => "token",
            Self::ApiKey => "API key",
        })
    }
}

/// Where a part of the credentials is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// Memory.
    Memory,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file `{}`", path.display()),
            Self::Memory => f.write_str("given in memory"),
        }
    }
}

/// What is wrong with a PEM text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemProblem {
    /// There is no PEM section at all.
    #[error("is not PEM: no `-----BEGIN …-----` line is in it")]
    NotPem,
    /// There are PEM sections, but none of the right kind.
    #[error("has no `{expected}` section")]
    NoSection {
        /// The label that is expected.
        expected: &'static str,
    },
    /// A PEM section is cut off or not base64.
    #[error("is damaged PEM")]
    Damaged,
    /// The content is not a certificate.
    #[error("holds a certificate that cannot be read")]
    BadCertificate,
    /// The content is not a private key of a kind that can be used.
    #[error(
        "holds a private key that cannot be read; ECDSA P-256, P-384, Ed25519 and RSA keys are"
    )]
    BadKey,
    /// It is far longer than any such file.
    #[error("is longer than 1 MiB")]
    TooLong,
}

/// Where PEM text comes from.
#[derive(Clone)]
pub(crate) enum Source {
    File(PathBuf),
    Memory(Zeroizing<Vec<u8>>),
}

impl Source {
    pub(crate) fn memory(pem: &[u8]) -> Self {
        Self::Memory(Zeroizing::new(pem.to_vec()))
    }

    pub(crate) fn origin(&self) -> Origin {
        match self {
            Self::File(path) => Origin::File(path.clone()),
            Self::Memory(_) => Origin::Memory,
        }
    }

    pub(crate) fn read(&self, what: Part) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
        let path = match self {
            Self::Memory(pem) => return Ok(pem.clone()),
            Self::File(path) => path,
        };
        let unreadable = |source| ConfigError::Unreadable {
            what,
            path: path.clone(),
            source,
        };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        // Room for all of it beforehand, so that a growing buffer leaves no copies of a key behind.
        let room = usize::try_from(length.min(MAX_PEM_BYTES)).unwrap_or(0) + 1;
        let mut text = Zeroizing::new(Vec::with_capacity(room));
        file.take(MAX_PEM_BYTES + 1)
            .read_to_end(&mut text)
            .map_err(unreadable)?;
        if text.len() as u64 > MAX_PEM_BYTES {
            return Err(self.bad(what, PemProblem::TooLong));
        }
        Ok(text)
    }

    fn bad(&self, what: Part, problem: PemProblem) -> ConfigError {
        ConfigError::BadPem {
            what,
            origin: self.origin(),
            problem,
        }
    }

    pub(crate) fn certificates(
        &self,
        what: Part,
        text: &[u8],
    ) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let certificates = CertificateDer::pem_slice_iter(text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| self.bad(what, pem_problem(&error, text, "CERTIFICATE")))?;
        if certificates.is_empty() {
            return Err(self.bad(
                what,
                pem_problem(&pem::Error::NoItemsFound, text, "CERTIFICATE"),
            ));
        }
        Ok(certificates)
    }

    fn private_key(&self, text: &[u8]) -> Result<PrivateKeyDer<'static>, ConfigError> {
        PrivateKeyDer::from_pem_slice(text)
            .map_err(|error| self.bad(Part::Key, pem_problem(&error, text, "PRIVATE KEY")))
    }
}

/// The times of a certificate, Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

/// Who the client is and whom it trusts: where the parts are from.
pub(crate) struct Credentials {
    pub(crate) ca: Source,
    /// Certificate and private key; `None`: a token or an API key alone says who the client is.
    pub(crate) identity: Option<(Source, Source)>,
}

/// What the parts held when they were read.
#[derive(PartialEq, Eq)]
pub(crate) struct Texts {
    ca: Zeroizing<Vec<u8>>,
    identity: Option<Pair>,
}

#[derive(PartialEq, Eq)]
struct Pair {
    certificate: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
}

impl Texts {
    /// The same trust with another identity.
    pub(crate) fn with_identity(&self, certificate: Vec<u8>, key: &[u8]) -> Self {
        Self {
            ca: self.ca.clone(),
            identity: Some(Pair {
                certificate: Zeroizing::new(certificate),
                key: Zeroizing::new(key.to_vec()),
            }),
        }
    }

    /// The life of the client's certificate, if it can be read.
    pub(crate) fn life(&self) -> Option<Life> {
        let pair = self.identity.as_ref()?;
        let der = CertificateDer::from_pem_slice(&pair.certificate).ok()?;
        let (_, parsed) = X509Certificate::from_der(&der).ok()?;
        let seconds = |time: ASN1Time| u64::try_from(time.timestamp()).ok();
        Some(Life {
            not_before: seconds(parsed.validity().not_before)?,
            not_after: seconds(parsed.validity().not_after)?,
        })
    }
}

fn pem_problem(error: &pem::Error, text: &[u8], expected: &'static str) -> PemProblem {
    let has_section = text.windows(11).any(|window| window == b"-----BEGIN ");
    match error {
        pem::Error::NoItemsFound if has_section => PemProblem::NoSection { expected },
        pem::Error::NoItemsFound => PemProblem::NotPem,
        _ => PemProblem::Damaged,
    }
}

impl Credentials {
    /// Whether any part is a file, which may change.
    pub(crate) fn may_change(&self) -> bool {
        let own = self.identity.iter().flat_map(|(one, other)| [one, other]);
        std::iter::once(&self.ca)
            .chain(own)
            .any(|source| matches!(source, Source::File(_)))
    }

    pub(crate) fn read(&self) -> Result<Texts, ConfigError> {
        let read = |(certificate, key): &(Source, Source)| {
            Ok(Pair {
                certificate: certificate.read(Part::Certificate)?,
                key: key.read(Part::Key)?,
            })
        };
        Ok(Texts {
            ca: self.ca.read(Part::Ca)?,
            identity: self.identity.as_ref().map(read).transpose()?,
        })
    }

    /// Reads the parts and makes the settings of them; `None` if they are `known`. A pair whose replacement was cut short is
    /// read as the new one.
    pub(crate) fn load(
        &self,
        known: Option<&Texts>,
    ) -> Result<Option<(Texts, ClientConfig)>, ConfigError> {
        let texts = self.read()?;
        if known == Some(&texts) {
            return Ok(None);
        }
        match self.tls_config(&texts) {
            Err(mismatch @ ConfigError::KeyMismatch { .. }) => {
                let found = self.load_unfinished(texts).ok_or(mismatch)?;
                // Where it cannot be put in its place it is met again at every look.
                Ok((known != Some(&found.0)).then_some(found))
            }
            made => Ok(Some((texts, made?))),
        }
    }

    fn load_unfinished(&self, texts: Texts) -> Option<(Texts, ClientConfig)> {
        let (Source::File(path), key) = self.identity.as_ref()? else {
            return None;
        };
        let new = unfinished(path);
        let pair = Pair {
            certificate: Source::File(new).read(Part::Certificate).ok()?,
            ..texts.identity?
        };
        let texts = Texts {
            ca: texts.ca,
            identity: Some(pair),
        };
        let config = self.tls_config(&texts).ok()?;
        // Whoever may not write here uses it where it is. So does who meets a process that is replacing the pair, which is about
        // to rename that file itself.
        if let Source::File(key) = key {
            let _ = finish_pair(path, key);
        }
        Some((texts, config))
    }

    /// Replaces the files of the identity, if it is in files. Says whether it did.
    pub(crate) fn keep(&self, texts: &Texts) -> std::io::Result<bool> {
        let (Some((Source::File(certificate), Source::File(key))), Some(pair)) =
            (&self.identity, &texts.identity)
        else {
            return Ok(false);
        };
        replace_pair((certificate, &pair.certificate), (key, &pair.key))?;
        Ok(true)
    }

    /// TLS 1.3 only, ring's algorithms, one CA, a client certificate if there is one, no resumption.
    pub(crate) fn tls_config(&self, texts: &Texts) -> Result<ClientConfig, ConfigError> {
        let ca = &self.ca;
        let mut roots = RootCertStore::empty();
        for root in ca.certificates(Part::Ca, &texts.ca)? {
            roots
                .add(root)
                .map_err(|_| ca.bad(Part::Ca, PemProblem::BadCertificate))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(ConfigError::Tls)?
            .with_root_certificates(roots);
        let mut config = match (&self.identity, &texts.identity) {
            (Some((certificate, key)), Some(pair)) => {
                let chain = certificate.certificates(Part::Certificate, &pair.certificate)?;
                let private_key = key.private_key(&pair.key)?;
                builder
                    .with_client_auth_cert(chain, private_key)
                    .map_err(|error| unusable(error, certificate, key))?
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// Why TLS does not take a certificate and a key.
fn unusable(error: rustls::Error, certificate: &Source, key: &Source) -> ConfigError {
    match error {
        rustls::Error::InconsistentKeys(_) => ConfigError::KeyMismatch {
            key: key.origin(),
            certificate: certificate.origin(),
        },
        rustls::Error::InvalidCertificate(_) => {
            certificate.bad(Part::Certificate, PemProblem::BadCertificate)
        }
        rustls::Error::General(_) => key.bad(Part::Key, PemProblem::BadKey),
        other => ConfigError::Tls(other),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;

    use super::*;

    struct Pems {
        certificate: String,
        key: String,
    }

    fn pems() -> Pems {
        let made = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        Pems {
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        }
    }

    fn tls_config(
        ca: &Source,
        certificate: &Source,
        key: &Source,
    ) -> Result<ClientConfig, ConfigError> {
        let credentials = Credentials {
            ca: ca.clone(),
            identity: Some((certificate.clone(), key.clone())),
        };
        credentials.tls_config(&credentials.read()?)
    }

    fn memory(text: &str) -> Source {
        Source::memory(text.as_bytes())
    }

    fn problem(outcome: Result<ClientConfig, ConfigError>) -> (Part, PemProblem) {
        match outcome.unwrap_err() {
            ConfigError::BadPem { what, problem, .. } => (what, problem),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_tls_13_with_http2_and_without_resumption() {
        let pems = pems();
        let config = tls_config(
            &memory(&pems.certificate),
            &memory(&pems.certificate),
            &memory(&pems.key),
        )
        .unwrap();
        assert_eq!(config.alpn_protocols, [b"h2"]);
        assert!(format!("{:?}", config.resumption).contains("NoClientSessionStorage"));
        assert!(!config.enable_early_data);
    }

    #[test]
    fn each_part_that_is_not_what_it_should_be_is_named() {
        let pems = pems();
        let cert = &pems.certificate;
        let cut = &cert[..cert.len() / 2];
        let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let not_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let no_certificate = PemProblem::NoSection {
            expected: "CERTIFICATE",
        };
        let no_key = PemProblem::NoSection {
            expected: "PRIVATE KEY",
        };
        for (ca, certificate, key, expected) in [
            (
                "",
                cert.as_str(),
                &*pems.key,
                (Part::Ca, PemProblem::NotPem),
            ),
            (&*pems.key, cert, &*pems.key, (Part::Ca, no_certificate)),
            (cut, cert, &*pems.key, (Part::Ca, PemProblem::Damaged)),
            (
                not_der,
                cert,
                &*pems.key,
                (Part::Ca, PemProblem::BadCertificate),
            ),
            (
                cert,
                "nonsense",
                &*pems.key,
                (Part::Certificate, PemProblem::NotPem),
            ),
            (
                cert,
                &*pems.key,
                &*pems.key,
                (Part::Certificate, no_certificate),
            ),
            (
                cert,
                not_der,
                &*pems.key,
                (Part::Certificate, PemProblem::BadCertificate),
            ),
            (cert, cert, "", (Part::Key, PemProblem::NotPem)),
            (cert, cert, cert, (Part::Key, no_key)),
            (cert, cert, not_key, (Part::Key, PemProblem::BadKey)),
        ] {
            let outcome = tls_config(&memory(ca), &memory(certificate), &memory(key));
            assert_eq!(problem(outcome), expected);
        }
    }

    #[test]
    fn key_of_another_certificate_is_told_as_such() {
        let pems = pems();
        let other = KeyPair::generate().unwrap().serialize_pem();
        let error = tls_config(
            &memory(&pems.certificate),
            &memory(&pems.certificate),
            &memory(&other),
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the private key given in memory does not belong to the certificate given in memory"
        );
    }

    /// Files of a replacement of `old` by `new` that was cut short, before or after the key was replaced.
    fn cut_short(
        folder: &std::path::Path,
        old: &Pems,
        new: &Pems,
        key_replaced: bool,
    ) -> Credentials {
        let (certificate, key) = (folder.join("a.pem"), folder.join("a.key"));
        std::fs::write(&certificate, &old.certificate).unwrap();
        std::fs::write(folder.join("a.pem.new"), &new.certificate).unwrap();
        std::fs::write(&key, if key_replaced { &new.key } else { &old.key }).unwrap();
        Credentials {
            ca: memory(&old.certificate),
            identity: Some((Source::File(certificate), Source::File(key))),
        }
    }

    #[test]
    fn a_replacement_cut_before_the_key_is_read_as_the_old_pair() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (pems(), pems());
        let credentials = cut_short(dir.path(), &old, &new, false);
        let (texts, _) = credentials.load(None).unwrap().unwrap();
        assert_eq!(
            **texts.identity.as_ref().unwrap().certificate,
            *old.certificate.as_bytes()
        );
        assert!(dir.path().join("a.pem.new").exists());
    }

    #[test]
    fn a_replacement_cut_after_the_key_is_read_as_the_new_pair_and_finished() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (pems(), pems());
        let credentials = cut_short(dir.path(), &old, &new, true);
        let (texts, _) = credentials.load(None).unwrap().unwrap();
        assert_eq!(
            **texts.identity.as_ref().unwrap().certificate,
            *new.certificate.as_bytes()
        );
        let kept = std::fs::read_to_string(dir.path().join("a.pem")).unwrap();
        assert_eq!(kept, new.certificate);
        assert!(!dir.path().join("a.pem.new").exists());
        assert!(credentials.load(Some(&texts)).unwrap().is_none());
    }

    #[test]
    fn a_process_that_is_replacing_the_pair_keeps_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (pems(), pems());
        let credentials = cut_short(dir.path(), &old, &new, true);
        let lock = std::fs::File::create(dir.path().join("a.key.lock")).unwrap();
        lock.try_lock().unwrap();
        let (texts, _) = credentials.load(None).unwrap().unwrap();
        assert_eq!(
            **texts.identity.as_ref().unwrap().certificate,
            *new.certificate.as_bytes()
        );
        assert!(dir.path().join("a.pem.new").exists());
        let present = std::fs::read_to_string(dir.path().join("a.pem")).unwrap();
        assert_eq!(present, old.certificate);
        // It is no other identity at the next look.
        assert!(credentials.load(Some(&texts)).unwrap().is_none());
    }

    #[test]
    fn files_that_are_missing_or_far_too_long_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let pems = pems();
        let ca = dir.path().join("ca.pem");
        let read = |path: &std::path::Path| Source::File(path.into());
        let error =
            tls_config(&read(&ca), &memory(&pems.certificate), &memory(&pems.key)).unwrap_err();
        assert!(
            error.to_string().starts_with(&format!(
                "cannot read the CA certificate file `{}`: ",
                ca.display()
            )),
            "{error}"
        );
        std::fs::write(&ca, vec![b' '; 1024 * 1024 + 1]).unwrap();
        let outcome = tls_config(&read(&ca), &memory(&pems.certificate), &memory(&pems.key));
        assert_eq!(problem(outcome), (Part::Ca, PemProblem::TooLong));
        std::fs::write(&ca, &pems.certificate).unwrap();
        tls_config(&read(&ca), &memory(&pems.certificate), &memory(&pems.key)).unwrap();
    }
}
