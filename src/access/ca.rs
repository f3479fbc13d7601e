//! The built-in certificate authority: one ECDSA P-256 key, made at `init` and wrapped under the master key.
//!
//! Its record `sys/ca` holds the CA certificate and the wrapped key. It signs certificates for clients (client
//! authentication, one SPIFFE URI) and for the server (server authentication, host names); neither serves as the other.

use std::net::IpAddr;

use fieldkeep_crypto::random::{self, RandomError};
use fieldkeep_keystore::{
    error::KeystoreError, info::Changed, keystore::Keystore, store::Operation,
};
use prost::Message as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use ring::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use time::OffsetDateTime;
use zeroize::{Zeroize as _, Zeroizing};

use super::principal::{Identity, serial_text};

mod request;
#[cfg(test)]
mod tests;

/// The store key of the CA's record.
const RECORD_KEY: &str = "sys/ca";
/// The object id under which the CA's key is wrapped.
const SECRET_ID: &str = "sys/ca";
/// The life of the CA, seconds: ten years.
pub const CA_TTL_S: u64 = 10 * 365 * 24 * 3600;
/// The longest life of the server's certificate, seconds: 365 days.
pub const MAX_TTL_S: u64 = 365 * 24 * 3600;
/// The longest life of a client's certificate, and its life when none is asked for, seconds: 24 hours. Who lives longer
/// renews it.
pub const CLIENT_TTL_S: u64 = 24 * 3600;
/// The longest life of an operator's certificate, which is made on the host itself: by `init`, or with `--config`. Seconds:
/// 30 days.
pub const OPERATOR_TTL_S: u64 = 30 * 24 * 3600;
/// Certificates begin this much in the past, so that clocks need not agree to the second.
pub(super) const BACKDATE_S: u64 = 300;

/// The certificate authority.
pub struct Ca {
    key: Key,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    trust_domain: String,
    not_after: u64,
}

/// The payload of the record.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct CaRecord {
    #[prost(string, tag = "1")]
    certificate_pem: String,
    /// PKCS #8, wrapped under the master key.
    #[prost(bytes = "vec", tag = "2")]
    wrapped_key: Vec<u8>,
    #[prost(string, tag = "3")]
    trust_domain: String,
}

/// A signed client certificate.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The CA's certificate, PEM.
    pub ca_pem: String,
    /// When the certificate ends, Unix seconds.
    pub not_after: i64,
    /// What the audit trail says about it: `serial=… not_after=… spki_sha256=…`.
    pub detail: String,
}

/// A certificate and its private key, made here.
pub struct KeyAndCertificate {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PKCS #8 in PEM.
    pub key_pem: Zeroizing<String>,
    /// What the audit trail says about it: `serial=… not_after=… spki_sha256=…`.
    pub detail: String,
    /// When the certificate ends, Unix seconds.
    pub not_after: i64,
}

/// Why a certificate was not issued, or there is no CA.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The store has no CA.
    #[error(
        "the store holds no certificate authority: the directory was not made by `fieldkeep init`, or that did not finish; make a new one"
    )]
    NotInitialised,
    /// The record is not one of this version; it is authenticated, so that nobody else wrote it.
    #[error(
        "the record of the certificate authority cannot be read by this version: start the version that wrote it"
    )]
    UnknownRecord,
    /// The configuration names another trust domain than `init` did.
    #[error(
        "setting `tls.trust_domain` is `{configured}`, but this directory was made for `{recorded}`: set it to that"
    )]
    TrustDomain {
        /// In the configuration.
        configured: String,
        /// In the record.
        recorded: String,
    },
    /// The signing request cannot be used.
    #[error("the signing request {problem}")]
    Request {
        /// What is wrong and what to do.
        problem: &'static str,
    },
    /// The life asked for is out of range.
    #[error("the life of this certificate is 1 to {max_s} seconds, not {ttl_s}{}", advice(*max_s))]
    Ttl {
        /// What was asked for, seconds.
        ttl_s: u64,
        /// The most that is given, seconds.
        max_s: u64,
    },
    /// A server name is neither a DNS name nor an IP address.
    #[error("`{name}` is neither a DNS name nor an IP address")]
    ServerName {
        /// What was given.
        name: String,
    },
    /// The CA itself has ended.
    #[error(
        "the certificate authority of this directory has expired: make a new directory with `fieldkeep init`"
    )]
    Expired,
    /// Making or signing failed.
    #[error("the certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    /// There are no random numbers.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The keystore refused or failed.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
}

