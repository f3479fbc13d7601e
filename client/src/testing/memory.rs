//! The double as a carrier of calls: finds the service that a call names, over the code generated for servers.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use fieldkeep_keystore::{keystore::Keystore, store::Operation};
use fieldkeep_proto::v1::{
    field_service_server::FieldServiceServer, key_service_server::KeyServiceServer,
    system_service_server::SystemServiceServer, tenant_service_server::TenantServiceServer,
};
use http::{Request, Response};
use tonic::{Code, Status, body::Body};
use tower::Service as _;

use super::refusal::Refusal;
use crate::{pool::MAX_MESSAGE_BYTES, reason};

/// The double. A clone is the same one.
#[derive(Clone)]
pub(crate) struct Memory {
    pub(super) keystore: Arc<Keystore>,
}

impl Memory {
    pub(super) fn new(keystore: Keystore) -> Self {
        Self {
            keystore: Arc::new(keystore),
        }
    }

    /// Answers one call, whose path is `/{package}.{service}/{method}`.
    pub(crate) async fn answer(self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path();
        let service = path.split('/').nth(1).unwrap_or_default();
        let answer = match service {
            "fieldkeep.v1.FieldService" => {
                FieldServiceServer::new(self)
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES)
                    .call(request)
                    .await
            }
            "fieldkeep.v1.KeyService" => KeyServiceServer::new(self).call(request).await,
            "fieldkeep.v1.TenantService" => TenantServiceServer::new(self).call(request).await,
            "fieldkeep.v1.SystemService" => SystemServiceServer::new(self).call(request).await,
            _ => Ok(Status::from(unsupported(path)).into_http()),
        };
        match answer {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// What a call gets that the double has nothing for.
fn unsupported(what: &str) -> Refusal {
    Refusal::new(
        Code::Unimplemented,
        reason::INTERNAL,
        format!("the in-memory Fieldkeep has no `{what}`: test it against a service"),
    )
}

/// Unix seconds.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

/// The operation of a change whose request has this id.
pub(super) fn operation(request_id: &str) -> Result<Operation, Refusal> {
    let digits: String = request_id.chars().filter(|c| *c != '-').collect();
    let id = u128::from_str_radix(&digits, 16)
        .map_err(|_| Refusal::invalid("request_id", "not a UUID"))?;
    Ok(Operation {
        id: id.to_be_bytes(),
        fingerprint: [0; 32],
    })
}
