//! The signature algorithms that an issuer can be pinned to, and the one place that verifies with them.
//!
//! There is no variant for `none` and none for an HMAC, so neither can be configured: a public key can never be taken
//! for a shared secret. `jsonwebtoken` reads the token and calls [`PROVIDER`], which verifies with ring alone.

use jsonwebtoken::{
    Algorithm as Named, AlgorithmFamily, DecodingKey, DecodingKeyKind,
    crypto::{CryptoProvider, JwtVerifier, KeyUtils},
    errors::ErrorKind,
    signature::{Error as Mismatch, Verifier},
};
use ring::signature as ring_signature;

/// An asymmetric signature algorithm of RFC 7518, section 3.1, or RFC 8037.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// ECDSA with P-384 and SHA-384.
    Es384,
    /// EdDSA with Ed25519.
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Algorithm; 9] = [
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::EdDsa,
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
    ];

    /// Those of an RSA key.
    pub(super) const RSA: [Algorithm; 6] = [
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
    ];

    /// The name in `alg`.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::EdDsa => "EdDSA",
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Rs512 => "RS512",
            Algorithm::Ps256 => "PS256",
            Algorithm::Ps384 => "PS384",
            Algorithm::Ps512 => "PS512",
        }
    }

    /// The algorithm with this name, compared by bytes as RFC 7515, section 4.1.1, says.
    pub fn parse(name: &str) -> Option<Algorithm> {
        Algorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
    }

    /// What `jsonwebtoken` calls it.
    pub(super) fn named(self) -> Named {
        match self {
            Algorithm::Es256 => Named::ES256,
            Algorithm::Es384 => Named::ES384,
            Algorithm::EdDsa => Named::EdDSA,
            Algorithm::Rs256 => Named::RS256,
            Algorithm::Rs384 => Named::RS384,
            Algorithm::Rs512 => Named::RS512,
            Algorithm::Ps256 => Named::PS256,
            Algorithm::Ps384 => Named::PS384,
            Algorithm::Ps512 => Named::PS512,
        }
    }

    /// The algorithm that a token's header names; none for an HMAC.
    pub(super) fn of(named: Named) -> Option<Algorithm> {
        Algorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.named() == named)
    }
}

/// Has `jsonwebtoken` verify with ring. It keeps its provider for the process and panics without one, so whoever makes a
/// verifier asks first.
///
/// # Errors
/// Another provider was there before, which is a defect of the build.
pub(super) fn install() -> Result<(), ForeignProvider> {
    // Of two who install at once one is refused, and finds the provider installed nevertheless.
    let _ = PROVIDER.install_default();
    match CryptoProvider::try_get_default() {
        Some(provider) if std::ptr::eq(provider, &PROVIDER) => Ok(()),
        _ => Err(ForeignProvider),
    }
}

/// `jsonwebtoken` verifies with another library than ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tokens would be verified by another library than ring: this build is defective")]
pub struct ForeignProvider;

/// Verifies only. Nothing here signs a token or makes a key of a private one.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: |named, key| {
        let algorithm = Algorithm::of(*named).ok_or(ErrorKind::UnsupportedAlgorithm)?;
        // A key of another type never meets the algorithm, whatever a token says.
        if key.family() != named.family() || key.family() == AlgorithmFamily::Hmac {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        Ok(Box::new(RingVerifier {
            algorithm,
            key: key.clone(),
        }))
    },
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(ErrorKind::UnsupportedAlgorithm.into()),
        rsa_pub_components_from_public_key: |_| Err(ErrorKind::UnsupportedAlgorithm.into()),
        ec_pub_components_from_private_key: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
        ed_pub_components_from_private_key: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
        compute_digest: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    },
};

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Named {
        self.algorithm.named()
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), Mismatch> {
        let raw =
            |algorithm: &'static dyn ring_signature::VerificationAlgorithm| match self.key.kind() {
                DecodingKeyKind::SecretOrDer(bytes) => {
                    ring_signature::UnparsedPublicKey::new(algorithm, bytes)
                        .verify(message, signature)
                }
                DecodingKeyKind::RsaModulusExponent { .. } => Err(ring::error::Unspecified),
            };
        let rsa = |parameters: &'static ring_signature::RsaParameters| match self.key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                ring_signature::RsaPublicKeyComponents { n, e }
                    .verify(parameters, message, signature)
            }
            DecodingKeyKind::SecretOrDer(_) => Err(ring::error::Unspecified),
        };
        let verified = match self.algorithm {
            Algorithm::Es256 => raw(&ring_signature::ECDSA_P256_SHA256_FIXED),
            Algorithm::Es384 => raw(&ring_signature::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDsa => raw(&ring_signature::ED25519),
            Algorithm::Rs256 => rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::Rs384 => rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::Rs512 => rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::Ps256 => rsa(&ring_signature::RSA_PSS_2048_8192_SHA256),
            Algorithm::Ps384 => rsa(&ring_signature::RSA_PSS_2048_8192_SHA384),
            Algorithm::Ps512 => rsa(&ring_signature::RSA_PSS_2048_8192_SHA512),
        };
        verified.map_err(|_| Mismatch::new())
    }
}
