//! The service of API keys.

use fieldkeep_proto::v1::api_key_service_server::ApiKeyService;
use fieldkeep_proto::v1::{
    CreateApiKeyRequest, CreateApiKeyResponse, ListApiKeysRequest, ListApiKeysResponse,
    RevokeApiKeyRequest, RevokeApiKeyResponse, RotateApiKeyRequest, RotateApiKeyResponse,
};
use tonic::{Request, Response, Status};

use super::{Handlers, take};
use crate::grpc::convert::api_keys;
use crate::grpc::status::respond;

#[tonic::async_trait]
impl ApiKeyService for Handlers {
    async fn create_api_key(
        &self,
        request: Request<CreateApiKeyRequest>,
    ) -> Result<Response<CreateApiKeyResponse>, Status> {
        let (call, parsed) = take(request, api_keys::create)?;
        respond(self.service.perform(call, parsed).await, api_keys::created)
    }

    async fn rotate_api_key(
        &self,
        request: Request<RotateApiKeyRequest>,
    ) -> Result<Response<RotateApiKeyResponse>, Status> {
        let (call, parsed) = take(request, api_keys::rotate)?;
        respond(self.service.perform(call, parsed).await, api_keys::rotated)
    }

    async fn revoke_api_key(
        &self,
        request: Request<RevokeApiKeyRequest>,
    ) -> Result<Response<RevokeApiKeyResponse>, Status> {
        let (call, parsed) = take(request, api_keys::revoke)?;
        let revoked = self.service.perform(call, parsed).await;
        respond(revoked, |()| RevokeApiKeyResponse {})
    }

    async fn list_api_keys(
        &self,
        request: Request<ListApiKeysRequest>,
    ) -> Result<Response<ListApiKeysResponse>, Status> {
        let (call, parsed) = take(request, api_keys::list)?;
        respond(self.service.perform(call, parsed).await, api_keys::listed)
    }
}
