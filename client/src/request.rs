//! A private key and the request for its certificate.

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use zeroize::Zeroizing;

/// A new private key, PEM, and a signing request for it, PKCS #10 in DER. Names in the request would not be read.
pub(crate) struct NewKey {
    pub(crate) key_pem: Zeroizing<String>,
    pub(crate) csr_der: Vec<u8>,
}

impl NewKey {
    /// Makes an ECDSA P-256 key.
    pub(crate) fn make() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let request = CertificateParams::default().serialize_request(&key)?;
        Ok(Self {
            key_pem: Zeroizing::new(key.serialize_pem()),
            csr_der: request.der().to_vec(),
        })
    }
}
