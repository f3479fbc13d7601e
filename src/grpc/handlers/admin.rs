//! The services of administration: tenants, keys, system.

use fieldkeep_proto::v1::key_service_server::KeyService;
use fieldkeep_proto::v1::system_service_server::SystemService;
use fieldkeep_proto::v1::tenant_service_server::TenantService;
use fieldkeep_proto::v1::{
    CreateKeyRequest, CreateTenantRequest, DisableKeyRequest, DisableKeyVersionRequest,
    EnableKeyRequest, EnableKeyVersionRequest, GetKeyRequest, GetKeyUsageRequest, GetStatusRequest,
    GetStatusResponse, Key, KeyUsage, ListKeysRequest, ListKeysResponse, ListTenantsRequest,
    ListTenantsResponse, RotateKeyRequest, SetKeyAuditItemsRequest, SetKeyRotationRequest, Tenant,
};
use tonic::{Request, Response, Status};

use super::{Handlers, take};
use crate::grpc::convert::{admin, rotation};
use crate::grpc::status::respond;
use crate::service::system::ReadStatus;

#[tonic::async_trait]
impl TenantService for Handlers {
    async fn create_tenant(
        &self,
        request: Request<CreateTenantRequest>,
    ) -> Result<Response<Tenant>, Status> {
        let (call, parsed) = take(request, admin::create_tenant)?;
        respond(self.service.perform(call, parsed).await, admin::tenant)
    }

    async fn list_tenants(
        &self,
        request: Request<ListTenantsRequest>,
    ) -> Result<Response<ListTenantsResponse>, Status> {
        let (call, parsed) = take(request, admin::list_tenants)?;
        respond(self.service.perform(call, parsed).await, admin::tenants)
    }
}

#[tonic::async_trait]
impl KeyService for Handlers {
    async fn create_key(
        &self,
        request: Request<CreateKeyRequest>,
    ) -> Result<Response<Key>, Status> {
        let (call, parsed) = take(request, admin::create_key)?;
        respond(self.service.perform(call, parsed).await, admin::key)
    }

    async fn get_key(&self, request: Request<GetKeyRequest>) -> Result<Response<Key>, Status> {
        let (call, parsed) = take(request, admin::describe_key)?;
        respond(self.service.perform(call, parsed).await, admin::key)
    }

    async fn list_keys(
        &self,
        request: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        let (call, parsed) = take(request, admin::list_keys)?;
        respond(self.service.perform(call, parsed).await, admin::keys)
    }

    async fn rotate_key(
        &self,
        request: Request<RotateKeyRequest>,
    ) -> Result<Response<Key>, Status> {
        let (call, parsed) = take(request, admin::rotate_key)?;
        respond(self.service.perform(call, parsed).await, admin::key)
    }

    async fn enable_key(
        &self,
        request: Request<EnableKeyRequest>,
    ) -> Result<Response<Key>, Status> {
        let (call, parsed) = take(request, |message| {
            admin::key_state(message.name.clone(), &message.request_id, &message, true)
        })?;
        respond(self.service.perform(call, parsed).await, admin::key)
    }

    async fn disable_key(
        &self,
        request: Request<DisableKeyRequest>,
    ) -> Result<Response<Key>, Status> {
        let (call, parsed) = take(request, |message| {
            admin::key_state(message.name.clone(), &message.request_id, &message, false)
        })?;
        respond(self.service.perform(call, parsed).await, admin::key)
    }

    async fn enable_key_version(
        &self,
        request: Request<EnableKeyVersionRequest>,
    ) -> Result<Response<Key>, Status> {
        let (call, parsed) = take(request, |message| {
            admin::version_state(&message.name, &message.request_id, &message, true)
        })?;
        respond(self.service.perform(call, parsed).await, admin::key)
    }

    async fn disable_key_version(
        &self,
        request: Request<DisableKeyVersionRequest>,
    ) -> Result<Response<Key>, Status> {
        let (call, parsed) = take(request, |message| {
            admin::version_state(&message.name, &message.request_id, &message, false)
        })?;
        respond(self.service.perform(call, parsed).await, admin::key)
    }

    async fn set_key_rotation(
        &self,
        request: Request<SetKeyRotationRequest>,
    ) -> Result<Response<Key>, Status> {
        let (call, parsed) = take(request, rotation::set_rotation)?;
        respond(self.service.perform(call, parsed).await, admin::key)
    }

    async fn set_key_audit_items(
        &self,
        request: Request<SetKeyAuditItemsRequest>,
    ) -> Result<Response<Key>, Status> {
        let (call, parsed) = take(request, admin::set_audit_items)?;
        respond(self.service.perform(call, parsed).await, admin::key)
    }

    async fn get_key_usage(
        &self,
        request: Request<GetKeyUsageRequest>,
    ) -> Result<Response<KeyUsage>, Status> {
        let (call, parsed) = take(request, rotation::read_usage)?;
        respond(self.service.perform(call, parsed).await, rotation::usage)
    }
}

#[tonic::async_trait]
impl SystemService for Handlers {
    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let (call, parsed) = take(request, |_| Ok(ReadStatus))?;
        respond(self.service.perform(call, parsed).await, admin::status)
    }
}