impl Ca {
    /// Makes the CA of a new store, once. `now` is in Unix seconds.
    ///
    /// # Errors
    /// The store has a CA already ([`KeystoreError::Conflict`]), or cannot be written.
    pub async fn make(
        keystore: &Keystore,
        trust_domain: &str,
        operation: Operation,
        now: u64,
    ) -> Result<Changed<Ca>, CaError> {
        let key = Key::make()?;
        let not_after = now.saturating_add(CA_TTL_S);
        let mut params = make_params(now, not_after)?;
        let store_id = data_encoding::HEXLOWER.encode(keystore.store_id().as_bytes());
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Fieldkeep CA {store_id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate_pem = params.self_signed(&key.0)?.pem();
        let record = CaRecord {
            wrapped_key: keystore.wrap_system_secret(SECRET_ID, key.0.serialized_der(), now)?,
            trust_domain: trust_domain.to_owned(),
            certificate_pem,
        };
        let changed = keystore
            .change_system_record(
                RECORD_KEY,
                None,
                Some(&record.encode_to_vec()),
                operation,
                now,
            )
            .await?;
        Ok(Changed {
            value: Ca::open(keystore).await?,
            revision: changed.revision,
            repeated: changed.repeated,
            changes: changed.changes,
        })
    }

    /// Opens the CA of a store.
    ///
    /// # Errors
    /// [`CaError::NotInitialised`]; the record cannot be read or its key not unwrapped.
    pub async fn open(keystore: &Keystore) -> Result<Ca, CaError> {
        let record = keystore
            .system_record(RECORD_KEY)
            .await?
            .ok_or(CaError::NotInitialised)?;
        let record =
            CaRecord::decode(record.payload.as_ref()).map_err(|_| CaError::UnknownRecord)?;
        let pkcs8 = keystore.unwrap_system_secret(SECRET_ID, &record.wrapped_key)?;
        let document = PrivatePkcs8KeyDer::from(pkcs8.as_slice());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&document, &PKCS_ECDSA_P256_SHA256)?;
        let key = Key(key);
        let certificate = CertificateDer::from_pem_slice(record.certificate_pem.as_bytes())
            .map_err(|_| CaError::UnknownRecord)?;
        let not_after = not_after_of(&certificate)?;
        Ok(Ca {
            key,
            certificate,
            certificate_pem: record.certificate_pem,
            trust_domain: record.trust_domain,
            not_after,
        })
    }

    /// Refuses a configured trust domain that is not the one of this CA: no certificate of it would be accepted.
    ///
    /// # Errors
    /// [`CaError::TrustDomain`].
    pub fn check_trust_domain(&self, configured: &str) -> Result<(), CaError> {
        if configured == self.trust_domain {
            return Ok(());
        }
        Err(CaError::TrustDomain {
            configured: configured.to_owned(),
            recorded: self.trust_domain.clone(),
        })
    }

    /// The CA's certificate, DER: the one root that client certificates are verified against.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The CA's certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// SHA-256 of the certificate, `sha256:` and small hexadecimal digits: what a new workload knows the service by.
    pub fn fingerprint(&self) -> String {
        let digest = digest(&SHA256, &self.certificate);
        format!("sha256:{}", data_encoding::HEXLOWER.encode(digest.as_ref()))
    }

    /// The trust domain of the identities it issues.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Signs a client certificate for `identity`. Of the signing request (PKCS #10, DER) only the public key is used, after
    /// its signature has shown that the caller has the private key. The life of `ttl_s` seconds, [`CLIENT_TTL_S`] if 0 and
    /// at most `max_s`, ends no later than the CA's own. `now` is in Unix seconds.
    ///
    /// # Errors
    /// The request is malformed, not signed by its own key, or of a kind of key that is not accepted; the life is out of range.
    pub fn issue(
        &self,
        csr_der: &[u8],
        identity: &Identity,
        ttl_s: u64,
        max_s: u64,
        now: u64,
    ) -> Result<Issued, CaError> {
        let public_key = request::public_key(csr_der)?;
        self.issue_to(&public_key, identity, ttl_s, max_s, now)
    }

    /// Makes a private key and a client certificate for `identity`, at most for [`OPERATOR_TTL_S`]: on the host itself. As
    /// [`Ca::issue`] otherwise.
    ///
    /// # Errors
    /// The life is out of range.
    pub fn make_identity(
        &self,
        identity: &Identity,
        ttl_s: u64,
        now: u64,
    ) -> Result<KeyAndCertificate, CaError> {
        let key = Key::make()?;
        let issued = self.issue_to(&key.0, identity, ttl_s, OPERATOR_TTL_S, now)?;
        Ok(KeyAndCertificate {
            certificate_pem: issued.certificate_pem,
            key_pem: Zeroizing::new(key.0.serialize_pem()),
            not_after: issued.not_after,
            detail: issued.detail,
        })
    }

