//! Suite 01 over the items of a batch, and nothing else.

use bytes::Bytes;
use fieldkeep_crypto::{
    ciphertext::{Ciphertext, Handle, Suite},
    context::EncodedContext,
    keys::{Dek, FieldKey, Nonces},
    names::Field,
};
use fieldkeep_proto::v1;
use tonic::Status;

use crate::rows::OLD_KEY;

/// Two versions of one key. What is asked for under [`OLD_KEY`] is sealed with the first, all else with the second.
pub(super) struct Cipher {
    versions: [FieldKey; 2],
}

impl Cipher {
    pub(super) fn make() -> Self {
        let dek = Dek::make().expect("random bytes");
        let handle = Handle::make().expect("random bytes");
        let field = Field::parse("customer.email").expect("a name");
        let version =
            |number| dek.derive_field_key(Suite::KcXaes256Gcm, "default", handle, number, field);
        Self {
            versions: [version(1), version(2)],
        }
    }

    pub(super) fn seal(
        &self,
        request: v1::BatchEncryptRequest,
    ) -> Result<Vec<v1::EncryptResult>, Status> {
        let version = usize::from(request.key != OLD_KEY);
        let key = &self.versions[version];
        let mut nonces = Nonces::make(request.items.len()).map_err(internal)?;
        let mut results = Vec::with_capacity(request.items.len());
        for item in request.items {
            let context = context(&item.context)?;
            let ciphertext = sealed(key, &mut nonces, &context, &item.plaintext)?;
            results.push(v1::EncryptResult {
                ciphertext,
                version: version as u32 + 1,
                error: None,
            });
        }
        Ok(results)
    }

    pub(super) fn open(
        &self,
        request: v1::BatchDecryptRequest,
    ) -> Result<Vec<v1::DecryptResult>, Status> {
        let mut results = Vec::with_capacity(request.items.len());
        for item in request.items {
            let (plaintext, _) = self.opened(&item.ciphertext, &context(&item.context)?)?;
            results.push(v1::DecryptResult {
                plaintext: Bytes::from(plaintext),
                ..Default::default()
            });
        }
        Ok(results)
    }

    /// Opens everything, and seals again what is not of the second version.
    pub(super) fn reseal(
        &self,
        request: v1::BatchReEncryptRequest,
    ) -> Result<Vec<v1::ReEncryptResult>, Status> {
        let mut nonces = Nonces::make(request.items.len()).map_err(internal)?;
        let mut results = Vec::with_capacity(request.items.len());
        for item in request.items {
            let context = context(&item.context)?;
            let (plaintext, version) = self.opened(&item.ciphertext, &context)?;
            let changed = version != 2;
            let ciphertext = if changed {
                sealed(&self.versions[1], &mut nonces, &context, &plaintext)?
            } else {
                item.ciphertext
            };
            results.push(v1::ReEncryptResult {
                ciphertext,
                version: 2,
                changed,
                error: None,
            });
        }
        Ok(results)
    }

    fn opened(&self, bytes: &[u8], context: &EncodedContext) -> Result<(Vec<u8>, u32), Status> {
        let ciphertext = Ciphertext::parse(bytes).map_err(internal)?;
        let version = ciphertext.version();
        let mut out = Vec::with_capacity(ciphertext.plaintext_len() + 16);
        self.versions[version as usize - 1]
            .open(&ciphertext, context, &mut out)
            .map_err(internal)?;
        Ok((out, version))
    }
}

fn sealed(
    key: &FieldKey,
    nonces: &mut Nonces,
    context: &EncodedContext,
    plaintext: &[u8],
) -> Result<Bytes, Status> {
    let nonce = nonces
        .next_nonce()
        .ok_or_else(|| Status::internal("nonces"))?;
    let mut out = Vec::with_capacity(plaintext.len() + 86);
    key.seal(nonce, context, plaintext, &mut out)
        .map_err(internal)?;
    Ok(Bytes::from(out))
}

fn context(pairs: &[v1::ContextPair]) -> Result<EncodedContext, Status> {
    let pairs = pairs
        .iter()
        .map(|pair| (pair.name.as_str(), pair.value.as_str()));
    EncodedContext::encode(pairs).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}
