//! The ids of management operations, by which a repeated call gets its first outcome, and how what they changed goes on record.

use bytes::Bytes;
use fieldkeep_crypto::random::{self, RandomError};
use fieldkeep_keystore::info::Changed;
use fieldkeep_keystore::store::Operation as StoreOperation;
use ring::digest::{Context, Digest, SHA256};

use crate::access::grant::{self, GrantId};
use crate::service::Core;
use crate::service::failure::Failure;
use crate::service::perform::permit::Permit;
use crate::service::record::Account;

/// What a management request says about its identity: its id, if the caller chose one, and a hash of the whole request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeatable {
    request_id: Option<[u8; 16]>,
    fingerprint: [u8; 32],
}

impl Repeatable {
    /// `request_id` is a UUID or empty; `request` is the encoded message.
    ///
    /// # Errors
    /// [`Failure::Invalid`] if it is neither.
    pub fn parse(request_id: &str, request: &[u8]) -> Result<Self, Failure> {
        let request_id = match request_id {
            "" => None,
            text => Some(parse_uuid(text).ok_or_else(|| {
                Failure::invalid(
                    "request_id",
                    "not a UUID such as `f81d4fae-7dec-11d0-a765-00a0c91e6bf6`",
                )
            })?),
        };
        let mut context = Context::new(&SHA256);
        context.update(request);
        Ok(Self {
            request_id,
            fingerprint: take(&context.finish()),
        })
    }

    /// Begins the operation, which changes the record under `store_key`: its intent is on record. An id that the caller chose counts
    /// for its tenant, identity and RPC alone.
    ///
    /// # Errors
    /// As [`Permit::begin`].
    pub(super) async fn begin(
        &self,
        permit: &Permit<'_>,
        store_key: impl Into<Bytes>,
        account: &mut Account,
    ) -> Result<StoreOperation, Failure> {
        let planned = self.plan(permit)?;
        permit.begin(planned, store_key.into(), account).await
    }

    /// The operation, before it is begun.
    ///
    /// # Errors
    /// If the operating system has no random numbers.
    pub(super) fn plan(&self, permit: &Permit<'_>) -> Result<Planned, Failure> {
        let principal = permit.principal();
        let id = match self.request_id {
            Some(request_id) => derive_id(
                principal.tenant.as_str(),
                &principal.resource,
                permit.rpc(),
                &request_id,
            ),
            None => {
                let mut id = [0; 16];
                random::fill(&mut id)?;
                id
            }
        };
        Ok(Planned(StoreOperation {
            id,
            fingerprint: self.fingerprint,
        }))
    }
}

/// An operation of the store whose intent is not on record yet. Nothing can be committed under it, see
/// [`crate::service::intent::Intents::write`].
pub(super) struct Planned(StoreOperation);

impl Planned {
    /// One that nobody repeats.
    ///
    /// # Errors
    /// If the operating system has no random numbers.
    pub(super) fn make() -> Result<Planned, RandomError> {
        StoreOperation::make().map(Planned)
    }

    /// One of the service's own.
    pub(super) fn own(operation: StoreOperation) -> Planned {
        Planned(operation)
    }

    /// The store key of the grant that it would make.
    pub(super) fn grant_key(&self) -> String {
        grant::key_of(&GrantId::of_operation(&self.0))
    }

    /// The operation, for whoever has written its intent.
    pub(super) fn into_inner(self) -> StoreOperation {
        self.0
    }
}

impl Core {
    /// Puts a change of the store on record. One that was made before, perhaps by a call whose record was not written, is told by
    /// what the store holds under `key` now.
    pub(super) async fn record_change<T>(
        &self,
        account: &mut Account,
        changed: &Changed<T>,
        key: &str,
    ) -> Result<(), Failure> {
        account.changed(changed);
        if changed.changes.is_empty() {
            account.present(&self.access.present(key).await?);
        }
        Ok(())
    }
}

/// The first 16 bytes of SHA-256 over tenant, principal, RPC (each with a zero byte behind it) and request id.
fn derive_id(tenant: &str, principal: &str, rpc: &str, request_id: &[u8; 16]) -> [u8; 16] {
    let mut context = Context::new(&SHA256);
    for part in [tenant, principal, rpc] {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    context.update(request_id);
    take(&context.finish())
}

fn take<const N: usize>(digest: &Digest) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    out
}

/// The 16 bytes of a UUID in its one textual form, 8-4-4-4-12 hexadecimal digits.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let dashes = [8, 13, 18, 23];
    if text.len() != 36
        || !text
            .bytes()
            .enumerate()
            .all(|(i, byte)| (byte == b'-') == dashes.contains(&i))
    {
        return None;
    }
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    data_encoding::HEXLOWER_PERMISSIVE
        .decode(&digits)
        .ok()?
        .try_into()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids() {
        let id = parse_uuid("f81d4fae-7dec-11d0-a765-00a0c91e6bf6").unwrap();
        assert_eq!(id[..4], [0xf8, 0x1d, 0x4f, 0xae]);
        assert_eq!(
            parse_uuid("F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6").unwrap(),
            id
        );
        for text in [
            "f81d4fae7dec11d0a76500a0c91e6bf6",
            "f81d4fae-7dec-11d0-a765-00a0c91e6bfg",
            "f81d4fa-e7dec-11d0-a765-00a0c91e6bf6",
            "x",
        ] {
            assert_eq!(parse_uuid(text), None, "{text}");
        }
    }

    #[test]
    fn ids_differ_by_every_part() {
        let id = derive_id("t", "p", "r", &[1; 16]);
        assert_eq!(id, derive_id("t", "p", "r", &[1; 16]));
        for other in [
            derive_id("u", "p", "r", &[1; 16]),
            derive_id("t", "q", "r", &[1; 16]),
            derive_id("t", "p", "s", &[1; 16]),
            derive_id("t", "p", "r", &[2; 16]),
            derive_id("tp", "", "r", &[1; 16]),
        ] {
            assert_ne!(id, other);
        }
    }

    #[test]
    fn the_fingerprint_is_of_the_whole_request() {
        let a = Repeatable::parse("", b"one").unwrap();
        let b = Repeatable::parse("", b"two").unwrap();
        assert_ne!(a.fingerprint, b.fingerprint);
        assert!(matches!(
            Repeatable::parse("7", b""),
            Err(Failure::Invalid {
                field: "request_id",
                ..
            })
        ));
    }
}