    /// Makes a private key and a server certificate for DNS names and IP addresses, for `ttl_s` seconds from `now`.
    ///
    /// # Errors
    /// A name is neither a DNS name nor an IP address; the life is out of range.
    pub fn make_server_certificate(
        &self,
        names: &[String],
        ttl_s: u64,
        now: u64,
    ) -> Result<KeyAndCertificate, CaError> {
        let not_after = self.end(ttl_s, MAX_TTL_S, now)?;
        let mut params = make_params(now, not_after)?;
        params
            .distinguished_name
            .push(DnType::CommonName, "Fieldkeep server");
        params.subject_alt_names = names
            .iter()
            .map(|name| server_name(name))
            .collect::<Result<_, _>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = Key::make()?;
        Ok(KeyAndCertificate {
            detail: detail(&params, &key.0, not_after),
            certificate_pem: params.signed_by(&key.0, &self.issuer()?)?.pem(),
            key_pem: Zeroizing::new(key.0.serialize_pem()),
            not_after: seconds(not_after),
        })
    }

    fn issue_to(
        &self,
        public_key: &impl PublicKeyData,
        identity: &Identity,
        ttl_s: u64,
        max_s: u64,
        now: u64,
    ) -> Result<Issued, CaError> {
        let ttl_s = if ttl_s == 0 { CLIENT_TTL_S } else { ttl_s };
        let not_after = self.end(ttl_s, max_s, now)?;
        let mut params = make_params(now, not_after)?;
        // For people; the identity is the URI.
        params
            .distinguished_name
            .push(DnType::OrganizationName, identity.tenant().as_str());
        params
            .distinguished_name
            .push(DnType::CommonName, identity.name().as_str());
        let uri = identity.spiffe_uri(&self.trust_domain);
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(Issued {
            detail: detail(&params, public_key, not_after),
            certificate_pem: params.signed_by(public_key, &self.issuer()?)?.pem(),
            ca_pem: self.certificate_pem.clone(),
            not_after: seconds(not_after),
        })
    }

    fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, CaError> {
        Ok(Issuer::from_ca_cert_der(&self.certificate, &self.key.0)?)
    }

    /// When a certificate of `ttl_s` seconds ends: never after the CA.
    fn end(&self, ttl_s: u64, max_s: u64, now: u64) -> Result<u64, CaError> {
        if !(1..=max_s).contains(&ttl_s) {
            return Err(CaError::Ttl { ttl_s, max_s });
        }
        if now >= self.not_after {
            return Err(CaError::Expired);
        }
        Ok(now.saturating_add(ttl_s).min(self.not_after))
    }
}

/// What whoever wants a longer life does instead.
fn advice(max_s: u64) -> &'static str {
    if max_s == CLIENT_TTL_S {
        "; a client renews its certificate before the end, the SDK by itself and `fieldkeep cert renew` for people"
    } else {
        ""
    }
}

/// A key pair whose private key is wiped when it goes.
struct Key(KeyPair);

impl Key {
    fn make() -> Result<Key, CaError> {
        Ok(Key(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What all certificates share: a random serial number of 16 bytes, and their times.
fn make_params(now: u64, not_after: u64) -> Result<CertificateParams, CaError> {
    let mut serial = [0; 16];
    random::fill(&mut serial)?;
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    params.not_before = date(now.saturating_sub(BACKDATE_S))?;
    params.not_after = date(not_after)?;
    Ok(params)
}

/// Names a certificate and the key in it for the audit trail.
fn detail(params: &CertificateParams, key: &impl PublicKeyData, not_after: u64) -> String {
    let serial = params.serial_number.as_ref().map(SerialNumber::to_bytes);
    let spki = digest(&SHA256, &key.subject_public_key_info());
    format!(
        "serial={} not_after={not_after} spki_sha256={}",
        serial_text(&serial.unwrap_or_default()),
        data_encoding::HEXLOWER.encode(spki.as_ref()),
    )
}

fn server_name(name: &str) -> Result<SanType, CaError> {
    let refuse = || CaError::ServerName {
        name: name.to_owned(),
    };
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    rustls_pki_types::DnsName::try_from(name).map_err(|_| refuse())?;
    Ok(SanType::DnsName(name.try_into().map_err(|_| refuse())?))
}

fn date(unix_s: u64) -> Result<OffsetDateTime, CaError> {
    OffsetDateTime::from_unix_timestamp(seconds(unix_s))
        .map_err(|_| CaError::Certificate(rcgen::Error::Time))
}

fn seconds(unix_s: u64) -> i64 {
    i64::try_from(unix_s).unwrap_or(i64::MAX)
}

fn not_after_of(certificate: &[u8]) -> Result<u64, CaError> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|_| CaError::UnknownRecord)?;
    u64::try_from(parsed.validity().not_after.timestamp()).map_err(|_| CaError::UnknownRecord)
}
