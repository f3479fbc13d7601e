//! Signing requests (PKCS #10, RFC 2986).

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SubjectPublicKeyInfo};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer as _};

use super::CaError;

/// The largest signing request that is read, bytes.
const MAX_REQUEST_BYTES: usize = 8192;

/// The public key of a signing request whose signature shows that the sender has the private key.
///
/// Everything else in it, the names above all, is not read: the caller says for whom the certificate is.
pub(super) fn public_key(csr_der: &[u8]) -> Result<SubjectPublicKeyInfo, CaError> {
    let refuse = |problem| CaError::Request { problem };
    if csr_der.len() > MAX_REQUEST_BYTES {
        return Err(refuse("is larger than 8,192 bytes"));
    }
    let (rest, request) = X509CertificationRequest::from_der(csr_der)
        .map_err(|_| refuse("is not PKCS #10 in DER: convert a PEM file first"))?;
    if !rest.is_empty() {
        return Err(refuse("has bytes after its end"));
    }
    let unsupported =
        || refuse("has a key of an unsupported kind: use ECDSA P-256, ECDSA P-384 or Ed25519");
    let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
        .map_err(|_| unsupported())?;
    let accepted = [
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ED25519,
    ];
    if !accepted.contains(&rcgen::PublicKeyData::algorithm(&key)) {
        return Err(unsupported());
    }
    request
        .verify_signature()
        .map_err(|_| refuse("is not signed by the private key of its own public key"))?;
    Ok(key)
}
